"""Settings of environment parameters: constants, samplers, and curricula of lessons."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Annotated, Any, ClassVar, TypeAlias

from pydantic import Field, SerializeAsAny

from mlhooks.settings.base import Problem, SettingsModel

INT32, FLOAT32 = 2**31 - 1, 3.4028234e38
"""The largest numbers that the protocol of Unity players can carry."""
Number: TypeAlias = Annotated[float, Field(ge=-FLOAT32, le=FLOAT32)]
"""A value of an environment parameter."""


class ParameterRandomizationSettings(SettingsModel):
    """Base of the samplers, from which the environment draws a parameter's value; their text is for people."""

    sampler_type: ClassVar[str]

    seed: int = Field(
        default=-1, ge=-INT32, le=INT32, description="Seed of this sampler; -1 for one that follows from the run's."
    )

    def as_dict(self) -> dict[str, Any]:
        """Return `sampler_type` and `sampler_parameters`."""
        return {"sampler_type": self.sampler_type, "sampler_parameters": super().as_dict()}


class ConstantSettings(ParameterRandomizationSettings):
    """One value."""

    sampler_type = "constant"

    value: Number = Field(default=0.0, description="The value.")

    def __str__(self) -> str:
        return f"{self.value:g}"


class UniformSettings(ParameterRandomizationSettings):
    """Values between two bounds."""

    sampler_type = "uniform"

    min_value: Number = Field(default=0.0, description="Lower bound.")
    max_value: Number = Field(default=1.0, description="Upper bound.")

    def problems(self) -> Iterator[Problem]:
        """Refuse bounds that are not in order."""
        if self.min_value > self.max_value:
            yield Problem(("min_value",), f"min_value {self.min_value} is greater than max_value {self.max_value}")

    def __str__(self) -> str:
        return f"uniform from {self.min_value:g} to {self.max_value:g}"


class GaussianSettings(ParameterRandomizationSettings):
    """Normally distributed values."""

    sampler_type = "gaussian"

    mean: Number = Field(default=1.0, description="Mean.")
    st_dev: Number = Field(default=1.0, ge=0, description="Standard deviation.")

    def __str__(self) -> str:
        return f"gaussian with mean {self.mean:g} and deviation {self.st_dev:g}"


class MultiRangeUniformSettings(ParameterRandomizationSettings):
    """Values from several intervals, each as likely as it is long."""

    sampler_type = "multirangeuniform"

    intervals: list[tuple[Number, Number]] = Field(
        default_factory=lambda: [(0.0, 1.0)], min_length=1, description="Pairs of a lower and an upper bound."
    )

    def problems(self) -> Iterator[Problem]:
        """Refuse intervals whose bounds are not in order."""
        for index, (low, high) in enumerate(self.intervals):
            if low > high:
                yield Problem(("intervals", index), f"the lower bound {low} is greater than the upper bound {high}")

    def __str__(self) -> str:
        return f"uniform from {' or '.join(f'{low:g} to {high:g}' for low, high in self.intervals)}"


SAMPLERS: Mapping[str, type[ParameterRandomizationSettings]] = {
    sampler.sampler_type: sampler
    for sampler in (UniformSettings, GaussianSettings, MultiRangeUniformSettings, ConstantSettings)
}


class MeasureType(StrEnum):
    """The measure by which a lesson is learned."""

    PROGRESS = "progress"
    REWARD = "reward"


class CompletionCriteriaSettings(SettingsModel):
    """The criteria by which a lesson is learned."""

    ignores_unknown_keys: ClassVar[bool] = True

    behavior: str = Field(description="The behavior that is measured.")
    measure: MeasureType = Field(
        default=MeasureType.REWARD, description="The share of max_steps done, or the mean reward."
    )
    min_lesson_length: int = Field(default=0, ge=0, description="Episodes that the lesson lasts at least.")
    signal_smoothing: bool = Field(default=True, description="Smooth the mean reward by its predecessors.")
    threshold: float = Field(default=0.0, description="The measure above which the next lesson starts.")
    require_reset: bool = Field(default=False, description="Reset the environment when the next lesson starts.")

    def problems(self) -> Iterator[Problem]:
        """Refuse a threshold of progress outside [0, 1]."""
        if self.measure is MeasureType.PROGRESS and not 0 <= self.threshold <= 1:
            yield Problem(("threshold",), f"a threshold of progress lies between 0 and 1, not at {self.threshold}")


class Lesson(SettingsModel):
    """One stage of a curriculum; a lesson without criteria is the last."""

    value: SerializeAsAny[ParameterRandomizationSettings] = Field(description="A number, or a sampler.")
    name: str = Field(description="Name of the lesson.")
    completion_criteria: CompletionCriteriaSettings | None = Field(
        default=None, description="When the next lesson starts."
    )


class EnvironmentParameterSettings(SettingsModel):
    """One environment parameter: a list of lessons, with a single one for a constant or a sampler."""

    curriculum: list[Lesson] = Field(min_length=1, description="The lessons, in order.")

    def problems(self) -> Iterator[Problem]:
        """Demand criteria of every lesson but the last, whose criteria decide nothing."""
        for index, lesson in enumerate(self.curriculum):
            last = index == len(self.curriculum) - 1
            if not last and lesson.completion_criteria is None:
                message = f"the lesson {lesson.name} needs completion_criteria, because another lesson follows it"
                yield Problem(("curriculum", index), message)
            if last and lesson.completion_criteria is not None:
                message = f"{lesson.name} is the last lesson, so its completion_criteria have no effect"
                yield Problem(("curriculum", index, "completion_criteria"), message, "warning")
