"""`/metrics`: occupancy of the whole fleet, in Prometheus' text format."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector as MetricSource
from starlette.requests import Request
from starlette.responses import Response

from limiter_core.monitoring import KeyStatus, NameStatus, Query, by_name, select
from limiter_core.monitoring.names import total_of
from limiter_web.site import Site

__all__ = ("MAX_NAMES", "OTHER", "MetricRoutes")

MAX_NAMES = 100
"""Names that have series of their own; a name that contains values must not make one for each."""

OTHER = "other"
"""The name of all further ones together."""


class MetricRoutes:
    """The route of the metrics."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self._names: set[str] = set()
        self._registry = CollectorRegistry(auto_describe=False)
        self._registry.register(_Source(self))

    async def show(self, _: Request) -> Response:
        """Answer a scrape."""
        await self._site.ready()
        return Response(
            generate_latest(self._registry), headers={"content-type": CONTENT_TYPE_LATEST}
        )

    def families(self) -> Iterator[Metric]:
        """Yield the metrics as they are now."""
        collector = self._site.collector
        statuses = collector.statuses()
        away = collector.health.unavailable_since is not None
        up = GaugeMetricFamily("limiter_store_up", "Whether the store answers.")
        up.add_metric([], 0 if away else 1)
        yield up
        if away:
            return  # what was seen last is not what is so now
        yield from _families("limiter", "name", self._counted(by_name(statuses)))
        if self._site.top_keys:
            busiest = select(statuses, Query(size=min(self._site.top_keys, 1000))).keys
            yield from _key_families(busiest)

    def _counted(self, names: list[NameStatus]) -> list[NameStatus]:
        """Return the sums of the first names that were ever seen, and one of all others."""
        for each in names:
            if len(self._names) < MAX_NAMES:
                self._names.add(each.name)
        own = [each for each in names if each.name in self._names]
        others = [each for each in names if each.name not in self._names]
        return [*own, total_of(OTHER, others)] if others else own


class _Source(MetricSource):
    def __init__(self, routes: MetricRoutes) -> None:
        self._routes = routes

    def collect(self) -> Iterable[Metric]:
        return self._routes.families()


def _families(prefix: str, label: str, names: list[NameStatus]) -> Iterator[Metric]:
    def family(name: str, text: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"{prefix}_{name}", text, labels=[label])

    in_use = family("slots_in_use", "Slots in use, of all keys of a name.")
    limit = family("slots_limit", "The sum of the limits of the keys in use.")
    waiting = family("waiting", "Calls and jobs that wait.")
    dormant = family("dormant", "Jobs of queues without a worker.")
    oldest = family("oldest_wait_seconds", "How long the longest waits; 0 if none does.")
    keys = family("keys", "Keys in use.")
    paused = family("keys_paused", "Keys that an operator paused.")
    for each in names:
        labels = [each.name]
        in_use.add_metric(labels, each.in_use)
        limit.add_metric(labels, each.limit)
        waiting.add_metric(labels, each.waiting)
        dormant.add_metric(labels, each.dormant)
        oldest.add_metric(labels, each.oldest_wait or 0.0)
        keys.add_metric(labels, each.keys)
        paused.add_metric(labels, each.paused)
    yield from (in_use, limit, waiting, dormant, oldest, keys, paused)


def _key_families(statuses: Iterable[KeyStatus]) -> Iterator[Metric]:
    def family(name: str, text: str) -> GaugeMetricFamily:
        return GaugeMetricFamily(f"limiter_key_{name}", text, labels=["name", "key"])

    in_use = family("slots_in_use", "Slots in use, of the busiest keys.")
    limit = family("slots_limit", "The limit in force.")
    waiting = family("waiting", "Calls and jobs that wait.")
    oldest = family("oldest_wait_seconds", "How long the longest waits; 0 if none does.")
    for each in statuses:
        labels = [each.name, each.key]
        in_use.add_metric(labels, each.in_use)
        if each.limit is not None:
            limit.add_metric(labels, each.limit)
        waiting.add_metric(labels, each.waiting)
        oldest.add_metric(labels, each.oldest_wait or 0.0)
    yield from (in_use, limit, waiting, oldest)
