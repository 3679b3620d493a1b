"""Checks of a trainer beside learning: seeds, checkpoints, fleets, masks, schedules and memory."""

from __future__ import annotations

import gc
import sys
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlhooks import hookimpl
from mlhooks.errors import UnsupportedError
from mlhooks.settings import HyperparameterSettings, OffPolicyHyperparameters, OnPolicyHyperparameters
from mlhooks.stat_keys import LENGTH_KEY, REWARD_KEY
from mlhooks.testing.assertions import demand
from mlhooks.testing.check_fixtures import variants
from mlhooks.testing.managers import ScriptedEnvs, train_in
from mlhooks.testing.scripted import ScriptedEnv
from mlhooks.testing.specs import make_behavior_spec
from mlhooks.testing.tasks import Aim, OneStep, any_kind
from mlhooks.testing.trainer_loop import Play, differing, weights
from mlhooks.testing.trainer_trial import Trial
from mlhooks.training.checkpoints import read_state, write_state

UPDATES = 6
_OF_ALL = (HyperparameterSettings, OnPolicyHyperparameters, OffPolicyHyperparameters)
"""Models whose hyperparameters the bases of all trainers read."""


def test_same_seed_gives_the_same_weights(trial: Trial) -> None:
    """Two trainers with one seed end with the same weights bit for bit, and with another seed with others."""
    first, second, other = (
        weights(trial.play(_endless(trial)(seed=7), seed=s).updates(UPDATES).trainer) for s in (1, 1, 2)
    )
    differ = differing(first, second)
    demand(
        not differ,
        f"Two trainers with the same seed differ in {', '.join(differ)}. Draw all randomness from `trainer.rng`, and "
        "iterate over nothing whose order changes, such as sets.",
    )
    demand(
        differing(first, other),
        "Trainers with different seeds have equal weights: something reseeds the generators, such as "
        "torch.manual_seed in create_policy or create_optimizer.",
    )


def test_saved_state_goes_on_as_if_never_saved(trial: Trial, variant: dict[str, Any], scratch: Path) -> None:
    """A trainer that loads another one's saved state has its weights, and learns on exactly as that one does."""
    keep = {**variant, **({"save_replay_buffer": True} if trial.has("save_replay_buffer") else {})}
    count = UPDATES * (2 if "target_update_interval" in variant else 1)  # A target network must have been copied.
    env = _endless(trial)(seed=7)
    play = trial.play(env, hyperparameters=keep).updates(count)
    write_state(scratch / "state.pt", {"mlhooks": {}, **play.trainer.state_dict()})
    saved, place = weights(play.trainer), env.state_dict()
    other = trial.trainer(env.spec, seed=5, hyperparameters=keep, gamma=env.gamma)
    other.load_state_dict(read_state(scratch / "state.pt"))
    differ = differing(saved, weights(other))
    demand(not differ, f"After load_state_dict these tensors differ: {', '.join(differ)}.")
    demand(other.step == play.trainer.step, f"step is {other.step} after loading, and was {play.trainer.step}.")
    again = Play(other, env)
    env.load_state_dict(place)
    other.load_state_dict(read_state(scratch / "state.pt"))
    again.updates(count)
    resumed = weights(other)
    env.load_state_dict(place)
    play.updates(count)
    differ = differing(weights(play.trainer), resumed)
    demand(
        not differ,
        f"{count} updates after loading, these tensors differ from those of the trainer that was never saved: "
        f"{', '.join(differ)}. Something that learning depends on is neither in modules() nor in state_dict().",
    )


def test_resumed_run_equals_one_that_was_never_stopped(trial: Trial, scratch: Path) -> None:
    """A run that is interrupted and resumed ends with the weights of one that was not."""
    keep = {"save_replay_buffer": True} if trial.has("save_replay_buffer") else {}
    settings = {**trial.settings(hyperparameters=keep), "max_steps": 1500}

    def train(folder: Path, *plugins: object, **flags: Any) -> dict[str, torch.Tensor]:
        manager = trial.manager(ScriptedEnvs({"task": _endless(trial)}), *plugins)
        run = train_in(folder, manager, settings, env="scripted:task", flags=flags)
        return weights(run.trainers["Scripted"])

    whole = train(scratch / "whole")
    train(scratch / "stopped", _StopAfter(3))
    resumed = train(scratch / "stopped", **{"checkpoint_settings.resume": True})
    differ = differing(whole, resumed)
    demand(
        not differ,
        f"A run that was interrupted after 3 updates and resumed differs from one that was not in {', '.join(differ)}. "
        "Something that learning depends on is neither in modules() nor in state_dict().",
    )


class _StopAfter:
    """Asks the run to stop, as Ctrl-C does, after some updates."""

    def __init__(self, updates: int) -> None:
        self.left = updates

    @hookimpl
    def run_started(self, run: Any) -> None:
        self.run = run

    @hookimpl
    def update_finished(self) -> None:
        self.left -= 1
        if self.left == 0:
            self.run.stop.requested = True


def test_steps_are_counted_once(trial: Trial) -> None:
    """`trainer.step` is the number of decisions whose reward has come, whatever agents do."""
    for arguments in ({}, {"renewed": True}, {"lazy": True}, {"agents": 3, "renewed": True, "lazy": True}):
        env = any_kind(make_behavior_spec(**trial.any_actions))(**arguments)
        play = trial.play(env).until(700)
        demand(
            play.trainer.step == env.audit.transitions,
            f"trainer.step is {play.trainer.step} after {env.audit.transitions} transitions (with {arguments}).",
        )


@pytest.mark.parametrize("agents", [1, 256])
def test_trains_a_fleet_of(trial: Trial, agents: int) -> None:
    """One agent alone and 256 agents at once train alike."""
    play = trial.play(any_kind(make_behavior_spec(**trial.any_actions))(agents=agents)).updates(3)
    demand(all(np.isfinite(list(losses.values())).all() for losses in play.losses), "Losses are not finite.")


def test_trains_agents_that_come_and_go(trial: Trial) -> None:
    """Agents that vanish, come with new ids and decide at ticks of their own are learned from; slots are reused."""
    env = any_kind(make_behavior_spec(**trial.any_actions))(agents=6, renewed=True, lazy=True)
    play = trial.play(env).until(3000)
    demand(play.losses, "There was no update in 3,000 steps.")
    slots = play.trainer.pool.size
    demand(slots <= 12, f"6 agents at a time, each replaced when its episode ends, have come to hold {slots} slots.")


def test_episodes_are_reported_as_they_were(trial: Trial) -> None:
    """The statistics of returns and lengths are those of the episodes that ended, each once and in order."""
    env = _task(trial)(agents=4)
    play = trial.play(env).until(300)
    summary = play.trainer.stats.get_stats_summaries(REWARD_KEY)
    found, right = np.array(summary.full_dist), np.array(env.audit.returns)
    demand(
        len(found) == len(right) and np.allclose(found, right),
        f"{REWARD_KEY} got {len(found)} values with mean {found.mean() if len(found) else 0:.3f}, and "
        f"{len(right)} episodes ended with a mean return of {right.mean():.3f}.",
    )
    lengths = play.trainer.stats.get_stats_summaries(LENGTH_KEY).full_dist
    demand(set(lengths) == {1.0}, f"{LENGTH_KEY} got {sorted(set(lengths))}, and all episodes have length 1.")


def test_network_settings_are_used(trial: Trial) -> None:
    """`hidden_units`, `num_layers` and `hidden_layers` change the size of the policy's networks and the optimizer's."""
    sizes = [_sizes(trial, hidden_units=units, num_layers=layers) for units, layers in ((16, 1), (48, 1), (16, 3))]
    for owner in ("policy", "optimizer"):
        counts = [of[owner] for of in sizes]
        demand(
            not any(counts) or len(set(counts)) == 3,
            f"With the (hidden_units, num_layers) (16, 1), (48, 1) and (16, 3) the {owner}'s modules have {counts} "
            "parameters: make networks from settings.network_settings.",
        )
    try:
        one, several = _sizes(trial, hidden_layers=[48]), _sizes(trial, hidden_layers=[16, 24, 16])
    except UnsupportedError:
        return
    for owner in ("policy", "optimizer"):
        counts = [one[owner], several[owner]]
        demand(
            counts[0] == sizes[1][owner] and (not any(counts) or counts[1] not in (sizes[2][owner], counts[0])),
            f"With the hidden_layers [48] and [16, 24, 16] the {owner}'s modules have {counts} parameters, and with "
            f"the (hidden_units, num_layers) (48, 1) and (16, 3) {[sizes[1][owner], sizes[2][owner]]}: make networks "
            "of the widths network_settings.layers, or raise UnsupportedError where hidden_layers is set.",
        )


def _sizes(trial: Trial, **network: Any) -> dict[str, int]:
    """Return the number of parameters of the policy's modules and of the optimizer's."""
    made = trial.trainer(_task(trial).spec, network_settings=network)
    owners = {"policy": made.policy.modules(), "optimizer": made.optimizer.modules()}
    return {
        owner: sum(p.numel() for module in modules.values() for p in module.parameters())
        for owner, modules in owners.items()
    }


def test_every_hyperparameter_is_read(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each hyperparameter beyond those of all on-policy or off-policy algorithms is read by what trains with it."""
    if not trial.is_own:
        pytest.skip("its settings are another plugin's")
    inherited = {name for kind in _OF_ALL if issubclass(trial.model, kind) for name in kind.model_fields}
    read: set[str] = set()

    def noting(self: object, name: str) -> Any:
        frame = sys._getframe(1)
        module, checks = frame.f_globals.get("__name__", ""), frame.f_code.co_name == "problems"
        # Settings are dumped, compared and checked there, which trains nothing.
        if not (checks or module.startswith(("mlhooks.settings.", "pydantic."))):
            read.add(name)
        return object.__getattribute__(self, name)

    for variant in variants(trial):
        monkeypatch.setattr(trial.model, "__getattribute__", noting)
        trial.play(_task(trial)(), hyperparameters=variant).updates(2).trainer.state_dict()
        monkeypatch.undo()
    unread = sorted(trial.model.model_fields.keys() - inherited - read)
    demand(
        not unread,
        f"Nothing reads the hyperparameters {', '.join(unread)} in training: a setting that has no effect must not be "
        "offered. Read it, or take it out of the settings.",
    )


def test_memory_does_not_grow(trial: Trial) -> None:
    """50 updates keep nothing for ever: no tensors, graphs or list entries that pile up."""
    env = _task(trial)(agents=64)
    small = {"buffer_size": 256} if trial.has("buffer_init_steps") else {}  # A replay buffer must have filled by then.
    play = trial.play(env, hyperparameters=small).until(1200).updates(40)
    counts = []
    for _ in range(2):
        play.trainer.stats.write_stats(play.trainer.step)
        play.losses.clear()
        env.audit.returns.clear()
        counts.append(_objects())
        play.updates(50)
    demand(
        counts[1] - counts[0] < 45,
        f"50 updates leave {counts[1] - counts[0]:,} more objects and entries of lists and dicts: something keeps what "
        "each update makes, such as losses with their graphs (keep `float(loss)`), or every batch.",
    )


def _objects() -> int:
    gc.collect()
    objects = gc.get_objects()
    return len(objects) + sum(len(o) for o in objects if type(o) in (list, dict, set, deque))


def _task(trial: Trial) -> type[ScriptedEnv]:
    return OneStep if trial.kind.supports.discrete else Aim


def _endless(trial: Trial) -> type[ScriptedEnv]:
    """Return episodes of many decisions, so that what follows a decision is learned from, too."""
    return any_kind(make_behavior_spec((4,), **trial.any_actions))
