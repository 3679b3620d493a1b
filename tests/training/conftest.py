from __future__ import annotations

import pytest

from mlhooks.training import advantages, episodes, replay, store, trainer


@pytest.fixture(params=["compiled", "numpy"])
def each_way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what is compiled, and without."""
    if request.param == "numpy":
        for module in (advantages, episodes, replay, store, trainer):
            monkeypatch.setattr(module, "COMPILED", None)
    elif store.COMPILED is None:
        pytest.skip("mlhooks was installed without a C compiler")
