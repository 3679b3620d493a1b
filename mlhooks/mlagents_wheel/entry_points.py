"""Packages that bring trainers to ML-Agents, as plugins of mlhooks: their functions are called, their types offered."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from mlhooks import hookimpl
from mlhooks.errors import PluginError
from mlhooks.mlagents_wheel import patches
from mlhooks.mlagents_wheel.offers import (
    HOW_TO_GET,
    OWN_TYPES,
    PACKAGE,
    Offer,
    is_installed,
    own_offers,
    trainer_types,
)
from mlhooks.plugin_sources import Candidate, Origin

GROUP = "mlagents.trainer_type"
NEEDED = ("attr", "cattr", "h5py", "onnx", "tensorboard")
"""The modules that `mlagents` imports, and that come with the extra."""
logger = logging.getLogger("mlhooks")


def trainer_types_of(candidate: Candidate, origin: Origin) -> Candidate:
    """Return the plugin of an entry point under `mlagents.trainer_type`; that of `mlagents` itself imports nothing."""
    importer = OwnTypes if origin.distribution == PACKAGE else partial(_load, candidate, origin)
    return Candidate(origin, importer, module=candidate.module, in_workers=False)


def lacks_mlagents(error: ImportError) -> bool:
    """Return whether an import failed because `mlagents` is not installed, and not for another reason."""
    return error.name is not None and error.name.partition(".")[0] == PACKAGE and not is_installed()


def imported(candidate: Candidate, origin: Origin) -> Any:
    """Import the object that an entry point names, with `mlagents` patched so that it can be imported here.

    Raises:
        PluginError: `mlagents` is there without what it needs itself.
        Exception: of whatever type, by the package.
    """
    patches.install()
    try:
        with patches.old_modules():
            try:
                return candidate.importer()
            except ModuleNotFoundError as error:
                if error.name != "tensorboard":
                    raise
                from mlhooks.mlagents_wheel import stand_ins  # Nobody else needs this import.

                stand_ins.install_summary_writer()
                return candidate.importer()
    except ModuleNotFoundError as error:
        if error.name not in NEEDED:
            raise
        raise PluginError(
            f"{origin} does not load: it, or the package mlagents which it imports, needs {error.name}, which is not "
            f"installed: pip install 'mlhooks[mlagents]'. {origin.advice}"
        ) from error


def _load(candidate: Candidate, origin: Origin) -> object:
    try:
        function = imported(candidate, origin)
        if isinstance(function, type) or not callable(function):
            raise TypeError(f"{GROUP} wants a function, such as get_type_and_setting, not {function!r}")
        return TrainerTypes(origin, _offers(function, origin))
    except ImportError as error:  # It may come from inside the function, too.
        if not lacks_mlagents(error):
            raise
        return TrainerTypes(origin, [], is_left_out=True)


def _offers(function: Callable[[], Any], origin: Origin) -> list[Offer]:
    answer = function()
    is_pair = isinstance(answer, tuple | list) and len(answer) == 2
    if not (is_pair and all(isinstance(part, Mapping) for part in answer)):
        raise TypeError(
            f"{function.__name__}() returned {answer!r:.200}, not a pair: trainer classes and settings classes by the "
            "name of the trainer type"
        )
    types, settings = answer
    return [
        Offer(name, origin, partial(_both, kind, _settings_of(name, kind, settings)))
        for name, kind in types.items()
        if _checked(name, kind).__module__.partition(".")[0] != PACKAGE  # `OwnTypes` offers ML-Agents' own.
    ]


def _both(kind: type, settings: type) -> tuple[type, type]:
    return kind, settings


def _checked(name: object, kind: Any) -> type:
    from mlagents.trainers.trainer import Trainer

    if not isinstance(name, str) or not name:
        raise TypeError(f"it names a trainer type {name!r}, and must name it by a text")
    if not isinstance(kind, type) or not issubclass(kind, Trainer):
        raise TypeError(f"its {name!r} is {kind!r:.200}, and must be a trainer class of ML-Agents")
    if inspect.isabstract(kind):
        missing = ", ".join(sorted(getattr(kind, "__abstractmethods__", ())))
        raise TypeError(f"its trainer class {kind.__name__} lacks {missing}, which ML-Agents' Trainer demands")
    return kind


def _settings_of(name: str, kind: Any, settings: Mapping[str, Any]) -> type:
    found = settings.get(name)
    if found is None and hasattr(kind, "get_settings_type"):
        found = kind.get_settings_type()
    if not isinstance(found, type):
        raise TypeError(f"it names no settings class for its trainer type {name!r}, but {found!r:.200}")
    return found


class TrainerTypes:
    """The plugin that one entry point makes: offers its trainer types.

    Args:
        origin: whose it is.
        offers: the trainer types.
        is_left_out: whether `mlagents`, which the package needs, is not installed.
    """

    def __init__(self, origin: Origin, offers: list[Offer], *, is_left_out: bool = False) -> None:
        self.origin, self.offers, self.is_left_out = origin, offers, is_left_out

    @hookimpl
    def get_trainer_types(self) -> dict[str, type]:
        """Offer each as `mlagents:NAME`."""
        return trainer_types(self.offers)

    @hookimpl
    def configure(self) -> None:
        """Warn where the package's trainer types are left out, or take the place of ML-Agents' own."""
        for name in {offer.name for offer in self.offers}.intersection(OWN_TYPES):
            logger.warning("mlagents:%s is that of %s, in place of ML-Agents' own.", name, self.origin)
        if self.is_left_out:
            logger.warning(
                "%s is left out: it needs the Python package mlagents, which is not installed. To use its trainer "
                "types: %s",
                self.origin,
                HOW_TO_GET,
            )


class OwnTypes:
    """The plugin that offers the trainer types of `mlagents` itself."""

    @hookimpl
    def get_trainer_types(self) -> dict[str, type]:
        """Offer `mlagents:ppo`, `mlagents:sac` and `mlagents:poca`."""
        return trainer_types(own_offers())
