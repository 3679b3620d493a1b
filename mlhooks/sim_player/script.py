"""How scripted behaviors are spelt on the command line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mlhooks.errors import UsageError
from mlhooks.sim_player.options import ACTIONS, TRAITS

DEFAULT = (
    "Continuous:continuous+skip",
    "Discrete:discrete+mask+goal",
    "Branches:branches+mask+buffer+skip",
    "Hybrid:hybrid+mask+gray+png+stack+tensor",
    "Group:discrete+group",
    "Late:continuous+buffer@20",
)
SIZES: dict[str, tuple[int, tuple[int, ...]]] = {
    "continuous": (2, ()),
    "discrete": (0, (3,)),
    "branches": (0, (3, 2, 4)),
    "hybrid": (2, (3, 2)),
}
"""Number of continuous actions and sizes of discrete branches."""


@dataclass(frozen=True, slots=True)
class Part:
    """A behavior in the script: its name with its team, its traits, and the step at which its agents appear."""

    name: str
    traits: frozenset[str]
    since: int = 0

    @property
    def actions(self) -> tuple[int, tuple[int, ...]]:
        """Number of continuous actions, and sizes of the branches."""
        return next((SIZES[trait] for trait in ACTIONS if trait in self.traits), SIZES["continuous"])


def with_team(name: str) -> str:
    """Return a behavior's name as a player sends it."""
    return name if "?team=" in name else f"{name}?team=0"


def parts(texts: Sequence[str]) -> list[Part]:
    """Read behaviors spelt `NAME[?team=T][:TRAIT+TRAIT...][@STEP]`.

    Raises:
        UsageError: A spelling is wrong, or a name is there twice.
    """
    found = [_part(text) for text in texts or DEFAULT]
    names = [part.name for part in found]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--behavior {name} is given twice; a second team is another one: NAME?team=1.")
    return found


def _part(text: str) -> Part:
    rest, at, since = text.partition("@")
    name, _, spelt = rest.partition(":")
    traits = frozenset(filter(None, spelt.split("+")))
    wrong = sorted(traits - set(TRAITS))
    if wrong or len(traits & set(ACTIONS)) > 1 or not name or (at and not since.isdecimal()):
        raise UsageError(
            f"--behavior {text} is not NAME:TRAIT+TRAIT@STEP with at most one of {', '.join(ACTIONS)}"
            + (f"; there is no trait {', '.join(wrong)}, only {', '.join(TRAITS)}." if wrong else ".")
        )
    return Part(with_team(name), traits, int(since or 0))
