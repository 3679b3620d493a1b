"""Load a configuration: read the file, apply flags and overrides, and resolve every value as ML-Agents does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from mlhooks.errors import SettingsError
from mlhooks.finding import Finding
from mlhooks.settings.base import copied
from mlhooks.settings.behaviors import DEFAULT_TRAINER_TYPE
from mlhooks.settings.building import Report, build, report_no_section
from mlhooks.settings.findings import Origin, error_from, in_order, nearest, shown
from mlhooks.settings.overrides import BehaviorNames, apply_flags, apply_overrides, use_for_other_environment
from mlhooks.settings.run_options import FOR_ONE_RUN, PluginsSettings, RunOptions
from mlhooks.settings.schema import SettingsRegistry
from mlhooks.settings.sections import DefaultSettings, build_behavior, build_defaults, build_parameter, build_plugins
from mlhooks.settings.yaml_source import Document, read_yaml

Source: TypeAlias = Path | str | Mapping[str, Any] | None


@dataclass(frozen=True)
class Configuration:
    """The content of a file or a mapping; a file is read only once, because it may be a pipe.

    Attributes:
        document: the values and their places.
        file: the name of the file as the user gave it, if there is one.
        given: whether there is a configuration; a run may have none.
        folder: the folder of the file, to which relative paths of plugins belong.
        plugins: the plugins to load and block, the command line included; None before these were combined.
        findings: problems that were found so far.
    """

    document: Document
    file: str | None
    given: bool
    folder: Path
    plugins: PluginsSettings | None = None
    findings: tuple[Finding, ...] = ()


def read_configuration(source: Source | Configuration) -> Configuration:
    """Read a configuration.

    Args:
        source: a YAML file, its content as a mapping, or None for a run without a configuration.

    Raises:
        SettingsError: the file is missing, unreadable, or not YAML.
    """
    if isinstance(source, Configuration):
        return source
    if isinstance(source, Path | str):
        path = Path(source)
        return Configuration(read_yaml(path), str(source), True, path.absolute().parent)
    return Configuration(Document({} if source is None else source, None), None, source is not None, Path.cwd())


@dataclass(frozen=True)
class LoadedOptions:
    """Valid options, and what is worth a warning."""

    options: RunOptions
    warnings: list[Finding]


def load_run_options(
    source: Source | Configuration,
    registry: SettingsRegistry,
    *,
    flags: Mapping[str, Any] | None = None,
    overrides: Sequence[str] = (),
    for_run: bool = False,
    behavior_names: BehaviorNames | None = None,
) -> LoadedOptions:
    """Load and resolve a configuration.

    Args:
        source: a YAML file, its content as a mapping, None for a run without a configuration, or what was read already.
            The plugins that it names are not loaded here.
        registry: what the plugins add to the schema.
        flags: settings by dotted key that were given as flags; `behaviors.*.KEY` means every behavior. They win over
            the file.
        overrides: `KEY.PATH=VALUE` texts, VALUE in YAML; they win over the flags.
        for_run: whether a run begins with them: what is said for one invocation (`force`, `resume`, `inference`) then
            counts from flags and overrides only.
        behavior_names: tells the behaviors of an environment, where they are known. The settings of a file's single
            behavior are used for the single one of another environment that flags or overrides name.

    Raises:
        SettingsError: the configuration is not valid; lists every error, and has them as `findings`.
    """
    configuration = read_configuration(source)
    report = Report(Origin(configuration.file, configuration.document), registry)
    report.findings.extend([*configuration.document.findings, *configuration.findings])
    raw = configuration.document.value
    if not is_configuration(raw, report):
        raise error_from(SettingsError, report.findings)
    # A section left empty means its defaults.
    values = {
        str(key): copied(value) for key, value in raw.items() if value is not None or key not in RunOptions.model_fields
    }
    if behavior_names is not None:
        use_for_other_environment(values, flags or {}, overrides, report, behavior_names)
    apply_flags(values, flags or {}, report)
    apply_overrides(values, overrides, report)
    options = _build_run(values, configuration, registry, report)
    if options is None or report.failed:
        raise error_from(SettingsError, report.findings)
    options._origin = report.origin
    if not configuration.given and options.default_settings is None and DEFAULT_TRAINER_TYPE in registry.trainer_types:
        options._fallback = build_behavior({}, ("behaviors",), registry, report, None)
    if for_run:
        _pass_over_flags_of_the_file(options, report)
    _choose_start(options, flags or {}, report, for_run)
    _refuse_unknown_measures(options, report)
    if report.failed:
        raise error_from(SettingsError, report.findings)
    return LoadedOptions(options, in_order(report.findings))


def is_configuration(raw: Any, report: Report) -> bool:
    """Return whether a file holds sections; if it does not, the report says what it holds."""
    if raw is None:
        report.add((), "the file is empty; a configuration needs at least the section behaviors")
    elif not isinstance(raw, Mapping):
        report_no_section(raw, (), report, RunOptions.model_fields)
    elif (key := old_layout_key(raw)) is not None:
        report.add((key,), HOW_TO_CONVERT, of_key=True)
    else:
        return True
    return False


def _build_run(
    values: dict[str, Any], configuration: Configuration, registry: SettingsRegistry, report: Report
) -> RunOptions | None:
    ready: dict[str, Any] = {}
    if "plugins" in values or registry.plugin_settings or configuration.plugins:
        ready["plugins"] = build_plugins(values.get("plugins", {}), configuration, registry, report)
    defaults: DefaultSettings | None = None
    if "default_settings" in values:
        defaults = build_defaults(values["default_settings"], registry, report)
        ready["default_settings"] = defaults and defaults.settings
    for section in ("behaviors", "environment_parameters"):
        entries = values.get(section)
        if section in values and not isinstance(entries, Mapping):
            report.add((section,), "must be a section, with a name before each entry", found=shown(entries))
            ready[section] = None
        elif isinstance(entries, Mapping):
            built = {
                name: build_behavior(entry, (section, name), registry, report, defaults)
                if section == "behaviors"
                else build_parameter(name, entry, (section, name), report)
                for name, entry in entries.items()
            }
            ready[section] = None if None in built.values() else built
    return build(RunOptions, values, (), report, ready)


def _pass_over_flags_of_the_file(options: RunOptions, report: Report) -> None:
    settings = options.checkpoint_settings
    for key in FOR_ONE_RUN:
        if getattr(settings, key) and not report.origin.is_option(("checkpoint_settings", key)):
            setattr(settings, key, False)
            message = f"{key} has no effect here; say it for each run, by --{key} or as an argument of mlhooks.train"
            report.add(("checkpoint_settings", key), message, severity="warning")


def _choose_start(options: RunOptions, flags: Mapping[str, Any], report: Report, for_run: bool) -> None:
    """Resume or initialize, not both: a flag wins over the file, and resume wins otherwise, as in ML-Agents.

    A run that is resumed keeps in its configuration what it once began with.
    """
    settings = options.checkpoint_settings
    if for_run and not report.origin.is_option(("checkpoint_settings", "initialize_from")):
        return
    if not settings.resume or settings.initialize_from is None:
        return
    resume_asked = "checkpoint_settings.resume" in flags
    if "checkpoint_settings.initialize_from" in flags and not resume_asked:
        settings.resume, ignored = False, "resume"
    else:
        settings.initialize_from, ignored = None, "initialize_from"
    message = f"resume and initialize_from are both set, so {ignored} is ignored; remove one of them"
    report.add(("checkpoint_settings", ignored), message, severity="warning")


def _refuse_unknown_measures(options: RunOptions, report: Report) -> None:
    """Refuse a lesson that waits for a behavior which cannot appear, because the file lists all there are."""
    if not options.behaviors or options.default_settings is not None:
        return
    for name, parameter in (options.environment_parameters or {}).items():
        for index, lesson in enumerate(parameter.curriculum):
            criteria = lesson.completion_criteria
            if criteria is not None and criteria.behavior not in options.behaviors:
                report.add(
                    ("environment_parameters", name, "curriculum", index, "completion_criteria", "behavior"),
                    "the lesson never ends, because no behavior has this name",
                    found=criteria.behavior,
                    allowed=", ".join(options.behaviors),
                    nearest=nearest(criteria.behavior, options.behaviors),
                )


_OLD_KEYS = {"trainer", "batch_size", "buffer_size", "use_recurrent", "normalize", "hidden_units", "num_layers"}

HOW_TO_CONVERT = (
    "this is the layout from before ML-Agents 0.16, with behaviors at the top level. To convert it, put each behavior "
    "under behaviors: and the section default under default_settings:; in each of them rename trainer to trainer_type, "
    "move batch_size, buffer_size, learning_rate, learning_rate_schedule, beta, epsilon, lambd, num_epoch, tau, "
    "buffer_init_steps and init_entcoef under hyperparameters:, move normalize, hidden_units, num_layers and "
    "vis_encode_type under network_settings:, move memory_size and sequence_length under network_settings.memory: "
    "if use_recurrent is true (and drop use_recurrent), rename encoding_size of a reward signal to "
    "network_settings.hidden_units, and write large numbers such as 5.0e5 as they are"
)


def old_layout_key(raw: Mapping[str, Any]) -> str | None:
    """Return the first top-level key that shows the old layout, or None."""
    if "behaviors" in raw or "default_settings" in raw:
        return None
    for key, value in raw.items():
        if isinstance(value, Mapping) and _OLD_KEYS & value.keys():
            return key
    return None
