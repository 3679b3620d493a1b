"""What docs/architecture.md says of the tree."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
HIDDEN = {"__pycache__", "dist", "results", "shared"}


def rooms(folder: Path) -> set[str]:
    """Return the folders of a folder that hold something of the project."""
    return {
        room.name
        for room in folder.iterdir()
        if room.is_dir() and room.name not in HIDDEN and not room.name.startswith(".") and any(room.glob("**/*.*"))
    }


def test_tree_names_all_rooms_and_no_others() -> None:
    (tree,) = re.findall(r"^## The rooms\n\n```\n(.*?)```", PAGE, re.DOTALL | re.MULTILINE)
    named: dict[str, set[str]] = {"": set()}
    outer = ""
    for indent, room in re.findall(r"^( *)(\w+)/ ", tree, re.MULTILINE):
        if indent:
            named[outer].add(room)
        else:
            outer = room
            named[""].add(room)
            named[room] = set()
    assert named[""] == rooms(ROOT) - {"runs"}
    assert named["mlhooks"] == rooms(ROOT / "mlhooks")
    assert named["builtin_plugins"] == rooms(ROOT / "builtin_plugins")


def test_files_that_it_names_are_there() -> None:
    places = [ROOT, *(ROOT / name for name in ("mlhooks", "mlhooks/training", "mlhooks/cli"))]
    files = set(re.findall(r"`((?:\w+/)*\w+\.(?:py|md))`", PAGE)) | set(re.findall(r"\]\((\w+\.md)\)", PAGE))
    assert len(files) > 15
    missing = [name for name in files if not any((place / name).exists() for place in [*places, ROOT / "docs"])]
    assert missing == []
