"""`python -m mlhooks.sim_player`: what a trainer starts in place of a Unity build."""

from __future__ import annotations

import sys

from mlhooks.sim_player.command import main

sys.exit(main(sys.argv[1:]))
