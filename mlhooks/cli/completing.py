"""Completions of the values of arguments and flags, for shells. Nothing here imports torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import click

Tree: TypeAlias = Mapping[str, "Tree | tuple[str, ...]"]
"""Settings by name: a section has a tree of its own, and a setting its possible values, if they are few."""
Complete: TypeAlias = Callable[[click.Context, click.Parameter, str], list[str]]


def safely(complete: Complete) -> Complete:
    """Return a completion that offers nothing where it fails, because a traceback would disturb the prompt."""

    def offer(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:
        try:
            return complete(ctx, param, incomplete)
        except Exception:
            return []

    return offer


@safely
def configurations(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Offer examples by name, and YAML files."""
    from mlhooks.example_configs import example_names

    return [*_starting(example_names(), incomplete), *_paths(incomplete, {".yaml", ".yml"})]


@safely
def run_ids(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Offer the runs in the results folder."""
    from mlhooks.training.run_files import runs_below

    folder = Path(ctx.params.get("results_dir") or "results")
    return _starting(runs_below(folder), incomplete)


@safely
def environments(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Offer environment kinds, the names behind their schemes, classes in Python files, and paths of players."""
    from mlhooks.cli import claims
    from mlhooks.envs.references import classes_of

    place, colon, _ = incomplete.rpartition(":")
    if colon and place.endswith(".py"):
        return _starting((f"{place}:{name}" for name in classes_of(Path(place))), incomplete)
    if colon:
        return _starting((f"{place}:{name}" for name in _names(place)), incomplete)
    kinds = [f"{kind}:" for kind in claims.claimed(claims.ENVIRONMENT_KINDS, _files(ctx)) if kind != "unity"]
    paths = [f"{path}:" if path.endswith(".py") else path for path in _paths(incomplete, None)]
    return [*_starting(kinds, incomplete), *paths]


@safely
def trainer_types(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Offer the trainer types of built-in and installed plugins."""
    from mlhooks.cli import claims

    return _starting(claims.claimed(claims.TRAINER_TYPES, _files(ctx)), incomplete)


@safely
def plugins(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Offer plugins by name, also with `no:` in front, and Python files."""
    from mlhooks.plugin_sources import builtins, from_entry_points

    names = [candidate.origin.name for candidate in (*builtins(), *from_entry_points())]
    names += [f"no:{name}" for name in names]
    return [*_starting(names, incomplete), *_paths(incomplete, {".py"})]


@safely
def settings(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[str]:  # noqa: ARG001
    """Offer paths of settings, one part after the other, and values where they are few."""
    path, equals, _ = incomplete.partition("=")
    *above, last = path.split(".")
    branch: Any = _settings(ctx)
    for part in [*above, *([last] if equals else [])]:
        branch = branch.get(part) if isinstance(branch, Mapping) else None
    if equals:
        return _starting((f"{path}={each}" for each in branch), incomplete) if isinstance(branch, tuple) else []
    if not isinstance(branch, Mapping):
        return []
    found = {name: "." if isinstance(below, Mapping) else "=" for name, below in branch.items()}
    return [f"{'.'.join([*above, name])}{end}" for name, end in found.items() if name.startswith(last)]


def _settings(ctx: click.Context) -> Tree:
    from mlhooks.settings import RunOptions

    tree = {name: _below(field) for name, field in RunOptions.model_fields.items()}
    behavior = _behavior(ctx)
    return {**tree, "default_settings": behavior, "behaviors": dict.fromkeys(_behaviors(ctx), behavior)}


def _behavior(ctx: click.Context) -> Tree:
    """Return the settings of a behavior, with the hyperparameters of all trainer types."""
    import mlhooks.settings as models
    from mlhooks.cli import claims

    trainers = claims.hyperparameters(_files(ctx))
    own: dict[str, Tree | tuple[str, ...]] = {}
    for fields, bases in trainers.values():
        for base in bases:
            own |= _tree(getattr(models, base, models.HyperparameterSettings))
        own |= {field: () for field in fields if field not in own}
    signals = {"extrinsic": _tree(models.RewardSignalSettings)}
    entry = {**_tree(models.TrainerSettings), "hyperparameters": own, "reward_signals": signals}
    return {**entry, "trainer_type": tuple(sorted(trainers))}


def _tree(model: Any) -> dict[str, Tree | tuple[str, ...]]:
    return {name: _below(field) for name, field in model.model_fields.items()}


def _below(field: Any) -> Tree | tuple[str, ...]:
    """Return what a key of a settings model may hold: the keys of its section, or its values, if they are few."""
    from typing import get_args

    from mlhooks.settings import SettingsModel
    from mlhooks.settings.base import choices

    for kind in get_args(field.annotation) or (field.annotation,):
        if isinstance(kind, type) and issubclass(kind, SettingsModel):
            return _tree(kind)
    return tuple(choices(field.annotation)) or (("true", "false") if field.annotation is bool else ())


def _behaviors(ctx: click.Context) -> list[str]:
    """Return `*` and the behaviors of the named configuration."""
    # While the value of a flag is being typed, click has not assigned the arguments yet.
    config = ctx.params.get("config") or ctx.params.get("file") or next(iter(ctx.args), None)
    names: Iterable[str] = ()
    if config is not None:
        import yaml

        from mlhooks.errors import UsageError
        from mlhooks.example_configs import find_config

        try:
            names = yaml.safe_load(find_config(config).read_text(encoding="utf-8"))["behaviors"]
        except (UsageError, OSError, ValueError, TypeError, KeyError, yaml.YAMLError):
            names = ()
    return ["*", *(f'"{name}"' if "." in name else name for name in map(str, names))]


def _names(kind: str) -> Iterable[str]:
    """Return the names that a built-in environment kind knows; importing others would be too slow."""
    from importlib import import_module

    from mlhooks.plugin_sources import BUILTIN_PLUGINS

    for module in BUILTIN_PLUGINS:
        if module.endswith(f".{kind}_env"):
            names = import_module(module).get_env_types()[kind].names
            return names() if names is not None else ()
    return ()


def _files(ctx: click.Context) -> list[Path]:
    """Return the plugin files that the command line names."""
    named = [Path(name) for name in ctx.params.get("plugin_names") or () if name.endswith(".py")]
    folder = ctx.params.get("plugins_dir")
    return [*named, *(sorted(Path(folder).glob("*.py")) if folder else ())]


def _starting(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _paths(incomplete: str, suffixes: set[str] | None) -> Iterator[str]:
    """Yield folders, with a slash behind them, and files with one of these suffixes."""
    folder, slash, start = incomplete.rpartition("/")
    for path in sorted(Path(folder or slash or ".").iterdir()):
        if path.name.startswith(start) and (start or not path.name.startswith(".")):
            if path.is_dir():
                yield f"{folder}{slash}{path.name}/"
            elif suffixes is None or path.suffix in suffixes:
                yield f"{folder}{slash}{path.name}"
