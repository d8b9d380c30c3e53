"""Jobs and workers of the scenarios about job queues."""

from __future__ import annotations

from limiter_core.requests import (
    Demand,
    Presence,
    Request,
)
from limiter_core.testing.store_under_test import Steps, StoreUnderTest

DURABLE = ("durable",)

SHOP, MAIL = "queue:shop", "queue:mail"


def worker_of(name: str, worker: str = "worker-1", *, leaving: bool = False) -> Presence:
    return Presence(name, worker, leaving)


def job_of(
    store: StoreUnderTest, ticket: str, *demands: Demand, name: str = SHOP, order: int | None = None
) -> Request:
    presence = worker_of(name)
    return store.request(
        *demands, id=ticket, payload=ticket.encode(), presence=presence, order=order
    )


def park(store: StoreUnderTest, *tickets: str, name: str = SHOP) -> Steps[list[Request]]:
    """Let jobs wait for `KEY`, in this order, behind a call that holds it."""
    yield from store.take(store.request(id="holder", lease=10_000))
    jobs = [job_of(store, ticket, name=name) for ticket in tickets]
    for job in jobs:
        yield from store.wait(job)
    return jobs


def take_notices(store: StoreUnderTest) -> list[str]:
    """Return the ids of the notices since the last call."""
    ids = [notice.id for notice in store.notices]
    store.notices.clear()
    return ids
