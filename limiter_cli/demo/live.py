"""The live view: slots in use and calls waiting, key by key, while the replay runs."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from contextlib import suppress

import anyio
from anyio.abc import TaskStatus
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from limiter_cli.demo.record import KeyRecord, Outcome
from limiter_cli.demo.replay import Performance, Watch
from limiter_cli.demo.summary import limit_text, overall, seconds_text
from limiter_core import KeySnapshot

__all__ = ("live_view",)

_SIGNALS = ("SIGTERM", "SIGHUP", "SIGQUIT", "SIGTSTP")
"""Those that end or stop a process, by name, as not every system has all."""

_EVERY = 1 / 12
"""Seconds between two pictures."""

_BAR_WIDTH = 20
_OTHER_LINES = 5
_WAITING_SHOWN = 30


def live_view(console: Console) -> Watch:
    """Return what shows a replay on the console until it is cancelled, then wipes it away."""

    async def watch(replay: Performance) -> None:
        with Live(console=console, auto_refresh=False, transient=True) as live:
            async with anyio.create_task_group() as beside:
                await beside.start(_mind_signals, live)
                while True:
                    picture = await _picture(replay, console.height - _OTHER_LINES)
                    with suppress(OSError):  # the terminal is gone, and a signal says so
                        live.update(picture, refresh=True)
                    await anyio.sleep(_EVERY)

    return watch


async def _mind_signals(live: Live, *, task_status: TaskStatus[None]) -> None:
    """Show the cursor again before a signal ends or stops the process."""
    if os.name != "posix" or threading.current_thread() is not threading.main_thread():
        task_status.started()
        return
    numbers = [getattr(signal, name) for name in _SIGNALS if hasattr(signal, name)]
    numbers = [each for each in numbers if signal.getsignal(each) is signal.SIG_DFL]
    with anyio.open_signal_receiver(*numbers) as received:
        task_status.started()
        async for number in received:
            with suppress(OSError):
                live.stop()
            handler = signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
            # It was stopped, and goes on.
            signal.signal(number, handler)
            with suppress(OSError):
                live.start()


async def _picture(replay: Performance, rows: int) -> RenderableType:
    record = replay.record
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("key", overflow="ellipsis", no_wrap=True, max_width=30)
    table.add_column("slots in use", width=_BAR_WIDTH)
    table.add_column("", justify="right")
    table.add_column("waiting", overflow="crop", no_wrap=True)
    keys = _most_interesting(list(record.keys.values()), max(1, rows))
    for key in keys:
        # What waits where, only the store knows: a call under several limits waits on one key.
        snapshot = await replay.inspect(key.key)
        table.add_row(Text(key.key), *_cells(key, snapshot))
    hidden = len(record.keys) - len(keys)
    head = f"{seconds_text(replay.now())}   {len(record.turns)} of {replay.total} calls made"
    if any(record.count(outcome) for outcome in Outcome):
        head = f"{head}   {overall(record).partition(': ')[2]}"
    parts: list[RenderableType] = [Text(head, style="bold", no_wrap=True), table]
    if hidden > 0:
        parts.append(Text(f"and {hidden} more keys", style="dim italic"))
    return Group(*parts)


def _most_interesting(keys: Sequence[KeyRecord], rows: int) -> list[KeyRecord]:
    """Return the keys that fit, in order of first arrival; those in use before those idle."""
    if len(keys) <= rows:
        return list(keys)
    chosen = sorted(keys, key=lambda key: -key.in_use)[:rows]
    return [key for key in keys if key in chosen]


def _cells(key: KeyRecord, snapshot: KeySnapshot) -> tuple[RenderableType, ...]:
    limit = max(key.limits)
    full = snapshot.in_use >= limit
    return (
        ProgressBar(
            total=max(limit, 1),
            completed=min(snapshot.in_use, limit),
            width=_BAR_WIDTH,
            complete_style="dark_orange" if full else "green",
            finished_style="dark_orange",
        ),
        Text(f"{snapshot.in_use} of {limit_text(key)}"),
        Text(
            f"{snapshot.waiting:>3} {'•' * min(snapshot.waiting, _WAITING_SHOWN)}"
            if snapshot.waiting
            else "",
            style="yellow",
        ),
    )
