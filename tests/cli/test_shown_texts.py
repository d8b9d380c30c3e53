"""What `limiter ls` and `show` print of the texts of others: names, labels with traces, ids."""

import json
from contextlib import closing

from limiter_core import LIMIT_BY, ConcurrencyLimit, ConflictResolution
from limiter_core.requests import Demand, Mode, Request
from limiter_core.tracing import labelled
from limiter_redis import RedisStore


def line_of(output, key):
    return next(line for line in output.splitlines() if line.startswith(key))


def test_names_of_limits_are_shown_and_select_keys(do, run, limiter, url, key):
    named = ConcurrencyLimit("tenant", 2, name="billing", scope=key)
    with limiter.hold([named, ConcurrencyLimit(LIMIT_BY.constant(key))], {"tenant": 7}):
        of_tenant = f"{key}/tenant=7"
        assert line_of(do("ls", f"{key}*"), of_tenant).split()[:2] == [of_tenant, "billing"]
        assert do("show", of_tenant).startswith(f"{of_tenant} (billing): 1 of 2 slots in use\n")
        assert json.loads(do("show", of_tenant, "--json"))["name"] == "billing"
        listed = json.loads(do("ls", f"{key}*", "--name", "bill*", "--json"))
        assert [(each["key"], each["name"]) for each in listed] == [(of_tenant, "billing")]
        do("set", of_tenant, "3")
    # A process that does not have the code sees it, too, and when nobody holds a slot.
    assert do("show", of_tenant).startswith(f"{of_tenant} (billing): 0 of 3 slots in use (set)\n")
    do("reset", of_tenant)
    nothing = run("ls", f"{key}*", "--name", "bill*", "--url", url)
    assert f"of a limit named 'bill*' is in use at {url}" in nothing.stderr


def test_a_trace_is_not_shown_as_a_label(do, limiter, url, key):
    limit = ConcurrencyLimit(LIMIT_BY.constant(key))
    asked = Request("traced", (Demand(key, 1),), label=labelled("web-1", "00-0af7-b7ad-01"))
    with closing(RedisStore(url)) as store, limiter.hold(limit):
        store.sync_face().acquire(asked)
        shown, listed = do("show", key), do("ls", key)
        [waiter] = json.loads(do("show", key, "--json"))["waiters"]
        store.sync_face().release("traced")
    assert line_of(shown, "traced").split()[:2] == ["traced", "web-1"]
    assert "0af7" not in shown + listed
    assert (waiter["label"], waiter["trace"]) == ("web-1", "00-0af7-b7ad-01")


def test_ids_and_labels_that_users_made_drive_no_terminal(run, url, key):
    evil = "\x1b]0;owned\x07"
    demand = Demand(key, 1, 1, ConflictResolution.QUEUE, 0, None, None)
    asked = Request(evil + key, (demand,), 30.0, Mode.WAIT, None, 5.0, None, None, "", evil)
    with closing(RedisStore(url)) as store:
        store.sync_face().acquire(asked)

        seen = [
            run("show", key, "--url", url),
            run("evict", evil, "--url", url),
            run("evict", "--all-of", key, "--url", url),
            run("ls", f"{evil}*", "--url", url),
        ]

    assert seen[2].stdout == f"evicted ?]0;owned?{key}\n"
    assert not [result.output for result in seen if "\x1b" in result.output]
