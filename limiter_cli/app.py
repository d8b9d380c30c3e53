"""The command's tree: every subcommand is added to `app` here."""

from __future__ import annotations

from typing import Annotated

import typer

from limiter_cli import change, operate
from limiter_cli.demo.command import demo
from limiter_cli.functions import functions
from limiter_cli.output import print_line
from limiter_cli.run.command import RunCommand, run
from limiter_cli.serve import serve
from limiter_cli.top.command import top
from limiter_core import __version__

__all__ = ("app",)

app = typer.Typer(
    name="limiter",
    help="Concurrency limits: which calls share a limit, how many may run, and what the rest do.",
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,  # a user's arguments may be secrets
)
app.command(cls=RunCommand)(run)
app.command()(operate.ls)
app.command()(operate.show)
app.command()(operate.explain)
app.command("set")(change.set_limit)
app.command()(change.reset)
app.command()(change.pause)
app.command()(change.resume)
app.command()(operate.log)
app.command()(operate.evict)
app.command()(functions)
app.command()(serve)
app.command()(top)
app.command()(demo)


def _show_version(wanted: bool) -> None:
    if wanted:
        print_line(f"concurrency-limits {__version__}")
        raise typer.Exit


@app.callback()
def main(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_show_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Hold what all subcommands share; one subcommand alone would otherwise need no name."""
