"""Settings of one behavior's training: its algorithm, networks, reward signals and evaluations."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Self

from pydantic import Field, SerializeAsAny, field_validator, model_validator

from mlhooks.settings.base import PathText, Problem, SettingsModel, derived, extension
from mlhooks.settings.hyperparameters import HyperparameterSettings, OnPolicyHyperparameters
from mlhooks.settings.networks import MOST_UNITS, NetworkSettings, unread


class RewardSignalSettings(SettingsModel):
    """The settings of every reward signal; `extrinsic`, the environment's own reward, has no others."""

    gamma: float = Field(default=0.99, ge=0, le=1, description="Discount of future rewards of this signal.")
    strength: float = Field(default=1.0, description="Factor on the rewards of this signal.")
    network_settings: NetworkSettings = Field(
        default_factory=NetworkSettings, description="Network of this signal, where it has one."
    )


class LearnedSignalSettings(RewardSignalSettings):
    """The settings of reward signals that learn networks of their own."""

    learning_rate: float = Field(default=3e-4, ge=0, description="Step size of this signal's own network.")

    def problems(self) -> Iterator[Problem]:
        """Refuse a strength of 0, and warn of a memory, which only policies and critics have."""
        if self.strength == 0:
            message = "a strength of 0 lets the signal learn and reward nothing; remove the signal instead"
            yield Problem(("strength",), message)
        if self.network_settings.memory is not None:
            message = "networks of reward signals have no memory: this is ignored, as in ML-Agents"
            yield Problem(("network_settings", "memory"), message, "warning")
        for key in unread(self.network_settings):
            message = f"networks of reward signals have no {key}: this is ignored"
            yield Problem(("network_settings", key), message, "warning")


class _EncodedSettings(LearnedSignalSettings):
    encoding_size: int | None = Field(
        default=None,
        ge=1,
        le=MOST_UNITS,
        description="Deprecated: network_settings.hidden_units.",
        json_schema_extra={"deprecated": True},
    )


class CuriositySettings(_EncodedSettings):
    """Reward for what the agent could not predict (intrinsic curiosity module)."""


class RNDSettings(_EncodedSettings):
    """Reward for what the agent has rarely seen (random network distillation)."""

    learning_rate: float = Field(default=1e-4, ge=0, description="Step size of this signal's own network.")


class GAILSettings(_EncodedSettings):
    """Reward for behaving like a demonstration (generative adversarial imitation)."""

    use_actions: bool = Field(default=False, description="Judge actions as well as observations.")
    use_vail: bool = Field(default=False, description="Put a variational bottleneck into the discriminator.")
    demo_path: PathText = Field(min_length=1, description="A .demo file, or a folder of them.")


MLAGENTS_REWARD_SIGNALS: Mapping[str, type[RewardSignalSettings]] = {
    "extrinsic": RewardSignalSettings,
    "gail": GAILSettings,
    "curiosity": CuriositySettings,
    "rnd": RNDSettings,
}
"""The settings of ML-Agents' own signals, known even where no plugin brings their classes."""


class EvaluationSettings(SettingsModel):
    """Evaluation in an environment apart from training: how often, and when training ends by it."""

    interval: int = Field(default=10000, ge=1, description="Agent steps between evaluations; the last is at the end.")
    episodes: int = Field(default=10, ge=1, description="Episodes of each evaluation.")
    deterministic: bool = Field(default=True, description="Take the most probable action instead of sampling.")
    stop_at: float | None = Field(default=None, description="End training at this mean reward; null for no.")
    patience: int | None = Field(
        default=None, ge=1, description="End training after so many evaluations in a row without a new best; null: no."
    )


DEFAULT_TRAINER_TYPE = "ppo"


class SelfPlaySettings(SettingsModel):
    """Training against past selves."""

    ignores_unknown_keys: ClassVar[bool] = True

    save_steps: int = Field(default=20000, ge=1, description="Trainer steps between snapshots of the policy.")
    team_change: int = derived(
        lambda settings: settings.save_steps * 5,
        ge=1,
        description="Trainer steps until another team learns; by default 5 * save_steps.",
    )
    swap_steps: int = Field(default=2000, ge=1, description="Ghost steps between changes of the opponent.")
    window: int = Field(default=10, ge=1, description="Snapshots from which opponents are drawn.")
    play_against_latest_model_ratio: float = Field(
        default=0.5, ge=0, le=1, description="Probability that the opponent is the latest policy."
    )
    initial_elo: float = Field(default=1200.0, description="Rating at the start.")


class BehavioralCloningSettings(SettingsModel):
    """Imitating a demonstration beside learning from rewards."""

    ignores_unknown_keys: ClassVar[bool] = True

    demo_path: PathText = Field(min_length=1, description="A .demo file, or a folder of them.")
    steps: int = Field(default=0, ge=0, description="Steps until imitation has faded out; 0 keeps it on.")
    strength: float = Field(default=1.0, ge=0, description="Learning rate of imitation relative to the policy's.")
    samples_per_update: int = Field(default=0, ge=0, description="Demonstration samples in each update; 0 for all.")
    num_epoch: int | None = Field(default=None, ge=1, description="Passes per update; null for 3.")
    batch_size: int | None = Field(default=None, ge=1, description="Minibatch size; null for the hyperparameters' own.")


class TrainerSettings(SettingsModel):
    """The training of one behavior; `hyperparameters` is an instance of its trainer type's own model."""

    trainer_type: str = Field(default=DEFAULT_TRAINER_TYPE, description="The algorithm, as a plugin names it.")
    hyperparameters: SerializeAsAny[HyperparameterSettings] = Field(
        default_factory=OnPolicyHyperparameters, description="Settings of the algorithm."
    )
    checkpoint_interval: int = Field(default=500000, ge=1, description="Agent steps between checkpoints.")
    network_settings: NetworkSettings = Field(default_factory=NetworkSettings, description="The policy's network.")
    reward_signals: dict[str, SerializeAsAny[RewardSignalSettings]] = Field(
        default_factory=lambda: {"extrinsic": RewardSignalSettings()}, description="Where rewards come from."
    )
    init_path: PathText | None = Field(default=None, description="Checkpoint file to start from.")
    keep_checkpoints: int = Field(default=5, description="How many checkpoints to keep; 0 or less keeps all.")
    even_checkpoints: bool = Field(
        default=False, description="Spread keep_checkpoints checkpoints evenly over max_steps."
    )
    max_steps: int = Field(default=500000, ge=0, description="Agent steps after which training ends.")
    time_horizon: int = Field(default=64, ge=1, description="Steps after which a trajectory is cut and bootstrapped.")
    summary_freq: int = Field(default=50000, ge=1, description="Agent steps between summaries of the statistics.")
    threaded: bool = Field(default=False, description="Let environments step during an update.")
    self_play: SelfPlaySettings | None = Field(default=None, description="Train against past selves; null for no.")
    behavioral_cloning: BehavioralCloningSettings | None = Field(
        default=None, description="Imitate a demonstration; null for no."
    )
    onnx_opset: int = extension(
        9, ge=9, le=20, description="Version of ONNX's operators in exported models; Unity's inference takes 9."
    )
    evaluation: EvaluationSettings | None = extension(
        None, description="Try the policy in an environment apart while it is trained, and keep the best one."
    )

    @field_validator("init_path", mode="before")
    @classmethod
    def _unwrap_braces(cls, value: Any) -> Any:
        # ML-Agents' documentation shows the value as {checkpoint_name.pt}, which YAML reads as a mapping.
        if isinstance(value, Mapping) and len(value) == 1 and list(value.values()) == [None]:
            return next(iter(value))
        return value

    @model_validator(mode="after")
    def _spread_checkpoints(self) -> Self:
        if self.even_checkpoints and self.keep_checkpoints > 0:
            # Not by assignment, which would count as the file having said so.
            self.__dict__["checkpoint_interval"] = max(1, self.max_steps // self.keep_checkpoints)
        return self

    def problems(self) -> Iterator[Problem]:
        """Refuse sequences longer than a minibatch, and checkpoints that are spread without a limit on their number."""
        memory, batch_size = self.network_settings.memory, self.hyperparameters.batch_size
        if memory is not None and memory.sequence_length > batch_size:
            message = f"sequence_length {memory.sequence_length} is larger than batch_size {batch_size}"
            yield Problem(("network_settings", "memory", "sequence_length"), message)
        if self.network_settings.critic_hidden_layers is not None and getattr(
            self.hyperparameters, "shared_critic", False
        ):
            message = "shared_critic puts the value heads on the actor's layers: remove critic_hidden_layers, or that"
            yield Problem(("network_settings", "critic_hidden_layers"), message)
        if self.even_checkpoints and self.keep_checkpoints < 1:
            yield Problem(("keep_checkpoints",), "even_checkpoints needs keep_checkpoints of at least 1")
