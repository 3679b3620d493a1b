"""Set torch up: compiled or in bfloat16 where settings ask for it, its memory, and its number of threads."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from functools import cached_property
from types import TracebackType
from typing import Any

import torch
from threadpoolctl import threadpool_limits
from torch import nn

from mlhooks.fast.memory import keep_freed
from mlhooks.nn.attention import EntityEncoder
from mlhooks.nn.layers import MLP
from mlhooks.nn.networks import Network
from mlhooks.nn.visual import ImageEncoder
from mlhooks.settings.run_options import TorchSettings
from mlhooks.training.trainer import Trainer

logger = logging.getLogger("mlhooks")


class Computing:
    """Makes networks compute as the settings ask; their weights, and the names of these, stay what they are.

    Args:
        settings: what is asked for.
        device: where the networks live.
    """

    def __init__(self, settings: TorchSettings, device: torch.device) -> None:
        self.settings, self.device = settings, device

    def set_up(self, modules: Iterable[nn.Module], *, threaded: bool = False) -> None:
        """Set up all networks in modules; they are compiled when torch first computes them.

        Args:
            modules: what holds networks.
            threaded: whether a second thread computes them.
        """
        for part in (part for module in modules for part in module.modules()):
            if isinstance(part, Network) and self.settings.autocast is not None:
                part.autocast = torch.bfloat16
            if isinstance(part, MLP | ImageEncoder | EntityEncoder) and self.settings.compile and self._compiles:
                part.compile(**self._how(threaded))
            if isinstance(part, ImageEncoder) and self.device.type == "cpu":
                keep_freed()

    def _how(self, threaded: bool) -> dict[str, Any]:
        """Return the options of a compilation for all numbers of rows, or on a GPU for each, as a CUDA graph.

        Torch replays such a graph in one thread only.
        """
        if self.device.type == "cuda" and not threaded:
            return {"mode": "reduce-overhead", "dynamic": False}
        return {"dynamic": True}

    @cached_property
    def _compiles(self) -> bool:
        """Whether there is a working compiler; a warning says why where there is none."""
        from torch import _dynamo  # This import takes seconds.

        try:
            torch.compile(torch.sin)(torch.zeros(8, device=self.device))
        except Exception as error:
            reason = str(error).strip().partition("\n")[0].rstrip(".")
            logger.warning(
                "torch_settings.compile: networks are not compiled, and the run goes on without: %s. To compile, "
                "install a C++ compiler, or name one in the environment variable CXX.",
                reason,
            )
            return False
        _dynamo.config.suppress_errors = True  # Torch computes the rest as before.
        _dynamo.config.recompile_limit = 64  # All layers share one count: of each size, of acting and of learning.
        return True


SMALL = 256
"""Hidden units up to which sharing an operation out costs more than it saves."""


class Threads:
    """While it is entered, operations use the number of threads that was asked for, or else one that suits.

    That is one, until a trainer has large networks or reads images or entities. It is chosen by size, never by timing,
    so that one seed gives the same weights on one machine every time.

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

    def adapt_to(self, trainer: Trainer) -> None:
        """Use all threads where a trainer's networks are worth it."""
        network = trainer.settings.network_settings
        large = max([0, *network.layers, *network.of_critic.layers]) > SMALL
        if self.asked is None and (large or trainer.policy.layout.vectors < trainer.policy.layout.size):
            self._set(self.available)

    def _set(self, count: int) -> None:
        self.count = count
        limited = threadpool_limits(count, user_api="blas")
        self._blas = self._blas or limited  # The first one knows the original limits.
        torch.set_num_threads(count)
