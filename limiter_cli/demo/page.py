"""The page: timeline and summary as one HTML file that loads nothing and runs no script."""

from __future__ import annotations

import importlib.resources
from collections.abc import Iterator
from html import escape
from string import Template

from limiter_cli.demo.groups import Groups
from limiter_cli.demo.record import UNHAPPY, KeyRecord, Record, Turn
from limiter_cli.demo.summary import (
    COLUMNS,
    Story,
    exceeded,
    limit_text,
    notes,
    overall,
    row,
    seconds_text,
)
from limiter_cli.demo.timeline import axis_step
from limiter_cli.output import printable

__all__ = ("page",)

_KEYS_SHOWN = 100
_LANES_SHOWN = 40
_LANE = 16
_QUEUE = 26
_MARKS = 9
_FULL_QUEUE = 4  # so many waiting at the least fill the height; one alone looks like one
_WIDTH = 1000
"""Units across a drawing; the page stretches them to whatever width there is."""


def page(story: Story) -> str:
    """Return the page. Every text from the user's files is escaped."""
    record, groups = story.record, story.groups
    keys = record.busiest()[:_KEYS_SHOWN]
    said = list(notes(story))
    if len(keys) < len(record.keys):
        said.append(f"Shown are the busiest {len(keys)} of {len(record.keys)} keys.")
    seconds = max(record.lasted, 1e-9)
    step = axis_step(seconds, 10)
    template = (
        importlib.resources.files("limiter_cli.demo").joinpath("page.html").read_text("utf-8")
    )
    return Template(template).substitute(
        overall=_text(overall(record)),
        verdict=_verdict(record),
        legend="".join(
            f'<span><i style="background:{group.colour}"></i>{_text(group.name)}</span>'
            for group in groups.shown
        ),
        by=_text(groups.by or "function"),
        axis="".join(
            f'<span style="left:{share * 100:.2f}%">{at:g} s</span>'
            for at, share in _ticks(seconds, step)
        ),
        keys="\n".join(_key(key, groups, seconds, step) for key in keys),
        headings="".join(f"<th>{heading}</th>" for heading in COLUMNS),
        rows="\n".join(_table_row(key) for key in keys),
        notes="".join(f"<p>{_text(note)}</p>" for note in said),
    )


def _verdict(record: Record) -> str:
    if not record.excesses:
        return '<p class="good">No limit was exceeded.</p>'
    lines = "".join(f"<li>{_text(line)}</li>" for line in exceeded(record))
    return f'<div class="bad"><p>A limit was exceeded:</p><ul>{lines}</ul></div>'


def _table_row(key: KeyRecord) -> str:
    return "<tr>" + "".join(f"<td>{_text(cell)}</td>" for cell in row(key)) + "</tr>"


def _key(key: KeyRecord, groups: Groups, seconds: float, step: float) -> str:
    lanes = min(max(1, key.peak), _LANES_SHOWN)
    drawing = _Drawing(key, groups, _WIDTH / seconds, lanes)
    body = "".join(
        (*drawing.grid(seconds, step), *drawing.holders(), *drawing.queue(), *drawing.marks())
    )
    more = f", {key.peak - lanes} more slots not drawn" if key.peak > lanes else ""
    name = _text(key.key)
    return (
        f"<section><h3>{name}<small>peak {key.peak} of {_text(limit_text(key))}"
        f"{more}</small></h3>"
        f'<svg viewBox="0 0 {_WIDTH} {drawing.height}" height="{drawing.height}" '
        f'preserveAspectRatio="none" role="img" aria-label="{name}">{body}</svg></section>'
    )


class _Drawing:
    """What one key's drawing is made of: slots on top, the queue below, marks at the bottom."""

    def __init__(self, key: KeyRecord, groups: Groups, per_second: float, lanes: int) -> None:
        self._key = key
        self._groups = groups
        self._per_second = per_second
        self._lanes = lanes
        self._steps = key.waiting_steps(0.2 / per_second)
        self._unhappy = key.ended_as(*UNHAPPY)
        self._queue_top = lanes * _LANE
        self._marks_top = self._queue_top + (_QUEUE if self._steps else 0)
        self.height = self._marks_top + (_MARKS if self._unhappy else 0)

    def grid(self, seconds: float, step: float) -> Iterator[str]:
        for _, share in _ticks(seconds, step):
            x = share * _WIDTH
            yield f'<path class="tick" d="M{x:.2f} 0V{self.height}"/>'
        for lane in range(self._lanes):
            y = lane * _LANE + 1
            yield f'<rect class="slot" y="{y}" width="{_WIDTH}" height="{_LANE - 2}"/>'

    def holders(self) -> Iterator[str]:
        for turn in self._key.turns:
            if turn.began_at is None or turn.ended_at is None:
                continue
            x = turn.began_at * self._per_second
            width = max(1.0, (turn.ended_at - turn.began_at) * self._per_second - 0.5)
            for lane in turn.lanes[self._key.key]:
                if lane < self._lanes:
                    yield (
                        f'<rect x="{x:.2f}" y="{lane * _LANE + 1}" width="{width:.2f}" '
                        f'height="{_LANE - 2}" fill="{self._groups[turn.planned].colour}">'
                        f"{_title(turn)}</rect>"
                    )

    def queue(self) -> Iterator[str]:
        if not self._steps:
            return
        most = max(_FULL_QUEUE, *(count for _, _, count in self._steps))
        bottom = self._queue_top + _QUEUE - 1
        for at, until, count in self._steps:
            height = (_QUEUE - 4) * count / most
            yield (
                f'<rect class="queue" x="{at * self._per_second:.2f}" y="{bottom - height:.2f}" '
                f'width="{(until - at) * self._per_second:.2f}" height="{height:.2f}">'
                f"<title>{count} waiting</title></rect>"
            )

    def marks(self) -> Iterator[str]:
        for turn in self._unhappy:
            x = min((turn.left_at or 0.0) * self._per_second, _WIDTH - 2)
            yield (
                f'<rect class="mark" x="{x:.2f}" y="{self._marks_top + 1}" width="2" '
                f'height="{_MARKS - 2}">{_title(turn)}</rect>'
            )


def _title(turn: Turn) -> str:
    """Return what a call says of itself when pointed at."""
    call = turn.planned.call
    arguments = ", ".join(f"{name}={value!r}" for name, value in call.arguments.items())
    lines = [
        f"{call.function}({arguments}), line {turn.planned.line}",
        f"asked at {turn.arrived_at:.3f} s, waited {seconds_text(turn.waited(turn.arrived_at))}",
    ]
    if turn.began_at is not None and turn.ended_at is not None:
        lines.append(f"held its slots from {turn.began_at:.3f} s to {turn.ended_at:.3f} s")
    if turn.outcome is not None and turn.outcome in UNHAPPY:
        lines.append(turn.outcome.value)
    return f"<title>{_text(chr(10).join(lines))}</title>"


def _ticks(seconds: float, step: float) -> Iterator[tuple[float, float]]:
    """Yield the moments to mark: seconds, and which share of the whole that is."""
    for number in range(int(seconds / step) + 1):
        yield number * step, number * step / seconds


def _text(text: str) -> str:
    return "\n".join(escape(printable(line)) for line in text.split("\n"))
