from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from textwrap import dedent

import pytest

from mlhooks.fast.switch import native, plain

NATIVE = pytest.mark.skipif(native("experience") is None, reason="mlhooks was installed without a C compiler")
NOTE = """
import sys
from mlhooks import hookimpl

sys.notes.append({name!r})

@hookimpl
def run_started(run): ...
"""


@pytest.fixture(params=[pytest.param("native", marks=NATIVE), "plain"])
def each_way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run a test with the native extension and in plain numpy."""
    with plain(request.param == "plain"):
        yield


@pytest.fixture
def notes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """Names that plugins note when they are imported."""
    found: list[str] = []
    monkeypatch.setattr(sys, "notes", found, raising=False)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield found
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., Path]:
    """Write a plugin file that notes its name, or with another text."""

    def write(name: str, text: str | None = None) -> Path:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(NOTE.format(name=path.stem) if text is None else dedent(text))
        return path

    return write
