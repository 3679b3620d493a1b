"""Checks of what hooks return: one for each hook that returns something, made as soon as a plugin has answered.

A check returns the answer in the form in which it is used, or raises WrongAnswer. Classes that need torch are looked up
among the modules that are imported: a plugin whose answer is one of them has imported them.
"""

from __future__ import annotations

import inspect
import os
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from numbers import Real
from pathlib import Path
from typing import Any
from uuid import UUID

from mlhooks.deferred import Deferred
from mlhooks.describing import shown, shown_with_type, with_article
from mlhooks.errors import WrongAnswer
from mlhooks.names import MANIFEST
from mlhooks.places import path_below
from mlhooks.shortening import cut

Given = Mapping[str, Any]
"""The arguments of the call that is answered."""

SCHEME = r"[A-Za-z][A-Za-z0-9_.+-]+"
"""What can stand before the colon of `--env`; one letter alone is a drive."""
PARTS = {"policy_type": "mlhooks.training.policy.Policy", "optimizer_type": "mlhooks.training.optimizer.Optimizer"}
"""The parts that a trainer class may name, and what they must be."""
_MANAGER = ("ready", "send", "reset", "close", "fail", "state_dict")
"""What a run uses of an environment manager."""


def checked(hook: str, answer: Any, given: Given) -> Any:
    """Check what a plugin returned from a hook, and return it as it is used; hooks without a check may return anything.

    Args:
        hook: the name of the hook.
        answer: what came, not None.
        given: the arguments of the call.

    Raises:
        WrongAnswer: says what came and what is wanted.
    """
    check = CHECKS.get(hook)
    return answer if check is None else check(answer, given)


def _env_types(answer: Any, _: Given) -> dict[str, Any]:
    kinds = _mapping(answer, "a mapping of schemes to factories, such as {'maze': make_maze}")
    for scheme, factory in kinds.items():
        if not re.fullmatch(SCHEME, scheme):
            raise WrongAnswer(
                f"it names the scheme {shown(scheme)}, which --env cannot reach: a scheme is two or more letters, "
                "digits and _.+-, and begins with a letter"
            )
        if not callable(factory):
            raise WrongAnswer(f"its factory of {scheme!r} is {shown(factory)}, which cannot be called")
    return kinds


def _trainer_types(answer: Any, _: Given) -> dict[str, Any]:
    kinds = _mapping(answer, "a mapping of trainer types to trainer classes, such as {'mine': MyTrainer}")
    for name, kind in kinds.items():
        _class(kind, "mlhooks.training.trainer.Trainer", f"its {name!r}")
        if isinstance(inspect.getattr_static(kind, "hyperparameters_type", None), Deferred):
            continue
        if not hasattr(kind, "hyperparameters_type"):
            slip = get_close_matches("hyperparameters_type", dir(kind), 1)
            hint = f" (did you mean that by {slip[0]}?)" if slip else ""
            raise WrongAnswer(f"its {kind.__name__} has no hyperparameters_type{hint}, the model of its settings")
        _model(kind.hyperparameters_type, "HyperparameterSettings", f"{kind.__name__}.hyperparameters_type")
        for attribute, base in PARTS.items():
            if (part := getattr(kind, attribute)) is not None:
                _class(part, base, f"{kind.__name__}.{attribute}")
    return kinds


def _reward_signals(answer: Any, _: Given) -> dict[str, Any]:
    signals = _mapping(answer, "a mapping of names to pairs, such as {'mine': (MySignal, MySettings)}")
    for name, pair in signals.items():
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise WrongAnswer(
                f"its {name!r} is {shown(pair)}, and must be a pair: a RewardSignal class and the model of its settings"
            )
        _class(pair[0], "mlhooks.training.reward_signals.RewardSignal", f"the first of its {name!r}")
        _model(pair[1], "RewardSignalSettings", f"the second of its {name!r}")
    return {name: tuple(pair) for name, pair in signals.items()}


def _plugin_settings(answer: Any, _: Given) -> dict[str, Any]:
    from pydantic import BaseModel, RootModel  # The command line starts without this import.

    models = _mapping(answer, "a mapping of names to pydantic models, such as {'mine': MySettings}")
    for name, model in models.items():
        if not isinstance(model, type) or not issubclass(model, BaseModel) or issubclass(model, RootModel):
            hint = f"; return the class {type(model).__name__}" if isinstance(model, BaseModel) else ""
            raise WrongAnswer(
                f"its {name!r} is {shown(model)}, and must be a subclass of mlhooks.plugin.SettingsModel, or another "
                f"pydantic model that is a section of settings{hint}"
            )
        for key, field in model.model_fields.items():
            if field.alias is not None or field.validation_alias is not None:
                raise WrongAnswer(f"its {name!r} has an alias for {key!r}, and a setting has one name")
    return models


def _env_manager(answer: Any, _: Given) -> Any:
    missing = [name for name in _MANAGER if not callable(getattr(answer, name, None))]
    if missing or isinstance(answer, type):
        lack = f", and has no {', '.join(missing)}" if missing else ""
        raise WrongAnswer(f"it returned {with_article(answer)}, which is no mlhooks.plugin.EnvManager{lack}")
    return answer


def _policy(answer: Any, _: Given) -> Any:
    _instance(answer, "mlhooks.training.policy.Policy")
    if not hasattr(answer, "inputs"):
        raise WrongAnswer(f"the __init__ of its {type(answer).__name__} does not call super().__init__(...)")
    return answer


def _optimizer(answer: Any, _: Given) -> Any:
    return _instance(answer, "mlhooks.training.optimizer.Optimizer")


def _side_channels(answer: Any, _: Given) -> list[Any]:
    channels = _list(answer, "a list of side channels")
    for channel in channels:
        whole = isinstance(getattr(channel, "channel_id", None), UUID) and hasattr(channel, "message_queue")
        if not whole or not callable(getattr(channel, "on_message_received", None)):
            raise WrongAnswer(
                f"it returned {shown(channel)} among its side channels, which is none: a side channel has channel_id, "
                "a uuid.UUID, message_queue and on_message_received, as a SideChannel of mlagents_envs has after "
                "super().__init__(channel_id)"
            )
    return channels


def _numbers(answer: Any, _: Given) -> dict[str, float]:
    numbers = _mapping(answer, "a mapping of statistics keys to numbers")
    return {key: _number(key, value) for key, value in numbers.items()}


def _number(key: str, value: Any) -> float:
    import numpy as np  # The command line starts without this import.

    hint = "; a number comes from it by .item()" if hasattr(value, "item") else ""
    if not isinstance(value, (Real, np.bool_)):
        raise WrongAnswer(f"its {key!r} is {shown_with_type(value)}, and must be a number{hint}")
    try:
        return float(value)
    except OverflowError:
        raise WrongAnswer(f"its {key!r} is {shown(value)}, which is too large for a float") from None


def _exported(answer: Any, given: Given) -> list[Path]:
    stem = Path(given["path"])
    # Beside a checkpoint the stem is in the behavior's folder, and at the end of a run in the run's.
    folder = stem.parent.parent if (stem.parent.parent / MANIFEST).is_file() else stem.parent
    files: dict[Path, None] = {}
    for item in _list(answer, "a list of the paths of the files that it wrote"):
        if not isinstance(item, (str, os.PathLike)) or not isinstance(os.fspath(item), str) or "\0" in str(item):
            raise WrongAnswer(f"it returned {shown(item)} among the files that it wrote, and must return their paths")
        named, below = cut(str(item), 200), path_below(folder, Path(item))
        if below is None:
            raise WrongAnswer(f"it names {named}, which is not in the run's folder {folder}: export into {stem.parent}")
        inside = folder / below
        if not _is(inside, Path.is_file):
            what = "a folder: name the files in it" if _is(inside, Path.is_dir) else "not there, or is no regular file"
            raise WrongAnswer(f"it names {named} as a file that it wrote, which is {what}")
        if folder != stem.parent and inside == stem.with_name(f"{stem.name}.pt"):
            raise WrongAnswer(f"it names {named}, which is the checkpoint: export under another suffix than .pt")
        files[inside] = None
    return list(files)


def check_files(files: Any) -> None:
    """Refuse what a plugin has made of the files of a `RunOutcome`, which others show to people.

    Raises:
        WrongAnswer: they are no lists of paths by what they are.
    """
    wanted = "lists of paths by what they are, such as {'video': [path]}"
    if not isinstance(files, dict):
        raise WrongAnswer(f"it made the files of the outcome {shown(files)}, which must be {wanted}")
    for what, paths in files.items():
        good = isinstance(what, str) and isinstance(paths, list)
        if not good or not all(isinstance(path, (str, os.PathLike)) for path in paths):
            raise WrongAnswer(f"it made {shown(what)} of the outcome's files {shown(paths)}: they are {wanted}")


def _is(path: Path, kind: Callable[[Path], bool]) -> bool:
    try:
        return kind(path)
    except OSError:  # The name is too long, for example.
        return False


def _nothing(answer: Any, _: Given) -> None:
    raise WrongAnswer(f"it returned {shown(answer)}, and must add its commands to `cli` and return nothing")


def _mapping(answer: Any, wanted: str) -> dict[str, Any]:
    if not isinstance(answer, Mapping):
        raise WrongAnswer(f"it returned {shown(answer)}, and must return {wanted}")
    for key in answer:
        if not isinstance(key, str) or not key:
            raise WrongAnswer(f"it returned the key {shown_with_type(key)}, and must return {wanted}")
    return dict(answer)


def _list(answer: Any, wanted: str) -> list[Any]:
    if not isinstance(answer, Iterable) or isinstance(answer, (str, bytes, Mapping)):
        raise WrongAnswer(f"it returned {shown(answer)}, and must return {wanted}")
    return list(answer)  # A generator runs here, where its failure has a name.


def _class(kind: Any, base: str, which: str) -> None:
    known = _imported(base)
    if not isinstance(kind, type) or known is None or not issubclass(kind, known):
        raise WrongAnswer(f"{which} is {shown(kind)}, and must be a subclass of {_public(base)}")
    if inspect.isabstract(kind):
        missing = ", ".join(sorted(getattr(kind, "__abstractmethods__", ())))
        raise WrongAnswer(f"{which} is {shown(kind)}, which lacks {missing}")


def _model(model: Any, base: str, which: str) -> None:
    from mlhooks import settings  # The command line starts without this import.

    if not isinstance(model, type) or not issubclass(model, getattr(settings, base)):
        raise WrongAnswer(f"{which} is {shown(model)}, and must be a subclass of mlhooks.plugin.{base}")


def _instance(thing: Any, base: str) -> Any:
    known = _imported(base)
    if known is None or not isinstance(thing, known):
        raise WrongAnswer(f"it returned {shown_with_type(thing)}, and must return a {_public(base)}")
    return thing


def _public(base: str) -> str:
    """Return the name by which a plugin's author knows it, wherever it is defined."""
    return f"mlhooks.plugin.{base.rpartition('.')[2]}"


def _imported(name: str) -> type | None:
    module, _, attribute = name.rpartition(".")
    return getattr(sys.modules.get(module), attribute, None)


CHECKS: Mapping[str, Callable[[Any, Given], Any]] = {
    "register_commands": _nothing,
    "get_env_types": _env_types,
    "get_trainer_types": _trainer_types,
    "get_reward_signals": _reward_signals,
    "get_plugin_settings": _plugin_settings,
    "create_env_manager": _env_manager,
    "create_policy": _policy,
    "create_optimizer": _optimizer,
    "register_side_channels": _side_channels,
    "summary_stats": _numbers,
    "export_model": _exported,
}
"""The check of each hook that may return something; the results of the others are ignored."""
