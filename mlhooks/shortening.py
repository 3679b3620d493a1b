"""Texts that may be very long, made short for people."""

from __future__ import annotations


def cut(text: str, length: int) -> str:
    """Shorten a text that is longer than `length` characters."""
    return text if len(text) <= length else text[: length - 3] + "..."


def cut_and_counted(text: str, longest: int) -> str:
    """Shorten a text that is longer than `longest` characters, and say how long it was."""
    return text if len(text) <= longest else f"{text[:longest]}... ({len(text):,} characters in all)"
