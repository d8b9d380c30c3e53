"""`limiter evict --waiting` where more wait than one look shows."""

from limiter_core import KeySnapshot
from limiter_core.requests import Demand, Presence, Request
from limiter_redis import RedisStore

SHOWN = KeySnapshot.WAITERS_SHOWN


def test_jobs_of_a_queue_that_wait_behind_many_others(run, url, key):
    """What was not looked at is said, and all others are evicted."""
    store = RedisStore(url)
    face, demand = store.sync_face(), Demand(key, 1)
    face.acquire(Request("holder", (demand,), lease=600.0))
    calls = [f"call-{number}" for number in range(SHOWN)]
    for call in calls:
        face.acquire(Request(call, (demand,), payload=b"call"))
    gate = Presence(f"queue:{key}", "worker")
    for number in range(3):
        face.acquire(Request(f"job-{number}", (demand,), payload=b"job", presence=gate))
    few = run("evict", "--waiting", key, "--name", gate.name, "--url", url)
    assert (few.exit_code, few.stdout) == (1, "")
    assert f"3 more wait behind the first {SHOWN}, and were not looked at" in few.output
    face.withdraw(calls.pop(0), (key,))
    some = run("evict", "--waiting", key, "--name", gate.name, "--url", url)
    assert some.exit_code == 0
    assert some.stdout.splitlines() == [f"evicted job-{number}" for number in range(3)]
    assert face.inspect(key).waiting == len(calls)
    every = run("evict", "--waiting", key, "--url", url)
    assert every.exit_code == 0
    assert len(every.stdout.splitlines()) == len(calls)
    assert face.inspect(key).waiting == 0
    face.release("holder", (key,))
    store.close()
