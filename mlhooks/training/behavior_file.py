"""The description in a behavior's checkpoint, by which it can be used without the configuration that made it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mlagents_envs.base_env import ActionSpec, BehaviorSpec, DimensionProperty, ObservationSpec, ObservationType

import mlhooks
from mlhooks.state_checks import whole
from mlhooks.training.trainer import Trainer

LARGEST_SIZE = 2**24
"""The largest size of any part of an observation or action."""


def as_behavior_file(trainer: Trainer, state: Mapping[str, Any]) -> dict[str, Any]:
    """Return a state with a header that names behavior, spec, settings and version."""
    header = {
        "kind": "behavior",
        "version": mlhooks.__version__,
        "behavior": trainer.behavior_name,
        "spec": spec_to_dict(trainer.behavior_spec),
        "spaces": None if trainer.spaces is None else trainer.spaces.to_data(),
        "settings": json.dumps(trainer.settings.model_dump(mode="json")),
    }
    return {"mlhooks": header, **state}


def spec_to_dict(spec: BehaviorSpec) -> dict[str, Any]:
    """Return a behavior spec in plain values."""
    return {
        "continuous": spec.action_spec.continuous_size,
        "branches": list(spec.action_spec.discrete_branches),
        "observations": [
            {
                "shape": list(observation.shape),
                "dimensions": [int(dimension) for dimension in observation.dimension_property],
                "type": observation.observation_type.value,
                "name": observation.name,
            }
            for observation in spec.observation_specs
        ],
    }


def spec_from_dict(state: Mapping[str, Any]) -> BehaviorSpec:
    """Undo `spec_to_dict`.

    Raises:
        KeyError, TypeError, ValueError: the state is not of that form.
    """
    observations = [
        ObservationSpec(
            tuple(whole(size, "an observation's size", 0, LARGEST_SIZE) for size in observation["shape"]),
            tuple(DimensionProperty(dimension) for dimension in observation["dimensions"]),
            ObservationType(observation["type"]),
            str(observation["name"]),
        )
        for observation in state["observations"]
    ]
    branches = tuple(whole(size, "a branch's size", 1, LARGEST_SIZE) for size in state["branches"])
    continuous = whole(state["continuous"], "the number of continuous actions", 0, LARGEST_SIZE)
    return BehaviorSpec(observations, ActionSpec(continuous, branches))
