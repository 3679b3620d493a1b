"""Links to the documentation that says what to change when a check fails."""

from __future__ import annotations

from pathlib import Path

SECTIONS = {
    "every_plugin": "every-plugin",
    "stats_writers": "what-is-stored",
    "writer_runs": "over-the-course-of-runs",
    "exporters": "exporters",
    "reward_signals": "reward-signals",
    "trainers": "settings-behaviors-gradients",
    "robustness": "seeds-checkpoints-fleets-memory",
    "answering": "answers-of-its-hooks",
    "acting": "acting",
    "updating": "when-it-updates-and-on-what",
    "policy_gradients": "losses-of-policy-gradients",
    "clipping": "clipping",
    "array_arithmetic": "array-arithmetic",
    "transitions": "experience",
    "learning": "learning",
    "memory": "memory",
    "groups": "groups",
    "self_play": "self-play",
    "environments": "steps",
    "episodes": "episodes",
    "mlagents_trainers": "trainers-of-ml-agents",
}
"""Module of checks -> the section of docs/testing.md that has a cure for each of them, as links name it."""


def page() -> Path:
    """Return the path of docs/testing.md: inside the package when it was built, beside it in a checkout."""
    package = Path(__file__).parents[1]
    packaged = package / "docs" / "testing.md"
    return packaged if packaged.is_file() else package.parent / "docs" / "testing.md"


def link(checks: str) -> str:
    """Return a link to the section of a module of checks."""
    return f"{page()}#{SECTIONS[checks]}"
