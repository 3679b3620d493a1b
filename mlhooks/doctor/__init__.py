"""Checks whether this machine can run what it is asked to, each with what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator

from mlhooks.describing import named
from mlhooks.doctor.check import Check, Questions

__all__ = ["Check", "Questions", "examine"]


def examine(questions: Questions) -> Iterator[Check]:
    """Make all checks, one after another, those first that answer at once."""
    from mlhooks.doctor import machine, mlagents, plugins, software, unity

    groups: dict[str, Callable[[], Iterable[Check]]] = {
        "versions": software.versions,
        "requirements": software.requirements,
        "extras": software.extras,
        "the Unity protocol": software.protocol,
        "ML-Agents' own package": mlagents.package,
        "the environment": lambda: unity.checks(questions),
        "workers": machine.workers,
        "the device": machine.device,
        "plugins": lambda: plugins.checks(questions),
    }
    for what, group in groups.items():
        try:
            yield from group()
        except Exception as error:  # This is a finding, too, and the other checks are still made.
            yield Check("doctor", "problem", f"Stumbled over {what}: {named(error)}")
