"""Policies: the acting half of a trainer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from mlagents_envs.base_env import ActionTuple, BehaviorSpec
from torch import Tensor, nn

from mlhooks.errors import UnsupportedError
from mlhooks.fast.actions import action_tuple
from mlhooks.fast.opting_in import ArrayArithmetic
from mlhooks.fast.structure import computes_as
from mlhooks.nn.exported import ExportedActions, sampled
from mlhooks.nn.features import FeatureInput, FeatureLayout
from mlhooks.nn.heads import ActionParameters, SampledActions, branch_slices, evaluate, sample
from mlhooks.nn.networks import Actor, Network, exported_step, reads_unjoined
from mlhooks.nn.state_noise import StateNoiseHeads
from mlhooks.settings import TrainerSettings
from mlhooks.settings.networks import ACTION_LIMIT
from mlhooks.training.batch import Batch
from mlhooks.training.device import to_device

Parameters = tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]


class Policy(ArrayArithmetic, ABC):
    """The base of all policies, which decide for the agents of one behavior.

    Args:
        behavior_name: for messages.
        behavior_spec: the behavior's observations and actions.
        settings: the behavior's settings.
        device: where its networks live.

    Attributes:
        behavior_name, behavior_spec, settings, device: what it was made with.
        layout: where each observation lies in the features; what networks are made from.
        inputs: turns observations into features, and holds the normalizer.
        deterministic: whether the most likely action is taken instead of a random one.
        reads_bytes: whether it takes images as bytes, in observations and in features; else it gets floats in [0, 1].
        memory_size: the size of the memory that each agent carries; 0 without one.
        noise_shape: the shape of the matrix of noise that each agent holds for many decisions, with which `act` is
            called as `noise` [agents, *noise_shape] in training; None without one.
        network_keys: the keys of `network_settings` that it reads and not every network does, such as `log_std_init`. A
            run whose policy and optimizer both lack one is refused.
        action_limit: what continuous actions are clipped to and divided by.
    """

    reads_bytes = False
    memory_size = 0
    noise_shape: tuple[int, int] | None = None
    network_keys: ClassVar[frozenset[str]] = frozenset()
    action_limit = ACTION_LIMIT
    OUTSIDE_LOSSES = frozenset(
        {
            "act",
            "action_tuple",
            "exported",
            "features",
            "from_environment",
            "modules",
            "raw_features",
            "weights_changed",
        }
    )

    def __init__(
        self, behavior_name: str, behavior_spec: BehaviorSpec, settings: TrainerSettings, device: torch.device
    ) -> None:
        self.behavior_name, self.behavior_spec = behavior_name, behavior_spec
        self.settings = settings
        self.device = device
        network = settings.network_settings
        self.layout = FeatureLayout(behavior_name, behavior_spec)
        self.inputs = FeatureInput(self.layout, normalize=network.normalize, clip=network.normalize_clip)
        self.deterministic = network.deterministic
        self.action_limit = network.action_limit

    @abstractmethod
    def act(self, obs: Sequence[np.ndarray], mask: np.ndarray | None, rng: np.random.Generator) -> SampledActions:
        """Decide for a batch of agents.

        A policy with a memory gets one more argument, `memory` [agents, memory_size] float32: what each agent carries,
        zeros where its episode begins. The `memory` of the actions that it returns is what they carry on. A policy with
        a `noise_shape` gets `noise` [agents, *noise_shape] in training, by which agents explore, and None elsewhere.

        Args:
            obs: a list of [agents, *shape], float32, or uint8 of images where it `reads_bytes`.
            mask: [agents, sum of branch sizes], True where forbidden, or None.
            rng: the source of all randomness.
        """

    @abstractmethod
    def modules(self) -> dict[str, nn.Module]:
        """Return all modules that a checkpoint holds, by name: `{**super().modules(), "network": self.network}`."""
        return {"inputs": self.inputs}

    def exported(
        self,
        obs: Sequence[Tensor],  # noqa: ARG002
        allowed: Tensor | None,  # noqa: ARG002
        memory: Tensor | None = None,  # noqa: ARG002
    ) -> ExportedActions:
        """Decide in torch's operations alone, which a tracer writes down as a model for other programs.

        A policy that overrides `act`, `action_tuple` or `features` overrides this as well, or is not exported.

        Args:
            obs: a list of [rows, *shape] float32, images in [0, 1].
            allowed: [rows, sum of branch sizes] float32, 1 where an action is allowed, else 0; None without branches.
            memory: [rows, 1, memory_size], None where agents carry none.

        Raises:
            UnsupportedError: there is no such form of the policy.
        """
        raise UnsupportedError(f"{type(self).__name__} does not override Policy.exported")

    def action_tuple(self, actions: SampledActions) -> ActionTuple:
        """Return what environments get: continuous actions clipped to `action_limit` and divided by it.

        In ML-Agents the limit is 3.
        """
        continuous, limit = actions.continuous, self.action_limit
        if continuous.shape[1]:
            continuous = np.minimum(np.maximum(continuous, -limit), limit) / limit
        if continuous.dtype != np.float32:
            continuous = continuous.astype(np.float32)
        return action_tuple(continuous, actions.discrete.astype(np.int32))

    def from_environment(self, continuous: np.ndarray) -> np.ndarray:
        """Return the samples [rows, size] of which `action_tuple` makes these continuous actions.

        A policy that overrides one of the two methods overrides both.
        """
        return continuous * np.float32(self.action_limit)

    def features(self, obs: Sequence[np.ndarray]) -> Tensor:
        """Return features [rows, size] of observations, on the policy's device."""
        return to_device(self.inputs.features(obs), self.device)

    def raw_features(self, obs: Sequence[np.ndarray], features: Tensor) -> Tensor:
        """Return features [rows, size] of observations that are not normalized, on the policy's device.

        Args:
            obs: a list of [rows, *shape].
            features: what `features` returned for them; returned again where nothing is normalized.
        """
        if self.inputs.normalizer is None and type(self).features is Policy.features:
            return features
        return to_device(self.inputs.raw(obs), self.device)

    def weights_changed(self) -> None:
        """Drop what was derived from the weights; whoever changes them from outside calls this."""
        for module in self.modules().values():
            if isinstance(module, Network):
                module.weights_changed()
            elif module is not self.inputs:
                for inside in module.modules():
                    if isinstance(inside, Network):
                        inside.weights_changed()


class ActorPolicy(Policy):
    """A policy that samples from an actor network's distributions.

    Args:
        actor: a network from features [rows, size] to `ActionParameters`; by default one made from the settings. One
            that has a memory says how large it is by `memory_size`, is called with features, memory, width and lengths
            as `Actor.forward`, and has a method like `Actor.step`.

    Attributes:
        squashes: whether standard deviations depend on what is observed and continuous actions are squashed by tanh, in
            a class of policies.
        keeps_encodings: whether actions come with the encodings that torch computed for them, so that a critic on the
            actor's encoder need not compute these again.
        reads_bytes: as in `Policy`; an `actor` that is given says so itself, by an attribute of the same name.
        noise_heads: the heads of an actor that explores by state-dependent noise (`use_sde`), or None.
    """

    reads_bytes = True
    array_arithmetic = True
    squashes: ClassVar[bool] = False
    network_keys = frozenset(
        {"action_limit", "full_std", "log_std_init", "sde_sample_freq", "state_dependent_std", "use_sde"}
    )

    def __init__(
        self,
        behavior_name: str,
        behavior_spec: BehaviorSpec,
        settings: TrainerSettings,
        device: torch.device,
        actor: nn.Module | None = None,
    ) -> None:
        super().__init__(behavior_name, behavior_spec, settings, device)
        self._refuse_settings(actor)
        if actor is None:
            action_spec, network = behavior_spec.action_spec, settings.network_settings
            actor = Actor(self.layout, action_spec, network, conditional=self.squashes)
        self.actor = actor.to(device)
        self.reads_bytes = self.reads_bytes and getattr(self.actor, "reads_bytes", False)
        self.memory_size = getattr(self.actor, "memory_size", 0)
        self.branches = branch_slices(behavior_spec.action_spec)
        self.keeps_encodings = False
        heads = getattr(self.actor, "heads", None)
        self.noise_heads = heads if isinstance(heads, StateNoiseHeads) else None
        self.noise_shape = None if self.noise_heads is None else self.noise_heads.noise_shape

    def _refuse_settings(self, actor: nn.Module | None) -> None:
        """Refuse settings of distributions that have no continuous actions, or that a plugin's network does not read.

        Raises:
            UnsupportedError: names the setting.
        """
        network = self.settings.network_settings
        keys = ("use_sde", "state_dependent_std", "log_std_init")
        asked = [key for key in keys if getattr(network, key) not in (False, None)]
        if asked and not self.behavior_spec.action_spec.continuous_size:
            raise UnsupportedError(
                f"Behavior {self.behavior_name!r}: network_settings.{asked[0]} is about continuous actions, and this "
                "behavior has discrete ones alone: remove it."
            )
        if asked and not (actor is None or isinstance(actor, Actor)):
            raise UnsupportedError(
                f"Behavior {self.behavior_name!r}: network_settings.{asked[0]} is not read by {type(actor).__name__}, "
                "which a plugin has made: remove it."
            )

    def act(
        self,
        obs: Sequence[np.ndarray],
        mask: np.ndarray | None,
        rng: np.random.Generator,
        memory: np.ndarray | None = None,
        noise: np.ndarray | None = None,
    ) -> SampledActions:
        """Sample actions and their log-probabilities in one batched forward pass without autograd.

        By default an actor with a memory begins with zeros. A policy with a `noise_shape` explores by `noise` [agents,
        *noise_shape]; by default by independent noise of the same variance.
        """
        features, encoding, drawn = self.inputs.features(obs), None, None
        after: np.ndarray | None = None
        parameters: Parameters
        if self.noise_heads is not None:
            latent, after = self._latent(features, memory)
            parameters = self.noise_heads.from_outputs([latent])
            if noise is not None:
                drawn = np.matmul(latent[:, None], noise)[:, 0] / np.exp(parameters[1])
        elif self.memory_size:
            parameters, after = self._step(features, memory)
        else:
            parameters, encoding = self._parameters(features)
        mean, log_std, logits = parameters
        actions = sample(
            mean,
            log_std,
            logits,
            branches=self.branches,
            mask=mask,
            rng=rng,
            deterministic=self.deterministic,
            squash=self.squashes,
            noise=drawn,
        )
        return actions if encoding is None and after is None else actions._replace(encoding=encoding, memory=after)

    def _parameters(self, features: np.ndarray) -> tuple[Parameters, np.ndarray | None]:
        """Return the parts of `ActionParameters` as arrays, and the encoding that they come from where it is kept."""
        actor: Any = self.actor
        outputs = actor.compute(features) if isinstance(actor, Actor) else None
        if outputs is not None:
            return actor.heads.from_outputs(outputs), None
        plain = actor if computes_as(actor, Actor) else None
        with torch.no_grad():
            rows = to_device(features, self.device)
            keeps = plain is not None and self.keeps_encodings and plain.autocast is None
            encoding = plain.encoder(rows) if plain is not None and keeps else None
            parameters = actor(rows) if plain is None or encoding is None else plain.heads(encoding)
        mean, log_std, logits, kept = (None if p is None else p.detach().cpu().numpy() for p in (*parameters, encoding))
        return (mean, log_std, logits), kept

    def _latent(self, features: np.ndarray, memory: np.ndarray | None) -> tuple[np.ndarray, np.ndarray | None]:
        """Return what heads read, [rows, size], and the memories after this step where there are any."""
        actor: Any = self.actor
        if not self.memory_size:
            outputs = actor.compute(features)
            if outputs is None:
                with torch.no_grad():
                    outputs = [each.cpu().numpy() for each in actor.outputs(to_device(features, self.device))]
            return outputs[0], None
        if memory is None:
            memory = np.zeros((len(features), self.memory_size), np.float32)
        step = actor.compute_step(features, memory)
        if step is not None:
            return step[0][0], step[1]
        with torch.no_grad():
            (latent,), after = actor.unroll(to_device(features, self.device), to_device(memory, self.device))
        return latent.cpu().numpy(), after.cpu().numpy()

    def _step(self, features: np.ndarray, memory: np.ndarray | None) -> tuple[Parameters, np.ndarray]:
        """Return the parts of `ActionParameters` as arrays, and the memories after this step."""
        actor: Any = self.actor
        if memory is None:
            memory = np.zeros((len(features), self.memory_size), np.float32)
        step = actor.compute_step(features, memory) if isinstance(actor, Actor) else None
        if step is not None:
            return actor.heads.from_outputs(step[0]), step[1]
        with torch.no_grad():
            parameters, after = actor.step(to_device(features, self.device), to_device(memory, self.device))
        mean, log_std, logits = (None if p is None else p.detach().cpu().numpy() for p in parameters)
        return (mean, log_std, logits), after.detach().cpu().numpy()

    def exported(self, obs: Sequence[Tensor], allowed: Tensor | None, memory: Tensor | None = None) -> ExportedActions:
        """Return samples of the actor's distributions, and their most likely actions."""
        actor: Any = self.actor
        unjoined = self.inputs.unjoined(obs)
        features = unjoined if reads_unjoined(actor) else unjoined.joined()
        if memory is None:
            return self._exported(actor(features), allowed)
        parameters, after = exported_step(actor, features, memory)
        return self._exported(parameters, allowed)._replace(memory=after)

    def _exported(self, parameters: ActionParameters, allowed: Tensor | None) -> ExportedActions:
        return sampled(parameters, allowed, self.branches, squash=self.squashes, limit=self.action_limit)

    def evaluate(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return log-probabilities and entropies of a batch's actions, each [rows, dimensions].

        Dimensions are those of continuous actions, and then the branches; `whole_actions` adds them up.
        """
        if self.memory_size:
            parameters = self.actor(batch.features, batch.memory, batch.width, batch.lengths)
        else:
            parameters = self.actor(batch.features)
        return evaluate(parameters, batch.continuous, batch.discrete, batch.mask, self.branches)

    def drawn(self, mean: Tensor, log_std: Tensor, noise: Tensor) -> Tensor:
        """Return samples of continuous actions [rows, size], given standard normal noise [rows, size].

        Mean and logarithm of the deviation are as `ActionParameters` has them.
        """
        return mean + log_std.exp() * noise

    def modules(self) -> dict[str, nn.Module]:
        """Return the actor and the normalizer."""
        return {"actor": self.actor, "inputs": self.inputs}
