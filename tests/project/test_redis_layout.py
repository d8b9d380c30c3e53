"""The page on the Redis layout names all that the scripts use."""

from __future__ import annotations

import re

from tests.project._tree import ROOT

PAGE = (ROOT / "docs" / "redis-layout.md").read_text(encoding="utf-8")
IN_TABLES = set(re.findall(r"`([a-z]+)`", "".join(re.findall(r"^\|.*\n", PAGE, re.MULTILINE))))


def source(pattern: str) -> str:
    files = sorted((ROOT / "limiter_redis").glob(pattern))
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


def allowed() -> set[str]:
    (line,) = re.findall(r"^ACL SETUSER .*$", PAGE, re.MULTILINE)
    return set(re.findall(r"\+([a-z]+)", line))


def test_the_acl_allows_what_the_scripts_call() -> None:
    used = {command.lower() for command in re.findall(r"\bcall\('([A-Z]+)'", source("lua/*.lua"))}
    assert "zadd" in used
    assert used <= allowed()


def test_the_acl_allows_what_python_sends() -> None:
    code = source("*.py")
    sent = {*re.findall(r'command\(\s*"([A-Z]+)"', code), *re.findall(r'\("(EVAL[A-Z]*)", ', code)}
    assert {"SCAN", "EVAL", "EVALSHA"} <= sent
    assert {command.lower() for command in sent} <= allowed()


def test_every_number_of_a_state_is_explained() -> None:
    written = re.findall(r"call\('HSET', s\.state, ('used'.*?\))\)", source("lua/*.lua"), re.DOTALL)
    fields = {"override", "paused", "sole", "due", *re.findall(r"'([a-z]+)',", written[0])}
    assert len(fields) >= 10
    assert fields <= IN_TABLES


def test_every_field_of_a_ticket_is_explained() -> None:
    record = re.findall(
        r"cjson\.encode\(\{\s+id = t\.id(.*?)\}\)\)", source("lua/*.lua"), re.DOTALL
    )
    fields = {"id", *re.findall(r"\b([a-z]+) = ", record[0])}
    assert {"order", "member", "d"} <= fields
    assert fields <= IN_TABLES
