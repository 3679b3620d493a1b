"""Actions in torch's operations alone, as exported models compute them where there is no Python.

The operations are those of ML-Agents' own models, which Unity's inference has known from its first version on: masks
are arithmetic, and random numbers are never broadcast.
"""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from mlhooks.nn.heads import ActionParameters

LARGE = 1e8
"""What is subtracted from the logits of forbidden actions."""


class ExportedActions(NamedTuple):
    """The decisions of a policy as environments get them; None where a behavior has no such actions.

    Attributes:
        continuous: [rows, continuous] in [-1, 1], drawn at random; `likely_continuous` are the most likely ones.
        discrete: [rows, branches] int64, drawn at random; `likely_discrete` are the most likely ones.
        memory: [rows, 1, memory_size], what agents carry from there on.
    """

    continuous: Tensor | None = None
    likely_continuous: Tensor | None = None
    discrete: Tensor | None = None
    likely_discrete: Tensor | None = None
    memory: Tensor | None = None


def sampled(
    parameters: ActionParameters, allowed: Tensor | None, branches: list[slice], *, squash: bool, limit: float
) -> ExportedActions:
    """Return random and most likely actions of distributions, as `ActorPolicy` and `Policy.action_tuple` make them.

    Args:
        parameters: the distributions.
        allowed: [rows, sum of branch sizes], 1 where an action is allowed and else 0; None without discrete actions.
        branches: columns of each branch, as `branch_slices` gives them.
        squash: whether continuous actions are squashed by tanh, in place of being clipped and scaled.
        limit: what they are clipped to and divided by.
    """
    finished = torch.tanh if squash else partial(_scaled, limit=limit)
    actions = ExportedActions()
    mean, log_std, logits = parameters
    if mean is not None and log_std is not None:
        # The deviation is computed for each row, because ML-Agents found broadcasting to fail in Unity.
        deviation = torch.exp(mean * 0.0 + log_std)
        drawn = mean + torch.randn_like(mean) * deviation
        actions = actions._replace(continuous=finished(drawn), likely_continuous=finished(mean))
    if logits is None or allowed is None:
        return actions
    scores = masked(logits, allowed, branches)
    drawn = torch.cat([torch.multinomial(torch.softmax(part, 1), 1) for part in scores], 1)
    return actions._replace(discrete=drawn, likely_discrete=highest(scores))


def masked(scores: Tensor, allowed: Tensor, branches: list[slice]) -> list[Tensor]:
    """Return the scores [rows, size] of each branch, with those of forbidden actions far below all others.

    Args:
        scores: [rows, sum of branch sizes].
        allowed: the same, 1 where an action is allowed and else 0.
        branches: columns of each branch.
    """
    parts = [(scores, allowed)] if len(branches) == 1 else [(scores[:, each], allowed[:, each]) for each in branches]
    return [part * free - LARGE * (-1.0 * free + 1.0) for part, free in parts]


def highest(scores: list[Tensor]) -> Tensor:
    """Return the actions [rows, branches] of the highest score in each branch."""
    return torch.cat([torch.argmax(part, 1, keepdim=True) for part in scores], 1)


def _scaled(actions: Tensor, limit: float) -> Tensor:
    """Clip and scale continuous actions, as environments get them."""
    return torch.clamp(actions, -limit, limit) / limit
