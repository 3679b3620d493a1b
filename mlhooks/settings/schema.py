"""The schema of configurations: what plugins add to it, where each key belongs in it, and its JSON form for editors."""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self, TypeAlias

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from mlhooks.deferred import Deferred
from mlhooks.errors import PluginError
from mlhooks.settings.base import SettingsModel
from mlhooks.settings.behaviors import (
    MLAGENTS_REWARD_SIGNALS,
    BehavioralCloningSettings,
    EvaluationSettings,
    RewardSignalSettings,
    SelfPlaySettings,
    TrainerSettings,
)
from mlhooks.settings.environment_parameters import SAMPLERS
from mlhooks.settings.findings import KeyPath, dotted
from mlhooks.settings.hyperparameters import HyperparameterSettings
from mlhooks.settings.networks import MemorySettings, NetworkSettings
from mlhooks.settings.run_options import RunOptions

if TYPE_CHECKING:
    from mlhooks.plugins import PluginManager

_MODEL = "hyperparameters_type"


def _lacks_trainers(plugin: Any) -> bool:
    return getattr(plugin, "is_left_out", False) and hasattr(plugin, "get_trainer_types")


@dataclass(frozen=True)
class SettingsRegistry:
    """The trainer types, reward signals and plugins' settings that a configuration may name.

    Args:
        trainer_types: `trainer_type` -> trainer class, which names its model as `hyperparameters_type`.
        reward_signals: name -> class and settings model; ML-Agents' own signals are known without being installed.
        plugin_settings: name under `plugins.settings` -> its model.
        blocked: names of plugins that are kept out, and whose settings are therefore passed over.
        left_out: the packages that are installed, and whose trainer types are not there because they need `mlagents`.
    """

    trainer_types: Mapping[str, type]
    reward_signals: Mapping[str, tuple[type, type[RewardSignalSettings]]] = field(default_factory=dict)
    plugin_settings: Mapping[str, type[BaseModel]] = field(default_factory=dict)
    blocked: frozenset[str] = frozenset()
    left_out: tuple[str, ...] = ()

    @classmethod
    def from_plugins(cls, plugins: PluginManager) -> Self:
        """Ask the plugins."""
        return cls(
            plugins.collect_mapping("get_trainer_types"),
            plugins.collect_mapping("get_reward_signals"),
            plugins.collect_mapping("get_plugin_settings"),
            frozenset(name for name, plugin in plugins.list_name_plugin() if plugin is None),
            tuple(str(plugin.origin) for plugin in plugins.get_plugins() if _lacks_trainers(plugin)),
        )

    def hyperparameters(self, trainer_type: str) -> type[HyperparameterSettings] | None:
        """Return the model of a trainer type's hyperparameters, or None if no plugin provides the type.

        Raises:
            PluginError: the trainer class names no such model.
        """
        if trainer_type not in self.trainer_types:
            return None
        trainer = self.trainer_types[trainer_type]
        model = getattr(trainer, _MODEL, HyperparameterSettings)
        if not (isinstance(model, type) and issubclass(model, HyperparameterSettings)):
            raise PluginError(
                f"The trainer class {trainer.__module__}.{trainer.__qualname__} of trainer_type {trainer_type} has "
                f"hyperparameters_type = {model!r}; it must be a subclass of mlhooks.plugin.HyperparameterSettings."
            )
        return model

    def is_made(self, trainer_type: str) -> bool:
        """Return whether a trainer type's model is there, and need not be made of another package's settings first."""
        return not isinstance(inspect.getattr_static(self.trainer_types[trainer_type], _MODEL, None), Deferred)

    def reward_signal_models(self) -> dict[str, type[RewardSignalSettings]]:
        """Return the settings model of every reward signal that may be named."""
        return {**MLAGENTS_REWARD_SIGNALS, **{name: model for name, (_, model) in self.reward_signals.items()}}


OTHER_NAMES = {
    **dict.fromkeys(("lr", "alpha", "learningrate"), "learning_rate"),
    **dict.fromkeys(("lr_schedule", "anneal_lr"), "learning_rate_schedule"),
    **dict.fromkeys(
        ("total_timesteps", "timesteps", "n_timesteps", "steps", "total_steps", "num_timesteps", "max_timesteps"),
        "max_steps",
    ),
    **dict.fromkeys(("n_steps", "num_steps", "rollout_steps", "nsteps"), "buffer_size"),
    **dict.fromkeys(("replay_size", "memory_size", "buffer"), "buffer_size"),
    **dict.fromkeys(("minibatch_size", "mini_batch_size", "batch", "num_minibatches", "nminibatches"), "batch_size"),
    **dict.fromkeys(("n_epochs", "update_epochs", "epochs", "num_epochs", "noptepochs"), "num_epoch"),
    **dict.fromkeys(("gae_lambda", "lam", "lambda", "gae"), "lambd"),
    **dict.fromkeys(("ent_coef", "entropy_coef", "entropy", "entropy_coefficient"), "beta"),
    **dict.fromkeys(("clip_range", "clip_coef", "clip", "clip_param", "cliprange"), "epsilon"),
    **dict.fromkeys(("clip_vloss",), "value_clipping"),
    **dict.fromkeys(("clip_range_vf",), "value_clip_range"),
    **dict.fromkeys(("vf_coef", "value_coef", "value_loss_coef", "critic_coef"), "value_coefficient"),
    **dict.fromkeys(("optimizer_class", "optimiser", "use_rms_prop"), "optimizer"),
    **dict.fromkeys(("norm_adv", "normalize_advantage"), "normalize_advantages"),
    **dict.fromkeys(("learning_starts", "warmup_steps", "start_steps"), "buffer_init_steps"),
    **dict.fromkeys(("train_freq", "train_frequency"), "update_interval"),
    **dict.fromkeys(("gradient_steps",), "steps_per_update"),
    **dict.fromkeys(("target_network_frequency", "target_update"), "target_update_interval"),
    **dict.fromkeys(("exploration_fraction", "eps_decay"), "exploration_steps"),
    **dict.fromkeys(("exploration_eps", "start_e", "eps_start"), "exploration_initial_eps"),
    **dict.fromkeys(("end_e", "eps_end"), "exploration_final_eps"),
    **dict.fromkeys(("hidden_size", "hidden_dim", "units"), "hidden_units"),
    **dict.fromkeys(("net_arch", "hidden_sizes"), "hidden_layers"),
    **dict.fromkeys(("layers", "n_layers"), "num_layers"),
    **dict.fromkeys(("normalize_obs", "norm_obs"), "normalize"),
    **dict.fromkeys(("clip_obs", "obs_clip"), "normalize_clip"),
    **dict.fromkeys(("norm_reward", "reward_normalization", "norm_rewards"), "normalize_rewards"),
    **dict.fromkeys(("clip_reward", "reward_clip"), "normalize_rewards_clip"),
    **dict.fromkeys(("activation_fn",), "activation"),
    **dict.fromkeys(("ortho_init",), "initialization"),
    **dict.fromkeys(("conditional_sigma", "conditioned_sigma"), "state_dependent_std"),
    **dict.fromkeys(("discount", "discount_factor"), "gamma"),
    **dict.fromkeys(("log_interval", "log_freq", "summary_interval"), "summary_freq"),
    **dict.fromkeys(("save_freq", "save_interval", "checkpoint_freq"), "checkpoint_interval"),
    **dict.fromkeys(("eval_freq", "eval_interval", "eval_every", "evaluation_interval"), "interval"),
    **dict.fromkeys(("n_eval_episodes", "eval_episodes", "num_eval_episodes"), "episodes"),
    **dict.fromkeys(("reward_threshold", "stop_reward", "target_reward"), "stop_at"),
    **dict.fromkeys(("max_no_improvement_evals", "early_stopping_patience"), "patience"),
    **dict.fromkeys(("algorithm", "agent", "trainer"), "trainer_type"),
    **dict.fromkeys(("n_envs", "copies"), "num_areas"),
    **dict.fromkeys(("env_id", "env", "environment"), "env_path"),
    "num_threads": "threads",
}
"""Names of settings in other tools, with _ for -, and the settings that they mean here."""

_HYPERPARAMETERS = "hyperparameters"


class Homes:
    """The homes of all keys.

    Args:
        registry: what the plugins add to the schema.
    """

    def __init__(self, registry: SettingsRegistry) -> None:
        self._registry = registry
        models = {name: registry.hyperparameters(name) for name in registry.trainer_types if registry.is_made(name)}
        self._in_behavior = _homes(
            [
                ((), [TrainerSettings]),
                ((_HYPERPARAMETERS,), [HyperparameterSettings, *(model for model in models.values() if model)]),
                (("network_settings",), [NetworkSettings]),
                (("network_settings", "memory"), [MemorySettings]),
                (("reward_signals", "extrinsic"), [RewardSignalSettings]),
                (("self_play",), [SelfPlaySettings]),
                (("behavioral_cloning",), [BehavioralCloningSettings]),
                (("evaluation",), [EvaluationSettings]),
            ]
        )
        sections = {
            name: field.default_factory
            for name, field in RunOptions.model_fields.items()
            if isinstance(field.default_factory, type) and issubclass(field.default_factory, SettingsModel)
        }
        self._in_run = _homes([((), [RunOptions]), *(((name,), [model]) for name, model in sections.items())])

    def of(self, key: str, path: KeyPath, trainer_types: Collection[str] = ()) -> str | None:
        """Return the full key path where a key that is unknown at `path` belongs, if there is one.

        Args:
            key: the key, or what other tools call it.
            path: the section in which it was found.
            trainer_types: the trainer types of the behaviors in question; hyperparameters that none of them has are
                skipped.
        """
        behavior: KeyPath = ("behaviors", "<name>")
        if path[:1] in {("behaviors",), ("default_settings",)}:
            behavior = path[: 1 + (path[0] == "behaviors")]
        for name in dict.fromkeys((key, OTHER_NAMES.get(key.lower().replace("-", "_"), key))):
            # A hyperparameter may be known, but to another trainer type only.
            lacking = trainer_types and not any(name in self._hyperparameters(kind) for kind in trainer_types)
            homes = [
                (*behavior, *home)
                for home in self._in_behavior.get(name, ())
                if not (lacking and home[0] == _HYPERPARAMETERS)
            ]
            homes += self._in_run.get(name, ())
            if (home := next((home for home in homes if home != (*path, key)), None)) is not None:
                return dotted(home)
        return None

    def _hyperparameters(self, trainer_type: str) -> Collection[str]:
        model = self._registry.hyperparameters(trainer_type)
        return () if model is None else model.model_fields


def _homes(sections: Iterable[tuple[KeyPath, Iterable[type[SettingsModel]]]]) -> Mapping[str, list[KeyPath]]:
    homes: dict[str, list[KeyPath]] = {}
    for path, models in sections:
        for model in models:
            for key in model.model_fields:
                known = homes.setdefault(key, [])
                if (*path, key) not in known:
                    known.append((*path, key))
    return homes


Schema: TypeAlias = dict[str, Any]

_NULL: Schema = {"type": "null"}


def configuration_schema(registry: SettingsRegistry) -> Schema:
    """Return a JSON Schema (draft 2020-12) with all that plugins add by `registry`.

    An editor should point at doubtful spellings, so the schema forbids the keys that are only worth a warning, and
    text where a number belongs.
    """
    trainers = {name: registry.hyperparameters(name) for name in sorted(registry.trainer_types)}
    signals = registry.reward_signal_models()
    models: list[type[BaseModel]] = [RunOptions, *SAMPLERS.values(), *signals.values()]
    models += [model for model in trainers.values() if model is not None]
    models += registry.plugin_settings.values()
    references, definitions = models_json_schema([(model, "validation") for model in dict.fromkeys(models)])
    parts: dict[str, Schema] = definitions["$defs"]

    def reference(model: type[BaseModel]) -> Schema:
        return dict(references[model, "validation"])

    settings = parts["TrainerSettings"]
    _choose_hyperparameters(settings, {name: reference(model) for name, model in trainers.items() if model})
    settings["properties"]["reward_signals"] |= {
        "properties": {name: reference(model) for name, model in signals.items()},
        "additionalProperties": False,
        "minProperties": 1,
    }
    settings["properties"]["framework"] = {"description": "Deprecated and ignored.", "deprecated": True}
    own = {name: reference(model) for name, model in registry.plugin_settings.items()}
    parts["PluginsSettings"]["properties"]["settings"] |= {"properties": own, "additionalProperties": False}
    for model in own.values():
        parts[model["$ref"].rpartition("/")[2]]["additionalProperties"] = False  # Not every pydantic model says it.
    parts["Sampler"] = _sampler({name: reference(model) for name, model in SAMPLERS.items()})
    parts["Lesson"]["properties"]["value"] = {"$ref": "#/$defs/Sampler"}
    run = parts.pop("RunOptions")
    run["properties"]["environment_parameters"] = {
        "description": run["properties"]["environment_parameters"]["description"],
        "type": "object",
        "additionalProperties": {
            "anyOf": [{"$ref": "#/$defs/Sampler"}, {"$ref": "#/$defs/EnvironmentParameterSettings"}]
        },
    }
    run["properties"] = {name: _or_null(part) for name, part in run["properties"].items()}
    run["title"] = "mlhooks configuration"
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **run}
    return {**schema, "$defs": _used(schema, parts)}


def _choose_hyperparameters(settings: Schema, hyperparameters: dict[str, Schema]) -> None:
    """Make the schema of `hyperparameters` depend on `trainer_type`, which default_settings may give as well."""
    properties = settings["properties"]
    properties["trainer_type"] |= {"enum": list(hyperparameters)}
    properties["hyperparameters"] = {"type": "object", "description": properties["hyperparameters"]["description"]}
    chosen = [
        {
            "if": {"properties": {"trainer_type": {"const": name}}, "required": ["trainer_type"]},
            "then": {"properties": {"hyperparameters": model}},
        }
        for name, model in hyperparameters.items()
    ]
    unsaid = {
        "if": {"not": {"required": ["trainer_type"]}},
        "then": {"properties": {"hyperparameters": {"anyOf": list(hyperparameters.values()) or [{}]}}},
    }
    settings["allOf"] = [*chosen, unsaid]


def _sampler(samplers: dict[str, Schema]) -> Schema:
    kinds = [
        {
            "type": "object",
            "properties": {"sampler_type": {"const": name}, "sampler_parameters": parameters},
            "required": ["sampler_type", "sampler_parameters"],
            "additionalProperties": False,
        }
        for name, parameters in samplers.items()
    ]
    return {"description": "A number, or a sampler that draws one.", "anyOf": [{"type": "number"}, *kinds]}


def _or_null(part: Schema) -> Schema:
    if _NULL in part.get("anyOf", []):
        return part
    if isinstance(part.get("type"), str):
        # Rather than a choice, of which a validator would only say that neither fits.
        return {**part, "type": [part["type"], "null"]}
    outside: Schema = {key: part[key] for key in ("description", "default") if key in part}
    inside: Schema = {key: value for key, value in part.items() if key not in outside}
    return {**outside, "anyOf": [inside, _NULL]}


def _used(schema: Schema, parts: dict[str, Schema]) -> dict[str, Schema]:
    """Return the definitions that the schema needs, directly or not."""
    used: dict[str, Schema] = {}
    waiting = [schema]
    while waiting:
        for name in re.findall(r'"#/\$defs/([^"]+)"', json.dumps(waiting.pop())):
            if name not in used:
                used[name] = parts[name]
                waiting.append(parts[name])
    return dict(sorted(used.items()))
