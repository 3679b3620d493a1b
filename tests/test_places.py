from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mlhooks.places import defined_at, in_brackets, keep_place, raised_at

HERE = Path(__file__)


def fails_in_numpy() -> None:
    np.broadcast_to(np.zeros(3), (2,))


def failure() -> Exception:
    with pytest.raises(ValueError, match="broadcast") as caught:
        fails_in_numpy()
    return caught.value


def below(thing: Callable[..., object] | type, lines: int) -> str:
    """So many lines below the first one of something here."""
    return f"{HERE.name}:{inspect.getsourcelines(thing)[1] + lines}"


def test_error_is_placed_at_the_last_line_before_the_library_that_raised_it(monkeypatch: pytest.MonkeyPatch) -> None:
    error = failure()
    assert raised_at(error).endswith(below(fails_in_numpy, 1))
    monkeypatch.chdir(HERE.parent)
    assert raised_at(error) == below(fails_in_numpy, 1)  # It is as short as it can be.


def test_error_without_a_traceback_has_no_place() -> None:
    assert raised_at(ValueError()) == ""
    assert in_brackets("") == ""


def test_place_that_was_kept_survives_pickling() -> None:
    error = failure()
    keep_place(error)
    assert raised_at(pickle.loads(pickle.dumps(error))) == raised_at(error) != ""


class Something:
    def method(self) -> None: ...


def test_functions_classes_and_objects_are_found() -> None:
    assert defined_at(fails_in_numpy).endswith(below(fails_in_numpy, 0))
    assert defined_at(Something).endswith(below(Something, 0))
    assert defined_at(Something()).endswith(below(Something, 0))
    assert defined_at(Something().method).endswith(below(Something, 1))


def test_what_has_no_source_has_no_place() -> None:
    assert defined_at(len) == ""
