"""What a player of some version says, and how."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

CAPABILITIES = {
    "baseRLCapabilities": (1, 0),
    "concatenatedPngObservations": (1, 1),
    "compressedChannelMapping": (1, 2),
    "hybridActions": (1, 3),
    "trainingAnalytics": (1, 4),
    "variableLengthObservation": (1, 5),
    "multiAgentGroups": (1, 5),
}
"""Capability -> protocol version that brought it."""


@dataclass(frozen=True, slots=True)
class Dialect:
    """A protocol version, a package version and what follows from them.

    Attributes:
        communication: Protocol version that the player names.
        package: Version of the Unity package that it names.
        capabilities: Names of what both sides are able to do.
        action_spec: Behaviors are described and actions read in today's fields, not in the deprecated ones.
        described: Observations have a name, a type and dimension properties.
        channels_first: Images are channels, height, width; before package 3 they were height, width, channels.
    """

    communication: str
    package: str
    capabilities: frozenset[str]
    action_spec: bool
    described: bool
    channels_first: bool

    def with_trainer(self, capabilities: Any) -> Dialect:
        """Return the dialect for a trainer with these capabilities, a UnityRLCapabilitiesProto."""
        return replace(self, capabilities=frozenset(name for name in self.capabilities if getattr(capabilities, name)))


def dialect(communication: str, package: str | None = None) -> Dialect:
    """Return the dialect of a protocol version; one that is no version speaks the newest."""
    found = re.match(r"(\d+)\.(\d+)", communication)
    version = (int(found[1]), int(found[2])) if found else (1, 5)
    package = package or ("3.0.0" if version >= (1, 5) else "1.0.8")
    major = re.match(r"\d+", package)
    return Dialect(
        communication,
        package,
        frozenset(name for name, since in CAPABILITIES.items() if version >= since),
        action_spec=version >= (1, 3),
        described=version >= (1, 5),
        channels_first=major is None or int(major[0]) >= 3,
    )
