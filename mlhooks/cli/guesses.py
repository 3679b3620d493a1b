"""Words that people know from other tools, and what they are called here."""

from __future__ import annotations

from mlhooks.names import VERSION

COMMANDS = {
    **dict.fromkeys(("train", "learn", "fit", "start", "launch", "mlagents-learn"), "mlhooks run"),
    **dict.fromkeys(
        ("eval", "evaluate", "enjoy", "play", "test", "watch", "predict", "infer", "inference", "score"),
        "mlhooks run --inference --episodes 20, with the --run-id of what was trained",
    ),
    **dict.fromkeys(("resume", "continue"), "mlhooks run --resume, with the --run-id of what was trained"),
    **dict.fromkeys(
        ("list", "ls", "configs", "example", "demo", "demos", "envs", "environments", "zoo"),
        "mlhooks examples, or mlhooks plugins for what is installed",
    ),
    **dict.fromkeys(("algos", "algorithms", "trainers", "hooks", "hook"), "mlhooks plugins, or mlhooks plugins hooks"),
    **dict.fromkeys(("check", "validate", "lint"), "mlhooks config check"),
    **dict.fromkeys(("show", "settings", "hyperparams", "hyperparameters", "params"), "mlhooks config show"),
    **dict.fromkeys(("schema",), "mlhooks config schema"),
    **dict.fromkeys(("new", "init", "create", "scaffold"), "mlhooks plugins new"),
    **dict.fromkeys(("completions", "autocomplete", "install-completion"), "mlhooks completion"),
    **dict.fromkeys(("diagnose", "info", "env", "check-env", "system-info"), "mlhooks doctor"),
    "version": "mlhooks --version",
    "help": "mlhooks --help",
    "tensorboard": "tensorboard --logdir results, a program of its own",
}
"""Words that are typed in place of a command, and what to type instead."""

FLAGS = {
    **dict.fromkeys(("env-id", "environment", "environment-id", "gym-id", "task", "env-name", "game"), "--env"),
    **dict.fromkeys(("n-envs", "num-environments", "vec-envs", "copies"), "--num-areas"),
    **dict.fromkeys(("num-workers", "n-workers", "workers", "n-procs", "n-jobs"), "--num-envs"),
    **dict.fromkeys(("trainer", "trainer-type", "algorithm", "agent"), "--algo"),
    **dict.fromkeys(("device", "cuda", "gpu"), "--torch-device"),
    **dict.fromkeys(
        ("log-folder", "log-dir", "logdir", "output", "out", "output-dir", "save-dir", "save-path", "tensorboard-log"),
        "--results-dir",
    ),
    **dict.fromkeys(("exp-name", "exp-id", "name", "id", "experiment", "run-name"), "--run-id"),
    **dict.fromkeys(("eval", "evaluate", "play", "test", "watch", "enjoy", "no-train"), "--inference"),
    **dict.fromkeys(("n-eval-episodes", "eval-episodes", "num-episodes", "n-episodes"), "--inference --episodes"),
    **dict.fromkeys(("eval-freq", "eval-frequency", "eval-interval", "evaluate-every"), "--eval-every"),
    **dict.fromkeys(("continue", "load-last-checkpoint", "load-checkpoint"), "--resume"),
    **dict.fromkeys(("trained-agent", "load-from", "init-from", "pretrained"), "--initialize-from"),
    **dict.fromkeys(("overwrite",), "--force"),
    **dict.fromkeys(("plugin", "plugins"), "-p"),
    **dict.fromkeys(("verbose",), "--debug"),
}
"""Flags of other tools, and the flags of `mlhooks run` that mean the same."""

ARGUMENTS = {
    **dict.fromkeys(("config", "config-file", "conf-file", "conf", "yaml", "yaml-file"), "say the file as it is"),
    **dict.fromkeys(
        ("render", "render-mode", "human"), "say --set 'env_settings.env_kwargs={render_mode: human}' for Gymnasium"
    ),
    **dict.fromkeys(("env-kwargs",), "say --set 'env_settings.env_kwargs={KEY: VALUE}'"),
    **dict.fromkeys(("max-episode-steps",), "say --set 'env_settings.env_kwargs={max_episode_steps: N}'"),
    **dict.fromkeys(("hyperparams", "hyperparameters", "params"), "say --set KEY.PATH=VALUE for each of them"),
    **dict.fromkeys(("track", "wandb", "tensorboard"), "statistics for TensorBoard are written to the results anyway"),
    **dict.fromkeys(("progress", "progress-bar"), "a terminal shows a progress bar anyway"),
    **dict.fromkeys(("quiet", "silent"), "say -p no:console"),
    **dict.fromkeys(("load-best", "best", "best-model"), "say --inference --policy best"),
    **dict.fromkeys(
        ("policy-kwargs",),
        "the network stands in network_settings, as in --set 'behaviors.*.network_settings.num_layers=2'",
    ),
}
"""Flags of other tools that have no counterpart among the flags, and what to do instead."""


def command(word: str) -> str | None:
    """Return what to type in place of a word that is no command; None if it is unknown."""
    return COMMANDS.get(word.lower().replace("_", "-"))


def flag(name: str, value: str | None) -> str | None:
    """Return a sentence about what to type in place of a flag that `mlhooks run` lacks; None if it is unknown.

    Args:
        name: the flag, with its dashes.
        value: what follows it, if that may be its value.
    """
    word = name.lstrip("-").lower().replace("_", "-")
    if FLAGS.get(word) == "--env" and value and ":" not in value and VERSION.search(value):
        value = f"gymnasium:{value}"
    if word in FLAGS:
        return f"Say {FLAGS[word]}{f' {value}' if value and FLAGS[word] not in _SWITCHES else ''}."
    if word in ARGUMENTS:
        sentence = ARGUMENTS[word]
        return f"{sentence[0].upper()}{sentence[1:]}."
    return setting(word.replace("-", "_"), value)


def setting(name: str, value: str | None = None) -> str | None:
    """Return a sentence that says how `--set` changes the setting of this name; None if there is none."""
    from mlhooks.plugins import load_plugins  # Importing plugins and pydantic takes a while.
    from mlhooks.settings import SettingsRegistry
    from mlhooks.settings.schema import Homes

    home = Homes(SettingsRegistry({})).of(name, ("behaviors", "*", ""))
    if home is None:
        home = Homes(SettingsRegistry.from_plugins(load_plugins())).of(name, ("behaviors", "*", ""))
    return None if home is None else f"It is a setting: --set '{home}={value or 'VALUE'}'."


_SWITCHES = {"--inference", "--resume", "--force", "--debug"}
