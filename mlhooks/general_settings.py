"""The settings of a run without a configuration: an example that is tuned for its environment, or general settings."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mlhooks.envs.spaces import Discrete, MultiDiscrete
from mlhooks.errors import SettingsError, UsageError
from mlhooks.example_configs import example_names, examples_folder
from mlhooks.names import VERSION
from mlhooks.settings import Configuration, RunOptions, SettingsRegistry, load_run_options, read_configuration
from mlhooks.settings.behaviors import DEFAULT_TRAINER_TYPE
from mlhooks.settings.findings import nearest
from mlhooks.settings.overrides import ENVIRONMENT
from mlhooks.settings.sections import lacking
from mlhooks.settings.yaml_source import read_yaml
from mlhooks.training.environment_scheme import make_factory, scheme_and_name

if TYPE_CHECKING:
    from mlagents_envs.base_env import BehaviorSpec

    from mlhooks.envs.factory import EnvironmentFactory
    from mlhooks.envs.spaces import Space, Spaces
    from mlhooks.plugins import PluginManager

FILE = Path(__file__).with_suffix(".yaml")
"""The general settings, with their sources."""
_PETTINGZOO = re.compile(
    r"pettingzoo:(?:(?:pettingzoo\.)?(?:atari|butterfly|classic|sisl|mpe2)[./])?(\w+?)(?:[-_]v\d+)?"
)
"""Names of environments that PettingZoo and MPE2 bring: those of their modules, and the short forms of these."""


@dataclass(frozen=True)
class Chosen:
    """The configuration that is used because none was given.

    Args:
        source: the configuration, as `load_run_options` takes it.
        text: a description for the first lines of the run.
    """

    source: Path | Mapping[str, Any] | None
    text: str = ""

    def in_place_of(self, nothing: Configuration) -> Configuration:
        """Return the configuration, with the plugins of the empty one that it replaces."""
        if self.source is None:
            return nothing
        return replace(read_configuration(self.source), plugins=nothing.plugins, findings=nothing.findings)


def choose(
    plugins: PluginManager,
    algo: str | None,
    *,
    flags: Mapping[str, Any],
    overrides: Sequence[str] = (),
    environment: Callable[..., Any] | None = None,
) -> Chosen:
    """Choose the settings for an environment, for a run without a configuration.

    Unity players and the Editor get ML-Agents' defaults. An environment that is made quickly is made once and closed
    again, to find out its observations and actions.

    Args:
        plugins: the plugins of the run.
        algo: the trainer type; None for PPO.
        flags: settings by dotted key.
        overrides: `KEY.PATH=VALUE` texts, of which only those of the environment are used.
        environment: a class or function that was handed over as the environment.

    Raises:
        UsageError: there is no such trainer type or environment.
        EnvironmentFailure: the environment cannot be made.
    """
    registry = SettingsRegistry.from_plugins(plugins)
    kind = algo or DEFAULT_TRAINER_TYPE
    refuse_unknown(kind, registry)
    options = _environment_options(registry, flags, overrides)
    if options is None:
        return Chosen(None if algo is None else _unity(kind))
    options.own_environment = environment
    scheme, _ = scheme_and_name(options.env_settings.env_path)
    if scheme == "unity":
        return Chosen(None if algo is None else _unity(kind), f"ML-Agents' defaults for {kind}")
    example = None if environment is not None else tuned_example(options.env_settings.env_path or "", kind)
    if example is not None:
        return Chosen(examples_folder() / f"{example}.yaml", f"those of the example {example}, tuned for it")
    factory = make_factory(options, plugins)
    factory.check()
    return general(kind, factory)


def refuse_unknown(algo: str, registry: SettingsRegistry) -> None:
    """Refuse a trainer type that no plugin provides.

    Raises:
        UsageError: with the trainer types that are installed.
    """
    if algo in registry.trainer_types:
        return
    lack, get = lacking(algo)
    near = None if lack else nearest(algo, registry.trainer_types)  # What lacks something is spelled right.
    what = f"it {lack}" if lack else "no installed plugin provides it"
    raise UsageError(
        f"--algo {algo}: {what}; installed are {', '.join(sorted(registry.trainer_types)) or 'none'}."
        f"{f' Did you mean {near}?' if near else ''}{f' To get it: {get}' if get else ''}"
    )


def refuse_other_type(options: RunOptions, algo: str | None) -> None:
    """Refuse a trainer type other than the configuration's, whose hyperparameters would not fit it.

    Raises:
        UsageError: with the command that trains with the other type.
    """
    entries = [*options.behaviors.values(), *([options.default_settings] if options.default_settings else [])]
    others = sorted({entry.trainer_type for entry in entries} - {algo})
    if algo is None or not others:
        return
    path = options.env_settings.env_path
    example = tuned_example(path, algo) if path else None
    instead = f"mlhooks run {example}" if example else f"mlhooks run --env {path or 'ENV'} --algo {algo}"
    raise UsageError(
        f"--algo {algo}: the configuration is for {', '.join(others)}, whose hyperparameters do not fit. Without it, "
        f"{algo} has settings of its own: {instead}. Or write trainer_type: {algo} and its hyperparameters into a file."
    )


def tuned_example(env_path: str, algo: str) -> str | None:
    """Return the example that is tuned for any version of an environment and a trainer type; None if there is none."""
    for name in example_names():
        if not name.endswith(f"_{algo}"):
            continue
        environment = read_yaml(examples_folder() / f"{name}.yaml").value[ENVIRONMENT]
        is_it = _without_version(environment["env_path"]) == _without_version(env_path)
        if is_it and "wrappers" not in environment:  # With wrappers it is another task.
            return name
    return None


def _without_version(env_path: str) -> str:
    """Return one name for all versions of an environment, and all ways to write where PettingZoo and MPE2 have it."""
    match = _PETTINGZOO.fullmatch(env_path)
    return f"pettingzoo:{match[1]}" if match else VERSION.sub("", env_path)


def general(algo: str, factory: EnvironmentFactory) -> Chosen:
    """Return the general settings of a trainer type for an environment.

    Raises:
        EnvironmentFailure: the environment cannot be made.
    """
    sections = read_yaml(FILE).value.get(algo)
    suggested = factory.suggested_settings()
    factory = factory.with_settings(suggested)
    seen = factory.inspect_behaviors()
    if sections is None:
        settings: dict[str, Any] = {}
        text = f"the defaults of trainer type {algo}"
    else:
        parts = ["all", *traits(seen), *(key for key in suggested if key in sections)]
        settings = merged([sections[part] for part in parts if part in sections])
        text = f"general ones for {algo}{f', {_listed(parts[1:])}' if parts[1:] else ''}"
    network = settings.get("network_settings", {})
    if "hidden_layers" in network:  # That says the number of layers, too.
        network.pop("num_layers", None)
    areas = settings.pop("num_areas", 1)
    entry = {"trainer_type": algo, **settings}
    names = factory.behavior_names() or list(seen or ())
    source: dict[str, Any] = {"behaviors": {_name(name): entry for name in names}} if names else {}
    if not names:
        source = {"default_settings": entry}
    if areas > 1 and factory.takes_areas():
        suggested["num_areas"] = areas
    if suggested:
        source[ENVIRONMENT] = suggested
    return Chosen(source, text)


def traits(seen: Mapping[str, tuple[BehaviorSpec, Spaces | None]] | None) -> list[str]:
    """Return the sections of the general settings that fit the actions and observations of behaviors."""
    if not seen:
        return []
    specs, spaces = zip(*seen.values(), strict=True)
    found = ["continuous" if any(spec.action_spec.continuous_size for spec in specs) else "discrete"]
    if any(len(obs.shape) == 3 for spec in specs for obs in spec.observation_specs):
        found.append("images")
    elif all(known is not None and _is_one_hot(known.observation) for known in spaces):
        found.append("one_hot")
    return found


def _is_one_hot(space: Space) -> bool:
    """Return whether a space holds only numbers of states, which are encoded as one-hot features."""
    return all(isinstance(leaf, Discrete | MultiDiscrete) for _, leaf in space.leaves())


def merged(parts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Merge mappings, the later ones over the earlier ones, sections key by key."""
    result: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            below = result.get(key)
            both = isinstance(below, Mapping) and isinstance(value, Mapping)
            result[key] = merged([below, value]) if both else value  # type: ignore[list-item]
    return result


def _environment_options(
    registry: SettingsRegistry, flags: Mapping[str, Any], overrides: Sequence[str]
) -> RunOptions | None:
    """Return the options of the environment alone; None where they are invalid, which loading all options reports."""
    own = {key: value for key, value in flags.items() if key.startswith(f"{ENVIRONMENT}.")}
    texts = [text for text in overrides if text.startswith(ENVIRONMENT)]
    try:
        return load_run_options(None, registry, flags=own, overrides=texts).options
    except SettingsError:
        return None


def _unity(algo: str) -> dict[str, Any]:
    return {"default_settings": {"trainer_type": algo}}


def _name(behavior_id: str) -> str:
    return behavior_id.partition("?")[0]


def _listed(parts: Sequence[str]) -> str:
    words = {"images": "images", "one_hot": "one-hot observations", "atari": "Atari games"}
    return " and ".join(words.get(part, f"{part} actions") for part in parts)
