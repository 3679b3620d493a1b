"""The two halves of a trainer need nothing of each other but experience and weights."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch

from mlhooks.testing.managers import make_manager
from mlhooks.testing.tasks import OneStep
from mlhooks.testing.trainer_loop import Play, make_trainer
from mlhooks.training.acting import ActingHalf
from mlhooks.training.trainer import Trainer

SETTINGS: dict[str, dict[str, Any]] = {
    "ppo": {"hyperparameters": {"batch_size": 32, "buffer_size": 64}},
    "a2c": {"hyperparameters": {"batch_size": 64, "buffer_size": 64}},
    "dqn": {"hyperparameters": {"batch_size": 32, "buffer_size": 500, "steps_per_update": 4.0}},
}
EACH_TYPE = pytest.mark.parametrize("trainer_type", SETTINGS)


def make(trainer_type: str) -> Trainer:
    network = {"hidden_units": 16, "num_layers": 1, "normalize": True}
    settings = {"trainer_type": trainer_type, "network_settings": network, **SETTINGS[trainer_type]}
    return make_trainer(make_manager(), OneStep.spec, settings)


def actions(half: ActingHalf) -> np.ndarray:
    seen = [
        np.random.default_rng(0).normal(size=(50, *spec.shape)).astype(np.float32)
        for spec in OneStep.spec.observation_specs
    ]
    half.policy.deterministic = True
    parameters = half.policy.act(seen, None, np.random.default_rng(0))
    return np.concatenate([parameters.discrete.ravel(), parameters.log_prob.ravel()])


@EACH_TYPE
def test_half_that_acts_elsewhere_decides_by_the_weights_that_it_was_sent(trainer_type: str) -> None:
    trainer = make(trainer_type)
    elsewhere = copy.deepcopy(trainer.acting.policy)
    half = ActingHalf(OneStep.spec, trainer.settings, elsewhere, trainer.acting.store, trainer.stats)
    before = actions(half)
    Play(trainer, OneStep(seed=1)).updates(4)
    np.testing.assert_array_equal(actions(half), before)  # It decides by weights of an earlier version until then.
    assert not np.array_equal(actions(trainer.acting), before)
    half.use_weights(trainer.learning.weights())
    np.testing.assert_array_equal(actions(half), actions(trainer.acting))
    assert half.version == trainer.learning.updates


@EACH_TYPE
def test_half_learns_the_same_from_experience_of_another_process(trainer_type: str) -> None:
    weights = []
    for sent in (False, True):
        trainer = make(trainer_type)
        store = Play(trainer, OneStep(seed=1)).until_ready().trainer.store
        if sent:
            arrived = pickle.loads(pickle.dumps(store.state_dict()))
            store = trainer.store_type(OneStep.spec, store.rows, store.time_horizon)
            store.load_state_dict(arrived)
        trainer.learning.update(store, trainer.step)
        weights.append(
            [p.clone() for m in trainer.learning.weights().policy.modules().values() for p in m.parameters()]
        )
    assert all(map(torch.equal, *weights))
