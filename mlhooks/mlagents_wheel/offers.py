"""Trainer types of ML-Agents' kind, as classes that mlhooks can use; the package is imported when one is asked for."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from importlib.machinery import PathFinder
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

from mlhooks.deferred import Deferred
from mlhooks.errors import PluginUnfit
from mlhooks.mlagents_wheel import patches
from mlhooks.plugin_sources import Origin, describe

if TYPE_CHECKING:
    from mlhooks.settings import HyperparameterSettings

PACKAGE, PREFIX = patches.PACKAGE, f"{patches.PACKAGE}:"
OWN_TYPES = ("ppo", "sac", "poca")
"""The trainer types that `mlagents` itself has."""
HOW_TO_GET = "pip install 'mlhooks[mlagents]' && pip install --no-deps --ignore-requires-python mlagents==1.1.0"
"""The commands that install the package `mlagents`, with what it needs here."""


def is_installed() -> bool:
    """Return whether the package `mlagents` is there, without importing it."""
    return sys.modules.get(PACKAGE, PACKAGE) is not None and PathFinder.find_spec(PACKAGE) is not None


@dataclass(frozen=True)
class Offer:
    """One trainer type of a package.

    Attributes:
        name: as the package calls it.
        origin: whose it is.
        load: returns the trainer class and its settings class.
        is_own: whether it is one of ML-Agents itself.
    """

    name: str
    origin: Origin
    load: Callable[[], tuple[type, type]]
    is_own: bool = False

    @cached_property
    def classes(self) -> tuple[type, type]:
        """The trainer class and its settings class."""
        return self.load()


class _Hyperparameters(Deferred):
    """The model of a trainer type's hyperparameters, made when it is first asked for."""

    def __init__(self, offer: Offer) -> None:
        self._offer = offer
        self._model: type[HyperparameterSettings] | None = None

    def __get__(self, _: object, owner: type | None = None) -> type[HyperparameterSettings]:
        if self._model is None:
            from mlhooks.mlagents_wheel.hyperparameters import model_of

            self._model = model_of(self._offer.classes[1], self._offer)
        return self._model


def trainer_types(offers: Iterable[Offer]) -> dict[str, type]:
    """Return the trainer classes of offers by the names that always mean them, `mlagents:NAME`."""
    from mlhooks.mlagents_wheel.trainer import WheelTrainer

    types: dict[str, type] = {}
    for offer in offers:
        contents = {"offer": offer, "hyperparameters_type": _Hyperparameters(offer), "__module__": __name__}
        types[f"{PREFIX}{offer.name}"] = type(f"WheelTrainer_{offer.name}", (WheelTrainer,), contents)
    return types


def is_own(trainer_type: Any) -> bool:
    """Return whether a trainer class is one of ML-Agents itself."""
    offer = getattr(trainer_type, "offer", None)
    return isinstance(offer, Offer) and offer.is_own


def own_offers() -> list[Offer]:
    """Return those of `mlagents` itself; none where it is not installed."""
    if not is_installed():
        return []
    origin = _own_origin()
    return [Offer(name, origin, _own(name), is_own=True) for name in OWN_TYPES]


def _own_origin() -> Origin:
    try:
        return Origin(PACKAGE, PACKAGE, version(PACKAGE))
    except PackageNotFoundError:  # It is a folder of that name on the path.
        return Origin(PACKAGE, source="package mlagents")


def _own(name: str) -> Callable[[], tuple[type, type]]:
    def load() -> tuple[Any, Any]:
        patches.install()
        try:
            from mlagents.plugins.trainer_type import get_default_trainer_types
        except ImportError as error:
            raise PluginUnfit(
                f"{_own_origin()} does not import: {describe(error)}. What it needs comes with: "
                "pip install 'mlhooks[mlagents]'"
            ) from error
        types, settings = get_default_trainer_types()
        return types[name], settings[name]

    return load
