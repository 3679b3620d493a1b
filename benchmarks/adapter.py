"""The part that the peers' scripts of `speed.py` share: the way in and out, networks, and returns of episodes."""

from __future__ import annotations

import json
import math
import sys
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv
from torch import nn

ACTIVATIONS: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "relu": nn.ReLU}


class ReachedError(Exception):
    """Ends a run that reached what it was to reach, from within a library's own loop."""


class Returns:
    """Returns of the last 100 training episodes, and whether their mean is what the run was to reach."""

    def __init__(self, settings: dict[str, Any]) -> None:
        self.recent: deque[float] = deque(maxlen=100)
        self._goal: float = settings.get("stop_at", math.inf)

    def add(self, returns: Iterable[float]) -> None:
        """Take in episodes that ended."""
        self.recent.extend(float(value) for value in returns)

    @property
    def mean(self) -> float:
        """Their mean; NaN before the first."""
        return sum(self.recent) / len(self.recent) if self.recent else math.nan

    @property
    def reached(self) -> bool:
        """Whether the run may end."""
        return self._goal < math.inf and len(self.recent) == 100 and self.mean >= self._goal


def vector_environment(settings: dict[str, Any]) -> VectorEnv[Any, Any]:
    """Return Gymnasium's vector environment, which tells the returns of episodes to `finished`.

    Single copies are reset in the step that ends their episode. Environments' own vectorized implementations reset a
    copy in the step after, which a loop that knows nothing of it stores like any other.
    """
    name, copies = settings["environment"], settings["environments"]
    if settings["vectorized"]:
        native = gymnasium.make_vec(name, copies, vectorization_mode="vector_entry_point")
        return gymnasium.wrappers.vector.RecordEpisodeStatistics(native)
    one = partial(single_environment, name)
    return SyncVectorEnv([one] * copies, autoreset_mode=AutoresetMode.SAME_STEP)


def single_environment(name: str) -> gymnasium.Env[Any, Any]:
    """Return one copy."""
    return gymnasium.wrappers.RecordEpisodeStatistics(gymnasium.make(name))


def finished(infos: dict[str, Any]) -> list[float]:
    """Return the returns of the episodes that a step ended."""
    infos = infos.get("final_info", infos)
    if "episode" not in infos:
        return []
    returns = np.atleast_1d(infos["episode"]["r"])
    return list(returns[infos.get("_episode", slice(None))])


def layers(settings: dict[str, Any], inputs: int, outputs: int, gain: float | None = None) -> list[nn.Module]:
    """Return hidden layers and an output layer.

    With a gain weights are orthogonal, of gain sqrt(2) and `gain` in the output layer; without one, as torch has them.
    """
    sizes = [inputs, *settings["layers"]]
    linear = [nn.Linear(a, b) for a, b in pairwise([*sizes, outputs])]
    if gain is not None:
        for layer in linear:
            orthogonal(layer, gain if layer is linear[-1] else math.sqrt(2.0))
    hidden = [part for layer in linear[:-1] for part in (layer, ACTIVATIONS[settings["activation"]]())]
    return [*hidden, linear[-1]]


def orthogonal(layer: nn.Linear, gain: float) -> None:
    """Initialize it so."""
    nn.init.orthogonal_(layer.weight, gain)
    nn.init.zeros_(layer.bias)


def rounds(settings: dict[str, Any]) -> int:
    """Return rollouts until at least so many steps are made."""
    return -(-settings["steps"] // (settings["environments"] * settings["rollout"]))


def script(train: Callable[[dict[str, Any]], dict[str, Any]], *libraries: str) -> None:
    """Make the run that the first argument describes, and write its result to the file that the second one names.

    Args:
        train: makes the run; gives at least `steps`, `loop_seconds` and `mean_return`.
        libraries: distributions whose versions are reported besides torch's and the like.
    """
    settings = json.loads(sys.argv[1])
    torch.set_num_threads(1)
    result = train(settings)
    result["versions"] = {name: version(name) for name in (*libraries, "torch", "numpy", "gymnasium")}
    Path(sys.argv[2]).write_text(json.dumps(result), encoding="utf-8")
