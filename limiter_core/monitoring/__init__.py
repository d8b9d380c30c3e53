"""What pages, metrics and terminals show of a store: one collector, whatever the number of viewers.

`Collector` finds the keys in use, looks at them once a second and keeps their recent history. It
changes nothing in the store. `select` searches, filters, sorts and pages what it found.
"""

from limiter_core.monitoring.collector import Collector, StoreHealth
from limiter_core.monitoring.history import BUCKET, BUCKETS, History, Point
from limiter_core.monitoring.key_status import KeyStatus
from limiter_core.monitoring.names import NameStatus, by_name
from limiter_core.monitoring.selection import SORTS, Choices, Page, Query, Sort, choices, select

__all__ = (
    "BUCKET",
    "BUCKETS",
    "SORTS",
    "Choices",
    "Collector",
    "History",
    "KeyStatus",
    "NameStatus",
    "Page",
    "Point",
    "Query",
    "Sort",
    "StoreHealth",
    "by_name",
    "choices",
    "select",
)
