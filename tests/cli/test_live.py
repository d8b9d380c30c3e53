"""The live view, on a terminal that is a string and a clock that jumps."""

import io

from rich.console import Console

from limiter_cli.demo.calls import Call
from limiter_cli.demo.live import live_view
from limiter_cli.demo.plan import plan
from limiter_cli.demo.replay import run_replay
from limiter_core import ConcurrencyLimit


def shown(calls, limits, tmp_path, *, height=30):
    terminal = io.StringIO()
    console = Console(
        file=terminal, force_terminal=True, color_system=None, width=100, height=height
    )
    numbered = list(enumerate(calls, start=1))
    run_replay(
        plan(numbered, limits, tmp_path / "calls.jsonl"), fast=True, watch=live_view(console)
    )
    return terminal.getvalue()


def test_slots_in_use_and_waiting_are_shown_where_a_call_waits(tmp_path):
    limits = (ConcurrencyLimit(None, 1), ConcurrencyLimit("tenant", 2))
    calls = [
        Call(at=at, function="bill", duration=1.0, arguments={"tenant": "acme"})
        for at in (0, 0.2, 0.4)
    ]

    text = shown(calls, {"bill": limits}, tmp_path)

    lines = text.splitlines()
    busy = [line for line in lines if line.startswith("bill()") and "1 of 1    2 ••" in line]
    tenant = [line for line in lines if line.startswith("tenant=acme") and "1 of 2" in line]
    assert busy
    assert tenant
    assert not any("•" in line for line in tenant)
    assert "3 of 3 calls made" in text


def test_keys_that_do_not_fit_the_terminal_are_counted(tmp_path):
    calls = [
        Call(at=number / 100, function="bill", duration=1.0, arguments={"tenant": number})
        for number in range(20)
    ]

    text = shown(calls, {"bill": (ConcurrencyLimit("tenant"),)}, tmp_path, height=10)

    assert "and 15 more keys" in text
