"""Demonstration files as players write them, made of protobuf objects alone."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf.internal.encoder import _EncodeVarint  # type: ignore[import-untyped]

from mlhooks.unity import schema

schema.install()

from mlagents_envs.communicator_objects.agent_action_pb2 import AgentActionProto  # noqa: E402
from mlagents_envs.communicator_objects.agent_info_action_pair_pb2 import AgentInfoActionPairProto  # noqa: E402
from mlagents_envs.communicator_objects.agent_info_pb2 import AgentInfoProto  # noqa: E402
from mlagents_envs.communicator_objects.brain_parameters_pb2 import BrainParametersProto  # noqa: E402
from mlagents_envs.communicator_objects.demonstration_meta_pb2 import DemonstrationMetaProto  # noqa: E402

from tests.unity.messages import observation  # noqa: E402

BRAIN_AT = 33


def delimited(message: Any) -> bytes:
    """Return a message with its length in front."""
    content = message.SerializeToString()
    out = bytearray()
    _EncodeVarint(out.extend, len(content))
    return bytes(out) + content


def old_brain(sizes: Iterable[int], continuous: bool, name: str = "Walk") -> BrainParametersProto:
    """Return a behavior as players before version 1.3 of the protocol describe it."""
    return BrainParametersProto(
        brain_name=name, vector_action_size_deprecated=sizes, vector_action_space_type_deprecated=int(continuous)
    )


def new_brain(continuous: int, branches: Iterable[int] = (), name: str = "Walk?team=0") -> BrainParametersProto:
    """Return a behavior as today's players describe it; the old fields tell something else, as theirs do."""
    brain = BrainParametersProto(brain_name=name, vector_action_space_type_deprecated=1)
    brain.action_spec.num_continuous_actions = continuous
    brain.action_spec.num_discrete_actions = len(list(branches))
    brain.action_spec.discrete_branch_sizes.extend(branches)
    return brain


def pair(obs: Any, reward: float = 0.0, *, done: bool = False, **action: Any) -> AgentInfoActionPairProto:
    """Return one record; `obs` is a vector, or a list of messages; `old`, `continuous`, `discrete` are its action."""
    observations = obs if hasattr(obs[0], "shape") else [observation(np.array(obs, np.float32))]
    return AgentInfoActionPairProto(
        agent_info=AgentInfoProto(reward=reward, done=done, id=7, observations=observations),
        action_info=AgentActionProto(
            vector_actions_deprecated=action.get("old", ()),
            continuous_actions=action.get("continuous", ()),
            discrete_actions=action.get("discrete", ()),
        ),
    )


def demo_bytes(
    brain: BrainParametersProto, pairs: list[AgentInfoActionPairProto], *, steps: int | None = None, version: int = 1
) -> bytes:
    """Return a whole file, with a second copy of the metadata behind the records, as Unity leaves it there."""
    meta = DemonstrationMetaProto(
        api_version=version, demonstration_name="Expert", number_steps=len(pairs) if steps is None else steps
    )
    head = delimited(meta).ljust(BRAIN_AT, b"\0")
    return head + delimited(brain) + b"".join(map(delimited, pairs)) + meta.SerializeToString()


def written(path: Path, brain: BrainParametersProto, pairs: list[AgentInfoActionPairProto], **more: Any) -> Path:
    """Write such a file, and return its path."""
    path.write_bytes(demo_bytes(brain, pairs, **more))
    return path
