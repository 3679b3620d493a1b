"""Before any test module here imports the reference client."""

from __future__ import annotations

from mlhooks.unity.schema import install

install()
