"""Plugins that offer the numbered environment; worker processes import this module, so it does without torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlhooks import hookimpl
from tests.envs.numbered import Numbered, Plan


class Numbers:
    """A plugin that offers `test:ANY`, the numbered environment with a plan."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        self.failures: list[tuple[int, bool]] = []

    @hookimpl
    def get_env_types(self) -> Mapping[str, Any]:
        plan = self.plan
        return {"test": lambda name, *, worker_id, **_: Numbered(worker_id, plan)}

    @hookimpl
    def env_failed(self, worker: Any, will_restart: bool) -> None:
        self.failures.append((worker.index, will_restart))


class Taught(Numbered):
    """Takes parameters."""

    def set_parameters(self, parameters: Mapping[str, Any]) -> None:
        self.parameters = parameters


class TaughtNumbers:
    """A plugin that offers `test:ANY`, the numbered environment that takes parameters."""

    @hookimpl
    def get_env_types(self) -> Mapping[str, Any]:
        return {"test": lambda name, *, worker_id, **_: Taught(worker_id)}
