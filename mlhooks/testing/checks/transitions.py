"""Checks of the experience that a trainer learns from, compared with the steps that the environment sent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch

from mlhooks.testing.assertions import demand
from mlhooks.testing.extra_reward_signals import MoreSignals
from mlhooks.testing.specs import make_behavior_spec
from mlhooks.testing.tasks import any_kind
from mlhooks.testing.trainer_loop import Play
from mlhooks.testing.trainer_trial import Trial
from mlhooks.training.off_policy import OffPolicyTrainer
from mlhooks.training.on_policy import OnPolicyTrainer
from mlhooks.training.optimizer import ActorCriticOptimizer

GAMMA, STRENGTH = 0.9, 0.5
ENDLESS = 100_000


@dataclass
class Link:
    """The consequence of a decision: a reward, and another decision, an end, or nothing yet.

    Attributes:
        after: the name of the observation that followed, or None after an end.
        seen: the name of the observation that followed, be it a final one.
        final: whether that observation was the final one of an interrupted episode.
        cut: whether the decision was the last one of its time horizon.
    """

    reward: float
    after: bytes | None
    seen: bytes
    final: bool = False
    cut: bool = False


Signals = dict[bytes, np.ndarray]
"""Something of two reward signals, by the name of the observation at the decision."""
Links = dict[bytes, Link]
"""By the name of the observation at the decision."""


def names_of(rows: np.ndarray | torch.Tensor) -> list[bytes]:
    """Return a name for each of some random observations [rows, size]; a number comes twice in thousands.

    Their bytes, because equal ones are copies of one draw.
    """
    return [row.tobytes() for row in np.asarray(rows, np.float32)]


def links_of(steps: list[Any], horizon: int) -> Links:
    """Return what followed each decision, from the decision and terminal steps that were sent."""
    links: Links = {}
    open_at: dict[int, bytes] = {}
    lengths: dict[int, int] = {}
    for decisions, terminals in steps:
        for i, (agent, last) in enumerate(zip(terminals.agent_id.tolist(), names_of(terminals.obs[0]), strict=True)):
            if agent in open_at:
                final = bool(terminals.interrupted[i])
                links[open_at.pop(agent)] = Link(_reward(terminals, i), last if final else None, last, final)
                lengths[agent] = 0
        for i, (agent, now) in enumerate(zip(decisions.agent_id.tolist(), names_of(decisions.obs[0]), strict=True)):
            if agent in open_at:
                cut = lengths[agent] == horizon
                links[open_at[agent]] = Link(_reward(decisions, i), now, now, cut=cut)
                lengths[agent] *= not cut
            open_at[agent] = now
            lengths[agent] = lengths.get(agent, 0) + 1
    return links


def _reward(steps: Any, row: int) -> float:
    """Return what the reward signal makes of an agent's reward and its group's."""
    return STRENGTH * float(steps.reward[row] + steps.group_reward[row])


def observed(steps: list[Any]) -> np.ndarray:
    """Return every observation that was sent: [all, size]."""
    return np.concatenate([part.obs[0] for pair in steps for part in pair if len(part)])


def _played(trial: Trial, *, step: int = 0, horizon: int = ENDLESS, **arguments: Any) -> tuple[Play, Links]:
    """Return a trainer that is ready to update, after `step`, and what followed each decision by then."""
    env = any_kind(make_behavior_spec((4,), **trial.any_actions))(agents=8, renewed=True, lazy=True)
    plain = {"normalize": False}  # A row is known by its observation.
    trainer = trial.trainer(
        env.spec, gamma=GAMMA, strength=STRENGTH, time_horizon=horizon, network_settings=plain, **arguments
    )
    play = Play(trainer, env)
    play.steps = [env.get_steps(play.behavior)]
    play.until(step).until_ready()
    return play, links_of(play.steps, horizon)


def test_rollout_holds_every_transition_once(trial: Trial) -> None:
    """A rollout has one row for each complete transition, with the observation at its decision."""
    play, links = _played(trial)
    if not isinstance(play.trainer, OnPolicyTrainer):
        pytest.skip("it does not learn from rollouts")
    names = names_of(play.trainer.learning.rollout(play.trainer.store).features)
    demand(len(set(names)) == len(names), "rollout() holds rows twice.")
    wrong = set(names) ^ links.keys()
    demand(
        not wrong,
        f"{len(wrong)} of {len(links)} transitions are missing in rollout(), or have another observation than that of "
        "their decision.",
    )


@pytest.mark.parametrize("horizon", [ENDLESS, 3], ids=["whole", "cut"])
def test_advantages_are_those_of_gae(trial: Trial, horizon: int) -> None:
    """Advantages and returns of a rollout are those of GAE with its `lambd`, worked out transition by transition."""
    play, links = _played(trial, horizon=horizon)
    trainer = play.trainer
    if not isinstance(trainer, OnPolicyTrainer) or not isinstance(trainer.optimizer, ActorCriticOptimizer):
        pytest.skip("it has no rollouts with a critic's values")
    assert play.steps is not None
    everything = observed(play.steps)
    estimates = trainer.optimizer.estimate(torch.from_numpy(everything))[:, 0].tolist()
    value: dict[bytes, float] = dict(zip(names_of(everything), estimates, strict=True))

    def advantage(name: bytes) -> float:
        total, weight, at = 0.0, 1.0, name
        while True:
            link = links[at]
            total += weight * (link.reward + (GAMMA * value[link.after] if link.after is not None else 0.0) - value[at])
            if link.after is None or link.final or link.cut or link.after not in links:
                return total
            weight, at = weight * GAMMA * trainer.learning.lambd, link.after

    batch = trainer.learning.rollout(trainer.store)
    for name, found, returned in zip(
        names_of(batch.features), batch.advantages.flatten().tolist(), batch.returns[:, 0].tolist(), strict=True
    ):
        right = advantage(name)
        demand(
            abs(found - right) < 1e-3,
            f"A row has the advantage {found:.4f}, and by GAE with lambda {trainer.learning.lambd:g} and gamma {GAMMA} "
            f"it is {right:.4f}. Look at decay, ends, interruptions, the time horizon and rows that are still open.",
        )
        demand(
            abs(returned - right - value[name]) < 1e-3,
            f"A row has the return {returned:.4f}, and its value plus its advantage is {right + value[name]:.4f}.",
        )


def test_reward_signals_have_futures_of_their_own(trial: Trial) -> None:
    """Each reward signal has its own rewards, discount and rule for ends, in returns and in samples."""
    both = {"extrinsic": {"gamma": GAMMA, "strength": STRENGTH}, "next_seen": {"gamma": 0.6, "strength": 2.0}}
    play, links = _played(trial, reward_signals=both, plugins=[MoreSignals()])
    trainer = play.trainer
    first = {name: float(np.frombuffer(name, np.float32)[0]) for link in links.values() for name in [link.seen]}
    rewards = {name: np.array([link.reward, 2.0 * first[link.seen]]) for name, link in links.items()}
    going_on = {name: np.array([link.after is not None, True]) for name, link in links.items()}
    if isinstance(trainer, OffPolicyTrainer):
        _demand_sampled_signals(trainer, links, rewards, going_on)
    elif isinstance(trainer, OnPolicyTrainer) and isinstance(trainer.optimizer, ActorCriticOptimizer):
        _demand_returns_of_signals(play, links, rewards, going_on)
    else:
        pytest.skip("it has neither rollouts with a critic's values nor samples")


def _demand_sampled_signals(trainer: OffPolicyTrainer, links: Links, rewards: Signals, going_on: Signals) -> None:
    batch, gammas = trainer.learning.sample(trainer.store, 256), trainer.learning.gammas
    columns = batch.signal_rewards.tolist(), batch.discounts.tolist(), names_of(batch.next_features)
    for name, given, discounts, following in zip(names_of(batch.features), *columns, strict=True):
        demand(
            bool(np.allclose(given, rewards[name], atol=1e-4)),
            f"signal_rewards of a sample are {given}, and the reward signals gave {rewards[name].tolist()}.",
        )
        right = gammas * going_on[name]
        demand(
            bool(np.allclose(discounts, right, atol=1e-4)) and following == links[name].seen,
            f"discounts of a sample are {discounts}, and must be {right.tolist()}, of which the second is of a reward "
            "signal that ignores ends: there, the value of the final observation follows.",
        )


def _demand_returns_of_signals(play: Play, links: Links, rewards: Signals, going_on: Signals) -> None:
    trainer: Any = play.trainer
    assert play.steps is not None
    everything, gammas = observed(play.steps), np.array([GAMMA, 0.6])
    estimates = trainer.optimizer.estimate(torch.from_numpy(everything)).numpy()
    value = dict(zip(names_of(everything), estimates.astype(np.float64), strict=True))

    def advantage(name: bytes) -> np.ndarray:
        total, weight, at = np.zeros(2), np.ones(2), name
        while True:
            link = links[at]
            total += weight * (rewards[at] + gammas * value[link.seen] * going_on[at] - value[at])
            if link.after is None or link.final or link.cut or link.after not in links:
                return total
            weight, at = weight * gammas * trainer.learning.lambd, link.after

    batch = trainer.learning.rollout(trainer.store)
    columns = batch.returns.tolist(), batch.advantages.flatten().tolist()
    for name, returned, mean in zip(names_of(batch.features), *columns, strict=True):
        advantages = advantage(name)
        right = (advantages + value[name]).tolist()
        demand(
            bool(np.allclose(returned, right, atol=1e-3)),
            f"The returns of a row are {returned}, and must be {right}: each reward signal has its own discount, and "
            "for the second the value of the final observation follows an end.",
        )
        demand(
            abs(mean - advantages.mean()) < 1e-3,
            f"A row has the advantage {mean:.4f}, and the mean over its reward signals is {advantages.mean():.4f}.",
        )


@pytest.mark.parametrize("step", [0, 700], ids=["filling", "full"])
@pytest.mark.parametrize("n_step", [1, 3])
def test_samples_are_the_transitions_that_happened(trial: Trial, n_step: int, step: int) -> None:
    """Samples of a replay buffer are transitions that happened: rewards, what followed, and the discount."""
    if n_step > 1 and not trial.has("n_step"):
        pytest.skip("it has no hyperparameter n_step")
    changed: dict[str, Any] = {"n_step": n_step} if n_step > 1 else {}
    if step:
        changed |= {"buffer_size": 150}  # By then, new rows have taken the place of old ones.
    play, links = _played(trial, step=step, hyperparameters=changed)
    trainer = play.trainer
    if not isinstance(trainer, OffPolicyTrainer):
        pytest.skip("it does not learn from a replay buffer")
    batch = trainer.learning.sample(trainer.store, 512)
    names = zip(names_of(batch.features), names_of(batch.next_features), strict=True)
    for (name, following), reward, discount in zip(
        names, batch.signal_rewards[:, 0].tolist(), batch.discounts[:, 0].tolist(), strict=True
    ):
        demand(
            name in links, "sample() gives a row whose reward has not come, or another observation than its decision's."
        )
        total, steps = 0.0, 0
        at: bytes | None = name
        while steps < n_step and at in links:
            link = links[at]
            total += GAMMA**steps * link.reward
            steps += 1
            at = link.after
            if link.final:
                break
        ended = at is None
        demand(abs(reward - total) < 1e-4, f"A sampled transition has the reward {reward:.4f}, and it was {total:.4f}.")
        right = 0.0 if ended else GAMMA**steps
        demand(
            abs(discount - right) < 1e-5,
            f"The value after a transition of {steps} steps that {'ends' if ended else 'goes on'} is discounted by "
            f"{discount:.4f}, and must be by {right:.4f}.",
        )
        demand(ended or following == at, "The next observation of a sampled transition is not the one that followed.")


def test_samples_cover_the_buffer(trial: Trial) -> None:
    """Sampling reaches every complete transition, about equally often."""
    play, links = _played(trial)
    if not isinstance(play.trainer, OffPolicyTrainer):
        pytest.skip("it does not learn from a replay buffer")
    if type(play.trainer.store).draw is not OffPolicyTrainer.store_type.draw:
        pytest.skip("its replay buffer draws by other weights")
    counts = dict.fromkeys(links, 0)
    for name in names_of(play.trainer.learning.sample(play.trainer.store, 60 * len(links)).features):
        counts[name] = counts.get(name, 0) + 1
    rare = [name for name, count in counts.items() if count < 20]
    demand(not rare, f"{len(rare)} of {len(links)} transitions are hardly ever sampled.")
