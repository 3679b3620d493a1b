from __future__ import annotations

import numpy as np
import pytest

from mlhooks.envs.slots import SlotMap, SlotPool


def ids(*agents: int) -> np.ndarray:
    return np.array(agents, np.int32)


def test_agents_keep_their_slots_in_any_order() -> None:
    slots = SlotMap(SlotPool())
    assert slots.slots(ids(7, 3, 9)).tolist() == [0, 1, 2]
    assert slots.slots(ids(9, 7)).tolist() == [2, 0]
    assert slots.slots(ids(3, 4)).tolist() == [1, 3]


def test_unchanged_ids_cost_no_new_array() -> None:
    slots = SlotMap(SlotPool())
    assert slots.slots(ids(1, 2)) is slots.slots(ids(1, 2))


def test_slots_of_agents_that_are_gone_are_used_again() -> None:
    pool = SlotPool()
    slots = SlotMap(pool)
    for generation in range(100):
        agents = ids(*range(generation * 3, generation * 3 + 3))
        assert sorted(slots.slots(agents).tolist()) == [0, 1, 2]
        slots.release(agents)
    assert pool.size == 3


def test_behavior_ids_of_one_pool_never_share_a_slot() -> None:
    pool = SlotPool()
    first, second = SlotMap(pool), SlotMap(pool)
    assert first.slots(ids(0, 1)).tolist() == [0, 1]
    assert second.slots(ids(0, 1)).tolist() == [2, 3]


def test_unknown_agents_are_found_as_minus_one() -> None:
    slots = SlotMap(SlotPool())
    slots.slots(ids(5))
    assert slots.find(ids(4, 5)).tolist() == [-1, 0]


def test_restored_map_gives_the_same_slots() -> None:
    pool, other = SlotPool(), SlotPool()
    slots, restored = SlotMap(pool), SlotMap(other)
    slots.slots(ids(1, 2, 3))
    slots.release(ids(2))
    other.load_state_dict(pool.state_dict())
    restored.load_state_dict(slots.state_dict())
    assert restored.slots(ids(3, 8, 1)).tolist() == slots.slots(ids(3, 8, 1)).tolist() == [2, 1, 0]


def test_an_agent_that_appears_twice_is_refused_and_nothing_is_taken() -> None:
    pool = SlotPool()
    with pytest.raises(ValueError, match="more than once"):
        SlotMap(pool).slots(ids(1, 2, 1))
    assert pool.size == 0
