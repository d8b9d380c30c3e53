"""What a limit is by, over whom it holds, and what it is inside of a body."""

# ruff: noqa: B008

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated, Any

import pytest
from docket import Depends, Docket, Worker

from limiter_core import ConfigurationError
from limiter_docket import LIMIT_BY, ConcurrencyLimit, ConcurrencyStrategy, set_store
from limiter_memory import MemoryStore
from tests.docket._tools import (
    TaskRecord,
    finish,
    limiter_of,
    most_at_once,
    parked,
    until,
    until_true,
    working,
)
from tests.redis._servers import Server


async def test_code_written_for_docket_keeps_working(any_docket: Docket) -> None:
    record = TaskRecord()

    async def bill(
        customer_id: int, c: ConcurrencyLimit = ConcurrencyLimit("customer_id", max_concurrent=1)
    ) -> None:
        assert isinstance(c, ConcurrencyLimit)
        await record.body(c.concurrency_key)

    for _ in range(4):
        await any_docket.add(bill)(customer_id=7)
    await finish(any_docket)
    assert record.began == ["customer_id=7"] * 4
    assert most_at_once(record.bodies) == 1


async def test_two_limits_on_one_task_are_taken_all_or_none(any_docket: Docket) -> None:
    customers: dict[int, TaskRecord] = {each: TaskRecord() for each in range(3)}
    region_book = TaskRecord()

    async def sync(
        customer_id: Annotated[int, ConcurrencyLimit(1)],
        region: Annotated[str, ConcurrencyLimit(2)],
    ) -> None:
        await region_book.body(region, 0.0)
        await customers[customer_id].body(region)

    for each in range(12):
        await any_docket.add(sync)(each % 3, region="eu")
    await finish(any_docket)
    for record in customers.values():
        assert len(record.began) == 4
        assert most_at_once(record.bodies) == 1
    bodies = [body for record in customers.values() for body in record.bodies]
    assert most_at_once(bodies) == 2


async def test_per_task_shared_and_per_pair(any_docket: Docket) -> None:
    keys: list[str] = []
    ops = ConcurrencyLimit(LIMIT_BY.constant("billing_ops"), max_concurrent=2)

    async def heavy(c: ConcurrencyLimit = ConcurrencyLimit(LIMIT_BY.fn_name, max_concurrent=3)):
        keys.append(c.concurrency_key)

    async def plain(c: ConcurrencyLimit = ConcurrencyLimit(max_concurrent=3)):
        keys.append(c.concurrency_key)

    async def one(c: ConcurrencyLimit = ops):
        keys.append(c.concurrency_key)

    async def other(
        c: ConcurrencyLimit = ConcurrencyLimit(LIMIT_BY.constant("billing_ops"), max_concurrent=2),
    ):
        keys.append(c.concurrency_key)

    async def pair(
        region: str,
        priority: str = "low",
        c: ConcurrencyLimit = ConcurrencyLimit(["region", "priority"], max_concurrent=5),
    ):
        keys.append(c.concurrency_key)

    async def scoped(
        customer_id: int, c: ConcurrencyLimit = ConcurrencyLimit("customer_id", 3, "s")
    ):
        keys.append(c.concurrency_key)

    async def named(n: int, c: ConcurrencyLimit = ConcurrencyLimit(argument_name="n")):
        keys.append(c.concurrency_key)

    for task in (heavy, plain, one, other):
        await any_docket.add(task)()
    await any_docket.add(pair)("eu")  # what is left out has its default
    await any_docket.add(scoped)(1)
    await any_docket.add(named)(1)
    await finish(any_docket)
    names = ["heavy()", "plain()", "billing_ops", "billing_ops", "region=eu,priority=low"]
    assert sorted(keys) == sorted([*names, "s/customer_id=1", "n=1"])


async def test_a_strategy_of_ones_own_and_a_limit_per_tenant(any_docket: Docket) -> None:
    class ByTier(ConcurrencyStrategy):
        async def get_key(self, execution: Any) -> str:  # type: ignore[override]
            return f"tier:{execution.get_argument('api_key')[0]}"

    books = {"a": TaskRecord(), "b": TaskRecord()}

    async def call(
        api_key: str,
        c: ConcurrencyLimit = ConcurrencyLimit(
            ByTier(), lambda args: 3 if args["api_key"].startswith("a") else 1
        ),
    ):
        await books[api_key[0]].body(c.concurrency_key, 0.05)

    for each in range(6):
        await any_docket.add(call)(f"a{each}")
        await any_docket.add(call)(f"b{each}")
    await finish(any_docket, concurrency=12)
    assert most_at_once(books["a"].bodies) == 3
    assert most_at_once(books["b"].bodies) == 1
    assert set(books["a"].began) == {"key:tier:a"}


async def test_an_argument_that_a_task_does_not_have_is_refused_when_the_worker_starts(
    docket: Docket,
) -> None:
    async def bill(amount: int, c: ConcurrencyLimit = ConcurrencyLimit("customer_id")): ...

    docket.register(bill)
    with pytest.raises(ConfigurationError, match=r"bill does not have; there are: amount"):
        await finish(docket)


async def test_an_argument_that_leads_nowhere_fails_the_task(docket: Docket) -> None:
    async def bill(amount: int, c: ConcurrencyLimit = ConcurrencyLimit("amount.customer")):
        raise AssertionError("never")

    execution = await docket.add(bill)(3)
    await finish(docket)
    with pytest.raises(ExceptionGroup) as caught:
        await execution.get_result()
    assert re.search(r"'amount.customer' leads nowhere", str(caught.value.exceptions))


@pytest.mark.parametrize("wrong", [{"max_concurrent": -1}, {"cost": 0}, {"lease": -1}, {"by": ""}])
def test_a_wrong_limit_is_refused_where_it_is_written(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        ConcurrencyLimit(**wrong)


def test_outside_of_a_task_it_holds_nothing() -> None:
    limit = ConcurrencyLimit("customer_id", 2, scope="s")
    assert (limit.argument_name, limit.max_concurrent, limit.scope) == ("customer_id", 2, "s")
    for name in ("concurrency_key", "id", "lost", "fencing_token"):
        with pytest.raises(RuntimeError, match="use within task context"):
            getattr(limit, name)
    assert "customer_id" in repr(limit)


async def test_the_parameter_is_the_lease(any_docket: Docket) -> None:
    tokens: list[int] = []

    async def bill(c: ConcurrencyLimit = ConcurrencyLimit()):
        assert c.id
        assert not c.lost
        assert c.expires_in() > 0
        c.check()
        assert c.keys == ("bill()",)
        tokens.append(c.fencing_token)

    for _ in range(5):
        await any_docket.add(bill)()
    await finish(any_docket)
    assert tokens == sorted(set(tokens))
    assert len(tokens) == 5


async def test_the_dependencies_of_a_worker_limit_all_that_it_does(any_docket: Docket) -> None:
    record = TaskRecord()

    async def one():
        await record.body(1)

    async def two(customer_id: Annotated[int, ConcurrencyLimit(1)]):
        await record.body(2)

    for each in range(5):
        await any_docket.add(one)()
        await any_docket.add(two)(each)
    everything = ConcurrencyLimit(LIMIT_BY.constant("everything"), max_concurrent=2)
    await finish(any_docket, dependencies=[everything])
    assert len(record.began) == 10
    assert most_at_once(record.bodies) == 2


async def test_a_limit_of_a_dependency_is_taken_with_the_tasks_own(any_docket: Docket) -> None:
    record = TaskRecord()

    async def connection(c: ConcurrencyLimit = ConcurrencyLimit(LIMIT_BY.constant("db"), 1)) -> str:
        return c.concurrency_key

    async def query(
        n: int,
        db: str = Depends(connection),
        c: ConcurrencyLimit = ConcurrencyLimit(max_concurrent=3),
    ):
        assert (db, c.keys) == ("db", ("db", "query()"))
        await record.body(n)

    for each in range(4):
        await any_docket.add(query)(each)
    await finish(any_docket)
    assert sorted(record.began) == [0, 1, 2, 3]
    assert most_at_once(record.bodies) == 1


async def test_a_limit_of_a_workers_dependency_is_one_of_the_workers(any_docket: Docket) -> None:
    record = TaskRecord()

    async def connection(c: ConcurrencyLimit = ConcurrencyLimit(LIMIT_BY.constant("db"), 1)) -> str:
        return c.concurrency_key

    async def query(n: int):
        await record.body(n)

    for each in range(4):
        await any_docket.add(query)(each)
    await finish(any_docket, dependencies=[Depends(connection)])
    assert sorted(record.began) == [0, 1, 2, 3]
    assert most_at_once(record.bodies) == 1


async def test_a_limit_given_by_the_caller_is_not_taken(any_docket: Docket) -> None:
    given: list[Any] = []

    async def bill(c: Any = ConcurrencyLimit(max_concurrent=1)):
        given.append(c)

    await any_docket.add(bill)(c=None)
    await finish(any_docket)
    assert given == [None]


async def test_equal_limits_on_worker_and_task_are_one(any_docket: Docket) -> None:
    done: list[str] = []

    async def task(c: ConcurrencyLimit = ConcurrencyLimit(LIMIT_BY.constant("x"), 1)):
        done.append(c.concurrency_key)

    await any_docket.add(task)()
    await finish(any_docket, dependencies=[ConcurrencyLimit(LIMIT_BY.constant("x"), 1)])
    assert done == ["x"]


async def test_other_stores_for_a_docket_or_a_limit(docket: Docket) -> None:
    from limiter_core import Limiter

    own, of_docket = MemoryStore(), MemoryStore()
    seen: list[Any] = []

    async def with_own(
        c: ConcurrencyLimit = ConcurrencyLimit(LIMIT_BY.constant("a"), store=own),
    ):
        seen.append([key async for key in Limiter(own).keys()])

    async def with_dockets(c: ConcurrencyLimit = ConcurrencyLimit(LIMIT_BY.constant("b"))):
        seen.append([key async for key in Limiter(of_docket).keys()])

    set_store(docket, of_docket)
    await docket.add(with_own)()
    await docket.add(with_dockets)()
    await finish(docket)
    assert sorted(seen) == [["a"], ["b"]]


async def test_a_store_that_cannot_be_had_is_said_when_the_worker_starts(server: Server) -> None:
    async def bill(c: ConcurrencyLimit = ConcurrencyLimit()):
        raise AssertionError("never")

    async with Docket(name="a}{}b", url=server.url) as docket:
        docket.register(bill)
        async with Worker(docket) as worker:
            with pytest.raises(ConfigurationError, match="namespace"):
                await worker.run_until_finished()


@pytest.mark.parametrize(
    "wrong",
    [
        {"claim": "30"},
        {"claim": -1},
        {"backstop": 0},
        {"backstop": "x"},
        {"store": "no://"},
        {"store": 42},
        {"on_store_error": "wait"},
    ],
)
def test_wrong_settings_are_refused_where_they_are_said(wrong: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError):
        set_store("unused", **wrong)


def test_what_is_no_store_is_refused_where_a_limit_is_written() -> None:
    wrong: Any = 42
    with pytest.raises(ConfigurationError, match="needs a store or its URL"):
        ConcurrencyLimit("n", store=wrong)


async def test_a_strategy_that_cannot_be_hashed(any_docket: Docket) -> None:
    @dataclass  # with __eq__, and so without __hash__
    class By(ConcurrencyStrategy):
        name: str

        def get_key(self, execution: Any) -> str:
            return str(execution.get_argument(self.name))

    keys: list[str] = []

    async def bill(
        n: int,
        region: str,
        c: ConcurrencyLimit = ConcurrencyLimit(By("region")),
        d: ConcurrencyLimit = ConcurrencyLimit(By("n"), 2),
    ):
        keys.extend((c.concurrency_key, d.concurrency_key))

    await any_docket.add(bill)(1, "eu")
    await finish(any_docket)
    assert keys == ["key:eu", "key:1"]


async def test_limits_in_several_stores_are_refused_when_the_worker_starts(docket: Docket) -> None:
    async def sync(
        c: ConcurrencyLimit = ConcurrencyLimit("n", store=MemoryStore()),
        d: ConcurrencyLimit = ConcurrencyLimit("n", scope="other"),
        n: int = 1,
    ):
        raise AssertionError("never")

    docket.register(sync)
    async with Worker(docket) as worker:
        with pytest.raises(ConfigurationError, match="sync has limits in several stores"):
            await worker.run_until_finished()


async def test_another_dependency_that_fails_is_the_only_one_that_is_blamed(
    any_docket: Docket,
) -> None:
    def broken() -> None:
        raise RuntimeError("no connection")

    async def bill(d: None = Depends(broken), c: ConcurrencyLimit = ConcurrencyLimit(), e: int = 1):
        raise AssertionError("never")

    execution = await any_docket.add(bill)()
    await finish(any_docket)
    with pytest.raises(ExceptionGroup) as caught:
        await execution.get_result()
    assert [str(error) for error in caught.value.exceptions] == ["no connection"]


async def test_an_operator_raises_a_limit_for_those_who_wait(any_docket: Docket) -> None:
    record = TaskRecord()

    async def bill(n: int, c: ConcurrencyLimit = ConcurrencyLimit(LIMIT_BY.constant("ops"), 1)):
        await record.hold(n)

    for each in range(5):
        await any_docket.add(bill)(each)
    async with working(any_docket):
        await until_true(parked(any_docket, 4), "four wait")
        limiter = await limiter_of(any_docket)
        await limiter.set_limit("ops", 3)
        await until_true(parked(any_docket, 2), "two wait")
        await limiter.set_limit("ops", 10)
        await until_true(parked(any_docket, 0), "no task waits")
        await until(lambda: len(record.began) == 5, "all run")
        await limiter.reset_limit("ops")
        record.go_on.set()
    assert sorted(record.began) == [0, 1, 2, 3, 4]
