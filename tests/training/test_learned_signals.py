"""Reward signals with networks of their own in whole runs, and what all of them have in common."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mlhooks.cli import main
from mlhooks.errors import NonFiniteError
from mlhooks.fast.switch import plain
from mlhooks.sims import Ball3D, Basic
from mlhooks.testing.demonstrations import write_any_demonstration
from mlhooks.testing.specs import make_behavior_spec
from tests.builtin_plugins.learned_signals import rows_of, signal_of
from tests.scripted import config, train
from tests.training.test_resume import StopAfter, digest

KEYS = {
    "curiosity": {"Losses/Curiosity Forward Loss", "Losses/Curiosity Inverse Loss", "Policy/Curiosity Reward"},
    "rnd": {"Losses/RND Loss", "Policy/Rnd Reward"},
    "gail": {
        "Losses/GAIL Loss",
        "Losses/GAIL KL Loss",
        "Policy/GAIL Beta",
        "Policy/GAIL Expert Estimate",
        "Policy/GAIL Grad Mag Loss",
        "Policy/GAIL Policy Estimate",
        "Policy/Gail Reward",
    },
}
NETWORK = {"hidden_units": 8, "num_layers": 1, "normalize": True}
HYPERPARAMETERS = {
    "ppo": {"batch_size": 60, "buffer_size": 240},
    "a2c": {"batch_size": 60, "buffer_size": 240},
    "sac": {"batch_size": 16, "buffer_size": 500, "steps_per_update": 12, "save_replay_buffer": True},
    "dqn": {"batch_size": 16, "buffer_size": 500, "steps_per_update": 12, "save_replay_buffer": True},
}


def run_of(folder: Path, trainer_type: str, signals: Sequence[str], **more: Any) -> dict[str, Any]:
    """Return a short run on balls, or for DQN in a row of places, with rewards of the environment and signals."""
    balls = trainer_type != "dqn"
    given: dict[str, Any] = {name: {"strength": 0.1, "network_settings": NETWORK} for name in signals}
    if "gail" in given:
        demo = write_any_demonstration(folder / "expert.demo", (Ball3D if balls else Basic).SPEC)
        given["gail"] |= {"demo_path": str(demo), "use_actions": True, "use_vail": True}
    return config(
        "3DBall" if balls else "Basic",
        "sim:3DBall" if balls else "sim:Basic",
        **{
            "trainer_type": trainer_type,
            "max_steps": 600,
            "hyperparameters": HYPERPARAMETERS[trainer_type],
            "reward_signals": {"extrinsic": {}, **given},
            **more,
        },
    )


def reported(folder: Path) -> dict[str, list[float]]:
    """Return the values that a run wrote, by statistics key."""
    found: dict[str, list[float]] = {}
    for line in (folder / "run" / "stats.jsonl").read_text().splitlines():
        for key, value in json.loads(line)["values"].items():
            found.setdefault(key, []).append(value if isinstance(value, float) else value["mean"])
    return found


@pytest.mark.parametrize("trainer_type", HYPERPARAMETERS)
def test_all_signals_learn_beside_every_trainer_and_report_as_in_ml_agents(tmp_path: Path, trainer_type: str) -> None:
    run = train(run_of(tmp_path, trainer_type, list(KEYS)), tmp_path)
    (trainer,) = run.trainers.values()
    found = reported(tmp_path)
    for signal in trainer.reward_signals[1:]:
        wanted = KEYS[signal.name]
        if trainer_type in ("ppo", "a2c"):
            wanted = wanted | {f"Policy/{signal.name.capitalize()} Value Estimate"}
        assert wanted <= found.keys()
        assert all(np.isfinite(found[key]).all() for key in wanted)
        assert signal.updates > 4
        assert signal.step > 400
    assert max(found["Policy/Curiosity Reward"]) > 0


@pytest.mark.parametrize("trainer_type", ["ppo", "sac"])
def test_resumed_run_goes_on_exactly(tmp_path: Path, trainer_type: str) -> None:
    settings = run_of(tmp_path, trainer_type, list(KEYS))
    train(settings, tmp_path / "whole")
    stopped = train(settings, tmp_path / "stopped", StopAfter(8))
    assert 0 < stopped.trainers["3DBall"].step < 600
    assert stopped.trainers["3DBall"].reward_signals[1].updates
    train(settings, tmp_path / "stopped", resume=True)
    assert digest(tmp_path / "stopped", 600) == digest(tmp_path / "whole", 600)


def test_policy_begins_with_the_same_weights_with_and_without_signals(tmp_path: Path) -> None:
    first = [
        train(run_of(tmp_path, "ppo", signals, max_steps=100), tmp_path / str(len(signals))).trainers["3DBall"]
        for signals in ([], list(KEYS))
    ]
    both = [list(trainer.policy.actor.parameters()) for trainer in first]
    assert all(torch.equal(*pair) for pair in zip(*both, strict=True))


@pytest.mark.parametrize("name", KEYS)
@pytest.mark.parametrize(
    "spec",
    [
        make_behavior_spec((3, (3, 20, 20)), branches=(2,)),
        make_behavior_spec(((3, 20, 20),), continuous=2),
        make_behavior_spec((2, (4, 3)), branches=(2,)),
        make_behavior_spec((2,), continuous=1, goals=(3,)),
    ],
    ids=["image-and-vector", "image", "entities", "goal"],
)
def test_all_observations_are_read_and_all_networks_learn(tmp_path: Path, name: str, spec: Any) -> None:
    signal = signal_of(name, spec, network={"normalize": True}, folder=tmp_path)
    assert signal.layout.size == rows_of(signal).obs.shape[1]
    before = [p.detach().clone() for p in signal.descent.flat]
    batch = rows_of(signal, 6)
    for _ in range(2):
        signal.update(batch)
    assert all(not torch.equal(p, old) for p, old in zip(signal.descent.flat, before, strict=True))
    assert torch.isfinite(signal.rewards(batch)).all()


def test_images_that_are_bytes_mean_what_their_floats_do() -> None:
    signal = signal_of("rnd", make_behavior_spec(((3, 20, 20),), branches=(2,)))
    pixels = torch.randint(256, (5, signal.layout.size), dtype=torch.uint8)
    given = [signal.rewards(rows_of(signal, 5, obs=obs)) for obs in (pixels, pixels / 255)]
    assert torch.allclose(*given, rtol=1e-4)


@pytest.mark.parametrize("name", KEYS)
def test_rows_that_do_not_count_teach_nothing(tmp_path: Path, name: str) -> None:
    counts = torch.arange(24) % 4 != 1
    masked, short = (signal_of(name, folder=tmp_path) for _ in range(2))
    batch = rows_of(masked, loss_mask=counts)
    masked.update(batch)
    short.update(batch[counts.nonzero().squeeze(1)].map(torch.clone))
    assert all(torch.equal(*pair) for pair in zip(masked.descent.flat, short.descent.flat, strict=True))
    nothing = rows_of(masked, loss_mask=torch.zeros(24, dtype=torch.bool))
    assert masked.update(nothing) == {}
    assert masked.updates == 1


@pytest.mark.parametrize("name", KEYS)
def test_plain_torch_learns_the_same(tmp_path: Path, name: str) -> None:
    learned = []
    for without in (False, True):
        with plain(without):
            signal = signal_of(name, learning_rate=0.01, folder=tmp_path)
            reports = [signal.update(rows_of(signal, seed=seed)) for seed in range(5)]
            learned.append([*reports[-1].values(), signal.rewards(rows_of(signal))])
    assert all(torch.allclose(*pair, rtol=1e-3) for pair in zip(*learned, strict=True))


@pytest.mark.parametrize("name", KEYS)
def test_rewards_have_no_graph_and_come_times_strength(tmp_path: Path, name: str) -> None:
    signal = signal_of(name, strength=0.25, folder=tmp_path)
    batch = rows_of(signal)
    signal.update(batch)
    rewards = signal.rewards(batch)
    assert not rewards.requires_grad
    assert torch.allclose(rewards, 0.25 * signal.evaluate(batch).detach())
    assert rewards.shape == (len(batch),)


@pytest.mark.parametrize("name", KEYS)
def test_many_rows_are_evaluated_some_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    signal, sizes = signal_of(name, folder=tmp_path, use_actions=True) if name == "gail" else signal_of(name), []
    batch = rows_of(signal, 26)
    signal.update(batch)
    at_once, evaluate = signal.rewards(batch), signal.evaluate

    def counted(part: Any) -> torch.Tensor:
        sizes.append(len(part))
        return evaluate(part)

    monkeypatch.setattr(signal, "evaluate", counted)
    monkeypatch.setattr("mlhooks.training.learned_signal.CHUNK_ROWS", 8)
    torch.testing.assert_close(signal.rewards(batch), at_once)
    assert sizes == [8, 8, 8, 2]


@pytest.mark.parametrize("name", KEYS)
def test_numbers_that_are_not_finite_change_nothing_and_are_named(tmp_path: Path, name: str) -> None:
    signal = signal_of(name, folder=tmp_path)
    batch, before = rows_of(signal), signal.descent.flat.data.clone()
    batch.obs[3, 1] = torch.nan
    signal.step = 4321
    with pytest.raises(NonFiniteError, match=r"(?s)Losses/.* = nan.*step 4,321.*No parameter was changed"):
        signal.update(batch)
    assert torch.equal(signal.descent.flat.data, before)


def said_by_check(tmp_path: Path, capsys: pytest.CaptureFixture[str], signals: str) -> tuple[int, str]:
    file = tmp_path / "a.yaml"
    file.write_text(
        "behaviors:\n  Basic:\n    reward_signals:\n"
        f"      extrinsic: {{}}\n{signals}\nenv_settings: {{env_path: 'sim:Basic'}}\n"
    )
    code = main(["config", "check", str(file)])
    captured = capsys.readouterr()
    return code, captured.out + captured.err


@pytest.mark.parametrize("name", KEYS)
def test_strength_of_nothing_is_refused_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    demo = f"demo_path: '{write_any_demonstration(tmp_path / 'a.demo', Basic.SPEC)}'" if name == "gail" else ""
    code, said = said_by_check(tmp_path, capsys, f"      {name}:\n        strength: 0\n        {demo}")
    assert code == 2
    assert f"a.yaml:6:19: error: behaviors.Basic.reward_signals.{name}.strength: a strength of 0" in said


def test_memory_of_a_signal_is_a_warning(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = said_by_check(tmp_path, capsys, "      rnd: {network_settings: {memory: {}}}")
    assert code == 0
    assert "reward_signals.rnd.network_settings.memory: networks of reward signals have no memory" in said


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ("{}", "reward_signals.gail.demo_path: a required key is missing"),
        ("{demo_path: nowhere.demo}", "There is no demonstration nowhere.demo"),
        ("{demo_path: .}", "does not fit the behavior 'Basic': it has the discrete branches [5] in place of [3]"),
    ],
)
def test_demonstration_that_is_missing_or_does_not_fit_is_refused_with_its_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, given: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    write_any_demonstration(tmp_path / "walk.demo", make_behavior_spec((20,), branches=(5,)))
    code, found = said_by_check(tmp_path, capsys, f"      gail: {given}")
    assert code == 2
    assert said in found
    assert "a.yaml:5" in found


def test_policy_is_used_without_the_demonstration(tmp_path: Path) -> None:
    settings = run_of(tmp_path, "ppo", ["gail"], max_steps=240)
    train(settings, tmp_path)
    (tmp_path / "expert.demo").unlink()
    run = train(settings, tmp_path, resume=True, flags={"checkpoint_settings.inference": True}, episodes=1)
    assert run.outcome.status == "finished"
