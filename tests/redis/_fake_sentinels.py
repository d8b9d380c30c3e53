"""A Sentinel that says what a test wants it to say."""

from __future__ import annotations

from ._hostile_server import HOSTILE, HostileServer, Send, well


class FakeSentinel(HostileServer):
    """A Sentinel that names a master.

    Attributes:
        named: the port of the master.
        epoch: of its configuration.
        behaves: how it answers, from now on, if that is not None: one of `HOSTILE`.
    """

    def __init__(self, port: int, epoch: int = 0) -> None:
        self.named = port
        self.epoch = epoch
        self.behaves: str | None = None
        super().__init__(well)

    def _reply(self, words: list[bytes], send: Send) -> None:
        if self.behaves is not None:
            HOSTILE[self.behaves](words, send)
        elif words[0].upper() != b"SENTINEL":
            super()._reply(words, send)
        elif words[1].upper() == b"MASTER":
            send(_array("config-epoch", str(self.epoch)))
        else:
            send(_array("127.0.0.1", str(self._port())))

    def _port(self) -> int:
        return self.named


def _array(*words: str) -> bytes:
    texts = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
    return f"*{len(words)}\r\n{texts}".encode()
