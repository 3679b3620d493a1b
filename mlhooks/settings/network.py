"""Settings of a network: size, encoders, memory."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import ClassVar

from pydantic import Field

from mlhooks.settings.base import Problem, SettingsModel, extension

MOST_UNITS, MOST_LAYERS = 2**20, 1000
"""Far more than any network that learns has; a typing error here would fill the machine's memory."""


class EncoderType(StrEnum):
    """Encoders of visual observations."""

    FULLY_CONNECTED = "fully_connected"
    MATCH3 = "match3"
    SIMPLE = "simple"
    NATURE_CNN = "nature_cnn"
    RESNET = "resnet"


class ConditioningType(StrEnum):
    """What a goal-signal observation does."""

    HYPER = "hyper"
    NONE = "none"


class ActivationType(StrEnum):
    """Activation functions between layers."""

    SWISH = "swish"
    TANH = "tanh"
    RELU = "relu"
    ELU = "elu"
    LEAKY_RELU = "leaky_relu"
    GELU = "gelu"


class InitializationType(StrEnum):
    """How weights start."""

    LECUN_NORMAL = "lecun_normal"
    KAIMING_HE = "kaiming_he"
    ORTHOGONAL = "orthogonal"


class MemorySettings(SettingsModel):
    """A recurrent layer behind the encoder."""

    ignores_unknown_keys: ClassVar[bool] = True

    sequence_length: int = Field(default=64, ge=1, description="Steps of a sequence that the memory is trained on.")
    memory_size: int = Field(
        default=128, ge=2, le=MOST_UNITS, description="Size of the memory that an agent carries; an even number."
    )

    def problems(self) -> Iterator[Problem]:
        """Half of the memory is the cell's state, half its output."""
        if self.memory_size % 2:
            yield Problem(("memory_size",), f"memory_size must be an even number, not {self.memory_size}")


class NetworkSettings(SettingsModel):
    """A network, of a policy or of a reward signal."""

    ignores_unknown_keys: ClassVar[bool] = True

    normalize: bool = Field(default=False, description="Normalize vector observations by their running statistics.")
    hidden_units: int = Field(default=128, ge=1, le=MOST_UNITS, description="Units in each hidden layer.")
    num_layers: int = Field(default=2, ge=1, le=MOST_LAYERS, description="Hidden layers behind the encoders.")
    vis_encode_type: EncoderType = Field(default=EncoderType.SIMPLE, description="Encoder of visual observations.")
    memory: MemorySettings | None = Field(default=None, description="Give agents a memory (LSTM); null for none.")
    goal_conditioning_type: ConditioningType = Field(
        default=ConditioningType.HYPER, description="hyper: goal signals make the weights; none: they are observations."
    )
    deterministic: bool = Field(default=False, description="Take the most probable action instead of sampling.")
    activation: ActivationType = extension(
        ActivationType.SWISH,
        description="Activation function between layers; ML-Agents uses swish. Encoders of images have their own.",
    )
    initialization: InitializationType = extension(
        InitializationType.LECUN_NORMAL,
        description="How weights start; ML-Agents uses what is called lecun_normal here.",
    )
