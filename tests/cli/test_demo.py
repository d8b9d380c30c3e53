"""`limiter demo` as its users run it."""

import os
import re
import subprocess
import sys
import textwrap

import pytest


def summary_of(output, key):
    """Return the summary's cells of one key, by the lower line of their headings."""
    headings, *lines = output.split("\nkey ", 1)[1].splitlines()
    row = next(line for line in lines if line.startswith(key + " "))
    cells = re.findall(r"\S+ of \S+|\S+ m?s\b|\S+", row.removeprefix(key))
    return dict(zip(headings.split(), cells, strict=True))


def test_the_sample_shows_every_resolution_and_keeps_every_limit(run):
    result = run("demo", "--fast")

    assert result.exit_code == 0
    assert "No limit was exceeded." in result.output
    assert summary_of(result.output, "sync/crm")["slots"] == "4 of 4"
    assert summary_of(result.output, "billing/tenant=acme")["slots"] == "2 of 2"
    for way in ("ran", "refused", "superseded", "cut short"):
        assert f" {way}" in result.output.split(" calls in ")[1]
    assert "a━ acme" in result.output
    assert "No limit declared" not in result.output
    assert "Never called" not in result.output


def test_the_same_log_gives_the_same_report(run):
    assert len({run("demo", "--fast", "--top", "99").output for _ in range(4)}) == 1


def test_calls_of_one_moment_go_in_the_order_of_the_log(demo, call):
    demo.declare("[bill]\ntimeout = 0.5\n")
    demo.log(*(call(0, tenant=name) for name in ("first", "second", "third")))

    outputs = {demo.run("--group-by", "tenant").output for _ in range(8)}

    assert len(outputs) == 1
    assert "f━━━" in outputs.pop()


def test_peak_waits_and_calls_of_a_key(demo, call):
    demo.declare("[bill]\nmax_concurrent = 2\n")
    demo.log(call(0, duration=3), call(0, duration=1), call(0, duration=1), call(0.5, duration=1))

    cells = summary_of(demo.run().output, "bill()")

    assert cells == {
        "slots": "2 of 2",
        "calls": "4",
        "p50": "0 ms",
        "p95": "1.50 s",
        "max": "1.50 s",
        "refused": "-",
        "seded": "-",
    }


@pytest.mark.parametrize(
    ("options", "counts"),
    [
        ('on_conflict = "cancel"', {"refused": "2"}),
        ("max_waiting = 1", {"refused": "1"}),
        ("timeout = 0.75", {"out": "2"}),
        ('on_conflict = "keep_latest"', {"seded": "1"}),
        ('on_conflict = "cancel_running"', {"short": "2"}),
        ("max_hold = 0.5", {"short": "3"}),
    ],
)
def test_calls_that_do_not_get_through_are_counted_by_why(demo, call, options, counts):
    demo.declare(f"[bill]\n{options}\n")
    demo.log(call(0), call(0.1), call(0.2))

    result = demo.run()

    assert result.exit_code == 0
    cells = summary_of(result.output, "bill()")
    ways = ("refused", "seded", "out", "short")
    assert {way: cells[way] for way in ways if cells.get(way, "-") != "-"} == counts


def test_priority_comes_from_the_log(demo, call):
    demo.declare('[bill]\non_conflict = "priority"\n')
    demo.log(call(0, who="running"), call(0.1, who="late"), call(0.2, priority=5, who="urgent"))

    lane = demo.run("--group-by", "who").output.splitlines()[1]

    assert [c for c in lane.removeprefix("bill()") if c in "rlu"] == ["r", "u", "l"]


def test_priority_and_cost_may_come_from_arguments(demo, call):
    demo.declare(
        '[bill]\nmax_concurrent = 2\non_conflict = "priority"\npriority = "rank"\ncost = "slots"\n'
    )
    demo.log(
        call(0, slots=2, rank=0, who="running"),
        call(0.1, slots=2, rank=1, who="late"),
        call(0.2, slots=2, rank=2, who="urgent"),
    )

    lines = demo.run("--group-by", "who").output.splitlines()

    for lane in lines[1:3]:
        assert [c for c in lane.removeprefix("bill()") if c in "rlu"] == ["r", "u", "l"]


def test_several_limits_are_taken_together(demo, call):
    demo.declare('[[bill]]\nconstant = "bank"\nmax_concurrent = 2\n\n[[bill]]\nby = "tenant"\n')
    demo.log(call(0, tenant="a"), call(0, tenant="a"), call(0, tenant="b"))

    output = demo.run().output

    assert summary_of(output, "bank")["slots"] == "2 of 2"
    assert summary_of(output, "tenant=a")["slots"] == "1 of 1"
    assert "counted on each of its keys" in output


def test_one_value_may_have_a_limit_of_its_own(demo, call):
    demo.declare('[bill]\nby = "tenant"\n[bill.per_value]\nacme = 2\n')
    demo.log(*(call(0, tenant=tenant) for tenant in ("acme", "acme", "acme", "dune", "dune")))

    output = demo.run().output

    assert summary_of(output, "tenant=acme")["slots"] == "2 of 2"
    assert summary_of(output, "tenant=dune")["slots"] == "1 of 1"


def test_what_has_no_limit_and_what_is_never_called_is_said(demo, call):
    demo.declare("[bil]\n")
    demo.log(call(0), call(0))

    result = demo.run()

    assert result.exit_code == 0
    assert "No limit declared for: bill (2 calls, which ran at once)." in result.output
    assert "Never called: bil." in result.output


def test_many_keys_and_groups_are_cut_and_counted(demo, call):
    demo.declare('[bill]\nby = "tenant"\n')
    demo.log(*(call(number, tenant=f"t{number}") for number in range(40)))

    output = demo.run("--top", "5").output

    assert "Shown are the busiest 5 of 40 keys" in output
    assert "others" in output


def test_many_slots_are_cut_and_counted(demo, call):
    demo.declare("[bill]\nmax_concurrent = 20\n")
    demo.log(*(call(0) for _ in range(20)))

    assert "and 12 more slots" in demo.run().output


def test_names_from_a_file_cannot_write_to_the_terminal(demo, call):
    evil = "\x1b[31mred\u202e[bold]"
    demo.declare("")
    demo.log(call(0, function=evil, tenant=evil))

    result = demo.run("--group-by", "tenant")

    assert result.exit_code == 0
    assert "\x1b" not in result.output
    assert "?[31mred?[bold]" in result.output


def test_real_time_runs_the_same_way(demo, call, run):
    demo.declare("[bill]\ntimeout = 40\n")
    demo.log(call(0, duration=3), call(1, duration=3), call(2, duration=3))

    result = run(
        *("demo", "--speed", "100", "--calls", str(demo.calls), "--limits", str(demo.limits))
    )

    assert result.exit_code == 0
    assert summary_of(result.output, "bill()")["slots"] == "1 of 1"
    assert "3 ran" in result.output


# -- wrong options ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--fast", "--url", "redis://localhost"), "the fake clock reaches no further"),
        (("--fast", "--speed", "2"), "has no meaning with --fast"),
        (("--speed", "0"), "must be more than zero"),
        (("--speed", "nan"), "must be more than zero"),
        (("--url", "nowhere://"), "no store knows the URL scheme 'nowhere'"),
        (("--url", "nonsense"), 'a store is named by a URL such as "memory://"'),
        (("--calls", "/no/such/file"), "does not exist"),
        (("--fast", "--html", "/no/such/folder/page.html"), "there is no folder"),
    ],
)
def test_wrong_options_are_refused_before_anything_runs(run, options, message):
    result = run("demo", *options)

    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())


# -- as a process ----------------------------------------------------------------------------------


def limiter(*arguments, **environment):
    return subprocess.run(
        [sys.executable, "-c", "from limiter_cli.main import app; app()", *arguments],
        capture_output=True,
        check=False,
        text=True,
        timeout=50,
        encoding="utf-8",
        env={**os.environ, "COLUMNS": "140", **environment},
    )


def test_as_a_process_without_a_terminal_it_prints_the_report_only():
    done = limiter("demo", "--fast", PYTHONIOENCODING="utf-8")

    assert done.returncode == 0
    assert done.stderr == ""
    assert "\x1b" not in done.stdout
    assert "No limit was exceeded." in done.stdout


def test_a_plain_terminal_gets_plain_characters():
    done = limiter("demo", "--fast", PYTHONIOENCODING="ascii", PYTHONUTF8="0")

    assert done.returncode == 0
    assert done.stdout.isascii()
    assert "a===" in done.stdout


def test_an_exceeded_limit_is_named_and_fails_the_command(tmp_path, demo, call):
    (tmp_path / "leaky.py").write_text(
        textwrap.dedent("""
            from limiter_memory import MemoryStore

            class LeakyStore(MemoryStore):
                def acquire(self, request):
                    demands = [demand._replace(limit=99) for demand in request.demands]
                    return super().acquire(request._replace(demands=tuple(demands)))

            def open_store(url):
                return LeakyStore()
        """)
    )
    installed = tmp_path / "leaky-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Metadata-Version: 2.1\nName: leaky\nVersion: 1\n")
    (installed / "entry_points.txt").write_text("[limiter.stores]\nleaky = leaky:open_store\n")
    demo.declare("[bill]\n")
    demo.log(call(0, duration=20), call(0.5, duration=20))

    files = ("--calls", str(demo.calls), "--limits", str(demo.limits))
    done = limiter(
        *("demo", "--url", "leaky://", "--speed", "20", *files, "--html", str(tmp_path / "p.html")),
        PYTHONPATH=str(tmp_path),
        PYTHONIOENCODING="utf-8",
    )

    assert done.returncode == 1
    assert "A limit was exceeded:" in done.stdout
    assert re.search(r"bill\(\): 2 slots in use at \d", done.stdout)
    assert "the limit is 1 (bill, line 2 of the log)" in done.stdout
    assert "the limit is 1 (bill, line 2 of the log)" in (tmp_path / "p.html").read_text("utf-8")


@pytest.mark.parametrize("missing", ["typer", "rich", "trio"])
def test_without_the_extra_the_command_names_it(missing):
    code = f"import sys; sys.modules[{missing!r}] = None; from limiter_cli.main import app; app()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=False, text=True, timeout=50
    )

    assert done.returncode == 1
    assert done.stderr.strip().endswith('pip install "concurrency-limits[cli]"')
    assert "Traceback" not in done.stderr


def test_the_version_and_the_help(run):
    assert run("--version").output.startswith("concurrency-limits ")
    assert "demo" in run("--help").output
