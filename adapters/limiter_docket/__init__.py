"""Docket's `ConcurrencyLimit` with every strategy: change the import, keep the code.

    from limiter_docket import LIMIT_BY, ConcurrencyLimit, ConcurrencyStrategy, ConflictResolution

A task that has to wait does so in Docket's own queue and holds no worker. The process that frees
the slot brings it forward.
"""

from importlib import import_module

from limiter_core import extras

with extras.required("docket", "limits for Docket need pydocket"):
    import_module("docket")

from limiter_core import LIMIT_BY, ConcurrencyStrategy, ConflictResolution
from limiter_docket._gates import set_store, store_of
from limiter_docket._limit import ConcurrencyLimit

__all__ = (
    "LIMIT_BY",
    "ConcurrencyLimit",
    "ConcurrencyStrategy",
    "ConflictResolution",
    "set_store",
    "store_of",
)
