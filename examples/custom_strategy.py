"""A strategy of your own: any rule that decides which calls share a limit.

An API serves two requests of each account at once, for all API keys of the account. The rule needs
a look-up, so it is a class. The limiter is async, so the look-up may be async, too. Strategies
combine with `&`, and `key_for` shows the resulting key.

It prints::

    one key per tier and account: key:gold:anna
    and one per region: key:gold:anna&region=eu
    a function will often do: key:api.example.com
    at most 2 at once for anna, whose apps have keys a1 and a2
"""

import asyncio
from urllib.parse import urlsplit

from limiter_core import (
    LIMIT_BY,
    ArgumentView,
    ConcurrencyLimit,
    ConcurrencyStrategy,
    Limiter,
)

ACCOUNTS = {"a1": "anna", "a2": "anna", "b1": "bert"}
TIERS = {"anna": "gold", "bert": "basic"}


class ByAccount(ConcurrencyStrategy):
    """All API keys of an account share a limit."""

    async def get_key(self, execution: ArgumentView, /) -> str:
        """Return the account of the API key, and its tier."""
        account = await self._account_of(execution.get_argument("api_key"))
        return f"{TIERS[account]}:{account}"

    async def _account_of(self, api_key: str) -> str:
        await asyncio.sleep(0)  # a real program would query a database here
        return ACCOUNTS[api_key]


def host_of(call: ArgumentView) -> str:
    return urlsplit(str(call["url"])).netloc


limiter = Limiter("memory://")
per_account = ConcurrencyLimit(ByAccount(), max_concurrent=2)
per_account_and_region = ConcurrencyLimit(ByAccount() & LIMIT_BY.fn_argument("region"))
per_host = ConcurrencyLimit(LIMIT_BY.fn(host_of))

running = most = 0


@limiter.limited(per_account)
async def request(api_key: str) -> None:  # noqa: ARG001  (the limit uses it)
    global running, most
    running += 1
    most = max(most, running)
    await asyncio.sleep(0.01)
    running -= 1


async def main() -> None:
    call = {"api_key": "a2", "region": "eu", "url": "https://api.example.com/v1/users"}
    print("one key per tier and account:", await limiter.key_for(per_account, call))
    print("and one per region:", await limiter.key_for(per_account_and_region, call))
    print("a function will often do:", await limiter.key_for(per_host, call))

    await asyncio.gather(*(request(api_key) for api_key in ("a1", "a2") * 3))
    print(f"at most {most} at once for anna, whose apps have keys a1 and a2")


asyncio.run(main())
