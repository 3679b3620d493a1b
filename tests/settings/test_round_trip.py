"""What is written as YAML reads back equal, whatever it holds."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mlhooks.settings import (
    RunOptions,
    SettingsRegistry,
    load_run_options,
)
from mlhooks.settings.yaml_source import parse_yaml
from tests.settings.conftest import DQN, PPO, CuriousSettings


def _behaviors() -> st.SearchStrategy[dict[str, Any]]:
    network = st.fixed_dictionaries(
        {},
        optional={
            "hidden_units": st.integers(1, 10**6),
            "normalize": st.booleans(),
            "memory": st.none() | st.fixed_dictionaries({"sequence_length": st.integers(1, 8)}),
            "activation": st.sampled_from(["tanh", "swish"]),
        },
    )
    rate = st.floats(0, 1, exclude_min=True)
    signals = st.dictionaries(
        st.sampled_from(["extrinsic", "curiosity", "rnd", "wonder"]),
        st.fixed_dictionaries({}, optional={"gamma": rate, "network_settings": network}),
        min_size=1,
    )
    hyperparameters = st.fixed_dictionaries(
        {"batch_size": st.integers(8, 100)},
        optional={"learning_rate": rate, "learning_rate_schedule": st.sampled_from(["linear", "constant"])},
    )
    return st.fixed_dictionaries(
        {"trainer_type": st.sampled_from(["ppo", "dqn"])},
        optional={
            "hyperparameters": hyperparameters,
            "network_settings": network,
            "reward_signals": signals,
            "max_steps": st.integers(0, 10**9) | st.floats(0, 10**9).map(lambda x: float(int(x))),
            "even_checkpoints": st.booleans(),
            "init_path": st.none() | st.text(st.characters(exclude_categories=["Cs", "Cc", "Zl", "Zp"])),
            "self_play": st.none() | st.fixed_dictionaries({"save_steps": st.integers(1, 1000)}),
        },
    )


_NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
_JSON = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | _NAMES


@settings(max_examples=60, deadline=None)
@given(
    behaviors=st.dictionaries(_NAMES, _behaviors(), max_size=3),
    defaults=st.none() | _behaviors(),
    env_kwargs=st.none() | st.dictionaries(_NAMES, _JSON | st.lists(_JSON, max_size=3), max_size=3),
)
def test_the_written_configuration_reads_back_equal(
    behaviors: dict[str, Any], defaults: dict[str, Any] | None, env_kwargs: dict[str, Any] | None
) -> None:
    registry = SettingsRegistry({"ppo": PPO, "dqn": DQN}, {"wonder": (object, CuriousSettings)})
    source = {"behaviors": behaviors, "default_settings": defaults, "env_settings": {"env_kwargs": env_kwargs}}
    options = load_run_options(source, registry).options
    back = _reload(options, registry)
    assert back == options
    assert back.as_dict() == options.as_dict()
    assert json.loads(json.dumps(options.as_dict())) == options.as_dict()


def _reload(options: RunOptions, registry: SettingsRegistry) -> RunOptions:
    return load_run_options(parse_yaml(options.to_yaml()).value, registry).options
