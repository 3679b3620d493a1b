"""The sensors of scripted behaviors; each shows which episode and step it is of."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from mlhooks.sim_player.options import SIZED
from mlhooks.sim_player.world import NONE, TRANSLATIONAL, VARIABLE, Floats, Ints, Sensor

BUFFER_ROWS = 4
GOALS = 3
TENSOR_CHANNELS = 2
STACK_MAPPING = (0, 1, 2, 3, -1, -1)
GRAY_MAPPING = (0, 0, 0)
RGB_MAPPING = (0, 1, 2)
IMAGE = (NONE, TRANSLATIONAL, TRANSLATIONAL)

Images = npt.NDArray[np.uint8]


class Moment(NamedTuple):
    """The moment of some agents of a behavior: numbers, episodes, steps and last actions, all [agents, ...]."""

    seed: int
    agent: Ints
    episode: Ints
    step: Ints
    action: Floats


See = Callable[[Moment], npt.NDArray[Any]]


def clock(moment: Moment) -> Floats:
    """Seed, agent, episode and step, [agents, 4]."""
    columns = (np.full_like(moment.agent, moment.seed), moment.agent, moment.episode, moment.step)
    return np.stack(columns, axis=1).astype(np.float32)


def buffer(moment: Moment) -> Floats:
    """Return one to four rows of (episode, step, number of the row from 1), the others zero, [agents, 4, 3]."""
    number = np.arange(1, BUFFER_ROWS + 1, dtype=np.float32)
    out = np.empty((len(moment.agent), BUFFER_ROWS, 3), dtype=np.float32)
    out[..., 0], out[..., 1], out[..., 2] = moment.episode[:, None], moment.step[:, None], number
    out[number[None] > 1 + moment.step[:, None] % BUFFER_ROWS] = 0.0
    return out


def goal(moment: Moment) -> Floats:
    """Return one-hot of the episode modulo 3, [agents, 3]."""
    return np.eye(GOALS, dtype=np.float32)[moment.episode % GOALS]


def frame(moment: Moment, size: int) -> Images:
    """Return red, green, blue: episode, step, slope (x + 2 y), all modulo 256, [agents, size, size + 4, 3]."""
    out = np.empty((len(moment.agent), size, size + 4, 3), dtype=np.uint8)
    out[..., 0] = (moment.episode % 256)[:, None, None]
    out[..., 1] = (moment.step % 256)[:, None, None]
    out[..., 2] = (np.arange(size + 4) + 2 * np.arange(size)[:, None]) % 256
    return out


def stack(moment: Moment, size: int) -> Images:
    """Return the frame, and one whose red is the agent's number; the rest of that one belongs to no channel."""
    other = np.zeros((len(moment.agent), size, size + 4, 3), dtype=np.uint8)
    other[..., 0] = (moment.agent % 256)[:, None, None]
    return np.concatenate([frame(moment, size), other], axis=-1)


def tensor(moment: Moment, size: int) -> Floats:
    """Return episode plus the slope x / width, and step plus y / height, [agents, 2, size, size + 4]."""
    out = np.empty((len(moment.agent), TENSOR_CHANNELS, size, size + 4), dtype=np.float32)
    out[:, 0] = moment.episode[:, None, None] + np.arange(size + 4, dtype=np.float32) / (size + 4)
    out[:, 1] = moment.step[:, None, None] + np.arange(size, dtype=np.float32)[:, None] / size
    return out


def rays(moment: Moment, size: int) -> Floats:
    """Return (step + i) modulo 10, in tenths, for each number i, [agents, size]."""
    shown: Floats = ((moment.step[:, None] + np.arange(size)) % 10 / 10).astype(np.float32)
    return shown


def grid(moment: Moment, shape: tuple[int, int, int]) -> Floats:
    """Return a one in channel (step + x + y) modulo channels of each cell, [agents, *shape]."""
    channels, height, width = shape
    where = (moment.step[:, None, None] + np.arange(height)[:, None] + np.arange(width)) % channels
    cells: Floats = (where[:, None] == np.arange(channels)[:, None, None]).astype(np.float32)
    return cells


def sized(traits: frozenset[str]) -> list[tuple[Sensor, See]]:
    """Return the sensors that traits such as `rays264` and `grid6x20x20` name."""
    found: list[tuple[Sensor, See]] = []
    for trait in traits:
        if match := SIZED["rays"].fullmatch(trait):
            found.append((Sensor(trait, (int(match[1]),), (NONE,)), partial(rays, size=int(match[1]))))
        elif match := SIZED["grid"].fullmatch(trait):
            shape = int(match[1]), int(match[2]), int(match[3])
            found.append((Sensor(trait, shape, IMAGE), partial(grid, shape=shape)))
    return found


def sensors(traits: frozenset[str], actions: int, size: int) -> list[tuple[Sensor, See]]:
    """Return the sensors of a behavior with these traits, sorted by name, and what each of them sees.

    Args:
        traits: Names of the optional sensors, among others.
        actions: How many values an action has.
        size: Height of images, 4 less than their width.
    """
    plane = (size, size + 4)
    optional: dict[str, tuple[Sensor, See]] = {
        "buffer": (Sensor("buffer", (BUFFER_ROWS, 3), (VARIABLE, NONE)), buffer),
        "goal": (Sensor("goal", (GOALS,), (NONE,), goal=True), goal),
        "gray": (Sensor("gray", (1, *plane), IMAGE, mapping=GRAY_MAPPING), lambda now: frame(now, size)),
        "png": (Sensor("png", (3, *plane), IMAGE, mapping=RGB_MAPPING), lambda now: frame(now, size)),
        "stack": (Sensor("stack", (4, *plane), IMAGE, mapping=STACK_MAPPING), lambda now: stack(now, size)),
        "tensor": (Sensor("tensor", (TENSOR_CHANNELS, *plane), IMAGE), lambda now: tensor(now, size)),
    }
    always: list[tuple[Sensor, See]] = [
        (Sensor("action", (actions,), (NONE,)), lambda now: now.action),
        (Sensor("clock", (4,), (NONE,)), clock),
    ]
    named = [made for name, made in optional.items() if name in traits]
    found = [*([] if "bare" in traits else always), *named, *sized(traits)]
    return sorted(found, key=lambda made: made[0].name)
