"""The registry of Gymnasium: environments by their ids, and the packages that register or need others."""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import re
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import TYPE_CHECKING, Any

from builtin_plugins.gymnasium_extras import by_our_extras, extra_of
from mlhooks.envs import references
from mlhooks.names import VERSION
from mlhooks.plugin import UsageError

if TYPE_CHECKING:
    from gymnasium.envs.registration import EnvSpec


ATARI, ALE = "ALE", "ale_py"
"""The namespace of the Atari games, and the package that registers them when it is imported."""
_OLD_ATARI = re.compile(r"\w+?(NoFrameskip|Deterministic)?(-ram\w*)?-v[04]")
"""Ids of Atari games from before there was a namespace; where no group matches, an id may be another environment's."""


def import_gymnasium(name: str) -> ModuleType:
    """Import Gymnasium, which an environment of this name needs.

    Raises:
        UsageError: it is not installed.
    """
    try:
        return importlib.import_module("gymnasium")
    except ModuleNotFoundError as error:
        if error.name != "gymnasium":
            raise
        raise UsageError(
            f'"gymnasium:{name}" needs Gymnasium, which is not installed: pip install "mlhooks[gymnasium]"'
        ) from error


def ids() -> list[str]:
    """Return all registered ids, without those of old versions."""
    registry = import_gymnasium("").registry
    return sorted({newest.id for known in registry if (newest := newest_version(registry, known)) is not None})


def find_spec(gymnasium: ModuleType, name: str) -> EnvSpec:
    """Return the registered spec, of the newest version if the name has none.

    Raises:
        UsageError: a package does not import, or there is no such id.
    """
    package, _, env_id = name.rpartition(":")
    if env_id.startswith(f"{ATARI}/"):
        _register_atari(gymnasium, name)
    try:
        module = references.load(package) if package else None
    except UsageError as error:
        what = "file" if package.endswith(".py") else "package"
        raise UsageError(f'"gymnasium:{name}" needs the {what} "{package}". {error}') from error
    registry: dict[str, EnvSpec] = gymnasium.registry
    spec = registry.get(env_id) or (None if VERSION.search(env_id) else newest_version(registry, env_id))
    if spec is None and not package:
        spec = _old_atari_spec(gymnasium, env_id)
    if spec is not None:
        return spec
    own = getattr(module, env_id, None)
    if isinstance(own, type) and issubclass(own, gymnasium.Env):
        return spec_of(gymnasium, own, env_id)
    ids = {known.casefold(): known for known in sorted(registry)}
    near = [ids[known] for known in difflib.get_close_matches(env_id.casefold(), ids, n=3)]
    meant = " or ".join(f"gymnasium:{package}:{known}" if package else known for known in near)
    hint = f" Did you mean {meant}?" if near else ""
    if package:
        raise UsageError(
            f'Gymnasium knows no environment "{env_id}", and importing "{package}" did not register it.{hint}'
        )
    raise UsageError(
        f'Gymnasium knows no environment "{env_id}".{hint} If a package, or a module in the current folder, registers '
        f'it, name that, too: "gymnasium:MODULE:{env_id}".'
    )


def newest_version(registry: Mapping[str, EnvSpec], env_id: str) -> EnvSpec | None:
    """Return the spec of the newest version of an id; None where no version is registered."""
    family = VERSION.sub("", env_id)
    versions = [spec for known, spec in registry.items() if VERSION.sub("", known) == family]
    return max(versions, key=lambda spec: spec.version or 0, default=None)


def spec_of(gymnasium: ModuleType, maker: Callable[..., Any], name: str) -> EnvSpec:
    """Return a spec of a class or function, without registering it."""
    spec: EnvSpec = gymnasium.envs.registration.EnvSpec(
        name, entry_point=maker, order_enforce=False, disable_env_checker=True
    )
    return spec


def check_packages(gymnasium: ModuleType, spec: EnvSpec) -> None:
    """Import the module of an environment, which usually fails if a package that it needs is missing.

    Raises:
        UsageError: a package is missing.
    """
    place = spec.entry_point or spec.vector_entry_point
    try:
        if isinstance(place, str):
            importlib.import_module(place.partition(":")[0])
    except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
        raise missing_package(f'"gymnasium:{spec.id}"', spec, error) from error
    except Exception:
        return  # Making the environment will raise it again, with the settings that matter.


def missing_package(title: str, spec: EnvSpec, error: Exception) -> UsageError:
    """Return the error for a package that an environment needs, with the extra of mlhooks that brings it."""
    module = spec.entry_point.partition(":")[0] if isinstance(spec.entry_point, str) else ""
    extra = extra_of(module)
    if extra is None:
        return UsageError(f"{title} needs a package that is not installed: {by_our_extras(str(error))}")
    missing = getattr(error, "name", None) or getattr(error.__cause__, "name", None)
    what = f"the package {missing}" if missing else "a package"
    return UsageError(f"{title} needs {what}, which is not installed: pip install 'mlhooks[{extra}]'")


def is_atari(spec: EnvSpec) -> bool:
    """Return whether an environment is an Atari game of `ale_py`."""
    return isinstance(spec.entry_point, str) and spec.entry_point.partition(":")[0].partition(".")[0] == ALE


def _old_atari_spec(gymnasium: ModuleType, env_id: str) -> EnvSpec | None:
    """Return the spec of a game by an id from before there was a namespace, such as `PongNoFrameskip-v4`."""
    match = _OLD_ATARI.fullmatch(env_id)
    if match is None:
        return None
    if match[1] or (ALE not in sys.modules and importlib.util.find_spec(ALE) is not None):
        _register_atari(gymnasium, env_id)
    found: EnvSpec | None = gymnasium.registry.get(env_id)
    return found


def _register_atari(gymnasium: ModuleType, name: str) -> None:
    try:
        ale = importlib.import_module(ALE)
        ale.ALEInterface.setLoggerMode(ale.LoggerMode.Error)  # Each process would begin with its banner.
        gymnasium.register_envs(ale)
    except ImportError as error:
        raise UsageError(
            f"\"gymnasium:{name}\" needs the package ale_py, which is not installed: pip install 'mlhooks[atari]'"
        ) from error
