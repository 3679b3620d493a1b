"""An entry of RL Zoo as a configuration that means the same.

Keys, defaults and formulas are those of RL Baselines3 Zoo (https://github.com/DLR-RM/rl-baselines3-zoo) and
Stable-Baselines3 (https://stable-baselines3.readthedocs.io).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mlhooks.settings.yaml_source import dump_yaml
from mlhooks.zoo.entry import Entry, as_number, plain
from mlhooks.zoo.environments import Found, behavior_name, is_atari, look_up, wrappers_of
from mlhooks.zoo.networks import (
    ADAM,
    IMAGE_UNITS,
    PolicyArguments,
    activation_of,
    exploration_of,
    layers_of,
    optimizer_of,
)
from mlhooks.zoo.python_text import Name

LONG = 1_000_000
"""A time horizon that no rollout reaches, because rollouts are what cuts trajectories in Stable-Baselines3."""
SUMMARIES = 50
"""The summaries of a converted run."""


@dataclass
class Converted:
    """A configuration and what it leaves out.

    Attributes:
        title: where it came from.
        settings: the configuration, as plain values.
        missing: what it cannot express; assumed: what the entry does not say.
    """

    title: str
    settings: dict[str, Any]
    missing: list[str]
    assumed: list[str]

    def as_text(self) -> str:
        """Return the configuration as a file, with what is missing in comments at its top."""
        head = [f"RL Baselines3 Zoo's {self.title}, as a configuration of mlhooks."]
        head += [f"Not expressed: {each}" for each in self.missing]
        head += [f"Assumed: {each}" for each in self.assumed]
        return "".join(f"# {' '.join(line.split())}\n" for line in head) + dump_yaml(self.settings)


def convert(entry: Entry, trainer_type: str, name: str) -> Converted:
    """Return an entry as a configuration.

    Args:
        entry: the entry, of which nothing was taken yet.
        trainer_type: the algorithm, one of `ALGORITHMS`.
        name: the environment.

    Raises:
        UsageError: RL Zoo would not take a value, either.
    """
    kwargs = entry.take("env_kwargs") or {}
    if not isinstance(kwargs, dict):
        raise entry.wrong("env_kwargs", plain(kwargs), "must be a mapping from names to values")
    found = look_up(name, kwargs)
    if found.id != name:
        entry.assumes(f"{found.id} stands for {name}, which is not installed")
    elif found.why_not:
        entry.assumes(f"{name} can be made elsewhere, because here it cannot: {found.why_not}")
    steps, copies = entry.whole("n_timesteps", 1_000_000), entry.whole("n_envs", 1)
    wrappers, atari = wrappers_of(entry, images=found.images)
    policy = str(entry.take("policy", "MlpPolicy"))
    images = policy == "CnnPolicy"
    if policy not in ("MlpPolicy", "CnnPolicy", "MultiInputPolicy"):
        entry.lacks(f"policy: {policy}")
    arguments = PolicyArguments(entry)
    behavior = ALGORITHMS[trainer_type](entry, arguments, Run(steps, copies, found, images=images))
    if behavior["network_settings"].get("normalize") and any("FrameStackObservation" in each for each in wrappers):
        entry.assumes("stacks of observations can be normalized as well as the observations that are stacked")
    arguments.rest()
    entry.rest()
    summary = max(1000, steps // SUMMARIES)
    settings = {"trainer_type": trainer_type, **behavior, "max_steps": steps, "summary_freq": summary}
    environment: dict[str, Any] = {"env_path": f"gymnasium:{found.id}"}
    if kwargs:
        environment["env_kwargs"] = kwargs
    if copies > 1:
        environment["num_areas"] = copies
    if atari:
        environment["atari"] = True
    if wrappers:
        environment["wrappers"] = wrappers
    if is_atari(name) and not atari:
        entry.assumes("the game needs no preprocessing, because the entry names none")
    settings, environment = _plain_values(entry, settings), _plain_values(entry, environment)
    configuration = {"behaviors": {behavior_name(found.id): settings}, "env_settings": environment}
    return Converted(entry.title, configuration, entry.missing, entry.assumed)


def _plain_values(entry: Entry, value: Any) -> Any:
    """Return settings with the text of a name in its place, which is noted: no configuration holds names of Python."""
    if isinstance(value, dict):
        return {key: _plain_values(entry, item) for key, item in value.items()}
    if isinstance(value, Name):
        entry.lacks(f"the value of {value.text}")
        return value.text
    return [_plain_values(entry, item) for item in value] if isinstance(value, list) else value


@dataclass
class Run:
    """What all parts of an entry depend on: steps, copies of the environment, the environment, and what it shows."""

    steps: int
    copies: int
    found: Found
    images: bool


def _ppo(entry: Entry, arguments: PolicyArguments, run: Run) -> dict[str, Any]:
    rows = entry.whole("n_steps", 2048) * run.copies
    size = min(entry.whole("batch_size", 64), rows)
    if rows % size:
        entry.assumes(
            f"minibatches of near-equal sizes, of at least {size} rows, do as well as those of {size} and a rest of "
            f"{rows % size}"
        )
    h: dict[str, Any] = {"batch_size": size, "buffer_size": rows}
    h |= _scheduled(entry, "learning_rate", 3e-4, "learning_rate")
    h |= _scheduled(entry, "clip_range", 0.2, "epsilon")
    value_range = entry.schedule("clip_range_vf", None)
    if value_range is not None:
        h["value_clip_range"] = value_range[0]
        if value_range[1]:
            h["value_clip_range_schedule"] = "linear"
    h["num_epoch"] = entry.whole("n_epochs", 10)
    h |= _of_actor_and_critic(entry, lambd=0.95, normalized=True)
    h |= optimizer_of(arguments, name="adam", given=ADAM)
    if (target := entry.number_or_none("target_kl", None)) is not None:
        h["target_kl"] = target
    return _with_networks(entry, arguments, run, h)


def _a2c(entry: Entry, arguments: PolicyArguments, run: Run) -> dict[str, Any]:
    rows = entry.whole("n_steps", 5) * run.copies
    h: dict[str, Any] = {"batch_size": rows, "buffer_size": rows}
    h |= _scheduled(entry, "learning_rate", 7e-4, "learning_rate")
    h |= _of_actor_and_critic(entry, lambd=1.0, normalized=False)
    rms, eps = entry.flag("use_rms_prop", default=True), entry.number("rms_prop_eps", 1e-5)
    if rms:
        h |= optimizer_of(arguments, name="rmsprop", given={"alpha": 0.99, "eps": eps}, adam=ADAM)
    else:
        h |= optimizer_of(arguments, name="adam", given=ADAM)
    return _with_networks(entry, arguments, run, h)


def _of_actor_and_critic(entry: Entry, *, lambd: float, normalized: bool) -> dict[str, Any]:
    """Return the hyperparameters that PPO and A2C have in common."""
    h: dict[str, Any] = {"beta": entry.number("ent_coef", 0.0), "beta_schedule": "constant"}
    h["lambd"] = entry.number("gae_lambda", lambd)
    h["value_coefficient"] = entry.number("vf_coef", 0.5)
    h["max_grad_norm"] = entry.number_or_none("max_grad_norm", 0.5)
    normalize = entry.flag("normalize_advantage", default=normalized)
    h["normalize_advantages"] = "minibatch" if normalize else "none"
    h["joint_actions"] = True
    return h


def _with_networks(entry: Entry, arguments: PolicyArguments, run: Run, h: dict[str, Any]) -> dict[str, Any]:
    """Return an entry of behaviors for PPO or A2C."""
    network, rewards = _normalized(entry)
    network |= _layers(arguments, run, [64, 64], "tanh", orthogonal=True)
    network |= exploration_of(entry, arguments, run.found, squashed=False)
    signals = {"extrinsic": {"gamma": entry.number("gamma", 0.99)}}
    hyperparameters = {**h, **rewards}
    if network.get("normalize"):  # Otherwise PPO and A2C learn badly from rollouts of few steps.
        hyperparameters["normalize_before_update"] = False
    if run.images and not network["hidden_layers"] and "critic_hidden_layers" not in network:
        hyperparameters["shared_critic"] = True
    elif run.images:
        entry.lacks("an encoder of images that policy and critic share before layers of their own; each has one here")
    return {
        "hyperparameters": hyperparameters,
        "network_settings": network,
        "reward_signals": signals,
        "time_horizon": LONG,
    }


def _dqn(entry: Entry, arguments: PolicyArguments, run: Run) -> dict[str, Any]:
    network, rewards = _normalized(entry)
    h = _off_policy(entry, run, batch=32, rate=1e-4, train_freq=4)
    h["gamma"] = entry.number("gamma", 0.99)
    h["tau"] = entry.number("tau", 1.0)
    interval = entry.whole("target_update_interval", 10_000)
    if h["tau"] == 1.0:
        h["target_update_interval"] = interval
    elif interval != h["steps_per_update"]:
        entry.lacks(f"target_update_interval: {interval} with tau: {h['tau']}, which here is taken at each update")
    h["exploration_schedule"] = "linear"
    h["exploration_initial_eps"] = entry.number("exploration_initial_eps", 1.0)
    h["exploration_final_eps"] = entry.number("exploration_final_eps", 0.05)
    h["exploration_steps"] = max(1, round(entry.number("exploration_fraction", 0.1) * run.steps))
    h["max_grad_norm"] = entry.number_or_none("max_grad_norm", 10)
    h |= optimizer_of(arguments, name="adam", given={})
    network |= _layers(arguments, run, [64, 64], "relu", orthogonal=False)
    return {"hyperparameters": {**h, **rewards}, "network_settings": network}


def _sac(entry: Entry, arguments: PolicyArguments, run: Run) -> dict[str, Any]:
    h = _off_policy(entry, run, batch=256, rate=3e-4, train_freq=1)
    h["tau"] = entry.number("tau", 0.005)
    h["twin_targets"] = True
    weight = entry.take("ent_coef", "auto")
    learned = isinstance(weight, str) and weight.startswith("auto")
    initial = (weight.partition("_")[2] or 1.0) if learned else weight
    coefficient = Entry(entry.title, {"ent_coef": initial}).number("ent_coef", 1.0)
    if coefficient < 0 or (learned and not coefficient):
        raise entry.wrong("ent_coef", plain(weight), "must be greater than 0")
    if not coefficient:  # SAC takes the logarithm of init_entcoef, so that it cannot be 0.
        entry.assumes("an entropy coefficient of 1e-8 is as good as 0")
    h["init_entcoef"] = coefficient or 1e-8
    if not learned:
        h["learn_entcoef"] = False
    for key, default in (("target_update_interval", 1), ("target_entropy", "auto"), ("action_noise", None)):
        if (value := entry.take(key, default)) != default:
            entry.lacks(f"{key}: {plain(value)}")
    by_noise = entry.flag("use_sde_at_warmup", default=False)
    h |= optimizer_of(arguments, name="adam", given={})
    network, rewards = _normalized(entry)
    network |= _layers(arguments, run, [256, 256], "relu", orthogonal=False, of_images=[256, 256])
    network |= exploration_of(entry, arguments, run.found, squashed=True)
    if by_noise and network.get("use_sde"):
        del h["random_steps"]
    signals = {"extrinsic": {"gamma": entry.number("gamma", 0.99)}}
    return {"hyperparameters": {**h, **rewards}, "network_settings": network, "reward_signals": signals}


def _off_policy(entry: Entry, run: Run, *, batch: int, rate: float, train_freq: int) -> dict[str, Any]:
    """Return the hyperparameters that DQN and SAC have in common."""
    h: dict[str, Any] = {
        "batch_size": entry.whole("batch_size", batch),
        "buffer_size": entry.whole("buffer_size", 1_000_000),
    }
    h |= _scheduled(entry, "learning_rate", rate, "learning_rate")
    h["buffer_init_steps"] = h["random_steps"] = entry.whole("learning_starts", 100, least=0)
    written = entry.take("train_freq", train_freq)
    count, unit = written if isinstance(written, list) and len(written) == 2 else (written, "step")
    updates = entry.whole("gradient_steps", 1, least=-1)
    if updates == 0:
        raise entry.wrong("gradient_steps", 0, "lets nothing be learned")
    if unit != "step":
        several = "" if updates < 0 else f" and gradient_steps: {updates}"
        entry.lacks(f"train_freq: {plain(written)}{several}; there is one update for each step instead")
        count, updates = train_freq, -1
    steps = Entry(entry.title, {"train_freq": count}).whole("train_freq", train_freq) * run.copies
    h["steps_per_update"] = as_number(1 if updates < 0 else steps / updates)
    h["update_interval"] = steps
    if (rewards := entry.whole("n_steps", 1)) > 1:
        h["n_step"] = rewards
    if entry.take("optimize_memory_usage", False):
        entry.assumes("optimize_memory_usage changes nothing but how much memory is needed")
    return h


def _scheduled(entry: Entry, key: str, default: float, name: str) -> dict[str, Any]:
    """Return a value and its schedule, which falls to 0 where it is linear."""
    written = entry.written(key)
    value = entry.schedule(key, default)
    if value is None:
        raise entry.wrong(key, written, "must be a number that is not negative")
    number, is_linear = value
    if not is_linear:
        return {name: number, f"{name}_schedule": "constant"}
    return {name: number, f"{name}_schedule": "linear", f"{name}_final": 0}


def _normalized(entry: Entry) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what an entry's `normalize` means for networks, and for hyperparameters."""
    written = entry.take("normalize", False)
    if written is False or written is None:
        return {}, {}
    given: dict[str, Any] = dict(written) if isinstance(written, Mapping) else {}
    if not isinstance(written, Mapping | bool):
        raise entry.wrong("normalize", plain(written), "must be true, false or dict(...)")
    network: dict[str, Any] = {}
    rewards: dict[str, Any] = {}
    numbers = Entry(f"{entry.title}: normalize", given)
    clip_obs, clip_reward = numbers.number("clip_obs", 10.0), numbers.number("clip_reward", 10.0)
    gamma = numbers.number_or_none("gamma", None)
    given = {key: value for key, value in given.items() if numbers.has(key)}
    if given.pop("norm_obs", True):
        network = {"normalize": True, "normalize_clip": clip_obs}
    if given.pop("norm_reward", True):
        rewards["normalize_rewards"] = "running"
        if clip_reward != 10.0:
            rewards["normalize_rewards_clip"] = clip_reward
        if gamma is not None and not entry.has("gamma"):  # The algorithm's own wins in RL Zoo.
            rewards["normalize_rewards_gamma"] = gamma
    for key, value in given.items():
        entry.lacks(f"normalize: {key}: {plain(value)}")
    return network, rewards


def _layers(
    arguments: PolicyArguments,
    run: Run,
    default: list[int],
    activation: str,
    *,
    orthogonal: bool,
    of_images: Sequence[int] = (),
) -> dict[str, Any]:
    """Return layers, activation and initial weights of networks, with `of_images` as the default behind NatureCNN."""
    widths, of_critic = layers_of(arguments, [*of_images] if run.images else default)
    network: dict[str, Any] = {}
    if run.images:
        network |= {"vis_encode_type": "nature_cnn", "visual_activation": "relu", "hidden_units": IMAGE_UNITS}
        activation = "relu" if not (widths or of_critic) else activation
    if widths and len(set(widths)) == 1 and not run.images:
        network |= {"hidden_units": widths[0], "num_layers": len(widths)}
    else:
        network["hidden_layers"] = widths
    if of_critic != widths:
        network["critic_hidden_layers"] = of_critic
    network["activation"] = activation_of(arguments, activation)
    is_orthogonal = arguments.take("ortho_init", orthogonal)
    network["initialization"] = "orthogonal" if is_orthogonal else "torch"
    return network


ALGORITHMS: Mapping[str, Callable[[Entry, PolicyArguments, Run], dict[str, Any]]] = {
    "ppo": _ppo,
    "a2c": _a2c,
    "dqn": _dqn,
    "sac": _sac,
}
"""The trainer types into which entries can be converted, which RL Zoo calls the same."""
OTHERS = ("ars", "crossq", "ddpg", "her", "ppo_lstm", "qrdqn", "td3", "tqc", "trpo")
"""The algorithms of RL Zoo's other files."""
