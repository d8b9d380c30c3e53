"""The subcommand `demo`: its options, what it prints and how it exits."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from rich.console import Console
from rich.text import Text

from limiter_cli.demo.calls import load_calls
from limiter_cli.demo.groups import Groups
from limiter_cli.demo.inputs import InputError, sample
from limiter_cli.demo.limits import hurried, parse_limits, read_limits
from limiter_cli.demo.live import live_view
from limiter_cli.demo.page import page
from limiter_cli.demo.plan import Planned, plan
from limiter_cli.demo.replay import run_replay
from limiter_cli.demo.replay_scope import ReplayScope
from limiter_cli.demo.serving import serve_replays
from limiter_cli.demo.summary import Story, exceeded, notes, overall, summary
from limiter_cli.demo.timeline import Timeline
from limiter_cli.demo.workers import WorkerError, run_workers
from limiter_cli.output import PrintableConsole, errors, print_line
from limiter_core import ConfigurationError, LimiterError

__all__ = ("demo", "report")

EXCEEDED, WRONG_INPUT, STORE_FAILED = 1, 2, 3


def demo(
    *,
    calls: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Call log: JSON lines with at, function, arguments, duration, priority. "
            "Default: the sample.",
        ),
    ] = None,
    limits: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            help="Limits: TOML, one table per function. Default: the sample.",
        ),
    ] = None,
    url: Annotated[
        str,
        typer.Option(
            metavar="URL",
            help="The store. In one that is shared, the demo keeps to a scope of its own.",
        ),
    ] = "memory://",
    processes: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, help="So many processes make the calls in turn; needs --url."
        ),
    ] = 1,
    fast: Annotated[bool, typer.Option("--fast", help="Run on a fake clock, in no time.")] = False,
    speed: Annotated[
        float, typer.Option(help="Run so many times as fast as the log.", show_default=True)
    ] = 1.0,
    html: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", dir_okay=False, help="Write timeline and summary as one page, too."
        ),
    ] = None,
    group_by: Annotated[
        str | None,
        typer.Option(
            metavar="ARGUMENT", help="Colour calls by this argument, not the limits' own."
        ),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Show so many keys, the busiest.")] = 12,
    serve: Annotated[
        bool,
        typer.Option(
            "--serve", help="Replay again and again, live on the page of limits, until Ctrl-C."
        ),
    ] = False,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Of the page; 0: any that is free.")
    ] = 8700,
) -> None:
    """Replay a call log under declared limits, and show which call held what when.

    Exits with 1 if a limit was exceeded, 2 if the input is wrong, 3 if the store failed, or one of
    the processes.
    """
    _check(url, html, processes, fast=fast, speed=speed)
    if serve and (fast or html is not None or processes > 1):
        raise typer.BadParameter(
            "the load on the page has no end and is made by this process: leave out --fast, "
            "--html and --processes",
            param_hint="--serve",
        )
    calls_path = calls or sample("calls.jsonl")
    limits_path = limits or sample("limits.toml")
    try:
        limits_text = read_limits(limits_path)
        declared = parse_limits(limits_text, limits_path)
        in_force = {
            function: tuple(hurried(limit, speed) for limit in its_limits)
            for function, its_limits in declared.items()
        }
        planned = plan(load_calls(calls_path), in_force, calls_path)
    except (InputError, OSError) as error:
        _fail(str(error), WRONG_INPUT)
    if serve:
        _serve(planned, url, port, speed)
        return
    console = PrintableConsole()
    watch = live_view(console) if console.is_terminal and not fast else None
    try:
        if processes > 1:
            record = run_workers(
                planned, limits_text, url=url, processes=processes, speed=speed, watch=watch
            )
        else:
            scope = None if _is_memory(url) else ReplayScope()
            record = run_replay(
                planned, store=url, scope=scope, fast=fast, speed=speed, watch=watch
            )
    except (ConfigurationError, ImportError) as error:
        _fail(str(error), WRONG_INPUT)
    except WorkerError as error:
        _fail(str(error), STORE_FAILED)
    except LimiterError as error:
        _fail(f"the store failed: {error}", STORE_FAILED)
    story = Story(record, planned, declared, Groups.of(planned, group_by), processes)
    report(console, story, top)
    if html is not None:
        try:
            html.write_text(page(story), encoding="utf-8")
        except OSError as error:
            _fail(f"could not write the page: {error}", WRONG_INPUT)
        console.print(Text(f"wrote {html}", style="dim"))
    if record.excesses:
        raise typer.Exit(EXCEEDED)


def _serve(planned: Sequence[Planned], url: str, port: int, speed: float) -> None:
    try:
        serve_replays(planned, url=url, port=port, speed=speed)
    except (ConfigurationError, ImportError, OSError) as error:
        _fail(str(error), WRONG_INPUT)
    except LimiterError as error:
        _fail(f"the store failed: {error}", STORE_FAILED)


def report(console: Console, story: Story, top: int) -> None:
    """Print timeline, summary, notes and verdict."""
    record = story.record
    keys = record.busiest()[:top]
    console.print(Timeline(record, keys, story.groups))
    console.print()
    console.print(summary(record, keys))
    console.print()
    console.print(Text(overall(record)))
    for note in notes(story):
        console.print(Text(note, style="dim"))
    if len(keys) < len(record.keys):
        shown = f"Shown are the busiest {len(keys)} of {len(record.keys)} keys; --top shows more."
        console.print(Text(shown, style="dim"))
    if record.excesses:
        console.print(Text("A limit was exceeded:", style="bold red"))
        for line in exceeded(record):
            console.print(Text(line, style="red"))
    else:
        console.print(Text("No limit was exceeded.", style="green"))


def _is_memory(url: str) -> bool:
    return url.startswith("memory://")


def _check(url: str, html: Path | None, processes: int, *, fast: bool, speed: float) -> None:
    """Refuse options that cannot go together, before anything takes time."""
    if not 0 < speed < float("inf"):
        raise typer.BadParameter(f"must be more than zero, got {speed:g}", param_hint="--speed")
    if fast and speed != 1.0:
        raise typer.BadParameter("has no meaning with --fast", param_hint="--speed")
    if processes > 1 and _is_memory(url):
        raise typer.BadParameter(
            "the memory store reaches no further than this process: give the --url of a store "
            "that is shared, such as redis://localhost:6379/0",
            param_hint="--processes",
        )
    if fast and not _is_memory(url):
        raise typer.BadParameter(
            "the fake clock reaches no further than this process: leave out --url, or --fast",
            param_hint="--fast",
        )
    if html is not None and not html.absolute().parent.is_dir():
        raise typer.BadParameter(f"there is no folder {html.parent}", param_hint="--html")


def _fail(message: str, code: int) -> NoReturn:
    print_line(message, style="red", to=errors())
    raise typer.Exit(code)
