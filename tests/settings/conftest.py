from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from textwrap import dedent
from typing import Any, ClassVar

import pytest

from mlhooks.errors import SettingsError
from mlhooks.settings import (
    Finding,
    HyperparameterSettings,
    LoadedOptions,
    OffPolicyHyperparameters,
    OnPolicyHyperparameters,
    RewardSignalSettings,
    ScheduleType,
    SettingsRegistry,
    derived,
    extension,
    load_run_options,
)

Load = Callable[..., LoadedOptions]
Refuse = Callable[..., list[Finding]]


class PPOModel(OnPolicyHyperparameters):
    beta: float = 5e-3
    epsilon: float = 0.2
    lambd: float = 0.95
    num_epoch: int = 3
    shared_critic: bool = False
    beta_schedule: ScheduleType = derived(lambda settings: settings.learning_rate_schedule, description="Of beta.")
    epsilon_schedule: ScheduleType = derived(
        lambda settings: settings.learning_rate_schedule, description="Of epsilon."
    )


class DQNModel(OffPolicyHyperparameters):
    tau: float = 0.005
    noise: float = extension(0.5, description="Noise.")


class CuriousSettings(RewardSignalSettings):
    curiosity: float = 1.0


class PPO:
    hyperparameters_type: ClassVar[type[HyperparameterSettings]] = PPOModel


class DQN:
    hyperparameters_type: ClassVar[type[HyperparameterSettings]] = DQNModel


@pytest.fixture
def registry() -> SettingsRegistry:
    signals = {"extrinsic": (object, RewardSignalSettings), "wonder": (object, CuriousSettings)}
    return SettingsRegistry({"ppo": PPO, "dqn": DQN}, signals)


@pytest.fixture
def load(tmp_path: Path, registry: SettingsRegistry) -> Load:
    """Write YAML to config.yaml and load it."""

    def load(text: str, **options: Any) -> LoadedOptions:
        path = tmp_path / "config.yaml"
        path.write_text(dedent(text), encoding="utf-8")
        return load_run_options(path, registry, **options)

    return load


@pytest.fixture
def refuse(load: Load) -> Refuse:
    """Load YAML that must be refused, and return its errors."""

    def refuse(text: str, **options: Any) -> list[Finding]:
        with pytest.raises(SettingsError) as caught:
            load(text, **options)
        errors = [finding for finding in caught.value.findings if finding.severity == "error"]
        assert all(str(finding) in str(caught.value) for finding in errors)
        return errors

    return refuse
