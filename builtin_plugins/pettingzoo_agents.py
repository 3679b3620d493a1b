"""What an agent of a PettingZoo environment sees and does, apart from the mask of its actions."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from builtin_plugins.gymnasium_spaces import AS_DECLARED, Reading, describe_spaces
from mlhooks.envs.spaces import found
from mlhooks.errors import WrongAnswer
from mlhooks.places import defined_at, in_brackets
from mlhooks.plugin import ContractBroken, Spaces

OBSERVATION, MASK = "observation", "action_mask"
"""Keys of an observation that brings a mask along, and the key of a mask in infos."""


@dataclass(frozen=True)
class Agent:
    """The observations and actions of an agent.

    Args:
        spaces: what it sees and does, without the mask.
        masked: whether its observations are dicts in which the mask of its actions lies beside what it sees.
        alone: whether what it sees lies there under `observation` and nothing else does.
    """

    spaces: Spaces
    masked: bool = False
    alone: bool = False

    def split(self, shown: Any) -> tuple[Any, Any]:
        """Return what it sees, and the mask or None, of an observation as the environment shows it.

        Raises:
            WrongAnswer: it is a dict without the mask that its space has.
        """
        if not self.masked or not isinstance(shown, Mapping):
            return shown, None  # Where it is no dict, the encoder says what was found instead.
        if MASK not in shown:
            raise WrongAnswer(f"an observation lacks {MASK!r}, which its observation_space has: {found(shown)}")
        if self.alone:
            return shown.get(OBSERVATION), shown[MASK]
        return {key: part for key, part in shown.items() if key != MASK}, shown[MASK]

    def forbidden(self, mask: Any) -> list[npt.NDArray[np.bool_]]:
        """Return what a mask forbids, for each branch [1, choices].

        Args:
            mask: 1 or True where an action is allowed, as in PettingZoo: [actions], for several branches one behind the
                other or a tuple with an array for each.

        Raises:
            WrongAnswer: it is no mask of these actions, or forbids all of a branch.
        """
        branches = self.spaces.decode.spec.discrete_branches
        try:
            parts = [np.asarray(part) for part in mask] if isinstance(mask, tuple) else [np.asarray(mask)]
            allowed = np.concatenate([part.reshape(-1) for part in parts])
        except ValueError:
            allowed = np.empty(0)
        bits = allowed.dtype.kind in "biuf" and bool(((allowed == 0) | (allowed == 1)).all())
        if allowed.shape != (sum(branches),) or not bits:
            wanted = f"{sum(branches)} zeros and ones" if branches else "left out, because its actions are no choices"
            raise WrongAnswer(f"its action mask is {found(mask)}, and must be {wanted}")
        split = np.split(allowed == 0, np.cumsum(branches)[:-1])
        for number, part in enumerate(split):
            if part.all():
                which = f" of branch {number}" if len(split) > 1 else ""
                raise WrongAnswer(f"its action mask allows no action{which} where it has to act; 1 allows one")
        return [part[None] for part in split]

    def all_allowed(self) -> list[npt.NDArray[np.bool_]]:
        """Return what a mask would be that forbids nothing, for each branch [1, choices]."""
        return [np.zeros((1, size), dtype=np.bool_) for size in self.spaces.decode.spec.discrete_branches]


def describe(env: Any, agent: Any, title: str, reading: Reading = AS_DECLARED) -> Agent:
    """Describe an agent by its spaces.

    Args:
        env: an AECEnv or ParallelEnv.
        agent: its name there.
        title: how errors call the environment.
        reading: what the configuration says about observations.

    Raises:
        ContractBroken: the environment has no space for it.
        UnsupportedError: a space cannot be learned from or acted in.
    """
    seen = _space(env, "observation_space", agent, title)
    acts = _space(env, "action_space", agent, title)
    masked = alone = False
    chooses = isinstance(acts, spaces.Discrete | spaces.MultiDiscrete)
    if chooses and isinstance(seen, spaces.Dict) and MASK in seen.spaces:
        rest = {key: part for key, part in seen.spaces.items() if key != MASK}
        if rest:
            masked, alone = True, rest.keys() == {OBSERVATION}
            seen = rest[OBSERVATION] if alone else spaces.Dict(rest)
    return Agent(describe_spaces(seen, acts, f"agent {agent!r} of {title}", reading), masked, alone)


def _space(env: Any, kind: str, agent: Any, title: str) -> spaces.Space[Any]:
    """Return a space of an agent: by the method of PettingZoo's interface, or from the dict of the older one."""
    method = getattr(env, kind, None)
    try:
        if isinstance(method, Mapping):
            space = method[agent]
        elif callable(method):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # The base class warns where there is the dict alone, which will do.
                space = method(agent)
        else:
            space = getattr(env, f"{kind}s")[agent]
    except (KeyError, AttributeError, NotImplementedError) as error:
        raise ContractBroken(
            f"{title} has no {kind} for agent {agent!r} ({type(error).__name__}: {error}): define {kind}(agent)"
            f"{in_brackets(defined_at(type(env)))}, or the dict {kind}s."
        ) from error
    if not isinstance(space, spaces.Space):
        raise ContractBroken(
            f"{title}: {kind}({agent!r}) is {found(space)}, and must be a space of Gymnasium"
            f"{in_brackets(defined_at(type(env)))}."
        )
    return space
