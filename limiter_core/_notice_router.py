"""Takes the notices of a store to the gates of this process, by the names of the gates."""

from __future__ import annotations

import weakref
from dataclasses import replace
from inspect import signature

from limiter_core._gate_state import GateState
from limiter_core._job_parts import Wake
from limiter_core._packed_limits import unpacked_limits
from limiter_core.outage import RepeatedWarning
from limiter_core.requests import Notice
from limiter_core.store import AsyncStore, Store, SyncStore
from limiter_core.threads import new_lock


class _Router:
    """Takes the notices of one store to the gates of this process, by their names."""

    def __init__(self) -> None:
        self._gates: list[tuple[GateState, Wake]] = []
        self._failed_wakes = RepeatedWarning("could not wake")

    def __bool__(self) -> bool:
        return bool(self._gates)

    def add(self, state: GateState, wake: Wake) -> None:
        self._gates.append((state, wake))

    def remove(self, state: GateState, wake: Wake) -> None:
        if (state, wake) in self._gates:
            self._gates.remove((state, wake))

    def __call__(self, notice: Notice) -> bool:
        name, rest = notice.name, notice.payload
        if not name:  # parked by an earlier version, or in a store of one
            first, _, rest = rest.partition(b"\0")
            name = first.decode(errors="replace")
        packed, _, payload = rest.partition(b"\0")
        found = [gate for gate in self._gates if gate[0].wakes(name)]
        if not found:
            return False  # another framework's job
        state, wake = max(found, key=lambda gate: gate[0].name == name)
        limits = unpacked_limits(packed)
        state.remember(notice.id, limits)
        try:
            wake(replace(notice, payload=payload, limits=limits))
        except Exception as error:  # noqa: BLE001  (the thread that ran the step is not to blame)
            self._failed_wakes.note(error, notice.id, unknown=True)
        return True


_routers: weakref.WeakKeyDictionary[Store, _Router] = weakref.WeakKeyDictionary()
_routers_lock = new_lock()


def subscribe(store: Store, face: AsyncStore | SyncStore, state: GateState, wake: Wake) -> None:
    """Have the notices of a gate's name sent to it."""
    state.sends_presence = bool(signature(face.sweep).parameters)
    with _routers_lock:
        router = _routers.setdefault(store, _Router())
        router.add(state, wake)
        face.on_notice(router)


def unsubscribe(store: Store, face: AsyncStore | SyncStore, state: GateState, wake: Wake) -> None:
    """Send a gate no more notices."""
    with _routers_lock:
        router = _routers.get(store)
        if router is not None:
            router.remove(state, wake)
            if not router:
                face.on_notice(None)
