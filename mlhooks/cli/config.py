"""`mlhooks config`: check, show and describe configuration files."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlhooks.cli import completing
from mlhooks.cli.options import Command, plugin_options
from mlhooks.errors import UsageError
from mlhooks.example_configs import find_config

if TYPE_CHECKING:
    from mlhooks.plugins import PluginManager
    from mlhooks.settings import Configuration, Finding

logger = logging.getLogger("mlhooks")


def _read(
    file: Path | None, overrides: tuple[str, ...], plugin_names: tuple[str, ...], plugins_dir: Path | None
) -> tuple[Configuration, PluginManager]:
    """Read a file, and load the plugins with which it is to be checked."""
    from mlhooks.settings import read_configuration
    from mlhooks.training.named_plugins import name_all_plugins

    named = name_all_plugins(read_configuration(file), overrides=overrides, names=plugin_names, plugins_dir=plugins_dir)
    return named.configuration, named.load()


def _check(
    file: Path,
    strict: bool,
    as_json: bool,
    overrides: tuple[str, ...],
    plugin_names: tuple[str, ...],
    plugins_dir: Path | None,
) -> None:
    """Check FILE and list all that is wrong.

    Exits with 0 if a run takes it, and with 2 if a run on this machine would refuse it.
    """
    from mlhooks.finding import Finding
    from mlhooks.settings.findings import lines

    findings = _findings(file, overrides, plugin_names, plugins_dir)
    errors = sum(finding.severity == "error" for finding in findings)
    warnings = len(findings) - errors
    valid = errors == 0 and (warnings == 0 or not strict)
    if as_json:
        click.echo(json.dumps({"valid": valid, "findings": [finding.as_dict() for finding in findings]}, indent=1))
    else:
        for line in lines(findings, Finding.as_line):
            click.echo(line)
        verdict = "is valid" if valid else "is not valid"
        click.echo(f"{file} {verdict}: {_counted(errors, 'error')}, {_counted(warnings, 'warning')}.")
    if not valid:
        click.get_current_context().exit(UsageError.exit_code)


def _findings(
    file: Path, overrides: tuple[str, ...], plugin_names: tuple[str, ...], plugins_dir: Path | None
) -> list[Finding]:
    from mlhooks.errors import MlhooksError
    from mlhooks.training.admission import admit, findings_of

    try:
        configuration, plugins = _read(file, overrides, plugin_names, plugins_dir)
    except UsageError as error:
        if not error.findings:  # It is about the command line, not about the file.
            raise
        return list(error.findings)
    try:
        return admit(configuration, plugins, overrides=overrides).warnings
    except MlhooksError as error:
        if error.exit_code != UsageError.exit_code:
            raise
        return findings_of(error)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _show(
    file: Path | None,
    env: str | None,
    algo: str | None,
    as_json: bool,
    overrides: tuple[str, ...],
    plugin_names: tuple[str, ...],
    plugins_dir: Path | None,
) -> None:
    """Print FILE with all values resolved.

    Defaults are filled in, as a run stores them in its configuration.yaml. Without FILE, print what a run in the
    environment --env trains with. The verdict is that of `config check`: what a run on this machine would refuse is
    said after the values, and the exit code is 2.
    """
    from mlhooks.general_settings import choose, refuse_other_type
    from mlhooks.settings import SettingsRegistry, load_run_options
    from mlhooks.settings.findings import lines
    from mlhooks.training.admission import admit

    configuration, plugins = _read(file, overrides, plugin_names, plugins_dir)
    flags = {} if env is None else {"env_settings.env_path": env}
    text = ""
    if file is None:
        if env is None and algo is None:
            raise UsageError(
                "Name a FILE or an example, or an environment: mlhooks config show --env gymnasium:CartPole-v1"
            )
        chosen = choose(plugins, algo, flags=flags, overrides=overrides)
        configuration, text = chosen.in_place_of(configuration), chosen.text
    registry = SettingsRegistry.from_plugins(plugins)
    loaded = load_run_options(configuration, registry, flags=flags, overrides=overrides)
    for line in lines(loaded.warnings):
        logger.warning("%s", line)
    refuse_other_type(loaded.options, algo)
    if as_json:
        click.echo(json.dumps(loaded.options.as_dict(), indent=1, sort_keys=True))
    else:
        if text:
            click.echo(f"# The settings are {text}.")
        click.echo(loaded.options.to_yaml(), nl=False)
    admit(configuration, plugins, flags=flags, overrides=overrides)


def _schema(file: Path | None, plugin_names: tuple[str, ...], plugins_dir: Path | None) -> None:
    """Print the JSON Schema of the files.

    It knows what installed plugins add to them, and the plugins that FILE names, if there is one.
    """
    from mlhooks.settings import SettingsRegistry
    from mlhooks.settings.schema import configuration_schema

    _, plugins = _read(file, (), plugin_names, plugins_dir)
    click.echo(json.dumps(configuration_schema(SettingsRegistry.from_plugins(plugins)), indent=1))


def _file(*, required: bool = True) -> click.Argument:
    return click.Argument(["file"], type=find_config, required=required, shell_complete=completing.configurations)


def _overrides() -> click.Option:
    help_text = "Change a setting first, such as behaviors.3DBall.max_steps=1000; may be given many times."
    return click.Option(
        ["--set", "overrides"],
        metavar="KEY.PATH=VALUE",
        multiple=True,
        help=help_text,
        shell_complete=completing.settings,
    )


def _json(what: str) -> click.Option:
    return click.Option(["--json", "as_json"], is_flag=True, help=what)


config = click.Group(
    "config",
    help="Check, show and describe configuration files.",
    commands=[
        Command(
            "check",
            callback=_check,
            help=_check.__doc__,
            params=[
                _file(),
                click.Option(["--strict"], is_flag=True, help="Count warnings as errors."),
                _json("Print the findings as JSON."),
                _overrides(),
                *plugin_options(),
            ],
        ),
        Command(
            "show",
            callback=_show,
            help=_show.__doc__,
            params=[
                _file(required=False),
                click.Option(
                    ["--env"],
                    metavar="PATH",
                    help="The environment, as `mlhooks run --env`.",
                    shell_complete=completing.environments,
                ),
                click.Option(
                    ["--algo"],
                    metavar="TYPE",
                    help="The trainer type, as `mlhooks run --algo`. [ppo]",
                    shell_complete=completing.trainer_types,
                ),
                _json("Print JSON instead of YAML."),
                _overrides(),
                *plugin_options(),
            ],
        ),
        Command("schema", callback=_schema, help=_schema.__doc__, params=[_file(required=False), *plugin_options()]),
    ],
)
