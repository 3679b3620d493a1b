"""The configuration: pydantic models of ML-Agents' YAML, read with errors that name file, line and key."""

from __future__ import annotations

from mlhooks.finding import Finding
from mlhooks.settings.base import PathText, Problem, SettingsModel, derived, extension
from mlhooks.settings.behaviors import (
    BehavioralCloningSettings,
    CuriositySettings,
    EvaluationSettings,
    GAILSettings,
    LearnedSignalSettings,
    RewardSignalSettings,
    RNDSettings,
    SelfPlaySettings,
    TrainerSettings,
)
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
    OptimizerType,
    RewardNormalization,
    ScheduleType,
)
from mlhooks.settings.networks import (
    ActivationType,
    ConditioningType,
    EncoderType,
    InitializationType,
    MemorySettings,
    NetworkSettings,
)
from mlhooks.settings.resolve import Configuration, LoadedOptions, load_run_options, read_configuration
from mlhooks.settings.run_options import (
    CheckpointSettings,
    EngineSettings,
    EnvironmentSettings,
    PluginsSettings,
    RunOptions,
    TeamSettings,
    TorchSettings,
)
from mlhooks.settings.schema import SettingsRegistry

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
    "LearnedSignalSettings",
    "Lesson",
    "LoadedOptions",
    "MeasureType",
    "MemorySettings",
    "MultiRangeUniformSettings",
    "NetworkSettings",
    "OffPolicyHyperparameters",
    "OnPolicyHyperparameters",
    "OptimizerType",
    "ParameterRandomizationSettings",
    "PathText",
    "PluginsSettings",
    "Problem",
    "RNDSettings",
    "RewardNormalization",
    "RewardSignalSettings",
    "RunOptions",
    "ScheduleType",
    "SelfPlaySettings",
    "SettingsModel",
    "SettingsRegistry",
    "TeamSettings",
    "TorchSettings",
    "TrainerSettings",
    "UniformSettings",
    "derived",
    "extension",
    "load_run_options",
    "read_configuration",
]
