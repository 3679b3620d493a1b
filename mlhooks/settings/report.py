"""Collect the findings of one configuration, each with its place."""

from __future__ import annotations

import copy
from collections.abc import Collection

from mlhooks.finding import Finding, Severity
from mlhooks.settings.findings import KeyPath, dotted
from mlhooks.settings.homes import Homes
from mlhooks.settings.origin import Origin
from mlhooks.settings.registry import SettingsRegistry


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
