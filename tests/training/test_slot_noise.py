"""When agents draw the noise again by which they explore, and what a resume keeps of it."""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mlhooks
from mlhooks.errors import UnsupportedError
from mlhooks.nn.heads import SampledActions
from mlhooks.plugins import load_plugins
from mlhooks.settings import TrainerSettings
from mlhooks.stats import StatsReporter
from mlhooks.testing.scripted import GOES_ON, Outcome, ScriptedEnv
from mlhooks.testing.specs import make_behavior_spec
from mlhooks.testing.trainer_loop import Play, differing, make_trainer, weights
from mlhooks.training.acting import ActingHalf
from mlhooks.training.policy import ActorPolicy
from mlhooks.training.store import ExperienceStore
from mlhooks.training.trainer import Trainer
from tests.scripted import QUIET

NETWORK = {"hidden_layers": [16], "activation": "tanh", "use_sde": True, "log_std_init": -1.0}
ON_POLICY = {"batch_size": 24, "buffer_size": 24, "num_epoch": 1, "learning_rate": 1e-3}
REPLAY = {"batch_size": 8, "buffer_size": 500, "buffer_init_steps": 36, "steps_per_update": 4, "update_interval": 12}


class Alike(ScriptedEnv):
    """Three agents that always see the same; rewards are arbitrary."""

    spec = make_behavior_spec((2,), continuous=2)

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"agents": 3, **options})

    def begin(self, rows: np.ndarray) -> None:
        """Need no state."""

    def observe(self, rows: np.ndarray) -> list[np.ndarray]:
        """Return ones."""
        return [np.ones((len(rows), 2))]

    def play(self, rows: np.ndarray, action: Any) -> Outcome:
        """Go on."""
        return Outcome(action.continuous.sum(1)[: len(rows)].astype(np.float32), np.full(len(rows), GOES_ON))


def trainer_of(kind: str, hyperparameters: Mapping[str, Any], **network: Any) -> Trainer:
    settings = {
        "trainer_type": kind,
        "hyperparameters": dict(hyperparameters),
        "network_settings": {**NETWORK, **network},
        "max_steps": 100_000,
    }
    return make_trainer(load_plugins(), Alike.spec, settings)


def changes(play: Play, ticks: int) -> np.ndarray:
    """Play, and return [ticks - 1, agents]: whether each agent's noise differed from that of the tick before."""
    trainer, noise, seen = play.trainer, play.trainer.acting.noise, []
    assert noise is not None
    for _ in range(ticks):
        play.tick()
        seen.append(noise.matrices.copy())
    assert len({matrix.tobytes() for matrix in seen[-1]}) == 3, "each agent has noise of its own"
    assert trainer.step
    return (np.diff(np.stack(seen), axis=0) != 0).all(axis=(2, 3))


@pytest.mark.parametrize("kind", ["ppo", "a2c"])
def test_noise_is_drawn_again_with_each_rollout(kind: str) -> None:
    hyperparameters = {**ON_POLICY, **({} if kind == "ppo" else {"num_epoch": 1})}
    found = changes(Play(trainer_of(kind, hyperparameters), Alike()), 33)
    # A rollout is 8 decisions of 3 agents; the ninth is made by the new weights.
    expected = [(tick + 1) % 8 == 0 for tick in range(32)]
    np.testing.assert_array_equal(found, np.repeat(np.array(expected)[:, None], 3, 1))


def test_noise_is_drawn_again_after_so_many_decisions_of_a_rollout() -> None:
    found = changes(Play(trainer_of("ppo", ON_POLICY, sde_sample_freq=3), Alike()), 25)
    expected = [(tick + 1) % 8 in (0, 3, 6) for tick in range(24)]  # At the decisions 0, 3 and 6 of each rollout of 8.
    np.testing.assert_array_equal(found, np.repeat(np.array(expected)[:, None], 3, 1))


def test_off_policy_noise_is_drawn_again_with_each_round_of_updates() -> None:
    play = Play(trainer_of("sac", REPLAY), Alike())
    found = changes(play, 33)
    assert play.losses
    # A round is 12 steps, 4 decisions of 3 agents. The first ends 12 steps after the last step below 36, which is 33.
    expected = [tick in (3, 7, 11, 14, 18, 22, 26, 30) for tick in range(32)]
    np.testing.assert_array_equal(found, np.repeat(np.array(expected)[:, None], 3, 1))


def test_new_noise_has_the_deviation_of_the_weights() -> None:
    trainer = trainer_of("ppo", ON_POLICY)
    policy: Any = trainer.policy
    with torch.no_grad():
        policy.noise_heads.log_std.copy_(torch.linspace(-2.0, 1.0, 32).view(16, 2))
    drawn = policy.noise_heads.draw(20_000, np.random.default_rng(0))
    np.testing.assert_allclose(drawn.std(0), policy.noise_heads.log_std.detach().exp(), rtol=0.03)


@pytest.mark.parametrize(
    ("kind", "hyperparameters"), [("ppo", ON_POLICY), ("sac", {**REPLAY, "save_replay_buffer": True})]
)
def test_resumed_trainer_acts_by_the_noise_that_agents_held(kind: str, hyperparameters: Mapping[str, Any]) -> None:
    play = Play(trainer_of(kind, hyperparameters, sde_sample_freq=5), Alike(seed=1)).updates(2)
    for _ in range(2):  # Somewhere within a rollout.
        play.act()
    other = trainer_of(kind, hyperparameters, sde_sample_freq=5)
    other.load_state_dict(pickle.loads(pickle.dumps(play.trainer.state_dict())))
    ours, theirs = play.trainer.acting.noise, other.acting.noise
    assert ours is not None
    assert theirs is not None
    assert ours.matrices.any()
    np.testing.assert_array_equal(theirs.matrices, ours.matrices)
    again = Play.__new__(Play)
    vars(again).update(vars(play), trainer=other, losses=[])
    resumed_env = pickle.loads(pickle.dumps(play.env))
    again.env = resumed_env
    for side in (play, again):
        side.updates(3)
    assert differing(weights(play.trainer), weights(other)) == []
    np.testing.assert_array_equal(other.acting.noise.matrices, play.trainer.acting.noise.matrices)  # type: ignore[union-attr]


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda noise: noise.update(matrices=noise["matrices"][:2]), "another shape"),
        (lambda noise: noise.update(ages=noise["ages"].astype(np.float32)), "not whole"),
        (lambda noise: noise.update(matrices=noise["matrices"] * np.float32(np.nan)), "not finite"),
    ],
)
def test_damaged_noise_is_refused(spoil: Any, said: str) -> None:
    trainer = trainer_of("ppo", ON_POLICY)
    play = Play(trainer, Alike())
    play.tick()
    state = trainer.state_dict()
    spoil(state["noise"])
    with pytest.raises(ValueError, match=said):
        trainer_of("ppo", ON_POLICY).load_state_dict(state)


def test_policy_whose_act_takes_no_noise_is_refused() -> None:
    class Own(ActorPolicy):
        def act(self, obs: Any, mask: Any, rng: Any) -> SampledActions:  # type: ignore[override]
            return super().act(obs, mask, rng)

    settings = TrainerSettings(network_settings=NETWORK)
    policy = Own("B", Alike.spec, settings, torch.device("cpu"))
    with pytest.raises(UnsupportedError, match=r"use_sde asks for noise .* Own\.act does not take it"):
        ActingHalf(Alike.spec, settings, policy, ExperienceStore(Alike.spec, 8, 64), StatsReporter("B", load_plugins()))


@pytest.mark.parametrize("setting", [{"use_sde": True}, {"state_dependent_std": True}, {"log_std_init": -1.0}])
def test_settings_of_continuous_actions_are_refused_for_discrete_ones(setting: dict[str, Any]) -> None:
    spec = make_behavior_spec((2,), branches=(3,))
    with pytest.raises(UnsupportedError, match=rf"{next(iter(setting))} is about continuous actions"):
        ActorPolicy("B", spec, TrainerSettings(network_settings=setting), torch.device("cpu"))


def test_network_of_a_plugin_does_not_explore_in_silence_otherwise() -> None:
    with pytest.raises(UnsupportedError, match="use_sde is not read by Linear"):
        ActorPolicy(
            "B", Alike.spec, TrainerSettings(network_settings=NETWORK), torch.device("cpu"), torch.nn.Linear(2, 2)
        )


@pytest.mark.parametrize("kind", ["ppo", pytest.param("sac", marks=pytest.mark.slow)])
def test_run_that_explores_by_noise_is_resumed_evaluated_and_loaded(kind: str, tmp_path: Path) -> None:
    hyperparameters = ON_POLICY if kind == "ppo" else {**REPLAY, "buffer_size": 1000}
    entry = {"trainer_type": kind, "hyperparameters": hyperparameters, "network_settings": NETWORK, "max_steps": 240}
    config = {"behaviors": {"3DBall": entry}, "env_settings": {"env_path": "sim:3DBall"}}
    arguments: dict[str, Any] = {"run_id": "run", "results_dir": tmp_path, "plugin_names": QUIET}
    policy: Any = mlhooks.train(config, **arguments).trainers["3DBall"].policy
    longer = {"behaviors.3DBall.max_steps": 480}
    run = mlhooks.train(None, resume=True, flags=longer, **arguments)
    policy = run.trainers["3DBall"].policy
    loaded = mlhooks.load(tmp_path / "run")
    obs = np.random.default_rng(0).standard_normal((5, 8)).astype(np.float32)
    likeliest = loaded.predict(obs, raw=True)
    policy.deterministic = True
    expected = policy.action_tuple(policy.act([obs], None, np.random.default_rng(0))).continuous
    np.testing.assert_allclose(likeliest, expected, rtol=1e-5, atol=1e-6)
    assert np.abs(loaded.predict(obs, raw=True, deterministic=False) - likeliest).min() > 0
    assert loaded._policy.noise_shape == (16, 2)
