"""A concurrency limiter you can put in front of anything.

Say *who shares a limit* (a strategy), *how many may run* (a number, or a function of the call) and
*what happens to the rest* (a conflict resolution); it holds across tasks, threads, processes and
machines, as far as its store reaches.
"""

from limiter_core.arguments import ArgumentView
from limiter_core.errors import (
    ConfigurationError,
    Evicted,
    KeyDerivationError,
    LeaseLost,
    LimiterError,
    LimitReached,
    Preempted,
    QueueFull,
    StoreError,
    StoreUnavailable,
    Superseded,
    WaitTimeout,
)
from limiter_core.events import observe
from limiter_core.explanation import Explanation
from limiter_core.keys import register_key_type
from limiter_core.lease import Lease, SyncLease
from limiter_core.limiter import Limiter
from limiter_core.limits import ConcurrencyLimit, ConflictResolution
from limiter_core.policies import Change, Policy
from limiter_core.requests import DormantSnapshot, HolderSnapshot, KeySnapshot, WaiterSnapshot
from limiter_core.strategies import LIMIT_BY, ConcurrencyStrategy
from limiter_core.sync_limiter import SyncLimiter

__version__ = "1.0.0rc1"

__all__ = (
    "LIMIT_BY",
    "ArgumentView",
    "Change",
    "ConcurrencyLimit",
    "ConcurrencyStrategy",
    "ConfigurationError",
    "ConflictResolution",
    "DormantSnapshot",
    "Evicted",
    "Explanation",
    "HolderSnapshot",
    "KeyDerivationError",
    "KeySnapshot",
    "Lease",
    "LeaseLost",
    "LimitReached",
    "Limiter",
    "LimiterError",
    "Policy",
    "Preempted",
    "QueueFull",
    "StoreError",
    "StoreUnavailable",
    "Superseded",
    "SyncLease",
    "SyncLimiter",
    "WaitTimeout",
    "WaiterSnapshot",
    "__version__",
    "observe",
    "register_key_type",
)
