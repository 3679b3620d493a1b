"""Encoders: from features to the encoding that action and value heads read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

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
        body = MLP(goals, outputs, 2, settings.activation, settings.initialization)
        flat = nn.Linear(outputs, inputs * outputs)
        bound = math.sqrt(1.0 / (outputs * inputs))
        with torch.no_grad():
            flat.weight.uniform_(-bound, bound)
            flat.bias.zero_()
        self.weights = nn.Sequential(body, nn.LayerNorm(outputs, elementwise_affine=False), flat)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, features: Tensor, goal: Tensor) -> Tensor:
        """Apply the goal's own weights to each row."""
        # goals are few: each one's weights are made once, applied to all rows, and each row picks its own result
        goals, own = torch.unique(goal, dim=0, return_inverse=True)
        weights = self.weights(goals).view(-1, *self.shape)  # [goals, inputs, outputs]
        if len(goals) > FEW:
            return torch.bmm(features.unsqueeze(1), weights[own]).squeeze(1) + self.bias
        results = torch.einsum("ri,gio->rgo", features, weights)
        return results[torch.arange(len(features), device=own.device), own] + self.bias


class GoalEncoder(nn.Module):
    """`num_layers` layers of which the last is conditioned on the goal signals (`goal_conditioning_type: hyper`)."""

    plain: Tensor
    goal: Tensor

    def __init__(self, layout: FeatureLayout, settings: NetworkSettings) -> None:
        super().__init__()
        self.register_buffer("plain", torch.from_numpy(layout.plain), persistent=False)
        self.register_buffer("goal", torch.from_numpy(layout.goal), persistent=False)
        self.output_size = settings.hidden_units
        self.body = MLP(
            len(layout.plain),
            settings.hidden_units,
            settings.num_layers - 1,
            settings.activation,
            settings.initialization,
        )
        self.conditional = HyperLinear(self.body.output_size, self.output_size, len(layout.goal), settings)
        self._activate = self.body._activate

    def forward(self, features: Tensor) -> Tensor:
        """Encode [rows, size] to [rows, hidden_units]."""
        encoding = self.body(features.index_select(1, self.plain))
        return self._activate(self.conditional(encoding, features.index_select(1, self.goal)))


def make_encoder(layout: FeatureLayout, settings: NetworkSettings) -> MLP | GoalEncoder:
    """The encoder for a layout: plain layers, or goal-conditioned ones where goal signals and settings ask for it."""
    if len(layout.goal) and len(layout.plain) and settings.goal_conditioning_type.value == "hyper":
        return GoalEncoder(layout, settings)
    return MLP(layout.size, settings.hidden_units, settings.num_layers, settings.activation, settings.initialization)
