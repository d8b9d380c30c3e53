"""`limiter set`, `pause` and the others: by name, by pattern, on an unused key; and the log."""

import json
from contextlib import closing

import pytest
import redis

from limiter_core import LIMIT_BY, ConcurrencyLimit


@pytest.fixture
def limit(key):
    return ConcurrencyLimit(LIMIT_BY.constant(key), 4, name=f"name of {key}")


def is_refused(limiter, limit):
    lease = limiter.try_acquire(limit)
    if lease is not None:
        lease.release()
    return lease is None


def log_of(do, name):
    return [each for each in json.loads(do("log", "--json", "-n", "100")) if each["name"] == name]


def test_a_limit_by_name_is_set_shown_and_reset(do, limiter, limit, key, wait_until):
    with limiter.hold(limit):
        said = do("set", "--name", limit.name, "50%", "--for", "30m", "--reason", "slow bank")
        assert said.startswith(f"set all keys of {limit.name} to 50% for ")
        assert f"all {limit.name}: 50%" in do("ls", key)
        assert limiter.inspect(limit).limit == 2
        assert "slow bank" in do("show", key)
        assert "slow bank" in do("show", "--name", limit.name)
        do("pause", "--name", limit.name, "--by", "ann")
        wait_until("this process knows of the pause", lambda: is_refused(limiter, limit))
        do("resume", "--name", limit.name, "--by", "ann")
        do("reset", "--name", limit.name, "--by", "ann")
        assert limiter.inspect(limit).limit == 4
    log = log_of(do, limit.name)
    assert [each["action"] for each in log] == ["reset", "resume", "pause", "set"]
    assert [each["by"] for each in log[:3]] == ["ann", "ann", "ann"]
    assert (log[3]["reason"], log[3]["lasts"], log[0]["old"]) == ("slow bank", 1800, "50%")
    assert f"paused all keys of {limit.name}" in do("log")


def test_a_key_that_no_call_uses_is_noted_with_keys_like_it(do, limiter, key):
    with limiter.hold(ConcurrencyLimit(LIMIT_BY.constant(f"user_id={key}"), 1)) as lease:
        (used,) = lease.keys
        typo = used.replace("id", "di", 1)
        said = do("set", typo, "3")
        assert f"no call uses the key {typo} now; did you mean " in said
        assert used in said.partition("did you mean")[2]
        assert "did you mean" in do("show", typo)
        assert "no call uses" not in do("show", used)
    do("reset", typo)


def test_a_key_that_cannot_be_read_keeps_no_other_from_a_change(run, url, limiter, limit, key):
    damaged = f"{key}-0-damaged"
    with closing(redis.Redis.from_url(url)) as client, limiter.hold(limit):
        client.rpush(f"{{limiter:{damaged}}}:state", "no state")
        try:
            by_pattern = run("pause", f"{key}*", "--yes", "--url", url)
            by_name = run("set", "--name", f"no {limit.name}", "2", "--url", url)
        finally:
            client.delete(f"{{limiter:{damaged}}}:state")
        assert limiter.inspect(limit).paused
        limiter.resume(key)
    run("reset", "--name", f"no {limit.name}", "--url", url)
    assert by_pattern.exit_code == 1
    assert "limiter: not changed: " in by_pattern.output
    assert damaged in by_pattern.output
    assert by_name.exit_code == 0
    assert "no key in use has a limit named" in by_name.output


def test_a_pattern_changes_all_keys_in_use_that_match_if_so_told(do, run, url, limiter, key):
    limits = [ConcurrencyLimit(LIMIT_BY.constant(f"{key}-{n}"), 1) for n in range(2)]
    leases = [limiter.acquire(limit) for limit in limits]
    refused = run("pause", f"{key}-*", "--url", url)
    assert refused.exit_code == 2
    assert "2 keys match" in refused.output
    assert not any(limiter.inspect(limit).paused for limit in limits)
    do("pause", f"{key}-*", "--yes")
    assert all(limiter.inspect(limit).paused for limit in limits)
    do("resume", f"{key}-*", "-y")
    for lease in leases:
        lease.release()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("set", "3"), "give KEY LIMIT, or --name NAME LIMIT"),
        (("set", "k", "3", "--name", "n"), "give KEY LIMIT, or --name NAME LIMIT"),
        (("set", "k", "50%"), "a share is for --name"),
        (("set", "k", "two"), "whole number"),
        (("set", "k", "9" * 20), "at most 1,000,000,000,000,000"),
        (("set", "k", "9" * 5000), "whole number"),
        (("set", "--name", "n", "9" * 16), "at most 1,000,000,000,000,000"),
        (("set", "k", "3", "--for", "1h"), "--for needs --name"),
        (("set", "--name", "n", "many"), "a share of what the code declares"),
        (("set", "--name", "n", "3", "--for", "soon"), "as in 30m or 1h30m"),
        (("pause",), "give a key, or --name NAME"),
        (("pause", "k", "--name", "n"), "give a key, or --name NAME"),
        (("pause", "no-such-key-*"), "no key in use matches"),
        (("show", "customer=*"), "is a pattern"),
        (("explain", "customer=*"), "is a pattern"),
    ],
)
def test_wrong_use_is_explained(run, url, arguments, message):
    result = run(*arguments, "--url", url)
    assert result.exit_code == 2
    assert message in result.output
