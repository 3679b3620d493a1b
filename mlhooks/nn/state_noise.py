"""Action heads that explore by noise which is a function of the observation: generalized state-dependent exploration.

Raffin et al. 2021, https://arxiv.org/abs/2005.05719, as Stable-Baselines3 has it. An agent holds a matrix of Gaussian
noise for many decisions, so that it acts the same way where it sees the same: its noise is the matrix times the latent
features, which are what the heads read. Where the matrix is not known, that noise is Gaussian, with a variance that
depends on the latent features; log-probabilities and entropies are those of that distribution.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from mlagents_envs.base_env import ActionSpec
from torch import Tensor, nn

from mlhooks.fast.fused import fused
from mlhooks.fast.networks import parameter_like
from mlhooks.fast.operations import LEAST_VARIANCE
from mlhooks.fast.structure import may_do_more
from mlhooks.nn.heads import ActionHeads, ActionParameters

MOST_MEAN = 2.0
"""Means of actions that are squashed stay between this and its negative, as in Stable-Baselines3."""
LOG_STD_INIT, SQUASHED_LOG_STD_INIT = 0.0, -3.0
"""Logarithms of deviations at the start, as in Stable-Baselines3."""


class StateNoiseHeads(ActionHeads):
    """A Gaussian over continuous actions whose noise is linear in the encoding, and categoricals for branches.

    It reads the encoding itself (`linear` has no layers): the variance of an action is the sum over latent features of
    their squares, times the squared deviations, plus 1e-6.

    Args:
        inputs: the size of the encoding.
        action_spec: the behavior's actions, some of which are continuous.
        initialization: as in `linear`.
        log_std_init: logarithm of all deviations at the start; None for 0, and -3 where actions are squashed.
        full_std: whether each pair of latent feature and action has a deviation, instead of each latent feature.
        squashed: whether actions are squashed by tanh. Means are clipped then, and latent features learn from the
            variance, too, as Stable-Baselines3's SAC has it; its PPO and A2C have neither.

    Attributes:
        log_std: [inputs, continuous], or [inputs, 1] without `full_std`, logarithms of the deviations of noise.
        noise_shape: the shape of a matrix of noise, [inputs, continuous].
    """

    mean: nn.Linear
    log_std: nn.Parameter

    def __init__(
        self,
        inputs: int,
        action_spec: ActionSpec,
        initialization: str,
        *,
        log_std_init: float | None = None,
        full_std: bool = True,
        squashed: bool = False,
    ) -> None:
        super().__init__(inputs, action_spec, initialization)
        if log_std_init is None:
            log_std_init = SQUASHED_LOG_STD_INIT if squashed else LOG_STD_INIT
        size = action_spec.continuous_size
        self.squashed = squashed
        self._arrays: tuple[np.ndarray, ...] | None = None
        self.noise_shape = inputs, size
        self.log_std = nn.Parameter(torch.full((inputs, size if full_std else 1), log_std_init))

    def linear(self) -> list[nn.Linear]:
        """Return no layers, for which networks give the encoding."""
        return []

    def forward(self, encoding: Tensor) -> ActionParameters:
        """Return distribution parameters for [rows, inputs]."""
        return self.parameters_of([encoding])

    def parameters_of(self, outputs: list[Tensor]) -> ActionParameters:
        """Return distribution parameters from an encoding [rows, inputs], the one output of the network."""
        (encoding,) = outputs
        latent = encoding if self.squashed else encoding.detach()
        parameters: list[Any] = [self.mean.weight, self.mean.bias, self.log_std]
        weight, bias, log_std = (parameter_like(encoding, parameter) for parameter in parameters)
        mean, spread = explored(encoding, latent, weight, bias, log_std)
        if type(self.mean) is not nn.Linear or may_do_more(self.mean):
            mean = self.mean(encoding)
        if self.squashed:
            mean = mean.clamp(-MOST_MEAN, MOST_MEAN)
        return ActionParameters(mean, spread, None if self.logits is None else self.logits(encoding))

    def from_outputs(self, outputs: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
        """Return the parts of `ActionParameters` as arrays, from an encoding on the CPU."""
        (encoding,) = outputs
        if self._arrays is None:
            weight, bias = _arrays_of(self.mean)
            self._arrays = weight.T, bias, np.square(self.deviations())
        weight, bias, variances = self._arrays
        mean = np.dot(encoding, weight) + bias
        if self.squashed:
            mean = np.minimum(np.maximum(mean, -MOST_MEAN), MOST_MEAN)
        variance = np.dot(encoding * encoding, variances) + np.float32(LEAST_VARIANCE)
        return mean, 0.5 * np.log(variance), None if self.logits is None else _applied(self.logits, encoding)

    def weights_changed(self) -> None:
        """Drop what was derived from the weights."""
        self._arrays = None

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_arrays": None}  # The parameters of a copy lie elsewhere.

    def deviations(self) -> np.ndarray:
        """Return the deviations of noise, [inputs, continuous]."""
        deviations: np.ndarray = np.exp(self.log_std.detach().cpu().numpy())
        return np.broadcast_to(deviations, self.noise_shape)

    def draw(self, count: int, rng: np.random.Generator) -> np.ndarray:
        """Return matrices of noise [count, inputs, continuous]."""
        matrices: np.ndarray = rng.standard_normal((count, *self.noise_shape), np.float32) * self.deviations()
        return matrices

    def noise(self, encoding: Tensor, standard: Tensor) -> Tensor:
        """Return the noise of actions [rows, continuous], with gradients.

        Args:
            encoding: [rows, inputs].
            standard: [inputs, continuous], from a standard normal distribution: one matrix for all rows.
        """
        matrix = standard * self.log_std.exp()
        return torch.matmul(encoding if self.squashed else encoding.detach(), matrix)


@fused
def explored(encoding: Tensor, latent: Tensor, weight: Tensor, bias: Tensor, log_std: Tensor) -> tuple[Tensor, Tensor]:
    """Return means of actions and logarithms of their deviations, each [rows, size].

    Args:
        encoding: [rows, inputs], of which the means are a linear function.
        latent: the same, with a gradient or without: the factors of the noise.
        weight: [size, inputs], of the means.
        bias: [size], of the means.
        log_std: [inputs, size] or [inputs, 1], of the noise.
    """
    mean = nn.functional.linear(encoding, weight, bias)
    variance = torch.matmul(latent.square(), (2.0 * log_std).exp()) + LEAST_VARIANCE
    spread = 0.5 * variance.log()
    return mean, spread if log_std.shape[1] == len(weight) else torch.cat([spread] * len(weight), 1)


def _arrays_of(layer: nn.Linear) -> tuple[np.ndarray, np.ndarray]:
    return layer.weight.detach().cpu().numpy(), layer.bias.detach().cpu().numpy()


def _applied(layer: nn.Linear, encoding: np.ndarray) -> np.ndarray:
    """Return what a linear layer computes of an array [rows, inputs]."""
    weight, bias = _arrays_of(layer)
    applied: np.ndarray = encoding @ weight.T + bias
    return applied
