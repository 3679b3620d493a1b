"""Find what makes a PettingZoo environment by its name: a module, a registered id, or a class or function."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import importlib.util
import pkgutil
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from mlhooks.describing import described
from mlhooks.envs import references
from mlhooks.plugin import UsageError

FAMILIES = ("pettingzoo.butterfly", "pettingzoo.classic", "pettingzoo.sisl", "pettingzoo.atari", "mpe2")
"""The packages whose modules may be named without them."""
MAKERS = ("parallel_env", "env", "raw_env")
"""The functions of a module that make its environment, the best first: all agents act at once by the first."""
VERSION = re.compile(r"[-_]v(\d+)$")
"""The version at the end of the name of a module or of a registered id."""
EXTRA = "mlhooks[pettingzoo]"
"""What to install for PettingZoo."""
_BY_EXTRA = {"pettingzoo", "pygame", "pymunk", "mpe2"}
"""Packages that the extra brings."""


def import_pettingzoo(title: str) -> ModuleType:
    """Import PettingZoo, which an environment of this title needs.

    Raises:
        UsageError: it is not installed.
    """
    try:
        with quiet():
            return importlib.import_module("pettingzoo")
    except ModuleNotFoundError as error:
        raise missing_package(title, error) from error


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Suppress PettingZoo's warnings in the block: they are for authors of environments, not for those who train."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(pettingzoo|mpe2|pygame|pkg_resources)(\.|$)")
        warnings.filterwarnings("ignore", category=DeprecationWarning)
        yield


def find_maker(name: str) -> Callable[..., Any]:
    """Return what makes the environment of a name.

    Args:
        name: `connect_four_v3` or `classic/connect_four_v3`, of PettingZoo's own or MPE2's, with or without the
            version; `MODULE`, which has a `parallel_env` or an `env`; `MODULE:NAME` or `FILE.py:NAME`, where NAME is a
            class, a function, or an id that importing it registers.

    Raises:
        UsageError: there is none, or a package that it needs is missing.
    """
    zoo = import_pettingzoo(f"pettingzoo:{name}")
    place, _, inside = name.rpartition(":")
    if place:
        module = references.load_file(Path(place)) if place.endswith(".py") else _module(place, name)
        own = getattr(module, inside, None)
        if callable(own):
            return own  # type: ignore[no-any-return]
        registered = _registered(zoo, inside)
        if registered is None:
            raise UsageError(
                f'{place} has no class or function "{inside}", and importing it registered no environment of this id. '
                f"It has: {', '.join(_makers(module)) or 'nothing that makes an environment'}."
            )
        return registered
    registered = _registered(zoo, name)
    if registered is not None:
        return registered
    return _of_module(_module(_full_name(name), name), name)


def names() -> list[str]:
    """Return the names of PettingZoo's own environments, and MPE2's, that are installed, in their newest versions."""
    import_pettingzoo("pettingzoo:")
    found: dict[str, str] = {}
    for family in FAMILIES:
        for module in _modules_of(family):
            short = f"{family.rpartition('.')[2]}/{VERSION.sub('', module)}"
            found[short] = max(found.get(short, ""), f"{family.rpartition('.')[2]}/{module}", key=_version)
    return sorted(found.values())


def missing_package(title: str, error: ImportError) -> UsageError:
    """Return the error for a package that an environment needs, with what brings it."""
    cause: BaseException | None = error
    while cause is not None and getattr(cause, "name", None) is None:
        cause = cause.__cause__ or cause.__context__
    missing = str(getattr(cause, "name", None) or "").partition(".")[0]
    if missing in _BY_EXTRA:
        return UsageError(f'"{title}" needs {missing}, which is not installed: pip install "{EXTRA}"')
    if missing:
        return UsageError(f'"{title}" needs the package {missing}, which is not installed: pip install {missing}')
    return UsageError(f'"{title}" needs a package that is not installed: {error}')


def _module(place: str, name: str) -> ModuleType:
    """Import a module; what is wrong with it is told as with other modules, but for packages that are missing.

    Raises:
        UsageError: it does not import.
    """
    with quiet():
        try:
            return references.load_module(place)
        except UsageError as error:
            cause = error.__cause__
            if isinstance(cause, ImportError) and not f"{place}.".startswith(f"{cause.name}."):
                raise missing_package(f"pettingzoo:{name}", cause) from cause
            if isinstance(cause, ModuleNotFoundError):
                raise UsageError(
                    f'PettingZoo knows no environment "{name}", and there is no such module.{_near(name)}'
                ) from error
            raise


def _full_name(name: str) -> str:
    """Return the name of the module that a short name means, of its newest version where it says none."""
    wanted = name.replace("/", ".")
    for family in FAMILIES:
        short = family.rpartition(".")[2]
        modules = {f"{prefix}{module}": module for module in _modules_of(family) for prefix in ("", f"{short}.")}
        versions = [module for key, module in modules.items() if wanted in (key, VERSION.sub("", key))]
        if versions:
            return f"{family}.{max(versions, key=_version)}"
    return wanted


def _modules_of(family: str) -> list[str]:
    """Return the modules of environments in a package, without importing them."""
    try:
        spec = importlib.util.find_spec(family)
    except ImportError:  # Old versions have packages that say where they went.
        return []
    places = spec.submodule_search_locations if spec is not None else None
    return [module.name for module in pkgutil.iter_modules(places or []) if VERSION.search(module.name)]


def _version(name: str) -> int:
    match = VERSION.search(name)
    return int(match[1]) if match else -1


def _registered(zoo: ModuleType, name: str) -> Callable[..., Any] | None:
    """Return what makes a registered environment, of the parallel interface where there is one."""
    for kind in ("parallel", "aec"):
        registry: Mapping[str, Any] = getattr(zoo, f"{kind}_registry", {})  # Old versions have none.
        ids = [known for known in registry if name in _spellings(known)]
        if ids:
            return partial(zoo.make, kind, max(ids, key=_version))
    return None


def _spellings(known: str) -> set[str]:
    every = {known, VERSION.sub("", known), VERSION.sub(r"_v\1", known)}
    return every | {spelling.rpartition("/")[2] for spelling in every}


def _of_module(module: ModuleType, name: str) -> Callable[..., Any]:
    makers = _makers(module)
    best = next((maker for maker in MAKERS if maker in makers), None)
    if best is None and len(makers) == 1:
        (best,) = makers
    if best is None:
        listed = f" Name one of: {', '.join(f'pettingzoo:{name}:{maker}' for maker in makers)}." if makers else ""
        raise UsageError(
            f'The module "{name}" has no {" or ".join(MAKERS[:2])}, which modules of PettingZoo have.{listed}'
        )
    return getattr(module, best)  # type: ignore[no-any-return]


def _makers(module: ModuleType) -> list[str]:
    """Return the names of what makes environments in a module: the usual functions, and classes of its own."""
    from pettingzoo import AECEnv, ParallelEnv

    usual = [name for name in MAKERS if callable(getattr(module, name, None))]
    classes = [
        name
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, AECEnv | ParallelEnv) and value.__module__ == module.__name__
    ]
    return [*usual, *(name for name in classes if name not in usual)]


def _near(name: str) -> str:
    known = {each.rpartition("/")[2].casefold(): each for each in names()}
    folded = VERSION.sub("", name.replace(".", "/").rpartition("/")[2].casefold())
    near = [known[each] for each in difflib.get_close_matches(folded, known, n=3, cutoff=0.7)]
    meant = f" Did you mean {' or '.join(near)}?" if near else ""
    return f"{meant} A module, or a class in a file, is named as in pettingzoo:package.module or hunt.py:Hunt."


def made(title: str, maker: Callable[..., Any], arguments: Mapping[str, Any]) -> Any:
    """Make an environment.

    Raises:
        UsageError: a package is missing.
        Exception: what its constructor raised.
    """
    try:
        with quiet():
            return maker(**arguments)
    except ImportError as error:
        raise missing_package(title, error) from error
    except Exception as error:
        if type(error).__name__ == "FailedToImport":  # This is how PettingZoo's registry tells it.
            cause = error.__cause__ if isinstance(error.__cause__, ImportError) else ImportError(described(error))
            raise missing_package(title, cause) from error
        raise
