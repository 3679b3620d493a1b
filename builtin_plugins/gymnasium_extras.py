"""The extras of mlhooks that bring what environments of Gymnasium need."""

from __future__ import annotations

import re

EXTRAS = {
    "gymnasium.envs.box2d": "box2d",
    "gymnasium.envs.mujoco": "mujoco",
    "gymnasium.envs.classic_control": "classic",
    "gymnasium.envs.toy_text": "classic",
    "gymnasium.envs.phys2d": "classic",
    "ale_py": "atari",
}
"""Extras by the package in which environments are."""
_THEIRS = {"classic-control": "classic", "toy-text": "classic", "ale": "atari"}
_ADVICE = re.compile(r"""`?pip install ['"]?gymnasium\[([\w-]+)\]['"]?`?""")


def extra_of(module: str) -> str | None:
    """Return the extra for the environments of a module; None for those that are not Gymnasium's own."""
    return next((extra for start, extra in EXTRAS.items() if f"{module}.".startswith(f"{start}.")), None)


def by_our_extras(text: str) -> str:
    """Return Gymnasium's advice to install one of its extras as advice to install ours, which says the same."""
    return _ADVICE.sub(lambda match: f"pip install 'mlhooks[{_THEIRS.get(match[1], match[1])}]'", text)
