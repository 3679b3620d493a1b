"""The keys of statistics that both the run and writers know by name."""

from __future__ import annotations

REWARD_KEY, LENGTH_KEY = "Environment/Cumulative Reward", "Environment/Episode Length"
"""The returns and lengths of training episodes."""
EVALUATED_REWARD_KEY, EVALUATED_LENGTH_KEY = "Evaluation/Cumulative Reward", "Evaluation/Episode Length"
"""Those of evaluations."""
ELO_KEY = "Self-play/ELO"
"""The rating of a behavior that plays against itself, after each of its games."""
