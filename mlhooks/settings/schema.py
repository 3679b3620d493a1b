"""JSON Schema of configuration files, for editors, made from the installed plugins."""

from __future__ import annotations

import json
import re
from typing import Any, TypeAlias

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from mlhooks.settings.environment_parameters import SAMPLERS
from mlhooks.settings.registry import SettingsRegistry
from mlhooks.settings.run_options import RunOptions

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
        parts[model["$ref"].rpartition("/")[2]]["additionalProperties"] = False  # not every pydantic model says it
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
