"""Obstacles to trying a trainer type at all: found in a moment, and said once instead of by every check."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from difflib import get_close_matches

from mlhooks.testing.specs import make_behavior_spec
from mlhooks.testing.tasks import any_kind
from mlhooks.testing.trainer_loop import Play
from mlhooks.testing.trainer_trial import FIRST_UPDATE, Trial
from mlhooks.training.trainer import Trainer

READ_OF_TRAINERS = (
    "hyperparameters_type",
    "policy_type",
    "optimizer_type",
    "store_type",
    "supports",
    "conformance_settings",
    "conformance_exempt",
)
READ_OF_PLUGINS = ("conformance_environments", "conformance_exempt")
AGENTS = 16
_ALIKE = 0.86  # `hyperparameters`, which is a good name, is less like `hyperparameters_type`


def obstacle(trial: Trial) -> str | None:
    """Say why a trainer type cannot be tried, in sentences for its author; None where it can."""
    return class_fault(trial.kind) or _no_update(trial)


def class_fault(kind: type[Trainer]) -> str | None:
    """Return what a trainer class lacks so that it cannot be tried, or None."""
    if not isinstance(kind.conformance_settings, Mapping):
        return f"{kind.__name__}.conformance_settings must be a mapping, the settings of a behavior as in YAML."
    return None


def _no_update(trial: Trial) -> str | None:
    try:
        trainer = trial.trainer(make_behavior_spec(**trial.any_actions))
        play = Play(trainer, any_kind(trainer.behavior_spec)(agents=AGENTS), learning=False)
        for _ in range(2 * FIRST_UPDATE // AGENTS):
            play.act()
            if trainer.ready_to_update():
                return None
            if trainer.step >= FIRST_UPDATE:
                break
    except Exception:
        return None  # A check says what is wrong.
    kind, sizes = trial.kind, trainer.settings.hyperparameters.model_dump()
    shown = ", ".join(f"{name} {sizes[name]:,}" for name in ("buffer_size", "buffer_init_steps") if sizes.get(name))
    settings = f"{kind.__name__}.conformance_settings"
    cause = f"What {settings} sets is too large for small tasks"
    if not kind.conformance_settings:
        missing = f"there is no {settings}{_meant(kind, 'conformance_settings')}"
        cause = f"These settings suit most trainers, and {missing}"
    return (
        f"There was no update within {FIRST_UPDATE:,} steps, with {shown}. {cause}: name settings there with which it "
        'learns in seconds, such as {"hyperparameters": {"buffer_size": 256, "batch_size": 64}}.'
    )


def misspelt(owner: object, known: Iterable[str]) -> dict[str, str]:
    """Return attributes whose names are, but for a slip, names that mlhooks reads, with those names."""
    names = list(known)
    found = {}
    own = vars(owner) if inspect.isclass(owner) else dir(owner)
    for name in [name for name in own if name not in names and not name.startswith("_")]:
        near = get_close_matches(name, names, n=1, cutoff=_ALIKE)
        if near:
            found[name] = near[0]
    return found


def classes_of(kind: type) -> list[type]:
    """Return the classes of which a trainer type is made, without those of mlhooks."""
    return [each for each in kind.__mro__ if each.__module__.partition(".")[0] not in {"mlhooks", "builtins", "abc"}]


def _meant(kind: type, name: str) -> str:
    """Return a question in brackets, where an attribute of a class is called nearly so."""
    near = {right: wrong for each in classes_of(kind) for wrong, right in misspelt(each, READ_OF_TRAINERS).items()}
    return f" (did you mean {name} by {near[name]}?)" if name in near else ""
