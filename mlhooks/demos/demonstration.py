"""Demonstrations to learn from: the transitions of an expert, from one file or a folder of them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from mlagents_envs.base_env import BehaviorSpec

from mlhooks.demos.reading import read_demo
from mlhooks.demos.records import Records
from mlhooks.envs.pixels import to_floats
from mlhooks.envs.specs import same_shape
from mlhooks.errors import DemonstrationError
from mlhooks.plugin_sources import nearest

SUFFIX = ".demo"


class Demonstration:
    """The transitions of an expert, in the layout of a trainer's experience.

    A transition has the observation and the action of one record. The record after it has the reward, the observation
    that followed, and whether the episode ended. No transition goes from one file to another. `obs` and `next_obs` take
    index arrays, so that nothing large is copied before it is needed:

        rows = rng.integers(len(demonstration), size=64)
        features = policy.features(demonstration.obs(rows))

    Args:
        path: the file or folder, for messages.
        parts: the records of each file, all of behaviors of one shape.

    Attributes:
        path: the file or folder.
        spec: observations and actions of the behavior.
        continuous: [transitions, size], as environments get them; `Policy.from_environment` turns them back into what a
            policy samples.
        discrete: [transitions, branches].
        rewards: [transitions], of the environment.
        ended: [transitions], True where the transition was the last of its episode, terminal or interrupted.
        trajectory: [transitions], the number of the episode, counted from 0.
    """

    def __init__(self, path: Path, parts: Sequence[Records]) -> None:
        self.path, self.spec = path, parts[0].spec
        starts = np.cumsum([0, *map(len, parts[:-1])])
        self._shown = [_together(arrays) for arrays in zip(*(part.obs for part in parts), strict=True)]
        self._rows = np.concatenate([start + part.rows for start, part in zip(starts, parts, strict=True)])
        self.continuous = np.concatenate([part.continuous for part in parts])[self._rows]
        self.discrete = np.concatenate([part.discrete for part in parts])[self._rows]
        self.rewards = np.concatenate([part.reward for part in parts])[self._rows + 1]
        self.ended = np.concatenate([part.done for part in parts])[self._rows + 1]
        begins = np.ones(len(self._rows), np.bool_)
        file = np.searchsorted(starts, self._rows, side="right")
        begins[1:] = self.ended[:-1] | (file[1:] != file[:-1])
        self.trajectory = np.cumsum(begins) - 1

    def __len__(self) -> int:
        return len(self._rows)

    def obs(self, rows: np.ndarray | slice = slice(None)) -> list[np.ndarray]:
        """Return what the expert saw in some transitions, a list of [rows, *shape]: float32, or uint8 of images."""
        return [shown[self._rows[rows]] for shown in self._shown]

    def next_obs(self, rows: np.ndarray | slice = slice(None)) -> list[np.ndarray]:
        """Return what the expert saw at the end of some transitions, in the form of `obs`.

        At the end of an episode that is the final observation. Files of players older than version 1.3 of the protocol
        lack that one, and have the first observation of the next episode in its place.
        """
        return [shown[self._rows[rows] + 1] for shown in self._shown]


def _together(arrays: Sequence[np.ndarray]) -> np.ndarray:
    if len({array.dtype for array in arrays}) > 1:
        arrays = [to_floats(array) for array in arrays]
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)


def demo_files(path: Path) -> list[Path]:
    """Return the file, or the .demo files of the folder in the order of their names.

    Raises:
        DemonstrationError: there is none, or the file is not called .demo.
    """
    try:
        if path.is_dir():
            return _files_in(path)
        if not path.exists():
            raise DemonstrationError(_missing(path))
    except OSError as error:  # A name may be too long, for example.
        raise DemonstrationError(f"The demonstration {path} cannot be read: {error.strerror or error}.") from error
    if path.suffix != SUFFIX:
        raise DemonstrationError(f"The file {path} is no demonstration: those are called NAME{SUFFIX}.")
    return [path]


def _files_in(folder: Path) -> list[Path]:
    # Systems put files of their own beside others, such as macOS "._NAME.demo", and hide them by a dot.
    shown = (file for file in folder.iterdir() if not file.name.startswith("."))
    files = sorted(file for file in shown if file.suffix == SUFFIX and file.is_file())
    if not files:
        raise DemonstrationError(f"The folder {folder} holds no demonstrations: there are no {SUFFIX} files in it.")
    return files


def _missing(path: Path) -> str:
    folder = path.parent
    if not folder.is_dir():
        return f"There is no demonstration {path}, nor a folder {folder}."
    return f"There is no demonstration {path}{nearest(path.name, (file.name for file in folder.iterdir())) or '.'}"


def read_demos(path: Path) -> dict[Path, Records]:
    """Return the records of a file, or of each file in a folder.

    Raises:
        DemonstrationError: as `demo_files` and `read_demo`.
    """
    return {file: read_demo(file) for file in demo_files(path)}


def load_demonstration(
    path: Path | str, behavior_name: str = "", spec: BehaviorSpec | None = None, folder: Path | None = None
) -> Demonstration:
    """Return the demonstration that a configuration names.

    Args:
        path: a `.demo` file, or a folder of them; a backslash counts as a slash.
        behavior_name: the behavior that is to learn from it, for messages.
        spec: that behavior's observations and actions, which must be those of the demonstration.
        folder: to which a relative path belongs; the working directory without it.

    Raises:
        DemonstrationError: there is none, it is damaged, it shows no transition, or it is of another behavior; the
            message names the file, the record and what is wrong.
    """
    path = Path(folder or "", str(path).replace("\\", "/"))
    parts = read_demos(path)
    first = next(iter(parts))
    wanted, whose = parts[first].spec, f"the demonstration {first} beside it"
    if spec is not None:
        wanted, whose = spec, f"the behavior {behavior_name!r}"
    for file, records in parts.items():
        if not same_shape(wanted, records.spec):
            raise DemonstrationError(
                f"The demonstration {file}, of the behavior {records.behavior_name!r}, does not fit {whose}: "
                f"{difference(records.spec, wanted)}."
            )
    demonstration = Demonstration(path, list(parts.values()))
    if not len(demonstration):
        raise DemonstrationError(f"The demonstration {path} is too short: nobody acts in it between two records.")
    return demonstration


def difference(found: BehaviorSpec, wanted: BehaviorSpec) -> str:
    """Say how the shapes of the first behavior differ from those of the second, which they must."""
    ours, others = found.action_spec, wanted.action_spec
    if ours.continuous_size != others.continuous_size:
        return f"it has {ours.continuous_size} continuous actions in place of {others.continuous_size}"
    if ours.discrete_branches != others.discrete_branches:
        return (
            f"it has the discrete branches {list(ours.discrete_branches)} in place of {list(others.discrete_branches)}"
        )
    shapes, wanted_shapes = ([tuple(obs.shape) for obs in s.observation_specs] for s in (found, wanted))
    if len(shapes) != len(wanted_shapes):
        return f"it has {len(shapes)} observations in place of {len(wanted_shapes)}: {shapes}, not {wanted_shapes}"
    index = next(i for i, pair in enumerate(zip(shapes, wanted_shapes, strict=True)) if pair[0] != pair[1])
    return f"its observation {index} has the shape {shapes[index]} in place of {wanted_shapes[index]}"
