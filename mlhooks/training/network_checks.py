"""Checks of a plugin's networks, before they decide for the first time."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mlhooks.describing import described, with_article
from mlhooks.errors import MlhooksError, PluginError
from mlhooks.fast.structure import computes_as
from mlhooks.nn.heads import ActionParameters
from mlhooks.nn.networks import Actor, QNetwork
from mlhooks.training.device import to_device
from mlhooks.training.part_checks import called
from mlhooks.training.policy import ActorPolicy, Policy
from mlhooks.training.q_policy import QPolicy

logger = logging.getLogger("mlhooks")

Outputs = list[tuple[str, Tensor]]


def check_network(policy: Policy, obs: Sequence[np.ndarray], memory: np.ndarray | None = None) -> None:
    """Try a plugin's network on the first observations; mlhooks' own networks are not tried.

    A copy of the network is called, so that nothing of the run changes.

    Args:
        policy: which decides by the network.
        obs: a list of [agents, *shape], as `Policy.act` gets them.
        memory: [agents, memory_size], where agents carry one.

    Raises:
        PluginError: the network fails, returns something else than it must, or writes to its features.
    """
    if type(policy).features is not Policy.features:
        features, agents = policy.features(obs), len(obs[0])
        if not isinstance(features, Tensor) or len(features) != agents:
            given = f"of shape {tuple(features.shape)}" if isinstance(features, Tensor) else with_article(features)
            problem = f"must return a Tensor [rows, size]; for {agents} rows it is {given}"
            raise PluginError(f"{called(policy, 'features')} {problem}.")
    if isinstance(policy, ActorPolicy) and type(policy).act is ActorPolicy.act:
        network, is_own = policy.actor, computes_as(policy.actor, Actor)
    elif isinstance(policy, QPolicy) and type(policy).act is QPolicy.act:
        network, is_own = policy.network, computes_as(policy.network, QNetwork)
    else:
        return
    if is_own:
        return
    with torch.random.fork_rng([policy.device] if policy.device.type == "cuda" else []):
        _try(_Tried(policy, network), to_device(policy.inputs.features(obs), policy.device), memory)


class _Tried:
    """A copy of a policy's network, and what is known of it."""

    def __init__(self, policy: Policy, network: nn.Module) -> None:
        self.policy = policy
        self.method = "step" if policy.memory_size else "forward"
        if not hasattr(network, self.method):
            raise PluginError(
                f"{type(network).__name__} says by memory_size = {policy.memory_size} that it has a memory, and has no "
                "method `step(features, memory)` like that of mlhooks.plugin.Actor, by which agents act: write it, or "
                "leave out memory_size."
            )
        self.name = called(network, self.method)
        try:
            self.network: Any = copy.deepcopy(network)
        except Exception:  # A network need not be one that can be copied.
            self.network = network

    def __call__(self, features: Tensor, memory: Tensor | None) -> Outputs:
        try:
            result = self.network(features) if memory is None else self.network.step(features, memory)
        except MlhooksError:
            raise
        except Exception as error:
            shape = f"[{features.shape[0]}, {features.shape[1]}]"
            raise PluginError(f"{self.name} fails for features {shape}: {described(error)}.") from error
        return list(self._checked(result, features, memory))

    def _checked(self, result: Any, features: Tensor, memory: Tensor | None) -> Iterator[tuple[str, Tensor]]:
        if memory is not None:
            if not isinstance(result, tuple) or len(result) != 2 or isinstance(result, ActionParameters):
                self._refuse(f"it returned {with_article(result)}, and must return a pair with the memories after it")
            result, after = result
            yield self._tensor("memory", after, memory.shape)
        rows, spec = len(features), self.policy.behavior_spec.action_spec
        if isinstance(self.policy, QPolicy):
            yield self._tensor("result", result, (rows, sum(spec.discrete_branches)))
            return
        if not isinstance(result, ActionParameters):
            self._refuse(f"it returned {with_article(result)}, and must return ActionParameters")
        size = spec.continuous_size
        wanted = {"mean": (rows, size), "log_std": (rows, size), "logits": (rows, sum(spec.discrete_branches))}
        for name, shape in wanted.items():
            part = getattr(result, name)
            if shape[1]:
                yield self._tensor(name, part, shape)
            elif part is not None:
                self._refuse(f"its {name} is {with_article(part)}, and this behavior has no such actions: None")

    def _tensor(self, name: str, part: Any, shape: Sequence[int]) -> tuple[str, Tensor]:
        if not isinstance(part, Tensor) or not part.is_floating_point():
            kind = f"a Tensor of {part.dtype}" if isinstance(part, Tensor) else with_article(part)
            self._refuse(f"its {name} is {kind}, and must be a Tensor of floats")
        good = part.shape == tuple(shape)
        if name == "log_std" and not good:  # One for all rows will do.
            good = tuple(part.shape) in ((shape[1],), (1, shape[1]), (1,), ())
        if not good:
            self._refuse(f"its {name} has the shape {tuple(part.shape)}, and must have {tuple(shape)}")
        if part.isnan().any():
            self._refuse(f"its {name} holds NaN")
        return name, part.detach()

    def _refuse(self, problem: str) -> None:
        raise PluginError(f"{self.name} does not return what a policy needs: {problem}.")


def _try(tried: _Tried, features: Tensor, memory: np.ndarray | None) -> None:
    given = features.clone()
    kept = None if memory is None else to_device(memory, features.device).clone()
    version = given._version
    with torch.no_grad():
        first = tried(given, kept)
        if given._version != version or not torch.equal(given, features):
            raise PluginError(
                f"{tried.name} writes to its features, which others read as well: change a copy, as by `x = x * 2` in "
                "place of `x *= 2`."
            )
        again = tried(given, kept)
        # Rows are observations that there are: a network need not take others.
        more = tried(torch.cat([given, given[:1].expand_as(given)]), None if kept is None else torch.cat([kept, kept]))
    with torch.enable_grad():
        learning = tried(given, kept)
    if not _equal(first, again):
        if isinstance(tried.policy, QPolicy):
            return  # Noise in a network is a way to explore.
        problem = (
            "when it is called again with the same features, as dropout, noise and what is kept between calls make it",
            "Leave that out; what a network remembers belongs into a memory (memory_size)",
        )
    elif not _equal(first, more):
        problem = (
            "when its batch has more rows, as batch normalization in training mode does",
            "Use nn.LayerNorm, or call .eval() on the layer",
        )
    elif not _equal(first, learning):
        problem = "with gradients than without", "Compute the same in both cases"
    else:
        return
    logger.warning(
        "Behavior %r: %s gives other outputs %s. An update then learns from other ones than those by which agents "
        "acted. %s.",
        tried.policy.behavior_name,
        tried.name,
        *problem,
    )


def _equal(first: Outputs, second: Outputs) -> bool:
    """Return whether outputs are nearly equal, where those of a larger batch are cut to the rows of the first one."""
    for (_, one), (_, other) in zip(first, second, strict=True):
        # A deviation that is one for all rows has the same shape in both, whatever the number of rows is.
        rows = other if other.shape == one.shape else other[: len(one)]
        if not torch.allclose(one.float(), rows.float(), 1e-3, 1e-4):
            return False
    return True
