"""What docs/compatibility.md promises: no public name disappears unnoticed."""

from __future__ import annotations

import inspect
import pkgutil
import re
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import get_args

import click
import pytest

import mlhooks
from mlhooks import hookspecs, plugin
from mlhooks.cli.group import build_cli
from mlhooks.plugins import PluginManager, load_plugins
from mlhooks.settings import RunOptions, SettingsModel, SettingsRegistry, TrainerSettings
from mlhooks.testing import plugin as testing_plugin
from mlhooks.testing.trainer_obstacles import READ_OF_PLUGINS, READ_OF_TRAINERS

ROOT = Path(__file__).parents[1]
PROMISED: dict[str, list[str]] = defaultdict(list)
for line in (ROOT / "tests" / "public_names.txt").read_text(encoding="utf-8").splitlines():
    KIND, _, NAME = line.partition(" ")
    PROMISED[KIND].append(NAME)
BUILTINS = tuple(f"builtin_plugins.{name}" for name in ("ppo", "a2c", "dqn", "sac", "poca"))
BASES = ("Settings", "Policy", "Optimizer", "Trainer")


def hooks() -> Iterator[str]:
    """Yield each hook, and each of its arguments."""
    for name in vars(PluginManager().hook):
        yield name
        yield from (f"{name} {argument}" for argument in inspect.signature(getattr(hookspecs, name)).parameters)


def names() -> Iterator[str]:
    yield from (f"mlhooks.{name}" for name in mlhooks.__all__)
    yield from (f"mlhooks.plugin.{name}" for name in plugin.__all__)
    for module in BUILTINS:
        found = pkgutil.resolve_name(module)
        own = [name for name, thing in vars(found).items() if getattr(thing, "__module__", "") == module]
        yield from (f"{module}.{name}" for name in own if name.endswith(BASES))


@cache
def attributes_of(kind: type) -> set[str]:
    """Return the attributes that a class itself annotates or sets."""
    return {*inspect.get_annotations(kind), *re.findall(r"self\.([a-z]\w*)", inspect.getsource(kind))}


def members() -> Iterator[str]:
    """Yield what the classes of `mlhooks.plugin` have and a plugin may use: methods, and attributes that are set."""
    for name in plugin.__all__:
        kind = getattr(plugin, name)
        if not inspect.isclass(kind):
            continue
        own = (attributes_of(each) for each in kind.__mro__ if each.__module__.startswith("mlhooks"))
        for attribute in set(dir(kind)).union(*own):
            if not attribute.startswith("_"):
                yield f"{name}.{attribute}"


def commands() -> Iterator[str]:
    """Return each command, and each of its options; those of plugins are theirs."""

    def below(command: click.Command, words: str) -> Iterator[str]:
        yield words
        for parameter in command.params:
            yield from (f"{words} {option}" for option in (*parameter.opts, *parameter.secondary_opts) if "-" in option)
        if isinstance(command, click.Group):
            context = click.Context(command)
            for name in command.list_commands(context):
                inner = command.get_command(context, name)
                if inner is not None and not inner.hidden:
                    yield from below(inner, f"{words} {name}")

    return below(build_cli(["-p", "no:none"]), "mlhooks")


def keys() -> Iterator[str]:
    """Yield each key of a configuration; `*` stands for names that people choose."""

    def models(annotation: object) -> Iterator[tuple[type[SettingsModel], bool]]:
        if inspect.isclass(annotation) and issubclass(annotation, SettingsModel):
            yield annotation, False
        for part in get_args(annotation):
            named = getattr(annotation, "__origin__", None) is dict
            yield from ((model, named or inner) for model, inner in models(part))

    def below(model: type[SettingsModel], start: str) -> Iterator[str]:
        for name, field in model.model_fields.items():
            yield f"{start}{name}"
            for inner, named in models(field.annotation):
                if inner is not TrainerSettings:
                    yield from below(inner, f"{start}{name}.{'*.' if named else ''}")

    registry = SettingsRegistry.from_plugins(load_plugins(autoload=False))
    yield from below(RunOptions, "")
    yield from below(TrainerSettings, "behaviors.*.")
    for kind in ("ppo", "a2c", "dqn", "sac", "poca"):
        model = registry.hyperparameters(kind)
        assert model is not None
        yield from below(model, f"behaviors.*.hyperparameters({kind}).")


def fixtures() -> Iterator[str]:
    yield from (name for name, thing in vars(testing_plugin).items() if "ixture" in type(thing).__name__)


def options() -> Iterator[str]:
    yield from re.findall(r'"(--mlhooks-\w+)"', inspect.getsource(testing_plugin))


def attributes() -> Iterator[str]:
    yield from (f"trainer {name}" for name in READ_OF_TRAINERS)
    yield from (f"plugin {name}" for name in READ_OF_PLUGINS)


KINDS = {
    "hook": hooks,
    "name": names,
    "member": members,
    "command": commands,
    "key": keys,
    "fixture": fixtures,
    "option": options,
    "attribute": attributes,
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_public_name_has_disappeared(kind: str) -> None:
    there = set(KINDS[kind]())
    gone = [name for name in PROMISED[kind] if name not in there]
    assert PROMISED[kind]
    assert gone == [], "docs/compatibility.md says how a public name is deprecated before it goes"


def test_every_line_of_the_list_is_of_a_kind_that_is_checked() -> None:
    assert PROMISED.keys() == KINDS.keys()
    for promised in PROMISED.values():
        assert promised == sorted(set(promised))


def test_each_kind_of_name_is_found_where_it_is_and_missed_where_it_is_not() -> None:
    for kind, wrong in {"hook": "write_stats values_", "member": "Batch.rows", "command": "mlhooks run --sed"}.items():
        assert wrong not in set(KINDS[kind]())
