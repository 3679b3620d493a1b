"""Collect the findings of one configuration, each with its place, and tell where a misplaced key belongs."""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Mapping

from mlhooks.finding import Finding, Severity
from mlhooks.settings.base import SettingsModel
from mlhooks.settings.behaviors import (
    BehavioralCloningSettings,
    EvaluationSettings,
    RewardSignalSettings,
    SelfPlaySettings,
    TrainerSettings,
)
from mlhooks.settings.findings import KeyPath, dotted
from mlhooks.settings.hyperparameters import HyperparameterSettings
from mlhooks.settings.network import MemorySettings, NetworkSettings
from mlhooks.settings.origin import Origin
from mlhooks.settings.registry import SettingsRegistry
from mlhooks.settings.run_options import RunOptions


class Report:
    """The findings so far.

    Args:
        origin: the sources of the configuration.
        registry: what the plugins add to the schema; it tells where a misplaced key belongs.
    """

    def __init__(self, origin: Origin, registry: SettingsRegistry) -> None:
        self.origin = origin
        self.findings: list[Finding] = []
        self._homes = Homes(registry)

    def beside(self, origin: Origin) -> Report:
        """Return an empty report with the same knowledge, for findings that are not to be told."""
        other = copy.copy(self)
        other.origin, other.findings = origin, []
        return other

    def add(
        self,
        path: KeyPath,
        message: str,
        *,
        severity: Severity = "error",
        at: KeyPath | None = None,
        of_key: bool = False,
        found: str | None = None,
        allowed: str | None = None,
        nearest: str | None = None,
    ) -> None:
        """Add a finding about `path`; `at` is the place to show where it differs, `of_key` shows the key's."""
        place = self.origin.place(path if at is None else at, of_key=of_key)
        if at is not None:
            place["key"] = dotted(path)
        finding = Finding(severity=severity, message=message, found=found, allowed=allowed, nearest=nearest, **place)
        self.findings.append(finding)

    def home_of(self, key: str, path: KeyPath, trainer_types: Collection[str] = ()) -> str | None:
        """Return the full key path where a key that is unknown at `path` belongs, if there is one; as `Homes.of`."""
        return self._homes.of(key, path, trainer_types)

    @property
    def failed(self) -> bool:
        """Whether there is an error among the findings."""
        return any(finding.severity == "error" for finding in self.findings)


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
    **dict.fromkeys(("clip_vloss", "clip_range_vf"), "value_clipping"),
    **dict.fromkeys(("norm_adv", "normalize_advantage"), "normalize_advantages"),
    **dict.fromkeys(("learning_starts", "warmup_steps", "start_steps"), "buffer_init_steps"),
    **dict.fromkeys(("train_freq", "train_frequency"), "update_interval"),
    **dict.fromkeys(("gradient_steps",), "steps_per_update"),
    **dict.fromkeys(("target_network_frequency", "target_update"), "target_update_interval"),
    **dict.fromkeys(("exploration_fraction", "eps_decay"), "exploration_steps"),
    **dict.fromkeys(("exploration_eps", "start_e", "eps_start"), "exploration_initial_eps"),
    **dict.fromkeys(("end_e", "eps_end"), "exploration_final_eps"),
    **dict.fromkeys(("net_arch", "hidden_size", "hidden_dim", "hidden_sizes", "units"), "hidden_units"),
    **dict.fromkeys(("layers", "n_layers"), "num_layers"),
    **dict.fromkeys(("normalize_obs", "norm_obs"), "normalize"),
    **dict.fromkeys(("activation_fn",), "activation"),
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
