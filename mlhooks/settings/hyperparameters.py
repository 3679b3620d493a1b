"""Hyperparameters that algorithms share; a plugin's trainer subclasses one of these with its own."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any

from pydantic import Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from mlhooks.settings.base import Problem, SettingsModel, derived, extension

MOST_ROWS = 2**40
"""More than any machine keeps, and few enough that the size of their arrays can be written down."""


class ScheduleType(StrEnum):
    """How a value changes over the run."""

    CONSTANT = "constant"
    LINEAR = "linear"


class AdvantageNormalization(StrEnum):
    """The rows over which advantages are brought to mean 0 and deviation 1; true means `rollout`, and false `none`."""

    ROLLOUT = "rollout"
    MINIBATCH = "minibatch"
    NONE = "none"

    @classmethod
    def _missing_(cls, value: object) -> AdvantageNormalization | None:
        word = str(value).lower()  # YAML's true and false may come as they were written.
        return cls.ROLLOUT if word in ("true", "yes", "on") else cls.NONE if word in ("false", "no", "off") else None

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        made = handler(schema)
        definition = handler.resolve_ref_schema(made)
        definition["enum"] = [*definition["enum"], True, False]
        definition.pop("type", None)
        return made


class HyperparameterSettings(SettingsModel):
    """What every trainer type has; ML-Agents' `HyperparamSettings`."""

    batch_size: int = Field(default=1024, ge=1, le=MOST_ROWS, description="Experiences in one gradient step.")
    buffer_size: int = Field(
        default=10240, ge=1, le=MOST_ROWS, description="Experiences to collect before an update, or to keep for replay."
    )
    learning_rate: float = Field(
        default=3e-4, ge=0, description="Step size of gradient descent at the start of the run."
    )
    learning_rate_schedule: ScheduleType = Field(
        default=ScheduleType.CONSTANT, description="How the learning rate changes until max_steps."
    )

    def problems(self) -> Iterator[Problem]:
        """Refuse a minibatch that does not fit into the buffer."""
        if self.batch_size > self.buffer_size:
            message = f"batch_size {self.batch_size} is larger than buffer_size {self.buffer_size}: no minibatch fills"
            yield Problem(("batch_size",), message, "warning")


class OnPolicyHyperparameters(HyperparameterSettings):
    """Shared by algorithms that learn from what the current policy just did."""

    learning_rate_schedule: ScheduleType = Field(
        default=ScheduleType.LINEAR, description="How the learning rate changes until max_steps."
    )
    max_grad_norm: float | None = extension(
        None, gt=0, description="Clip the norm of the gradient to this; null leaves it alone."
    )
    normalize_rewards: bool = extension(
        False, description="Divide rewards by the running standard deviation of their discounted sums."
    )


class OffPolicyHyperparameters(HyperparameterSettings):
    """Shared by algorithms that learn from a replay buffer."""

    batch_size: int = Field(default=128, ge=1, le=MOST_ROWS, description="Experiences in one gradient step.")
    buffer_size: int = Field(default=50000, ge=1, le=MOST_ROWS, description="Experiences that the replay buffer keeps.")
    buffer_init_steps: int = Field(default=0, ge=0, description="Experiences to collect before the first update.")
    steps_per_update: float = Field(default=1.0, gt=0, description="Agent steps per update of the policy, on average.")
    update_interval: int = extension(
        1, ge=1, description="Agent steps between rounds of updates; a round does all updates that are due."
    )
    save_replay_buffer: bool = Field(default=False, description="Save the replay buffer in checkpoints.")
    reward_signal_steps_per_update: float = derived(
        lambda settings: settings.steps_per_update,
        gt=0,
        description="Agent steps per update of the reward signals; by default steps_per_update.",
    )
