"""Episodes in an environment's own terms, where wrappers around it change rewards or end episodes for the learner.

Clipped rewards and ends at the loss of a life serve learning; how good a policy is, the environment's own score says.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from mlagents_envs.base_env import TerminalSteps


class OwnTerms(TerminalSteps):  # type: ignore[misc]  # mlagents_envs ships no types.
    """Terminal steps that also tell of the environment's own episodes.

    Args:
        steps: what `TerminalSteps` is made of.
        own_returns: [agents] float64, the environment's own return of the episode; NaN where that goes on.
        own_lengths: [agents] int64, its length in decisions.
    """

    def __init__(self, *steps: Any, own_returns: np.ndarray, own_lengths: np.ndarray) -> None:
        super().__init__(*steps)
        self.own_returns, self.own_lengths = own_returns, own_lengths


def counted(
    terminals: TerminalSteps, known: np.ndarray, slots: np.ndarray, returns: np.ndarray, lengths: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the episodes that count, in the environment's own terms where it tells them: slots, returns, lengths.

    Args:
        terminals: of agents whose episodes ended for the learner.
        known: [terminals] bool, those of them that the other arguments are about.
        slots: [known], of these agents.
        returns: [known], of their episodes as the learner saw them.
        lengths: [known], likewise.
    """
    if not isinstance(terminals, OwnTerms):
        return slots, returns, lengths
    own = terminals.own_returns[known]
    over = ~np.isnan(own)
    return slots[over], own[over], terminals.own_lengths[known][over]
