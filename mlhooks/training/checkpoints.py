"""Checkpoints: durable files, a manifest that vouches for them, and strict loading that never unpickles objects."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sys
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import mlhooks
from mlhooks.describing import shown_with_type
from mlhooks.errors import CheckpointError
from mlhooks.names import MANIFEST, file_name
from mlhooks.places import shown_path
from mlhooks.shortening import cut
from mlhooks.training.durable import write_durably
from mlhooks.training.manifest import exporting, inside, open_file, read_manifest
from mlhooks.training.sealed import load_sealed, seal
from mlhooks.training.which_run import still_usable

logger = logging.getLogger("mlhooks")

SECTIONS = frozenset({"metadata", "mlhooks"})
"""What the manifest has beside the sections of behaviors and environment parameters."""


@dataclass(frozen=True)
class Checkpoint:
    """One saved state of one behavior; `path` is durable and named by the manifest."""

    behavior_name: str
    step: int
    path: Path
    mean_reward: float | None


class NoCheckpoint(CheckpointError):
    """A folder of which no checkpoint can be used; `usable` says which files of it still can, alone."""

    usable: str = ""


def load_modules(modules: Mapping[str, nn.Module], states: Mapping[str, Any], owner: str) -> None:
    """Load module states strictly: every key must be there, known, finite, and of the right type and shape.

    Raises:
        CheckpointError: names the module and the key that does not fit; nothing was loaded.
    """
    for name, module in modules.items():
        if name not in states:
            raise CheckpointError(f"{owner}: the checkpoint has no {name!r}; it has {', '.join(map(str, states))}.")
        own = module.state_dict()
        for key in sorted(own.keys() | states[name].keys()):
            if key not in states[name] or key not in own:
                where = "is missing in the checkpoint" if key in own else "is unknown to the network"
                raise CheckpointError(f"{owner}: {name}.{key} {where}: they were made with different settings.")
            _check_tensor(own[key], states[name][key], f"{owner}: {name}.{key}")
    for name, module in modules.items():
        module.load_state_dict(states[name])


def _check_tensor(own: Any, saved: Any, what: str) -> None:
    if not isinstance(own, torch.Tensor):  # A module's `get_extra_state` gave it, and the module checks it.
        return
    if not isinstance(saved, torch.Tensor) or saved.dtype != own.dtype:
        kind = saved.dtype if isinstance(saved, torch.Tensor) else type(saved).__name__
        raise CheckpointError(f"{what} is {kind} in the checkpoint and {own.dtype} in the network.")
    if own.shape != saved.shape:
        raise CheckpointError(
            f"{what} has shape {tuple(saved.shape)} in the checkpoint and {tuple(own.shape)} in the network: "
            "network_settings or the behavior's spec differ."
        )
    if not torch.isfinite(saved).all() and torch.isfinite(own).all():  # An attention mask, say, may be infinite.
        raise CheckpointError(f"{what} has values that are NaN or infinite in the checkpoint, so it is of no use.")


def pack(value: Any) -> Any:
    """Make a state of tensors and plain values only, which loads without unpickling: arrays become marked tensors.

    Raises:
        CheckpointError: there is anything else in it, which could be saved and never be loaded; names its place.
    """
    try:
        return _packed(value)
    except _Unfit as unfit:
        at = f", at {'.'.join(unfit.path)}" if unfit.path else ""
        raise CheckpointError(
            f"A state to be saved holds {unfit.what}{at}. A state_dict consists of tensors, arrays, numbers, texts, "
            "None, lists, and dicts whose keys are texts or numbers."
        ) from None


class _Unfit(Exception):
    """Something that no state may hold, and the keys that lead to it."""

    def __init__(self, what: str) -> None:
        super().__init__(what)
        self.what = what
        self.path: list[str] = []


def _packed(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        # Strides of an empty array may be any, and a file would tell equal states apart by them.
        plain = np.ascontiguousarray(value) if value.size else np.empty(value.shape, value.dtype)
        return {"__array__": torch.from_numpy(plain)}
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(map(_packed_item, value.items()))
    if isinstance(value, (list, tuple)):
        return [_packed(item) for item in value]
    if type(value) is str:
        return sys.intern(value)  # Equal texts have to be one object, because a pickle tells them apart otherwise.
    if value is None or isinstance(value, torch.Tensor) or type(value) in (bool, int, float, complex, bytes):
        return value
    raise _Unfit(shown_with_type(value))


def _packed_item(item: tuple[Any, Any]) -> tuple[Any, Any]:
    key, value = item
    if not (key is None or isinstance(key, (str, int, float, bytes, np.generic))):
        raise _Unfit(f"the key {shown_with_type(key)}")
    try:
        return _packed(key), _packed(value)
    except _Unfit as unfit:
        unfit.path.insert(0, str(key))
        raise


def unpack(value: Any) -> Any:
    """Undo `pack`.

    Raises:
        ValueError: a part of the value is in two places, by which a small file could be endless; `pack` makes none.
    """
    return _unpacked(value, set())


def _unpacked(value: Any, seen: set[int]) -> Any:
    if not isinstance(value, (dict, list)):
        return value
    if id(value) in seen:
        raise ValueError("a part of it is in two places")
    seen.add(id(value))
    if isinstance(value, list):
        return [_unpacked(item, seen) for item in value]
    if "__array__" in value:
        return value["__array__"].numpy()
    return {key: _unpacked(item, seen) for key, item in value.items()}


def write_state(path: Path, state: Mapping[str, Any]) -> bytes:
    """Write a state durably and return its bytes, which depend on nothing but the state; they carry their digest."""
    data = seal(pack(state))
    write_durably(path, data)
    return data


def read_state(path: Path) -> dict[str, Any]:
    """Read a state that `write_state` wrote.

    Raises:
        CheckpointError: the file is missing, not one of mlhooks', or any bit of it is not as it was written.
    """
    try:
        state = unpack(load_sealed(path))
    except FileNotFoundError:
        raise CheckpointError(f"There is no checkpoint at {shown_path(path)}.") from None
    except Exception as error:
        raise CheckpointError(
            f"{shown_path(path)} cannot be read as an mlhooks checkpoint: {error}. Checkpoints of mlagents-learn and "
            "other tools cannot be loaded."
        ) from error
    if not isinstance(state, dict) or not isinstance(state.get("mlhooks"), dict):
        raise CheckpointError(
            f"{shown_path(path)} is not an mlhooks checkpoint; those of mlagents-learn cannot be loaded."
        )
    return state


class CheckpointFolder:
    """The checkpoints of one run folder.

    The manifest is ML-Agents' `run_logs/training_status.json` with one more section, which names every file of a
    checkpoint with size and SHA-256 once all of them are durable.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.manifest: dict[str, Any] = {"metadata": {"mlhooks_version": mlhooks.__version__}, "mlhooks": []}
        if self.exists():
            self.manifest = read_manifest(path)

    def exists(self) -> bool:
        """Return whether there is a manifest."""
        return os.path.lexists(self.path / MANIFEST)

    def save(
        self,
        states: Mapping[str, Mapping[str, Any]],
        run_state: Mapping[str, Any],
        rewards: Mapping[str, float | None],
        keep: int,
    ) -> dict[str, Checkpoint]:
        """Write one checkpoint of all behaviors and of the run, then name it in the manifest.

        Args:
            states: state of each behavior, with its `step`.
            run_state: what belongs to no behavior.
            rewards: mean reward of each behavior.
            keep: how many checkpoints to keep, all where it is not positive; older ones are removed.
        """
        files: dict[str, dict[str, Any]] = {}
        saved: dict[str, Checkpoint] = {}
        total = sum(state["step"] for state in states.values())
        for name, state in states.items():
            folder = file_name(name)
            path = inside(self.path, f"{folder}/{folder}-{state['step']}.pt")
            files[name] = self._write(path, state)
            saved[name] = Checkpoint(name, state["step"], path, rewards[name])
        run_file = self._write(self.path / "run_logs" / f"state-{total}.pt", run_state)
        entry = {"behaviors": files, "run": run_file, "exported": []}
        entries = [e for e in self.manifest["mlhooks"] if e["run"]["path"] != run_file["path"]] + [entry]
        self._describe(saved)
        self._export_to([saved[name].path.with_suffix("") for name in saved])
        keep = keep if keep > 0 else len(entries)
        self._drop(entries[:-keep], entries[-keep:])
        return saved

    def note_exported(self, exported: Mapping[str, list[Path]]) -> None:
        """Name in the manifest, as part of the newest checkpoint, the models that were exported beside it."""
        extra = [self._relative(path) for paths in exported.values() for path in paths]
        self.manifest["mlhooks"][-1]["exported"] = extra
        for name in exported.keys() - SECTIONS:
            described = self.manifest[name]["final_checkpoint"]
            others = [path.as_posix() for path in exported[name] if path != _model(exported[name])]
            if model := _model(exported[name]):  # As in ML-Agents' own, the file of a checkpoint is the one for Unity.
                others.insert(0, described["file_path"])
                described["file_path"] = model.as_posix()
            described["auxillary_file_paths"] = others
        self.end_export()

    def note_models(self, models: Mapping[str, list[Path]]) -> None:
        """Name in the manifest the models to use, by behavior: as in ML-Agents' own, that for Unity is the last one."""
        for name in models.keys() - SECTIONS:
            described = self.manifest.get(name, {}).get("final_checkpoint")
            if described and (model := _model(models[name])):
                # Another mapping, because that of the last checkpoint is among all checkpoints, too.
                self.manifest[name]["final_checkpoint"] = described | {"file_path": model.as_posix()}
        self.end_export()

    def begin_export(self, stems: Iterable[Path]) -> None:
        """Name in the manifest, at once, how the names of files begin that exporters are about to write.

        By that they are known to be the run's if it is killed before it can name them in full.
        """
        self._export_to(stems)
        self._write_manifest()

    def end_export(self) -> None:
        """Write the manifest, which names by now what exporters wrote."""
        self.manifest["metadata"].pop("exporting", None)
        self._write_manifest()

    def _export_to(self, stems: Iterable[Path]) -> None:
        metadata = self.manifest.setdefault("metadata", {})
        left = exporting(self.manifest)  # An earlier run was killed then.
        files = metadata.setdefault("files", [])
        for parent in {(self.path / prefix).parent for prefix in left}:
            names = (self._relative(path) for path in parent.iterdir() if path.is_file()) if parent.is_dir() else ()
            files += [name for name in names if name.startswith(left) and name not in files]
        metadata["exporting"] = [self._relative(stem) for stem in stems]

    def note_lessons(self, lessons: Mapping[str, int]) -> None:
        """Let the next manifest say in which lesson each environment parameter is, as ML-Agents' does."""
        for name, lesson in lessons.items():
            if name not in SECTIONS:
                self.manifest.setdefault(name, {})["lesson_num"] = lesson

    def note_ratings(self, ratings: Mapping[str, float]) -> None:
        """Let the next manifest say the rating of each behavior that has self-play, as ML-Agents' does."""
        for name, rating in ratings.items():
            if name not in SECTIONS:
                self.manifest.setdefault(name, {})["elo"] = rating

    def note_file(self, name: str) -> None:
        """Name in the manifest, at once, a file that a plugin writes: relative to the folder, with slashes."""
        noted = self.manifest.setdefault("metadata", {}).setdefault("files", [])
        if name not in noted:
            noted.append(name)
            self._write_manifest()

    def note_plugins(self, plugins: Mapping[str, str]) -> None:
        """Let the next manifest say which plugins besides mlhooks' own the run has, and where they came from."""
        self.manifest.setdefault("metadata", {})["plugins"] = dict(plugins)

    def _write(self, path: Path, state: Mapping[str, Any]) -> dict[str, Any]:
        data = write_state(path, state)
        return {"path": self._relative(path), "size": len(data), "sha256": hashlib.sha256(data).hexdigest()}

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.path).as_posix()

    def _describe(self, saved: Mapping[str, Checkpoint]) -> None:
        """Keep the section of each behavior as ML-Agents' tools know it."""
        for name, checkpoint in saved.items():
            if name in SECTIONS:
                continue
            described = {
                "steps": checkpoint.step,
                "file_path": checkpoint.path.as_posix(),
                "reward": checkpoint.mean_reward,
                "creation_time": time.time(),
                "auxillary_file_paths": [],
            }
            section = self.manifest.setdefault(name, {})
            earlier = [c for c in section.get("checkpoints", []) if c["steps"] != checkpoint.step]
            section["checkpoints"] = [*earlier, described]
            section["final_checkpoint"] = described

    def _drop(self, old: list[dict[str, Any]], kept: list[dict[str, Any]]) -> None:
        self.manifest["mlhooks"] = kept
        kept_files = {path for entry in kept for path in _files(entry)}
        dropped = {path for entry in old for path in _files(entry)} - kept_files - {MANIFEST.as_posix()}
        for section in self.manifest.values():
            if isinstance(section, dict) and "checkpoints" in section:
                gone = {(self.path / path).as_posix() for path in dropped}
                section["checkpoints"] = [c for c in section["checkpoints"] if c["file_path"] not in gone]
        self._write_manifest()
        for path in dropped:
            found = inside(self.path, path)
            try:
                if not found.is_dir():  # No run names a folder.
                    found.unlink(missing_ok=True)
            except OSError as error:  # A program that shows it may hold on to it.
                logger.warning("The file %s of an old checkpoint stays: %s.", cut(path, 200), error.strerror)

    def _write_manifest(self) -> None:
        write_durably(self.path / MANIFEST, json.dumps(self.manifest, indent=1).encode())

    def newest(self) -> dict[str, Any]:
        """Return the newest checkpoint whose files all verify: its `behaviors` and `run`, each with a verified path.

        Raises:
            NoCheckpoint: there is none; says what is wrong with each.
        """
        reasons = []
        for entry in reversed(self.manifest["mlhooks"]):
            damage = [f"{file['path']}: {d}" for file in _records(entry) if (d := self._damage(file))]
            if not damage:
                return {
                    "behaviors": {name: self.path / file["path"] for name, file in entry["behaviors"].items()},
                    "run": self.path / entry["run"]["path"],
                }
            logger.warning("Passing over a damaged checkpoint: %s.", "; ".join(damage))
            reasons += damage
        detail = f" Damaged: {'; '.join(reasons)}." if reasons else ""
        usable = still_usable(self.path, self.manifest)
        error = NoCheckpoint(f"{shown_path(self.path)} holds no checkpoint that can be used.{detail} {usable}".rstrip())
        error.usable = usable
        raise error

    def _damage(self, file: Mapping[str, Any]) -> str | None:
        try:
            with open_file(self.path / file["path"]) as opened:
                digest, size = hashlib.file_digest(opened, "sha256").hexdigest(), opened.tell()
        except OSError as error:
            return error.strerror or str(error)
        if size != file["size"]:
            return f"{size:,} bytes instead of {file['size']:,}"
        return None if digest == file["sha256"] else "its SHA-256 differs"


def _records(entry: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [*entry["behaviors"].values(), entry["run"]]


def _files(entry: Mapping[str, Any]) -> list[str]:
    return [*(file["path"] for file in _records(entry)), *entry["exported"]]


def _model(files: Iterable[Path]) -> Path | None:
    """Return the file among these that Unity loads."""
    return next((path for path in files if path.suffix == ".onnx"), None)
