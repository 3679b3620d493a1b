"""How many threads an operation uses, in torch and in the linear algebra below numpy."""

from __future__ import annotations

from types import TracebackType

import torch
from threadpoolctl import threadpool_limits

from mlhooks.training.trainer import Trainer

SMALL = 256
"""Hidden units up to which sharing an operation out costs more than it saves."""


class Threads:
    """While it is entered, operations use the number of threads that was asked for, or else one that suits.

    That is one, until a trainer has large networks or reads images. It is chosen by size, never by timing, so that one
    seed gives the same weights on one machine every time.

    Args:
        asked: the number that the settings ask for.
    """

    def __init__(self, asked: int | None) -> None:
        self.asked, self.available = asked, torch.get_num_threads()
        self.count = asked or 1
        self._blas: threadpool_limits | None = None

    def __enter__(self) -> None:
        self._set(self.count)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._blas is not None:
            self._blas.restore_original_limits()
        torch.set_num_threads(self.available)

    def suit(self, trainer: Trainer) -> None:
        """Use all threads where a trainer's networks are worth it."""
        large = trainer.settings.network_settings.hidden_units > SMALL
        if self.asked is None and (large or trainer.policy.layout.images):
            self._set(self.available)

    def _set(self, count: int) -> None:
        self.count = count
        limited = threadpool_limits(count, user_api="blas")
        self._blas = self._blas or limited  # the first knows the original limits
        torch.set_num_threads(count)
