"""Failures that come from mistakes in an environment's code, which no restart mends."""

from __future__ import annotations

from mlhooks.errors import ContractBroken, MlhooksError

MISTAKES = (ContractBroken, TypeError, AttributeError, NameError, ImportError, NotImplementedError, SyntaxError)
_KEPT = "_mlhooks_mistake"


def is_mistake(error: BaseException) -> bool:
    """Return whether an error, or what mlhooks tells by it, is a mistake in code and no accident around it."""
    kept = error.__dict__.get(_KEPT, False)
    return kept or isinstance(error, MISTAKES) or (_is_told(error) and is_mistake(_cause(error)))


def is_raised(error: BaseException) -> bool:
    """Return whether code of the environment raised an error, or its cause; a process that ends raises none."""
    return not isinstance(error, MlhooksError) or _is_told(error) or _KEPT in error.__dict__


def keep_mistake(error: BaseException) -> None:
    """Let an error remember what it is, because its cause gets lost on the way to another process."""
    if is_raised(error):
        error.__dict__[_KEPT] = is_mistake(error)


def _is_told(error: BaseException) -> bool:
    """Return whether mlhooks tells by it what code raised, and not how a connection broke."""
    return isinstance(error, MlhooksError) and not isinstance(error.__cause__, OSError | EOFError | None)


def _cause(error: BaseException) -> BaseException:
    assert error.__cause__ is not None
    return error.__cause__
