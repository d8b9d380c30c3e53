"""Which of Celery's messages its broker's driver lost, by the log of the Redis server.

kombu takes a message from its list (BRPOP), and notes it as unacknowledged with a second command. A
worker or server that is killed between the two loses the message, with limits and without.
"""

from __future__ import annotations

import json
from collections import defaultdict, deque
from collections.abc import Iterator
from pathlib import Path

_UNACKED = b"unacked"


def lost_messages(folder: Path, header: str = "argsrepr") -> set[str]:
    """Return a header of each message that was taken and noted nowhere.

    A message that a worker has taken in this moment is among them.

    Args:
        folder: of a server that appends each write to its log.
        header: which: the task's arguments as text, unless given.
    """
    lists: defaultdict[bytes, deque[bytes]] = defaultdict(deque)
    taken: dict[bytes, bytes] = {}
    for name, *words in _commands(folder):
        match name.upper():
            case b"LPUSH":
                lists[words[0]].extendleft(words[1:])
            case b"RPUSH":
                lists[words[0]].extend(words[1:])
            case b"RPOP" if lists[words[0]]:
                message = lists[words[0]].pop()
                taken[_tag(message)] = message
            case b"HSET" if words[0] == _UNACKED:
                for tag in words[1::2]:
                    taken.pop(tag, None)
            case _:
                pass
    headers = (json.loads(message)["headers"] for message in taken.values())
    return {each[header] for each in headers if header in each}  # not in a remote control command


def _tag(message: bytes) -> bytes:
    tag: str = json.loads(message)["properties"]["delivery_tag"]
    return tag.encode()


def _commands(folder: Path) -> Iterator[list[bytes]]:
    """Yield the commands in the server's log; the last may have been cut off by a kill."""
    for path in sorted(folder.glob("appendonlydir/*.incr.aof")):
        lines = path.read_bytes()
        at = 0

        def number(lines: bytes = lines) -> int:
            nonlocal at
            end = lines.index(b"\r\n", at)
            value = int(lines[at + 1 : end])
            at = end + 2
            return value

        try:
            while at < len(lines):
                words: list[bytes] = []
                for _ in range(number()):
                    size = number()
                    words.append(lines[at : at + size])
                    at += size + 2
                yield words
        except ValueError:
            return
