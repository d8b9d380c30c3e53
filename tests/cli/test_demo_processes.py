"""`limiter demo --url`: on a real server, by one process and by several."""

import os
import re
import signal
import subprocess
import sys

import pytest
import redis

REMEMBERED = re.compile(r":ended:|:layout$")  # what the store forgets by itself


@pytest.fixture
def load(demo, call):
    """Twelve calls that keep two keys busy, so that all but four wait; one more is refused.

    Either of the two, whichever process is late; they last longer than a busy machine makes it.
    """
    demo.declare(
        '[bill]\nby = "tenant"\nscope = "billing"\n\n[mail]\nconstant = "smtp"\n'
        'on_conflict = "cancel"\n'
    )
    bills = [call(0.0, tenant=tenant, duration=1.0) for tenant in ("a", "b") for _ in range(6)]
    demo.log(*bills, call(0, "mail", duration=20), call(1, "mail", duration=20))
    return demo


@pytest.fixture
def demo_keys(url):
    """Return the keys in the server that a demo left."""

    def left():
        with redis.Redis.from_url(url, decode_responses=True) as client:
            return [key for key in client.keys("*demo-*") if not REMEMBERED.search(key)]

    return left


def counts(output):
    return re.sub(r" in [\d.]+ m?s:", ":", re.search(r"\d+ calls in .*", output)[0])


def test_several_processes_show_what_one_shows(run, url, load, demo_keys):
    one = run("demo", "--url", url, "--speed", "10", *load.files)
    two = run("demo", "--url", url, "--speed", "10", "--processes", "2", *load.files)

    assert (one.exit_code, two.exit_code) == (0, 0), two.output
    assert counts(one.output) == counts(two.output) == "14 calls: 13 ran, 1 refused"
    for output in (one.output, two.output):
        for key in ("billing/tenant=a", "billing/tenant=b", "smtp"):
            assert re.search(rf"^{key} +1 of 1 ", output, re.MULTILINE)
        assert "No limit was exceeded." in output
        assert "demo-" not in output
    assert "2 processes made the calls, in turn." in two.output
    assert demo_keys() == []


def test_it_stays_away_from_keys_in_use(run, url, load, limiter):
    from limiter_core import ConcurrencyLimit

    limit = ConcurrencyLimit("tenant", scope="billing")
    with limiter.hold(limit, {"tenant": "a"}), limiter.hold(limit, {"tenant": "b"}):
        assert run("demo", "--url", url, "--speed", "20", *load.files).exit_code == 0


def children_of(process):
    listed = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)],
        capture_output=True,
        text=True,
        check=False,
    )
    return [int(pid) for pid in listed.stdout.split()]


@pytest.fixture
def running(processes, load, url, limiter, wait_until):
    """Start a demo of two processes, and wait until calls run."""
    process = processes.start("demo", "--url", url, "--processes", "2", *load.files)
    wait_until(
        "calls run",
        lambda: any(
            limiter.inspect(key).holders for key in limiter.keys() if key.startswith("demo-")
        ),
    )
    return process


def is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.skipif(sys.platform != "linux", reason="asks ps as Linux has it")
class TestEnds:
    def test_a_ctrl_c_ends_all_processes_and_frees_their_slots(
        self, running, demo_keys, wait_until
    ):
        workers = children_of(running)
        assert len(workers) == 2

        os.killpg(running.pid, signal.SIGINT)

        assert running.wait(30) == 130
        assert all(map(is_gone, workers))
        wait_until("the slots are free", lambda: not demo_keys())

    def test_a_process_that_dies_is_told_and_fails_the_demo(self, running, demo_keys, wait_until):
        first, second = children_of(running)

        os.kill(first, signal.SIGKILL)

        output, errors = running.communicate(timeout=30)
        assert running.returncode == 3
        assert re.search(rf"process 1 of 2 \(pid {first}\) died of signal 9", errors)
        assert "No limit was exceeded" not in output
        assert is_gone(second)
        wait_until("the slots are free", lambda: not demo_keys())

    def test_processes_end_with_the_one_that_started_them(self, running, demo_keys, wait_until):
        workers = children_of(running)

        running.kill()

        wait_until("they are gone", lambda: all(map(is_gone, workers)))
        wait_until("the slots are free", lambda: not demo_keys())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--processes", "2"), "the memory store reaches no further than this process"),
        (("--processes", "0", "--url", "redis://localhost"), "Invalid value"),
        (
            ("--processes", "2", "--fast", "--url", "redis://localhost"),
            "the fake clock reaches no further",
        ),
        (("--processes", "2", "--url", "nowhere://"), "no store knows the URL scheme"),
    ],
)
def test_wrong_options_are_refused(run, options, message):
    result = run("demo", *options)

    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())


def test_a_store_that_is_away_is_told_before_anything_starts(run):
    result = run("demo", "--processes", "2", "--url", "redis://127.0.0.1:1")

    assert result.exit_code == 3
    assert "cannot be reached" in result.output
