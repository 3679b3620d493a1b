"""3DBall: keep a ball on a plate by tilting the plate about two axes."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import numpy.typing as npt
from mlagents_envs.base_env import ActionSpec, ActionTuple, BehaviorSpec

from mlhooks.sims.base import Rows, Simulation, vector_spec

TIME = 0.1  # A decision takes so many seconds: five of Unity's physics steps.
ROLLING = 5.0 / 7.0  # So much of gravity along the slope moves a solid sphere; 2/7 go into its spin.
HALF_WIDTH = 2.5  # in m, of the square plate
SURFACE = 2.5  # in m, from the point about which the plate turns to its surface
RADIUS = 0.5  # in m, of a ball of scale 1
TURN = math.radians(10.0)  # A full action turns by so much: 2 degrees in each of Unity's physics steps.
MAX_TILT = 2.0 * math.asin(0.25)  # The quaternion's component may be a quarter, which is about 29 degrees.
START_TILT = math.radians(10.0)
START_OFFSET = 1.5  # in m
STEP_REWARD, FALL_REWARD = np.float32(0.1), np.float32(-1.0)

_ROTATION, _POSITION, _HEIGHT, _VELOCITY, _RISE = slice(2), slice(2, 5, 2), 3, slice(5, 8, 2), 6
"""Rows of what an agent sees: the plate's rotation, the ball's x and z, its y, its velocity along x and z, along y."""

Array = npt.NDArray[np.float64]


def plate(tilt: Array) -> tuple[Array, Array, Array]:
    """Return what the tilts [2, agents], about z and x, make of plates that are turned about x first.

    Returns:
        The z and x components of the rotation's quaternion [2, agents]; the x and z components of the plate's normal
        [2, agents]; and its y component [agents].
    """
    half_sin, half_cos = np.sin(tilt * 0.5), np.cos(tilt * 0.5)
    normal = 2.0 * half_sin * half_cos
    cos_z, cos_x = 1.0 - 2.0 * half_sin * half_sin
    normal[0] *= -cos_x
    return half_sin * half_cos[::-1], normal, cos_z * cos_x


class Ball3D(Simulation):
    """A ball that rolls, without slipping, on a plate that the agent tilts, as in Unity's 3DBall.

    The two actions in [-1, 1] turn the plate about z and x, evenly over the 0.1 seconds of a decision, by up to 10
    degrees. The ball keeps touching the plate, whose own motion does not throw it. The agent sees the z and x
    components of the plate's rotation as a quaternion, then position and velocity of the ball relative to the plate's
    centre, in world axes (m, m/s). A decision with the ball on the plate gives 0.1; a fall gives -1 and ends the
    episode, which is interrupted after 1000 decisions.

    Of the environment parameters of Unity's 3DBall, `scale` is the size of the ball and `gravity` pulls it down
    (m/s^2). `mass` changes nothing: light and heavy balls roll alike.
    """

    NAME = "3DBall"
    SPEC = BehaviorSpec([vector_spec("ball", 8)], ActionSpec.create_continuous(2))
    AGENTS = 12
    MAX_STEPS = 1000
    STATE = ("tilt", "view", "acceleration", "height", "pull")
    PARAMETERS: ClassVar[Mapping[str, float]] = {"mass": 1.0, "scale": 1.0, "gravity": 9.81}

    def __init__(self, *, num_agents: int | None = None, num_areas: int = 1, seed: int = 0, worker_id: int = 0) -> None:
        super().__init__(num_agents=num_agents, num_areas=num_areas, seed=seed, worker_id=worker_id)
        self.tilt = np.zeros((2, self.num_agents))  # [2, agents], about z and x, in radians
        self.view = np.zeros((8, self.num_agents))  # Agents see these numbers.
        self.acceleration = np.zeros((2, self.num_agents))  # [2, agents], of the ball along x and z
        # It is that of the plane of the ball's centre over the point of turning.
        self.height = np.zeros(self.num_agents)
        self.pull = np.zeros(self.num_agents)  # It is the acceleration of a ball that rolls straight down.

    def _begin(self, rows: Rows) -> None:
        height = SURFACE + RADIUS * self.parameters["scale"][rows]
        pull = ROLLING * self.parameters["gravity"][rows]
        tilt = self._rng.uniform(-START_TILT, START_TILT, (2, len(rows)))
        view = np.zeros((8, len(rows)))
        view[_POSITION] = self._rng.uniform(-START_OFFSET, START_OFFSET, (2, len(rows)))
        view[_ROTATION], normal, up = plate(tilt)
        view[_HEIGHT] = (height - (normal * view[_POSITION]).sum(axis=0)) / up
        self.tilt[:, rows], self.view[:, rows], self.acceleration[:, rows] = tilt, view, pull * up * normal
        self.height[rows], self.pull[rows] = height, pull

    def _move(self, action: ActionTuple) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.bool_]]:
        turn = np.minimum(np.maximum(action.continuous.T, -1.0), 1.0) * TURN
        self.tilt = np.minimum(np.maximum(self.tilt + turn, -MAX_TILT), MAX_TILT)
        rotation, normal, up = plate(self.tilt)
        # Of gravity g, the part along the slope is g (up n - e_y), whose x and z are g up n.
        before, self.acceleration = self.acceleration, normal * (up * self.pull)
        view = self.view
        position, velocity = view[_POSITION], view[_VELOCITY]
        position += (velocity + before * (0.5 * TIME)) * TIME  # This is velocity Verlet.
        velocity += (before + self.acceleration) * (0.5 * TIME)
        view[_ROTATION] = rotation
        # Position p and velocity v fulfil n . p = height and n . v = 0.
        lean_x, lean_z = normal * position
        view[_HEIGHT] = (self.height - lean_x - lean_z) / up
        slide_x, slide_z = normal * velocity
        view[_RISE] = (slide_x + slide_z) / -up
        fallen = self._past_edge(normal, up)
        reward = np.full(self.num_agents, STEP_REWARD, dtype=np.float32)
        reward[fallen] = FALL_REWARD
        return reward, fallen

    def _past_edge(self, normal: Array, up: Array) -> npt.NDArray[np.bool_]:
        """Return whose ball is past an edge, [agents]."""
        (x, z), (normal_x, normal_z) = self.view[_POSITION], normal
        # The place along the plate's own axes, times the cosine of the tilt about x.
        along_x, along_z = up * x - normal_x * self.view[_HEIGHT], z - self.height * normal_z
        past: npt.NDArray[np.bool_] = np.maximum(np.abs(along_x), np.abs(along_z)) > HALF_WIDTH * np.sqrt(
            1.0 - normal_z * normal_z
        )
        return past

    def _observe(self, rows: Rows) -> list[npt.NDArray[np.float32]]:
        return [self.view.T.astype(np.float32, order="C")[rows]]
