"""Settings that are paths of files, and names of runs, which are paths below the results folder."""

from __future__ import annotations

import os
import re
import unicodedata
from pathlib import PureWindowsPath
from typing import Annotated, TypeAlias

from pydantic import AfterValidator

from mlhooks.names import file_name

_ON_WINDOWS = os.name == "nt"


def _no_control_characters(value: str) -> str:
    # "results\run" in double quotes holds a carriage return and "C:\Nuts" a next line, which no one means in a path.
    if any(unicodedata.category(character) in {"Cc", "Zl", "Zp"} for character in value):
        raise ValueError(
            "holds a control character: in YAML's double quotes a backslash starts an escape, use single quotes"
        )
    return value


def _below(run_id: str) -> str:
    parts = re.split(r"[/\\]", run_id)
    # Windows' reading counts, too, because others may run the same file there.
    path = PureWindowsPath(run_id)
    if path.root and path.name not in {"", ".."}:
        raise ValueError(
            f"is an absolute path: give only what follows the results folder, as in {path.name!r}; --results-dir names "
            "the results folder"
        )
    if path.anchor or not parts[0] or {".", ".."} & set(parts):
        raise ValueError("leads out of the results folder: give a name, or several with slashes between them")
    if "\\" in run_id:
        raise ValueError("has a backslash, which is a slash to Windows only: say / between the names of folders")
    if "" in parts:
        raise ValueError("has a slash too many: every part between slashes is the name of a folder")
    for part in parts if _ON_WINDOWS else ():
        name = part.replace("%", "_")  # `file_name` keeps % for itself
        if file_name(name) != name:
            raise ValueError(
                f'has the part {part!r}, which Windows does not take for a name: it takes none of <>:"|?*, no dot or '
                "space at the end, and no con, nul, com1 and the like"
            )
    return _no_control_characters(run_id)


PathText: TypeAlias = Annotated[str, AfterValidator(_no_control_characters)]
"""A path as it was written; backslashes stay."""

RunId: TypeAlias = Annotated[str, AfterValidator(_below)]
"""The name of a run, or of a folder of runs and the name in it, with slashes between."""
