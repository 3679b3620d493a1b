import numpy as np
import pytest
from mlagents_envs.base_env import ActionSpec, ActionTuple

from mlhooks.unity import schema
from mlhooks.unity.encode import encode_actions, encode_step

schema.install()

from mlagents_envs.communicator_objects.agent_action_pb2 import AgentActionProto  # noqa: E402
from mlagents_envs.communicator_objects.command_pb2 import STEP  # noqa: E402
from mlagents_envs.communicator_objects.unity_rl_input_pb2 import UnityRLInputProto  # noqa: E402

ListAgentActionProto = UnityRLInputProto.ListAgentActionProto


def reference(action: ActionTuple) -> bytes:
    """Return what the reference sends: every field filled agent by agent."""
    agents = ListAgentActionProto()
    for continuous, discrete in zip(action.continuous, action.discrete, strict=True):
        proto = AgentActionProto()
        proto.vector_actions_deprecated.extend([*continuous, *discrete])
        proto.continuous_actions.extend(continuous)
        proto.discrete_actions.extend(discrete)
        agents.value.append(proto)
    data: bytes = agents.SerializeToString()
    return data


@pytest.mark.parametrize("count", [0, 1, 3])
@pytest.mark.parametrize(("continuous", "branches"), [(2, ()), (0, (3, 2)), (40, (5,)), (0, ()), (1, (2,) * 130)])
def test_actions_are_encoded_as_the_reference_encodes_them(
    continuous: int, branches: tuple[int, ...], count: int
) -> None:
    action = ActionSpec(continuous, branches).random_action(count)
    assert encode_actions(action) == reference(action)


@pytest.mark.parametrize("largest", [127, 128, 20_000, 2**31 - 1, -1])
def test_numbers_of_any_size_are_encoded(largest: int) -> None:
    action = ActionTuple(np.array([[0.5], [-2.0]], np.float32), np.array([[0, largest], [1, 2]], np.int32))
    assert encode_actions(action) == reference(action)


def test_actions_in_other_dtypes_and_orders_are_converted() -> None:
    action = ActionTuple(np.asfortranarray([[0.5, 1.5], [2.5, 3.5]]), np.array([[3], [4]], np.int64))
    assert encode_actions(action) == reference(action)


def test_step_holds_all_behaviors_and_the_side_channels() -> None:
    first, second = ActionSpec(2, ()).random_action(3), ActionSpec(0, (3,)).random_action(1)
    absent = ActionSpec(2, ()).empty_action(0)
    data = encode_step({"Ball?team=0": first, "Größe": second, "Absent": absent}, b"side")
    step = UnityRLInputProto.FromString(data)
    assert step.command == STEP
    assert step.side_channel == b"side"
    assert set(step.agent_actions) == {"Ball?team=0", "Größe"}
    assert step.agent_actions["Ball?team=0"].SerializeToString() == reference(first)
    assert step.agent_actions["Größe"].SerializeToString() == reference(second)


def test_step_of_nobody_is_empty() -> None:
    assert encode_step({}, b"") == b""
