"""The configuration: pydantic models of ML-Agents' YAML, read with errors that name file, line and key."""

from __future__ import annotations

from mlhooks.finding import Finding
from mlhooks.settings.base import PathText, Problem, SettingsModel, derived, extension
from mlhooks.settings.behaviors import (
    BehavioralCloningSettings,
    CuriositySettings,
    EvaluationSettings,
    GAILSettings,
    RewardSignalSettings,
    RNDSettings,
    SelfPlaySettings,
    TrainerSettings,
)
from mlhooks.settings.configuration import Configuration, PluginsSettings, read_configuration
from mlhooks.settings.environment_parameters import (
    CompletionCriteriaSettings,
    ConstantSettings,
    EnvironmentParameterSettings,
    GaussianSettings,
    Lesson,
    MeasureType,
    MultiRangeUniformSettings,
    ParameterRandomizationSettings,
    UniformSettings,
)
from mlhooks.settings.hyperparameters import (
    AdvantageNormalization,
    HyperparameterSettings,
    OffPolicyHyperparameters,
    OnPolicyHyperparameters,
    ScheduleType,
)
from mlhooks.settings.network import (
    ActivationType,
    ConditioningType,
    EncoderType,
    InitializationType,
    MemorySettings,
    NetworkSettings,
)
from mlhooks.settings.registry import SettingsRegistry
from mlhooks.settings.resolve import LoadedOptions, load_run_options
from mlhooks.settings.run_options import (
    CheckpointSettings,
    EngineSettings,
    EnvironmentSettings,
    RunOptions,
    TorchSettings,
)

__all__ = [
    "ActivationType",
    "AdvantageNormalization",
    "BehavioralCloningSettings",
    "CheckpointSettings",
    "CompletionCriteriaSettings",
    "ConditioningType",
    "Configuration",
    "ConstantSettings",
    "CuriositySettings",
    "EncoderType",
    "EngineSettings",
    "EnvironmentParameterSettings",
    "EnvironmentSettings",
    "EvaluationSettings",
    "Finding",
    "GAILSettings",
    "GaussianSettings",
    "HyperparameterSettings",
    "InitializationType",
    "Lesson",
    "LoadedOptions",
    "MeasureType",
    "MemorySettings",
    "MultiRangeUniformSettings",
    "NetworkSettings",
    "OffPolicyHyperparameters",
    "OnPolicyHyperparameters",
    "ParameterRandomizationSettings",
    "PathText",
    "PluginsSettings",
    "Problem",
    "RNDSettings",
    "RewardSignalSettings",
    "RunOptions",
    "ScheduleType",
    "SelfPlaySettings",
    "SettingsModel",
    "SettingsRegistry",
    "TorchSettings",
    "TrainerSettings",
    "UniformSettings",
    "derived",
    "extension",
    "load_run_options",
    "read_configuration",
]
