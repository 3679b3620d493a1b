"""The keys of statistics that both the run and writers know by name."""

from __future__ import annotations

REWARD_KEY, LENGTH_KEY = "Environment/Cumulative Reward", "Environment/Episode Length"
"""The returns and lengths of training episodes."""
GROUP_REWARD_KEY = "Environment/Group Cumulative Reward"
"""What groups got in training episodes, for each member that was there when its group's episode ended."""
EVALUATED_REWARD_KEY, EVALUATED_LENGTH_KEY = "Evaluation/Cumulative Reward", "Evaluation/Episode Length"
"""Those of evaluations."""
ELO_KEY = "Self-play/ELO"
"""The rating of a behavior that plays against itself, after each of its games."""
RUN_KEYS = frozenset(
    {REWARD_KEY, LENGTH_KEY, GROUP_REWARD_KEY, EVALUATED_REWARD_KEY, EVALUATED_LENGTH_KEY, ELO_KEY, "Is Training"}
)
"""The keys under which the run itself reports, so that nothing that learns may use them."""
