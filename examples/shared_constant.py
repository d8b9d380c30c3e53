"""A shared constant: several functions have one limit, because they use the same resource.

Invoices and refunds are both written to a ledger that allows two writers. Neither function uses the
other; both name the ledger.

It prints::

    3 invoices and 3 refunds written, at most 2 at once
"""

import asyncio

from limiter_core import LIMIT_BY, ConcurrencyLimit, Limiter

limiter = Limiter("memory://")
ledger_writers = ConcurrencyLimit(LIMIT_BY.constant("ledger"), max_concurrent=2)

written: list[str] = []
running = most = 0


async def write(entry: str) -> None:
    global running, most
    running += 1
    most = max(most, running)
    await asyncio.sleep(0.02)
    written.append(entry)
    running -= 1


@limiter.limited(ledger_writers)
async def invoice(number: int) -> None:
    await write(f"invoice {number}")


@limiter.limited(ledger_writers)
async def refund(number: int, reason: str) -> None:
    await write(f"refund {number}: {reason}")


async def main() -> None:
    await asyncio.gather(
        *(invoice(number) for number in range(3)),
        *(refund(number, "broken on arrival") for number in range(3)),
    )
    invoices = sum(entry.startswith("invoice") for entry in written)
    print(f"{invoices} invoices and {len(written) - invoices} refunds written, ", end="")
    print(f"at most {most} at once")


asyncio.run(main())
