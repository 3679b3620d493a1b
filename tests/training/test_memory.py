"""Memory in a run: what acting carries and what learning unrolls are one thing."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from mlagents_envs.base_env import BehaviorSpec

from builtin_plugins.ppo import PPOOptimizer
from mlhooks import hookimpl
from mlhooks.errors import PluginError, UnsupportedError
from mlhooks.nn.networks import Actor, Critic, QNetwork
from mlhooks.testing.managers import make_manager
from mlhooks.testing.specs import OBSERVATION_KINDS, make_behavior_spec
from mlhooks.testing.tasks import any_kind
from mlhooks.testing.trainer_loop import Play, differing, make_trainer, weights
from mlhooks.training.checkpoints import pack, unpack
from mlhooks.training.policy import ActorPolicy
from mlhooks.training.trainer import Trainer
from tests.training.agents import SIZE, Agents, Seen

Array = np.ndarray
SPECS = {
    "discrete": make_behavior_spec((SIZE,), branches=(3, 2)),
    "continuous": make_behavior_spec((SIZE,), continuous=2),
    "hybrid": make_behavior_spec((SIZE,), continuous=1, branches=(2,)),
}


def make(trainer_type: str = "ppo", spec: BehaviorSpec = SPECS["discrete"], **hyperparameters: Any) -> Trainer:
    settings = {
        "trainer_type": trainer_type,
        "hyperparameters": {"batch_size": 30, "buffer_size": 90, **hyperparameters},
        "network_settings": {"hidden_units": 8, "num_layers": 1, "memory": {"sequence_length": 5, "memory_size": 12}},
        "time_horizon": 13,
    }
    return make_trainer(make_manager(), spec, settings)


def histories(trainer: Trainer, seed: int, ticks: int, losing: bool = True) -> Iterator[tuple[list[Seen], list[Any]]]:
    """Let agents play, and yield at each tick what they saw, and who was lost before; the caller learns or not."""
    agents = Agents(trainer, seed)
    for tick in range(ticks):
        lost = agents.lose_a_worker() if losing and tick % 17 == 16 else []
        yield agents.observe(), lost
        list(trainer.act())


def logistic(x: Array) -> Array:
    return 1.0 / (1.0 + np.exp(-x))  # type: ignore[no-any-return]


def one_step(network: Actor | Critic | QNetwork, observation: Array, memory: Array) -> tuple[Array, Array]:
    """Output and next memory of encoder and LSTM for one agent, in float64 by the layer's published equations."""
    weights = {name: tensor.numpy().astype(np.float64) for name, tensor in network.state_dict().items()}
    x = observation.astype(np.float64)
    x = weights["encoder.layers.0.weight"] @ x + weights["encoder.layers.0.bias"]
    x = x * logistic(x)
    h, c = np.split(memory, 2)
    gates = weights["memory.lstm.weight_ih_l0"] @ x + weights["memory.lstm.bias_ih_l0"]
    gates += weights["memory.lstm.weight_hh_l0"] @ h + weights["memory.lstm.bias_hh_l0"]
    admit, forget, cell, show = np.split(gates, 4)
    c = logistic(forget) * c + logistic(admit) * np.tanh(cell)
    h = logistic(show) * np.tanh(c)
    return h, np.concatenate([h, c])


class Carried:
    """The memory of a network for each agent, carried in a plain dictionary."""

    def __init__(self, network: Actor | Critic | QNetwork) -> None:
        self.network, self.memories = network, dict[tuple[int, int], Array]()
        self.before: dict[float, Array] = {}  # These are the memories before each observation, by its first number.
        self.output: dict[float, Array] = {}

    def see(self, seen: list[Seen], lost: list[tuple[int, int]]) -> None:
        for agent in lost:
            self.memories.pop(agent, None)
        assert self.network.memory is not None
        for agent, observation, is_last in seen:
            memory = self.memories.get(agent, np.zeros(self.network.memory.size))
            self.before[float(observation[0])] = memory
            self.output[float(observation[0])], after = one_step(self.network, observation, memory)
            if is_last:
                self.memories.pop(agent, None)
            else:
                self.memories[agent] = after


@pytest.mark.usefixtures("each_way")
@pytest.mark.parametrize("kind", SPECS)
@pytest.mark.parametrize("shared", [False, True])
def test_learning_unrolls_what_acting_did(kind: str, shared: bool) -> None:
    trainer = make(spec=SPECS[kind], shared_critic=shared)
    carried, rollouts = Carried(trainer.policy.actor), 0
    for seen, lost in histories(trainer, seed=3, ticks=150):
        carried.see(seen, lost)
        store = trainer.store
        for row in range(store.waiting, store.size):
            np.testing.assert_allclose(store.memory[row], carried.before[float(store.obs[0][row, 0])], atol=1e-5)
        if trainer.ready_to_update():
            rollouts += 1
            batch = trainer.learning.rollout(store)
            assert len(batch) == store.complete
            for part in (batch.laid_out(), *batch.minibatches(30, np.random.default_rng(0))):
                counts = torch.ones(len(part), dtype=torch.bool) if part.present is None else part.present
                assert part.width == 5
                with torch.no_grad():
                    log_probs = trainer.policy.evaluate(part)[0]
                torch.testing.assert_close(log_probs[counts], part.log_probs[counts], atol=1e-5, rtol=0)
            store.keep_open()
    assert rollouts >= 4


@pytest.mark.parametrize("trainer_type", ["ppo", "a2c"])
@pytest.mark.parametrize("shared", [False, True])
def test_values_are_those_of_a_critic_that_saw_each_episode_from_its_beginning(trainer_type: str, shared: bool) -> None:
    trainer = make(trainer_type, shared_critic=shared)
    optimizer = trainer.optimizer
    carried, rollouts = Carried(optimizer.critic), 0
    assert optimizer.shares_memory == shared

    def value(observation: Array) -> Array:
        head = optimizer.critic.heads
        output = carried.output[float(observation[0])]
        return head.weight.detach().numpy() @ output + head.bias.detach().numpy()  # type: ignore[no-any-return]

    for seen, lost in histories(trainer, seed=4, ticks=150):
        carried.see(seen, lost)
        store = trainer.store
        if not trainer.ready_to_update():
            continue
        rollouts += 1
        features = trainer.policy.features([store.obs[0][: store.size]])
        values, following = trainer.learning.estimate(store, features)
        ends = set()
        for row in range(store.size):
            np.testing.assert_allclose(values[row], value(store.obs[0][row]), atol=1e-5)
            end, wanted = int(store.end[row]), np.zeros(1)
            if store.successor[row] >= 0:
                wanted = value(store.obs[0][store.successor[row]])
            elif end == 2:
                wanted = value(store.final_obs[0][store.final[row]])
            np.testing.assert_allclose(following[row], wanted, atol=1e-5)
            ends.add(end)
        assert ends == {0, 1, 2, 3}
        batch = trainer.learning.rollout(store).laid_out()
        with torch.no_grad():
            learned = optimizer.values(batch)
        torch.testing.assert_close(learned[batch.present], batch.values[batch.present], atol=1e-5, rtol=0)
        store.keep_open()
    assert rollouts >= 4


def test_resume_in_the_middle_of_a_rollout_is_exact() -> None:
    trainer = make()
    agents = Agents(trainer, seed=5)

    def play(ticks: int) -> None:
        for _ in range(ticks):
            agents.observe()
            if agents.trainer.ready_to_update():
                agents.trainer.update()
            list(agents.trainer.act())

    play(47)
    assert trainer.updates
    assert trainer.store.complete  # The rollout is not full.
    state = unpack(pack(copy.deepcopy(trainer.state_dict())))
    resumed, history = make(), copy.deepcopy((agents.rng, agents.decided, agents.next_id, agents.shown))
    resumed.load_state_dict(state)
    play(60)
    agents = Agents(resumed, seed=5)
    agents.rng, agents.decided, agents.next_id, agents.shown = history
    play(60)
    assert trainer.updates >= 3
    assert differing(weights(trainer), weights(resumed)) == []
    assert np.array_equal(trainer.store.slot_memory, resumed.store.slot_memory)


def test_checkpoint_of_a_version_without_memories_still_resumes() -> None:
    trainer, other = (make_trainer(make_manager(), SPECS["discrete"], {"trainer_type": "ppo"}) for _ in range(2))
    Agents(trainer, seed=1).observe()
    state = trainer.state_dict()
    state["store"] = {name: part for name, part in state["store"].items() if "memory" not in name}
    other.load_state_dict(state)
    assert other.store.memory.shape == (other.store.size, 0)


def test_memories_of_another_size_than_the_policy_has_are_refused() -> None:
    trainer = make()
    Agents(trainer, seed=1).observe()
    state = trainer.state_dict()
    for names in (("slot_memory",), ("memory", "slot_memory")):
        cut = {name: state["store"][name][:, :3] for name in names}
        with pytest.raises(ValueError, match="memor"):
            make().load_state_dict({**state, "store": {**state["store"], **cut}})


def test_policy_that_gives_no_memory_on_is_named() -> None:
    trainer = make()
    act = trainer.policy.act
    trainer.policy.act = lambda *arguments: act(*arguments)._replace(memory=None)
    Agents(trainer, seed=1).observe()
    with pytest.raises(PluginError, match="its memory is None, and must be a numpy array"):
        list(trainer.act())


def test_actor_without_a_memory_is_refused_where_the_settings_ask_for_one() -> None:
    class Forgets:
        @hookimpl
        def create_policy(self, trainer: Any, behavior_spec: BehaviorSpec) -> ActorPolicy:
            plain = trainer.settings.network_settings.model_copy(update={"memory": None})
            policy = ActorPolicy("A", behavior_spec, trainer.settings, trainer.device)
            actor = Actor(policy.layout, behavior_spec.action_spec, plain)
            return ActorPolicy("A", behavior_spec, trainer.settings, trainer.device, actor)

    settings = {"trainer_type": "ppo", "network_settings": {"memory": {}}}
    with pytest.raises(UnsupportedError, match="asks for a memory, and Actor has none"):
        make_trainer(make_manager(Forgets()), SPECS["discrete"], settings)


def test_optimizer_that_estimates_in_its_own_way_must_do_so_with_a_memory() -> None:
    class Own(PPOOptimizer):
        def estimate(self, features: torch.Tensor) -> torch.Tensor:
            return 2 * super().estimate(features)

    class Brings:
        @hookimpl
        def create_optimizer(self, trainer: Any, policy: Any) -> Own:
            return Own(policy, trainer.settings)

    settings = {"trainer_type": "ppo", "network_settings": {"memory": {}}}
    with pytest.raises(PluginError, match=r"Own overrides `estimate`.*`estimate_units`"):
        make_trainer(make_manager(Brings()), SPECS["discrete"], settings)


def test_diagnostics_leave_padding_out() -> None:
    trainer = make(num_epoch=1, batch_size=90)
    agents = Agents(trainer, seed=3)
    while not trainer.ready_to_update():
        list(trainer.act())
        agents.observe()
    batch = trainer.learning.normalized_advantages(trainer.learning.rollout(trainer.store))
    wanted = 1.0 - float((batch.returns - batch.values).var(correction=0) / batch.returns.var(correction=0))
    optimizer = trainer.optimizer
    assert isinstance(optimizer, PPOOptimizer)
    optimizer.update(batch.laid_out())
    assert batch.laid_out().loss_mask is not None
    assert optimizer.diagnostics()["Losses/Explained Variance"] == pytest.approx(wanted, abs=1e-5)


KINDS = {**OBSERVATION_KINDS, "goal signal beside an image": {"observations": (2, (3, 20, 20)), "goals": (2,)}}


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_memory_is_behind_observations_of_every_kind(kind: str, shared: bool) -> None:
    task = any_kind(make_behavior_spec(**KINDS[kind], branches=(3,)), masked=kind == "several vectors", in_bytes=True)
    settings = {
        "trainer_type": "ppo",
        "hyperparameters": {"batch_size": 16, "buffer_size": 48, "shared_critic": shared, "num_epoch": 1},
        "network_settings": {"hidden_units": 6, "num_layers": 2, "memory": {"sequence_length": 4, "memory_size": 8}},
        "time_horizon": 9,
    }
    trainer = make_trainer(make_manager(), task.spec, settings)
    play = Play(trainer, task(5, seed=1, renewed=True, lazy=True))
    for _ in range(2):
        play.until_ready()
        batch = trainer.learning.rollout(trainer.store).laid_out()
        assert batch.present is not None
        with torch.no_grad():
            log_probs, values = trainer.policy.evaluate(batch)[0], trainer.optimizer.values(batch)
        torch.testing.assert_close(log_probs[batch.present], batch.log_probs[batch.present], atol=1e-5, rtol=0)
        torch.testing.assert_close(values[batch.present], batch.values[batch.present], atol=1e-5, rtol=0)
        trainer.store.keep_open()
    before = weights(trainer)
    play.until_ready().trainer.update()
    assert [name for name in differing(before, weights(trainer)) if "memory" in name]
