"""`mlhooks config`: check, show and describe configuration files."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mlhooks.cli.options import plugin_options
from mlhooks.errors import UsageError
from mlhooks.example_configs import find_config

if TYPE_CHECKING:
    from mlhooks.settings import Finding, SettingsRegistry

logger = logging.getLogger("mlhooks")


def _registry(plugin_names: tuple[str, ...], plugins_dir: Path | None) -> SettingsRegistry:
    from mlhooks.plugins import load_plugins
    from mlhooks.settings import SettingsRegistry

    return SettingsRegistry.from_plugins(load_plugins(names=plugin_names, plugins_dir=plugins_dir))


def _check(
    file: Path,
    strict: bool,
    as_json: bool,
    overrides: tuple[str, ...],
    plugin_names: tuple[str, ...],
    plugins_dir: Path | None,
) -> None:
    """Check FILE and list all that is wrong.

    Exits with 0 if it is valid, and with 2 if it is not.
    """
    findings = _findings(file, _registry(plugin_names, plugins_dir), overrides)
    errors = sum(finding.severity == "error" for finding in findings)
    warnings = len(findings) - errors
    valid = errors == 0 and (warnings == 0 or not strict)
    if as_json:
        click.echo(json.dumps({"valid": valid, "findings": [finding.as_dict() for finding in findings]}, indent=1))
    else:
        for finding in findings:
            click.echo(finding.as_line())
        verdict = "is valid" if valid else "is not valid"
        click.echo(f"{file} {verdict}: {_counted(errors, 'error')}, {_counted(warnings, 'warning')}.")
    if not valid:
        click.get_current_context().exit(UsageError.exit_code)


def _findings(file: Path, registry: SettingsRegistry, overrides: tuple[str, ...]) -> list[Finding]:
    from dataclasses import replace

    from mlhooks.errors import SettingsError
    from mlhooks.settings import load_run_options
    from mlhooks.settings.findings import in_order
    from mlhooks.settings.support import unsupported_settings

    try:
        loaded = load_run_options(file, registry, overrides=overrides)
    except SettingsError as error:
        return list(error.findings)
    unsupported = [
        # The file is valid all the same: another plugin may support what it asks for.
        finding
        if finding.severity == "warning"
        else replace(finding, severity="warning", message=f"a run will refuse this: {finding.message}")
        for finding in unsupported_settings(loaded.options, registry.trainer_types, registry.reward_signals)
    ]
    return in_order([*loaded.warnings, *unsupported])


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _show(
    file: Path, as_json: bool, overrides: tuple[str, ...], plugin_names: tuple[str, ...], plugins_dir: Path | None
) -> None:
    """Print FILE with all values resolved.

    Defaults are filled in, as a run stores them in its configuration.yaml.
    """
    from mlhooks.settings import load_run_options

    loaded = load_run_options(file, _registry(plugin_names, plugins_dir), overrides=overrides)
    for finding in loaded.warnings:
        logger.warning("%s", finding)
    if as_json:
        click.echo(json.dumps(loaded.options.as_dict(), indent=1, sort_keys=True))
    else:
        click.echo(loaded.options.to_yaml(), nl=False)


def _schema(plugin_names: tuple[str, ...], plugins_dir: Path | None) -> None:
    """Print the JSON Schema of the files.

    It knows the trainer types and reward signals of the installed plugins.
    """
    from mlhooks.settings.schema import configuration_schema

    click.echo(json.dumps(configuration_schema(_registry(plugin_names, plugins_dir)), indent=1))


def _file() -> click.Argument:
    return click.Argument(["file"], type=find_config)


def _overrides() -> click.Option:
    help_text = "Change a setting first, such as behaviors.3DBall.max_steps=1000; may be given many times."
    return click.Option(["--set", "overrides"], metavar="KEY.PATH=VALUE", multiple=True, help=help_text)


def _json(what: str) -> click.Option:
    return click.Option(["--json", "as_json"], is_flag=True, help=what)


config = click.Group(
    "config",
    help="Check, show and describe configuration files.",
    commands=[
        click.Command(
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
        click.Command(
            "show",
            callback=_show,
            help=_show.__doc__,
            params=[_file(), _json("Print JSON instead of YAML."), _overrides(), *plugin_options()],
        ),
        click.Command("schema", callback=_schema, help=_schema.__doc__, params=[*plugin_options()]),
    ],
)
