"""Encoders: from features to the encoding that action and value heads read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from mlhooks.errors import UnsupportedError
from mlhooks.nn.attention import ObservationEncoder
from mlhooks.nn.features import FeatureLayout
from mlhooks.nn.layers import MLP

if TYPE_CHECKING:
    from mlhooks.settings import NetworkSettings


FEW = 8


class HyperLinear(nn.Module):
    """A linear layer whose weights a second network computes from the goal (Ha, Dai and Le 2016).

    [rows, inputs] and goal [rows, goals] -> [rows, outputs]
    """

    def __init__(self, inputs: int, outputs: int, goals: int, settings: NetworkSettings) -> None:
        super().__init__()
        self.shape = (inputs, outputs)
        body = MLP(goals, [outputs, outputs], settings.activation, settings.initialization)
        flat = nn.Linear(outputs, inputs * outputs)
        bound = math.sqrt(1.0 / (outputs * inputs))
        with torch.no_grad():
            flat.weight.uniform_(-bound, bound)
            flat.bias.zero_()
        self.weights = nn.Sequential(body, nn.LayerNorm(outputs, elementwise_affine=False), flat)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, features: Tensor, goal: Tensor) -> Tensor:
        """Apply the goal's own weights to each row."""
        # The encoding of an image differs in each row and learns from it; Unity has no operator that finds equal rows.
        if goal.requires_grad or torch._C._get_tracing_state() is not None:
            weights = self.weights(goal).view(-1, *self.shape)
            return torch.bmm(features.unsqueeze(1), weights).squeeze(1) + self.bias
        # Goals are few: each one's weights are made once, applied to all rows, and each row picks its own result.
        goals, own = torch.unique(goal, dim=0, return_inverse=True)
        weights = self.weights(goals).view(-1, *self.shape)  # [goals, inputs, outputs]
        if len(goals) > FEW:
            return torch.bmm(features.unsqueeze(1), weights[own]).squeeze(1) + self.bias
        results = torch.einsum("ri,gio->rgo", features, weights)
        return results[torch.arange(len(features), device=own.device), own] + self.bias


class GoalEncoder(nn.Module):
    """Hidden layers of which the last is conditioned on the goal signals (`goal_conditioning_type: hyper`).

    As in ML-Agents, goal signals are also among what the layers read.

    Args:
        size: number of features.
        goal: those that are goal signals, an index array.
        settings: size, activation and initialization of the layers.
        learned: whether goal signals are encodings, which get gradients, as those of images are.
    """

    goal: Tensor

    def __init__(self, size: int, goal: np.ndarray, settings: NetworkSettings, *, learned: bool = False) -> None:
        super().__init__()
        self.learned = learned
        self.register_buffer("goal", torch.from_numpy(goal), persistent=False)
        *below, self.output_size = settings.layers
        self.body = MLP(size, below, settings.activation, settings.initialization)
        self.conditional = HyperLinear(self.body.output_size, self.output_size, len(goal), settings)
        self._activate = self.body._activate

    def forward(self, features: Tensor) -> Tensor:
        """Encode [rows, size] to [rows, output_size]."""
        goal = features.index_select(1, self.goal)
        if not self.learned:
            goal = goal.detach()  # Encodings of images beside it may need gradients; the goal does not.
        return self._activate(self.conditional(self.body(features), goal))


class MixedEncoder(ObservationEncoder):
    """Images and entities pass encoders of their own; the layers read vectors and encodings side by side.

    The encoding of an image that is a goal signal is what conditions the layers, as in ML-Agents.

    Args:
        layout: layout of the features.
        settings: size, activation and initialization.
        extra: how many numbers the layers read beside the encodings.

    Raises:
        UnsupportedError: an image is too small.
    """

    def __init__(self, layout: FeatureLayout, settings: NetworkSettings, extra: int = 0) -> None:
        super().__init__(layout, settings)
        self.body = _make_body(self.encoding_size + extra, self.goal, settings, learned=self.goal_learns)
        self.output_size = self.body.output_size

    def before_body(self, features: Tensor) -> Tensor:
        """Return what the body reads of [rows, size], floats or the bytes of images alone."""
        return super().forward(features)

    def forward(self, features: Tensor) -> Tensor:
        """Encode [rows, size], floats or the bytes of images alone, to [rows, output_size]."""
        return self.body(self.before_body(features))  # type: ignore[no-any-return]


Encoder = MLP | GoalEncoder | MixedEncoder


def make_encoder(layout: FeatureLayout, settings: NetworkSettings, extra: int = 0) -> Encoder:
    """Return the encoder for a layout: layers, with encoders of images and entities before them where there are any.

    Args:
        layout: layout of the features.
        settings: size, activation and initialization.
        extra: how many numbers, such as continuous actions, the layers read behind the features, or behind what
            `before_body` makes of them where the encoder has that method.

    Raises:
        UnsupportedError: an image is too small, or a goal signal that is to make weights has a variable length.
    """
    for kind in layout.entities:
        if kind.is_goal and settings.goal_conditioning_type.value == "hyper":
            raise UnsupportedError(
                f"{kind.title} is a goal signal of variable length, which cannot make weights, as "
                "goal_conditioning_type: hyper asks for. Set goal_conditioning_type: none under network_settings, to "
                "read it like other observations, or let the sensor be no goal signal."
            )
    if layout.images or layout.entities:
        return MixedEncoder(layout, settings, extra)
    return _make_body(layout.size + extra, layout.goal, settings)


def _make_body(size: int, goal: np.ndarray, settings: NetworkSettings, *, learned: bool = False) -> MLP | GoalEncoder:
    """Return plain layers, or goal-conditioned ones where goal signals and settings ask for them."""
    if len(goal) and settings.goal_conditioning_type.value == "hyper":
        if not settings.layers:
            raise UnsupportedError(
                "hidden_layers: [] leaves no layer whose weights a goal signal could make, as goal_conditioning_type: "
                "hyper asks for. Give it one, or set goal_conditioning_type: none under network_settings."
            )
        return GoalEncoder(size, goal, settings, learned=learned)
    return MLP(size, settings.layers, settings.activation, settings.initialization)
