"""`sim:Sorter` without its tiles: what `mlhooks run sorter_ppo` reaches where nothing can be compared."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from mlhooks.sims import Sorter
from mlhooks.sims.base import Rows


class BlindSorter(Sorter):
    """Shows no tiles, only how many are left: all entities are zeros, which is padding."""

    def _observe(self, rows: Rows) -> list[npt.NDArray[np.float32]]:
        left, tiles = super()._observe(rows)
        return [left, np.zeros_like(tiles)]
