"""Settings of the evaluations of a behavior while it is trained."""

from __future__ import annotations

from pydantic import Field

from mlhooks.settings.base import SettingsModel


class EvaluationSettings(SettingsModel):
    """How often a behavior is tried in an environment apart from training, and when training ends by that."""

    interval: int = Field(default=10000, ge=1, description="Agent steps between evaluations; the last is at the end.")
    episodes: int = Field(default=10, ge=1, description="Episodes of each evaluation.")
    deterministic: bool = Field(default=True, description="Take the most probable action instead of sampling.")
    stop_at: float | None = Field(default=None, description="End training at this mean reward; null for no.")
    patience: int | None = Field(
        default=None, ge=1, description="End training after so many evaluations in a row without a new best; null: no."
    )
