"""The heap of the memory store, beside a sorted list."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from limiter_memory._heap import Heap

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("push"), st.integers(0, 20)),
        st.tuples(st.just("push in order"), st.integers(0, 3)),
        st.tuples(st.just("remove"), st.integers(0, 200)),
        st.tuples(st.just("pop"), st.just(0)),
    ),
    max_size=300,
)


@given(STEPS)
def test_members_leave_in_the_order_of_rank_and_then_of_entering(
    steps: list[tuple[str, int]],
) -> None:
    heap = Heap[int]()
    members: list[tuple[int, int]] = []  # of each its rank, and its number
    number = highest = 0
    for step, value in steps:
        if step in ("push", "push in order"):
            rank = value if step == "push" else highest + value
            highest = max(highest, rank)
            heap.push(rank, number)
            members.append((rank, number))
            number += 1
        elif step == "remove":
            found = [each for each in members if each[1] == value]
            assert heap.remove(value) is bool(found)
            members = [each for each in members if each[1] != value]
        elif members:
            first = heap.first()
            assert first is not None
            heap.pop_first()
            members.remove(min(members))
        members.sort()
        assert heap.first() == (members[0][1] if members else None)
        assert heap.first_rank() == (members[0][0] if members else None)
        assert heap.smallest(3) == [each for _, each in members[:3]]
        assert len(heap) == len(members)
        assert all(each in heap for _, each in members)


def test_members_that_left_are_swept_out() -> None:
    heap = Heap[int]()
    for number in range(1000):
        heap.push(number % 2, number)
    for number in range(1000):
        if number % 100:
            heap.remove(number)
    entries = len(heap._row or ()) + len(heap._others)
    assert entries <= 100
    assert len(heap) == 10
