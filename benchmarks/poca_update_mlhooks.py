"""One process of `poca_update.py`: updates of a native trainer on given rows."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from time import process_time
from typing import Any

import numpy as np
import torch
from mlagents_envs.base_env import DecisionSteps, TerminalSteps
from poca_rows import BRANCH, CONTINUOUS, make_rows

from mlhooks.fast.switch import plain
from mlhooks.nn.heads import SampledActions
from mlhooks.testing.managers import make_manager
from mlhooks.testing.scripted import BEHAVIOR
from mlhooks.testing.specs import make_behavior_spec
from mlhooks.testing.trainer_loop import make_trainer
from mlhooks.training.trainer import Trainer

settings: dict[str, Any] = json.loads(sys.argv[1])


def make() -> Trainer:
    """Return the trainer."""
    names = ("batch_size", "buffer_size", "num_epoch", "learning_rate")
    spec = make_behavior_spec((settings["observations"],), continuous=CONTINUOUS, branches=(BRANCH,))
    behavior = {
        "trainer_type": settings["trainer"],
        "hyperparameters": {name: settings[name] for name in names},
        "network_settings": {"hidden_units": settings["hidden_units"], "num_layers": settings["num_layers"]},
        "time_horizon": settings["time_horizon"],
    }
    return make_trainer(make_manager(), spec, behavior, seed=settings["seed"])


def fill(trainer: Trainer) -> None:
    """Let the trainer observe the rows, as if it had done what they say."""
    rows, store = make_rows(settings), trainer.store
    agents = rows.obs.shape[1]
    ids = np.arange(agents, dtype=np.int32)
    groups = ids // settings["members"] + np.int32(1)
    nothing = np.zeros(agents, np.float32)
    for tick in range(len(rows.obs)):
        paid = (rows.reward[tick - 1], rows.group_reward[tick - 1]) if tick else (nothing, nothing)
        steps = DecisionSteps([rows.obs[tick]], paid[0], ids, None, groups, paid[1])
        trainer.observe(0, BEHAVIOR, steps, TerminalSteps.empty(trainer.behavior_spec))
        if tick < len(rows.continuous):
            store.set_actions(SampledActions(rows.continuous[tick], rows.discrete[tick], rows.log_probs[tick]))
            trainer.acting._waiting.clear()


def main() -> None:
    """Time updates, each on the same rows; the first one warms up."""
    torch.set_num_threads(1)
    with plain(settings["plain"]):
        trainer, seconds = make(), []
        for _ in range(settings["updates"] + 1):
            fill(trainer)
            assert trainer.ready_to_update()
            started = process_time()
            trainer.update()
            seconds.append(process_time() - started)
            trainer.environments_restarted()
            trainer.store.keep_open()
    Path(sys.argv[2]).write_text(json.dumps({"seconds": seconds[1:]}), encoding="utf-8")


main()
