"""The log of a store that cannot be used, where only some of its keys are concerned."""

from __future__ import annotations

import pytest

from limiter_core import LIMIT_BY, ConcurrencyLimit, StoreUnavailable
from limiter_core.events import Event, StoreFailed, StoreRecovered
from limiter_core.outage import Outage
from limiter_core.requests import Answer, Request
from limiter_core.sync_limiter import SyncLimiter
from limiter_memory import MemoryStore

ERROR = StoreUnavailable("no route")


class PartlyAway(MemoryStore):
    """The node of one key is away."""

    away = True

    def acquire(self, request: Request) -> Answer:
        if self.away and request.demands[0].key == "lost":
            raise ERROR
        return super().acquire(request)


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.message.split(":")[0] for record in caplog.records]


def test_while_one_node_is_away_the_store_is_not_back_with_each_call_of_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    store, seen = PartlyAway(), list[Event]()
    lost, fine = (ConcurrencyLimit(LIMIT_BY.constant(key)) for key in ("lost", "fine"))
    with SyncLimiter(store, observe=seen.append, on_store_error="admit") as limiter:
        for _ in range(5):
            with limiter.hold(lost), limiter.hold(fine):
                pass
        of_outage = [event for event in seen if isinstance(event, StoreFailed | StoreRecovered)]
        assert [type(event) for event in of_outage] == [StoreFailed]

        store.away = False
        with limiter.hold(lost):
            pass
    of_outage = [event for event in seen if isinstance(event, StoreFailed | StoreRecovered)]
    assert [type(event) for event in of_outage] == [StoreFailed, StoreRecovered]
    assert len([text for text in logged(caplog) if text.startswith("the store is back")]) == 1


def test_an_outage_is_over_when_nothing_has_failed_for_long(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those who asked for the key that failed may never ask again."""
    outage = Outage("calls wait", "all is well")
    outage.began(ERROR, "one")
    outage.over("other")
    assert logged(caplog) == ["calls wait"]
    monkeypatch.setattr("limiter_core.outage._QUIET", 0.0)
    outage.over("other")
    assert len(logged(caplog)) == 2
    assert outage.since is None
