import logging
import struct
from uuid import UUID, uuid4

import numpy as np
import pytest

from mlhooks.settings.environment_parameters import (
    ConstantSettings,
    GaussianSettings,
    MultiRangeUniformSettings,
    UniformSettings,
)
from mlhooks.settings.run_options import EngineSettings
from mlhooks.stats import StatsAggregationMethod
from mlhooks.unity.errors import ProtocolBroken
from mlhooks.unity.side_channels import ANALYTICS, PlayerChannels
from mlhooks.unity.side_channels import SideChannel as Base

ENGINE = UUID("e951342c-4f7e-11ea-b238-784f4387d1f7")
PARAMETERS = UUID("534c891e-810f-11ea-a9d0-822485860400")
STATS = UUID("a1d8f7b7-cec8-50f9-b78b-d3e165a78520")


def frame(channel: UUID, payload: bytes) -> bytes:
    return channel.bytes_le + struct.pack("<i", len(payload)) + payload


def text(value: str) -> bytes:
    return struct.pack("<i", len(value)) + value.encode("ascii")


def stat(key: str, value: float, method: int) -> bytes:
    return frame(STATS, text(key) + struct.pack("<fi", value, method))


def test_engine_is_configured_message_by_message() -> None:
    channels = PlayerChannels()
    channels.configure_engine(
        EngineSettings(width=84, height=96, quality_level=3, time_scale=20, target_frame_rate=-1, capture_frame_rate=60)
    )
    expected = [
        struct.pack("<iii", 0, 84, 96),
        struct.pack("<ii", 1, 3),
        struct.pack("<if", 2, 20.0),
        struct.pack("<ii", 3, -1),
        struct.pack("<ii", 4, 60),
    ]
    sent = channels.generate_side_channel_messages()
    assert sent == b"".join(frame(ENGINE, payload) for payload in expected)
    assert channels.generate_side_channel_messages() == b""


def test_environment_parameters_are_sent_with_every_kind_of_sampler() -> None:
    channels = PlayerChannels()
    channels.set_parameters(
        {
            "gravity": ConstantSettings(value=9.5),
            "mass": UniformSettings(min_value=1, max_value=2, seed=4),
            "scale": GaussianSettings(mean=0.5, st_dev=0.25, seed=5),
            "length": MultiRangeUniformSettings(intervals=[(1, 2), (7, 8)], seed=6),
        }
    )
    expected = [
        text("gravity") + struct.pack("<if", 0, 9.5),
        text("mass") + struct.pack("<iiiff", 1, 4, 0, 1, 2),
        text("scale") + struct.pack("<iiiff", 1, 5, 1, 0.5, 0.25),
        text("length") + struct.pack("<iiiiffff", 1, 6, 2, 4, 1, 2, 7, 8),
    ]
    assert channels.generate_side_channel_messages() == b"".join(frame(PARAMETERS, payload) for payload in expected)


def test_stats_of_the_player_are_handed_over_once() -> None:
    channels = PlayerChannels()
    channels.process_side_channel_message(stat("Goals", 2.5, 0) + stat("Level", 3, 1) + stat("Goals", 1, 2))
    channels.process_side_channel_message(stat("Sizes", 7, 3))
    assert channels.take_stats() == [
        ("Goals", 2.5, StatsAggregationMethod.AVERAGE),
        ("Goals", 1, StatsAggregationMethod.SUM),
        ("Level", 3, StatsAggregationMethod.MOST_RECENT),
        ("Sizes", 7, StatsAggregationMethod.HISTOGRAM),
    ]
    assert channels.take_stats() == []


class Echo(Base):
    def __init__(self, channel_id: UUID) -> None:
        super().__init__(channel_id)
        self.received: list[bytes] = []

    def on_message_received(self, msg: object) -> None:
        self.received.append(msg.get_raw_bytes())
        self.queue_message_to_send(type("Message", (), {"buffer": bytearray(b"echo")})())


def test_custom_channels_work_both_ways_and_may_replace_built_in_ones() -> None:
    custom, replacement = Echo(uuid4()), Echo(STATS)
    channels = PlayerChannels([custom, replacement])
    channels.process_side_channel_message(frame(custom.channel_id, b"\x01") + frame(STATS, b"") + stat("x", 1, 0))
    assert custom.received == [b"\x01"]
    assert len(replacement.received) == 2
    assert channels.take_stats() == []
    sent = channels.generate_side_channel_messages()
    assert sent == frame(STATS, b"echo") * 2 + frame(custom.channel_id, b"echo")


def test_unknown_channels_are_named_once_and_analytics_never(caplog: pytest.LogCaptureFixture) -> None:
    channels, unknown = PlayerChannels(), uuid4()
    with caplog.at_level(logging.WARNING, "mlhooks"):
        for _ in range(3):
            channels.process_side_channel_message(frame(unknown, b"abc") + frame(ANALYTICS, b"abc"))
    assert len(caplog.messages) == 1
    assert str(unknown) in caplog.text


@pytest.mark.parametrize("data", [b"abc", frame(STATS, b"abcdef")[:-1], STATS.bytes_le + struct.pack("<i", -1)])
def test_damaged_messages_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolBroken, match="side channel"):
        PlayerChannels().process_side_channel_message(data)


def test_values_are_not_rounded_on_the_way() -> None:
    channels = PlayerChannels()
    channels.process_side_channel_message(stat("x", float(np.float32(0.1)), 0))
    assert channels.take_stats()[0][1] == np.float32(0.1)
