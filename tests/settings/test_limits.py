"""Numbers that something further on could not take are refused where they are read."""

from __future__ import annotations

import struct

import numpy as np
import pytest
import torch

from mlhooks.settings.environment_parameters import FLOAT32, INT32
from tests.settings.conftest import Load, Refuse

SEED = "env_settings.seed"


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        (f"{SEED}={2**70}", "allowed: a whole number, at least -1, at most 4294967295"),
        (f"{SEED}={2**32}", "at most 4294967295"),
        (f"{SEED}=-2", "at least -1"),
        (f"{SEED}=1e300", "at most 4294967295"),
        (f"{SEED}={'9' * 5000}", "found '9999"),
        (f"{SEED}=.inf", "not a finite number"),
        ("env_settings.num_envs=1e30", "at most 65535"),
        ("env_settings.num_areas=2147483648", "at most 2147483647"),
        ("env_settings.timeout_wait=1e18", "at most 2000000"),
        ("env_settings.restarts_rate_limit_period_s=1e30", "the limit of all whole numbers is 9223372036854775807"),
        ("engine_settings.width=2147483648", "at most 2147483647"),
        ("engine_settings.target_frame_rate=1e18", "at most 2147483647"),
        ("engine_settings.time_scale=1e39", "at most 3.40282e+38"),
        ("torch_settings.threads=1e18", "at most 4096"),
        ("behaviors.A.max_steps=1e30", "the limit of all whole numbers is 9223372036854775807"),
        ("behaviors.A.max_steps=1e400", "not a finite number"),
        (f"behaviors.A.max_steps={10**4000}", "the limit of all whole numbers is 9223372036854775807"),
        (f"behaviors.A.hyperparameters.learning_rate={10**400}", "not a finite number"),
        ("behaviors.A.hyperparameters.batch_size=1e18", "at most 1099511627776"),
        ("behaviors.A.hyperparameters.buffer_size=1e18", "at most 1099511627776"),
        ("behaviors.A.network_settings.hidden_units=1e9", "at most 1048576"),
        ("behaviors.A.network_settings.num_layers=1e9", "at most 1000"),
        ("environment_parameters.gravity=1e39", "not a valid value"),
        (f"environment_parameters.gravity={10**400}", "not a valid value"),
        ("environment_parameters.g={sampler_type: uniform, sampler_parameters: {max_value: 1e39}}", "3.40282e+38"),
        ("environment_parameters.g={sampler_type: uniform, sampler_parameters: {seed: 3e9}}", "at most 2147483647"),
    ],
)
def test_numbers_out_of_reach_are_refused(refuse: Refuse, setting: str, words: str) -> None:
    (finding,) = refuse("behaviors: {A: {trainer_type: ppo}}", overrides=[setting])
    assert words in str(finding)
    assert len(str(finding)) < 1000


@pytest.mark.parametrize("seed", [0, 2**32 - 1])
def test_every_seed_that_is_accepted_suits_all_that_get_it(load: Load, seed: int) -> None:
    accepted = load(f"env_settings: {{seed: {seed}}}").options.env_settings.seed
    assert accepted == seed
    np.random.RandomState(accepted)
    np.random.default_rng([accepted, 0])
    torch.Generator().manual_seed(accepted)


def test_limits_are_what_a_message_of_a_player_holds() -> None:
    assert struct.unpack("<if", struct.pack("<if", INT32, FLOAT32))[0] == INT32
    with pytest.raises(struct.error):
        struct.pack("<i", INT32 + 1)
    with pytest.raises(OverflowError):
        struct.pack("<f", 3.5e38)
