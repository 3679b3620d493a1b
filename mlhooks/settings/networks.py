"""Settings of networks, of policies, critics and reward signals."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from mlhooks.settings.base import Problem, SettingsModel, extension

MOST_UNITS, MOST_LAYERS = 2**20, 1000
"""Far more than any network that learns has; a typo here would fill the machine's memory."""


class EncoderType(StrEnum):
    """Encoders of visual observations."""

    FULLY_CONNECTED = "fully_connected"
    MATCH3 = "match3"
    SIMPLE = "simple"
    NATURE_CNN = "nature_cnn"
    RESNET = "resnet"


class ConditioningType(StrEnum):
    """The use of goal-signal observations."""

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
    """The initial distribution of weights."""

    LECUN_NORMAL = "lecun_normal"
    KAIMING_HE = "kaiming_he"
    ORTHOGONAL = "orthogonal"
    TORCH = "torch"


Widths = Annotated[list[Annotated[int, Field(ge=1, le=MOST_UNITS)]], Field(max_length=MOST_LAYERS)]
"""The width of each hidden layer, from the first to the last; there may be none."""

MOST_NORMALIZED = 5.0
"""The bound of normalized observations in ML-Agents."""
ACTION_LIMIT = 3.0
"""The number to which ML-Agents clips continuous actions, and by which it divides them."""


class MemorySettings(SettingsModel):
    """A recurrent layer behind the encoder."""

    ignores_unknown_keys: ClassVar[bool] = True

    sequence_length: int = Field(default=64, ge=1, description="Steps of a sequence that the memory is trained on.")
    memory_size: int = Field(
        default=128, ge=2, le=MOST_UNITS, description="Size of the memory that an agent carries; an even number."
    )

    def problems(self) -> Iterator[Problem]:
        """Refuse an odd size: half of the memory is the cell's state, half its output."""
        if self.memory_size % 2:
            yield Problem(("memory_size",), f"memory_size must be an even number, not {self.memory_size}")


class NetworkSettings(SettingsModel):
    """A network, of a policy or of a reward signal."""

    ignores_unknown_keys: ClassVar[bool] = True

    normalize: bool = Field(default=False, description="Normalize vector observations by their running statistics.")
    normalize_clip: float = extension(
        MOST_NORMALIZED,
        gt=0,
        description="Bound of normalized observations: ML-Agents' 5, where Stable-Baselines3's `clip_obs` is 10.",
    )
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
    visual_activation: Literal["leaky_relu", "relu"] = extension(
        "leaky_relu",
        description="Activation function in encoders of images other than resnet; ML-Agents' leaky_relu, or relu as in "
        "SB3's NatureCNN.",
    )
    initialization: InitializationType = extension(
        InitializationType.LECUN_NORMAL,
        description="How weights start; ML-Agents uses what is called lecun_normal here, Stable-Baselines3 (SB3) "
        "orthogonal for ortho_init true and torch for false.",
    )
    hidden_layers: Widths | None = extension(
        None,
        description="Width of each hidden layer, in place of num_layers of hidden_units; SB3's net_arch. [] is none: "
        "images are then encoded by hidden_units alone.",
    )
    critic_hidden_layers: Widths | None = extension(
        None, description="The same for critics, where they differ from the policy; SB3's net_arch of vf or qf."
    )
    state_dependent_std: bool = extension(
        False,
        description="Give standard deviations of continuous actions a head of their own; ML-Agents' conditional_sigma, "
        "which SAC always has.",
    )
    log_std_init: float | None = extension(
        None,
        ge=-20,
        le=2,
        description="Logarithm of the standard deviation of continuous actions at the start, as in SB3; null: 0, or -3 "
        "for SAC with use_sde.",
    )
    use_sde: bool = extension(
        False,
        description="Explore continuous actions by noise that is a function of the observation (gSDE, Raffin et al. "
        "2021); as in SB3.",
    )
    sde_sample_freq: int = extension(
        -1,
        ge=-1,
        description="Decisions of an agent after which that noise is drawn again, beside each update, as in SB3; "
        "-1: none.",
    )
    full_std: bool = extension(
        True, description="Give that noise a deviation for each pair of latent feature and action; SB3's full_std."
    )
    action_limit: float = extension(
        ACTION_LIMIT,
        gt=0,
        description="Clip continuous actions to this and divide them by it; ML-Agents' is 3. SB3 clips to the bounds "
        "of the space, so that for [-2, 2] it is 2.",
    )

    @model_validator(mode="after")
    def _count_layers(self) -> Self:
        if self.hidden_layers is not None:
            self.__dict__["num_layers"] = len(self.hidden_layers)
        return self

    @property
    def layers(self) -> list[int]:
        """The width of each hidden layer: what networks are made from."""
        return [self.hidden_units] * self.num_layers if self.hidden_layers is None else self.hidden_layers

    @property
    def of_critic(self) -> NetworkSettings:
        """The settings of critics, whose `layers` are those of `critic_hidden_layers` where there are any."""
        if self.critic_hidden_layers is None:
            return self
        widths = self.critic_hidden_layers
        return self.model_copy(update={"hidden_layers": widths, "num_layers": len(widths)})

    def as_dict(self) -> dict[str, Any]:
        """Return plain values, without `num_layers` where `hidden_layers` says it."""
        return self._without_num_layers(super().as_dict())

    @model_serializer(mode="wrap")
    def _serialized(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        return self._without_num_layers(handler(self))

    def _without_num_layers(self, plain: dict[str, Any]) -> dict[str, Any]:
        if self.hidden_layers is not None:
            plain.pop("num_layers", None)
        return plain

    def problems(self) -> Iterator[Problem]:
        """Refuse settings that contradict each other, and warn of those without effect."""
        if self.hidden_layers is not None and "num_layers" in self.model_fields_set:
            message = (
                "hidden_layers says how many layers there are, by their widths: remove num_layers, or hidden_layers"
            )
            yield Problem(("num_layers",), message)
        if self.use_sde and self.state_dependent_std:
            message = "use_sde makes deviations depend on the observation in its own way: remove one of the two"
            yield Problem(("state_dependent_std",), message)
        if self.visual_activation != "leaky_relu" and self.vis_encode_type is EncoderType.RESNET:
            message = "visual_activation has no effect on resnet, which has functions of its own"
            yield Problem(("visual_activation",), message, "warning")
        for key in ("sde_sample_freq", "full_std"):
            if getattr(self, key) != type(self).model_fields[key].default and not self.use_sde:
                yield Problem((key,), f"{key} has no effect without use_sde: true", "warning")


INSTEAD = {"hidden_layers": "num_layers", "num_layers": "hidden_layers"}
"""Two keys for the same thing; where both are in one section, it is unclear which one is meant."""
OF_POLICIES = {
    "critic_hidden_layers",
    "state_dependent_std",
    "log_std_init",
    "use_sde",
    "sde_sample_freq",
    "full_std",
    "action_limit",
}
"""The network settings that only some policies and optimizers read, those whose `network_keys` name them."""


def replaced_by(path: tuple[Any, ...]) -> str:
    """Return the key that has to go where a value is set at a path, because it says the same; "" for none."""
    return INSTEAD.get(path[-1], "") if path[-2:-1] == ("network_settings",) else ""


def unread(network: NetworkSettings, *parts: object) -> list[str]:
    """Return the keys that were set and that neither policy nor optimizer reads.

    Args:
        network: the settings of a policy.
        parts: policy and optimizer, or their classes.
    """
    read = {key for part in parts for key in getattr(part, "network_keys", ())}
    fields = type(network).model_fields
    return sorted(
        key for key in OF_POLICIES & network.model_fields_set - read if getattr(network, key) != fields[key].default
    )
