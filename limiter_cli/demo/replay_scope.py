"""A scope of its own for a replay, so that on a shared store it meets no key that is in use."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import replace

from limiter_cli.demo.plan import Planned
from limiter_core import ConcurrencyLimit, ConfigurationError

__all__ = ("ReplayScope",)

_LONGEST_SCOPE = 50


class ReplayScope:
    """Gives limits a scope of their own, and knows their keys by both names.

    A key `tenant=acme` becomes `demo-1a2b3c4d/tenant=acme`, and `billing/tenant=acme` becomes
    `demo-1a2b3c4d.billing/tenant=acme`: what shared a scope still does.

    Args:
        name: the scope, where it is given by another process; else one that is not in use.
    """

    def __init__(self, name: str | None = None) -> None:
        self.name = f"demo-{secrets.token_hex(4)}" if name is None else name

    def plan(self, calls: Sequence[Planned]) -> list[Planned]:
        """Return calls under limits of this scope. What they claim keeps the keys' own names.

        Raises:
            ConfigurationError: a scope is too long.
        """
        return [replace(call, limits=tuple(map(self._limit, call.limits))) for call in calls]

    def key(self, own: str) -> str:
        """Return the name in the store of a key that is known by its own name."""
        return f"{self.name}{'.' if '/' in own else '/'}{own}"

    def own(self, key: str) -> str:
        """Return the own name of a key in the store."""
        return key[len(self.name) + 1 :]

    def _limit(self, limit: ConcurrencyLimit) -> ConcurrencyLimit:
        scope = limit.scope
        if scope is None:
            return replace(limit, scope=self.name)
        if len(scope) > _LONGEST_SCOPE:
            raise ConfigurationError(
                f"on a shared store, the demo takes scopes of up to {_LONGEST_SCOPE} characters, "
                f"got {scope!r}"
            )
        return replace(limit, scope=f"{self.name}.{scope}")
