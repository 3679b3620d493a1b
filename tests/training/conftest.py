from __future__ import annotations

from collections.abc import Iterator

import pytest

from mlhooks.fast.switch import native, plain

NATIVE = pytest.mark.skipif(native("experience") is None, reason="mlhooks was installed without a C compiler")


@pytest.fixture(params=[pytest.param("native", marks=NATIVE), "plain"])
def each_way(request: pytest.FixtureRequest) -> Iterator[None]:
    """Run a test with the native extension and in plain numpy."""
    with plain(request.param == "plain"):
        yield
