"""The package's policy and optimizer as mlhooks' kinds of objects: what other parts of a run ask of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from mlagents_envs.base_env import ActionTuple, BehaviorSpec
from torch import Tensor, nn

from mlhooks.errors import UnsupportedError
from mlhooks.fast.actions import action_tuple
from mlhooks.nn.heads import SampledActions
from mlhooks.settings import TrainerSettings
from mlhooks.training.batch import Batch
from mlhooks.training.optimizer import Optimizer
from mlhooks.training.policy import Policy

if TYPE_CHECKING:
    from mlhooks.mlagents_wheel.learner import Learner


class WheelPolicy(Policy):
    """Acts apart from training, as in evaluations and `predict`; in training the package's own policy acts.

    Attributes:
        learner: whose policy it is; a trainer says so once it has one.
    """

    learner: Learner

    def __init__(
        self, behavior_name: str, behavior_spec: BehaviorSpec, settings: TrainerSettings, device: torch.device
    ) -> None:
        # The base would make what networks of mlhooks read, and refuse observations that they do not know.
        self.behavior_name, self.behavior_spec = behavior_name, behavior_spec
        self.settings, self.device = settings, device
        shapes = [observation.shape for observation in behavior_spec.observation_specs]
        vectors = sum(shape[0] for shape in shapes if len(shape) == 1)
        self.layout: Any = SimpleNamespace(vectors=vectors, size=sum(map(math.prod, shapes)))
        self.inputs: Any = SimpleNamespace(keeps_bytes=False, normalizer=None)
        self._deterministic = settings.network_settings.deterministic

    @property
    def deterministic(self) -> bool:
        """Whether the most likely action is taken instead of a random one."""
        return self._deterministic

    @deterministic.setter
    def deterministic(self, value: bool) -> None:
        self._deterministic = value
        policy: Any = getattr(self.learner.inner, "policy", None)
        model: Any = getattr(getattr(policy, "actor", None), "action_model", None)
        if hasattr(model, "_deterministic"):
            model._deterministic = value

    def act(self, obs: Sequence[np.ndarray], mask: np.ndarray | None, rng: np.random.Generator) -> SampledActions:
        """Decide with the newest policy; its random numbers are torch's.

        Raises:
            UnsupportedError: the policy has a memory, which agents would have to carry.
        """
        if self.settings.network_settings.memory is not None:
            raise UnsupportedError(
                f"The policy of behavior {self.behavior_name!r} has a memory, and acting apart from a run carries none "
                "for its agents: use --inference, or the exported ONNX model."
            )
        agents = len(obs[0])
        seen = [torch.as_tensor(np.asarray(array, np.float32), device=self.device) for array in obs]
        branches = sum(self.behavior_spec.action_spec.discrete_branches)
        allowed = np.ones((agents, branches), np.float32) if mask is None else 1.0 - mask.astype(np.float32)
        masks = torch.as_tensor(allowed, device=self.device) if branches else None
        memories = torch.zeros((1, agents, 0), device=self.device)
        cuda = [self.device] if self.device.type == "cuda" else []
        with torch.no_grad(), torch.device(self.device), torch.random.fork_rng(cuda):
            torch.manual_seed(int(rng.integers(2**31)))
            _, run_out, _ = self.learner.inner.policy.actor.get_action_and_stats(seen, masks=masks, memories=memories)
        sent = run_out["env_action"]
        continuous = np.asarray(sent.continuous, np.float32).reshape(agents, -1)
        discrete = np.asarray(sent.discrete, np.int64).reshape(agents, -1)
        return SampledActions(continuous, discrete, np.zeros(agents, np.float32))

    def action_tuple(self, actions: SampledActions) -> ActionTuple:
        """Return the actions as they are: the package has clipped them already."""
        return action_tuple(actions.continuous, actions.discrete.astype(np.int32))

    def modules(self) -> dict[str, nn.Module]:
        """Return nothing: the trainer names the package's modules."""
        return {}

    def weights_changed(self) -> None:
        """Do nothing: nothing is derived from the weights."""


class WheelOptimizer(Optimizer):
    """Stands for the package's optimizer, which its own trainer calls."""

    def update(self, batch: Batch) -> dict[str, Tensor]:  # noqa: ARG002
        """Refuse: there are no batches of mlhooks.

        Raises:
            UnsupportedError: always.
        """
        raise UnsupportedError("A trainer of ML-Agents makes its own batches; its optimizer takes none of mlhooks.")

    def modules(self) -> dict[str, nn.Module]:
        """Return nothing: the trainer names the package's modules."""
        return {}
