"""Read `.demo` files, the binary format of ML-Agents' demonstrations.

A file begins with a DemonstrationMetaProto. At byte 33 a BrainParametersProto begins, and behind it there are as many
AgentInfoActionPairProtos as the metadata count. Each message has its length in front. Bytes behind the last one are no
part of the demonstration: many files end with a second copy of the metadata.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from mlagents_envs.base_env import ActionSpec

from mlhooks.demos.records import Records
from mlhooks.envs.pixels import to_floats
from mlhooks.errors import DemonstrationError, NonFiniteError
from mlhooks.unity import schema
from mlhooks.unity.decode import Decoder, ObservationMismatch
from mlhooks.unity.schema import FIELDS
from mlhooks.unity.specs import UnitySpec, read_spec
from mlhooks.unity.wire import WireError, read_fields, read_varint, write_bytes

schema.install()

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # noqa: E402
from mlagents_envs.communicator_objects.agent_action_pb2 import AgentActionProto  # noqa: E402
from mlagents_envs.communicator_objects.agent_info_pb2 import AgentInfoProto  # noqa: E402
from mlagents_envs.communicator_objects.brain_parameters_pb2 import BrainParametersProto  # noqa: E402
from mlagents_envs.communicator_objects.demonstration_meta_pb2 import DemonstrationMetaProto  # noqa: E402

BRAIN_AT = 33
"""Where the BrainParametersProto begins, whatever the size of the metadata."""
VERSIONS = (0, 1)
"""The versions of the format that ML-Agents reads."""
_INFO, _ACTION = 1, 2  # These are fields of AgentInfoActionPairProto.
_DONE = FIELDS["AgentInfoProto"]["done"]
_CHANNELS_FIRST, _CHANNELS_LAST = "3.0.0", "1.0.0"  # These versions of the Unity package send images so.
_UNREADABLE = (DecodeError, UnicodeDecodeError, WireError)


class Pair(NamedTuple):
    """One record of a file, serialized: an AgentInfoProto, and the AgentActionProto that belongs to it."""

    info: bytes
    action: bytes


def read_demo(path: Path) -> Records:
    """Return the records of a file.

    Raises:
        DemonstrationError: it cannot be read, is damaged or of a version that nobody knows, or holds something that
            nothing can be learned from; names the file, the record and the reason.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise DemonstrationError(f"The demonstration {path} cannot be read: {error.strerror or error}.") from error
    steps, at = _read_meta(path, data)
    brain, at = _read_brain(path, data, at)
    pairs = list(_pairs(path, data, at, steps))
    if not pairs:
        raise DemonstrationError(f"The demonstration {path} has no records: nothing was recorded in it.")
    name = brain.brain_name.partition("?")[0]
    try:
        first = AgentInfoProto.FromString(pairs[0].info)
        unity_spec = read_spec(brain, first, _package_version(first))
    except (*_UNREADABLE, ValueError, IndexError) as error:  # Unknown or missing properties raise the last two.
        raise _damaged(path, 0, f"its observations are described in a way that is none ({error})") from error
    actions = unity_spec.spec.action_spec
    if actions.continuous_size < 0 or min(actions.discrete_branches, default=1) < 1:
        raise DemonstrationError(f"The demonstration {path} is damaged: it describes its actions as {actions}.")
    return _records(path, name, unity_spec, pairs)


def _read_meta(path: Path, data: bytes) -> tuple[int, int]:
    """Return how many records the metadata count, 0 where a recording was never closed, and where the brain begins."""
    try:
        size, start = read_varint(data, 0)
        if start + size > BRAIN_AT:
            raise WireError("it begins with something else than the metadata of a demonstration")
        meta = DemonstrationMetaProto.FromString(data[start : start + size])
    except _UNREADABLE as error:
        what = "is empty" if not data else f"is no demonstration of ML-Agents: {error}"
        raise DemonstrationError(f"The file {path} {what}.") from error
    if meta.api_version not in VERSIONS:
        known = " and ".join(map(str, VERSIONS))
        raise DemonstrationError(
            f"The demonstration {path} has version {meta.api_version} of the format; mlhooks reads versions {known}, "
            "as ML-Agents does. Record it again, or update mlhooks."
        )
    return meta.number_steps, BRAIN_AT


def _read_brain(path: Path, data: bytes, at: int) -> tuple[Any, int]:
    try:
        message, at = _delimited(data, at)
        return BrainParametersProto.FromString(message), at
    except _UNREADABLE as error:
        raise DemonstrationError(
            f"The demonstration {path} is damaged or was cut: the description of its behavior cannot be read ({error})."
        ) from error


def _pairs(path: Path, data: bytes, at: int, steps: int) -> Iterator[Pair]:
    """Yield as many records as the metadata count, or where they count none, all that the file has."""
    number = 0
    while number < steps or (not steps and at < len(data)):
        try:
            message, at = _delimited(data, at)
        except WireError as error:
            counted = f" of {steps:,}, as its metadata count them" if steps else ""
            raise DemonstrationError(
                f"The demonstration {path} was cut in record {number:,} (counted from 0){counted}: {error}. Copy it "
                "again, or record it again."
            ) from error
        try:
            parts = {field.number: message[field.start : field.stop] for field in read_fields(message, 0, len(message))}
        except WireError as error:
            raise _damaged(path, number, error) from error
        yield Pair(parts.get(_INFO, b""), parts.get(_ACTION, b""))
        number += 1


def _delimited(data: bytes, at: int) -> tuple[bytes, int]:
    size, start = read_varint(data, at)
    if start + size > len(data):
        raise WireError(f"the file ends {start + size - len(data):,} bytes too early")
    return data[start : start + size], start + size


def _package_version(agent: AgentInfoProto) -> str:
    """Return a version of the Unity package that sends images with the axes in this agent's order.

    A file does not say which version wrote it. The order shows in the shape, because an image has fewer channels than
    columns or rows.
    """
    images = [tuple(observation.shape) for observation in agent.observations if len(observation.shape) == 3]
    return _CHANNELS_FIRST if any(shape[0] < shape[2] for shape in images) else _CHANNELS_LAST


def _damaged(path: Path, number: int, reason: object) -> DemonstrationError:
    return DemonstrationError(f"The demonstration {path}, record {number:,} (counted from 0): {reason}.")


def _records(path: Path, name: str, unity_spec: UnitySpec, pairs: list[Pair]) -> Records:
    infos, spec = [pair.info for pair in pairs], unity_spec.spec
    done = np.empty(len(pairs), np.bool_)
    for number, info in enumerate(infos):
        try:
            done[number] = any(field.number == _DONE and field.value for field in read_fields(info, 0, len(info)))
        except WireError as error:
            raise _damaged(path, number, error) from error
    decisions, terminals = _decoded(path, name, unity_spec, infos)
    obs = [_merged(done, *pair) for pair in zip(decisions.obs, terminals.obs, strict=True)]
    interrupted = np.zeros(len(pairs), np.bool_)
    interrupted[done] = terminals.interrupted
    mask = None
    if decisions.action_mask is not None and any(branch.any() for branch in decisions.action_mask):
        mask = np.zeros((len(pairs), sum(spec.action_spec.discrete_branches)), np.bool_)
        mask[~done] = np.concatenate(decisions.action_mask, axis=1)
    continuous, discrete, acts = _actions(path, spec.action_spec, pairs, done)
    return Records(
        behavior_name=name,
        spec=spec,
        obs=obs,
        reward=_merged(done, decisions.reward + decisions.group_reward, terminals.reward + terminals.group_reward),
        done=done,
        interrupted=interrupted,
        acts=acts,
        continuous=continuous,
        discrete=discrete,
        mask=mask,
    )


def _merged(done: np.ndarray, going: np.ndarray, ended: np.ndarray) -> np.ndarray:
    """Return values of all records in order, from `going` of those that are not done and `ended` of the others."""
    if going.dtype != ended.dtype and len(going) and len(ended):
        going, ended = to_floats(going), to_floats(ended)
    merged = np.empty((len(done), *going.shape[1:]), (going if len(going) else ended).dtype)
    merged[~done], merged[done] = going, ended
    return merged


def _decoded(path: Path, name: str, unity_spec: UnitySpec, infos: list[bytes]) -> Any:
    """Decode all records together; where that fails, one after the other, to name the one that is wrong."""
    try:
        return Decoder(name, unity_spec).decode(b"".join(write_bytes(1, info) for info in infos))
    except (ObservationMismatch, NonFiniteError, WireError) as error:
        for number, info in enumerate(infos):
            try:
                Decoder(name, unity_spec).decode(write_bytes(1, info))
            except NonFiniteError as reason:
                raise _damaged(path, number, _non_finite(info) or str(reason).rstrip(".")) from reason
            except (ObservationMismatch, WireError) as reason:
                raise _damaged(path, number, str(reason).rstrip(".")) from reason
        raise DemonstrationError(f"The demonstration {path} cannot be read: {error}") from error


def _non_finite(info: bytes) -> str:
    """Say which value of a record is NaN or infinite; empty where none is."""
    agent = AgentInfoProto.FromString(info)
    named = {"reward": [agent.reward], "group reward": [agent.group_reward]}
    for index, observation in enumerate(agent.observations):
        named[f"observation {index} ({observation.name or 'unnamed'})"] = observation.float_data.data
    for what, given in named.items():
        values = np.array(given, np.float32)
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            at = f" at index {bad[0]}" if len(values) > 1 else ""
            return f"its {what} is {values[bad[0]]}{at}; nothing can be learned from that"
    return ""


def _actions(
    path: Path, spec: ActionSpec, pairs: list[Pair], done: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return continuous and discrete actions, and whether each record's action was decided on by what it shows."""
    continuous = np.zeros((len(pairs), spec.continuous_size), np.float32)
    discrete = np.zeros((len(pairs), spec.discrete_size), np.int64)
    acts = np.ones(len(pairs), np.bool_)
    for number, pair in enumerate(pairs):
        try:
            action = AgentActionProto.FromString(pair.action)
        except _UNREADABLE as error:
            raise _damaged(path, number, error) from error
        floats, whole, old = action.continuous_actions, action.discrete_actions, action.vector_actions_deprecated
        if floats or whole:
            acts[number] = not done[number]  # Where an episode has ended, today's players write a cleared action.
        elif old:
            floats, whole = (old, ()) if spec.continuous_size else ((), old)
        else:
            if not done[number] and number < len(pairs) - 1:
                raise _damaged(path, number, "it has no action, and only the last record may lack one")
            acts[number] = False
            continue
        sizes = len(floats), len(whole)
        if sizes != (spec.continuous_size, spec.discrete_size):
            reason = f"its action has {sizes[0]} continuous and {sizes[1]} discrete parts"
            raise _damaged(path, number, f"{reason}; those of its behavior have {_sizes(spec)}")
        continuous[number], discrete[number] = floats, _indices(path, number, whole, spec.discrete_branches)
    bad = np.flatnonzero(~np.isfinite(continuous).all(axis=1))
    if len(bad):
        raise _damaged(path, int(bad[0]), f"its action is {continuous[bad[0]].tolist()}, which nobody can imitate")
    return continuous, discrete, acts


def _sizes(spec: ActionSpec) -> str:
    return f"{spec.continuous_size} continuous and {spec.discrete_size} discrete ones"


def _indices(path: Path, number: int, action: Any, branches: tuple[int, ...]) -> list[int]:
    """Return discrete actions, which old files have as floats, as indices of their branches."""
    given = [float(value) for value in action]
    if not all(value.is_integer() and 0 <= value < size for value, size in zip(given, branches, strict=True)):
        raise _damaged(path, number, f"its action is {given}, and its branches have {list(branches)} actions, from 0")
    return [int(value) for value in given]
