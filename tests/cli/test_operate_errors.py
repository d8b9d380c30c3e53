"""`limiter ls`, `show` and the others: exit codes, and what they say when something is wrong."""

import json
import os
from contextlib import closing

import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit

UNREACHABLE = "redis://127.0.0.1:1/0"


@pytest.fixture
def limit(key):
    return ConcurrencyLimit(LIMIT_BY.constant(key), 2)


@pytest.mark.parametrize(
    "arguments",
    [
        ("ls",),
        ("show", "key"),
        ("explain", "key"),
        ("set", "key", "2"),
        ("reset", "key"),
        ("pause", "key"),
        ("resume", "key"),
        ("evict", "id"),
    ],
)
def test_a_store_that_is_away_is_69(run, arguments):
    result = run(*arguments, "--url", UNREACHABLE)

    assert result.exit_code == 69
    assert "cannot be reached" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ls", "--url", "memory://"), "a store of this one process"),
        (("show", ""), "a key cannot be empty"),
        (("explain", ""), "a key cannot be empty"),
        (("set", "key", "-1"), "-1"),
        (("evict",), "give leases or tickets to evict"),
    ],
)
def test_wrong_use_is_2(run, url, arguments, message):
    result = run(*arguments, LIMITER_URL=url)

    assert result.exit_code == 2
    assert message in result.output


def test_a_record_that_cannot_be_read_hides_no_other_key(run, limiter, url, key, limit):
    import redis

    stray = f"{key}-stray"
    state = f"{{limiter:{stray}}}:state"
    with closing(redis.Redis.from_url(url)) as client, limiter.hold(limit):
        client.hset(state, mapping={"used": 1, "waiting": 0, "queued": 0, "h:a": "no record"})
        try:
            result = run("ls", f"{key}*", "--url", url)
            as_json = run("ls", f"{key}*", "--json", "--url", url)
        finally:
            client.delete(state)

    assert (result.exit_code, as_json.exit_code) == (1, 1)
    assert [line.split()[0] for line in result.stdout.splitlines()] == ["key", key]
    assert [each["key"] for each in json.loads(as_json.stdout)] == [key]
    assert stray in result.stderr


@pytest.mark.parametrize(
    ("namespace", "shown"),
    [("?namespace=quiet", "?namespace=quiet"), ("", ", in the default namespace")],
)
def test_ls_of_nothing_says_where_it_looked(run, url, namespace, shown):
    result = run("ls", "no-such-*", "--url", url + namespace)

    assert (result.exit_code, result.stdout.split()) == (0, ["key", "name", "in", "use", "waiting"])
    assert f"no key that matches 'no-such-*' is in use at {url}{shown}" in result.stderr


def test_ls_of_nothing_prints_json_all_the_same(run, url):
    assert run("ls", "no-such-*", "--json", "--url", url).stdout == "[]\n"


@pytest.mark.parametrize(
    "arguments",
    [
        ("ls", "--url", "redsi://h:6379/0?password=hunter2"),
        ("ls", "--url", "memory:user:hunter2@h"),
        ("ls", "--url", "redis://user:hunter2@127.0.0.1:1/0?password=hunter2"),
        ("run", "key", "--url", "memory://user:hunter2@h", "--", "true"),
        ("demo", "--fast", "--url", "redis://user:hunter2@h:6379/0"),
        ("demo", "--url", "memory://user:hunter2@h"),
    ],
)
def test_no_password_is_printed(run, arguments):
    result = run(*arguments)

    assert result.exit_code != 0
    assert "hunter2" not in result.output


@pytest.mark.skipif(os.name != "posix", reason="terminals are POSIX's")
@pytest.mark.parametrize("streams", [{"stdin": -3}, {"stderr": -1}])
def test_top_without_a_terminal_says_what_it_needs(processes, streams):
    """It would draw into a file, and wait for ever for a key."""
    ours, theirs = os.openpty()
    options = {"stdin": theirs, "stdout": -3, "stderr": theirs, **streams}
    process = processes.start("top", **options)
    os.close(theirs)
    try:
        assert process.wait(30) == 2
        shown = process.stderr.read() if process.stderr else os.read(ours, 4096).decode()
    finally:
        os.close(ours)
    assert "limiter: `limiter top` needs a terminal" in shown
