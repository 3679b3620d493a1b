from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from mlagents_envs.base_env import DecisionSteps, TerminalSteps

from mlhooks.errors import NonFiniteError
from mlhooks.unity.decode import Decoder, ObservationMismatch
from mlhooks.unity.specs import read_spec
from mlhooks.unity.wire import WireError
from tests.unity.messages import (
    CHANNELS_HEIGHT_WIDTH,
    HEIGHT_WIDTH_CHANNELS,
    AgentInfoProto,
    BrainParametersProto,
    ListAgentInfoProto,
    ObservationProto,
    agent,
    brain,
    image,
    observation,
    serialized,
)


def decoder(agents: Sequence[AgentInfoProto], parameters: BrainParametersProto | None = None) -> Decoder:
    return Decoder("Ball?team=0", read_spec(parameters or brain(continuous=2), agents[0], "3.0.0"))


def decode(
    agents: Sequence[AgentInfoProto], parameters: BrainParametersProto | None = None
) -> tuple[DecisionSteps, TerminalSteps]:
    return decoder(agents, parameters).decode(serialized(agents))


def vector(*values: float) -> ObservationProto:
    return observation(np.array(values, np.float32), name="vector")


class RandomPlayer:
    """Messages with every kind of sensor and action, in the older order of image axes, which the reference reads."""

    def __init__(self, seed: int, *, compressed: bool) -> None:
        self.rng = np.random.default_rng(seed)
        self.compressed = compressed
        self.branches = [(), (3,), (2, 4, 1)][seed % 3]
        self.parameters = brain(continuous=seed % 2, branches=self.branches or ((2,) if seed % 2 == 0 else ()))
        self.branches = tuple(self.parameters.action_spec.discrete_branch_sizes)

    def sensors(self) -> list[ObservationProto]:
        pixels = self.rng.integers(0, 256, (4, 5, 6))
        sensors = [
            observation(self.rng.normal(size=7).astype(np.float32), "vector"),
            observation(self.rng.normal(size=(3, 2)).astype(np.float32), "buffer", (4, 1)),
            observation(self.rng.normal(size=2).astype(np.float32), "goal", (1,), kind=1),
            observation(self.rng.random((4, 5, 3), np.float32), "grid", HEIGHT_WIDTH_CHANNELS),
            observation(self.rng.random((12, 11, 3), np.float32), "large grid", HEIGHT_WIDTH_CHANNELS),
        ]
        if self.compressed:
            sensors += [
                image(pixels[..., :3], 3, name="one file"),
                image(pixels[..., :3], 1, name="gray of old players"),
                image(pixels[..., :3], 1, (0, 0, 0), name="gray"),
                image(pixels, 4, name="two files, first channels"),
                image(pixels, 3, (0, 1, 1, -1, 2, 0), name="two files, mapped"),
            ]
        return sensors

    def agents(self, count: int) -> list[AgentInfoProto]:
        rng, size = self.rng, sum(self.branches)
        masks = ((), (False,) * size, (True,) * (size + 1), tuple(rng.random(size) < 0.5))
        return [
            agent(
                int(rng.choice([0, 1, 5, 127, 128, 20_000, 2**31 - 1, -3])),
                self.sensors(),
                reward=float(rng.choice([0, 0.5, rng.normal()])),
                done=bool(rng.random() < 0.3),
                interrupted=bool(rng.random() < 0.3),
                mask=masks[rng.integers(len(masks))],
                group=int(rng.choice([0, 1, 300])),
                group_reward=float(rng.choice([0, -1.5])),
            )
            for _ in range(count)
        ]


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("seed", range(6))
def test_random_messages_decode_as_the_reference_decodes_them(seed: int, compressed: bool) -> None:
    from mlagents_envs.rpc_utils import behavior_spec_from_proto, steps_from_proto

    player = RandomPlayer(seed, compressed=compressed)
    first = player.agents(1)
    reference_spec = behavior_spec_from_proto(player.parameters, first[0])
    ours = decoder(first, player.parameters)
    for count in (1, 2, 5, 0, 30 if not compressed else 3, 1):
        agents = player.agents(count)
        expected = steps_from_proto(agents, reference_spec)
        actual = ours.decode(b"xy" + serialized(agents) + b"z", 2, 2 + len(serialized(agents)))
        for a, e in zip(actual, expected, strict=True):
            for name in ("agent_id", "reward", "group_id", "group_reward"):
                np.testing.assert_array_equal(getattr(a, name), getattr(e, name), name)
            for obs, expected_obs in zip(a.obs, e.obs, strict=True):
                in_our_order = np.moveaxis(expected_obs, 3, 1) if expected_obs.ndim == 4 else expected_obs
                np.testing.assert_allclose(obs / 255 if obs.dtype == np.uint8 else obs, in_our_order, atol=1e-6)
                assert obs.dtype in (np.float32, np.uint8)
                assert obs.flags.writeable
        np.testing.assert_array_equal(actual[1].interrupted, expected[1].interrupted)
        if len(actual[0]) and player.branches:
            np.testing.assert_array_equal(
                np.concatenate(actual[0].action_mask, 1), np.concatenate(expected[0].action_mask, 1)
            )
            assert [m.shape[1] for m in actual[0].action_mask] == list(player.branches)


def test_equal_records_are_read_without_protobuf(monkeypatch: pytest.MonkeyPatch) -> None:
    agents = [agent(i, [vector(i, -i)], reward=0.25 * i, mask=(i % 2 == 1, False)) for i in range(1, 100)]
    ours = decoder(agents, brain(branches=(2,)))
    ours.decode(serialized(agents[:1]))
    monkeypatch.setattr("mlhooks.unity.records.AgentInfoProto", None)
    decisions, terminals = ours.decode(serialized(agents))
    ids = np.arange(1, 100)
    np.testing.assert_array_equal(decisions.agent_id, ids)
    np.testing.assert_array_equal(decisions.obs[0], np.stack([ids, -ids], 1))
    np.testing.assert_array_equal(decisions.reward, 0.25 * ids)
    np.testing.assert_array_equal(decisions.action_mask[0], np.stack([ids % 2 == 1, ids < 0], 1))
    assert len(terminals) == 0


def test_end_and_next_decision_of_one_agent_in_one_message() -> None:
    agents = [
        agent(1, [vector(1, 1)], reward=1.0),
        agent(2, [vector(2, 2)], reward=-1.0, done=True, interrupted=True, group=7, group_reward=3.0),
        agent(2, [vector(3, 3)]),
        agent(4, [vector(4, 4)], done=True),
    ]
    decisions, terminals = decode(agents)
    assert decisions.agent_id.tolist() == [1, 2]
    assert decisions.obs[0].tolist() == [[1, 1], [3, 3]]
    assert decisions.reward.tolist() == [1, 0]
    assert terminals.agent_id.tolist() == [2, 4]
    assert terminals.obs[0].tolist() == [[2, 2], [4, 4]]
    assert terminals.reward.tolist() == [-1, 0]
    assert terminals.interrupted.tolist() == [True, False]
    assert terminals.group_id.tolist() == [7, 0]
    assert terminals.group_reward.tolist() == [3, 0]


def test_mask_of_another_length_masks_nothing() -> None:
    agents = [agent(1, [vector(1)], mask=(True,) * 4), agent(2, [vector(1)], mask=(True, False, True))]
    decisions, _ = decode(agents, brain(branches=(2, 1)))
    assert [branch.tolist() for branch in decisions.action_mask] == [[[False, False], [True, False]], [[False], [True]]]


def test_images_of_both_orders_arrive_channels_first() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3))
    for properties in (HEIGHT_WIDTH_CHANNELS, CHANNELS_HEIGHT_WIDTH):
        plain = pixels if properties == HEIGHT_WIDTH_CHANNELS else pixels.transpose(2, 0, 1)
        agents = [agent(1, [image(pixels, 3, properties=properties), observation(plain, "plain", properties)])]
        ours = decoder(agents)
        (png, floats), _ = ours.decode(serialized(agents))[0].obs, None
        assert [spec.shape for spec in ours.spec.observation_specs] == [(3, 4, 6)] * 2
        assert [tuple(map(int, spec.dimension_property)) for spec in ours.spec.observation_specs] == [(1, 2, 2)] * 2
        np.testing.assert_array_equal(png[0], pixels.transpose(2, 0, 1))
        assert png[0].transpose(1, 2, 0).flags.c_contiguous  # Experience is kept in this order.
        np.testing.assert_array_equal(floats[0], pixels.transpose(2, 0, 1))


@pytest.mark.parametrize(
    ("channels", "mapping", "expected"),
    [
        (3, (), lambda p: p[:3]),
        (5, (), lambda p: p[:5]),
        (3, (2, -1, 0, 1, -1, -1), lambda p: p[[2, 3, 0]]),
        (1, (), lambda p: p[:3].mean(0)[None] / 255),
        (2, (0, 1, 1, -1, -1, -1), lambda p: np.stack([p[0], p[1:3].mean(0)]) / 255),
    ],
)
def test_channels_that_are_not_averaged_stay_bytes(channels: int, mapping: tuple[int, ...], expected: Any) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (2, 4, 6, 6))
    agents = [agent(i, [image(part, channels, mapping)], done=i == 1) for i, part in enumerate(pixels)]
    for steps, part in zip(decode(agents), pixels, strict=True):
        wanted = expected(part.transpose(2, 0, 1))
        assert steps.obs[0].dtype == (np.uint8 if wanted.dtype == int else np.float32)
        np.testing.assert_allclose(steps.obs[0][0], wanted, rtol=1e-6)


@pytest.mark.parametrize("place", range(3))
def test_images_of_one_step_are_floats_where_one_agents_are(place: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3))
    png, floats = image(pixels, 3), observation(pixels / 255, "camera", HEIGHT_WIDTH_CHANNELS)
    agents = [agent(i, [floats if i == place else png]) for i in range(3)]
    obs = decoder([agent(0, [png])]).decode(serialized(agents))[0].obs[0]
    assert obs.dtype == np.float32
    np.testing.assert_allclose(obs, np.stack([pixels.transpose(2, 0, 1)] * 3) / 255, atol=1e-6)


@pytest.mark.parametrize(
    ("version", "shape"), [("2.3.0-exp.3", (3, 4, 6)), ("3.0.0-exp.1", (4, 6, 3)), ("", (4, 6, 3))]
)
def test_order_of_an_image_that_does_not_say_it_follows_from_the_package(version: str, shape: tuple[int, ...]) -> None:
    spec = read_spec(brain(continuous=1), agent(1, [observation(np.zeros((4, 6, 3)))]), version)
    assert spec.spec.observation_specs[0].shape == shape


def test_size_of_the_png_outranks_the_package_version() -> None:
    pixels = np.zeros((4, 6, 3))
    spec = read_spec(brain(continuous=1), agent(1, [image(pixels, 3, properties=())]), "3.0.0")
    assert spec.channels_last == (True,)


@pytest.mark.parametrize("layouts_known", [False, True])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_non_finite_values_name_behavior_agent_and_sensor(bad: float, layouts_known: bool) -> None:
    good = [agent(i, [vector(0, 1), observation(np.ones(1), "speed")], reward=1.0) for i in (3, 4, 5)]
    ours = decoder(good)
    if layouts_known:
        ours.decode(serialized(good))
    broken = [AgentInfoProto.FromString(a.SerializeToString()) for a in good]
    broken[1].observations[1].float_data.data[0] = bad
    with pytest.raises(NonFiniteError, match=rf"'Ball\?team=0', agent 4, sensor 'speed'.*sent {bad}"):
        ours.decode(serialized(broken))
    for field, name in (("reward", "reward"), ("group_reward", "group reward")):
        broken = [AgentInfoProto.FromString(a.SerializeToString()) for a in good]
        setattr(broken[2], field, bad)
        with pytest.raises(NonFiniteError, match=rf"agent 5, {name}: the player sent {bad}"):
            ours.decode(serialized(broken))


def test_very_large_values_are_finite() -> None:
    decisions, _ = decode([agent(1, [vector(3e38, 3e38, -3e38)], reward=3e38)])
    assert decisions.obs[0][0, 0] == np.float32(3e38)


@pytest.mark.parametrize(
    ("sensors", "complaint"),
    [
        ([vector(1, 2, 3)], r"agent 9, sensor 'vector' \(observation 0\): the observation has the shape \(3,\)"),
        ([], "sent 0 observations; its behavior announced 1"),
        ([vector(1, 2), vector(1, 2)], "sent 2 observations; its behavior announced 1"),
        ([ObservationProto(shape=[2])], "0 numbers came for the shape"),
        ([ObservationProto(shape=[2], float_data={"data": [1, 2, 3]})], "3 numbers came for the shape"),
    ],
)
def test_other_observations_than_announced_are_refused(sensors: list[ObservationProto], complaint: str) -> None:
    ours = decoder([agent(1, [vector(0, 0)])])
    ours.decode(serialized([agent(1, [vector(0, 0)])]))
    with pytest.raises(ObservationMismatch, match=complaint):
        ours.decode(serialized([agent(8, [vector(0, 0)]), agent(9, sensors)]))


def broken_image(**changes: object) -> ObservationProto:
    proto = image(np.zeros((4, 5, 3)), 3)
    for name, value in changes.items():
        if name == "mapping":
            proto.compressed_channel_mapping.extend(value)
        else:
            setattr(proto, name, value)
    return proto


@pytest.mark.parametrize(
    ("sensor", "complaint"),
    [
        (broken_image(compressed_data=b"JFIF"), "not a PNG file"),
        (broken_image(compressed_data=image(np.zeros((4, 5, 3)), 3).compressed_data[:40]), "damaged"),
        (broken_image(compressed_data=image(np.zeros((5, 5, 3)), 3).compressed_data), r"has the shape \(5, 5, 3\)"),
        (broken_image(mapping=(0, 2, 2)), "channel mapping"),
        (broken_image(mapping=(0, 1)), "channel mapping"),
        (broken_image(mapping=(-1, -1, -1)), "channel mapping"),
        (
            broken_image(compressed_data=b"".join(image(np.zeros((n, 5, 3)), 3).compressed_data for n in (4, 5))),
            "differ in size",
        ),
    ],
)
def test_broken_images_are_refused(sensor: ObservationProto, complaint: str) -> None:
    ours = decoder([agent(1, [broken_image()])])
    with pytest.raises(ObservationMismatch, match=rf"agent 6, sensor 'camera'.*{complaint}"):
        ours.decode(serialized([agent(6, [sensor])]))


def test_truncated_lists_are_refused() -> None:
    agents = [agent(i, [vector(1, 2)]) for i in (1, 2, 3)]
    data, ours = serialized(agents), decoder(agents)
    ours.decode(data)
    for length in range(1, len(data)):
        if length % (len(data) // 3):
            with pytest.raises(WireError):
                ours.decode(data[:length])
    with pytest.raises(WireError):
        ours.decode(b"\x12" + data[1:])


def test_damaged_bytes_are_refused_or_read_as_protobuf_reads_them() -> None:
    rng, kept = np.random.default_rng(0), 0
    agents = [agent(i, [vector(1, 2)], reward=0.5, mask=(True, False), group=1) for i in range(1, 4)]
    ours = decoder(agents, brain(branches=(2,)))
    for _ in range(1500):
        data = bytearray(serialized(agents))
        data[rng.integers(len(data))] = rng.integers(256)
        try:
            decisions, terminals = ours.decode(bytes(data))
        except (WireError, ObservationMismatch, NonFiniteError):
            continue
        kept += 1
        expected = ListAgentInfoProto.FromString(bytes(data)).value
        for steps, done in ((decisions, False), (terminals, True)):
            protos = [proto for proto in expected if proto.done is done]
            assert steps.agent_id.tolist() == [proto.id for proto in protos]
            assert steps.group_id.tolist() == [proto.group_id for proto in protos]
            assert steps.reward.tolist() == [proto.reward for proto in protos]
            assert [row.tolist() for row in steps.obs[0]] == [list(p.observations[0].float_data.data) for p in protos]
    assert kept > 300


def test_memory_for_layouts_is_bounded() -> None:
    ours = decoder([agent(1, [vector(1)])])
    for length in range(600):
        ours.decode(serialized([agent(1, [observation(np.ones(1), "n" * length)])]))
    assert len(ours._table._layouts) == 256


def test_steps_do_not_share_memory_with_the_message() -> None:
    agents = [agent(i, [vector(1, 2)]) for i in (1, 2)]
    ours, data = decoder(agents), bytearray(serialized(agents))
    ours.decode(bytes(data))
    decisions, _ = ours.decode(data)
    data[:] = bytes(len(data))
    assert decisions.obs[0].tolist() == [[1, 2], [1, 2]]


@pytest.mark.parametrize("agents", [1, 2])
def test_unusual_but_valid_serializations_are_read(agents: int) -> None:
    # Floats that are not packed, and fields in another order.
    ours = decoder([agent(1, [vector(0, 0)])])
    floats = b"\x0d" + np.float32(1).tobytes() + b"\x0d" + np.float32(2).tobytes()
    sensor = b"\x22" + bytes([len(floats)]) + floats + b"\x0a\x01\x02"
    record = b"\x6a" + bytes([len(sensor)]) + sensor + b"\x50\x07" + b"\x3d" + np.float32(0.5).tobytes()
    decisions, _ = ours.decode((b"\x0a" + bytes([len(record)]) + record) * agents)
    assert decisions.obs[0].tolist() == [[1, 2]] * agents
    assert decisions.agent_id.tolist() == [7] * agents
    assert decisions.reward.tolist() == [0.5] * agents
