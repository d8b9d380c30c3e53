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
from limiter_core import (
    Change,
    DormantSnapshot,
    HolderSnapshot,
    KeySnapshot,
    Policy,
    WaiterSnapshot,
)
from limiter_core.requests import NO_LIMIT

__all__ = (
    "as_dict",
    "change_text",
    "print_changes",
    "print_key",
    "print_keys",
    "print_policies",
    "slots_of",
)

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


def print_keys(snapshots: Iterable[KeySnapshot], policies: Sequence[Policy] = ()) -> None:
    """Print a line for each key; of its name's policies what is in force."""
    rows = [
        (
            key.key,
            key.name or "-",
            slots_of(key),
            f"{key.waiting or '-'}",
            _remarks(key, policies),
        )
        for key in snapshots
    ]
    _print_table(("key", "name", "in use", "waiting", ""), rows, right=(2, 3))


def print_key(key: KeySnapshot, policies: Sequence[Policy] = ()) -> None:
    """Print all about one key, and what is in force for its name."""
    waiting = f", {key.waiting} waiting" if key.waiting else ""
    said = _remarks(dataclasses.replace(key, dormant=()), policies)
    remarks = f" ({said})" if said else ""
    name = "" if key.name in ("", key.key) else f" ({key.name})"
    head = f"{key.key}{name}: {slots_of(key)} slots in use{waiting}{remarks}"
    print_line(printable(head), style="bold")
    print_policies([each for each in policies if key.name and each.name == key.name])
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


def print_policies(policies: Sequence[Policy]) -> None:
    """Print what is in force for names, and why; nothing if nothing is."""
    if not policies:
        return
    print_line("")
    rows = [
        (
            each.name,
            each.value,
            "-" if each.ends_in is None else seconds_text(each.ends_in),
            each.by,
            each.reason,
        )
        for each in policies
    ]
    _print_table(("all keys of", "limit", "ends in", "by", "reason"), rows, right=(1, 2))


def print_changes(changes: Sequence[Change]) -> None:
    """Print a line for each change."""
    rows = [
        (
            datetime.fromtimestamp(each.at).astimezone().strftime("%Y-%m-%d %H:%M:%S"),
            each.by,
            change_text(each),
            each.reason,
        )
        for each in changes
    ]
    _print_table(("time", "by", "change", "reason"), rows, right=())


def change_text(change: Change) -> str:
    """Return what a change did, in words."""
    if change.action == "evict":
        return f"evicted {change.old}{f' from {change.key}' if change.key else ''}"
    what = f"all keys of {change.name}" if change.name else change.key
    lasts = "" if change.lasts is None else f" for {seconds_text(change.lasts)}"
    done = {
        "set": f"set {what} to {change.new}{lasts}",
        "reset": f"reset {what}",
        "pause": f"paused {what}{lasts}",
        "resume": f"resumed {what}",
    }[change.action]
    is_number = change.old and change.action in ("set", "reset")
    return f"{done} (was {change.old})" if is_number else done


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


def slots_of(key: KeySnapshot) -> str:
    """Return how many slots of a key are in use, and of how many."""
    # The limit of a key that is not in use is known only to the code that declares it.
    known = key.declared or key.override is not None
    if key.limit >= NO_LIMIT:
        return str(key.in_use)
    return f"{key.in_use} of {key.limit if known else '?'}"


def _remarks(key: KeySnapshot, policies: Sequence[Policy] = ()) -> str:
    declared = ", ".join(map(str, key.declared))
    remarks = ["paused"] if key.paused else []
    if key.override is not None:
        remarks.append(f"set; declared {declared}" if declared else "set")
    elif len(key.declared) > 1:
        remarks.append(f"declared {declared}")
    if key.name:
        remarks += [f"all {key.name}: {each.value}" for each in policies if each.name == key.name]
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
