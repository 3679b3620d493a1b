"""What reward signals see in the batches of trainers, and what follows the ends of episodes for them."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from mlhooks import hookimpl
from mlhooks.errors import NonFiniteError, PluginError
from mlhooks.settings import RewardSignalSettings
from mlhooks.testing.specs import make_behavior_spec
from mlhooks.training.batch import Batch
from mlhooks.training.reward_signals import RewardSignal
from mlhooks.training.run import Run
from tests.scripted import Corridor, Env, config, train

LENGTH = 5
GAMMA = 0.5


class Counting(Corridor):
    """A corridor whose agents see how many steps there were: what follows a row is one more, at ends, too."""

    def _obs(self) -> list[np.ndarray]:
        return [np.full((self.num_agents, 3), self.steps, np.float32)]


class Looking(RewardSignal):
    """Rewards raw observations, and keeps the batches that it sees."""

    reads = frozenset({"obs", "next_obs"})
    ignores_ends = True
    evaluated: ClassVar[list[Batch]] = []
    learned: ClassVar[list[Batch]] = []

    def evaluate(self, batch: Batch) -> torch.Tensor:
        self.evaluated.append(batch.map(torch.clone))
        return batch.next_obs[:, 0]


class Learning(Looking):
    def update(self, batch: Batch) -> dict[str, torch.Tensor]:
        self.learned.append(batch.map(torch.clone))
        return {"Losses/Looking": batch.obs.mean()}


def seen(
    folder: Path, kind: type[Looking], trainer_type: str, *, normalize: bool, **hyperparameters: Any
) -> tuple[list[Batch], list[Batch]]:
    """Return what the signal was given to evaluate, and to learn from."""

    class Offer:
        @hookimpl
        def get_reward_signals(self) -> Any:
            return {"looking": (kind, RewardSignalSettings)}

    Looking.evaluated.clear()
    Looking.learned.clear()
    settings = config(
        "Corridor",
        "test:x",
        max_steps=200,
        trainer_type=trainer_type,
        hyperparameters=hyperparameters,
        reward_signals={"extrinsic": {"gamma": GAMMA}, "looking": {"gamma": GAMMA}},
        network_settings={"hidden_units": 8, "num_layers": 1, "normalize": normalize},
    )
    train(settings, folder, Env(Counting), Offer())
    return Looking.evaluated, Looking.learned


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("trainer_type", ["ppo", "a2c", "dqn"])
def test_signals_see_raw_observations_what_followed_and_ends(
    tmp_path: Path, trainer_type: str, normalize: bool
) -> None:
    evaluated, learned = seen(tmp_path, Learning, trainer_type, normalize=normalize)
    assert evaluated
    assert learned
    for batch in [*evaluated, *learned]:
        numbers = batch.obs[:, 0]
        assert torch.equal(batch.obs, numbers[:, None].expand(-1, 3))
        assert torch.equal(numbers, numbers.round())
        assert torch.equal(batch.next_obs, batch.obs + 1)
        assert torch.equal(batch.ended, numbers % LENGTH == LENGTH - 1)
        assert (batch.obs is batch.features) is not normalize
    assert any(bool(batch.ended.any()) for batch in evaluated)


def test_next_observation_is_that_of_the_next_step_in_transitions_of_several_steps(tmp_path: Path) -> None:
    evaluated, learned = seen(tmp_path, Learning, "dqn", normalize=False, n_step=3)
    for batch in [*learned, *evaluated]:
        assert torch.equal(batch.next_obs, batch.obs + 1)
    assert max(float((batch.next_features - batch.obs).max()) for batch in learned) == 3
    assert any(len(batch) == 3 * len(learned[0]) for batch in evaluated)


def test_columns_that_nobody_reads_are_not_there(tmp_path: Path) -> None:
    class Blind(Looking):
        reads = frozenset()

        def evaluate(self, batch: Batch) -> torch.Tensor:
            self.evaluated.append(batch.map(torch.clone))
            return batch.rewards

    for trainer_type in ("ppo", "dqn"):
        evaluated, _ = seen(tmp_path / trainer_type, Blind, trainer_type, normalize=False)
        assert all(part is None for batch in evaluated for part in (batch.obs, batch.next_obs, batch.ended))


def test_value_after_an_end_counts_for_signals_that_ignore_ends_alone(tmp_path: Path) -> None:
    batches: list[Batch] = []

    class Offer:
        @hookimpl
        def get_reward_signals(self) -> Any:
            return {"looking": (Looking, RewardSignalSettings)}

        @hookimpl
        def behavior_added(self, trainer: Any) -> None:
            update = trainer.optimizer.update
            trainer.optimizer.update = lambda batch: (batches.append(batch), update(batch))[1]

    settings = config(
        "Corridor",
        "test:x",
        max_steps=200,
        trainer_type="dqn",
        hyperparameters={"gamma": GAMMA, "n_step": 2},
        reward_signals={"extrinsic": {"strength": 2.0}, "looking": {}},
        network_settings={"hidden_units": 8, "num_layers": 1},
    )
    train(settings, tmp_path, Env(Counting), Offer())
    for batch in batches:
        number = batch.features[:, 0]
        steps = batch.next_features[:, 0] - number  # 2, and 1 to an end or to a row that is still open
        assert set(steps.tolist()) <= {1.0, 2.0}
        ended, after = number % LENGTH + steps == LENGTH, GAMMA**steps
        assert torch.equal(batch.discounts, torch.stack([torch.where(ended, 0.0, after), after], 1))
        assert torch.equal(batch.signal_rewards[:, 1], number + 1 + torch.where(steps == 2, GAMMA * (number + 2), 0.0))
    assert any(bool((batch.discounts[:, 0] == 0).any()) for batch in batches)


@pytest.mark.parametrize(
    ("reads", "problem"),
    [
        (frozenset({"obs", "next"}), "it names 'next'."),
        ({"rewards", 3, "next_obs"}, "it names 'rewards', 3."),
        ("obs", "it is a str."),
        (None, "it is None."),
    ],
)
def test_signals_that_read_what_batches_do_not_have_are_named(reads: Any, problem: str) -> None:
    class Wrong(Looking):
        pass

    Wrong.reads = reads
    with pytest.raises(PluginError) as caught:
        Wrong("wrong", make_behavior_spec((1,), branches=(2,)), RewardSignalSettings())
    line = inspect.getsourcelines(Wrong)[1]
    assert str(caught.value).startswith("`Wrong.reads` (")
    assert f"test_reward_signals.py:{line}) must be a frozenset of 'obs' and 'next_obs'" in str(caught.value)
    assert str(caught.value).endswith(problem)


def test_only_signals_with_an_update_of_their_own_learn() -> None:
    spec = make_behavior_spec((1,), branches=(2,))
    made = [kind("name", spec, RewardSignalSettings()) for kind in (Looking, Learning)]
    assert [signal.learns for signal in made] == [False, True]


@pytest.mark.parametrize(("trainer_type", "updates"), [("ppo", 3 * 5), ("a2c", 1)])
def test_signals_learn_from_every_minibatch_after_the_policy(tmp_path: Path, trainer_type: str, updates: int) -> None:
    order: list[str] = []
    steps: list[int] = []

    class Ordered(Learning):
        def update(self, batch: Batch) -> dict[str, torch.Tensor]:
            order.append("signal")
            assert batch.obs is batch.features
            return super().update(batch)

    class Watch:
        @hookimpl
        def behavior_added(self, trainer: Any) -> None:
            update = trainer.optimizer.update
            trainer.optimizer.update = lambda batch: (order.append(f"policy {len(batch)}"), update(batch))[1]

        @hookimpl
        def get_reward_signals(self) -> Any:
            return {"looking": (Ordered, RewardSignalSettings), "idle": (Looking, RewardSignalSettings)}

        @hookimpl
        def update_finished(self, step: int, losses: Any) -> None:
            steps.append(step)
            assert "Losses/Looking" in losses

    Looking.learned.clear()
    settings = config(
        "Corridor",
        "test:x",
        max_steps=200,
        trainer_type=trainer_type,
        hyperparameters={"num_epoch": 3} if trainer_type == "ppo" else {"batch_size": 100},
        reward_signals={"extrinsic": {}, "looking": {}, "idle": {}},
        network_settings={"hidden_units": 8, "num_layers": 1},
    )
    train(settings, tmp_path, Env(Counting), Watch())
    assert len(order) == 2 * updates * len(steps) > 0
    assert order[1::2] == ["signal"] * updates * len(steps)
    assert {len(batch) for batch in Looking.learned} == {100 // (5 if trainer_type == "ppo" else 1)}


@pytest.mark.parametrize("threaded", [False, True])
@pytest.mark.parametrize(("every", "times"), [(None, 12), (4.0, 6), (1.0, 24), (3.0, 8)])
def test_off_policy_signals_learn_from_their_own_minibatches_as_often_as_told(
    tmp_path: Path, every: float | None, times: int, threaded: bool
) -> None:
    policy: list[Batch] = []
    order: list[str] = []

    class Ordered(Learning):
        def update(self, batch: Batch) -> dict[str, torch.Tensor]:
            order.append("signal")
            assert not any(batch is other for other in policy)
            return super().update(batch)

    class Watch:
        @hookimpl
        def behavior_added(self, trainer: Any) -> None:
            update = trainer.optimizer.update
            trainer.optimizer.update = lambda batch: (order.append("policy"), policy.append(batch), update(batch))[2]

        @hookimpl
        def get_reward_signals(self) -> Any:
            return {"looking": (Ordered, RewardSignalSettings), "idle": (Looking, RewardSignalSettings)}

    Looking.learned.clear()
    own = {} if every is None else {"reward_signal_steps_per_update": every}
    settings = config(
        "Corridor",
        "test:x",
        max_steps=120,
        trainer_type="dqn",
        threaded=threaded,
        hyperparameters={"steps_per_update": 2.0, "buffer_init_steps": 100, **own},
        reward_signals={"extrinsic": {}, "looking": {}, "idle": {}},
        network_settings={"hidden_units": 8, "num_layers": 1},
    )
    train(settings, tmp_path, Env(Counting), Watch())
    # Four agents step at once: updates are due from step 96 on, the last one before the 100 initial ones, to step 120.
    assert (order.count("policy"), order.count("signal")) == (12, times)
    assert order[0] == "policy"
    assert {len(batch) for batch in Looking.learned} == {20}


def run_with(evaluate: Any, folder: Path, trainer_type: str) -> Run:
    """Return a run with a signal that answers as a function does."""

    class Answering(RewardSignal):
        reads = frozenset({"obs"})

        def evaluate(self, batch: Batch) -> torch.Tensor:
            rewards: torch.Tensor = evaluate(batch)
            return rewards

    class Offer:
        @hookimpl
        def get_reward_signals(self) -> Any:
            return {"answering": (Answering, RewardSignalSettings)}

    settings = config(
        "Corridor",
        "test:x",
        max_steps=200,
        trainer_type=trainer_type,
        hyperparameters={"batch_size": 16} | ({"buffer_size": 64} if trainer_type == "ppo" else {}),
        reward_signals={"extrinsic": {"gamma": GAMMA}, "answering": {"gamma": GAMMA}},
        network_settings={"hidden_units": 8, "num_layers": 1},
    )
    return train(settings, folder, Env(Counting), Offer())


TRAINERS = pytest.mark.parametrize("trainer_type", ["ppo", "dqn", "sac"])


@TRAINERS
@pytest.mark.parametrize("column", ["obs", "rewards", "discrete"])
def test_signals_that_write_to_what_others_read_are_named(trainer_type: str, column: str, tmp_path: Path) -> None:
    def evaluate(batch: Batch) -> torch.Tensor:
        getattr(batch, column).zero_()
        return torch.zeros(len(batch))

    with pytest.raises(PluginError, match=rf"`Answering.evaluate` .*wrote to `batch.{column}`, .*change a copy"):
        run_with(evaluate, tmp_path, trainer_type)


@TRAINERS
def test_signals_that_are_not_finite_are_named(trainer_type: str, tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match="the reward of reward signal 'answering' is NaN or infinite"):
        run_with(lambda batch: torch.full((len(batch),), torch.nan), tmp_path, trainer_type)


@TRAINERS
def test_rewards_of_double_precision_are_learned_from_in_single_precision(trainer_type: str, tmp_path: Path) -> None:
    weights = []
    for kind in (torch.float32, torch.float64):
        run = run_with(lambda batch, kind=kind: torch.ones(len(batch), dtype=kind), tmp_path / str(kind), trainer_type)
        modules = run.trainers["Corridor"].policy.modules().values()
        weights.append(torch.cat([weight.flatten() for module in modules for weight in module.state_dict().values()]))
    assert weights[0].dtype == torch.float32
    assert torch.equal(*weights)
