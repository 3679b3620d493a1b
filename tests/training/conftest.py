from __future__ import annotations

import pytest

from mlhooks.training import advantages, episodes, replay, step_checks, store

COMPILED = pytest.mark.skipif(store.COMPILED is None, reason="mlhooks was installed without a C compiler")


@pytest.fixture(params=[pytest.param("compiled", marks=COMPILED), "numpy"])
def each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a test with the native extension and without it."""
    if request.param == "numpy":
        for module in (advantages, episodes, replay, store, step_checks):
            monkeypatch.setattr(module, "COMPILED", None)
