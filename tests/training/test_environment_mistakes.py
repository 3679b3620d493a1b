"""What the author of an environment is told about mistakes in it: the same in process and in worker processes."""

from __future__ import annotations

import inspect
import re
from abc import abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlagents_envs.base_env import ActionSpec

from mlhooks import hookimpl
from mlhooks.envs.factory import EnvironmentKind
from mlhooks.errors import EnvironmentFailure, MlhooksError, PluginError
from mlhooks.stats import StatsAggregationMethod
from tests.envs.numbered import Numbered
from tests.scripted import config, train

NO_RESTARTS = {"env_settings.max_lifetime_restarts": 0}
BOTH = pytest.mark.parametrize("workers", [1, 2], ids=["in process", "processes"])


class Offer:
    """A plugin that offers `test:ANY`."""

    def __init__(self, make: Callable[..., Any]) -> None:
        self.make = make

    @hookimpl
    def get_env_types(self) -> Mapping[str, Any]:
        return {"test": self.make}


def said(
    folder: Path, make: Callable[..., Any], workers: int = 1, error: type[MlhooksError] = EnvironmentFailure
) -> str:
    """Return what a run says that this keeps from going on."""
    settings = config("Numbers", "test:x", max_steps=400)
    with pytest.raises(error) as caught:
        train(settings, folder, Offer(make), flags={"env_settings.num_envs": workers, **NO_RESTARTS})
    return str(caught.value)


def line_of(thing: Any, text: str) -> str:
    """Return where a text stands in the source of something here."""
    lines, start = inspect.getsourcelines(thing)
    (offset,) = [index for index, line in enumerate(lines) if text in line]
    return f"{Path(__file__).name}:{start + offset}"


class Spoilt(Numbered):
    """Sends steps of which something is wrong, from its third step on."""

    def __init__(self, worker: int, what: str) -> None:
        super().__init__(worker)
        self.what = what

    def get_steps(self, behavior_name: str) -> Any:
        decisions, terminals = super().get_steps(behavior_name)
        if self.total > 2:
            getattr(self, f"_spoil_{self.what}")(decisions)
        return decisions, terminals

    def _spoil_shape(self, decisions: Any) -> None:
        decisions.obs[0] = decisions.obs[0][:, :3]

    def _spoil_reward(self, decisions: Any) -> None:
        decisions.reward = decisions.reward[:, None]

    def _spoil_count(self, decisions: Any) -> None:
        decisions.obs = decisions.obs * 2

    def _spoil_mask(self, decisions: Any) -> None:
        decisions.action_mask = [np.zeros((3, 2), np.bool_)]

    def _spoil_ids(self, decisions: Any) -> None:
        decisions.agent_id = np.array([2, 0, 2], np.int32)

    def _spoil_texts(self, decisions: Any) -> None:
        decisions.obs[0] = np.full((3, 4), "a")

    def _spoil_objects(self, decisions: Any) -> None:
        decisions.reward = np.array([None] * 3)

    def _spoil_lack(self, decisions: Any) -> None:
        del decisions.agent_id


def spoilt(name: str, *, worker_id: int, **_: Any) -> Spoilt:
    return Spoilt(worker_id, name)


WRONG = {
    "shape": "the observation 0 has the shape (3, 3), and not (3, 4) as its spec and the number of its agents say.",
    "reward": "the reward has the shape (3, 1), and not (3,) as its spec and the number of its agents say.",
    "count": "its spec asks for observation 0, and the environment sent 2 such arrays.",
    "mask": "its spec asks for action mask 0, action mask 1, and the environment sent 1 such arrays.",
    "texts": "the observation 0 consists of <U1, and not of numbers.",
    "objects": "the reward consists of object, and not of numbers.",
    "lack": "a DecisionSteps among its steps has no agent_id.",
    "ids": "an agent asks for more than one decision in one step: agent_id has 2 several times.",
}


@pytest.mark.parametrize(("what", "workers"), [*((what, 1) for what in WRONG), ("ids", 2)])
def test_steps_that_do_not_fit_are_named(tmp_path: Path, what: str, workers: int) -> None:
    text = said(tmp_path, partial(spoilt_as, what), workers)
    assert f"failed: Behavior 'Numbers': {WRONG[what]} It is not started again, since it would" in text


def spoilt_as(what: str, _: str, **arguments: Any) -> Spoilt:
    return spoilt(what, **arguments)


def test_error_that_steps_do_not_explain_stays_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlhooks.training.trainer import Trainer

    def observe(*_: Any) -> None:
        raise ZeroDivisionError("of the trainer's own")

    monkeypatch.setattr(Trainer, "observe", observe)
    with pytest.raises(ZeroDivisionError, match="of the trainer's own"):
        train(config("Numbers", "test:x"), tmp_path, Offer(lambda *_, **__: Numbered()))


class Broken(Numbered):
    def step(self) -> None:
        if self.total == 3:
            np.broadcast_to(self.rng.random(3), (4,))
        super().step()


def broken(*_: Any, **__: Any) -> Broken:
    return Broken()


def test_error_of_an_environment_names_its_line(tmp_path: Path) -> None:
    text = said(tmp_path, broken)
    assert "failed: ValueError: operands could not be broadcast" in text
    assert line_of(Broken, "np.broadcast_to") + "). It was not restarted" in text


class Fails(Numbered):
    """Raises something in a step."""

    def __init__(self, at: int, error: str) -> None:
        super().__init__()
        self.at, self.error = at, error

    def step(self) -> None:
        if self.total == self.at:
            raise {"mistake": TypeError, "accident": RuntimeError}[self.error]("of the environment")
        super().step()


def fails_at(at: int, error: str, *_: Any, **__: Any) -> Fails:
    return Fails(at, error)


@BOTH
@pytest.mark.parametrize(
    ("at", "error", "final"),
    [
        (0, "accident", "It is not started again, since no environment of this run has made a step yet."),
        (0, "mistake", "It is not started again, since it would fail in the same way."),
        (7, "mistake", "It is not started again, since it would fail in the same way."),
    ],
)
def test_what_would_come_back_ends_the_run_without_a_restart(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, workers: int, at: int, error: str, final: str
) -> None:
    settings = config("Numbers", "test:x", max_steps=400)
    with pytest.raises(EnvironmentFailure) as caught:
        train(settings, tmp_path, Offer(partial(fails_at, at, error)), flags={"env_settings.num_envs": workers})
    assert str(caught.value).endswith(f"{line_of(Fails, 'raise')}). {final}")
    assert "started again, and the run goes on" not in caplog.text


class NeverBegins(Numbered):
    def reset(self) -> None:
        raise ValueError("no level")


def never_begins(*_: Any, **__: Any) -> NeverBegins:
    return NeverBegins()


@BOTH
def test_error_of_the_first_reset_is_the_environments(tmp_path: Path, workers: int) -> None:
    text = said(tmp_path, never_begins, workers)
    assert re.match(r"The environment of worker [01] failed: ValueError: no level \(", text)
    assert text.endswith(line_of(NeverBegins, "raise") + ").")


def takes_too_little(name: str, seed: int) -> Numbered:
    return Numbered(seed)


@pytest.mark.parametrize(
    "make", [takes_too_little, EnvironmentKind(takes_too_little, lambda *_: None)], ids=["function", "kind"]
)
def test_factory_that_does_not_take_the_arguments_is_named(tmp_path: Path, make: Callable[..., Any]) -> None:
    text = said(tmp_path, make, error=PluginError)
    assert text.startswith(
        "The environment kind 'test' of plugin 'Offer' (registered in code) must take the arguments of make(name"
    )
    assert "make(name, *, worker_id, seed, num_areas, options, side_channels)" in text
    assert line_of(takes_too_little, "def ") in text
    assert "unexpected keyword argument 'worker_id'" in text


def test_signature_is_named_by_workers_too(tmp_path: Path) -> None:
    text = said(tmp_path, takes_too_little, 2, PluginError)
    assert text.startswith("The environment kind 'test' of plugin 'Offer' (registered in code) must take")


def fails(name: str, **_: Any) -> Numbered:
    raise FileNotFoundError(f"no level {name}")


def test_error_of_a_factory_names_its_plugin_and_line(tmp_path: Path) -> None:
    text = said(tmp_path, fails)
    assert text.startswith(
        "The environment kind 'test' of plugin 'Offer' (registered in code) failed to make its environment: "
        "FileNotFoundError: no level x ("
    )
    assert text.endswith(line_of(fails, "raise") + ").")


class Unfinished(Numbered):
    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()

    @abstractmethod
    def left_out(self) -> None: ...


def test_class_that_lacks_a_method_is_named(tmp_path: Path) -> None:
    text = said(tmp_path, Unfinished)
    assert "abstract class Unfinished" in text
    assert "left_out" in text
    assert text.endswith(line_of(Unfinished, "class ") + ").")


class NoEnvironment:
    def reset(self) -> None: ...

    def step(self) -> None: ...


@pytest.mark.parametrize(
    ("made", "what"),
    [(NoEnvironment, "a NoEnvironment"), (lambda: None, "None")],
)
def test_what_is_no_environment_is_refused_at_once(tmp_path: Path, made: Callable[[], Any], what: str) -> None:
    text = said(tmp_path, lambda *_, **__: made(), error=PluginError)
    assert f"must make a mlagents_envs.base_env.BaseEnv; it made {what}" in text
    assert "get_steps, set_actions, close." in text


class Lies(Numbered):
    """Tells something of itself that is not so."""

    def __init__(self, worker: int, what: str) -> None:
        super().__init__(worker)
        self.what = what

    @property
    def behavior_specs(self) -> Any:
        specs = super().behavior_specs
        (spec,) = specs.values()
        return {
            "no specs": None,
            "no name": {3: spec},
            "no spec": {"Numbers": 3},
            "no branch": {"Numbers": spec._replace(action_spec=ActionSpec(0, (2, 0)))},
            "no size": {"Numbers": spec._replace(observation_specs=[spec.observation_specs[0]._replace(shape=(4, 0))])},
        }.get(self.what, specs)

    def get_steps(self, behavior_name: str) -> Any:
        if self.what == "no steps":
            return None
        lie, self.what = self.what, ""  # The steps are made by the true specs.
        steps = super().get_steps("Numbers")
        self.what = lie
        return steps

    def take_stats(self) -> Any:
        average = StatsAggregationMethod.AVERAGE
        answers = {"no stats": 5, "no number": [("a", None, average)], "no method": [("a", 1.0, "average")]}
        return answers.get(self.what, [("good", np.float32(1), average)])


LIES = {
    "no specs": "Its behavior_specs is None, and must be a mapping of behavior names to BehaviorSpecs.",
    "no name": "The environment calls a behavior 3, an int: a name is a text.",
    "no spec": "Behavior 'Numbers': its spec is 3, an int, and must be a BehaviorSpec.",
    "no branch": "it has the discrete branches (2, 0), and each must offer one action or more.",
    "no size": "has the shape (4, 0), and must have whole numbers above 0.",
    "no steps": "Its get_steps('Numbers') returned None, and must return the pair (DecisionSteps, TerminalSteps).",
    "no stats": "Its take_stats returned 5, an int, and must return a list of statistics.",
    "no number": "Its take_stats returned ('a', None, ",
    "no method": "Its take_stats returned ('a', 1.0, 'average'), whose last is no StatsAggregationMethod.",
}


@pytest.mark.parametrize(("what", "workers"), [*((what, 1) for what in LIES), ("no stats", 2)])
def test_what_an_environment_tells_is_checked(tmp_path: Path, what: str, workers: int) -> None:
    assert LIES[what] in said(tmp_path, lambda _, *, worker_id, **__: Lies(worker_id, what), workers)


class Mute(Numbered):
    """Has a state that cannot be saved."""

    def __init__(self, worker: int, state: Callable[[], Any]) -> None:
        super().__init__(worker)
        self.state = state

    def state_dict(self) -> Any:
        return self.state()

    def load_state_dict(self, state: Any) -> None:
        pytest.fail("loaded")


@pytest.mark.parametrize(
    ("state", "why"),
    [
        (lambda: {}["key"], "KeyError: 'key' ("),
        (lambda: {"env": object}, "state to be saved holds the class object, at envs.env."),
    ],
)
def test_state_that_cannot_be_saved_costs_no_checkpoint(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, state: Callable[[], Any], why: str
) -> None:
    offer = Offer(lambda _, *, worker_id, **__: Mute(worker_id, state))
    settings = config("Numbers", "test:x", max_steps=400)
    assert train(settings, tmp_path, offer).outcome.status == "finished"
    (text,) = [record.getMessage() for record in caplog.records if "cannot be saved" in record.getMessage()]
    assert text.startswith(
        f"The state of the environment cannot be saved, and a run that is resumed will begin new {''}"
    )
    assert why in text
    settings = config("Numbers", "test:x", max_steps=600)
    assert train(settings, tmp_path, offer, resume=True).trainers["Numbers"].step >= 600
