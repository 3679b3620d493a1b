"""Environments of a target under test: which they are, how they are made, and how they are played at random."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from mlagents_envs.base_env import ActionTuple, BaseEnv, BehaviorSpec, DecisionSteps, TerminalSteps

from mlhooks.testing.managers import load_options, offered
from mlhooks.testing.target import Target
from mlhooks.training.environment_scheme import make_factory, scheme_and_name

DEFAULT_NAME = "default"
Steps = dict[str, tuple[DecisionSteps, TerminalSteps]]


def environments_of(target: Target, given: list[str], folder: Path) -> list[str]:
    """Return what `--env` would be: those that were given or that the plugin lists, or each kind by default.

    A plugin lists them in its attribute `conformance_environments`, such as `("sim:3DBall", "sim:Basic")`, or returns
    them from a function of that name, which may write what they need into the folder that it gets.
    """
    schemes = sorted(offered(target.plugin, "get_env_types"))
    listed = getattr(target.plugin, "conformance_environments", ())
    listed = given or list(listed(folder) if callable(listed) else listed)
    chosen = [name for name in listed if scheme_and_name(name)[0] in schemes]
    return chosen or [f"{scheme}:{DEFAULT_NAME}" for scheme in schemes]


def make(target: Target, name: str, *, seed: int = 1, num_areas: int = 1, worker: int = 0) -> BaseEnv:
    """Return the environment of one worker, as a run would make it."""
    manager = target.manager()
    flags = {
        "env_settings.env_path": name,
        "env_settings.seed": seed,
        "env_settings.num_areas": num_areas,
        "env_settings.base_port": free_port() - worker,  # Several kinds that listen may run at a time.
    }
    options = load_options(manager, {}, flags)
    return make_factory(options, manager)(worker)


def free_port() -> int:
    """Return a port on which nobody listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def steps_of(env: BaseEnv) -> Steps:
    """Return the steps of all behaviors that the environment shows now."""
    return {name: env.get_steps(name) for name in env.behavior_specs}


def random_actions(
    spec: BehaviorSpec, decisions: DecisionSteps, rng: np.random.Generator, *, idle: float = 0.0
) -> ActionTuple:
    """Return an allowed action for each agent that asks for one.

    Args:
        spec: the behavior's.
        decisions: of the agents.
        rng: source of the actions.
        idle: the share of agents, by their ids, that get zeros, or the first allowed choice, instead.
    """
    agents, action = len(decisions), spec.action_spec
    continuous = rng.uniform(-1, 1, (agents, action.continuous_size)).astype(np.float32)
    discrete = np.zeros((agents, action.discrete_size), np.int32)
    resting = (decisions.agent_id % 10) / 10 >= 1.0 - idle
    continuous[resting] = 0.0
    for branch, size in enumerate(action.discrete_branches):
        scores = np.where(resting[:, None], 1.0, rng.random((agents, size)))
        if decisions.action_mask is not None:
            scores = np.where(decisions.action_mask[branch], -1.0, scores)
        discrete[:, branch] = scores.argmax(axis=1)
    return ActionTuple(continuous, discrete)


def walk(env: BaseEnv, ticks: int, *, seed: int = 0, idle: float = 0.0) -> Iterator[Steps]:
    """Reset the environment and play it at random; yields what it shows after the reset and after each step.

    A share of agents, `idle`, does nothing.
    """
    rng = np.random.default_rng(seed)
    env.reset()
    shown = steps_of(env)
    yield shown
    for _ in range(ticks):
        for name, (decisions, _) in shown.items():
            if len(decisions):
                env.set_actions(name, random_actions(env.behavior_specs[name], decisions, rng, idle=idle))
        env.step()
        shown = steps_of(env)
        yield shown


def arrays(shown: Steps) -> dict[str, np.ndarray]:
    """Return copies of all arrays of some steps, by what they are."""
    found: dict[str, np.ndarray] = {}
    for name, pair in shown.items():
        for kind, steps in zip(("decision", "terminal"), pair, strict=True):
            parts: dict[str, Any] = {
                **{f"observation {index}": obs for index, obs in enumerate(steps.obs)},
                "reward": steps.reward,
                "agent_id": steps.agent_id,
                "group_id": steps.group_id,
                "group_reward": steps.group_reward,
            }
            if kind == "terminal":
                parts |= {"interrupted": steps.interrupted}
            elif steps.action_mask is not None:
                parts |= {f"mask of branch {index}": mask for index, mask in enumerate(steps.action_mask)}
            found |= {f"{kind} steps of {name}, {what}": np.array(part) for what, part in parts.items()}
    return found


def difference(a: Mapping[str, np.ndarray], b: Mapping[str, np.ndarray]) -> str | None:
    """Return the first thing in which two results of `arrays` differ."""
    for what in sorted(a.keys() | b.keys()):
        if what not in a or what not in b or not np.array_equal(a[what], b[what]):
            return what
    return None
