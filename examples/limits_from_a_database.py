"""Numbers per tenant from a database: `max_concurrent` is an async function that reads them.

Each tenant has the number of exports that its row says; a tenant without a row has one. What was
read counts for a while, so a busy tenant costs no query per call. When the row is changed, the next
calls follow it: nothing is deployed, nobody restarts.

Here the database is SQLite, whose driver blocks, so it is asked in a thread. With asyncpg or
psycopg for Postgres, `exports_of` awaits the query itself:

    number = await pool.fetchval("SELECT exports FROM tenants WHERE name = $1", tenant)

It prints::

    acme: at most 3 at once
    solo: at most 1 at once
    nobody: at most 1 at once
    solo, after its row was changed: at most 2 at once
    queries for 24 calls: 4
"""

import asyncio
import sqlite3
import tempfile
import time
from pathlib import Path

from limiter_core import ArgumentView, ConcurrencyLimit, Limiter

FRESH = 0.5  # seconds that a number counts; in production rather 10
DEFAULT = 1


class Tenants:
    """How many exports each tenant may run at once, as the database says."""

    def __init__(self, path: Path) -> None:
        self.queries = 0
        self._path = path
        self._known: dict[str, tuple[float, asyncio.Task[int]]] = {}

    async def exports_of(self, call: ArgumentView) -> int:
        """Return the number for the tenant of a call: one query at a time for each tenant."""
        tenant = str(call["tenant"])
        read_at, number = self._known.get(tenant, (float("-inf"), None))
        if number is None or time.monotonic() - read_at > FRESH:
            number = asyncio.create_task(asyncio.to_thread(self._read, tenant))
            self._known[tenant] = time.monotonic(), number
        return await asyncio.shield(number)

    def _read(self, tenant: str) -> int:
        self.queries += 1
        with sqlite3.connect(self._path) as db:
            row = db.execute("SELECT exports FROM tenants WHERE name = ?", [tenant]).fetchone()
        db.close()
        return row[0] if row else DEFAULT


def change(path: Path, statement: str) -> None:
    """Change the database."""
    with sqlite3.connect(path) as db:
        db.executescript(statement)
    db.close()


async def most_at_once(limiter: Limiter, limit: ConcurrencyLimit, tenant: str) -> int:
    """Start six exports, and return how many of them ran at once, at most."""
    running = most = 0

    @limiter.limited(limit)
    async def export(tenant: str) -> None:  # noqa: ARG001  (the limit uses it)
        nonlocal running, most
        running += 1
        most = max(most, running)
        await asyncio.sleep(0.02)
        running -= 1

    await asyncio.gather(*(export(tenant) for _ in range(6)))
    return most


async def main(path: Path) -> None:
    change(
        path,
        "CREATE TABLE tenants (name TEXT PRIMARY KEY, exports INTEGER NOT NULL);"
        "INSERT INTO tenants VALUES ('acme', 3), ('solo', 1)",
    )
    tenants = Tenants(path)
    per_tenant = ConcurrencyLimit("tenant", max_concurrent=tenants.exports_of)
    async with Limiter("memory://") as limiter:
        for tenant in ("acme", "solo", "nobody"):
            print(f"{tenant}: at most {await most_at_once(limiter, per_tenant, tenant)} at once")
        change(path, "UPDATE tenants SET exports = 2 WHERE name = 'solo'")
        await asyncio.sleep(FRESH)
        most = await most_at_once(limiter, per_tenant, "solo")
        print(f"solo, after its row was changed: at most {most} at once")
    print(f"queries for 24 calls: {tenants.queries}")


with tempfile.TemporaryDirectory() as folder:
    asyncio.run(main(Path(folder) / "shop.db"))
