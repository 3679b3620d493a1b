"""Hyperparameters: ML-Agents' own, and those of all algorithms of mlhooks, of on-policy and of off-policy ones."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from typing import Any, ClassVar, Self

from pydantic import Field, GetJsonSchemaHandler
from pydantic_core import CoreSchema

from mlhooks.settings.base import Problem, SettingsModel, derived, extension

MOST_ROWS = 2**40
"""More than any machine keeps, and few enough that the size of their arrays can be written down."""


class ScheduleType(StrEnum):
    """The course of a value over the run."""

    CONSTANT = "constant"
    LINEAR = "linear"


class _SwitchedOn(StrEnum):
    """An enumeration of which `true` means the first member, and `false` the last."""

    @classmethod
    def _missing_(cls, value: object) -> Self | None:
        word = str(value).lower()  # True and false may come as the text that YAML has.
        first, *_, last = cls
        return first if word in ("true", "yes", "on") else last if word in ("false", "no", "off") else None

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: CoreSchema, handler: GetJsonSchemaHandler) -> dict[str, Any]:
        made = handler(schema)
        definition = handler.resolve_ref_schema(made)
        definition["enum"] = [*definition["enum"], True, False]
        definition.pop("type", None)
        return made


class AdvantageNormalization(_SwitchedOn):
    """The rows over which advantages are brought to mean 0 and deviation 1; true means `rollout`, and false `none`."""

    ROLLOUT = "rollout"
    MINIBATCH = "minibatch"
    NONE = "none"


class RewardNormalization(_SwitchedOn):
    """The discounted sums of rewards by whose deviation rewards are divided; true means `following`, and false `none`.

    `following` takes the sums of what follows each row in its trajectory, known once a rollout is complete; `running`
    those of what came since its episode began, as `VecNormalize` of Stable-Baselines3.
    """

    FOLLOWING = "following"
    RUNNING = "running"
    NONE = "none"


class OptimizerType(StrEnum):
    """The optimizers of `torch.optim` that step by the gradients of any parameters, and TensorFlow's RMSprop."""

    ADAM = "adam"
    ADAMW = "adamw"
    ADAMAX = "adamax"
    NADAM = "nadam"
    RADAM = "radam"
    ADAGRAD = "adagrad"
    ADADELTA = "adadelta"
    ADAFACTOR = "adafactor"
    RMSPROP = "rmsprop"
    RMSPROP_TF = "rmsprop_tf"
    RPROP = "rprop"
    SGD = "sgd"
    ASGD = "asgd"

    @classmethod
    def _missing_(cls, value: object) -> OptimizerType | None:
        name = str(value).lower().rpartition(".")[2]  # `torch.optim.RMSprop` means the same.
        return cls._value2member_map_.get("rmsprop_tf" if name == "rmsproptflike" else name)  # type: ignore[return-value]


class HyperparameterSettings(SettingsModel):
    """The hyperparameters of every trainer type; ML-Agents' `HyperparamSettings`."""

    LARGER: ClassVar[str] = "no minibatch fills"
    """What follows from a minibatch that is larger than the buffer."""

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
            message = f"batch_size {self.batch_size} is larger than buffer_size {self.buffer_size}: {self.LARGER}"
            yield Problem(("batch_size",), message, "warning")


class LearningHyperparameters(HyperparameterSettings):
    """Shared by all algorithms of mlhooks: the torch optimizer, and normalization of rewards."""

    learning_rate_final: float = extension(
        1e-10,
        ge=0,
        description="The learning rate at max_steps where it is linear; in Stable-Baselines3 and RL Zoo it is 0.",
    )
    optimizer: OptimizerType = extension(
        OptimizerType.ADAM,
        description="An optimizer of torch.optim by its name; rmsprop_tf is Stable-Baselines3's RMSpropTFLike.",
    )
    optimizer_kwargs: dict[str, Any] | None = extension(
        None, description="Keyword arguments of torch's optimizer: `optimizer_kwargs` of Stable-Baselines3."
    )
    normalize_rewards: RewardNormalization = extension(
        RewardNormalization.NONE,
        description="Divide rewards by the running standard deviation of their discounted sums; `running` as "
        "Stable-Baselines3's VecNormalize, on-policy also `following`, which true means.",
    )
    normalize_rewards_gamma: float | None = extension(
        None,
        ge=0,
        le=1,
        description="Discount in these sums: VecNormalize's `gamma`; null: that of each reward signal.",
    )
    normalize_rewards_clip: float = extension(
        10.0, gt=0, description="Bound of normalized rewards: VecNormalize's `clip_reward`."
    )

    def problems(self) -> Iterator[Problem]:
        """Warn of final values of schedules that are constant, and refuse a learning rate among the arguments."""
        yield from super().problems()
        for name in sorted(self.model_fields_set):
            of = name.removesuffix("_final")
            if of != name and getattr(self, f"{of}_schedule", None) is ScheduleType.CONSTANT:
                yield Problem((name,), f"{name} has no effect, because {of}_schedule is constant", "warning")
        if "lr" in (self.optimizer_kwargs or {}):
            yield Problem(("optimizer_kwargs", "lr"), "lr is learning_rate; write that instead")


class OnPolicyHyperparameters(LearningHyperparameters):
    """Shared by algorithms that learn from what the current policy just did."""

    LARGER: ClassVar[str] = "all that is collected for an update is one minibatch"
    learning_rate_schedule: ScheduleType = Field(
        default=ScheduleType.LINEAR, description="How the learning rate changes until max_steps."
    )
    max_grad_norm: float | None = extension(
        None, gt=0, description="Clip the norm of the gradient to this; null leaves it alone."
    )
    normalize_before_update: bool = extension(
        True,
        description="Let the normalizer see a rollout's observations before the update, as in ML-Agents; false: after "
        "it, so that the update learns from the features that acted, as in Stable-Baselines3.",
    )


class PolicyGradientHyperparameters(OnPolicyHyperparameters):
    """Shared by algorithms whose loss has a policy gradient, an error of values and an entropy bonus."""

    BETA_FINAL: ClassVar[float] = 1e-5
    """Beta at max_steps where it is linear and the settings do not say."""

    beta: float = Field(5e-3, ge=0, description="Weight of the entropy bonus.")
    lambd: float = Field(0.95, ge=0, le=1, description="GAE's lambda: 0 trusts the critic, 1 the returns.")
    beta_final: float | None = extension(
        None,
        ge=0,
        description="Beta at max_steps where it is linear; null: ML-Agents' 1e-5 in PPO and POCA, and 1e-10 in A2C.",
    )
    value_coefficient: float = extension(
        0.5, ge=0, description="Weight of the value loss: Stable-Baselines3's `vf_coef`."
    )
    normalize_advantages: AdvantageNormalization = extension(
        AdvantageNormalization.ROLLOUT, description="Rows over which advantages are brought to mean 0 and deviation 1."
    )
    joint_actions: bool = extension(
        False, description="Take probability ratios and entropies of whole actions, not of each of their dimensions."
    )
    beta_schedule: ScheduleType = derived(
        lambda settings: settings.learning_rate_schedule,
        description="How beta changes until max_steps; by default as the learning rate.",
    )


class SurrogateHyperparameters(PolicyGradientHyperparameters):
    """Shared by algorithms that take several epochs over a rollout, by the clipped surrogate objective of PPO."""

    epsilon: float = Field(0.2, gt=0, description="How far the probability ratio may move from 1 in one update.")
    num_epoch: int = Field(3, ge=1, description="Passes over each rollout.")
    epsilon_final: float = extension(
        0.1, ge=0, description="Epsilon at max_steps where it is linear; in Stable-Baselines3 and RL Zoo it is 0."
    )
    value_clipping: bool = extension(False, description="Keep value estimates within epsilon of the old ones.")
    epsilon_schedule: ScheduleType = derived(
        lambda settings: settings.learning_rate_schedule,
        description="How epsilon changes until max_steps; by default as the learning rate.",
    )


class OffPolicyHyperparameters(LearningHyperparameters):
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
    random_steps: int = extension(
        0,
        ge=0,
        description="Steps at the beginning in which actions are uniformly random, as in Stable-Baselines3 until "
        "`learning_starts`.",
    )

    def problems(self) -> Iterator[Problem]:
        """Refuse sums of rewards that follow a row, which a replay buffer does not know yet."""
        yield from super().problems()
        if self.normalize_rewards is RewardNormalization.FOLLOWING:
            message = "what follows a row is not known when it is learned from: write normalize_rewards: running"
            yield Problem(("normalize_rewards",), message)
