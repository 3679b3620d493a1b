"""Names of a run's files, which follow from names that not every file system allows, and of environments."""

from __future__ import annotations

import re
from pathlib import Path

MANIFEST = Path("run_logs", "training_status.json")
"""The manifest, in the folder of a run."""
BEST_POLICIES = "*.best.policy.pt"
"""The best policies of evaluations, in the folder of a run."""

VERSION = re.compile(r"-v\d+$")
"""The version at the end of a Gymnasium id."""

_FORBIDDEN = frozenset('<>:"/\\|?*%')
_DEVICES = frozenset({"con", "prn", "aux", "nul", *(f"{port}{n}" for port in ("com", "lpt") for n in range(1, 10))})


def file_name(behavior_name: str) -> str:
    """Return the name of a behavior's folder and files: the behavior name itself where every file system allows it.

    What Linux, macOS or Windows would refuse or take for a path is percent-encoded, so different behaviors keep
    different names.
    """
    text = behavior_name
    last = len(text) - 1
    bad = [char in _FORBIDDEN or not char.isprintable() or (i == last and char in ". ") for i, char in enumerate(text)]
    if text.partition(".")[0].lower() in _DEVICES:
        bad[0] = True
    return "".join(_encode(char) if is_bad else char for char, is_bad in zip(text, bad, strict=True)) or "%"


def best_stem(folder: Path, behavior_name: str) -> Path:
    """Return how the paths of a behavior's best models begin, in the folder of a run."""
    return folder / f"{file_name(behavior_name)}.best"


def _encode(char: str) -> str:
    return "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogatepass"))
