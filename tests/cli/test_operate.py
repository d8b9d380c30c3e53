"""`limiter ls`, `show`, `explain`, `set` and the others: what an operator does."""

import json
import os
import threading
import time

import pytest

from limiter_cli.shared_store import key_text
from limiter_core import (
    LIMIT_BY,
    ArgumentView,
    ConcurrencyLimit,
    LeaseLost,
    LimitReached,
    SyncLimiter,
)
from limiter_core.jobs import Job, SyncJobGate, error_of
from limiter_core.requests import NO_LIMIT


@pytest.fixture
def limit(key):
    return ConcurrencyLimit(LIMIT_BY.constant(key), 2)


@pytest.fixture
def in_use(limiter, limit, key, wait_until):
    """Two holders and a waiter; returns their leases, and a list of what the waiter got."""
    got = []
    leases = [limiter.acquire(limit), limiter.acquire(limit)]

    def wait():
        with limiter.hold(limit) as lease:
            got.append(lease.id)

    waiter = threading.Thread(target=wait)
    waiter.start()
    wait_until("it waits", lambda: limiter.inspect(key).waiting == 1)
    yield leases, got
    limiter.reset_limit(key)
    limiter.resume(key)
    for lease in leases:
        lease.release()
    waiter.join(30)


def line_of(output, key):
    return next(line for line in output.splitlines() if line.startswith(key))


def test_ls_shows_each_key_in_use_on_a_line(do, in_use, key):
    assert line_of(do("ls"), key).split() == [key, key, "2", "of", "2", "1"]
    assert do("ls", f"{key[:-2]}*").count("\n") == 2
    assert do("ls", "no-such-*").split()[:5] == ["key", "name", "in", "use", "waiting"]


def test_ls_shows_no_number_where_there_is_no_limit(do, limiter, key):
    with limiter.hold(ConcurrencyLimit(LIMIT_BY.constant(key), NO_LIMIT)):
        assert line_of(do("ls"), key).split() == [key, key, "1", "-"]


def test_ls_as_json(do, in_use, key):
    assert json.loads(do("ls", key, "--json")) == [
        {
            "key": key,
            "limit": 2,
            "in_use": 2,
            "waiting": 1,
            "paused": False,
            "override": None,
            "declared": [2],
            "dormant": [],
            "name": key,
        }
    ]


def test_show_tells_of_holders_and_waiters(do, in_use, key):
    leases, _ = in_use

    output = do("show", key)

    assert output.startswith(f"{key}: 2 of 2 slots in use, 1 waiting\n")
    for lease in leases:
        row = line_of(output, lease.id)
        assert "a test" in row
        assert str(lease.fencing_token) in row
    assert "waiting for" in output


def test_show_as_json(do, in_use, key):
    leases, _ = in_use

    shown = json.loads(do("show", key, "--json"))

    assert [holder["id"] for holder in shown["holders"]] == [lease.id for lease in leases]
    assert [waiter["label"] for waiter in shown["waiters"]] == ["a test"]


def test_explain_says_what_blocks_a_call(do, limiter, in_use, key):
    output = do("explain", key)
    assert output.startswith(f"'{key}' is full: 2 of 2 slots are in use, held by ")
    assert output.endswith("; 1 call waits. A call would be number 2 in line.\n")
    assert limiter.inspect(key).holders[0].label in output
    explained = json.loads(do("explain", key, "--json"))
    assert [(each["key"], each["in_use"]) for each in explained["blocking"]] == [(key, 2)]
    assert (explained["place"], explained["expected_wait"]) == (2, None)


def test_explain_of_a_key_that_no_call_uses(do, key):
    assert do("explain", key) == f"Nothing blocks a call on '{key}' now.\n"


def test_explain_cannot_control_the_terminal(do, url, key, limit):
    with SyncLimiter(url, label="\x1b[31mred\n") as other, other.hold(limit), other.hold(limit):
        output = do("explain", key)
    assert "held by ?[31mred? for" in output
    assert "\x1b" not in output


def test_show_of_a_key_that_nobody_uses(do, key):
    assert do("show", key) == (
        f"{key}: 0 of ? slots in use\nlimiter: no call uses the key {key} now\n"
    )


def test_set_raises_the_limit_and_reset_returns_to_the_declared(
    do, in_use, limiter, key, wait_until
):
    _, got = in_use

    assert "set; declared 2" in line_of(do("set", key, "3"), key)
    wait_until("the waiter has run", lambda: got and not limiter.inspect(key).waiting)

    assert do("show", key).startswith(f"{key}: 2 of 3 slots in use (set; declared 2)\n")
    assert line_of(do("reset", key), key).split() == [key, key, "2", "of", "2", "-"]


def test_pause_admits_nobody_until_resume(do, limiter, limit, key):
    assert line_of(do("pause", key), key).endswith("paused")
    assert limiter.try_acquire(limit) is None

    do("resume", key)

    with limiter.hold(limit, timeout=0):
        pass
    assert key not in do("ls")


def test_evict_takes_a_slot_back(do, in_use, key, wait_until):
    (first, second), got = in_use

    assert do("evict", first.id) == f"evicted {first.id}\n"

    wait_until("the waiter has run", lambda: got)
    wait_until("the holder knows", lambda: first.lost)
    with pytest.raises(LeaseLost, match="it was evicted"):
        first.check()
    assert not second.lost


def test_evict_of_what_is_not_held_is_1(run, url, limiter, limit):
    with limiter.hold(limit) as lease:
        result = run("evict", "nobody", lease.id, "--url", url)

    assert result.exit_code == 1
    assert result.output.splitlines() == [
        f"evicted {lease.id}",
        "limiter: there is no lease or ticket nobody",
    ]


def test_evict_all_of_a_key(do, in_use, key):
    leases, _ = in_use
    output = do("evict", "--all-of", key)
    assert {f"evicted {lease.id}" for lease in leases} <= set(output.splitlines())


@pytest.fixture
def parked(url, limiter, limit, key, in_use):
    """Three jobs of a queue that wait behind the call; returns their gate, with its notices."""
    notices = []
    gate = SyncJobGate(url, f"queue:{key}", notices.append)
    gate.notices = notices
    for number in range(3):
        gate.admit(Job(f"{key}-{number}", limit, ArgumentView({}, "work"), b"job"))
    yield gate
    for number in range(3):
        gate.drop(f"{key}-{number}")
    gate.close()


def test_jobs_without_a_worker_are_dormant(do, parked, key):
    assert "dormant" not in do("show", key)
    parked.leave()
    since = time.strftime("%H:%M")
    said = f"3 dormant: no worker of queue:{key} since {since}"
    assert said in line_of(do("ls"), key)
    shown = do("show", key)
    assert said in shown
    assert ", 1 waiting" in shown
    assert all(f"{key}-{number}" in shown for number in range(3))
    [dormant] = json.loads(do("show", key, "--json"))["dormant"]
    assert (dormant["name"], dormant["waiting"]) == (f"queue:{key}", 3)
    assert [waiter["id"] for waiter in dormant["waiters"]] == [f"{key}-{n}" for n in range(3)]
    assert f"3 jobs wait on '{key}' for a worker of 'queue:{key}'" in do("explain", key)
    listed = json.loads(do("ls", key, "--json"))
    assert "waiters" not in listed[0]["dormant"][0]


def test_evict_ends_the_waiting_of_a_ticket(do, parked, key, limiter):
    assert do("evict", f"{key}-1") == f"evicted {key}-1\n"
    assert [w.id for w in limiter.inspect(key).waiters][1:] == [f"{key}-0", f"{key}-2"]


def test_evict_waiting_of_one_queue(do, parked, key, limiter, wait_until):
    output = do("evict", "--waiting", key, "--name", f"queue:{key}")
    assert output.splitlines() == [f"evicted {key}-{number}" for number in range(3)]
    wait_until("the queue is notified of each", lambda: len(parked.notices) == 3)
    assert {str(error_of(notice)) for notice in parked.notices} != {"None"}
    assert limiter.inspect(key).waiting == 1
    assert not do("evict", "--waiting", key, "--name", "queue:other")


def test_evicted_while_no_worker_is_there_a_job_ends_when_one_is_back(
    do, parked, key, limit, wait_until
):
    parked.leave()
    assert len(do("evict", "--waiting", key, "--name", f"queue:{key}").splitlines()) == 3
    assert "dormant" not in do("ls")
    assert not parked.notices
    parked.arrive()
    parked.sweep()
    wait_until("the queue is notified of each", lambda: len(parked.notices) == 3)
    with pytest.raises(LimitReached):
        parked.admit(Job(f"{key}-0", limit, ArgumentView({}, "work"), b"job"))


def test_a_call_whose_waiting_is_ended_is_refused(do, limiter, limit, key, wait_until):
    refused = []
    leases = [limiter.acquire(limit), limiter.acquire(limit)]

    def wait():
        try:
            limiter.acquire(limit)
        except LimitReached as error:
            refused.append(error)

    waiter = threading.Thread(target=wait)
    waiter.start()
    wait_until("it waits", lambda: limiter.inspect(key).waiting == 1)
    assert do("evict", "--waiting", key).startswith("evicted ")
    waiter.join(30)
    assert refused
    for lease in leases:
        lease.release()


def test_a_name_without_a_key_to_look_at_is_wrong_use(run, url):
    result = run("evict", "lease", "--name", "queue:shop", "--url", url)
    assert result.exit_code == 2
    assert "--waiting" in result.output


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ("backup", "backup"),
        ("nightly backup", "nightly%20backup"),
        ("nightly%20backup", "nightly%20backup"),
        ("100% sure", "100%25%20sure"),
        ("grün", "gr%C3%BCn"),
        ("billing/tenant=acme,user=!None&bill()", "billing/tenant=acme,user=!None&bill()"),
        ("key:https%3A//x#0123", "key:https%3A//x#0123"),
    ],
)
def test_a_key_may_be_given_by_its_text_or_as_a_name(given, key):
    assert key_text(given) == key


def test_names_with_special_characters_are_found(do, limiter, key):
    name = f"{key} [bold] ä"
    with limiter.hold(ConcurrencyLimit(LIMIT_BY.constant(name))):
        assert "1 of 1" in do("show", name)
        text = next(text for text in do("ls").split() if text.startswith(key))
        assert "1 of 1" in do("show", text)


def test_nothing_is_cut_where_nobody_looks(do, limiter, url, processes, key):
    limit = ConcurrencyLimit(LIMIT_BY.constant(key + "x" * 150))
    with SyncLimiter(url, label="l" * 500 + "\x1b[31m") as labelled, labelled.hold(limit):
        process = processes.start("show", key + "x" * 150)
        output, errors = process.communicate(timeout=30)

    assert (process.returncode, errors) == (0, "")
    assert key + "x" * 150 in output
    assert "l" * 500 + "?[31m" in output
    assert not any(line.endswith(" ") for line in output.splitlines())


@pytest.mark.skipif(os.name != "posix", reason="pseudo-terminals are POSIX's")
def test_a_terminal_gets_a_table_that_fits(limiter, limit, key, processes):
    with limiter.hold(limit):
        process = processes.start_at_terminal("show", key, COLUMNS="60", TERM="xterm")
        output, _ = process.communicate(timeout=30)

    assert process.returncode == 0
    assert "\x1b[1m" in output
    assert f"{key}: 1 of 2 slots in use" in output
