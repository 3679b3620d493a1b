"""Plugins that are wrong on purpose: small changes of right ones, and the conformance tests that must catch each."""

from tests.testing.mutants import (  # noqa: F401 - Each adds its mutants.
    acting,
    answering,
    array_arithmetic,
    dqn,
    every_plugin,
    exporters,
    groups,
    gymnasium,
    memory,
    networks,
    pettingzoo,
    policy_gradients,
    ppo,
    replay,
    reward_signals,
    rollouts,
    sac,
    self_play,
    simulations,
    sqlite,
    stats_writers,
    trainers,
)
from tests.testing.mutants.mutant import MUTANTS, Mutant

__all__ = ["MUTANTS", "Mutant"]
