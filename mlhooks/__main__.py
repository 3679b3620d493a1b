"""`python -m mlhooks`: the command line without its script."""

from __future__ import annotations

import sys

from mlhooks.cli import main

sys.exit(main())
