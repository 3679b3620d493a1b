"""Behaviors of a checkpoint that the environment never shows, or shows late; and those that it has not."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mlhooks import hookimpl
from mlhooks.envs.factory import EnvironmentKind
from mlhooks.errors import EnvironmentFailure, UsageError
from mlhooks.training import awaited_behaviors
from mlhooks.training.run import Run
from tests.scripted import Corridor, Env, config, train
from tests.training.test_run import Pair, pair_config

INFERENCE = {"checkpoint_settings.inference": True, "checkpoint_settings.resume": True}


def defaults(max_steps: int = 100) -> dict[str, Any]:
    """Return the settings of whatever behavior appears."""
    settings = config("Corridor", "test:x", max_steps=max_steps)
    settings["default_settings"] = settings.pop("behaviors")["Corridor"]
    return settings


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in sorted(folder.rglob("*.pt")) + sorted(folder.rglob("*.yaml"))}


@pytest.mark.parametrize("max_steps", [200, 1_000_000])
def test_resume_with_another_environment_is_refused_and_leaves_the_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, max_steps: int
) -> None:
    train(defaults(), tmp_path, Env())
    before = contents(tmp_path)
    with pytest.raises(UsageError, match=r"test:x shows 'Other', and in 1,000 steps none of 'Corridor', which the ch"):
        train(defaults(max_steps), tmp_path, Env(lambda: Corridor("Other")), resume=True)
    assert "has not shown 'Corridor' of the configuration or the checkpoint; it shows 'Other'" in caplog.text
    assert contents(tmp_path) == before
    assert train(defaults(200), tmp_path, Env(), resume=True).trainers["Corridor"].step == 200


class Known:
    """Offers `test:ANY` with behaviors whose names are known in advance."""

    def __init__(self, *names: str) -> None:
        self.names = names

    @hookimpl
    def get_env_types(self) -> dict[str, Any]:
        kind = EnvironmentKind(lambda *_, **__: pytest.fail("made"), lambda *_: None, lambda *_: self.names)
        return {"test": kind}


@pytest.mark.parametrize("flags", [{"checkpoint_settings.resume": True}, INFERENCE], ids=["resume", "inference"])
def test_environment_that_tells_its_behaviors_is_refused_before_it_is_made(
    tmp_path: Path, flags: dict[str, Any]
) -> None:
    train(defaults(), tmp_path, Env())
    before = contents(tmp_path)
    with pytest.raises(UsageError, match=r"test:x shows 'Other', and the checkpoint of this run has 'Corridor'"):
        train(defaults(200), tmp_path, Known("Other"), flags=flags)
    assert contents(tmp_path) == before


class Solo(Pair):
    """Shows the second behavior from its step `late` on."""

    late: float = float("inf")

    @property
    def behavior_specs(self) -> Any:
        specs = dict(super().behavior_specs)
        if self.first.steps < self.late:
            specs.pop("Second", None)
        return specs


def solo(late: float) -> Callable[[], Solo]:
    def make() -> Solo:
        env = Solo()
        env.late = late
        return env

    return make


def longer(first: int, second: int) -> dict[str, Any]:
    settings = pair_config()
    settings["behaviors"]["First"]["max_steps"] = first
    settings["behaviors"]["Second"]["max_steps"] = second
    return settings


def test_run_ends_when_all_but_what_never_appears_is_done_and_saves_that(tmp_path: Path) -> None:
    train(pair_config(), tmp_path, Env(Pair))
    with pytest.raises(EnvironmentFailure, match=r"is done, but it has not shown 'Second' of the checkpoint in 1,000"):
        train(longer(500, 700), tmp_path, Env(solo(float("inf"))), resume=True)
    status = json.loads((tmp_path / "run/run_logs/training_status.json").read_text())
    assert {name: status[name]["final_checkpoint"]["steps"] for name in ("First", "Second")} == {
        "First": 500,
        "Second": 600,
    }


def test_behavior_that_is_done_is_not_awaited(tmp_path: Path) -> None:
    train(pair_config(), tmp_path, Env(Pair))
    run = train(longer(500, 600), tmp_path, Env(solo(float("inf"))), resume=True)
    assert run.outcome.status == "finished"
    assert run.trainers["First"].step == 500


def test_behavior_that_appears_late_goes_on(tmp_path: Path) -> None:
    train(pair_config(), tmp_path, Env(Pair))
    run = train(longer(500, 700), tmp_path, Env(solo(awaited_behaviors.PATIENCE - 10)), resume=True)
    assert run.outcome.status == "finished"
    assert {name: trainer.step for name, trainer in run.trainers.items()} == {"First": 500, "Second": 700}


def infer(folder: Path, make: Callable[[], Any], settings: dict[str, Any]) -> Run:
    return train(settings, folder, Env(make), flags=INFERENCE, episodes=40)


def test_inference_of_what_was_never_trained_is_refused(tmp_path: Path) -> None:
    train(defaults(), tmp_path, Env())
    with pytest.raises(UsageError, match=r"test:x shows 'Other', and the checkpoint of this run has 'Corridor'"):
        infer(tmp_path, lambda: Corridor("Other"), defaults())


def test_inference_says_loudly_what_acts_untrained_beside_what_was_trained(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = pair_config()
    train(settings, tmp_path, Env(lambda: Corridor("First")))
    run = infer(tmp_path, Pair, settings)
    assert "'Second' is not in the checkpoint of this run: it acts by an UNTRAINED policy" in caplog.text
    assert run.evaluation is not None
    assert {name: len(returns) for name, returns in run.evaluation.returns.items()} == {"First": 40, "Second": 40}


def test_inference_takes_the_weights_that_the_settings_name(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = pair_config()
    train(settings, tmp_path, Env(lambda: Corridor("First")))
    settings["behaviors"]["Second"]["init_path"] = str(tmp_path / "run" / "First.policy.pt")
    infer(tmp_path, Pair, settings)
    assert "UNTRAINED" not in caplog.text


def test_inference_ends_when_a_behavior_of_the_checkpoint_never_appears(tmp_path: Path) -> None:
    train(pair_config(), tmp_path, Env(Pair))
    with pytest.raises(EnvironmentFailure, match="has not shown 'Second' of the checkpoint"):
        infer(tmp_path, solo(float("inf")), pair_config())
