"""The parser of replies: bytes come in pieces, and by the megabyte."""

from __future__ import annotations

from typing import Any

from limiter_redis.protocol.resp import LONGEST_REPLY, ReplyParser


def test_replies_come_out_whole_however_their_bytes_come() -> None:
    stream = (
        b"$5\r\nhello\r\n:42\r\n+OK\r\n-ERR no\r\n*2\r\n$1\r\na\r\n*1\r\n:1\r\n$-1\r\n"
        b">2\r\n+push\r\n+me\r\n%1\r\n+a\r\n:1\r\n_\r\n#t\r\n,1.5\r\n=7\r\ntxt:abc\r\n*0\r\n$0\r\n\r\n"
    )
    expected = [b"hello", 42, b"OK", [b"a", [1]], None, [b"a", 1], None, True, b"1.5", b"abc"]
    expected += [[], b""]
    for size in (1, 2, 3, 7, 64, len(stream)):
        parser = ReplyParser()
        found: list[Any] = []
        for start in range(0, len(stream), size):
            replies, trouble = parser.feed(stream[start : start + size])
            assert trouble is None
            found += replies
        assert str(found.pop(3)) == "no"
        assert found == expected
        assert not parser.has_begun


def test_a_reply_of_many_megabytes_is_read_in_parts_once() -> None:
    """Not from its beginning with each part: that would keep an event loop busy for seconds."""
    parser = ReplyParser()
    size = LONGEST_REPLY // 2
    parser.feed(b"$%d\r\n" % size)
    part = b"x" * 65536
    for _ in range(size // len(part)):
        replies, trouble = parser.feed(part)
        assert (replies, trouble) == ([], None)
    (reply,), _ = parser.feed(b"\r\n")
    assert len(reply) == size
