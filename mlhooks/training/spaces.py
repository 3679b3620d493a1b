"""The spaces of a behavior in the terms of its environment, on their way to the files of a run and back."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from mlagents_envs.base_env import BehaviorSpec

from mlhooks.envs.spaces import SpaceError, Spaces
from mlhooks.errors import ContractBroken, UsageError
from mlhooks.training.trainer import Trainer

logger = logging.getLogger("mlhooks")


def spaces_of_file(header: Mapping[str, Any], spec: BehaviorSpec) -> Spaces | None:
    """Return the spaces that the header of a behavior's file describes; None where it describes none.

    Raises:
        SpaceError: the description is none, or that of another behavior.
    """
    data = header.get("spaces")
    if data is None:
        return None
    try:
        spaces = Spaces.from_data(data)
        spaces.require(spec)
    except SpaceError as error:
        raise SpaceError(f"it describes the spaces of its environment as {error}") from None
    return spaces


def set_spaces(trainer: Trainer, behavior_id: str, shown: Spaces | None) -> None:
    """Let a trainer know the spaces that an environment describes; those of its checkpoint must mean the same actions.

    Raises:
        ContractBroken: they are not those of the behavior.
        UsageError: the policy has learned to act in another action space.
    """
    if shown is None:
        return
    if not isinstance(shown, Spaces):
        raise ContractBroken(
            f"The environment describes the spaces of behavior {behavior_id!r} as a {type(shown).__name__}; it must be "
            "a mlhooks.plugin.Spaces."
        )
    try:
        shown.require(trainer.behavior_spec)
    except SpaceError as error:
        raise ContractBroken(f"The environment describes the spaces of behavior {behavior_id!r} as {error}.") from None
    known, trainer.spaces = trainer.spaces, shown
    if known is None or known == shown:
        return
    if known.decode.differs(shown.decode):
        trainer.spaces = known
        raise UsageError(
            f"The action space of behavior {behavior_id!r} has changed, and the same decisions would do something "
            f"else: the policy has learned to act in {known.action}, and the environment takes {shown.action}. Undo "
            "the change in the environment, or begin another run by --run-id, with --initialize-from to keep the "
            "weights."
        )
    logger.warning(
        "The spaces of behavior %r have changed, and the run goes on: the policy has learned in %s and %s, and the "
        "environment has %s and %s.",
        behavior_id,
        known.observation,
        known.action,
        shown.observation,
        shown.action,
    )
