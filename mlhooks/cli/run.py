"""`mlhooks run`: train, or run a trained policy. Takes every flag of `mlagents-learn` with its meaning."""

from __future__ import annotations

import logging
from typing import Any

import click
from click.core import ParameterSource

from mlhooks.cli import completing
from mlhooks.cli.options import SectionedCommand, SectionOption, plugin_options
from mlhooks.errors import UsageError
from mlhooks.example_configs import find_config, is_nothing
from mlhooks.fast.memory import keeping_objects
from mlhooks.stop_signals import ending_at_once

EXIT_CODES = {"finished": 0, "failed": 1, "interrupted": 130}
logger = logging.getLogger("mlhooks")


def _flag(section: str, name: str, key: str | None, text: str, **attrs: Any) -> SectionOption:
    return SectionOption([name], section=section, key=key, help=text, **attrs)


def _switch(section: str, name: str, key: str | None, text: str, **attrs: Any) -> SectionOption:
    return _flag(section, name, key, text, is_flag=True, **attrs)


def _run_options() -> list[SectionOption]:
    name = "checkpoint_settings"
    return [
        _flag(
            "Run",
            "--run-id",
            f"{name}.run_id",
            "Name of the run and of its folder under the results. [ppo]",
            shell_complete=completing.run_ids,
        ),
        _switch(
            "Run",
            "--resume",
            f"{name}.resume",
            "Go on with the run of this id from its newest checkpoint; without CONFIG, by its own.",
        ),
        _switch(
            "Run",
            "--force",
            f"{name}.force",
            "Start from scratch even if this run id has results, which are overwritten.",
        ),
        _flag(
            "Run",
            "--initialize-from",
            f"{name}.initialize_from",
            "Start with the networks that another run has learned.",
            metavar="RUN_ID",
            shell_complete=completing.run_ids,
        ),
        _switch("Run", "--inference", f"{name}.inference", "Act without learning; with --resume, what a run learned."),
        _flag(
            "Run",
            "--episodes",
            None,
            "With --inference: end after N episodes of each behavior and print their mean, deviation and minimum.",
            metavar="N",
            type=click.IntRange(min=1),
        ),
        _flag(
            "Run",
            "--policy",
            None,
            "With --inference: the last policy of the run, or the best one of its evaluations. [last]",
            type=click.Choice(["last", "best"]),
            default="last",
        ),
        _flag(
            "Run",
            "--opponent",
            None,
            "With --inference: let the policies of another run, or a checkpoint, play the other teams, and count wins; "
            "--episodes games, by default 100.",
            metavar="RUN",
            shell_complete=completing.run_ids,
        ),
        _flag(
            "Run",
            "--eval-every",
            "behaviors.*.evaluation.interval",
            "Evaluate each behavior every N agent steps, in an environment of its own, and keep the best policy.",
            metavar="N",
            type=click.IntRange(min=1),
        ),
        _switch(
            "Run",
            "--deterministic",
            "behaviors.*.network_settings.deterministic",
            "Take the likeliest action instead of drawing one.",
        ),
        _flag("Run", "--seed", "env_settings.seed", "Seed of all random numbers; -1 draws one. [-1]", type=int),
        _flag("Run", "--results-dir", f"{name}.results_dir", "Folder for the results. [results]", metavar="DIR"),
        _flag(
            "Run",
            "--set",
            None,
            "Change one setting, as in --set behaviors.CartPole.max_steps=1e5. May be given many times.",
            metavar="KEY.PATH=VALUE",
            multiple=True,
            shell_complete=completing.settings,
        ),
        _switch("Run", "--debug", "debug", "Log more, and show a traceback with every error."),
        _switch("Run", "--load", None, "", hidden=True),
        _switch("Run", "--train", None, "", hidden=True),
        _switch("Run", "--torch", None, "", hidden=True),
        _switch("Run", "--tensorflow", None, "", hidden=True),
    ]


def _environment_options() -> list[SectionOption]:
    def option(name: str, key: str, text: str, **attrs: Any) -> SectionOption:
        return _flag("Environment", name, f"env_settings.{key}", text, **attrs)

    return [
        option(
            "--env",
            "env_path",
            "What to train in: a Unity player's path, SCHEME:NAME such as sim:3DBall or gymnasium:CartPole-v1, or a "
            "class of your own as FILE.py:CLASS.",
            metavar="PATH",
            shell_complete=completing.environments,
        ),
        _flag(
            "Environment",
            "--algo",
            None,
            "The trainer type, such as ppo, a2c or dqn: without CONFIG, its settings for the environment. [ppo]",
            metavar="TYPE",
            shell_complete=completing.trainer_types,
        ),
        _switch("Environment", "--editor", None, "Wait for the Unity Editor."),
        option(
            "--num-envs",
            "num_envs",
            "How many environments, each in a process of its own if there are several. [1]",
            type=int,
        ),
        option("--num-areas", "num_areas", "How many copies of the training area in each environment. [1]", type=int),
        option(
            "--base-port",
            "base_port",
            "First port of the connection to Unity players; the n-th player takes the n-th port after it. [5005]",
            type=int,
        ),
        option(
            "--bind",
            "bind",
            "Listen on this address, such as 0.0.0.0, for players in containers or on other machines; the protocol has "
            "no authentication. [loopback only]",
            metavar="ADDRESS",
        ),
        option("--timeout-wait", "timeout_wait", "Seconds to wait for an environment to answer. [60]", type=int),
        option(
            "--max-lifetime-restarts",
            "max_lifetime_restarts",
            "How often an environment may crash and be started again; -1 for no limit. [10]",
            type=int,
        ),
        option(
            "--restarts-rate-limit-n",
            "restarts_rate_limit_n",
            "How often it may do so within one period; -1 for no limit. [1]",
            type=int,
        ),
        option(
            "--restarts-rate-limit-period-s",
            "restarts_rate_limit_period_s",
            "Length of that period in seconds. [60]",
            type=int,
        ),
        option(
            "--env-args",
            "env_args",
            "Give everything that follows to the Unity player. Must be the last flag. Flags of mlhooks among it get a "
            "warning, unless a -- right behind it says that they are the player's.",
            metavar="...",
        ),
    ]


def _engine_options() -> list[SectionOption]:
    def option(name: str, text: str, **attrs: Any) -> SectionOption:
        key = name.removeprefix("--").replace("-", "_")
        return _flag("Engine (Unity players)", name, f"engine_settings.{key}", text, **attrs)

    return [
        option("--width", "Width of the player's window in pixels. [84]", type=int),
        option("--height", "Height of the player's window in pixels. [84]", type=int),
        option("--quality-level", "Rendering quality level of the player. [5]", type=int),
        option("--time-scale", "How many times faster than the clock the simulation runs. [20]", type=float),
        option("--target-frame-rate", "Frames per second that the player aims at; -1 for any. [-1]", type=int),
        option("--capture-frame-rate", "Simulated frames per simulated second. [60]", type=int),
        option("--no-graphics", "Start the player without its graphics; agents cannot use cameras.", is_flag=True),
        option(
            "--no-graphics-monitor",
            "Start all players but the first one without their graphics.",
            is_flag=True,
        ),
    ]


def _other_options() -> list[SectionOption]:
    return [
        _flag("Torch", "--torch-device", "torch_settings.device", "Device to compute on, such as cpu or cuda:0."),
        *plugin_options(),
        _switch("Plugins", "--strict-plugins", None, "Stop the run when any hook of a plugin fails."),
        _switch("Plugins", "--trace-hooks", None, "Write every call of a hook to stderr."),
    ]


class RunCommand(SectionedCommand):
    """`run`, whose flag `--env-args` takes the rest of the command line."""

    def guess(self, word: str, value: str | None) -> str | None:
        """Return what a flag of another tool, or KEY=VALUE, is called here."""
        from mlhooks.cli import guesses

        if not word.startswith("-"):
            key, _, given = word.partition("=")
            return guesses.setting(key.rpartition(".")[2], given) if given else None
        return guesses.flag(word, value)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep what follows `--env-args` away from click; a `--` at its start says that it is all meant so."""
        if "--env-args" not in args:
            return super().parse_args(ctx, args)
        at = args.index("--env-args")
        own, rest = args[:at], args[at + 1 :]
        left = super().parse_args(ctx, own)
        if rest[:1] == ["--"]:
            rest = rest[1:]
        else:
            self._warn_of_own_flags(ctx, rest)
        ctx.params["env_args"] = rest
        ctx.set_parameter_source("env_args", ParameterSource.COMMANDLINE)
        return left

    def _warn_of_own_flags(self, ctx: click.Context, args: list[str]) -> None:
        known = {name for param in self.get_params(ctx) for name in param.opts if name.startswith("--")}
        flags = dict.fromkeys(flag for arg in args if (flag := arg.partition("=")[0]) in known)
        if flags:
            logger.warning(
                "The player gets all that follows --env-args, also %s, which mlhooks does not follow there. Put what "
                "is meant for mlhooks before --env-args; if all is meant for the player, say --env-args -- ...",
                ", ".join(flags),
            )


def _run(**values: Any) -> None:
    ctx = click.get_current_context()
    flags = _given_flags(ctx, values)
    _refuse_nothing(ctx, values, flags)
    with keeping_objects(), ending_at_once():
        from mlhooks.api import train
    result = train(
        values["config"],
        algo=values["algo"],
        flags=flags,
        overrides=values["set"],
        plugin_names=values["plugin_names"],
        plugins_dir=values["plugins_dir"],
        strict_plugins=values["strict_plugins"],
        trace_hooks=values["trace_hooks"],
        episodes=values["episodes"],
        policy=values["policy"],
        opponent=values["opponent"],
    )
    outcome = result.outcome
    if result.evaluation is not None:
        click.echo(result.evaluation)
    if outcome.status == "failed" and isinstance(outcome.error, Exception):
        raise outcome.error
    ctx.exit(EXIT_CODES[outcome.status])


def _given_flags(ctx: click.Context, values: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that the command line names, by dotted key; defaults stay with the configuration."""
    given = {name for name in values if ctx.get_parameter_source(name) is ParameterSource.COMMANDLINE}
    flags = {
        param.key: values[param.name]
        for param in ctx.command.params
        if isinstance(param, SectionOption) and param.key and param.name in given
    }
    if "editor" in given:
        if "env_settings.env_path" in flags:
            raise UsageError(
                "--editor waits for the Unity Editor, and --env names another environment: say one of them."
            )
        flags["env_settings.env_path"] = None  # This holds whatever the file says.
    if "load" in given:
        logger.warning("--load is an old spelling; say --resume")
        flags["checkpoint_settings.resume"] = True
    if "train" in given:
        logger.warning("--train is no longer needed: a run trains unless --inference is given")
    for name in sorted(given & {"torch", "tensorflow"}):
        logger.warning("--%s was removed and does nothing", name)
    return flags


def _refuse_nothing(ctx: click.Context, values: dict[str, Any], flags: dict[str, Any]) -> None:
    """Refuse a run of nothing, which would wait for a Unity Editor that most people do not have.

    Raises:
        UsageError: says what can be run.
    """
    if is_nothing(values["config"], flags, values["set"]):
        algo = f" --algo {values['algo']}" if values["algo"] else ""
        raise UsageError(NOTHING.format(run=ctx.command_path, algo=algo))


NOTHING = """There is nothing to run. What can be run:
  {run} cartpole_ppo
      an example; `mlhooks examples` lists all of them
  {run} --env gymnasium:CartPole-v1{algo}
      an environment, with settings that are chosen for it
  {run} --env corridor.py:Corridor{algo}
      an environment class of your own
  {run} my.yaml --env Build/MyGame
      a configuration file and a Unity player
  {run} --editor
      wait for the Unity Editor"""


run = RunCommand(
    "run",
    callback=_run,
    params=[
        click.Argument(["config"], required=False, type=find_config, shell_complete=completing.configurations),
        *_run_options(),
        *_environment_options(),
        *_engine_options(),
        *_other_options(),
    ],
    help=(
        "Train agents as CONFIG says: a file in the YAML format of Unity ML-Agents, or the name of an example such as "
        "3dball_ppo. Flags outrank the file. Without CONFIG, train in --env with settings that are chosen for it."
    ),
    epilog="Exit codes: 0 done, 1 the run failed, 2 bad usage, configuration or plugin, 130 interrupted after saving.",
)
