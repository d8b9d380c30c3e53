"""The store protocols, and the rules that every store keeps.

A store keeps slots and tickets. Every operation is one atomic step on the store's own clock.

- **S1 identity** The caller makes the request's id. Repeating a request returns the same answer,
  so a retry after a lost reply never takes two slots. A waiter that asks again may have another
  label, which `inspect` shows from then on.
- **S2 expiry first** Each step first drops holders whose lease ended and waiters that stopped
  renewing, on the keys it touches.
- **S3 admission** Granted if and only if, for every key, `in use + cost <= its limit` (S12) and no
  live waiter is ahead. (Here, and in S6, S7 and S13, dormant tickets do not count: see S17.)
- **S4** Denied-and-queued is one step: no release can slip between.
- **S5** Release removes exactly the named lease. An unknown id is a no-op, and returns False. It
  never frees another's slot. It does not notify the listener of what it releases: if that had
  ended by itself, the answer says so.
- **S6 hand-off** Release, expiry, withdrawal, eviction and a raised limit grant the free slots
  to the head waiters in the same step; new calls never overtake. A granted waiter has a short
  claim time; if it does not claim, the slot goes to the next.
- **S7 order** Higher priority, then fair round, then arrival.
- **S8** A waiter whose cost does not fit blocks those behind it, so calls with a high cost do not
  starve. Cost above the declared limit is refused, not queued. (Below an operator's override it
  waits, at its place, until the override is raised or reset.)
- **S9 several keys** All or none. While it waits it holds nothing, is in the queue of one key
  that blocks it, and keeps its arrival order when it moves to another.
- **S10** Renewal only updates. It never creates, and names the leases that are gone. After data
  loss a holder may ask for its slot again by its id (`Mode.RECLAIM`): admitted ahead of the queue
  if it fits, else refused; never above the limit.
- **S11 fencing** Strictly rising per key: `max(last + 1, store clock in microseconds)`; stays so
  over data loss and idle keys.
- **S12 limits** A request is judged by the number it declares itself. An operator's override
  replaces every declared number until reset, also for those already waiting; raising it wakes
  exactly as many as now fit; lowering drains, never kills; 0 or paused admits no call. A new call
  under `CANCEL_RUNNING` preempts when it asks, not when an operator changes a limit later.
- **S13** At most `max_waiting` tickets in a key's queue; the next is refused at once.
- **S14** A key with no holder, waiter or override leaves nothing behind.
- **S15 withdrawal** A waiter that leaves releases a grant that it got meanwhile, and the next is
  served. Leaving is `release`: it removes whatever the id names.
- **S16** Bounded work per step: thousands of expired members are reaped in chunks.
- **S17 durable tickets** A ticket with a payload keeps its place without a process. The
  step that ends its waiting notifies the process that ran the step (`on_notice`); a grant that is
  not claimed is offered again by `sweep`, its arrival order kept. It is offered only while a
  worker can wake its job: each worker reports its `Presence` with its sweeps and its requests.
  Tickets of a name of which no worker was seen for `PRESENCE` seconds are *dormant*: they keep
  their order, are not offered, block no other call and do not count, until a worker of the name
  is seen again. They can be superseded and evicted; that is kept until their name can be notified.
  The step at which a name becomes absent serves the waiters behind. A ticket that was offered
  `OFFERS` times while its workers were present, and never claimed, is behind all others for
  `DEFERRED` seconds. Where a notice may be lost, one that says that the waiting ended badly is
  repeated until the job asks or is withdrawn.
- **S18 held** A durable request whose id already holds a live lease gets `Held`, and takes nothing.
- **S19** A ticket or lease can be dropped by its id alone.
- **S20 name** A key keeps the name of the limit (`Demand.name`) with which the last new request was
  admitted or queued on it, for `inspect`; an empty name changes nothing. It is kept for as long as
  the key has a holder, a waiter, an override or a pause, and no longer (S14).
- **S21 blocker** A waiter whose label carries a trace (`limiter_core.tracing`) is answered with the
  label of the oldest holder of the key that it waits for. Where a key has more members than one
  step may look at (S16), with that of the oldest that the step finds, or of none.
- **S22 policies** (only with `Capabilities.policies`) An operator sets a *policy* for a name: a
  number, a share of what the code declares (rounded up), a pause (0). A request of the name is
  judged by it as if the code declared that number: an override of the key (S12) still counts before
  it, and of two names on one key each request goes by its own. A number below the cost of a call
  counts as 0 for that call: it waits (S8). The change is applied to all that wait under the name,
  durable and dormant tickets too, and each step of it serves those that fit (S6); requests that
  come later are judged by it within 1 s, or 5 s if the notice is lost.
  A waiter that asks again declares its numbers anew. A policy with a duration ends at that time by
  the store's clock; then each ticket is judged by what its code declares, or by the other policy of
  its name, and the step that finds the end serves those that fit. Holders keep what they hold.
- **S23 log** (likewise) The store keeps the last `CHANGES_KEPT` changes of operators, the last one
  first: with a time by its own clock, and what was in force before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, runtime_checkable

from limiter_core._async_store import AsyncStore
from limiter_core._capabilities import DEFERRED, OFFERS, Capabilities, log_deferred
from limiter_core.requests import Answer, KeySnapshot, Notice, Presence, Renewal, Request

__all__ = ("DEFERRED", "OFFERS", "AsyncStore", "Capabilities", "Store", "SyncStore", "log_deferred")


@runtime_checkable
class Store(Protocol):
    """What a limiter is built on: one set of slots and tickets, with a face for each world."""

    @property
    def capabilities(self) -> Capabilities:
        """What this store can do."""
        ...

    def sync_face(self) -> SyncStore:
        """Return the operations for threads.

        Raises:
            ConfigurationError: the store has none.
        """
        ...

    def async_face(self) -> AsyncStore:
        """Return the operations for the event loop.

        Raises:
            ConfigurationError: the store has none.
        """
        ...


class SyncStore(Protocol):
    """A store's operations, for threads. The module's docstring has the rules S1 to S23.

    Every operation raises `StoreUnavailable` when the store cannot be reached and `StoreError`
    when it answers with an error; the state then is as if the operation did, or did not, happen.
    """

    def now(self) -> float:
        """Return the local clock on which deadlines count: seconds, monotonic, any start."""
        ...

    def acquire(self, request: Request) -> Answer:
        """Ask for slots, ask again while waiting, or claim a slot that was handed over.

        All three are one operation (S1 to S4, S7 to S13, S15, S18): the answer says where the
        request stands now. Under `Mode.LOOK` it says only that.

        Raises:
            StoreError: there is no answer. The caller asks again, or says `abandon`. Of a request
                with a payload the store releases what its claimant may have been granted: the
                job is delivered again, and its next delivery is another claimant.
        """
        ...

    def release(self, lease_id: str, keys: Sequence[str] = ()) -> bool:
        """Remove the lease or the ticket of this id, and hand its slots on (S5, S6, S15, S19).

        Args:
            lease_id: the request's id.
            keys: its keys, if the caller knows them; a help for finding it, never needed.

        Returns:
            Whether there was one. False is no error: it may have ended by itself.
        """
        ...

    def release_claim(self, lease_id: str, keys: Sequence[str], claimant: str) -> bool:
        """Remove the lease of a job if this claimant has it (S18); no ticket.

        A job whose lease was lost ends while the next delivery of it may run already, under the
        same id. A store that was written before this was in the protocol gets `release`.

        Args:
            lease_id: the request's id.
            keys: its keys.
            claimant: that of the delivery that ends.

        Returns:
            Whether it had one.
        """
        ...

    def abandon(self, lease_id: str, keys: Sequence[str], claimant: str = "") -> None:
        """Have a lease or ticket of this process released, as soon as may be, without waiting.

        That of a job only if this claimant has it, as by `release_claim`: another delivery may
        have the job by now.

        For one whose caller is gone, or was interrupted in an exchange. From now on it is not
        renewed; so where the release cannot be sent it ends by itself. Called from any thread,
        also by the garbage collector; never raises.
        """
        ...

    def let_expire(self, lease_id: str, claimant: str = "") -> None:
        """Renew a lease of this process no more, whose holder was collected unreleased.

        That of a job only if this claimant has it, as by `abandon`.

        It ends with its lease time, also in a store whose leases last as long as the process.
        Called from any thread; never waits for a server.
        """
        ...

    def renew(self, ids: Sequence[str]) -> Renewal:
        """Start the lease time of these leases and tickets again (S10)."""
        ...

    def withdraw(self, ticket_id: str, keys: Sequence[str] = ()) -> bool:
        """Remove a ticket, or a slot that was handed to it and is not claimed yet (S15, S19).

        As `release`, but a claimed lease stays: so a late withdrawal of a job that cannot be
        woken takes nothing from a delivery that runs.

        Returns:
            Whether there was one.
        """
        ...

    def evict(self, lease_id: str) -> bool:
        """Take the slot from a holder, and notify it; returns whether there was such a holder."""
        ...

    def evict_waiter(self, ticket_id: str, keys: Sequence[str] = ()) -> bool:
        """End the waiting of a ticket, also of one whose slot is not claimed yet (S19).

        The waiter gets `Refusal.EVICTED`, and a job ends so in its queue. A dormant one gets it
        when a worker is there again: until then it is kept, but no longer waits.

        Args:
            ticket_id: the ticket.
            keys: its keys, if the caller knows them; a help for finding it, never needed.

        Returns:
            Whether there was one.
        """
        ...

    def sweep(self, presence: Presence | None = None) -> None:
        """Reap and serve durable tickets, which no process waits for (S17): any process may, often.

        Reaps what ended on the keys on which one waits, and serves them; offers unclaimed slots
        again. Costs little where nothing is due. (For others their own processes look.)

        Args:
            presence: the worker that sweeps, and so says that it is there; or that it leaves.
        """
        ...

    def inspect(self, key: str, deadline: float | None = None) -> KeySnapshot:
        """Return the state of a key; of an unused one, too.

        Args:
            key: the key.
            deadline: when the caller's patience ends, on the store's local clock (`now()`); None:
                only the store's own bounds count. A store that waits for others keeps it, and
                raises `StoreUnavailable` then.
        """
        ...

    def keys(self, *, after_slice: Callable[[], object] | None = None) -> Iterator[str]:
        """Yield the keys that have a holder, a waiter, an override or a pause; in no order.

        Args:
            after_slice: called after each part of the search, also one that found nothing: where
                a server has millions of keys of others, a caller that searches all the time can
                pause here.
        """
        ...

    def set_limit(self, key: str, limit: int) -> None:
        """Override every declared limit of the key until `reset_limit` (S12)."""
        ...

    def reset_limit(self, key: str) -> None:
        """Return to the declared limits."""
        ...

    def pause(self, key: str) -> None:
        """Admit no call to the key until `resume`; holders continue."""
        ...

    def resume(self, key: str) -> None:
        """End a pause, and admit the waiters that fit."""
        ...

    def on_notice(self, callback: Callable[[Notice], object] | None) -> None:
        """Have this process's notices of durable tickets sent to `callback` (S17).

        Called from the thread that ran the step, after it; it must not raise. It returns False
        for a ticket that this process cannot wake: a store that reaches other processes
        notifies those then, and their callbacks are called as well. None: no more notices.
        """
        ...

    def close(self) -> None:
        """Give up connections and threads. Leases that are still held end by themselves."""
        ...
