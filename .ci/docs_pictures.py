"""Draws the pictures of the docs that no test makes: `python .ci/docs_pictures.py`.

- call-states.svg: the states of a call.
- hand-off.svg: how a slot goes from one process to the next.
- packages.svg: what uses what.
- demo.svg: the timeline that `limiter demo --fast` prints.

- page.png, page-key.png: of build/screenshots, which tests/web/test_browser.py makes.
"""

from __future__ import annotations

import io
import os
import re
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape

from rich.console import Console
from rich.text import Text

ROOT = Path(__file__).resolve().parent.parent
ASSETS = ROOT / "docs" / "assets"
SHOTS = ROOT / "build" / "screenshots"

FONT = 'font-family="system-ui, sans-serif" font-size="14"'
INK, SOFT, PAPER = "#1f2733", "#5b6675", "#ffffff"
GOOD, WAIT, BAD = "#1a7f4b", "#a15c00", "#b3261e"
DEMO_COLUMNS = 96


@dataclass(frozen=True)
class Box:
    """A box with a title and lines of small text; its place is that of its upper left corner."""

    x: int
    y: int
    width: int
    height: int
    title: str
    lines: tuple[str, ...] = ()
    colour: str = INK

    def svg(self) -> str:
        """Return the box."""
        middle = self.x + self.width // 2
        parts = [
            (
                f'<rect x="{self.x}" y="{self.y}" width="{self.width}" height="{self.height}" '
                f'rx="8" fill="{PAPER}" stroke="{self.colour}" stroke-width="2"/>'
            ),
            text(middle, self.y + 24, self.title, self.colour, anchor="middle", weight=600),
        ]
        for number, line in enumerate(self.lines):
            parts.append(
                text(middle, self.y + 45 + 18 * number, line, SOFT, anchor="middle", size=12)
            )
        return "\n".join(parts)


def text(
    x: int,
    y: int,
    said: str,
    colour: str = INK,
    *,
    anchor: str = "start",
    weight: int = 400,
    size: int = 14,
) -> str:
    """Return a line of text."""
    return (
        f'<text x="{x}" y="{y}" fill="{colour}" text-anchor="{anchor}" font-weight="{weight}" '
        f'font-size="{size}">{escape(said)}</text>'
    )


def arrow(path: str, colour: str = INK) -> str:
    """Return a line that ends in an arrow head."""
    style = f'fill="none" stroke="{colour}" stroke-width="1.6" marker-end="url(#head)"'
    return f'<path d="{path}" {style}/>'


def picture(width: int, height: int, title: str, parts: Iterable[str]) -> str:
    """Return a whole picture on a light ground, which can be read on a dark page, too."""
    return "\n".join(
        [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
                f'width="{width}" height="{height}" role="img" {FONT}>'
            ),
            f"<title>{escape(title)}</title>",
            (
                '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" '
                'markerHeight="8" orient="auto-start-reverse">'
                f'<path d="M0 0L10 5L0 10z" fill="{INK}"/></marker></defs>'
            ),
            f'<rect width="{width}" height="{height}" rx="10" fill="#f4f6f9"/>',
            *parts,
            "</svg>",
            "",
        ]
    )


def call_states() -> str:
    """Return the states of a call."""
    boxes = [
        Box(20, 130, 110, 62, "call", ("hold, acquire, …",)),
        Box(230, 130, 150, 62, "waiting", ("has a place in line",), WAIT),
        Box(480, 130, 150, 62, "holding", ("the body runs",), GOOD),
        Box(480, 20, 150, 62, "released", ("the body ended",), GOOD),
        Box(
            480, 262, 150, 116, "lost", ("expired", "evicted", "preempted", "max_hold is over"), BAD
        ),
        Box(
            165,
            262,
            280,
            116,
            "refused",
            (
                "CANCEL and full, max_waiting reached",
                "timeout is over",
                "superseded by a newer call",
                "evicted by an operator",
            ),
            BAD,
        ),
    ]
    arrows = [
        arrow("M130 161H228"),
        text(179, 151, "full", SOFT, anchor="middle", size=12),
        arrow("M380 161H478"),
        text(421, 180, "hand-off", SOFT, anchor="middle", size=12),
        arrow("M75 130V51H449Q464 51 464 66V131Q464 143 478 143"),
        text(240, 43, "a slot is free", SOFT, anchor="middle", size=12),
        arrow("M555 130V84"),
        arrow("M555 192V260"),
        arrow("M305 192V260"),
        arrow("M75 192V320H163"),
        text(119, 312, "may not wait", SOFT, anchor="middle", size=12),
    ]
    return picture(650, 398, "The states of a call", [*arrows, *(box.svg() for box in boxes)])


def hand_off() -> str:
    """Return how a slot goes from a holder to the waiter of another process."""
    lifelines = (110, 360, 610)
    titles = ("process A", "server", "process B")
    parts = [f'<path d="M{x} 60V392" stroke="{SOFT}" stroke-dasharray="4 4"/>' for x in lifelines]
    parts += [
        Box(x - 70, 16, 140, 40, title).svg() for x, title in zip(lifelines, titles, strict=True)
    ]
    a, server, b = lifelines

    def sent(y: int, start: int, end: int, said: str) -> None:
        shift = 4 if end > start else -4
        parts.append(arrow(f"M{start + shift} {y}H{end - shift}"))
        parts.append(text((start + end) // 2, y - 8, said, INK, anchor="middle", size=13))

    parts.append(Box(a - 92, 84, 184, 40, "holds the slot", (), GOOD).svg())
    sent(104, b, server, "acquire")
    sent(148, server, b, "full: place 1 in line")
    parts.append(Box(b - 62, 164, 124, 40, "waits", (), WAIT).svg())
    sent(228, a, server, "release")
    parts.append(
        Box(server - 122, 242, 244, 62, "one step", ("ends the lease of A, grants to B",)).svg()
    )
    sent(330, server, a, "released")
    sent(330, server, b, "granted")
    sent(366, b, server, "confirm")
    parts.append(Box(b - 84, 378, 168, 40, "holds the slot", (), GOOD).svg())
    parts.append(text(a + 10, 350, "A may end now", SOFT, size=12))
    return picture(720, 436, "A hand-off between two processes", parts)


def packages() -> str:
    """Return the packages, from what uses them down to the stores."""
    core = (
        "arguments -> strategies -> keys -> demands -> engine -> Request",
        "monitoring/: what page, metrics and `top` show",
        "store.py: the protocol of a store, and its rules",
    )
    memory = (
        "store: clock, lock, wake-ups",
        "_machine: the rules, pure",
        "_admission: answers to requests",
        "_queues: which ticket is next",
        "_key_table: the records",
    )
    redis = (
        "store, async_store, sync_store: the operations",
        "session/: what this process holds and waits for",
        "transport/: batches, in flight, resending",
        "cluster/: which node owns a slot",
        "connection/: how bytes travel",
        "protocol/: commands, replies, names, lua/ (pure)",
    )
    boxes = [
        Box(20, 20, 150, 62, "application", ("coroutines, scripts",)),
        Box(190, 20, 190, 62, "requests", ("web handlers, HTTP, agents",)),
        Box(400, 20, 150, 62, "jobs", ("tasks of queues",)),
        Box(570, 20, 150, 62, "operators", ("shell, browser",)),
        Box(
            190,
            122,
            190,
            98,
            "adapters",
            ("asgi, httpx, httpx2, aiohttp,", "fastmcp, pydantic_ai, otel", "on streams and holds"),
            WAIT,
        ),
        Box(
            400,
            122,
            150,
            98,
            "adapters",
            ("docket, celery, arq, saq", "on JobGate,", "SyncJobGate"),
            WAIT,
        ),
        Box(570, 122, 150, 98, "limiter_cli", ("limiter_web: the page",), WAIT),
        Box(20, 260, 700, 108, "limiter_core: Limiter, SyncLimiter, JobGate, events", core, GOOD),
        Box(20, 408, 300, 150, "limiter_memory", memory, GOOD),
        Box(340, 408, 380, 168, "limiter_redis", redis, GOOD),
    ]
    arrows = [
        arrow("M95 82V258"),
        *(arrow(f"M{x} 82V120") for x in (285, 475, 645)),
        *(arrow(f"M{x} 220V258") for x in (285, 475, 645)),
        arrow("M170 408V370"),
        arrow("M530 408V370"),
        text(180, 393, "implements", SOFT, size=12),
        text(540, 393, "implements", SOFT, size=12),
    ]
    return picture(740, 596, "The packages", [*arrows, *(box.svg() for box in boxes)])


def demo_output() -> str:
    """Return what `limiter demo --fast` prints, with its colours."""
    environment = {
        **os.environ,
        "COLUMNS": str(DEMO_COLUMNS),
        "FORCE_COLOR": "1",
        "TERM": "xterm-256color",
    }
    start = "from limiter_cli.main import app; app()"
    command = [sys.executable, "-c", start, "demo", "--fast", "--top", "6"]
    run = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return run.stdout


def demo() -> str:
    """Return the timeline as a picture."""
    console = Console(
        record=True,
        file=io.StringIO(),
        width=DEMO_COLUMNS,
        force_terminal=True,
        color_system="truecolor",
    )
    timeline = demo_output().partition("peak")[0].rpartition("\n")[0]
    console.print(Text.from_ansi(timeline.rstrip()), soft_wrap=True)
    svg = console.export_svg(title="limiter demo", unique_id="demo")
    # Its font would be loaded from elsewhere.
    svg = re.sub(r"@font-face \{.*?\}", "", svg, flags=re.DOTALL)
    return re.sub(r"\s+\n", "\n", svg.replace("Fira Code, monospace", "monospace")) + "\n"


SCREENSHOTS = {"page.png": "keys.png", "page-key.png": "key.png"}
PICTURES = {
    "call-states.svg": call_states,
    "hand-off.svg": hand_off,
    "packages.svg": packages,
    "demo.svg": demo,
}

if __name__ == "__main__":
    for name, draw in PICTURES.items():
        (ASSETS / name).write_text(draw(), encoding="utf-8")
    for name, taken in SCREENSHOTS.items():
        if (SHOTS / taken).exists():
            (ASSETS / name).write_bytes((SHOTS / taken).read_bytes())
