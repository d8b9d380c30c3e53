"""Takes a slot within a span, and releases it when a line comes; prints what another has to know.

python hold.py URL SPAN
"""

from __future__ import annotations

import json
import sys

from limiter_core import LIMIT_BY, ConcurrencyLimit, SyncLimiter
from tests.otel._telemetry import instrumented


def say(value: object) -> None:
    sys.stdout.write(f"{json.dumps(value)}\n")
    sys.stdout.flush()


def main(url: str, name: str) -> None:
    limit = ConcurrencyLimit(LIMIT_BY.constant("one"), 1, name="billing")
    with instrumented() as telemetry:
        with (
            telemetry.tracer.start_as_current_span(name) as span,
            SyncLimiter(url) as limiter,
            limiter.hold(limit),
        ):
            own = span.get_span_context()
            say([own.trace_id, own.span_id])
            sys.stdin.readline()
        waits = [
            {
                "parent": wait.parent and [wait.parent.trace_id, wait.parent.span_id],
                "links": [[link.context.trace_id, link.context.span_id] for link in wait.links],
            }
            for wait in telemetry.waits()
        ]
        say(waits)


main(*sys.argv[1:])
