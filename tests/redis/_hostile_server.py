"""A TCP server that speaks RESP up to the script's calls, and answers those as a test says."""

from __future__ import annotations

import itertools
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Self

Send = Callable[[bytes], object]
Answer = Callable[[list[bytes], Send], object]
"""What answers a call of the script: is given its operations, and what sends bytes."""


class HostileServer:
    """One server, which also says that it is a cluster of one node.

    Args:
        answer: answers each call of the script; to hang up it raises OSError.

    Attributes:
        url: its URL, without options.
        calls: the operations of each call of the script that came.
        connections: how many were accepted so far.
        password: what AUTH has to say, None for anything.
    """

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.calls: list[list[bytes]] = []
        self.connections = 0
        self.password: bytes | None = None
        self._open: list[socket.socket] = []
        self._closed = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.cluster_url = f"redis+cluster://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed = True
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # closing it ends no `accept` that waits
        self._listener.close()
        for each in self._open:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            self._open.append(client)
            if self._closed:
                client.close()
                return
            threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError, ValueError), client, client.makefile("rb") as lines:
            while line := lines.readline():
                words: list[bytes] = []
                for _ in range(int(line[1:])):
                    length = int(lines.readline()[1:])
                    words.append(lines.read(length))
                    lines.read(2)
                self._reply(words, client.sendall)

    def _reply(self, words: list[bytes], send: Send) -> None:
        name = words[0].upper()
        if name in (b"FCALL", b"EVALSHA", b"EVAL"):
            operations = words[3 + int(words[2]) + 2 :]
            self.calls.append(operations)
            self.answer(operations, send)
        elif name == b"HELLO" and self.password not in (None, words[-1]):
            send(b"-WRONGPASS invalid username-password pair or user is disabled.\r\n")
        elif name == b"HELLO":
            send(b"%1\r\n$5\r\nproto\r\n:3\r\n")
        elif name == b"AUTH" and self.password not in (None, words[-1]):
            send(b"-WRONGPASS invalid username-password pair or user is disabled.\r\n")
        elif name in (b"SUBSCRIBE", b"SSUBSCRIBE"):
            for channel in words[1:]:
                send(b"*3\r\n$%d\r\n%s\r\n" % (len(name), name.lower()))
                send(b"$%d\r\n%s\r\n:1\r\n" % (len(channel), channel))
        elif name == b"CLUSTER":
            send(b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:%d\r\n" % self.port)
        elif name == b"SCAN":
            send(b"*2\r\n$1\r\n0\r\n*0\r\n")
        elif name == b"SMEMBERS":
            send(b"*0\r\n")
        else:
            send(b"+OK\r\n")


def well(operations: list[bytes], send: Send) -> None:
    """Answer as the script does where all slots are free."""
    said = {b"acquire": b"granted 7 30000000", b"renew": b"alive", b"sweep": b"-"}
    words = [each.split(b" ") for each in operations]
    text = b"\n".join(
        b" ".join(each[3:]) if each[2:3] == [b"layout"] else said.get(each[0], b"1")
        for each in words
    )
    send(b"$%d\r\n%s\r\n" % (len(text), text))


def _says(reply: bytes) -> Answer:
    return lambda _, send: send(reply)


def _hangs_up(_: list[bytes], send: Send) -> None:
    send(b"$100\r\ngranted")
    raise OSError


def _never_ends(head: bytes, part: bytes) -> Answer:
    def answer(_: list[bytes], send: Send) -> None:
        send(head)
        many = part * 100_000  # as fast as it can
        while True:
            send(many)

    return answer


def _drips(reply: bytes) -> Answer:
    def answer(_: list[bytes], send: Send) -> None:
        for byte in itertools.cycle(reply):
            send(bytes([byte]))
            time.sleep(0.05)

    return answer


HOSTILE: dict[str, Answer] = {
    "an array": _says(b"*2\r\n$1\r\na\r\n:1\r\n"),
    "an array in arrays": _says(b"*1\r\n" * 1000),
    "a map": _says(b"%1\r\n$5\r\nproto\r\n:3\r\n"),
    "a number": _says(b":7\r\n"),
    "a number that is none": _says(b":seven\r\n"),
    "a status": _says(b"+OK\r\n"),
    "nothing": _says(b"$-1\r\n"),
    "null": _says(b"_\r\n"),
    "no lines": _says(b"$0\r\n\r\n"),
    "a length that is none": _says(b"$-x1\r\n"),
    "a huge length": _says(b"$99999999999999\r\n"),
    "a wrong length": _says(b"$3\r\ngranted 7 30000000\r\n"),
    "no text": _says(b"$2\r\n\xff\xfe\r\n"),
    "words that are none": _says(b"$11\r\ngranted x y\r\n"),
    "too few words": _says(b"$7\r\ngranted\r\n"),
    "an error": _says(b"-ERR user_script:1: attempt to index a nil value\r\n"),
    "an error of no class": _says(b"-\xff\xfe\r\n"),
    "a redirection to nowhere": _says(b"-MOVED x\r\n"),
    "garbage": _says(b"\x00\x01\x02\r\n\r\n"),
    "another protocol": _says(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"),
    "a line that never ends": _never_ends(b"+", b"a"),
    "an array that never ends": _never_ends(b"*1000000\r\n", b":1\r\n"),
    "a text that never ends": _never_ends(b"$60000000\r\n", b"a"),
    "a byte now and then": _drips(b"+"),
    "a reply, byte by byte, that never ends": _drips(b"*9\r\n"),
    "silence": _says(b""),
    "a truncated reply": _hangs_up,
}

ONE_OF_EACH = (
    "an array",
    "a number",
    "nothing",
    "no text",
    "too few words",
    "an error",
    "garbage",
    "a text that never ends",
    "a reply, byte by byte, that never ends",
    "silence",
    "a truncated reply",
)
"""One for each way to fail."""
