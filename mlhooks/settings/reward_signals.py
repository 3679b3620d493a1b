"""Settings of ML-Agents' reward signals; plugins add models for theirs."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from mlhooks.settings.base import SettingsModel
from mlhooks.settings.network import MOST_UNITS, NetworkSettings
from mlhooks.settings.paths import PathText


class RewardSignalSettings(SettingsModel):
    """What every reward signal has; `extrinsic`, the environment's own reward, has nothing else."""

    gamma: float = Field(default=0.99, ge=0, le=1, description="Discount of future rewards of this signal.")
    strength: float = Field(default=1.0, description="Factor on the rewards of this signal.")
    network_settings: NetworkSettings = Field(
        default_factory=NetworkSettings, description="Network of this signal, where it has one."
    )


class _EncodedSettings(RewardSignalSettings):
    learning_rate: float = Field(default=3e-4, ge=0, description="Step size of this signal's own network.")
    encoding_size: int | None = Field(
        default=None,
        ge=1,
        le=MOST_UNITS,
        description="Deprecated: network_settings.hidden_units.",
        json_schema_extra={"deprecated": True},
    )


class CuriositySettings(_EncodedSettings):
    """Reward for what the agent could not foretell (intrinsic curiosity module)."""


class RNDSettings(_EncodedSettings):
    """Reward for what the agent has rarely seen (random network distillation)."""

    learning_rate: float = Field(default=1e-4, ge=0, description="Step size of this signal's own network.")


class GAILSettings(_EncodedSettings):
    """Reward for behaving like a demonstration (generative adversarial imitation)."""

    use_actions: bool = Field(default=False, description="Judge actions as well as observations.")
    use_vail: bool = Field(default=False, description="Put a variational bottleneck into the discriminator.")
    demo_path: PathText = Field(description="A .demo file, or a folder of them.")


MLAGENTS_REWARD_SIGNALS: Mapping[str, type[RewardSignalSettings]] = {
    "extrinsic": RewardSignalSettings,
    "gail": GAILSettings,
    "curiosity": CuriositySettings,
    "rnd": RNDSettings,
}
"""The settings of ML-Agents' own signals, known even where no plugin brings their classes."""
