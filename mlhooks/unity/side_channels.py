"""Side channels: messages beside observations and actions, in both directions."""

from __future__ import annotations

import logging
import struct
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING
from uuid import UUID

from mlhooks.settings.environment_parameters import (
    ConstantSettings,
    GaussianSettings,
    MultiRangeUniformSettings,
    ParameterRandomizationSettings,
    UniformSettings,
)
from mlhooks.stats import StatsAggregationMethod
from mlhooks.unity import schema
from mlhooks.unity.errors import ProtocolBroken

schema.install()

from mlagents_envs.side_channel import IncomingMessage, SideChannel  # noqa: E402
from mlagents_envs.side_channel.engine_configuration_channel import EngineConfigurationChannel  # noqa: E402
from mlagents_envs.side_channel.environment_parameters_channel import EnvironmentParametersChannel  # noqa: E402
from mlagents_envs.side_channel.stats_side_channel import StatsSideChannel  # noqa: E402

if TYPE_CHECKING:
    from mlhooks.settings.run_options import EngineSettings

logger = logging.getLogger("mlhooks")

Stat = tuple[str, float, StatsAggregationMethod]

ANALYTICS = UUID("b664a4a9-d86f-5a5f-95cb-e8353a7e8356")
INT32 = 2**31
"""Seeds of players are below this."""

_FRAME = struct.Struct("<16si")  # It has the id of the channel and the length of the message that follows.


class _Analytics(SideChannel):  # type: ignore[misc]
    """Unity's channel for statistics of how it is used: nothing is sent, and what comes is ignored."""

    def __init__(self) -> None:
        super().__init__(ANALYTICS)

    def on_message_received(self, msg: IncomingMessage) -> None:
        """Ignore it."""


class PlayerChannels:
    """The side channels to one player: the built-in ones, and others beside them or in their place.

    Args:
        others: further channels; one with the id of a built-in channel takes its place.
    """

    def __init__(self, others: Sequence[SideChannel] = ()) -> None:
        self._engine = EngineConfigurationChannel()
        self._parameters = EnvironmentParametersChannel()
        self._stats = StatsSideChannel()
        channels = (self._engine, self._parameters, self._stats, _Analytics(), *others)
        self._by_id: dict[UUID, SideChannel] = {channel.channel_id: channel for channel in channels}
        self._unknown: set[UUID] = set()
        self._engine_settings: EngineSettings | None = None
        self._values: dict[str, ParameterRandomizationSettings] = {}

    def configure_engine(self, engine: EngineSettings) -> None:
        """Queue the settings of rendering and time."""
        self._engine_settings = engine
        self._engine.set_configuration_parameters(
            width=engine.width,
            height=engine.height,
            quality_level=engine.quality_level,
            time_scale=engine.time_scale,
            target_frame_rate=engine.target_frame_rate,
            capture_frame_rate=engine.capture_frame_rate,
        )

    def set_parameters(self, values: Mapping[str, ParameterRandomizationSettings]) -> None:
        """Queue environment parameters: what each is now, or is drawn from in the player; seeds are as given."""
        channel = self._parameters
        self._values.update(values)
        for name, value in values.items():
            match value:
                case ConstantSettings():
                    channel.set_float_parameter(name, value.value)
                case UniformSettings():
                    channel.set_uniform_sampler_parameters(name, value.min_value, value.max_value, value.seed)
                case GaussianSettings():
                    channel.set_gaussian_sampler_parameters(name, value.mean, value.st_dev, value.seed)
                case MultiRangeUniformSettings():
                    channel.set_multirangeuniform_sampler_parameters(name, value.intervals, value.seed)
                case _:
                    raise TypeError(f"There is no way to send a {type(value).__name__} to a player.")

    def begin_again(self) -> None:
        """Queue what a player that has just started must know, in place of what the last one did not get."""
        self._engine.message_queue, self._parameters.message_queue = [], []
        if self._engine_settings is not None:
            self.configure_engine(self._engine_settings)
        self.set_parameters(dict(self._values))

    def take_stats(self) -> list[Stat]:
        """Return what the player added to its statistics since the last call: key, value, aggregation."""
        return [
            (key, value, StatsAggregationMethod[method.name])
            for key, stats in self._stats.get_and_reset_stats().items()
            for value, method in stats
        ]

    def generate_side_channel_messages(self) -> bytes:
        """Return all messages that are queued, each behind its channel's id and its length."""
        frames = []
        for channel_id, channel in self._by_id.items():
            for message in channel.message_queue:
                frames += [_FRAME.pack(channel_id.bytes_le, len(message)), bytes(message)]
            channel.message_queue = []
        return b"".join(frames)

    def process_side_channel_message(self, data: bytes) -> None:
        """Hand the messages of a player to their channels.

        Raises:
            ProtocolBroken: the bytes are no sequence of messages.
        """
        at = 0
        while at < len(data):
            try:
                channel_bytes, length = _FRAME.unpack_from(data, at)
            except struct.error as error:
                raise ProtocolBroken(f"A side channel's message breaks off: {error}.") from error
            at += _FRAME.size
            channel_id = UUID(bytes_le=channel_bytes)
            if length < 0 or at + length > len(data):
                raise ProtocolBroken(
                    f"A message of the side channel {channel_id} should have {length} bytes, and {len(data) - at} came."
                )
            self._receive(channel_id, data[at : at + length])
            at += length

    def _receive(self, channel_id: UUID, message: bytes) -> None:
        channel = self._by_id.get(channel_id)
        if channel is not None:
            channel.on_message_received(IncomingMessage(message))
        elif channel_id not in self._unknown:
            self._unknown.add(channel_id)
            logger.warning(
                "The player sends messages on the side channel %s, which no plugin opens; they are ignored.", channel_id
            )
