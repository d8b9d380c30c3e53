"""The output of `ls` and `show`: tables, or JSON for scripts."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from typing import Any

from rich.table import Table
from rich.text import Text

from limiter_cli.demo.summary import seconds_text
from limiter_cli.output import console, print_line, printable
from limiter_core import DormantSnapshot, HolderSnapshot, KeySnapshot, WaiterSnapshot

__all__ = ("as_dict", "print_key", "print_keys")

_EACH_ITS_OWN = ("holders", "waiters")


def _dormant(dormant: DormantSnapshot) -> str:
    """Return the remark on the jobs of a queue without a worker."""
    said = f"dormant: no worker of {printable(dormant.name)}"
    if dormant.absent_for is None:
        return said
    now = datetime.now().astimezone()
    since = now - timedelta(seconds=dormant.absent_for)
    today = since.date() == now.date()
    return f"{said} since {since.strftime('%H:%M' if today else '%Y-%m-%d %H:%M')}"


def print_keys(snapshots: Iterable[KeySnapshot]) -> None:
    """Print a line for each key."""
    rows = [
        (key.key, key.name or "-", _slots(key), f"{key.waiting or '-'}", _remarks(key))
        for key in snapshots
    ]
    _print_table(("key", "name", "in use", "waiting", ""), rows, right=(2, 3))


def print_key(key: KeySnapshot) -> None:
    """Print all about one key."""
    waiting = f", {key.waiting} waiting" if key.waiting else ""
    remarks = f" ({said})" if (said := _remarks(dataclasses.replace(key, dormant=()))) else ""
    name = "" if key.name in ("", key.key) else f" ({key.name})"
    head = f"{key.key}{name}: {_slots(key)} slots in use{waiting}{remarks}"
    print_line(printable(head), style="bold")
    if key.holders:
        print_line("")
        _print_table(
            ("lease", "holder", "slots", "token", "held for", "ends in", ""),
            [_holder(holder) for holder in key.holders],
            right=(2, 3, 4, 5),
        )
    if key.waiters:
        print_line("")
        _print_table(
            ("ticket", "waiter", "slots", "priority", "group", "waiting for"),
            [_waiter(waiter) for waiter in key.waiters],
            right=(2, 3, 5),
        )
    if (hidden := key.waiting - len(key.waiters)) > 0:
        print_line(f"and {hidden} more waiting", style="dim italic")
    for dormant in key.dormant:
        print_line("")
        print_line(f"{dormant.waiting} {_dormant(dormant)}", style="bold")
        _print_table(
            ("ticket", "waiter", "slots", "priority", "group", "waiting for"),
            [_waiter(waiter) for waiter in dormant.waiters],
            right=(2, 3, 5),
        )
        if (hidden := dormant.waiting - len(dormant.waiters)) > 0:
            print_line(f"and {hidden} more", style="dim italic")


def as_dict(key: KeySnapshot, *, members: bool) -> dict[str, Any]:
    """Return a snapshot for JSON, with or without its holders and waiters."""
    values = dataclasses.asdict(key)
    if not members:
        for dormant in values["dormant"]:
            del dormant["waiters"]
    return {name: values[name] for name in values if members or name not in _EACH_ITS_OWN}


def _holder(holder: HolderSnapshot) -> Sequence[str]:
    remarks = [
        *([] if holder.claimed else ["not claimed yet"]),
        *(["preempted"] if holder.preempted else []),
    ]
    return (
        holder.id,
        holder.label,
        str(holder.cost),
        str(holder.fencing_token),
        seconds_text(holder.held_for),
        "-" if holder.expires_in is None else seconds_text(holder.expires_in),
        ", ".join(remarks),
    )


def _waiter(waiter: WaiterSnapshot) -> Sequence[str]:
    return (
        waiter.id,
        waiter.label,
        str(waiter.cost),
        str(waiter.priority),
        "-" if waiter.group is None else waiter.group,
        seconds_text(waiter.waiting_for),
    )


def _slots(key: KeySnapshot) -> str:
    # The limit of a key that is not in use is known only to the code that declares it.
    known = key.declared or key.override is not None
    return f"{key.in_use} of {key.limit if known else '?'}"


def _remarks(key: KeySnapshot) -> str:
    declared = ", ".join(map(str, key.declared))
    remarks = ["paused"] if key.paused else []
    if key.override is not None:
        remarks.append(f"set; declared {declared}" if declared else "set")
    elif len(key.declared) > 1:
        remarks.append(f"declared {declared}")
    remarks += [f"{each.waiting} {_dormant(each)}" for each in key.dormant]
    return ", ".join(remarks)


def _print_table(
    headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: Sequence[int]
) -> None:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for column, heading in enumerate(headings):
        table.add_column(
            heading,
            justify="right" if column in right else "left",
            # A key or a label can be folded on a narrow terminal, numbers can not.
            no_wrap=column in right,
            overflow="fold",
        )
    for row in rows:
        table.add_row(*(Text(printable(cell)) for cell in row))
    screen = console()
    if screen.is_terminal:
        screen.print(table)
        return
    with screen.capture() as plain:
        screen.print(table)
    for line in plain.get().splitlines():
        print_line(line.rstrip(), to=screen)
