"""Workers that know nothing of limits: refused when they are made, for functions that have some."""

from __future__ import annotations

import functools
from typing import Any, cast

from arq.worker import Worker

from limiter_arq._decorator import limits_of
from limiter_core import ConfigurationError


def refuse_other_workers(kind: type[Worker]) -> None:
    """Have arq's worker refuse functions under limits, unless it is of this kind.

    Else it would take each job, and each would fail for good.
    """
    make: Any = cast(Any, Worker).__init__

    @functools.wraps(make)
    def make_checked(worker: Any, *args: Any, **settings: Any) -> None:
        make(worker, *args, **settings)
        if isinstance(worker, kind):
            return
        limited = [name for name, each in worker.functions.items() if limits_of(each.coroutine)]
        if limited:
            raise ConfigurationError(
                f"{', '.join(sorted(limited))}: under a concurrency limit, which this worker does "
                "not know of: run it with `python -m limiter_arq`, or with a LimitedWorker"
            )

    cast(Any, Worker).__init__ = make_checked
