"""The bytes that the stand-in writes by hand are those that protobuf writes, and mean what they should."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlagents_envs.communicator_objects.agent_info_pb2 import AgentInfoProto
from mlagents_envs.communicator_objects.unity_message_pb2 import UnityMessageProto
from mlagents_envs.communicator_objects.unity_rl_output_pb2 import UnityRLOutputProto
from PIL import Image

from mlhooks.sim_player.agent_infos import Packer, decompressed, encode_rows, encoder
from mlhooks.sim_player.dialect import brain_parameters, dialect
from mlhooks.sim_player.world import Behavior, Infos, Sensor
from mlhooks.unity.messages import wrap_output
from mlhooks.unity.wire import write_bytes, write_varint

BEHAVIOR = Behavior(
    "Mixed?team=0",
    (Sensor("a", (3,), (1,), goal=True), Sensor("b", (2, 2), (4, 1)), Sensor("c", (2, 3, 40), (1, 2, 2))),
    branches=(3, 2),
)


def make(rows: list[tuple[int, float, bool, int, float, bool]], done: bool) -> Infos:
    """Return infos from (id, reward, interrupted, group, group reward, masked) per agent."""
    ids, rewards, interrupted, groups, group_rewards, masked = (np.array(column) for column in zip(*rows, strict=True))
    source = np.random.default_rng(len(rows))
    obs = [source.normal(size=(len(rows), *sensor.shape)).astype(np.float32) for sensor in BEHAVIOR.sensors]
    return Infos(
        done,
        ids.astype(np.int32),
        obs,
        rewards.astype(np.float32),
        interrupted.astype(np.bool_),
        groups.astype(np.int32),
        group_rewards.astype(np.float32),
        source.random((len(rows), 5)) < 0.5,
        masked.astype(np.bool_),
    )


number = st.sampled_from([0, 1, 127, 128, 16383, 16384, 2**31 - 1])
value = st.sampled_from([0.0, 1.0, -0.5])
agent = st.tuples(number, value, st.booleans(), number, value, st.booleans())


@given(
    first=st.lists(agent, min_size=1, max_size=4), second=st.lists(agent, min_size=1, max_size=4), done=st.booleans()
)
@pytest.mark.parametrize("version", ["1.5.0", "1.3.0"])
def test_all_at_once_gives_the_bytes_of_one_by_one(version, first, second, done):
    speech = dialect(version)
    pack = Packer(BEHAVIOR, speech, done=done)
    for rows in (first, second, second):  # One packer serves all, and nothing that it keeps may show.
        infos = make(rows, done)
        assert pack(infos) == encode_rows(BEHAVIOR, speech, infos)


def test_info_without_masks_for_anyone():
    infos = make([(1, 1.0, False, 0, 0.0, True)], done=False)
    infos.mask = None
    data = encoder(BEHAVIOR, dialect("1.5.0"))([infos])
    entry = UnityRLOutputProto.ListAgentInfoProto.FromString(data).value[0]
    assert not entry.action_mask
    assert data == encode_rows(BEHAVIOR, dialect("1.5.0"), infos)


@given(st.integers(0, 2**40))
def test_varint_is_protobuf_s(value):
    encoded = b"\x50" + write_varint(value)
    if value < 2**31:
        assert AgentInfoProto.FromString(encoded).id == value
    assert len(write_varint(value)) == max(1, -(-value.bit_length() // 7))


def test_message_holds_every_behavior_and_the_side_channel():
    infos = write_bytes(1, AgentInfoProto(id=3, reward=0.5).SerializeToString())
    data = wrap_output({"A?team=0": infos, "B?team=1": b""}, b"channel", b"")
    message = UnityMessageProto.FromString(data)
    assert message.header.status == 200
    output = message.unity_output.rl_output
    assert set(output.agentInfos) == {"A?team=0", "B?team=1"}
    assert (output.agentInfos["A?team=0"].value[0].id, output.side_channel) == (3, b"channel")
    assert len(output.agentInfos["B?team=1"].value) == 0
    assert not message.unity_output.HasField("rl_initialization_output")


def observation(sensor: Sensor, value: np.ndarray, version: str = "1.5.0", package: str | None = None):
    behavior = Behavior("Eye?team=0", (sensor,), continuous=1)
    zeros = np.zeros(1, dtype=np.float32)
    none = np.zeros(1, dtype=np.int32)
    infos = Infos(False, none, [value[None]], zeros, none.astype(bool), none, zeros)
    data = encoder(behavior, dialect(version, package))([infos])
    return UnityRLOutputProto.ListAgentInfoProto.FromString(data).value[0].observations[0]


def images_of(data: bytes) -> list[np.ndarray]:
    parts = data.split(b"\x89PNG\r\n\x1a\n")[1:]
    return [np.asarray(Image.open(io.BytesIO(b"\x89PNG\r\n\x1a\n" + part))) for part in parts]


STACK = Sensor("stack", (4, 2, 3), (1, 2, 2), mapping=(0, 1, 2, 3, -1, -1))
PIXELS = np.arange(2 * 3 * 6, dtype=np.uint8).reshape(2, 3, 6)


def test_images_are_whole_png_files_one_after_the_other():
    proto = observation(STACK, PIXELS)
    assert (list(proto.shape), list(proto.dimension_properties)) == ([4, 2, 3], [1, 2, 2])
    assert list(proto.compressed_channel_mapping) == [0, 1, 2, 3, -1, -1]
    np.testing.assert_array_equal(np.concatenate(images_of(proto.compressed_data), axis=-1), PIXELS)


def test_image_before_package_3_has_its_channels_last():
    proto = observation(STACK, PIXELS, package="2.0.1")
    assert (list(proto.shape), list(proto.dimension_properties)) == ([2, 3, 4], [2, 2, 1])


def test_player_without_concatenated_images_sends_floats():
    proto = observation(STACK, PIXELS, version="1.0.0")
    assert proto.compressed_data == b""
    np.testing.assert_allclose(np.reshape(proto.float_data.data, proto.shape), PIXELS[..., :4] / 255, atol=1e-6)
    assert (proto.name, list(proto.dimension_properties)) == ("", [])


def test_equal_channels_of_a_mapping_are_averaged_without_compression():
    gray = decompressed(PIXELS[..., :3], (0, 0, 0))
    np.testing.assert_allclose(gray, PIXELS[None, ..., :3].mean(axis=-1) / 255, rtol=1e-6)


def test_trainer_that_cannot_concatenate_gets_floats():
    class Capabilities:
        def __getattr__(self, name: str) -> bool:
            return name == "baseRLCapabilities"

    assert dialect("1.5.0").with_trainer(Capabilities()).capabilities == {"baseRLCapabilities"}


@pytest.mark.parametrize(
    ("version", "spec", "deprecated"), [("1.5.0", (0, 2, [3, 2]), []), ("1.2.0", (0, 0, []), [3, 2])]
)
def test_actions_are_described_in_the_fields_of_the_version(version, spec, deprecated):
    proto = brain_parameters(BEHAVIOR, dialect(version))
    found = proto.action_spec
    assert (
        found.num_continuous_actions,
        found.num_discrete_actions,
        list(found.discrete_branch_sizes),
    ) == spec
    assert list(proto.vector_action_size_deprecated) == deprecated
    assert (proto.brain_name, proto.is_training) == ("Mixed?team=0", True)
