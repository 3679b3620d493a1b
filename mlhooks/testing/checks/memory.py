"""Checks of trainers that claim `memory`, with networks that have one."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mlhooks.testing.assertions import demand
from mlhooks.testing.checks.learning import learns
from mlhooks.testing.scripted import BEHAVIOR
from mlhooks.testing.specs import make_behavior_spec
from mlhooks.testing.tasks import Recall, any_kind
from mlhooks.testing.trainer_loop import Play
from mlhooks.testing.trainer_trial import Trial
from mlhooks.training.on_policy import OnPolicyTrainer
from mlhooks.training.optimizer import ActorCriticOptimizer
from mlhooks.training.policy import ActorPolicy
from mlhooks.training.trainer import Trainer

NETWORK = {"memory": {"memory_size": 32, "sequence_length": 4}}
TOLERANCE = 1e-4


@pytest.fixture(autouse=True)
def _remembers(trial: Trial) -> None:
    if not trial.remembers(make_behavior_spec((5,), **trial.any_actions), network_settings=NETWORK):
        pytest.skip("it does not support memory")


@pytest.mark.parametrize("seed", [1, 2])
def test_learns_what_was_seen_before(trial: Trial, seed: int) -> None:
    """It learns a choice that an observation three decisions earlier tells, as only a memory can."""
    hint = "Does learning unroll sequences, each from the memory that acting had at its first row?"
    learns(trial, Recall, seed, hint, network_settings=NETWORK)


def test_memory_is_that_of_the_episode(trial: Trial) -> None:
    """An agent decides with what it remembers from its decision before, and with zeros where its episode begins."""
    play = _play(trial)
    policy: Any = play.trainer.policy
    act = policy.act
    kept: dict[int, np.ndarray] = {}
    wrong: list[str] = []

    def watched(obs: Any, mask: Any, rng: Any, memory: np.ndarray) -> Any:
        decisions, terminals = play.env.get_steps(BEHAVIOR)
        for agent in terminals.agent_id.tolist():
            kept.pop(agent, None)
        for agent, given in zip(decisions.agent_id.tolist(), memory, strict=True):
            wanted = kept.get(agent)
            if not np.allclose(given, 0.0 if wanted is None else wanted, atol=1e-6):
                wrong.append("that of another agent or episode" if given.any() else "none")
        actions: Any = act(obs, mask, rng, memory)
        kept.update(zip(decisions.agent_id.tolist(), np.array(actions.memory), strict=True))
        return actions

    policy.act = watched
    play.until(1500)
    demand(len(kept) > 0, "policy.act was never called with a memory, although network_settings.memory asks for one.")
    demand(
        not wrong,
        f"{len(wrong)} times an agent decided with a wrong memory, the first time with {' '.join(wrong[:1])}. What it "
        "remembers is its own, is kept over time_horizon, and is zeros where an episode begins: leave it to the store.",
    )


def test_learning_unrolls_what_acting_did(trial: Trial) -> None:
    """With unchanged weights, the log-probabilities and values of a rollout in sequences are those of acting."""
    play = _play(trial)
    trainer: Trainer = play.trainer
    policy, optimizer = trainer.policy, trainer.optimizer
    if not isinstance(trainer, OnPolicyTrainer) or not isinstance(policy, ActorPolicy):
        pytest.skip("it has no rollouts of an ActorPolicy")
    if not isinstance(optimizer, ActorCriticOptimizer):
        pytest.skip("it has no critic of an ActorCriticOptimizer")
    for _ in range(3):  # In later ones, sequences begin in the middle of episodes.
        play.until_ready()
        batch = trainer.learning.rollout(trainer.store).laid_out()
        present = torch.ones(len(batch), dtype=torch.bool) if batch.present is None else batch.present
        with torch.no_grad():
            log_probs, values = policy.evaluate(batch)[0], optimizer.values(batch)
        off = {
            "log-probabilities": float((log_probs - batch.log_probs)[present].abs().max()),
            "values": float((values - batch.values)[present].abs().max()),
        }
        for what, most in off.items():
            demand(
                most < TOLERANCE,
                f"The {what} of a rollout differ by up to {most:.3g} between acting or estimating and learning, before "
                "any weight changed. Does every sequence begin with the memory that is stored in its first row, and "
                "does it have consecutive rows of one trajectory?",
            )
        trainer.store.keep_open()


def _play(trial: Trial) -> Play:
    """Return a trainer with a memory among agents that come, go, and decide at ticks of their own."""
    spec = make_behavior_spec((5,), **trial.any_actions)
    return trial.play(any_kind(spec)(8, renewed=True, lazy=True), network_settings=NETWORK, time_horizon=7)
