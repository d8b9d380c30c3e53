"""The command's tree: every subcommand is added to `app` here."""

from __future__ import annotations

import errno
import signal
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from limiter_cli import change, operate
from limiter_cli.demo.command import demo
from limiter_cli.exits import NOT_WRITTEN, say
from limiter_cli.functions import functions
from limiter_cli.output import print_line
from limiter_cli.run.command import RunCommand, run
from limiter_cli.serve import serve
from limiter_cli.top.command import top
from limiter_core import __version__

__all__ = ("app",)

_NOT_WRITTEN = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF}


class _Commands(TyperGroup):
    def main(self, *args: Any, **options: Any) -> Any:
        """Run a subcommand; that its output cannot be written is no fault of the program."""
        try:
            return super().main(*args, **options)
        except OSError as error:
            if error.errno not in _NOT_WRITTEN or error.filename is not None:
                raise
            say(f"limiter: the output cannot be written: {error.strerror}")
            sys.exit(NOT_WRITTEN)


class _App(typer.Typer):
    def __call__(self, *args: Any, **options: Any) -> Any:
        """Run the command; a Ctrl-C before a subcommand runs ends the process as it ends others."""
        try:
            return super().__call__(*args, **options)
        except KeyboardInterrupt:
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            signal.raise_signal(signal.SIGINT)
            raise


app = _App(
    cls=_Commands,
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
