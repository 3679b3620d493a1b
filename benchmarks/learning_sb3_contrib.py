"""One run of SB3-Contrib's RecurrentPPO for `learning_results.py`: the settings of an mlhooks configuration.

Networks differ where the two libraries do: the layers are before the LSTM in mlhooks, and behind it there.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import gymnasium
from gymnasium.wrappers import TransformReward
from learning_sb3 import ACTIVATIONS, script, train_and_score
from sb3_contrib import RecurrentPPO
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.vec_env import VecNormalize, sync_envs_normalization

sys.path.append(str(Path(__file__).parents[1]))

from builtin_plugins.gymnasium_masking import MaskVelocity  # It needs nothing of mlhooks.


def environments(options: dict[str, Any], count: int, seed: int) -> VecNormalize:
    """Return environments, with rewards scaled and observations normalized as the configuration says.

    The returns that are reported are those of the environments themselves: Monitor measures them below these wrappers.

    Raises:
        ValueError: the configuration has other wrappers, or does not normalize observations.
    """
    settings, (behavior,) = options["env_settings"], options["behaviors"].values()
    network, strength = behavior["network_settings"], behavior["reward_signals"]["extrinsic"]["strength"]
    if settings["wrappers"] not in (["MaskVelocity"], [{"MaskVelocity": {}}]) or not network["normalize"]:
        raise ValueError("not the same environment")
    name = str(settings["env_path"]).removeprefix("gymnasium:")

    def wrapped(env: gymnasium.Env[Any, Any]) -> gymnasium.Env[Any, Any]:
        return TransformReward(MaskVelocity(env), lambda reward: reward * strength)

    made = make_vec_env(name, count, seed, wrapper_class=wrapped)
    return VecNormalize(made, norm_reward=False, clip_obs=network.get("normalize_clip", 5.0))


def model(options: dict[str, Any], seed: int) -> RecurrentPPO:
    """Return the algorithm with the settings of the configuration's one behavior.

    Raises:
        ValueError: a setting has no equivalent there.
    """
    (behavior,) = options["behaviors"].values()
    h, network, areas = behavior["hyperparameters"], behavior["network_settings"], options["env_settings"]["num_areas"]
    rate, clip, memory = h["learning_rate"], h["epsilon"], network["memory"]
    if h["learning_rate_schedule"] != "linear" or not h["joint_actions"] or h["shared_critic"]:
        raise ValueError("not the same settings")
    return RecurrentPPO(
        "MlpLstmPolicy",
        environments(options, areas, seed),
        learning_rate=lambda remaining: rate * remaining,
        clip_range=lambda remaining: 0.1 + (clip - 0.1) * remaining,
        gamma=behavior["reward_signals"]["extrinsic"]["gamma"],
        gae_lambda=h["lambd"],
        ent_coef=h["beta"],
        max_grad_norm=math.inf if h["max_grad_norm"] is None else h["max_grad_norm"],
        n_steps=h["buffer_size"] // areas,
        batch_size=h["batch_size"],
        n_epochs=h["num_epoch"],
        seed=seed,
        device="cpu",
        policy_kwargs={
            "lstm_hidden_size": memory["memory_size"] // 2,
            "net_arch": [network["hidden_units"]] * network["num_layers"],
            "activation_fn": ACTIVATIONS[network["activation"]],
            "ortho_init": network["initialization"] == "orthogonal",
        },
    )


def main(settings: dict[str, Any]) -> dict[str, Any]:
    """Train and score."""
    options, seed = settings["options"], settings["seed"]
    learner = model(options, seed)
    (behavior,) = options["behaviors"].values()

    def for_evaluation(seed: int) -> VecNormalize:
        scoring = environments(options, 1, seed)
        scoring.training = False
        sync_envs_normalization(learner.get_env(), scoring)
        return scoring

    return train_and_score(learner, behavior["max_steps"], for_evaluation, settings)


if __name__ == "__main__":
    script(main, "sb3-contrib")
