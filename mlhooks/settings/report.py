"""Collect the findings of one configuration, each with its place."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from mlhooks.settings.base import SettingsModel
from mlhooks.settings.behaviors import BehavioralCloningSettings, SelfPlaySettings, TrainerSettings
from mlhooks.settings.findings import Finding, KeyPath, Severity, dotted
from mlhooks.settings.hyperparameters import HyperparameterSettings
from mlhooks.settings.network import MemorySettings, NetworkSettings
from mlhooks.settings.origin import Origin
from mlhooks.settings.registry import SettingsRegistry
from mlhooks.settings.reward_signals import RewardSignalSettings
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
        hyperparameters = [registry.hyperparameters(name) for name in registry.trainer_types]
        self._in_behavior = _homes(
            [
                ((), [TrainerSettings]),
                (("hyperparameters",), [HyperparameterSettings, *(model for model in hyperparameters if model)]),
                (("network_settings",), [NetworkSettings]),
                (("network_settings", "memory"), [MemorySettings]),
                (("reward_signals", "extrinsic"), [RewardSignalSettings]),
                (("self_play",), [SelfPlaySettings]),
                (("behavioral_cloning",), [BehavioralCloningSettings]),
            ]
        )
        sections = {
            name: field.default_factory
            for name, field in RunOptions.model_fields.items()
            if isinstance(field.default_factory, type) and issubclass(field.default_factory, SettingsModel)
        }
        self._in_run = _homes([((), [RunOptions]), *(((name,), [model]) for name, model in sections.items())])

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

    def home_of(self, key: str, path: KeyPath) -> str | None:
        """Return the full key path where a key that is unknown at `path` belongs, if there is one."""
        behavior: KeyPath = ("behaviors", "<name>")
        if path[:1] in {("behaviors",), ("default_settings",)}:
            behavior = path[: 1 + (path[0] == "behaviors")]
        home = (*behavior, *self._in_behavior[key]) if key in self._in_behavior else self._in_run.get(key)
        # A hyperparameter may be known, but to another trainer type only.
        return None if home is None or home == (*path, key) else dotted(home)

    @property
    def failed(self) -> bool:
        """Whether there is an error among the findings."""
        return any(finding.severity == "error" for finding in self.findings)


def _homes(sections: Iterable[tuple[KeyPath, Iterable[type[SettingsModel]]]]) -> Mapping[str, KeyPath]:
    homes: dict[str, KeyPath] = {}
    for path, models in sections:
        for model in models:
            for key in model.model_fields:
                homes.setdefault(key, (*path, key))
    return homes
