"""The fixtures of conformance tests: the target, a folder, and for trainers a trial of each trainer type."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from mlhooks.testing.assertions import works
from mlhooks.testing.collection import CheckModule, exemptions
from mlhooks.testing.managers import offered
from mlhooks.testing.target import Target
from mlhooks.testing.trainer_obstacles import class_fault, obstacle
from mlhooks.testing.trainer_trial import Trial
from mlhooks.testing.trainer_types import trainer_types

if TYPE_CHECKING:
    from mlhooks.testing.writer_run import Start


FOLDER: pytest.StashKey[Path] = pytest.StashKey()
OBSTACLES: pytest.StashKey[dict[tuple[str, str], str | None]] = pytest.StashKey()
SAYS_OBSTACLE = "test_it_can_be_tried"


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Give every check of trainers each trainer type, and every check of environments each environment."""
    module = metafunc.definition.getparent(CheckModule)
    if module is None:
        return
    if "trainer_type" in metafunc.fixturenames:
        names = sorted(trainer_types(module.target))
        if "variant" in metafunc.fixturenames:
            pairs = [(name, variant) for name in names for variant in variants(Trial(module.target, name))]
            ids = [f"{name}-{'-'.join(f'{k}={v}' for k, v in variant.items()) or 'as_is'}" for name, variant in pairs]
            metafunc.parametrize(("trainer_type", "variant"), pairs, ids=ids)
        else:
            metafunc.parametrize("trainer_type", names)
    if "reward_signal" in metafunc.fixturenames:
        metafunc.parametrize("reward_signal", sorted(offered(module.target.plugin, "get_reward_signals")))
    if "environment" in metafunc.fixturenames:
        from mlhooks.testing.environments import environments_of

        given: list[str] = metafunc.config.getoption("--mlhooks-env")
        metafunc.parametrize("environment", environments_of(module.target, given, _folder(metafunc.config)))


def _folder(config: pytest.Config) -> Path:
    """Return a folder for what plugins need to be tried, which lasts as long as the tests."""
    if FOLDER not in config.stash:
        folder = tempfile.TemporaryDirectory(prefix="mlhooks-")
        config.add_cleanup(folder.cleanup)
        config.stash[FOLDER] = Path(folder.name)
    return config.stash[FOLDER]


def variants(trial: Trial) -> list[dict[str, Any]]:
    """Return hyperparameters under which values are checked: as they are, each switch turned, n-step returns."""
    if class_fault(trial.kind):
        return [{}]  # A check says what is wrong.
    given = trial.settings()["hyperparameters"]
    found: list[dict[str, Any]] = [{}]
    for name, model_field in trial.model.model_fields.items():
        if model_field.annotation is bool and name != "save_replay_buffer":
            found.append({name: not given.get(name, model_field.default)})
    if trial.has("n_step"):
        found.append({"n_step": 3})
    if trial.has("tau", "target_update_interval"):
        found.append({"tau": 1.0, "target_update_interval": 200})
    return found


def target_of(request: pytest.FixtureRequest) -> Target:
    """Return the target to which the requesting check is applied."""
    module: CheckModule | None = request.node.getparent(CheckModule)
    assert module is not None
    return module.target


@pytest.fixture
def mlhooks_target(request: pytest.FixtureRequest) -> Target:
    """The plugin that is checked; skips a check from which it is exempt."""
    target = target_of(request)
    _skip_if_exempt(request, target)
    return target


def _skip_if_exempt(request: pytest.FixtureRequest, target: Target, *owners: object) -> None:
    """Skip a check that the plugin, or the class that is tried, names in `conformance_exempt`, with its reason."""
    if request.node.originalname == "test_it_imports":
        return
    try:
        plugin = target.plugin
    except Exception:
        pytest.skip("it does not import")
    for owner in (plugin, *owners):
        reason = exemptions(owner).get(request.node.originalname)
        if reason:
            pytest.skip(f"exempt: {reason}")


@pytest.fixture
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder, which is the current one; torch computes in one thread, which is faster for small networks."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    torch.set_num_threads(threads)


@pytest.fixture
def trial(request: pytest.FixtureRequest, trainer_type: str, scratch: Path) -> Trial:  # noqa: ARG001
    """One trainer type of the target; skips a check from which it is exempt, and all where it cannot be tried."""
    trial = Trial(target_of(request), trainer_type)
    _skip_if_exempt(request, trial.target, trial.kind)
    if request.node.originalname != SAYS_OBSTACLE:
        found = request.config.stash.setdefault(OBSTACLES, {})
        key = trial.target.name, trainer_type
        if key not in found:
            found[key] = obstacle(trial)
        if message := found[key]:
            pytest.skip(message)
    return trial


@pytest.fixture
def start(mlhooks_target: Target, scratch: Path, capfd: pytest.CaptureFixture[str]) -> Iterator[Start]:
    """Starts runs of a stats writer; those that a check leaves open are finished after it."""
    from mlhooks.testing.writer_run import WriterRun

    runs: list[WriterRun] = []
    parts: list[str] = []

    def printed() -> str:
        parts.append(capfd.readouterr().out)
        return "".join(parts)

    def start(folder: str = "results", **arguments: Any) -> WriterRun:
        with works("a run started"):
            runs.append(WriterRun(mlhooks_target, scratch / folder, printed=printed, **arguments))
        if not runs[-1].writes:
            pytest.skip("the plugin registers nothing that implements write_stats, on_add_stat or add_property")
        return runs[-1]

    yield start
    for run in runs:
        run.manager.strict = False
        run.finish()
