"""Descriptions of exceptions and values of other people's code, whose own `__str__` and `__repr__` may fail."""

from __future__ import annotations

from mlhooks.errors import MlhooksError, WrongAnswer
from mlhooks.places import in_brackets, raised_at
from mlhooks.shortening import cut_and_counted

_LONGEST_TEXT = 2_000
_LONGEST_VALUE = 120


def text_of(error: BaseException) -> str:
    """Return the text of an exception, cut where it is very long, or a remark where the exception cannot give it."""
    try:
        text = str(error)
    except KeyboardInterrupt:
        raise
    except BaseException as also:  # Anything may happen in code that is broken already.
        return f"(its text cannot be shown, because its __str__ raises {type(also).__name__})"
    return text if isinstance(error, MlhooksError) else cut_and_counted(text, _LONGEST_TEXT)


def named(error: BaseException) -> str:
    """Return the type of an exception and its text, or the text alone where it is written for people."""
    text = text_of(error)
    if isinstance(error, (MlhooksError, WrongAnswer)):
        return text
    return f"{type(error).__name__}: {text}".removesuffix(": ")


def described(error: BaseException) -> str:
    """Return the text of an error, with its type and the line it came from where it is not written for people."""
    place = "" if isinstance(error, MlhooksError) else in_brackets(raised_at(error))
    return named(error) + place


def is_shortage(error: BaseException) -> bool:
    """Return whether an error of Python, numpy or torch says that there is not enough memory."""
    if not isinstance(error, RuntimeError):
        return isinstance(error, MemoryError)
    words = ("can't allocate memory", "not enough memory", "out of memory", "Storage size calculation overflowed")
    text = text_of(error)
    return any(word in text for word in words)


def notes_of(error: BaseException) -> list[str]:
    """Return the notes that were added to an exception."""
    notes = getattr(error, "__notes__", ())
    return [note for note in notes if isinstance(note, str)] if isinstance(notes, (list, tuple)) else []


def shown(value: object) -> str:
    """Return a value as Python writes it, cut where that is long, or its type where it cannot be written."""
    try:
        return cut_and_counted(repr(value), _LONGEST_VALUE)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return f"<an object of type {type(value).__name__}, whose __repr__ fails>"


def with_article(value: object) -> str:
    """Return the type of a value with its article, as in `a Tensor`; None and classes go by their names."""
    if value is None:
        return "None"
    if isinstance(value, type):
        return f"the class {value.__qualname__}"
    kind = type(value).__name__
    return f"{'an' if kind[:1].lower() in set('aeiou') else 'a'} {kind}"


def shown_with_type(value: object) -> str:
    """Return a value and its type, as in `3, an int`; None and classes say that by themselves."""
    kind = with_article(value)
    return kind if value is None or isinstance(value, type) else f"{shown(value)}, {kind}"
