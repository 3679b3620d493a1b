"""Action heads: from an encoding to distributions over hybrid actions, their log-probabilities and entropies."""

from __future__ import annotations

import math
from itertools import accumulate, pairwise
from typing import NamedTuple

import numpy as np
import torch
from mlagents_envs.base_env import ActionSpec
from torch import Tensor, nn

from mlhooks.fast.fused import fused
from mlhooks.fast.networks import parameter_like
from mlhooks.fast.operations import LOG_2PI
from mlhooks.fast.switch import kernel
from mlhooks.nn.layers import linear

MASKED_LOGIT = -1e9
LEAST_ARRIVAL = np.full((), 1e-30, np.float32)
"""The time that stands for an arrival at 0, by which nothing can be divided."""
LOG_STD_BOUNDS = (-20.0, 2.0)
"""Between these logarithms are standard deviations that depend on what is observed, as in ML-Agents."""


class ActionParameters(NamedTuple):
    """Parameters of the distributions over one batch of actions; a part that a behavior lacks is None.

    Attributes:
        mean: [rows, continuous]
        log_std: [continuous], one for all rows, or [rows, continuous] where heads are `conditional`
        logits: [rows, sum of branch sizes], unmasked
    """

    mean: Tensor | None
    log_std: Tensor | None
    logits: Tensor | None


def branch_slices(action_spec: ActionSpec) -> list[slice]:
    """Return the columns of each discrete branch in flat logits and masks."""
    ends = list(accumulate(action_spec.discrete_branches, initial=0))
    return [slice(a, b) for a, b in pairwise(ends)]


class ActionHeads(nn.Module):
    """A diagonal Gaussian over continuous actions and one categorical per discrete branch.

    All parts are independent given the encoding, so log-probabilities and entropies of whole actions are sums over
    them.

    Args:
        inputs: the size of the encoding.
        action_spec: the behavior's actions.
        initialization: as in `linear`.
        conditional: whether standard deviations have a head of their own. Otherwise they do not depend on what is
            observed.
        log_std_init: logarithm of the standard deviations at the start; of a head of their own, its bias.
    """

    mean: nn.Linear | None
    logits: nn.Linear | None
    log_std: nn.Parameter | nn.Linear

    def __init__(
        self,
        inputs: int,
        action_spec: ActionSpec,
        initialization: str,
        *,
        conditional: bool = False,
        log_std_init: float = 0.0,
    ) -> None:
        super().__init__()
        self.conditional = conditional and action_spec.continuous_size > 0
        branches = branch_slices(action_spec)
        orthogonal = initialization == "orthogonal"
        self.mean = self.logits = None
        if action_spec.continuous_size:
            gain = 0.01 if orthogonal else 0.2
            self.mean = linear(inputs, action_spec.continuous_size, initialization=initialization, gain=gain)
            if conditional:
                self.log_std = linear(inputs, action_spec.continuous_size, initialization=initialization, gain=gain)
                if log_std_init:
                    nn.init.constant_(self.log_std.bias, log_std_init)
            else:
                self.log_std = nn.Parameter(torch.full((action_spec.continuous_size,), log_std_init))
        if branches:
            gain = 0.01 if orthogonal else 0.1
            self.logits = linear(inputs, branches[-1].stop, initialization=initialization, gain=gain)

    def linear(self) -> list[nn.Linear]:
        """Return the linear layers: of the means, of standard deviations that depend on the encoding, of the logits."""
        layers = (self.mean, self.log_std if self.conditional else None, self.logits)
        return [layer for layer in layers if isinstance(layer, nn.Linear)]

    def from_outputs(self, outputs: list[np.ndarray]) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
        """Return the parts of `ActionParameters` as arrays, from the outputs of `linear()` on the CPU."""
        if self.mean is None:
            return None, None, outputs[0]
        logits = outputs[-1] if self.logits is not None else None
        if isinstance(self.log_std, nn.Linear):
            return outputs[0], np.minimum(np.maximum(outputs[1], LOG_STD_BOUNDS[0]), LOG_STD_BOUNDS[1]), logits
        return outputs[0], self.log_std.detach().numpy(), logits

    def forward(self, encoding: Tensor) -> ActionParameters:
        """Return distribution parameters for [rows, inputs]."""
        return self.parameters_of([layer(encoding) for layer in self.linear()])

    def parameters_of(self, outputs: list[Tensor]) -> ActionParameters:
        """Return distribution parameters from the outputs of `linear()`."""
        if self.mean is None:
            return ActionParameters(None, None, outputs[0])
        logits = outputs[-1] if self.logits is not None else None
        if isinstance(self.log_std, nn.Linear):
            return ActionParameters(outputs[0], outputs[1].clamp(*LOG_STD_BOUNDS), logits)
        return ActionParameters(outputs[0], parameter_like(outputs[0], self.log_std), logits)


def evaluate(
    parameters: ActionParameters, continuous: Tensor, discrete: Tensor, mask: Tensor | None, branches: list[slice]
) -> tuple[Tensor, Tensor]:
    """Return log-probabilities and entropies of actions, each [rows, dimensions].

    Dimensions are those of continuous actions, and then the branches.

    Args:
        parameters: the distributions.
        continuous: [rows, continuous] samples, before clipping and scaling.
        discrete: [rows, branches] int64.
        mask: [rows, sum of branch sizes], True where forbidden, or None.
        branches: columns of each branch, as `branch_slices` gives them.
    """
    parts: list[tuple[Tensor, Tensor]] = []
    if parameters.mean is not None and parameters.log_std is not None:
        parts.append(gaussian(parameters.mean, parameters.log_std, continuous))
    if parameters.logits is not None:
        logits = parameters.logits if mask is None else parameters.logits.masked_fill(mask, MASKED_LOGIT)
        for index, columns in enumerate(branches):
            if len(branches) == 1:
                parts.append(categorical(logits, discrete))
            else:
                parts.append(categorical(logits[:, columns], discrete[:, index : index + 1]))
    if len(parts) == 1:
        return parts[0]
    log_probs, entropies = zip(*parts, strict=True)
    return torch.cat(log_probs, 1), torch.cat(entropies, 1)


@fused
def gaussian(mean: Tensor, log_std: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-probabilities and entropies, each [rows, size], of a diagonal Gaussian for actions [rows, size]."""
    z = (actions - mean) * torch.exp(-log_std)
    log_prob = z.square().mul(-0.5) - (log_std + 0.5 * LOG_2PI)
    entropy = log_std + 0.5 * (1.0 + LOG_2PI)
    return log_prob, entropy.expand(mean.shape)


@fused
def categorical(logits: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
    """Return log-probabilities and entropies, each [rows, 1], for logits [rows, size] and actions [rows, 1]."""
    log_probs = torch.log_softmax(logits, dim=1)
    return log_probs.gather(1, actions), -(log_probs.exp() * log_probs).sum(1, keepdim=True)


@fused
def squashed(mean: Tensor, log_std: Tensor, noise: Tensor) -> tuple[Tensor, Tensor]:
    """Return samples of a squashed Gaussian and their log-probabilities, each [rows, size], with gradients.

    Samples are a = tanh(mean + deviation * noise), with the logarithm of 1 - a^2 in a form that stays exact where a is
    nearly 1 (Haarnoja et al. 2018, https://arxiv.org/abs/1801.01290, appendix C).

    Args:
        mean: [rows, size], of the Gaussian.
        log_std: [rows, size], logarithms of its deviations.
        noise: [rows, size], from a standard normal distribution.
    """
    x = mean + torch.exp(log_std) * noise
    log_slope = 2.0 * (math.log(2.0) - x - nn.functional.softplus(-2.0 * x))
    return torch.tanh(x), noise.square().mul(-0.5) - (log_std + 0.5 * LOG_2PI) - log_slope


def squashed_by(mean: Tensor, log_std: Tensor, difference: Tensor) -> tuple[Tensor, Tensor]:
    """Return what `squashed` does, for samples that differ from the mean by given amounts.

    Args:
        mean: [rows, size], as in `squashed`.
        log_std: [rows, size], likewise.
        difference: [rows, size], sample minus mean; gradients pass through it.
    """
    x = mean + difference
    log_slope = 2.0 * (math.log(2.0) - x - nn.functional.softplus(-2.0 * x))
    return torch.tanh(x), gaussian(mean, log_std, x)[0] - log_slope


@fused
def probabilities(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return probabilities [rows, size] and entropies [rows, 1] for logits [rows, size]."""
    log_probs = torch.log_softmax(logits, dim=1)
    probs = log_probs.exp()
    return probs, -(probs * log_probs).sum(1, keepdim=True)


def whole_actions(dimensions: Tensor) -> Tensor:
    """Return log-probabilities or entropies of whole actions, [rows, 1], from those of their dimensions.

    Args:
        dimensions: [rows, dimensions], as `evaluate` returns them and batches hold them.
    """
    return dimensions if dimensions.shape[1] == 1 else dimensions.sum(1, keepdim=True)


def counted_entropies(entropies: Tensor, action_spec: ActionSpec) -> Tensor:
    """Return entropies whose mean is what ML-Agents counts: the mean over continuous actions, plus all branches'.

    Args:
        entropies: [rows, dimensions], as `evaluate` returns them.
        action_spec: the behavior's actions.

    Returns:
        [rows, continuous] where there are no branches, else [rows, 1].
    """
    continuous = action_spec.continuous_size
    if not action_spec.discrete_size:
        return entropies
    if continuous < 2:
        return whole_actions(entropies)
    return entropies[:, :continuous].mean(1, keepdim=True) + entropies[:, continuous:].sum(1, keepdim=True)


@kernel("actions")
def choose(logits: np.ndarray, arrivals: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Choose a category in each row, [rows], and give the logarithm of its probability, [rows, 1].

    Args:
        logits: [rows, categories].
        arrivals: [categories, rows], exponentially distributed times, each of which the category's weight shortens: the
            first to arrive is chosen. None chooses the likeliest.
    """
    scores = logits.T.copy()  # numpy is faster in a few long loops than in many short ones.
    weights = np.exp(scores - np.maximum.reduce(scores))
    rates = weights if arrivals is None else weights / np.maximum(arrivals, LEAST_ARRIVAL)
    choice = rates.argmax(0)
    return choice, np.log(weights[choice, np.arange(len(logits))] / np.add.reduce(weights))[:, None]


class SampledActions(NamedTuple):
    """Actions of one batch: `continuous` [rows, size], `discrete` [rows, branches], `log_prob` [rows, dimensions].

    Dimensions are those of continuous actions, and then the branches. `encoding` [rows, hidden_units] is what the heads
    read, where a policy is told to keep it; `memory` [rows, size] is what each agent carries on, where it has one.
    """

    continuous: np.ndarray
    discrete: np.ndarray
    log_prob: np.ndarray
    encoding: np.ndarray | None = None
    memory: np.ndarray | None = None


def sample(
    mean: np.ndarray | None,
    log_std: np.ndarray | None,
    logits: np.ndarray | None,
    *,
    branches: list[slice],
    mask: np.ndarray | None,
    rng: np.random.Generator,
    deterministic: bool,
    squash: bool = False,
    noise: np.ndarray | None = None,
) -> SampledActions:
    """Draw actions from distribution parameters laid out as in `ActionParameters`, as numpy arrays.

    `noise` [rows, size] is how far a drawn action lies from the mean, in deviations; by default it is drawn here.
    A category is the winner of a race of exponential arrivals at the rates of its branch's weights, which unlike an
    inverse distribution function can never round its way into a forbidden one: that has no weight, and never arrives.
    `mask` is [rows, sum of branch sizes], True where forbidden. With `squash` continuous actions are those of
    `squashed`; nobody reads their log-probabilities, which are 0.
    """
    source = mean if mean is not None else logits
    assert source is not None
    rows = len(source)
    log_probs: list[np.ndarray] = []
    continuous = np.empty((rows, 0), np.float32)
    discrete = np.empty((rows, len(branches)), np.int64)
    if mean is not None and log_std is not None and squash:
        drawn = mean
        if not deterministic:
            drawn = mean + np.exp(log_std) * (rng.standard_normal(mean.shape, np.float32) if noise is None else noise)
        continuous = np.tanh(drawn)
        log_probs.append(np.zeros_like(mean))
    elif mean is not None and log_std is not None:
        constant = log_std + np.float32(0.5 * LOG_2PI)
        if deterministic:
            continuous = mean
            log_probs.append(np.broadcast_to(-constant, mean.shape).copy())
        else:
            if noise is None:
                noise = rng.standard_normal(mean.shape, np.float32)
            continuous = mean + np.exp(log_std) * noise
            log_probs.append(noise * noise * np.float32(-0.5) - constant)
    if logits is not None:
        if mask is not None:
            logits = np.where(mask, np.float32(MASKED_LOGIT), logits)
        for branch, columns in enumerate(branches):
            size = columns.stop - columns.start
            arrivals = None if deterministic else rng.standard_exponential((size, rows), np.float32)
            discrete[:, branch], chosen = choose(logits[:, columns], arrivals)
            log_probs.append(chosen)
    return SampledActions(continuous, discrete, log_probs[0] if len(log_probs) == 1 else np.concatenate(log_probs, 1))
