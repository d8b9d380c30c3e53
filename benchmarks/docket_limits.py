"""Docket: our `ConcurrencyLimit` and Docket's own, on one server in one run.

If pydocket or a server is missing, the benchmark reports this and measures nothing. (A module with
the name `docket` here would hide the package from all other modules.)
"""

from __future__ import annotations

import asyncio
import importlib.util

from harness import Settings, Table
from redis_server import NoServerError, open_server


def tables(settings: Settings) -> list[Table]:
    """Measure on one server, or report why not."""
    if importlib.util.find_spec("docket") is None:
        return [Table("Docket", "", "", notes=["pydocket is not installed"])]
    import docket_crowds  # noqa: PLC0415  (these import pydocket)
    import docket_line  # noqa: PLC0415
    from docket_tasks import POLL, SCHEDULE  # noqa: PLC0415

    try:
        with open_server() as server:
            print(
                f"Docket on {server}. Where nothing else is said: concurrency 10, "
                f"minimum_check_interval {POLL.total_seconds() * 1e3:.0f} ms, "
                f"scheduling_resolution {SCHEDULE.total_seconds() * 1e3:.0f} ms.\n",
                flush=True,
            )
            return [
                asyncio.run(docket_line.throughput(server, settings)),
                *asyncio.run(docket_line.hand_offs(server, settings)),
                *asyncio.run(docket_crowds.crowd(server, settings)),
                asyncio.run(docket_crowds.burst(server, settings)),
            ]
    except NoServerError as error:
        return [Table("Docket", "", "", notes=[str(error)])]
