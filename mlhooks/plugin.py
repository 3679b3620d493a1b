"""All that a plugin's author imports from mlhooks: `from mlhooks.plugin import hookimpl, Batch, OnPolicyTrainer`.

These names are promised (docs/compatibility.md), wherever in mlhooks they are defined; docs/plugins.md says what each
is for. A name is imported when it is first asked for, so that a plugin waits only for what it uses: a statistics writer
does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from mlhooks import hookimpl as hookimpl

if TYPE_CHECKING:
    from pydantic import Field as Field

    from mlhooks.demos.demonstration import Demonstration as Demonstration
    from mlhooks.demos.demonstration import load_demonstration as load_demonstration
    from mlhooks.envs.factory import EnvironmentKind as EnvironmentKind
    from mlhooks.envs.manager import EnvManager as EnvManager
    from mlhooks.envs.manager import Worker as Worker
    from mlhooks.envs.manager import WorkerFailure as WorkerFailure
    from mlhooks.envs.manager import WorkerLost as WorkerLost
    from mlhooks.envs.manager import WorkerStep as WorkerStep
    from mlhooks.envs.own import Interface as Interface
    from mlhooks.envs.players import announce as announce
    from mlhooks.envs.spaces import ActionDecoder as ActionDecoder
    from mlhooks.envs.spaces import Box as Box
    from mlhooks.envs.spaces import Dict as Dict
    from mlhooks.envs.spaces import Discrete as Discrete
    from mlhooks.envs.spaces import Encoded as Encoded
    from mlhooks.envs.spaces import Misfit as Misfit
    from mlhooks.envs.spaces import MultiBinary as MultiBinary
    from mlhooks.envs.spaces import MultiDiscrete as MultiDiscrete
    from mlhooks.envs.spaces import ObservationEncoder as ObservationEncoder
    from mlhooks.envs.spaces import Sequence as Sequence
    from mlhooks.envs.spaces import Space as Space
    from mlhooks.envs.spaces import SpaceError as SpaceError
    from mlhooks.envs.spaces import Spaces as Spaces
    from mlhooks.envs.spaces import Tuple as Tuple
    from mlhooks.errors import CheckpointError as CheckpointError
    from mlhooks.errors import ContractBroken as ContractBroken
    from mlhooks.errors import DemonstrationError as DemonstrationError
    from mlhooks.errors import EnvironmentFailure as EnvironmentFailure
    from mlhooks.errors import EnvironmentPaused as EnvironmentPaused
    from mlhooks.errors import MlhooksError as MlhooksError
    from mlhooks.errors import NonFiniteError as NonFiniteError
    from mlhooks.errors import PluginError as PluginError
    from mlhooks.errors import SettingsError as SettingsError
    from mlhooks.errors import UnsupportedError as UnsupportedError
    from mlhooks.errors import UsageError as UsageError
    from mlhooks.fast.adam import FlatParameters as FlatParameters
    from mlhooks.fast.adam import in_one_piece as in_one_piece
    from mlhooks.fast.networks import parameter_like as parameter_like
    from mlhooks.names import file_name as file_name
    from mlhooks.nn.encoders import make_encoder as make_encoder
    from mlhooks.nn.exported import ExportedActions as ExportedActions
    from mlhooks.nn.features import FeatureLayout as FeatureLayout
    from mlhooks.nn.frozen import frozen as frozen
    from mlhooks.nn.groups import GroupCritic as GroupCritic
    from mlhooks.nn.heads import MASKED_LOGIT as MASKED_LOGIT
    from mlhooks.nn.heads import ActionHeads as ActionHeads
    from mlhooks.nn.heads import ActionParameters as ActionParameters
    from mlhooks.nn.heads import SampledActions as SampledActions
    from mlhooks.nn.heads import counted_entropies as counted_entropies
    from mlhooks.nn.heads import whole_actions as whole_actions
    from mlhooks.nn.networks import Actor as Actor
    from mlhooks.nn.networks import Critic as Critic
    from mlhooks.nn.networks import QNetwork as QNetwork
    from mlhooks.nn.schedules import Schedule as Schedule
    from mlhooks.plugins import PluginManager as PluginManager
    from mlhooks.settings import AdvantageNormalization as AdvantageNormalization
    from mlhooks.settings import EnvironmentSettings as EnvironmentSettings
    from mlhooks.settings import HyperparameterSettings as HyperparameterSettings
    from mlhooks.settings import LearnedSignalSettings as LearnedSignalSettings
    from mlhooks.settings import NetworkSettings as NetworkSettings
    from mlhooks.settings import OffPolicyHyperparameters as OffPolicyHyperparameters
    from mlhooks.settings import OnPolicyHyperparameters as OnPolicyHyperparameters
    from mlhooks.settings import PolicyGradientHyperparameters as PolicyGradientHyperparameters
    from mlhooks.settings import Problem as Problem
    from mlhooks.settings import RewardSignalSettings as RewardSignalSettings
    from mlhooks.settings import RunOptions as RunOptions
    from mlhooks.settings import ScheduleType as ScheduleType
    from mlhooks.settings import SettingsModel as SettingsModel
    from mlhooks.settings import SurrogateHyperparameters as SurrogateHyperparameters
    from mlhooks.settings import TrainerSettings as TrainerSettings
    from mlhooks.settings import derived as derived
    from mlhooks.settings import extension as extension
    from mlhooks.stats import StatsAggregationMethod as StatsAggregationMethod
    from mlhooks.stats import StatsPropertyType as StatsPropertyType
    from mlhooks.stats import StatsReporter as StatsReporter
    from mlhooks.stats import StatsSummary as StatsSummary
    from mlhooks.training.acting import ActingHalf as ActingHalf
    from mlhooks.training.batch import Batch as Batch
    from mlhooks.training.batch import column as column
    from mlhooks.training.checkpoints import Checkpoint as Checkpoint
    from mlhooks.training.descent import Descent as Descent
    from mlhooks.training.descent import GradientStepper as GradientStepper
    from mlhooks.training.device import to_device as to_device
    from mlhooks.training.group_learning import GroupLearning as GroupLearning
    from mlhooks.training.group_learning import GroupOptimizer as GroupOptimizer
    from mlhooks.training.group_learning import GroupTrainer as GroupTrainer
    from mlhooks.training.groups import Cells as Cells
    from mlhooks.training.learned_signal import LearnedSignal as LearnedSignal
    from mlhooks.training.learned_signal import SignalNetwork as SignalNetwork
    from mlhooks.training.learning import LearningHalf as LearningHalf
    from mlhooks.training.off_policy import OffPolicyLearning as OffPolicyLearning
    from mlhooks.training.off_policy import OffPolicyTrainer as OffPolicyTrainer
    from mlhooks.training.on_policy import OnPolicyLearning as OnPolicyLearning
    from mlhooks.training.on_policy import OnPolicyTrainer as OnPolicyTrainer
    from mlhooks.training.optimizer import ActorCriticOptimizer as ActorCriticOptimizer
    from mlhooks.training.optimizer import Optimizer as Optimizer
    from mlhooks.training.optimizer import TorchOptimizer as TorchOptimizer
    from mlhooks.training.outcome import RunOutcome as RunOutcome
    from mlhooks.training.policy import ActorPolicy as ActorPolicy
    from mlhooks.training.policy import Policy as Policy
    from mlhooks.training.policy_gradients import PolicyGradientOptimizer as PolicyGradientOptimizer
    from mlhooks.training.policy_gradients import SurrogateOptimizer as SurrogateOptimizer
    from mlhooks.training.q_policy import QPolicy as QPolicy
    from mlhooks.training.replay import ReplayBuffer as ReplayBuffer
    from mlhooks.training.reward_signals import RewardSignal as RewardSignal
    from mlhooks.training.run import Run as Run
    from mlhooks.training.squashed_policy import Decisions as Decisions
    from mlhooks.training.squashed_policy import SquashedPolicy as SquashedPolicy
    from mlhooks.training.store import ExperienceStore as ExperienceStore
    from mlhooks.training.surrogate import clipped_errors as clipped_errors
    from mlhooks.training.surrogate import clipped_surrogate as clipped_surrogate
    from mlhooks.training.surrogate import surrogate_diagnostics as surrogate_diagnostics
    from mlhooks.training.trainer import Supports as Supports
    from mlhooks.training.trainer import Trainer as Trainer

_NAMES = {
    "mlhooks.demos.demonstration": "Demonstration load_demonstration",
    "mlhooks.envs.factory": "EnvironmentKind",
    "mlhooks.envs.manager": "EnvManager Worker WorkerFailure WorkerLost WorkerStep",
    "mlhooks.envs.own": "Interface",
    "mlhooks.envs.players": "announce",
    "mlhooks.envs.spaces": "ActionDecoder Box Dict Discrete Encoded Misfit MultiBinary MultiDiscrete ObservationEncoder"
    " Sequence Space SpaceError Spaces Tuple",
    "mlhooks.errors": "CheckpointError ContractBroken DemonstrationError EnvironmentFailure EnvironmentPaused"
    " MlhooksError NonFiniteError PluginError SettingsError UnsupportedError UsageError",
    "mlhooks.names": "file_name",
    "mlhooks.nn.encoders": "make_encoder",
    "mlhooks.nn.exported": "ExportedActions",
    "mlhooks.nn.features": "FeatureLayout",
    "mlhooks.nn.frozen": "frozen",
    "mlhooks.nn.groups": "GroupCritic",
    "mlhooks.nn.heads": "MASKED_LOGIT ActionHeads ActionParameters SampledActions counted_entropies whole_actions",
    "mlhooks.nn.networks": "Actor Critic QNetwork",
    "mlhooks.nn.schedules": "Schedule",
    "mlhooks.plugins": "PluginManager",
    "mlhooks.settings": "AdvantageNormalization EnvironmentSettings HyperparameterSettings LearnedSignalSettings"
    " NetworkSettings OffPolicyHyperparameters OnPolicyHyperparameters PolicyGradientHyperparameters Problem"
    " RewardSignalSettings RunOptions ScheduleType SettingsModel SurrogateHyperparameters TrainerSettings derived"
    " extension",
    "mlhooks.stats": "StatsAggregationMethod StatsPropertyType StatsReporter StatsSummary",
    "mlhooks.fast.adam": "FlatParameters in_one_piece",
    "mlhooks.fast.networks": "parameter_like",
    "mlhooks.training.acting": "ActingHalf",
    "mlhooks.training.batch": "Batch column",
    "mlhooks.training.checkpoints": "Checkpoint",
    "mlhooks.training.descent": "Descent GradientStepper",
    "mlhooks.training.group_learning": "GroupLearning GroupOptimizer GroupTrainer",
    "mlhooks.training.groups": "Cells",
    "mlhooks.training.learned_signal": "LearnedSignal SignalNetwork",
    "mlhooks.training.learning": "LearningHalf",
    "mlhooks.training.off_policy": "OffPolicyLearning OffPolicyTrainer",
    "mlhooks.training.on_policy": "OnPolicyLearning OnPolicyTrainer",
    "mlhooks.training.optimizer": "ActorCriticOptimizer Optimizer TorchOptimizer",
    "mlhooks.training.outcome": "RunOutcome",
    "mlhooks.training.policy": "ActorPolicy Policy",
    "mlhooks.training.policy_gradients": "PolicyGradientOptimizer SurrogateOptimizer",
    "mlhooks.training.q_policy": "QPolicy",
    "mlhooks.training.replay": "ReplayBuffer",
    "mlhooks.training.reward_signals": "RewardSignal",
    "mlhooks.training.run": "Run",
    "mlhooks.training.squashed_policy": "Decisions SquashedPolicy",
    "mlhooks.training.store": "ExperienceStore",
    "mlhooks.training.surrogate": "clipped_errors clipped_surrogate surrogate_diagnostics",
    "mlhooks.training.trainer": "Supports Trainer",
    "mlhooks.training.device": "to_device",
    "pydantic": "Field",
}
"""The same once more for the running program: names by the module that defines them."""
_HOMES = {name: module for module, names in _NAMES.items() for name in names.split()}
__all__ = ["hookimpl", *_HOMES]

if not TYPE_CHECKING:  # Type checkers would accept any name otherwise.

    def __getattr__(name: str) -> Any:
        if name not in _HOMES:
            raise AttributeError(f"module 'mlhooks.plugin' has no attribute {name!r}")
        found = globals()[name] = getattr(import_module(_HOMES[name]), name)
        return found


def __dir__() -> list[str]:
    return sorted(__all__)
