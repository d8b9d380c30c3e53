"""`limiter run`: when it runs a command, and how it exits."""

import sys
import time

import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit

UNREACHABLE = "redis://127.0.0.1:1/0"


@pytest.fixture
def run_command(run, url, key):
    """Run `limiter run` on the test's key with some options, and a line of Python."""

    def run_command(*options, code="pass", command=None):
        command = command or (sys.executable, "-c", code)
        return run("run", key, "--url", url, *options, "--", *command)

    return run_command


@pytest.fixture
def held(limiter, key):
    """A slot of the key, of which there is one."""
    with limiter.hold(ConcurrencyLimit(LIMIT_BY.constant(key))) as lease:
        yield lease


def test_it_exits_as_the_command_does_and_leaves_nothing(run_command, limiter, key):
    assert run_command().exit_code == 0
    assert run_command(code="raise SystemExit(7)").exit_code == 7
    killed = run_command(code="import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert killed.exit_code == 128 + 9

    assert key not in set(limiter.keys())


def test_the_command_gets_its_own_options_and_finds_the_lease_in_its_environment(
    run_command, tmp_path, key
):
    path = tmp_path / "told"
    code = (
        "import os, sys; print(sys.argv[1:], *(os.environ[f'LIMITER_{name}'] for name in "
        f"('KEY', 'LEASE_ID', 'FENCING_TOKEN')), file=open({str(path)!r}, 'w'))"
    )

    command = (sys.executable, "-c", code, "--timeout", "x", "--", "--help")
    assert run_command(command=command).exit_code == 0

    arguments, _, told = path.read_text().partition("] ")
    assert arguments == "['--timeout', 'x', '--', '--help'"
    told_key, lease_id, token = told.split()
    assert told_key == key
    assert "-" in lease_id
    assert int(token) > 0


def test_no_slot_is_75_and_the_command_does_not_start(run_command, held, tmp_path):
    never = f"open({str(tmp_path / 'started')!r}, 'w')"

    full = run_command("--on-conflict", "cancel", code=never)
    late = run_command("--timeout", "0.5", code=never)
    crowded = run_command("--max-waiting", "0", code=never)

    assert [full.exit_code, late.exit_code, crowded.exit_code] == [75, 75, 75]
    assert "is full: 1 of 1 slots in use" in full.output
    assert "timed out waiting for" in late.output
    assert "the queue of" in crowded.output
    assert not list(tmp_path.iterdir())


def test_a_wait_for_a_paused_key_says_that_it_is_paused(run_command, held, limiter, key):
    limiter.pause(key)

    late = run_command("--timeout", "0.5")

    assert late.exit_code == 75
    assert "it is paused (its limit is 0), 1 slot in use" in late.output


def test_the_limit_has_the_name_that_is_given(run_command, held):
    full = run_command("--on-conflict", "cancel", "--name", "nightly")
    wrong = run_command("--name", " ")

    assert "(nightly) is full: 1 of 1 slots in use" in full.output
    assert (wrong.exit_code, "name must be printable text" in wrong.output) == (2, True)


def test_refusals_leave_no_ticket(run_command, held, limiter, key):
    run_command("--timeout", "0.5")

    assert limiter.inspect(key).waiting == 0


def test_there_are_as_many_slots_as_it_says(run_command, held):
    assert run_command("--max-concurrent", "2", "--on-conflict", "cancel").exit_code == 0
    wide = run_command("--max-concurrent", "2", "--cost", "2", "--on-conflict", "cancel")
    assert wide.exit_code == 75


def test_the_name_and_scope_are_those_of_a_constant(run, url, limiter):
    limit = ConcurrencyLimit(LIMIT_BY.constant("nightly: a/b"), scope="jobs")

    with limiter.hold(limit):
        options = ("--scope", "jobs", "--url", url, "--on-conflict", "cancel")
        assert run("run", "nightly: a/b", *options, "--", "true").exit_code == 75


def test_the_url_may_come_from_the_environment(run, url, key, held):
    options = ("--on-conflict", "cancel")
    assert run("run", key, *options, "--", "true", LIMITER_URL=url).exit_code == 75


def test_a_command_that_cannot_be_started_is_told_as_a_shell_does(run_command, tmp_path, held):
    script = tmp_path / "script"
    script.write_text("")

    missing = run_command(command=("no-such-command",))
    plain_file = run_command(command=(str(script),))

    # Before anybody waits: the only slot is taken.
    assert (missing.exit_code, plain_file.exit_code) == (127, 126)
    assert "no-such-command: command not found" in missing.output
    assert "Permission denied" in plain_file.output.replace("\n", "")


def test_what_only_the_start_shows_holds_no_slot_either(run_command, tmp_path, limiter, key):
    no_program = tmp_path / "program"
    no_program.write_bytes(b"\x00\x01\x02\x03")
    no_program.chmod(0o755)

    assert run_command(command=(str(no_program),)).exit_code == 126

    assert key not in set(limiter.keys())


def test_a_store_that_is_away_is_69(run, key):
    result = run("run", key, "--url", UNREACHABLE, "--", "true")

    assert result.exit_code == 69
    assert "cannot be reached" in result.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--", "true"), "Missing argument"),
        (("KEY",), "give a command behind --"),
        (("KEY", "true"), "unexpected extra argument"),
        (("KEY", "--"), "give a command behind --"),
        (("KEY", "--url", "memory://", "--", "true"), "a store of this one process"),
        (("KEY", "--url", "nowhere://", "--", "true"), "no store knows the URL scheme"),
        (("KEY", "--max-concurrent", "-1", "--", "true"), "max_concurrent must be at least 0"),
        (("KEY", "--cost", "2", "--", "true"), "cost 2 is above the limit of 1"),
        (("KEY", "--priority", "2", "--", "true"), "has no effect without --on-conflict priority"),
        (("KEY", "--lease", "0", "--", "true"), "lease must be more than zero"),
        (("KEY", "--on-conflict", "wait", "--", "true"), "'wait'"),
    ],
)
def test_wrong_use_is_2(run, url, arguments, message):
    result = run("run", *arguments, LIMITER_URL=url)

    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())


def test_max_hold_ends_the_command(run_command, tmp_path):
    begun = time.monotonic()

    result = run_command("--max-hold", "0.3", code="import time; time.sleep(60)")

    assert result.exit_code == 124
    assert "held longer than its max_hold; ending the command" in result.output
    assert time.monotonic() - begun < 30
