"""Words for exceptions and values of other people's code, whose own words may fail, or never end."""

from __future__ import annotations

from mlhooks.errors import MlhooksError, WrongAnswer

_LONGEST_TEXT = 2_000
_LONGEST_VALUE = 120


def text_of(error: BaseException) -> str:
    """The text of an exception, cut where it is very long; says so where the exception cannot give it."""
    try:
        text = str(error)
    except KeyboardInterrupt:
        raise
    except BaseException as also:  # anything may happen in code that is broken already
        return f"(it cannot tell its text, because its __str__ raises {type(also).__name__})"
    return text if isinstance(error, MlhooksError) else _cut(text, _LONGEST_TEXT)


def named(error: BaseException) -> str:
    """The type of an exception and its text; the text alone where that is written for people."""
    text = text_of(error)
    if isinstance(error, (MlhooksError, WrongAnswer)):
        return text
    return f"{type(error).__name__}: {text}".removesuffix(": ")


def is_shortage(error: BaseException) -> bool:
    """Whether an error of Python, numpy or torch says that there is not enough memory."""
    if not isinstance(error, RuntimeError):
        return isinstance(error, MemoryError)
    words = ("can't allocate memory", "not enough memory", "out of memory", "Storage size calculation overflowed")
    text = text_of(error)
    return any(word in text for word in words)


def notes_of(error: BaseException) -> list[str]:
    """The notes that were added to an exception."""
    notes = getattr(error, "__notes__", ())
    return [note for note in notes if isinstance(note, str)] if isinstance(notes, (list, tuple)) else []


def shown(value: object) -> str:
    """A value as Python writes it, cut where that is long; its type where it cannot be written."""
    try:
        return _cut(repr(value), _LONGEST_VALUE)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return f"<an object of type {type(value).__name__}, whose __repr__ fails>"


def a(value: object) -> str:
    """What a value is, as in `a Tensor`; None and classes by their names."""
    if value is None:
        return "None"
    return f"the class {value.__qualname__}" if isinstance(value, type) else f"a {type(value).__name__}"


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else f"{text[:longest]}... ({len(text):,} characters in all)"
