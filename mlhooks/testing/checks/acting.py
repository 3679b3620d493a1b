"""Checks of acting: forbidden actions, independent agents, determinism, exploration, and sets of entities."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from mlhooks.nn.attention import SelfAttention
from mlhooks.testing.assertions import demand
from mlhooks.testing.specs import make_behavior_spec
from mlhooks.testing.tasks import OneStep, any_kind
from mlhooks.testing.trainer_loop import Play
from mlhooks.testing.trainer_trial import Trial
from mlhooks.training.trainer import Trainer


def test_never_takes_a_forbidden_action(trial: Trial) -> None:
    """Neither exploring nor deterministic, before and after learning, does it take an action that the mask forbids."""
    if not trial.kind.supports.discrete:
        pytest.skip("it takes no discrete actions, so there are no masks")
    env = any_kind(make_behavior_spec(branches=(3, 2)), masked=True)()
    play = trial.play(env)
    play.until(1000)
    demand(env.audit.forbidden == 0, f"It took {env.audit.forbidden} actions that the mask forbids while it trained.")
    play.trainer.policy.deterministic = True
    play.until(1500)
    demand(env.audit.forbidden == 0, f"Deterministic, it took {env.audit.forbidden} actions that the mask forbids.")


def test_deterministic_policy_draws_nothing(trial: Trial) -> None:
    """With `deterministic`, the same observations give the same actions, whatever the random generator."""
    env = any_kind(make_behavior_spec((4,), **trial.any_actions))(agents=64)
    policy = trial.play(env).updates(2).trainer.policy
    policy.deterministic = True
    decisions, _ = env.get_steps("Scripted")
    first, second = (policy.act(decisions.obs, None, np.random.default_rng(seed)) for seed in (1, 2))
    same = np.array_equal(first.continuous, second.continuous) and np.array_equal(first.discrete, second.discrete)
    demand(same, "With policy.deterministic the actions depend on the random generator: take the most likely ones.")


def test_agents_decide_independently(trial: Trial) -> None:
    """Agents that see the same draw their actions independently, during the whole course of exploration."""
    env = _Alike(trial)
    env.audit.keep_actions = True
    play = trial.play(env, learning=False, max_steps=256 * 160)
    for _ in range(160):
        play.tick()
    actions = np.stack([tick[:, 0] for tick in env.audit.actions])  # [ticks, agents]
    demand(
        (actions.std(axis=1) > 0).mean() > 0.9,
        "256 agents that see the same took the same action at almost every tick: draw for each agent again.",
    )
    common = actions == actions[:1, :1] if trial.kind.supports.discrete else actions
    halves = [np.diff(common[:, start::2].mean(axis=1)) for start in (0, 1)]
    if min(half.std() for half in halves) > 0:
        correlation = float(np.corrcoef(*halves)[0, 1])
        demand(
            correlation < 0.5,
            f"What 128 agents choose goes along with what 128 others choose (correlation {correlation:.2f}), and all "
            "see the same and nothing is learned: draw for each agent, such as whether to explore, not for the batch.",
        )


class _Alike(OneStep):
    """256 agents that all see the same for ever."""

    def __init__(self, trial: Trial, **actions: Any) -> None:
        self.spec = make_behavior_spec((2,), **(actions or trial.any_actions))  # type: ignore[misc]
        super().__init__(agents=256)

    def observe(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return ones."""
        return [np.ones((len(rows), 2))]

    def play(self, rows: np.ndarray, action: Any) -> Any:  # noqa: ARG002
        """Do nothing."""
        return np.zeros(len(rows), np.float32), np.zeros(len(rows), np.int64)


def test_noise_of_an_agent_is_held_as_long_as_it_is_told(trial: Trial) -> None:
    """With `use_sde`, an agent that sees the same does the same until its noise is drawn again; no two do the same."""
    env = _Alike(trial, continuous=2)
    network = {"use_sde": True, "sde_sample_freq": 4, "log_std_init": -1.0}
    longer = {"update_interval": 10_000} if trial.has("update_interval") else {}
    if not trial.takes(env.spec) or "use_sde" not in getattr(trial.kind.policy_type, "network_keys", ()):
        pytest.skip("its policy does not read use_sde")
    env.audit.keep_actions = True
    play = trial.play(env, learning=False, network_settings=network, hyperparameters=longer)
    for _ in range(8):
        play.act()
    actions = np.stack(env.audit.actions)  # [ticks, agents, 2]
    for start in (0, 4):
        changed = float(np.abs(actions[start : start + 4] - actions[start]).max())
        demand(
            changed < 1e-5,
            f"With sde_sample_freq: 4 actions changed by {changed:.2g} within 4 decisions, and agents saw the same: "
            "add the `noise` with which `Policy.act` is called, and none besides.",
        )
    demand(
        np.abs(actions[4] - actions[3]).min(axis=1).max() > 1e-4,
        "With sde_sample_freq: 4 the noise of agents was not drawn again after 4 decisions.",
    )
    demand(
        len(np.unique(actions[0].round(6), axis=0)) > 250,
        "256 agents that see the same explore alike: each must have noise of its own.",
    )


def test_explores_as_often_as_it_is_told(trial: Trial) -> None:
    """The share of random actions is that of exploration_initial_eps at the start, and of the schedule later."""
    if not trial.has("exploration_initial_eps", "exploration_final_eps", "exploration_schedule"):
        pytest.skip("it has no hyperparameters of an exploration schedule")
    shares: dict[str, Any] = {"exploration_initial_eps": 0.8, "exploration_final_eps": 0.2}
    _demand_shares(trial, {**shares, "exploration_schedule": "linear"}, {0: 0.8, 50_000: 0.5, 99_990: 0.2})
    _demand_shares(trial, {**shares, "exploration_schedule": "constant"}, {0: 0.8, 99_990: 0.8})
    if trial.has("exploration_steps"):
        shorter = {**shares, "exploration_schedule": "linear", "exploration_steps": 40_000}
        _demand_shares(trial, shorter, {20_000: 0.5, 60_000: 0.2})


def _demand_shares(trial: Trial, hyperparameters: dict[str, Any], shares: dict[int, float]) -> None:
    """Demand that at some steps of 100,000 some share of all actions is random."""
    env = any_kind(make_behavior_spec((4,), branches=(4,)))(agents=256)
    trainer = trial.trainer(env.spec, gamma=0.9, hyperparameters=hyperparameters, max_steps=100_000)
    env.audit.keep_actions = True
    play = Play(trainer, env, learning=False)
    for step, share in shares.items():
        trainer.step, other = step, []
        for _ in range(20):
            decisions, _ = env.get_steps(play.behavior)
            trainer.policy.deterministic = True
            best = trainer.policy.act(decisions.obs, None, np.random.default_rng(0)).discrete[:, 0]
            trainer.policy.deterministic = False
            trainer.step = step
            play.tick()
            other.append(float((env.audit.actions[-1][:, 0] != best).mean()))
        found = float(np.mean(other)) * 4 / 3  # A random one of four actions is the best one now and then.
        demand(
            abs(found - share) < 0.06,
            f"At step {step:,} of 100,000, a share of {found:.2f} of all actions is random, and it should be {share}, "
            f"with {hyperparameters}.",
        )


def test_entities_are_a_set(trial: Trial) -> None:
    """Other entities change what it makes of them; their order, and padding among or behind them, do not."""
    specs = [make_behavior_spec((2, (most, 3)), **trial.any_actions) for most in (4, 7)]
    if not trial.acts_by(SelfAttention, specs[0]):
        pytest.skip("it does not read entities, or not by attention")
    small, large = (trial.trainer(spec) for spec in specs)
    Play(small, any_kind(specs[0])()).updates(2)
    rng = np.random.default_rng(0)
    own, entities = (rng.standard_normal(shape).astype(np.float32) for shape in ((64, 2), (64, 4, 3)))
    entities[:, 2:] = 0.0
    right = _responses(small, [own, entities])
    change = float((_responses(small, [own, 0.5 * entities]) - right).abs().max())
    demand(change > 1e-6, "It decides the same, and values the same, whatever the entities are.")
    moved = float((_responses(small, [own, entities[:, [2, 1, 3, 0]]]) - right).abs().max())
    demand(
        moved < 1e-2 * change,
        f"Entities in another order, with padding between them, change its outputs by {moved:.2g}; other entities do "
        f"so by {change:.2g}. Leave out of sums and means what is padding, and let nothing depend on the place.",
    )
    more = np.zeros((64, 7, 3), np.float32)
    more[:, [5, 1]] = entities[:, :2]
    try:
        for name, module in large.modules().items():
            module.load_state_dict(small.modules()[name].state_dict())
    except RuntimeError:
        return  # Weights for each place cannot be compared.
    large.policy.weights_changed()
    padded = float((_responses(large, [own, more]) - right).abs().max())
    demand(
        padded < 1e-2 * change,
        f"With the same weights, room for 7 entities in place of 4 changes its outputs by {padded:.2g}, and other "
        f"entities do so by {change:.2g}. Padding counts: in a mean, or among the keys of attention.",
    )


@torch.no_grad()
def _responses(trainer: Trainer, obs: list[np.ndarray]) -> torch.Tensor:
    """Return what policy and critic make of observations, as numbers [rows, any]."""
    policy: Any = trainer.policy
    features = policy.features(obs)
    found: list[Any] = []
    for network in (getattr(policy, "actor", None), getattr(policy, "network", None)):
        outputs = network(features) if isinstance(network, torch.nn.Module) else ()
        found += [outputs] if isinstance(outputs, torch.Tensor) else outputs
    estimate: Any = getattr(trainer.optimizer, "estimate", None)
    if callable(estimate):
        found.append(estimate(features))
    parts = [part for part in found if part is not None and len(part) == len(features)]
    if not parts:
        policy.deterministic = True
        actions = policy.act(obs, None, np.random.default_rng(0))
        parts = [torch.from_numpy(part).float() for part in (actions.continuous, actions.discrete)]
    return torch.cat([part.flatten(1) for part in parts], dim=1)
