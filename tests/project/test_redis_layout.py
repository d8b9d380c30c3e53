"""The page on the Redis layout names all that the scripts use."""

from __future__ import annotations

import re
import threading
import time

import redis

from limiter_core import ConcurrencyLimit, SyncLimiter
from tests.project._tree import ROOT

PAGE = (ROOT / "docs" / "reference" / "redis-layout.md").read_text(encoding="utf-8")
IN_TABLES = set(re.findall(r"`([a-z_]+)`", "".join(re.findall(r"^\|.*\n", PAGE, re.MULTILINE))))


def source(pattern: str) -> str:
    files = sorted((ROOT / "limiter_redis").rglob(pattern))
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


def allowed() -> set[str]:
    (line,) = re.findall(r"^ACL SETUSER .*$", PAGE, re.MULTILINE)
    in_a_cluster = re.findall(r"^&.*$|`\+wait`", PAGE, re.MULTILINE)
    return set(re.findall(r"\+([a-z]+)", " ".join([line, *in_a_cluster])))


def test_the_acl_allows_what_the_scripts_call() -> None:
    used = {command.lower() for command in re.findall(r"\bcall\('([A-Z]+)'", source("lua/*.lua"))}
    assert "zadd" in used
    assert used <= allowed()


def test_the_acl_allows_what_python_sends() -> None:
    code = source("*.py")
    sent = {
        *re.findall(r'command\(\s*"([A-Z]+)"', code),
        *re.findall(r'\("(EVAL[A-Z]*|SCAN)"', code),
    }
    assert {"SCAN", "EVAL", "EVALSHA"} <= sent
    sent.discard("SENTINEL")  # no server of the store's is asked that
    assert {command.lower() for command in sent} <= allowed()


def test_every_number_of_a_state_is_explained() -> None:
    (numbers,) = re.findall(r"local NUMBERS = \{(.*?)\}", source("lua/state.lua"))
    fields = {"override", "paused", "name", *re.findall(r"'([a-z]+)'", numbers)}
    assert len(fields) >= 9
    assert fields <= IN_TABLES


def test_every_word_of_a_record_is_explained() -> None:
    """The headers of the files that write them name the words in their order."""
    for file in ("entry", "holders", "tickets"):
        header = source(f"lua/{file}.lua").split("local function")[0 if file != "entry" else 2]
        lines = re.findall(r"^--   ((?:[a-z_]+[ :]*)+)$", header, re.MULTILINE)
        words = {word for line in lines for word in line.partition(":")[2].split() or line.split()}
        assert {"limit", "cost", "label"} <= words, file
        assert words - {"id", "due"} <= IN_TABLES, file


def shape(text: str) -> str:
    """Return a record without what is different each time: ids, processes, times."""
    text = re.sub(r"\b[0-9a-f]{16}-\d+", "ID", text)
    text = re.sub(r"\b\d+:[0-9a-f]{16}\b", "PROCESS", text)
    return re.sub(r"\b\d{6,}\b", "TIME", text)


def printed_by(command: str) -> list[str]:
    """Return the texts that the page prints for a command."""
    (block,) = re.findall(
        rf"^\$ redis-cli {re.escape(command)}\n((?:[^$`].*\n)+)", PAGE, re.MULTILINE
    )
    return re.findall(r'"(.*)"', block)


def test_the_records_on_the_page_are_those_in_the_store(redis_url: str) -> None:
    key = "{limiter:customer_id=42}:state"
    limit = ConcurrencyLimit("customer_id")
    with (
        redis.Redis.from_url(redis_url, decode_responses=True) as client,
        SyncLimiter(redis_url, label="web-1:204") as first,
        SyncLimiter(redis_url, label="web-2:318") as second,
    ):
        with first.hold(limit, {"customer_id": 42}):
            (printed,) = printed_by(f"get '{key}'")
            assert shape(str(client.get(key))) == shape(printed)
            waiter = threading.Thread(
                target=lambda: second.acquire(limit, {"customer_id": 42}).release()
            )
            waiter.start()
            give_up_at = time.monotonic() + 30
            while not first.inspect("customer_id=42").waiting:
                assert time.monotonic() < give_up_at
                time.sleep(0.01)
            found = client.hgetall(key)
            queue = client.zrange("{limiter:customer_id=42}:queue", 0, -1)
        waiter.join(30)
    printed = printed_by(f"hgetall '{key}'")
    said = dict(zip(printed[::2], printed[1::2], strict=True))
    assert {shape(name): shape(value) for name, value in found.items()} == {
        shape(name): shape(value) for name, value in said.items()
    }
    assert len(queue[0].partition("-")[0]) == 36 + 16
