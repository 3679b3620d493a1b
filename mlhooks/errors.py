"""The one exception tree of mlhooks; every error is a sentence that says what happened, where, and what to do."""

from __future__ import annotations

from mlhooks.finding import Finding


class MlhooksError(Exception):
    """Base of all errors that mlhooks raises on purpose; the command line prints it and exits with `exit_code`."""

    exit_code = 1


class UsageError(MlhooksError):
    """A command, argument or call that cannot be carried out as given.

    `findings` holds the single findings of a configuration that was refused, warnings included.
    """

    exit_code = 2
    findings: tuple[Finding, ...] = ()


class SettingsError(UsageError):
    """A configuration that does not validate; its text lists every finding with file, line and column."""


class UnsupportedError(UsageError):
    """A valid request that the installed code cannot honour, named instead of ignored."""


class DemonstrationError(UsageError):
    """A demonstration that is missing, damaged, or of another behavior; names the file, the record and the reason."""


class PluginError(MlhooksError):
    """A plugin that does not load, does not fit the hook contract, or failed where failing is fatal."""


class PluginUnfit(PluginError, UsageError):
    """A plugin that does not fit the hook contract, or whose name is taken; nothing was started with it."""


class EnvironmentFailure(MlhooksError):
    """An environment that does not start, crashed, or broke its contract."""


class ContractBroken(EnvironmentFailure):
    """An environment whose answers no environment may give; started again, it would give them again."""


class EnvironmentPaused(EnvironmentFailure):
    """An environment that a person stopped and may start again: nothing failed, and its `reset` waits for that."""


class NonFiniteError(MlhooksError):
    """A NaN or infinite observation, reward, loss or gradient; names its source."""


class CheckpointError(MlhooksError):
    """A checkpoint that is missing, damaged, or does not fit the settings and networks it is loaded into."""


class ResultsError(MlhooksError, OSError):
    """Results that the system does not let a run write, such as on a full disk; names the file and what to do."""


class WrongAnswer(Exception):
    """An answer of other people's code that cannot be used; its text is a sentence without its end.

    It never ends a run by itself. Whoever called the hook or the environment names the culprit, and either raises a
    PluginError or an EnvironmentFailure, or contains it.
    """
