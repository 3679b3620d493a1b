"""Policies that solve simulations by rule, for `mlhooks demo record --policy benchmarks/experts.py:NAME`."""

from __future__ import annotations

import numpy as np

RIGHT = 2
TURN = np.radians(10)  # A full action of 3DBall turns by so much.


def basic(observation: np.ndarray) -> int:  # noqa: ARG001  (it never needs to look)
    """Go to the large goal."""
    return RIGHT


def ball(observation: np.ndarray) -> np.ndarray:
    """Tilt the plate of 3DBall against the ball's place and speed."""
    tilt, place, speed = 2 * observation[:2], observation[[2, 4]], observation[[5, 7]]
    wanted = np.array([1.0, -1.0]) * (place + 1.5 * speed) / 7.0
    return np.clip((wanted - tilt) / TURN, -1, 1)


def pendulum(observation: np.ndarray) -> np.ndarray:
    """Pump energy into the pendulum until it gets up, and hold it there."""
    cosine, sine, speed = observation
    angle = np.arctan2(sine, cosine)
    wanted = -8.0 * angle - 2.0 * speed
    if abs(wanted) >= 4.0:  # It is not near enough to be held.
        missing = 15.0 * (1.0 - cosine) - speed**2 / 2  # Energy, in units of the mass times its length squared.
        wanted = 2.0 * missing * (1.0 if speed >= 0 else -1.0)
    return np.clip([wanted], -2, 2)
