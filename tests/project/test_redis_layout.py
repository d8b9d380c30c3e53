"""The page on the Redis layout names all that the scripts use."""

from __future__ import annotations

import re

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
