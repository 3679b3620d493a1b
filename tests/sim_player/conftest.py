"""Before any test module here imports the reference client."""

from __future__ import annotations

import sys

from mlhooks.unity.schema import install

install()

# Their players are shell scripts.
collect_ignore = ["test_faults.py", "test_player.py", "test_scripted.py"] if sys.platform == "win32" else []
