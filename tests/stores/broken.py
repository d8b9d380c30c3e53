"""Stores that each break one rule, to see that the contract suite notices."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from limiter_core import ConflictResolution
from limiter_core.requests import Answer, Granted, Held, Loss, Mode, Queued, Renewal, Request
from limiter_memory import MemoryStore


class ForgetsRepeats(MemoryStore):
    """S1: a repeated request takes another slot (each send counts as a new call)."""

    sends = 0

    def acquire(self, request):
        answer = super().acquire(request)
        if isinstance(answer, Granted):
            self.sends += 1
            super().acquire(request._replace(id=f"{request.id}/{self.sends}", mode=Mode.TRY))
        return answer


class NeverExpires(MemoryStore):
    """S2: leases are kept for ever, as if every holder had a process that never dies."""

    def acquire(self, request):
        return super().acquire(request._replace(lease=1e9))


class LetsTriesOvertake(MemoryStore):
    """S3, S6: a try asks only whether a slot is free, not whether somebody waits for it."""

    def acquire(self, request):
        if request.mode is Mode.TRY:
            return super().acquire(request._replace(mode=Mode.RECLAIM))
        return super().acquire(request)


class GrantsToWhoWaitedLong(MemoryStore):
    """Row 4: whoever asks a second time gets in, because it has waited."""

    def acquire(self, request):
        answer = super().acquire(request)
        if isinstance(answer, Queued) and answer.order == request.order:
            return Granted(answer.order, None)
        return answer


class ReleaseFreesWithoutChecking(MemoryStore):
    """S5, row 13: a release that finds nothing frees somebody else's slot."""

    def release(self, lease_id, keys=()):
        found = super().release(lease_id, keys)
        if not found and keys and self.inspect(keys[0]).holders:
            super().release(self.inspect(keys[0]).holders[0].id)
        return found


class NotifiesTheReleasingCaller(MemoryStore):
    """S5: whoever releases a lease is notified of its end besides."""

    def __init__(self, *, clock):
        super().__init__(clock=clock)
        self.requests: dict[str, Request] = {}

    def acquire(self, request):
        self.requests[request.id] = request
        return super().acquire(request)

    def release(self, lease_id, keys=()):
        found = super().release(lease_id, keys)
        request = self.requests.get(lease_id)
        if request is not None and request.listener is not None and not found:
            request.listener.lease_lost(Loss.EXPIRED)
        return found


class LosesTickets(MemoryStore):
    """S4: a waiter is told to wait, but nothing is remembered of it."""

    def acquire(self, request):
        answer = super().acquire(request)
        if isinstance(answer, Queued):
            super().release(request.id)
        return answer


class HandsToNobody(MemoryStore):
    """S6: what comes free is left lying until the next one asks."""

    def release(self, lease_id, keys=()):
        waiting = [(key, waiter.id) for key in self.keys() for waiter in self.inspect(key).waiters]
        requests = [self._machine.table.tickets[id_].request for _, id_ in waiting]
        for request in requests:
            if request.id != lease_id:
                super().release(request.id)
        found = super().release(lease_id, keys)
        self.left_lying = requests
        return found


class IgnoresPriority(MemoryStore):
    """S7: first come, first served, whatever the priority."""

    def acquire(self, request):
        demands = tuple(demand._replace(priority=0) for demand in request.demands)
        return super().acquire(request._replace(demands=demands))


class IgnoresGroups(MemoryStore):
    """S7: one tenant's many delay another's first."""

    def acquire(self, request):
        demands = tuple(demand._replace(group=None) for demand in request.demands)
        return super().acquire(request._replace(demands=demands))


class CountsEverybodyOnce(MemoryStore):
    """S8: cost is ignored."""

    def acquire(self, request):
        demands = tuple(demand._replace(cost=1) for demand in request.demands)
        return super().acquire(request._replace(demands=demands))


class TakesTheFirstKeyAlone(MemoryStore):
    """S9: of several keys only the first is looked at."""

    def acquire(self, request):
        return super().acquire(request._replace(demands=request.demands[:1]))


class RenewalBringsBack(MemoryStore):
    """S10, row 8: renewing an ended lease creates it again."""

    def __init__(self, *, clock):
        super().__init__(clock=clock)
        self.requests: dict[str, Request] = {}

    def acquire(self, request):
        self.requests[request.id] = request
        return super().acquire(request)

    def renew(self, ids: Sequence[str]) -> Renewal:
        for id_ in super().renew(ids).gone:
            if id_ in self.requests:
                super().acquire(self.requests[id_]._replace(mode=Mode.RECLAIM))
        return super().renew(ids)


class TokensFollowTheClockAlone(MemoryStore):
    """S11: two grants in one microsecond have the same token."""

    def acquire(self, request: Request) -> Answer:
        answer = super().acquire(request)
        if isinstance(answer, Granted):
            return answer._replace(fencing_token=int(self.now() * 1_000_000))
        return answer


class RaisingWakesTheDifference(MemoryStore):
    """S12, anyio's pull request 1223: a raised limit lets in as many as it was raised by."""

    def set_limit(self, key, limit):
        before = self.inspect(key)
        if limit > before.limit > 0:
            super().set_limit(key, max(limit, before.in_use + limit - before.limit))
        super().set_limit(key, limit)


class LoweringKills(MemoryStore):
    """S12: holders above a lowered limit are thrown out."""

    def set_limit(self, key, limit):
        super().set_limit(key, limit)
        while (snapshot := self.inspect(key)).in_use > limit:
            super().evict(snapshot.holders[-1].id)


class HasRoomForAll(MemoryStore):
    """S13: the queue has no bound."""

    def acquire(self, request):
        demands = tuple(demand._replace(max_waiting=None) for demand in request.demands)
        return super().acquire(request._replace(demands=demands))


class KeepsKeys(MemoryStore):
    """S14: what was used once is listed for ever."""

    def __init__(self, *, clock):
        super().__init__(clock=clock)
        self.used: set[str] = set()

    def acquire(self, request):
        self.used.update(demand.key for demand in request.demands)
        return super().acquire(request)

    def keys(self):
        return iter({*super().keys(), *self.used})


class KeepsCrossedGrants(MemoryStore):
    """S15, row 10: a waiter that leaves takes the grant that crossed its path along."""

    def release(self, lease_id, keys=()):
        holder = self._machine.table.holders.get(lease_id)
        if holder is not None and not holder.claimed:
            return True
        return super().release(lease_id, keys)


class FallsSilent(MemoryStore):
    """S17: nobody is notified whose slot came free."""

    def on_notice(self, callback):
        pass


class ForgetsJobs(MemoryStore):
    """S17: a durable ticket has to be renewed like any other."""

    def acquire(self, request):
        return super().acquire(request._replace(payload=None))


class OffersToTheAbsent(MemoryStore):
    """S17: slots go round among jobs whose workers are gone."""

    def acquire(self, request):
        return super().acquire(request._replace(presence=None))


class NeverMissesAWorker(MemoryStore):
    """S17: a worker that is killed counts as there for ever."""

    def sweep(self, presence=None):
        self.seen = {*getattr(self, "seen", ()), *([presence] if presence else ())}
        for each in self.seen:
            super().sweep(each)
        super().sweep()


class LosesEvictedJobs(MemoryStore):
    """S17, S19: a job that is evicted while its workers are away just disappears."""

    def evict_waiter(self, ticket_id, keys=()):
        dormant = [each for key in self.keys() for each in self.inspect(key).dormant]
        if any(ticket_id == waiter.id for each in dormant for waiter in each.waiters):
            return super().release(ticket_id)
        return super().evict_waiter(ticket_id, keys)


class RunsRedeliveriesTwice(MemoryStore):
    """S18: a second delivery of a running job is let in beside the first."""

    def acquire(self, request):
        answer = super().acquire(request)
        if isinstance(answer, Held):
            return super().acquire(request._replace(id=request.id + "/again"))
        return answer


class NeedsTheKeysToRelease(MemoryStore):
    """S19: without its keys, a ticket or lease is not found."""

    def release(self, lease_id, keys=()):
        return super().release(lease_id, keys) if keys else False


class SupersedesNobody(MemoryStore):
    """KEEP_LATEST, CANCEL_RUNNING: the newcomer waits like anybody."""

    def acquire(self, request):
        queue = ConflictResolution.QUEUE
        demands = tuple(
            d._replace(on_conflict=queue) if d.on_conflict.supersedes else d
            for d in request.demands
        )
        return super().acquire(request._replace(demands=demands))


class KeepsNoNames(MemoryStore):
    """S20: the names of limits are in the code alone."""

    def inspect(self, key, deadline=None):
        return dataclasses.replace(super().inspect(key, deadline), name="")


class FollowsNoTraces(MemoryStore):
    """S21: a waiter gets no trace of the holder."""

    def acquire(self, request):
        answer = super().acquire(request)
        return answer._replace(blocker="") if isinstance(answer, Queued) else answer


BROKEN: dict[type[MemoryStore], str] = {
    ForgetsRepeats: "S1",
    NeverExpires: "S2",
    LetsTriesOvertake: "S3",
    GrantsToWhoWaitedLong: "S3",
    LosesTickets: "S4",
    ReleaseFreesWithoutChecking: "S5",
    NotifiesTheReleasingCaller: "S5",
    HandsToNobody: "S6",
    IgnoresPriority: "S7",
    IgnoresGroups: "S7",
    CountsEverybodyOnce: "S8",
    TakesTheFirstKeyAlone: "S9",
    RenewalBringsBack: "S10",
    TokensFollowTheClockAlone: "S11",
    RaisingWakesTheDifference: "S12",
    LoweringKills: "S12",
    HasRoomForAll: "S13",
    KeepsKeys: "S14",
    KeepsCrossedGrants: "S15",
    FallsSilent: "S17",
    ForgetsJobs: "S17",
    OffersToTheAbsent: "S17",
    NeverMissesAWorker: "S17",
    LosesEvictedJobs: "S19",
    RunsRedeliveriesTwice: "S18",
    NeedsTheKeysToRelease: "S19",
    SupersedesNobody: "KEEP_LATEST",
    KeepsNoNames: "S20",
    FollowsNoTraces: "S21",
}
"""Each with a rule by which the contract must find it out."""
