"""`SyncLimiter.hold`."""

from __future__ import annotations

from contextlib import AbstractContextManager
from types import TracebackType

from limiter_core._blocks import current_frame, is_coroutine, noting_statements
from limiter_core._engine import WAIT
from limiter_core._prepare import Arguments, Limits
from limiter_core._sync_calls import SyncCall
from limiter_core._sync_engine import SyncEngine
from limiter_core.errors import ConfigurationError
from limiter_core.lease import SyncLease


class Hold(AbstractContextManager[SyncLease]):
    """`SyncLimiter.hold`: takes the slots, gives them back."""

    __slots__ = (
        "_arguments",
        "_call",
        "_engine",
        "_lease",
        "_limits",
        "_timeout",
        "by_statement",
    )

    def __init__(
        self, engine: SyncEngine, limits: Limits, arguments: Arguments, timeout: float | None
    ) -> None:
        self._engine = engine
        self._limits = limits
        self._arguments = arguments
        self._timeout = timeout
        self._call: SyncCall | None = None
        self.by_statement = False

    def __enter__(self) -> SyncLease:
        if self._call is not None:
            raise ConfigurationError("a hold can be entered once; call hold() again")
        engine = self._engine
        try:
            call = self._call = engine.take(self._limits, self._arguments, self._timeout, WAIT)
            if self.by_statement:
                frame = current_frame(1)
                call.in_coroutine = is_coroutine(frame)
                engine.began(call, id(frame))
            lease = self._lease = SyncLease(call, engine)
            return lease  # noqa: TRY300  (an exception may be thrown in here, too)
        except BaseException:
            if self._call is not None:
                engine.abandon(self._call)
            raise

    def check(self) -> None:
        """Raise if the lease is lost, unless its limits ask for a warning only; between two items.

        Raises:
            LeaseLost: it is.
        """
        call = self._call
        if call is not None and call.on_lost == "cancel" and call.is_lost():
            raise call.loss_error()

    @noting_statements
    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            assert self._call is not None
            self._engine.release_call(self._call)
        except BaseException:
            if self._call is not None:
                self._engine.abandon(self._call)
            raise
