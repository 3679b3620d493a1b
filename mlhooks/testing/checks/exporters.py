"""Checks of an exporter: files of its own for each policy, and training left as it was."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from mlagents_envs.base_env import BehaviorSpec

from mlhooks.testing.assertions import demand, works
from mlhooks.testing.collection import COSTS
from mlhooks.testing.process_state import changes, process_state
from mlhooks.testing.short_runs import PPO
from mlhooks.testing.specs import ACTION_KINDS, OBSERVATION_KINDS, make_behavior_spec
from mlhooks.testing.target import Target
from mlhooks.testing.trainer_loop import differing, make_trainer, weights

if TYPE_CHECKING:
    from mlhooks.training.trainer import Trainer

Files = dict[Path, bytes]
"""What was exported, by the paths of the files."""
Export = Callable[["Trainer", Path], Files]
PLAIN = ACTION_KINDS["hybrid"]
KINDS = {
    **{f"{name} actions": spec for name, spec in ACTION_KINDS.items()},
    **{f"{name} observed": make_behavior_spec(continuous=1, **kind) for name, kind in OBSERVATION_KINDS.items()},
}


@pytest.fixture
def trainer(mlhooks_target: Target, scratch: Path) -> Trainer:  # noqa: ARG001 - torch has one thread there.
    """A trainer of PPO, with continuous and discrete actions."""
    return make_trainer(mlhooks_target.manager(), PLAIN, PPO)


@pytest.fixture
def export(mlhooks_target: Target, scratch: Path) -> Export:
    """Exports by the target alone, as a run does, and reads its files; skips where it exports nothing of PPO's."""
    return _exporter(mlhooks_target, scratch, needed=True)


def _exporter(target: Target, scratch: Path, *, needed: bool) -> Export:
    manager = target.manager(without=("policy_file",))
    run = scratch / "run"

    def export(trainer: Trainer, stem: Path) -> Files:
        path = run / stem
        path.parent.mkdir(parents=True, exist_ok=True)
        with works(f"{stem.name} was exported"):
            answers = manager.collect("export_model", trainer=trainer, path=path)
        files = [file for origin, answer in answers if origin.name == target.name for file in answer]
        if needed and not files:
            pytest.skip("it exports no policy of PPO")
        return {file: file.read_bytes() for file in files}

    (run / "run_logs").mkdir(parents=True)
    (run / "run_logs" / "training_status.json").write_text("{}")
    return export


def test_it_exports(mlhooks_target: Target, scratch: Path, trainer: Trainer) -> None:
    """A policy of PPO is exported, into files that are there, that it names, and that are not empty."""
    files = _exporter(mlhooks_target, scratch, needed=False)(trainer, Path("Ball", "Ball-100"))
    demand(files, "export_model named no file: return the paths of the files that it wrote.")
    empty = sorted(path.name for path, data in files.items() if not data)
    demand(not empty, f"{', '.join(empty)} is empty: close the file before export_model returns.")
    written = {path for path in (scratch / "run").rglob("*") if path.is_file()} - files.keys()
    unnamed = sorted(path.name for path in written if path.name != "training_status.json")
    demand(not unnamed, f"export_model wrote {', '.join(unnamed)}, which it did not name: return all paths.")


@pytest.mark.parametrize("spec", KINDS.values(), ids=KINDS)
def test_it_takes_every_behavior(mlhooks_target: Target, scratch: Path, spec: BehaviorSpec) -> None:
    """Policies of all kinds of observations and actions are exported without a failure, or not at all."""
    _exporter(mlhooks_target, scratch, needed=False)(make_trainer(mlhooks_target.manager(), spec, PPO), Path("Ball"))


def test_each_policy_has_files_of_its_own(export: Export, trainer: Trainer) -> None:
    """Checkpoints, behaviors and names with a dot each have files of their own, which no later export changes."""
    stems = [*(f"{name}/{name}-{step}" for name in ("Ball", "Ball.v2") for step in (100, 200)), "Ball", "Ball.v2"]
    found: Files = {}
    for stem in stems:
        files = export(trainer, Path(stem))
        shared = sorted(path.name for path in files.keys() & found.keys())
        demand(
            not shared,
            f"The export of {stem} wrote over {', '.join(shared)} of another one: begin names with that of `path`, as "
            "by path.with_name(f'{path.name}.mine'); with_suffix takes a part of names with a dot for their suffix.",
        )
        found |= files
    changed = sorted(path.name for path, data in found.items() if path.read_bytes() != data)
    demand(not changed, f"A later export changed {', '.join(changed)}: keep no file open, and no place in the module.")


def test_last_export_counts(export: Export, trainer: Trainer) -> None:
    """Where a model is written again, as at the end of a resumed run, the file holds the weights of then."""
    import torch

    stem = Path("Ball")
    before = export(trainer, stem)
    with torch.no_grad():
        for module in trainer.policy.modules().values():
            for parameter in module.parameters():
                parameter.add_(1.0)
    trainer.policy.weights_changed()
    after = export(trainer, stem)
    demand(before.keys() == after.keys(), f"Another export of {stem} has files of other names.")
    demand(before != after, "The files hold the weights of an earlier export: keep nothing from one call to another.")


def test_other_files_stay(mlhooks_target: Target, export: Export, trainer: Trainer, scratch: Path) -> None:
    """The checkpoint, and what lies beside it, stays as it is."""
    folder = scratch / "run" / "Ball"
    folder.mkdir()
    names = ("Ball-100.pt", "Ball-100.policy.pt", "Ball-50.pt", "notes.txt")
    beside = [folder / name for name in names if not (".policy." in name and mlhooks_target.name == "policy_file")]
    for path in beside:
        path.write_text("mine")
    export(trainer, Path("Ball", "Ball-100"))
    changed = [path.name for path in beside if not path.is_file() or path.read_text() != "mine"]
    demand(not changed, f"export_model changed or removed {', '.join(changed)}, which others wrote.")


def test_training_goes_on_as_if_nothing_was_exported(export: Export, trainer: Trainer) -> None:
    """Weights, what of them is trained, random numbers and torch's settings are afterwards what they were."""
    before, modes = weights(trainer), _modes(trainer)
    export(trainer, Path("Ball", "Ball-1"))  # It may import something, once.
    state = process_state()
    export(trainer, Path("Ball", "Ball-2"))
    changed = differing(before, weights(trainer))
    demand(not changed, f"export_model changes {', '.join(changed[:3])}: export a copy, as copy.deepcopy makes it.")
    found = [text for texts in changes(state, process_state()).values() for text in texts]
    demand(
        not found,
        f"export_model leaves the process changed: {'; '.join(found)}. Undo it; for random numbers, there is "
        "`with torch.random.fork_rng():`.",
    )
    left = [name for name, mode in _modes(trainer).items() if modes[name] != mode]
    demand(not left, f"export_model leaves {', '.join(left[:3])} in another mode or frozen: export a copy.")


def _modes(trainer: Trainer) -> dict[str, object]:
    """Return what training needs of modules and parameters beside their numbers, by their names."""
    modes: dict[str, object] = {"policy.deterministic": trainer.policy.deterministic}
    for name, module in trainer.modules().items():
        modes |= {f"{name}.{key}": part.training for key, part in module.named_modules()}
        modes |= {f"{name}.{key}": (part.requires_grad, part.dtype) for key, part in module.named_parameters()}
    return modes


def test_cost_of_an_export_is_reported(
    export: Export, trainer: Trainer, mlhooks_target: Target, request: pytest.FixtureRequest
) -> None:
    """What an export costs, which happens at each checkpoint, is reported; it is no reason to fail."""
    export(trainer, Path("Ball", "Ball-1"))
    began = time.perf_counter()
    export(trainer, Path("Ball", "Ball-2"))
    took = 1e3 * (time.perf_counter() - began)
    request.config.stash[COSTS].append(f"{mlhooks_target.name}: {took:,.0f} ms for an export of a small policy")
