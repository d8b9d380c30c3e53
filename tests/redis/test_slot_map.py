"""The map of a cluster's slots: who owns what, by what the nodes say."""

from __future__ import annotations

import pytest
from redis.exceptions import (
    ConnectionError,  # noqa: A004  (redis-py's own)
    MovedError,
)

from limiter_redis.cluster.slot_map import SLOTS, SlotMap, slot_of
from limiter_redis.connection.nodes import Node
from limiter_redis.protocol.keyspace import keyspace_of

SEED, OTHER, NEW = Node("a", 1), Node("b", 2), Node("c", 3)
SLOT = slot_of("{tag}")


def slots(*owners: Node) -> list[list[object]]:
    """Return what CLUSTER SLOTS answers where the nodes have equal shares and a replica each."""
    share = SLOTS // len(owners)
    return [
        [
            number * share,
            SLOTS - 1 if number == len(owners) - 1 else (number + 1) * share - 1,
            [owner.host.encode(), owner.port, b"id"],
            [b"replica", owner.port, b"id"],
        ]
        for number, owner in enumerate(owners)
    ]


def map_of(*answers: list[list[object]]) -> SlotMap:
    """Return a map that was not read yet; its readings have these answers."""
    left = iter(answers)
    return SlotMap(keyspace_of("limiter"), [SEED], lambda _, __: next(left))


def test_the_masters_are_those_that_own_slots() -> None:
    slot_map = map_of(slots(OTHER, SEED), slots(NEW))
    assert slot_map.masters() == []
    slot_map.refresh(0)
    assert slot_map.masters() == [SEED, OTHER]
    slot_map.refresh(1)
    assert slot_map.masters() == [NEW]
    assert slot_map.node_of("{tag}") == NEW


def test_a_redirection_names_a_master() -> None:
    """Until the next reading, which knows it or not."""
    slot_map = map_of(slots(SEED), slots(SEED))
    slot_map.refresh(0)
    slot_map.moved(MovedError(f"{SLOT} {NEW.host}:{NEW.port}"), SEED)
    assert slot_map.node_of("{tag}") == NEW
    assert slot_map.masters() == [SEED, NEW]
    slot_map.refresh(1)
    assert slot_map.node_of("{tag}") == SEED
    assert slot_map.masters() == [SEED]


def test_a_redirection_before_the_first_reading() -> None:
    slot_map = map_of()
    slot_map.moved(MovedError(f"{SLOT} {NEW.host}:{NEW.port}"), SEED)
    assert slot_map.node_of("{tag}") == NEW
    assert slot_map.masters() == [NEW]


def test_a_node_that_knows_of_no_slots_is_not_believed() -> None:
    slot_map = map_of(slots(SEED), [], [])
    slot_map.refresh(0)
    with pytest.raises(ConnectionError, match="no slots"):
        slot_map.refresh(1)
    assert slot_map.masters() == [SEED]
    assert slot_map.version == 1
