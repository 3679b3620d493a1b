"""Settings that are paths of files."""

from __future__ import annotations

from typing import Annotated, TypeAlias

from pydantic import AfterValidator


def _no_control_characters(value: str) -> str:
    # "results\run" in double quotes holds a carriage return, which no one means in a path.
    if any(ord(character) < 32 for character in value):
        raise ValueError("holds a control character: in YAML's double quotes a backslash starts an escape, use single")
    return value


PathText: TypeAlias = Annotated[str, AfterValidator(_no_control_characters)]
"""A path as it was written; backslashes stay."""
