"""The environment kind `gymnasium`: any registered Gymnasium environment, such as `gymnasium:CartPole-v1`."""

from __future__ import annotations

import contextlib
import difflib
import importlib
import logging
import re
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from builtin_plugins.gymnasium_extras import by_our_extras, extra_of
from mlhooks.describing import described
from mlhooks.envs import references
from mlhooks.envs.closing import close
from mlhooks.envs.own import accepts, fail
from mlhooks.envs.parameters import refuse_parameters
from mlhooks.places import defined_at, in_brackets
from mlhooks.plugin import (
    ContractBroken,
    EnvironmentFailure,
    EnvironmentKind,
    Interface,
    MlhooksError,
    UsageError,
    hookimpl,
)

if TYPE_CHECKING:
    from gymnasium.envs.registration import EnvSpec
    from mlagents_envs.base_env import BaseEnv
    from mlagents_envs.side_channel.side_channel import SideChannel

    from mlhooks.plugin import RunOptions

logger = logging.getLogger(__name__)

_VERSION = re.compile(r"-v\d+$")
NATIVE, SYNC = "vector_entry_point", "sync"
WORTH_A_VECTOR = 10  # copies from which array code is faster than a loop over scalar code
OURS = {"num_envs": "env_settings.num_areas", "vector_kwargs": "vectorization_mode", "wrappers": "a registered id"}
"""Arguments of `gymnasium.make_vec` that are not the user's to set, and what to use instead."""

ATARI = "ALE"
"""The namespace of the Atari games, which are registered when `ale_py` is imported."""

conformance_environments = ("gymnasium:CartPole-v1", "gymnasium:Pendulum-v1")
"""The environments with which `mlhooks plugins check` tries this plugin."""


@hookimpl
def get_env_types() -> Mapping[str, Callable[..., BaseEnv]]:
    """Return the scheme `gymnasium`."""
    return {
        "gymnasium": EnvironmentKind(
            make, check, behavior_names, INTERFACES, quick=True, takes_areas=lambda *_: True, names=_ids
        )
    }


def _ids() -> list[str]:
    """Return all registered ids, without those of old versions."""
    registry = _gymnasium("").registry
    return sorted({newest.id for known in registry if (newest := _newest(registry, known)) is not None})


def check(name: str, options: RunOptions) -> None:
    """Refuse an id that is not registered, and what no environment takes.

    Raises:
        UsageError: Gymnasium or a package that the environment imports is missing, there is no such id, or the
            configuration sets environment parameters or arguments that are not the user's to set.
    """
    gymnasium = _gymnasium(name)
    spec = _find(gymnasium, name)
    _check_arguments(spec, dict(options.env_settings.env_kwargs or {}))
    _check_packages(gymnasium, spec)
    if options.environment_parameters:
        refuse_parameters(options.environment_parameters, f"gymnasium:{spec.id}")


def behavior_names(name: str, options: RunOptions) -> list[str]:  # noqa: ARG001  (every kind gets them)
    """Return the one behavior's name: the id without namespace and version."""
    return [_find(_gymnasium(name), name).name]


def adapt(
    maker: Callable[..., Any],
    *,
    title: str,
    behavior_name: str | None,
    worker_id: int,
    seed: int,
    num_areas: int,
    options: RunOptions,
    side_channels: Sequence[SideChannel] = (),  # noqa: ARG001  (every adapter gets them)
) -> BaseEnv:
    """Make `num_areas` copies of a class or function, with the arguments that a registered id would get.

    Raises:
        UsageError: it does not take an argument or has a space that cannot be used.
        EnvironmentFailure: it does not start.
    """
    gymnasium = _gymnasium(title)
    from builtin_plugins.gymnasium_copies import GymnasiumCopies

    names: list[str] = []

    def made(**arguments: Any) -> Any:
        env = maker(**arguments)
        for space in ("observation_space", "action_space"):
            if getattr(env, space, None) is None:
                place = in_brackets(defined_at(type(env).__init__))
                raise ContractBroken(f"{title} has no {space}: set self.{space} in __init__{place}.")
        names.append(behavior_name or name_of(env))
        return env

    arguments = dict(options.env_settings.env_kwargs or {})
    copies = _single_copies(gymnasium, _spec_of(gymnasium, made, behavior_name or "Own"), num_areas, arguments, title)
    settings = {"seed": seed, "worker_id": worker_id, "check": options.env_settings.check}
    try:
        return GymnasiumCopies(*copies, behavior_name=names[0], title=title, **settings)
    except Exception:
        for env in copies:
            close(env, title)
        raise


def adapt_vector(
    maker: Callable[..., Any],
    *,
    title: str,
    behavior_name: str | None,
    worker_id: int,
    seed: int,
    num_areas: int,
    options: RunOptions,
    side_channels: Sequence[SideChannel] = (),  # noqa: ARG001  (every adapter gets them)
) -> BaseEnv:
    """Make a vector environment, which gets `num_areas` as its `num_envs` where it takes that.

    Raises:
        EnvironmentFailure: it does not start.
    """
    from builtin_plugins.gymnasium_vector import GymnasiumVector

    arguments = dict(options.env_settings.env_kwargs or {})
    if num_areas > 1 and accepts(maker, "num_envs"):
        arguments.setdefault("num_envs", num_areas)
    try:
        env = maker(**arguments)
    except (MlhooksError, KeyboardInterrupt):
        raise
    except BaseException as error:
        fail(title, error, maker)
    settings = {"seed": seed, "worker_id": worker_id, "check": options.env_settings.check}
    try:
        return GymnasiumVector(env, behavior_name=behavior_name or name_of(env), title=title, **settings)
    except Exception:
        close(env, title)
        raise


def name_of(env: Any) -> str:
    """Return the behavior's name of an environment: that of its registered id, or else its class's name."""
    spec = getattr(env, "spec", None)
    return str(getattr(spec, "name", None) or type(getattr(env, "unwrapped", env)).__name__)


def _check_own(title: str, options: RunOptions) -> None:
    if options.environment_parameters:
        refuse_parameters(options.environment_parameters, title)


INTERFACES = (
    Interface("gymnasium.Env", adapt, name_of, frozenset({"max_episode_steps", "disable_env_checker"}), _check_own),
    Interface("gymnasium.vector.VectorEnv", adapt_vector, name_of, check=_check_own),
)
"""Classes of one's own that this kind runs."""


def make(
    name: str,
    *,
    worker_id: int,
    seed: int,
    num_areas: int,
    options: RunOptions,
    side_channels: Sequence[SideChannel] = (),  # noqa: ARG001  (every factory gets them)
) -> BaseEnv:
    """Make `num_areas` copies of a Gymnasium environment, as one environment whose agents are the copies.

    The keyword arguments of the environment come from `env_settings.env_kwargs`, among them those of `gymnasium.make`
    such as `max_episode_steps`, and `vectorization_mode`: `vector_entry_point` is the environment's own vectorized
    implementation, the default for several copies where there is one; `sync` steps single copies. `name` is a
    registered id, with or without its version; `package:id` imports the package that registers it, which may be a
    module in the current folder.

    Raises:
        UsageError: Gymnasium or a package that the environment needs is missing, there is no such id, or it does not
            take an argument or has a space that cannot be used.
        EnvironmentFailure: The environment does not start.
    """
    gymnasium = _gymnasium(name)
    from builtin_plugins.gymnasium_copies import GymnasiumCopies
    from builtin_plugins.gymnasium_vector import GymnasiumVector

    spec = _find(gymnasium, name)
    newest = _newest(gymnasium.registry, spec.id)
    if newest is not None and newest is not spec and worker_id == 0:  # It is said once.
        logger.warning("%s is out of date: there is %s.", spec.id, newest.id)
    mode, envs = _make_envs(gymnasium, spec, num_areas, dict(options.env_settings.env_kwargs or {}))
    behavior: Callable[..., BaseEnv] = GymnasiumVector if mode == NATIVE else GymnasiumCopies
    settings = {"seed": seed, "worker_id": worker_id, "check": options.env_settings.check}
    try:
        return behavior(*envs, behavior_name=spec.name, title=f"gymnasium:{spec.id}", **settings)
    except Exception:
        for env in envs:
            close(env, f"gymnasium:{spec.id}")
        raise


def _gymnasium(name: str) -> ModuleType:
    try:
        return importlib.import_module("gymnasium")
    except ModuleNotFoundError as error:
        if error.name != "gymnasium":
            raise
        raise UsageError(
            f'"gymnasium:{name}" needs Gymnasium, which is not installed: pip install "mlhooks[gymnasium]"'
        ) from error


def _register_atari(gymnasium: ModuleType, name: str) -> None:
    try:
        gymnasium.register_envs(importlib.import_module("ale_py"))
    except ImportError as error:
        raise UsageError(
            f"\"gymnasium:{name}\" needs the package ale_py, which is not installed: pip install 'mlhooks[atari]'"
        ) from error


def _spec_of(gymnasium: ModuleType, maker: Callable[..., Any], name: str) -> EnvSpec:
    """Return a spec, registered nowhere, of a class or function."""
    spec: EnvSpec = gymnasium.envs.registration.EnvSpec(
        name, entry_point=maker, order_enforce=False, disable_env_checker=True
    )
    return spec


def _newest(registry: Mapping[str, EnvSpec], env_id: str) -> EnvSpec | None:
    family = _VERSION.sub("", env_id)
    versions = [spec for known, spec in registry.items() if _VERSION.sub("", known) == family]
    return max(versions, key=lambda spec: spec.version or 0, default=None)


def _find(gymnasium: ModuleType, name: str) -> EnvSpec:
    """Return the registered spec, of the newest version if the name has none."""
    package, _, env_id = name.rpartition(":")
    if env_id.startswith(f"{ATARI}/"):
        _register_atari(gymnasium, name)
    if package.endswith(".py"):
        package = references.load_file(Path(package)).__name__
    elif package:
        if str(Path.cwd()) not in sys.path:
            sys.path.append(str(Path.cwd()))  # where a module of the user's own lies; worker processes inherit it
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise UsageError(
                f'"gymnasium:{name}" needs the package "{package}", which does not import: {error}'
            ) from error
    registry: dict[str, EnvSpec] = gymnasium.registry
    spec = registry.get(env_id) or (None if _VERSION.search(env_id) else _newest(registry, env_id))
    if spec is not None:
        return spec
    own = getattr(sys.modules.get(package), env_id, None) if package else None
    if isinstance(own, type) and issubclass(own, gymnasium.Env):
        return _spec_of(gymnasium, own, env_id)
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


def _check_arguments(spec: EnvSpec, arguments: Mapping[str, Any]) -> None:
    env = f'"gymnasium:{spec.id}"'
    for argument, instead in OURS.items():
        if argument in arguments:
            raise UsageError(f'{env} cannot take "{argument}" from env_settings.env_kwargs; use {instead}.')
    limit = arguments.get("max_episode_steps")
    if limit is not None and (not isinstance(limit, int) or isinstance(limit, bool) or limit < 1):
        raise UsageError(f'"max_episode_steps" of {env} must be a whole number above 0, not {limit!r}.')
    mode = arguments.get("vectorization_mode", SYNC)
    if mode not in (NATIVE, SYNC):
        raise UsageError(
            f'"vectorization_mode" of {env} must be "{NATIVE}" or "{SYNC}", not {mode!r}; for worker processes use '
            "env_settings.num_envs."
        )


def _check_packages(gymnasium: ModuleType, spec: EnvSpec) -> None:
    """Import the module of the environment, most of which ask there for the packages that they need."""
    place = spec.entry_point or spec.vector_entry_point
    try:
        if isinstance(place, str):
            importlib.import_module(place.partition(":")[0])
    except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
        raise _lacking(f'"gymnasium:{spec.id}"', spec, error) from error
    except Exception:
        return  # making the environment tells that with what came of it


def _lacking(title: str, spec: EnvSpec, error: Exception) -> UsageError:
    module = spec.entry_point.partition(":")[0] if isinstance(spec.entry_point, str) else ""
    extra = extra_of(module)
    if extra is None:
        return UsageError(f"{title} needs a package that is not installed: {by_our_extras(str(error))}")
    missing = getattr(error, "name", None) or getattr(error.__cause__, "name", None)
    what = f"the package {missing}" if missing else "a package"
    return UsageError(f"{title} needs {what}, which is not installed: pip install 'mlhooks[{extra}]'")


def _make_envs(gymnasium: ModuleType, spec: EnvSpec, copies: int, arguments: dict[str, Any]) -> tuple[str, list[Any]]:
    """Return the vectorization mode, and the vector environment or the single copies."""
    _check_arguments(spec, arguments)
    has_native = spec.vector_entry_point is not None and not spec.additional_wrappers
    worth_it = has_native and (copies >= WORTH_A_VECTOR or spec.entry_point is None)
    mode = arguments.pop("vectorization_mode", NATIVE if worth_it else SYNC)
    title = f'"gymnasium:{spec.id}"'
    if mode == SYNC:
        return mode, _single_copies(gymnasium, spec, copies, arguments, title)
    hint = f'; its single copies may: add "vectorization_mode: {SYNC}"' if spec.entry_point else ""
    with _starting(gymnasium, spec, arguments, title, hint):
        return mode, [gymnasium.make_vec(spec, num_envs=copies, vectorization_mode=mode, **arguments)]


def _single_copies(
    gymnasium: ModuleType, spec: EnvSpec, copies: int, arguments: Mapping[str, Any], title: str
) -> list[Any]:
    with _starting(gymnasium, spec, arguments, title):
        envs: list[Any] = []
        try:
            envs += (gymnasium.make(spec, **{"disable_env_checker": True, **arguments}) for _ in range(copies))
        except BaseException:
            for made in envs:
                close(made, title)
            raise
        return envs


@contextlib.contextmanager
def _starting(
    gymnasium: ModuleType, spec: EnvSpec, arguments: Mapping[str, Any], title: str, hint: str = ""
) -> Iterator[None]:
    """Make environments in the body; what goes wrong there becomes an error for the person who chose them."""
    try:
        with warnings.catch_warnings():
            # Gymnasium's advice to authors of environments, of no use to who trains in them.
            warnings.filterwarnings("ignore", module=r"gymnasium(\.|$)")
            yield
    except MlhooksError:
        raise
    except (ImportError, gymnasium.error.DependencyNotInstalled) as error:
        raise _lacking(title, spec, error) from error
    except TypeError as error:
        if not arguments:
            raise EnvironmentFailure(f"{title} does not start: {described(error)}") from error
        raise UsageError(
            f"{title} does not take the env_settings.env_kwargs {dict(arguments)}: {described(error)}{hint}"
        ) from error
    except Exception as error:
        raise EnvironmentFailure(f"{title} does not start: {described(error)}") from error
