"""The subcommand `run`: its options, and how it exits."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, cast

import anyio
import typer
from typer.core import TyperCommand

from limiter_cli.exits import REFUSED, fail, plain_errors
from limiter_cli.run.child import CommandError, check_command
from limiter_cli.run.guard import run_under
from limiter_cli.shared_store import DEFAULT_URL, Url, check_shared
from limiter_core import (
    LIMIT_BY,
    ConcurrencyLimit,
    ConfigurationError,
    ConflictResolution,
    LeaseLost,
    Limiter,
    LimitReached,
    Superseded,
)

__all__ = ("RunCommand", "run")


class RunCommand(TyperCommand):
    """Takes all arguments behind `--` unchanged: they are those of the command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Keep the command in `ctx.obj`."""
        if "--" in args:
            border = args.index("--")
            ctx.obj = args[border + 1 :]
            args = args[:border]
        return super().parse_args(ctx, args)

    def collect_usage_pieces(self, ctx: Any) -> list[str]:
        """Return the parts of the usage line."""
        return [*super().collect_usage_pieces(ctx), "-- COMMAND [ARG]..."]


def run(
    context: typer.Context,
    name: Annotated[
        str,
        typer.Argument(
            metavar="KEY",
            show_default=False,
            help="A name for the limit. All commands with the same name and scope share it, and so "
            'does Python code under LIMIT_BY.constant("KEY").',
        ),
    ],
    *,
    max_concurrent: Annotated[int, typer.Option(metavar="N", help="The number of slots.")] = 1,
    cost: Annotated[int, typer.Option(metavar="N", help="Slots that the command needs.")] = 1,
    timeout: Annotated[
        float | None,
        typer.Option(metavar="SECONDS", help="Wait at most so long for a slot. Default: no bound."),
    ] = None,
    on_conflict: Annotated[
        ConflictResolution,
        typer.Option(help="What to do if there is no free slot.", case_sensitive=False),
    ] = ConflictResolution.QUEUE,
    priority: Annotated[
        int | None,
        typer.Option(
            metavar="N", help="Under --on-conflict priority: a higher number is served first."
        ),
    ] = None,
    max_waiting: Annotated[
        int | None, typer.Option(metavar="N", help="Refuse if so many calls wait already.")
    ] = None,
    scope: Annotated[str | None, typer.Option(help="A sub-namespace for the key.")] = None,
    limit_name: Annotated[
        str | None,
        typer.Option(
            "--name", help="What the limit is called in `limiter ls` and metrics. Default: KEY."
        ),
    ] = None,
    lease: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            help="If this machine dies, the slot is free again after so long. (While it runs, the "
            "lease is renewed: this does not bound the command.)",
        ),
    ] = 30.0,
    max_hold: Annotated[
        float | None,
        typer.Option(
            metavar="SECONDS",
            help="End the command after so long, and free its slot. Default: never.",
        ),
    ] = None,
    kill_after: Annotated[
        float,
        typer.Option(
            metavar="SECONDS",
            min=0,
            help="From SIGTERM to SIGKILL, where the command has to end.",
        ),
    ] = 10.0,
    label: Annotated[
        str | None,
        typer.Option(help="The name in `limiter show`. Default: host, process, command."),
    ] = None,
    url: Url = DEFAULT_URL,
) -> None:
    """Run a command under a limit that all machines share: like flock or sem, but on all hosts.

    Waits for a slot, keeps it while the command runs, and exits as the command does: with its
    status, or 128 + n if signal n ended it.

    The slot is kept until all that the command started has ended as well, also what outlives it. On
    Linux that includes processes that detach themselves (setsid, nohup); elsewhere it is the
    command's process group, and at a terminal the command alone.

    TERM, INT and QUIT are passed on to all of them; what still runs --kill-after seconds after the
    command itself has ended for it gets KILL. HUP, USR1 and USR2 are passed on to the command. A
    Ctrl-C at the terminal reaches all of them without that, once. Before the command runs, TERM,
    INT, HUP and QUIT leave the queue (exit 128 + n).

    The command finds LIMITER_KEY, LIMITER_LEASE_ID and LIMITER_FENCING_TOKEN in its environment.
    If the lease is lost (the store was away, --max-hold, `limiter evict`), or if `limiter run`
    itself is killed, all that was started gets TERM, and KILL --kill-after seconds later.

    Exits otherwise with 75 if there was no slot (try later), 124 if the lease was lost and the
    command ended for it, 126 or 127 if it cannot be executed or found, 69 if the store cannot be
    reached (with --timeout: within that time), 2 if an option is wrong.
    """
    command = cast("Sequence[str] | None", context.obj)
    if not command:
        context.fail("give a command behind --: limiter run KEY -- COMMAND [ARG]...")
    with plain_errors():
        if os.name != "posix":
            raise ConfigurationError(
                "limiter run needs a POSIX system, where all that a command starts can be ended; "
                "in Python, use SyncLimiter.hold around the work"
            )
        check_shared(url)
        if priority is not None and on_conflict is not ConflictResolution.PRIORITY:
            raise ConfigurationError(
                "--priority has no effect without --on-conflict priority: give both"
            )
        limit = ConcurrencyLimit(
            LIMIT_BY.constant(name),
            max_concurrent,
            scope=scope,
            on_conflict=on_conflict,
            priority=priority or 0,
            cost=cost,
            max_waiting=max_waiting,
            timeout=timeout,
            lease=lease,
            max_hold=max_hold,
            name=limit_name,
        )
        raise typer.Exit(_run(command, limit, url, label, kill_after))


def _run(
    command: Sequence[str],
    limit: ConcurrencyLimit,
    url: str,
    label: str | None,
    kill_after: float,
) -> int:
    if label is None:
        label = f"{socket.gethostname()}:{os.getpid()} {Path(command[0]).name}"

    async def main() -> int:
        async with Limiter(url, label=label) as limiter:
            return await run_under(limiter, limit, command, kill_after=kill_after)

    try:
        check_command(command[0])
        return anyio.run(main)
    except CommandError as error:
        fail(f"limiter: {error}", error.status)
    except (LimitReached, Superseded, LeaseLost) as error:
        fail(f"limiter: {error}", REFUSED)
