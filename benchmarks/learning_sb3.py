"""One run of Stable-Baselines3 for `learning_results.py`: the settings of an mlhooks configuration, in its words.

A setting without an equivalent there is refused. Three things differ all the same: the initial weights of DQN and SAC,
what the two do until `learning_starts`, where Stable-Baselines3 acts at random, and that its runs end with a whole
rollout.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3 import A2C, DQN, PPO, SAC
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy
from stable_baselines3.common.sb2_compat.rmsprop_tf_like import RMSpropTFLike
from stable_baselines3.common.vec_env import VecEnv, VecNormalize, sync_envs_normalization

ACTIVATIONS = {
    "tanh": torch.nn.Tanh,
    "relu": torch.nn.ReLU,
    "elu": torch.nn.ELU,
    "leaky_relu": torch.nn.LeakyReLU,
    "gelu": torch.nn.GELU,
    "swish": torch.nn.SiLU,
}
OPTIMIZERS = {name.lower(): kind for name, kind in vars(torch.optim).items() if isinstance(kind, type)}
OPTIMIZERS["rmsprop_tf"] = RMSpropTFLike
OF_THE_RUN = {"base_port", "env_path", "max_lifetime_restarts", "num_areas", "num_envs", "restarts_rate_limit_n"}
OF_THE_RUN |= {"restarts_rate_limit_period_s", "seed", "timeout_wait", "check"}
OF_THE_RUN |= {"checkpoint_interval", "even_checkpoints", "keep_checkpoints", "summary_freq", "threaded"}
OF_THE_RUN |= {"trainer_type", "max_steps", "hyperparameters", "network_settings", "reward_signals", "time_horizon"}
OF_THE_RUN |= {"goal_conditioning_type", "vis_encode_type", "save_replay_buffer", "reward_signal_steps_per_update"}
"""Keys that have no influence on what is learned from vector observations, or that `Run` reads by itself."""


class Section:
    """The keys of a section, each of which is taken once, so that a key that nobody took can be refused.

    Args:
        name: for messages.
        values: by key.
    """

    def __init__(self, name: str, values: Mapping[str, Any]) -> None:
        self.name = name
        self.values = {key: value for key, value in values.items() if key not in OF_THE_RUN}

    def take(self, key: str, default: Any = None) -> Any:
        """Return a value, or the default of mlhooks, where the configuration says nothing."""
        return self.values.pop(key, default)

    def must(self, key: str, default: Any, *same: Any) -> Any:
        """Return a value, which must be one of those that mean the same in both libraries."""
        if (value := self.take(key, default)) not in same:
            raise self.different(f"{key} {value}")
        return value

    def schedule(self, key: str, final: float, kind: str = "constant") -> float | Callable[[float], float]:
        """Return a value, or a function of the share of training that is left, where it is linear."""
        value, kind = self.take(key), self.take(f"{key}_schedule", kind)
        final = self.take(f"{key}_final", final)
        return value if kind == "constant" else lambda remaining: final + (value - final) * max(remaining, 0.0)

    def rest(self) -> None:
        """Refuse keys that nobody took, except those that are off.

        Raises:
            ValueError: a setting has no equivalent there.
        """
        on = {key: value for key, value in self.values.items() if value not in (None, False, [], {})}
        if on:
            raise self.different(str(on))

    def different(self, what: str) -> ValueError:
        """Return the error about settings that have no equivalent."""
        return ValueError(f"not the same settings in Stable-Baselines3: {self.name}: {what}")


class Run:
    """A configuration of one behavior, and the environments that it is trained in.

    Args:
        options: what `mlhooks config show CONFIG --json` prints.
        seed: of environments and algorithm.

    Raises:
        ValueError: a setting has no equivalent there.
    """

    def __init__(self, options: dict[str, Any], seed: int) -> None:
        (behavior,) = options["behaviors"].values()
        self.steps, self.trainer_type = behavior["max_steps"], behavior["trainer_type"]
        self.areas, self.seed = options["env_settings"]["num_areas"], seed
        self.id = str(options["env_settings"]["env_path"]).removeprefix("gymnasium:")
        of_environments = Section("env_settings", options["env_settings"])
        self.env_kwargs = of_environments.take("env_kwargs") or {}
        self.h = Section("hyperparameters", behavior["hyperparameters"])
        self.network = Section("network_settings", behavior["network_settings"])
        if set(behavior["reward_signals"]) != {"extrinsic"} or options["env_settings"]["num_envs"] != 1:
            raise of_environments.different("reward signals, or several workers")
        signal = Section("extrinsic", behavior["reward_signals"]["extrinsic"])
        signal.must("strength", 1.0, 1.0)
        signal.take("network_settings")  # It has no network.
        self.gamma = self.h.take("gamma", signal.take("gamma"))
        self.horizon = behavior["time_horizon"]
        for section in (of_environments, signal, Section("behavior", behavior)):
            section.rest()
        self.env = self.normalized(self.environments(self.areas, seed))
        if len(self.env.observation_space.shape or ()) != 1:
            raise of_environments.different(f"observations of {self.env.observation_space}")

    def environments(self, count: int, seed: int) -> VecEnv:
        """Return environments in a DummyVecEnv."""
        return make_vec_env(self.id, n_envs=count, seed=seed, env_kwargs=self.env_kwargs)

    def normalized(self, env: VecEnv) -> VecEnv:
        """Return environments whose observations and rewards are normalized as the configuration says."""
        h, network = self.h, self.network
        observations, rewards = network.take("normalize"), h.must("normalize_rewards", "none", "none", "running")
        of_rewards = {"clip_reward": h.take("normalize_rewards_clip", 10.0)}
        of_rewards["gamma"] = h.take("normalize_rewards_gamma") or self.gamma
        clip, before = network.take("normalize_clip", 5.0), h.take("normalize_before_update", True)
        if not observations and rewards == "none":
            return env
        if observations and before and self.trainer_type in ("ppo", "a2c"):
            raise h.different("normalize_before_update True, with normalize True")
        return VecNormalize(env, norm_obs=observations, norm_reward=rewards == "running", clip_obs=clip, **of_rewards)

    def for_evaluation(self, seed: int) -> VecEnv:
        """Return one environment, with the statistics of training where there are any."""
        env = self.environments(1, seed)
        if not isinstance(self.env, VecNormalize):
            return env
        env = VecNormalize(
            env, training=False, norm_obs=self.env.norm_obs, norm_reward=False, clip_obs=self.env.clip_obs
        )
        sync_envs_normalization(self.env, env)
        return env

    def model(self) -> BaseAlgorithm:
        """Return the algorithm.

        Raises:
            ValueError: a setting has no equivalent there.
        """
        kinds: dict[str, tuple[type[BaseAlgorithm], Callable[[], dict[str, Any]]]] = {
            "ppo": (PPO, self.ppo),
            "a2c": (A2C, self.a2c),
            "dqn": (DQN, self.dqn),
            "sac": (SAC, self.sac),
        }
        kind, own = kinds[self.trainer_type]
        given = own()
        given["policy_kwargs"] = self.policy() | given.get("policy_kwargs", {})
        given |= {"learning_rate": self.h.schedule("learning_rate", 1e-10), "gamma": self.gamma}
        self.h.rest()
        self.network.rest()
        return kind("MlpPolicy", self.env, seed=self.seed, device="cpu", **given)

    def policy(self) -> dict[str, Any]:
        """Return the arguments of the policy that all algorithms have: layers, and the optimizer."""
        network = self.network
        units, layers = network.take("hidden_units"), network.take("num_layers")
        widths: Any = network.take("hidden_layers")
        widths = [units] * layers if widths is None else widths
        of_critic = network.take("critic_hidden_layers")
        if of_critic is not None:
            widths = {"pi": widths, "qf" if self.trainer_type == "sac" else "vf": of_critic}
        return {
            "net_arch": widths,
            "activation_fn": ACTIVATIONS[network.take("activation", "swish")],
            "optimizer_class": OPTIMIZERS[self.h.take("optimizer", "adam")],
            "optimizer_kwargs": self.h.take("optimizer_kwargs") or {},
        }

    def actor_critic(self) -> dict[str, Any]:
        """Return the arguments that PPO and A2C have in common."""
        h, network = self.h, self.network
        rollout = h.take("buffer_size")
        if rollout % self.areas or self.horizon < rollout // self.areas:
            raise h.different(f"buffer_size {rollout} of {self.areas} areas, with time_horizon {self.horizon}")
        entropy = h.take("beta")
        h.take("beta_final")
        h.must("beta_schedule", "linear", *(("constant", "linear") if entropy == 0 else ("constant",)))
        h.must("shared_critic", False, False)
        joint = h.take("joint_actions", False)
        norm = h.take("max_grad_norm")
        orthogonal = network.must("initialization", "lecun_normal", "orthogonal", "torch") == "orthogonal"
        given: dict[str, Any] = {
            "n_steps": rollout // self.areas,
            "gae_lambda": h.take("lambd"),
            "ent_coef": entropy,
            "vf_coef": h.take("value_coefficient", 0.5),
            "max_grad_norm": math.inf if norm is None else norm,
            "policy_kwargs": {"ortho_init": orthogonal},
        }
        space = self.env.action_space
        limit = network.take("action_limit", 3.0)
        if isinstance(space, spaces.Box):
            if not joint and math.prod(space.shape) > 1:
                raise h.different("joint_actions False")
            if not (np.allclose(space.high, limit) and np.allclose(space.low, -limit)):
                raise network.different(f"action_limit {limit}, where the space has {space.low} to {space.high}")
            given |= self.noise()
            given["policy_kwargs"] |= {"log_std_init": network.take("log_std_init", 0.0)}
        elif not isinstance(space, spaces.Discrete):
            raise network.different(f"actions of {space}")
        return given

    def noise(self) -> dict[str, Any]:
        """Return the arguments of state-dependent exploration."""
        use = self.network.take("use_sde", False)
        given = {"use_sde": use, "sde_sample_freq": self.network.take("sde_sample_freq", -1)}
        self.network.must("full_std", True, True)
        return given

    def ppo(self) -> dict[str, Any]:
        """Return the arguments of PPO."""
        h = self.h
        batch = h.take("batch_size")
        given = self.actor_critic()
        if given["n_steps"] * self.areas % batch:
            raise h.different(f"batch_size {batch}, into which a rollout does not fit evenly")
        kind = h.take("value_clip_range_schedule", "constant")
        limit = h.take("value_clip_range")
        return given | {
            "batch_size": batch,
            "n_epochs": h.take("num_epoch"),
            "clip_range": h.schedule("epsilon", 0.1, "linear"),
            "clip_range_vf": (lambda remaining: limit * max(remaining, 0.0)) if limit and kind == "linear" else limit,
            "normalize_advantage": h.must("normalize_advantages", "rollout", "minibatch", "none") == "minibatch",
            "target_kl": h.take("target_kl"),
        }

    def a2c(self) -> dict[str, Any]:
        """Return the arguments of A2C, which makes one minibatch of a rollout."""
        given = self.actor_critic()
        self.h.must("batch_size", None, given["n_steps"] * self.areas)
        self.h.take("num_epoch")
        normalize = self.h.must("normalize_advantages", "rollout", "rollout", "minibatch", "none") != "none"
        return given | {"normalize_advantage": normalize, "use_rms_prop": False}  # The policy names its optimizer.

    def off_policy(self) -> dict[str, Any]:
        """Return the arguments that DQN and SAC have in common."""
        h = self.h
        steps = h.take("steps_per_update")
        between = max(h.take("update_interval", 1), int(steps))
        if between % self.areas or between % steps:
            raise h.different(f"steps_per_update {steps}, update_interval {between}, in {self.areas} areas")
        starts = h.take("buffer_init_steps")
        h.must("random_steps", 0, 0, starts)
        self.network.take("initialization")
        return {
            "batch_size": h.take("batch_size"),
            "buffer_size": h.take("buffer_size"),
            "learning_starts": starts,
            "train_freq": between // self.areas,
            "gradient_steps": int(between / steps),
            "n_steps": h.take("n_step", 1),
            "tau": h.take("tau"),
        }

    def dqn(self) -> dict[str, Any]:
        """Return the arguments of DQN."""
        h = self.h
        h.must("exploration_schedule", "linear", "linear")
        norm = h.take("max_grad_norm")
        return self.off_policy() | {
            "max_grad_norm": math.inf if norm is None else norm,
            "target_update_interval": h.take("target_update_interval"),
            "exploration_fraction": (h.take("exploration_steps") or self.steps) / self.steps,
            "exploration_initial_eps": h.take("exploration_initial_eps"),
            "exploration_final_eps": h.take("exploration_final_eps"),
        }

    def sac(self) -> dict[str, Any]:
        """Return the arguments of SAC."""
        h = self.h
        h.must("twin_targets", False, True)
        h.must("max_grad_norm", None, None)
        h.must("optimizer", "adam", "adam")
        h.must("optimizer_kwargs", None, None)  # They would be those of the entropy's weight as well.
        entropy = h.take("init_entcoef")
        given = self.off_policy() | self.noise()
        if given["use_sde"]:
            given["policy_kwargs"] = {"log_std_init": self.network.take("log_std_init", -3.0)}
        return given | {"ent_coef": f"auto_{entropy}" if h.take("learn_entcoef", True) else entropy}


def train_and_score(
    learner: BaseAlgorithm, steps: int, for_evaluation: Callable[[int], VecEnv], settings: dict[str, Any]
) -> dict[str, Any]:
    """Train a learner and score its final policy.

    Args:
        learner: before training.
        steps: how many it trains.
        for_evaluation: called after training with a seed, returns the environment in which the policy is scored.
        settings: `seed`, and `episodes` of the evaluation.

    Returns:
        What is reported of a run, without the version of the library.
    """
    started = perf_counter()
    learner.learn(steps)
    seconds = perf_counter() - started
    training = [episode["r"] for episode in learner.ep_info_buffer]  # These are of the last 100 episodes.
    scoring = for_evaluation(settings["seed"] + 1000)
    returns, _ = evaluate_policy(
        learner, scoring, n_eval_episodes=settings["episodes"], deterministic=True, return_episode_rewards=True
    )
    return {
        "seed": settings["seed"],
        "steps": learner.num_timesteps,
        "training": round(float(np.mean(training)), 3),
        "evaluation": round(float(np.mean(returns)), 3),
        "deviation": round(float(np.std(returns)), 3),
        "minimum": round(float(np.min(returns)), 3),
        "seconds": round(seconds, 1),
    }


def script(run: Callable[[dict[str, Any]], dict[str, Any]], library: str) -> None:
    """Make the run that the first argument describes, and write its result to the file that the second one names.

    Args:
        run: makes it.
        library: the distribution whose version is reported.
    """
    torch.set_num_threads(1)
    result = run(json.loads(sys.argv[1])) | {"version": version(library)}
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")


def main(settings: dict[str, Any]) -> dict[str, Any]:
    """Train and score."""
    run = Run(settings["options"], settings["seed"])
    return train_and_score(run.model(), run.steps, run.for_evaluation, settings)


if __name__ == "__main__":
    script(main, "stable-baselines3")
