"""How the stand-in reads actions and side channels."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from mlagents_envs.communicator_objects.unity_rl_input_pb2 import UnityRLInputProto

from mlhooks.sim_player.dialect import dialect
from mlhooks.sim_player.exchange import read_actions
from mlhooks.sim_player.side_channels import ENGINE, PARAMETERS, Channels
from mlhooks.sim_player.world import Behavior, Infos, PlayerError

HYBRID = {"H?team=0": Behavior("H?team=0", (), continuous=2, branches=(3,))}


def asked(count: int, ended: int = 0) -> dict[str, list[Infos]]:
    def infos(done: bool, agents: int) -> Infos:
        zeros = np.zeros(agents, dtype=np.float32)
        ids = np.arange(agents, dtype=np.int32)
        return Infos(done, ids, [], zeros, np.zeros(agents, dtype=bool), ids, zeros)

    return {"H?team=0": [infos(True, ended), infos(False, count)]}


def reply(*actions: tuple[list[float], list[int]]):
    proto = UnityRLInputProto()
    for continuous, discrete in actions:
        action = proto.agent_actions["H?team=0"].value.add()
        action.continuous_actions.extend(continuous)
        action.discrete_actions.extend(discrete)
    return proto.agent_actions


def test_actions_belong_to_the_agents_that_asked_in_their_order():
    actions = read_actions(reply(([1, 2], [0]), ([3, 4], [2])), HYBRID, asked(2, ended=3), dialect("1.5.0"))
    assert actions["H?team=0"].continuous.tolist() == [[1, 2], [3, 4]]
    assert actions["H?team=0"].discrete.tolist() == [[0], [2]]


def test_actions_that_are_not_sent_are_zero():
    actions = read_actions(UnityRLInputProto().agent_actions, HYBRID, asked(2), dialect("1.5.0"))
    assert actions["H?team=0"].continuous.tolist() == [[0, 0], [0, 0]]
    assert actions["H?team=0"].discrete.tolist() == [[0], [0]]


def test_nobody_asked():
    assert read_actions(UnityRLInputProto().agent_actions, HYBRID, asked(0, ended=2), dialect("1.5.0")) == {}


@pytest.mark.parametrize(("continuous", "branches", "sent"), [(2, (), [0.5, -0.5]), (0, (3, 2), [2.0, 1.0])])
def test_older_players_read_the_deprecated_field_only(continuous, branches, sent):
    proto = UnityRLInputProto()
    action = proto.agent_actions["H?team=0"].value.add()
    action.vector_actions_deprecated.extend(sent)
    action.continuous_actions.extend([9.0, 9.0])
    action.discrete_actions.extend([9, 9])
    behaviors = {"H?team=0": Behavior("H?team=0", (), continuous, branches)}
    found = read_actions(proto.agent_actions, behaviors, asked(1), dialect("1.2.0"))["H?team=0"]
    assert [*found.continuous[0], *found.discrete[0]] == sent


def test_wrong_number_of_actions_is_an_error():
    with pytest.raises(PlayerError, match=r"2 agents of .* and the trainer sent 1"):
        read_actions(reply(([1, 2], [0])), HYBRID, asked(2), dialect("1.5.0"))


@pytest.mark.parametrize("action", [([1], [0]), ([1, 2, 3], [0]), ([1, 2], []), ([1, 2], [0, 0])])
def test_wrong_size_of_an_action_is_an_error(action):
    with pytest.raises(PlayerError, match="2 continuous and 1 discrete"):
        read_actions(reply(action), HYBRID, asked(1), dialect("1.5.0"))


def framed(channel, payload: bytes) -> bytes:
    return channel.bytes_le + struct.pack("<i", len(payload)) + payload


@pytest.mark.parametrize(
    "data",
    [
        b"short",
        framed(ENGINE, b""),
        framed(ENGINE, struct.pack("<i", 9)),
        framed(PARAMETERS, struct.pack("<i", 1) + b"x" + struct.pack("<i", 5)),
        framed(PARAMETERS, struct.pack("<i", 1) + b"x" + struct.pack("<3i", 1, 0, 7) + bytes(8)),
        ENGINE.bytes_le + struct.pack("<i", -4),
    ],
)
def test_side_channels_that_cannot_be_read_are_an_error(data):
    with pytest.raises(PlayerError, match="side channels cannot be read"):
        Channels().receive(data)


def test_sampler_draws_a_new_value_each_time_and_the_same_ones_for_a_seed():
    payload = struct.pack("<i", 1) + b"x" + struct.pack("<3i2f", 1, 42, 0, 0.0, 1.0)
    draws = []
    for _ in range(2):
        channels = Channels()
        channels.receive(framed(PARAMETERS, payload))
        draws.append(channels.samplers["x"].draw(3).tolist())
    assert draws[0] == draws[1]
    assert len(set(draws[0])) == 3
    assert all(0 <= value <= 1 for value in draws[0])
