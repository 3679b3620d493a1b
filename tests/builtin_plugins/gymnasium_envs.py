"""Tiny Gymnasium environments, registered under `mlhooks-tests/`, that show what an adapter must get right."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.error import DependencyNotInstalled
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from builtin_plugins import gymnasium_env
from mlhooks.settings import EnvironmentSettings


class Walk(gymnasium.Env):
    """A noisy walk of two numbers that ends when it has come far; its observation array is the same at every step."""

    observation_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    action_space = spaces.Box(-1.0, 3.0, (1,), np.float32)
    seeds: list[int | None] = []  # noqa: RUF012  (shared on purpose: tests read which seeds arrived)

    def __init__(self, far=3.0):
        self.far = far
        self.place = np.zeros(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        Walk.seeds.append(seed)
        self.place[:] = self.np_random.normal(size=2)
        return self.place, {}

    def step(self, action):
        self.place += self.np_random.normal(size=2) * 0.5 + action - 1
        return self.place, float(self.place.sum()), bool(np.abs(self.place).max() > self.far), False, {}


class Spaces(gymnasium.Env):
    """Shows samples of any observation space, takes any action space and notes what it was given."""

    def __init__(self, observation_space=None, action_space=None):
        self.observation_space = observation_space or spaces.Discrete(2)
        self.action_space = action_space or spaces.Discrete(2)
        self.shown, self.given = [], []

    def _show(self):
        self.shown.append(self.observation_space.sample())
        return self.shown[-1]

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        if seed is not None:
            self.observation_space.seed(seed)
        return self._show(), {}

    def step(self, action):
        assert self.action_space.contains(action), action
        self.given.append(action)
        return self._show(), 0.0, len(self.given) % 3 == 0, False, {}


class Short(spaces.Sequence):
    """A sequence that says how long it is at most."""

    max_length = 3

    def sample(self, mask=None, probability=None):
        least = int(self.stack)  # Gymnasium cannot stack nothing.
        return super().sample(mask=(np.arange(least, self.max_length + 1), None))


class Broken(gymnasium.Env):
    observation_space = action_space = spaces.Discrete(2)

    def __init__(self, how):
        if how == "dependency":
            raise DependencyNotInstalled('Box2D is not installed, run `pip install "gymnasium[box2d]"`')
        if how == "start":
            raise RuntimeError("no display")

    def reset(self, *, seed=None, options=None):
        return 0, {}

    def step(self, action):
        raise RuntimeError("the motor is off")


class PayingResets(SyncVectorEnv):
    """Gives the step that is a reset a reward, as vectorized implementations may."""

    def step(self, actions):
        resets = self._autoreset_envs & (self.autoreset_mode is AutoresetMode.NEXT_STEP)
        obs, rewards, *rest = super().step(actions)
        rewards[resets] = 99.0
        return obs, rewards, *rest


def vectorized(mode, env_type):
    """Return a `vector_entry_point` of copies of an environment that are reset in another mode."""

    def entry(num_envs, max_episode_steps=None, **kwargs):
        def one():
            env = env_type(**kwargs)
            return env if max_episode_steps is None else gymnasium.wrappers.TimeLimit(env, max_episode_steps)

        return PayingResets([one] * num_envs, autoreset_mode=mode)

    return entry


class Copying(Walk):
    """A walk whose observations are arrays of their own, which SAME_STEP needs."""

    def reset(self, **kwargs):
        obs, info = super().reset(**kwargs)
        return obs.copy(), info

    def step(self, action):
        obs, *rest = super().step(action)
        return obs.copy(), *rest


class Unlike(Walk):
    """Has one action more than the copy made before it."""

    sizes = itertools.count(2)

    def __init__(self):
        super().__init__()
        self.action_space = spaces.Discrete(next(self.sizes))


def silent_about_resets(num_envs):
    env = vectorized(AutoresetMode.SAME_STEP, Copying)(num_envs)
    del env.metadata["autoreset_mode"]
    return env


gymnasium.register("mlhooks-tests/Walk-v1", Walk, max_episode_steps=9)
gymnasium.register("mlhooks-tests/Walk-v2", Walk, max_episode_steps=9)
gymnasium.register("mlhooks-tests/Spaces-v0", Spaces)
gymnasium.register("mlhooks-tests/Broken-v0", Broken)
gymnasium.register("mlhooks-tests/Unlike-v0", Unlike)
gymnasium.register("mlhooks-tests/Silent-v0", Copying, vector_entry_point=silent_about_resets)
for mode in AutoresetMode:  # There are no single copies of it, so that few copies are a vector, too.
    gymnasium.register(
        f"mlhooks-tests/Walk{mode.value}-v0", vector_entry_point=vectorized(mode, Copying), max_episode_steps=9
    )
    gymnasium.register(f"mlhooks-tests/Spaces{mode.value}-v0", vector_entry_point=vectorized(mode, Spaces))


def options_of(env_kwargs=None, *, inference=False, **settings):
    """Return options of a run that say these settings of the environment."""
    wrappers = EnvironmentSettings(wrappers=settings.pop("wrappers", None)).wrappers
    said = {
        "check": "first",
        "max_entities": None,
        "grid_observations": False,
        "atari": False,
        "whole_episodes": False,
        **settings,
    }
    return SimpleNamespace(
        env_settings=SimpleNamespace(env_kwargs=env_kwargs or {}, wrappers=wrappers, **said),
        checkpoint_settings=SimpleNamespace(inference=inference),
        environment_parameters=None,
    )


def make(name, env_kwargs=None, *, num_areas=1, seed=0, worker_id=0, **settings):
    """Return an environment as the run would make it."""
    options = options_of(env_kwargs, **settings)
    (factory,) = gymnasium_env.get_env_types().values()
    return factory(name, worker_id=worker_id, seed=seed, num_areas=num_areas, options=options, side_channels=())
