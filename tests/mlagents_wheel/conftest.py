"""A tiny `mlagents`, of which the tests install what they need; none of them needs the real package."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from mlhooks.mlagents_wheel import stand_ins

CATTR = """
    class global_converter:
        hooks = []
        def register_unstructure_hook_func(predicate, function):
            global_converter.hooks.append((predicate, function))
        def unstructure(value):
            for predicate, function in reversed(global_converter.hooks):
                if predicate(type(value)):
                    return function(value)
            return getattr(value, "value", value)
    unstructure = global_converter.unstructure
"""
TRAINER = """
    import abc
    class Trainer(abc.ABC):
        @abc.abstractmethod
        def advance(self): ...
"""
SETTINGS = """
    import attr
    class TrainerConfigError(Exception): ...
    @attr.s(auto_attribs=True)
    class HyperparamSettings:
        batch_size: int = 1024
    @attr.s(auto_attribs=True)
    class RewardSignalSettings:
        gamma: float = 0.99
    def check_and_structure(key, value, kind):
        if key not in attr.fields_dict(kind):
            raise TrainerConfigError(f"The option {key} is invalid.")
        return attr.fields_dict(kind)[key].type(value)
    def strict_to_cls(values, kind):
        return kind(**{key: check_and_structure(key, value, kind) for key, value in values.items()})
"""
OWN = """
    import attr
    from mlagents.trainers.trainer import Trainer
    @attr.s(auto_attribs=True)
    class PPOSettings:
        batch_size: int = 1024
        beta: float = 0.005
    class PPOTrainer(Trainer):
        def advance(self): ...
    def get_default_trainer_types():
        return dict.fromkeys(("ppo", "sac", "poca"), PPOTrainer), dict.fromkeys(("ppo", "sac", "poca"), PPOSettings)
"""


@pytest.fixture(autouse=True)
def _nothing_stays(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget modules of `mlagents` and of `cattr`, real or not, before and after a test."""
    before = {name: module for name, module in sys.modules.items() if _is_meant(name)}
    finders = list(sys.meta_path)
    for name in before:
        del sys.modules[name]
    monkeypatch.delenv("MLHOOKS_DISABLE_PLUGIN_AUTOLOAD", raising=False)
    yield
    for name in [name for name in sys.modules if _is_meant(name)]:
        del sys.modules[name]
    sys.modules.update(before)
    sys.meta_path[:] = [
        finder for finder in sys.meta_path if finder in finders or finder.__class__.__module__ != stand_ins.__name__
    ]


def _stands_in(finder: object) -> bool:
    return type(finder).__module__ == stand_ins.__name__


def _is_meant(name: str) -> bool:
    return name.partition(".")[0] in {"mlagents", "cattr"}


@pytest.fixture
def wheel(install: Callable[..., Path]) -> Callable[..., Path]:
    """Install a tiny `mlagents` 1.1.0, with modules by dotted name, in place of those that it has by default."""

    def make(**modules: str) -> Path:
        entry = {"default": "mlagents.plugins.trainer_type:get_default_trainer_types"}
        site = install("mlagents", entry, group="mlagents.trainer_type", version="1.1.0", cattr=CATTR)
        sources = {
            "mlagents.plugins.trainer_type": OWN,
            "mlagents.trainers.settings": SETTINGS,
            "mlagents.trainers.trainer": TRAINER,
            **modules,
        }
        for name, source in sources.items():
            path = site.joinpath(*name.split(".")).with_suffix(".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            for parent in [path.parent, *path.parent.parents]:
                if parent == site:
                    break
                (parent / "__init__.py").touch()
            path.write_text(dedent(source))
        importlib.invalidate_caches()
        return site

    return make
