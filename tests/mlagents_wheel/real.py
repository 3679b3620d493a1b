"""Runs with the unmodified package `mlagents` 1.1.0; where it is not installed, tests that import this are skipped."""

from __future__ import annotations

import json
from collections import defaultdict

import pytest

import mlhooks
from mlhooks.mlagents_wheel import patches
from mlhooks.mlagents_wheel.offers import is_installed
from tests.mlagents_wheel.teams import Teams

if not is_installed():
    pytest.skip("needs the package mlagents", allow_module_level=True)
patches.install()

MARKS = [pytest.mark.mlagents, pytest.mark.filterwarnings("ignore")]
QUIET = ["no:console", "no:curve", "no:tensorboard"]
SMALL = {"batch_size": 32, "buffer_size": 128}
OFF_POLICY = {"batch_size": 32, "buffer_size": 1000, "buffer_init_steps": 50, "steps_per_update": 10}


@pytest.fixture(autouse=True)
def _nothing_stays(monkeypatch, tmp_path):
    """Leave the modules of the package where they are, in place of the fixture for tests with a tiny one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLHOOKS_DISABLE_PLUGIN_AUTOLOAD", raising=False)


def entry(trainer_type, **more):
    return {
        "trainer_type": trainer_type,
        "hyperparameters": OFF_POLICY if trainer_type.endswith("sac") else SMALL,
        "network_settings": {"normalize": True, "hidden_units": 8, "num_layers": 1},
        "max_steps": 405,
        "time_horizon": 8,
        "summary_freq": 200,
        **more,
    }


def train(settings, env="sim:Basic", *, name=None, run_id="run", plugins=(), **more):
    name = name or ("Soccer" if callable(env) else env.partition(":")[2])
    config = {"behaviors": {name: settings}}
    return mlhooks.train(config, env=env, run_id=run_id, seed=5, plugin_names=[*QUIET, *plugins], **more)


def learned(run):
    (trainer,) = run.trainers.values()
    return trainer.learner


def teams(count=1):
    return lambda seed=0: Teams(count)


def statistics(run):
    found = defaultdict(list)
    for line in (run.path / "stats.jsonl").read_text(encoding="utf-8").splitlines():
        for key, value in json.loads(line)["values"].items():
            found[key].append(value)
    return found
