from __future__ import annotations

import pytest

from mlhooks.training import advantages, episodes, replay, store, trainer

COMPILED = pytest.mark.skipif(store.COMPILED is None, reason="mlhooks was installed without a C compiler")


@pytest.fixture(params=[pytest.param("compiled", marks=COMPILED), "numpy"])
def each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what is compiled, and without."""
    if request.param == "numpy":
        for module in (advantages, episodes, replay, store, trainer):
            monkeypatch.setattr(module, "COMPILED", None)
