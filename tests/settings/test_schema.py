from __future__ import annotations

import json
import re
from typing import Any

import pytest

from mlhooks.settings import SettingsRegistry
from mlhooks.settings.schema import configuration_schema
from mlhooks.settings.yaml_source import parse_yaml
from tests.settings.conftest import Load

Schema = dict[str, Any]


@pytest.fixture
def schema(registry: SettingsRegistry) -> Schema:
    return configuration_schema(registry)


def accepts(schema: Schema, value: Any, root: Schema | None = None) -> bool:
    """Return whether a value fits a schema, by the keywords of draft 2020-12 that ours uses; others are a mistake."""
    root = root or schema
    return all(_KEYWORDS[keyword](schema, part, value, root) for keyword, part in schema.items() if keyword != "if")


def _is(kind: str, value: Any) -> bool:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "null": type(None)}
    if kind in kinds:
        return isinstance(value, kinds[kind])
    return number and (kind == "number" or float(value).is_integer())


def _properties(schema: Schema, part: Schema, value: Any, root: Schema) -> bool:
    return not isinstance(value, dict) or all(accepts(part[key], value[key], root) for key in part.keys() & value)


def _additional(schema: Schema, part: Any, value: Any, root: Schema) -> bool:
    others = value.keys() - schema.get("properties", {}).keys() if isinstance(value, dict) else set()
    return not others if part is False else part is True or all(accepts(part, value[key], root) for key in others)


def _then(schema: Schema, part: Schema, value: Any, root: Schema) -> bool:
    return not accepts(schema["if"], value, root) or accepts(part, value, root)


def _always(schema: Schema, part: Any, value: Any, root: Schema) -> bool:
    return True


def _number(compare: Any) -> Any:
    return lambda schema, part, value, root: not _is("number", value) or compare(value, part)


def _sized(kind: type, compare: Any) -> Any:
    return lambda schema, part, value, root: not isinstance(value, kind) or compare(len(value), part)


_KEYWORDS: dict[str, Any] = {
    "$ref": lambda schema, part, value, root: accepts(root["$defs"][part.removeprefix("#/$defs/")], value, root),
    "type": lambda schema, part, value, root: any(
        _is(kind, value) for kind in ([part] if isinstance(part, str) else part)
    ),
    "properties": _properties,
    "additionalProperties": _additional,
    "required": lambda schema, part, value, root: not isinstance(value, dict) or value.keys() >= set(part),
    "then": _then,
    "not": lambda schema, part, value, root: not accepts(part, value, root),
    "anyOf": lambda schema, part, value, root: any(accepts(one, value, root) for one in part),
    "allOf": lambda schema, part, value, root: all(accepts(one, value, root) for one in part),
    "const": lambda schema, part, value, root: value == part,
    "enum": lambda schema, part, value, root: value in part,
    "items": lambda schema, part, value, root: (
        not isinstance(value, list) or all(accepts(part, one, root) for one in value)
    ),
    "prefixItems": lambda schema, part, value, root: (
        not isinstance(value, list) or all(accepts(one, item, root) for one, item in zip(part, value, strict=False))
    ),
    "minimum": _number(lambda value, limit: value >= limit),
    "maximum": _number(lambda value, limit: value <= limit),
    "exclusiveMinimum": _number(lambda value, limit: value > limit),
    "minItems": _sized(list, lambda size, limit: size >= limit),
    "maxItems": _sized(list, lambda size, limit: size <= limit),
    "minLength": _sized(str, lambda size, limit: size >= limit),
    "minProperties": _sized(dict, lambda size, limit: size >= limit),
    **dict.fromkeys(
        ["$schema", "$defs", "title", "description", "default", "deprecated", "x-mlhooks-extension"], _always
    ),
}

VALID = """\
default_settings: {trainer_type: dqn, hyperparameters: {tau: 0.1, noise: 1}}
behaviors:
  A:
    trainer_type: ppo
    hyperparameters: {batch_size: 64.0, beta: 0.1, beta_schedule: constant, max_grad_norm: 1}
    network_settings: {memory: {memory_size: 8}, activation: tanh}
    reward_signals: {extrinsic: {gamma: 0.9}, gail: {demo_path: d}, wonder: {curiosity: 3}}
    max_steps: 5.0e+6
    self_play: null
    framework: pytorch
  B: {hyperparameters: {tau: 0.1}}
env_settings: {env_path: sim:X, env_kwargs: {anything: [1]}, env_args: [a]}
engine_settings:
environment_parameters:
  a: 3
  b: {sampler_type: uniform, sampler_parameters: {min_value: 0.5}}
  c:
    curriculum:
      - {name: x, value: 3, completion_criteria: {behavior: A, measure: reward}}
      - {name: y, value: {sampler_type: multirangeuniform, sampler_parameters: {intervals: [[1, 2], [3, 4]]}}}
debug: true
"""


def test_valid_files_fit_and_so_do_their_resolved_options(schema: Schema, load: Load) -> None:
    assert accepts(schema, parse_yaml(VALID).value)
    assert accepts(schema, load(VALID).options.as_dict())


@pytest.mark.parametrize(
    "text",
    [
        "behavior: {}",
        "behaviors: {A: {trainer_type: sac}}",
        "behaviors: {A: {trainer_type: ppo, hyperparameters: {tau: 0.1}}}",
        "behaviors: {A: {trainer_type: dqn, hyperparameters: {beta: 0.1}}}",
        "behaviors: {A: {hyperparameters: {batch_sise: 3}}}",
        "behaviors: {A: {hyperparameters: []}}",
        "behaviors: {A: {network_settings: {hidden_units: 0}}}",
        "behaviors: {A: {network_settings: {vis_encode_type: none}}}",
        "behaviors: {A: {reward_signals: {extrinsik: {}}}}",
        "behaviors: {A: {reward_signals: {gail: {}}}}",
        "behaviors: {A: {reward_signals: {extrinsic: {encoding_size: 3}}}}",
        "behaviors: {A: {reward_signals: {}}}",
        "behaviors: {A: }",
        "environment_parameters: {a: {sampler_type: uniform, sampler_parameters: {value: 3}}}",
        "environment_parameters: {a: {curriculum: []}}",
        "env_settings: {num_areas: many}",
    ],
)
def test_invalid_files_do_not_fit(schema: Schema, text: str) -> None:
    assert not accepts(schema, parse_yaml(text).value)


def test_every_setting_is_described(schema: Schema) -> None:
    silent = [
        f"{name}.{key}"
        for name, model in schema["$defs"].items()
        for key, part in model.get("properties", {}).items()
        if not _described(part, schema)
    ]
    # The stand-ins for a plugin's own settings describe nothing here.
    assert [name for name in silent if not name.startswith(("PPOModel.", "DQNModel.", "CuriousSettings."))] == []


def _described(part: Schema, schema: Schema) -> bool:
    target = schema["$defs"].get(part.get("$ref", "").removeprefix("#/$defs/"), {})
    return bool(part.get("description") or target.get("description"))


def test_the_schema_is_json_whose_references_all_lead_somewhere(schema: Schema) -> None:
    text = json.dumps(schema, allow_nan=False)
    assert set(re.findall(r'"\$ref": "#/\$defs/([^"]+)"', text)) == schema["$defs"].keys()
    assert json.loads(text)["$schema"] == "https://json-schema.org/draft/2020-12/schema"


def test_a_schema_without_plugins_is_still_a_schema() -> None:
    schema = configuration_schema(SettingsRegistry({}))
    assert accepts(schema, {"behaviors": {"A": {"max_steps": 3}}})
    assert not accepts(schema, {"behaviors": {"A": {"trainer_type": "ppo"}}})
