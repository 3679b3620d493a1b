"""Sequences of a replay buffer, for off-policy networks with a memory."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from mlhooks.testing.managers import make_manager
from mlhooks.testing.specs import OBSERVATION_KINDS, make_behavior_spec
from mlhooks.testing.tasks import any_kind
from mlhooks.testing.trainer_loop import Play, differing, make_trainer, weights
from mlhooks.training.checkpoints import pack, unpack
from mlhooks.training.replay import ReplayBuffer
from mlhooks.training.store import End
from mlhooks.training.trainer import Trainer
from tests.training.agents import SIZE, Agents
from tests.training.test_memory import Carried

GAMMA = 0.9
LENGTH = 5
SPEC = make_behavior_spec((SIZE,), branches=(3,))


def make(n_step: int = 1, burn_in: int = 0, **hyperparameters: object) -> Trainer:
    memory = {"sequence_length": LENGTH, "memory_size": 12}
    settings = {
        "trainer_type": "dqn",
        "hyperparameters": {
            "batch_size": 40,
            "buffer_size": 5000,
            "gamma": GAMMA,
            "n_step": n_step,
            "burn_in": burn_in,
            **hyperparameters,
        },
        "network_settings": {"hidden_units": 8, "num_layers": 1, "memory": memory},
        "time_horizon": 13,
    }
    return make_trainer(make_manager(), SPEC, settings)


def follow(store: ReplayBuffer, row: int, n_step: int) -> tuple[float, float, np.ndarray | None]:
    """Discounted rewards of n steps, the factor on what follows, and its observation, by a walk."""
    total, factor = 0.0, 1.0
    for _ in range(n_step):
        if store.successor[row] < 0 and store.end[row] == End.NONE:
            break  # The row is still open.
        total += factor * float(store.reward[row])
        factor *= GAMMA
        if store.end[row] == End.TERMINAL:
            return total, 0.0, None
        if store.end[row] == End.INTERRUPTED:
            return total, factor, store.final_obs[0][store.final[row]]
        row = int(store.successor[row])
    return total, factor, store.obs[0][row]


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize(("n_step", "burn_in"), [(1, 0), (3, 0), (1, 4), (2, 3)])
def test_sequences_have_the_values_of_episodes_seen_from_their_beginning(n_step: int, burn_in: int) -> None:
    trainer = make(n_step, burn_in)
    agents, carried = Agents(trainer, seed=6), Carried(trainer.policy.network)
    for tick in range(120):
        lost = agents.lose_a_worker() if tick % 37 == 36 else []
        carried.see(agents.observe(), lost)
        list(trainer.act())
    store, network = trainer.store, trainer.policy.network
    head = network.advantages

    def value(observation: np.ndarray) -> np.ndarray:
        output = carried.output[float(observation[0])]
        return head.weight.detach().numpy() @ output + head.bias.detach().numpy()  # type: ignore[no-any-return]

    place_of = {float(store.obs[0][row, 0]): row for row in range(store.filled)}
    counted, ends, shifted = 0, set(), 0
    for _ in range(10):
        batch = trainer.learning.sample(store, 40)
        units, width = 40 // LENGTH, burn_in + LENGTH + n_step
        assert (len(batch), batch.width) == (units * width, width)
        with torch.no_grad():
            values = network(batch.features, batch.memory, batch.width).numpy()
            following = trainer.optimizer.following(network, batch).numpy()
        mask, begins = batch.loss_mask.view(units, width).numpy(), ~batch.memory.view(units, width, -1)[:, 0].any(1)
        for unit in range(units):
            assert not mask[unit, burn_in + LENGTH :].any()
            if not begins[unit]:
                assert not mask[unit, :burn_in].any()
                shifted += 1
        for at in np.flatnonzero(mask.ravel()):
            observation = batch.features[at].numpy()
            row = place_of[float(observation[0])]
            np.testing.assert_allclose(values[at], value(observation), atol=1e-5)
            total, factor, after = follow(store, row, n_step)
            assert float(batch.signal_rewards[at, 0]) == pytest.approx(total, abs=1e-5)
            assert float(batch.discounts[at, 0]) == pytest.approx(factor, abs=1e-6)
            if after is not None:
                np.testing.assert_allclose(following[at], value(after), atol=1e-5)
            assert batch.discrete[at].tolist() == store.discrete[row].tolist()
            counted += 1
            ends.add(int(store.end[row]))
    assert ends == {End.NONE, End.TERMINAL, End.INTERRUPTED, End.HORIZON}
    assert counted > 100
    assert shifted


@pytest.mark.usefixtures("each_way")
def test_trajectories_are_cut_into_sequences_from_their_beginning_of_which_each_is_drawn_equally_often() -> None:
    trainer = make()
    agents = Agents(trainer, seed=8)
    for tick in range(120):
        if tick % 37 == 36:
            agents.lose_a_worker()
        agents.observe()
        list(trainer.act())
    store, begins = trainer.store, []
    rows = np.flatnonzero(store.is_complete(np.arange(store.filled)))
    for trajectory in np.unique(store.trajectory[rows]):
        of_trajectory = rows[store.trajectory[rows] == trajectory]
        begins += of_trajectory[np.argsort(store.tick[of_trajectory])][::LENGTH].tolist()
    counts = np.bincount(store.draw_sequences(200 * len(begins), np.random.default_rng(0)), minlength=store.filled)
    assert set(np.flatnonzero(counts).tolist()) == set(begins)
    np.testing.assert_allclose(counts[begins], 200, atol=5 * 200**0.5)

    batch = trainer.learning.sample(store, 400)
    first = batch.features.view(400 // LENGTH, batch.width, SIZE)[:, 0, 0].numpy()
    assert np.isin(first, store.obs[0][begins, 0]).all()


def test_resume_with_the_replay_buffer_is_exact() -> None:
    trainer = make(steps_per_update=5.0, save_replay_buffer=True)
    agents = Agents(trainer, seed=5)

    def play(ticks: int) -> None:
        for _ in range(ticks):
            agents.observe()
            if agents.trainer.ready_to_update():
                agents.trainer.update()
            list(agents.trainer.act())

    play(40)
    resumed, state = (
        make(steps_per_update=5.0, save_replay_buffer=True),
        unpack(pack(copy.deepcopy(trainer.state_dict()))),
    )
    history = agents.rng.bit_generator.state, list(agents.decided), agents.next_id, agents.shown
    play(30)
    resumed.load_state_dict(state)
    agents = Agents(resumed, seed=5)
    agents.rng.bit_generator.state, agents.decided, agents.next_id, agents.shown = history
    play(30)
    assert trainer.updates > 20
    assert differing(weights(trainer), weights(resumed)) == []


@pytest.mark.parametrize("kind", ["image", "two kinds of entities beside a vector", "goal signal"])
def test_sequences_of_observations_of_every_kind_are_learned_from(kind: str) -> None:
    task = any_kind(make_behavior_spec(**OBSERVATION_KINDS[kind], branches=(3,)), in_bytes=True)
    settings = {
        "trainer_type": "dqn",
        "hyperparameters": {"batch_size": 16, "buffer_size": 200, "steps_per_update": 20.0, "n_step": 2, "burn_in": 1},
        "network_settings": {"hidden_units": 6, "num_layers": 2, "memory": {"sequence_length": 4, "memory_size": 8}},
    }
    trainer = make_trainer(make_manager(), task.spec, settings)
    play, before = Play(trainer, task(5, seed=1, renewed=True, lazy=True)), weights(trainer)
    play.updates(3)
    moved = [name for name in differing(before, weights(trainer)) if name.startswith("policy.network")]
    assert moved == [name for name in sorted(before) if name.startswith("policy.network")]
