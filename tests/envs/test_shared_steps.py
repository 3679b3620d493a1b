"""What is handed over in shared memory, whose types are fixed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mlagents_envs.base_env import DecisionSteps, TerminalSteps

from mlhooks.envs.shared_steps import check_steps
from mlhooks.errors import ContractBroken
from tests.envs.numbered import spec


def steps(**parts: Any) -> DecisionSteps:
    given = {"reward": np.zeros(2), "agent_id": np.arange(2), "action_mask": None, "group_id": np.zeros(2, np.int64)}
    return DecisionSteps([np.zeros((2, 4))], **(given | {"group_reward": np.zeros(2)} | parts))


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"agent_id": np.array([1, 2**32 + 1])}, r"the agent_id holds what no int32 is: \[1, 4294967297\]"),
        ({"group_id": np.array([0.5, 1.0])}, r"the group_id holds what no int32 is: \[0\.5, 1\.0\]"),
        (
            {"action_mask": [np.array([[0, 2], [0, 1]]), np.zeros((2, 3), bool)]},
            r"the action mask 0 holds what no bool is: \[0, 2, 0, 1\]",
        ),
    ],
)
def test_numbers_that_would_become_others_are_refused(parts: dict[str, Any], said: str) -> None:
    with pytest.raises(ContractBroken, match=f"'Numbers': {said}"):
        check_steps("Numbers", spec(), steps(**parts), TerminalSteps.empty(spec()))


@pytest.mark.parametrize(
    ("parts", "said"),
    [({"reward": [0.0, 1.0]}, "the reward is a list"), ({"obs": [[[0.0] * 4] * 2]}, "the observation 0 is a list")],
)
def test_lists_in_place_of_arrays_are_named(parts: dict[str, Any], said: str) -> None:
    given = steps()
    vars(given).update(parts)
    with pytest.raises(ContractBroken, match=f"'Numbers': {said}, and not a numpy array"):
        check_steps("Numbers", spec(), given, TerminalSteps.empty(spec()))


def test_numbers_of_other_types_that_stay_what_they_are_pass() -> None:
    mask = [np.array([[0.0, 1.0], [1.0, 0.0]]), np.zeros((2, 3), np.int8)]
    check_steps("Numbers", spec(), steps(action_mask=mask), TerminalSteps.empty(spec()))
