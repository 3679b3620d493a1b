"""The contents of a run's folder: files of the run, and files that somebody else put there."""

from __future__ import annotations

import contextlib
import json
import os
import re
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlhooks.names import MANIFEST, file_name
from mlhooks.settings.yaml_source import read_yaml
from mlhooks.training.folder_lock import LOCK
from mlhooks.training.manifest import FILES, MOST_BYTES, exporting, open_file

ASIDE = (".mlhooks-replacing", ".mlhooks-replaced", ".mlhooks-removing")
"""Folders in which `--force` keeps earlier results: while it moves them, until the new run begins, and then."""

_JUNK = {".ds_store", "thumbs.db", "desktop.ini"}  # File managers leave these wherever they look.
_LOG = re.compile(r"run_logs/(?:state-\d+\.pt|Player-\d+\.log)")
_CHECKPOINT = re.compile(r"([^/]+)/(\1)-\d+(?:\.pt|\.policy\.pt|\.onnx|\.nn)")
_OF_BEHAVIOR = re.compile(r"([^/]+)/(?:checkpoint\.pt|events\.out\.tfevents\.[^/]+)")
_FIRST = re.compile(r"\.configuration\.yaml\.part|run_logs/Player-\d+\.log")  # Only a run has them, from its start on.
_STATISTICS = {"category", "step", "values"}
_MODEL = re.compile(r"([^/]+?)(?:\.policy\.pt|\.pt|\.onnx|\.nn)")
_BEST = re.compile(r"([^/]+)\.best(?:\.policy\.pt|\.onnx|\.nn)")
_RESOLVED = {"behaviors", "env_settings", "engine_settings", "checkpoint_settings", "torch_settings"}
_MANY = 1000


@dataclass
class Contents:
    """The contents of a folder; names are relative to it, with slashes.

    Attributes:
        is_run: whether there is something that only a run writes there.
        own: files of the run; nothing in a folder that is no run's.
        foreign: all others, but for what file managers leave.
        runs: folders below it that are runs themselves.
    """

    is_run: bool = False
    own: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)
    runs: list[str] = field(default_factory=list)

    @property
    def foreign_in_words(self) -> str:
        """Name the first ones, and count them."""
        return _in_words(self.foreign)

    @property
    def runs_in_words(self) -> str:
        """Name the first ones, and count them."""
        return _in_words(self.runs)


def _in_words(names: list[str]) -> str:
    count = f"{len(names):,}" if len(names) < _MANY else f"more than {_MANY:,}"
    first = ", ".join(sorted(names)[:3])
    return first if len(names) <= 3 else f"{first} and others, {count} in all"


def contents(folder: Path, run_id: str) -> Contents:
    """Sort the files of a folder into those of the run and others, without following links.

    What a run wrote is named by its manifest; what a killed one left is known by its names. Names alone make no run of
    a folder: somebody else may have a `curve.png`, or the events of another program's TensorBoard.

    Args:
        folder: of the run.
        run_id: its name, by which a configuration.yaml is known to be its own.
    """
    manifest = _manifest(folder)
    behaviors = frozenset(_behaviors(folder, manifest))
    listed, exported = frozenset(_listed(manifest)), exporting(manifest)
    found = Contents()
    for name in _walk(folder, found.runs):
        if name in listed or name.startswith(exported) or known(name, behaviors):
            found.own.append(name)
        elif name.rpartition("/")[2].lower() not in _JUNK:
            found.foreign.append(name)
        if len(found.foreign) >= _MANY:
            break
    found.is_run = (folder / MANIFEST).exists() or _is_marked(folder, run_id, found.own)
    if not found.is_run:
        found.own, found.foreign = [], found.own + found.foreign
    return found


def _is_marked(folder: Path, run_id: str, names: Collection[str]) -> bool:
    """Return whether names that runs give lie in a folder that a run was killed in, before it had a manifest."""
    return (
        any(_FIRST.fullmatch(name) for name in names)
        or ("configuration.yaml" in names and _is_own_configuration(folder, run_id))
        or ("stats.jsonl" in names and _are_statistics(folder / "stats.jsonl"))
        or any(  # mlagents-learn has them side by side, and writes nothing else before it ends.
            f"{match[1]}/checkpoint.pt" in names for name in names if (match := _CHECKPOINT.fullmatch(name))
        )
    )


def is_run(folder: Path) -> bool:
    """Return whether a folder is one of a run, which can hold no other runs."""
    return (folder / MANIFEST).exists() or (folder / LOCK).exists()


def runs_below(folder: Path, depth: int = 3) -> Iterator[str]:
    """Yield the names of the runs in a folder of runs, in order; folders that cannot be read are passed over.

    Args:
        folder: the folder of runs, which need not exist.
        depth: how many folders may be around each other, with the run's own.
    """
    with contextlib.suppress(OSError):
        for path in sorted(folder.iterdir()):
            if not path.is_dir():
                continue
            if is_run(path) or _is_own_configuration(path, path.name):
                yield path.name
            elif depth > 1 and not path.is_symlink():
                yield from (f"{path.name}/{name}" for name in runs_below(path, depth - 1))


def _walk(folder: Path, runs: list[str], below: str = "") -> Iterator[str]:
    """Yield the names of all files and links, but those of the lock and of earlier results; note runs below."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except FileNotFoundError:
        return
    for entry in entries:
        name = below + entry.name
        if not entry.is_dir(follow_symlinks=False) or _is_junction(entry):
            if name != LOCK:
                yield name
        elif name not in ASIDE:
            if below or name != "run_logs":
                path = Path(entry.path)
                if is_run(path) or (path / "configuration.yaml").exists():
                    runs.append(name)
            yield from _walk(Path(entry.path), runs, f"{name}/")


def _is_junction(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry is a junction of Windows, which Python 3.11 takes for a folder."""
    tag = getattr(entry.stat(follow_symlinks=False), "st_reparse_tag", None)
    return tag is not None and tag == getattr(stat, "IO_REPARSE_TAG_MOUNT_POINT", 0xA0000003)


def known(name: str, behaviors: Collection[str]) -> bool:
    """Return whether this is a name that runs of mlhooks or ML-Agents give to a file.

    Args:
        name: relative to the run's folder.
        behaviors: file names of the run's behaviors.
    """
    folder, slash, last = name.rpartition("/")
    if last.startswith(".") and last.endswith(".part"):
        return known(f"{folder}{slash}{last[1:-5]}", behaviors)
    name = name.removesuffix(".tmp")
    if name in FILES or _LOG.fullmatch(name):
        return True
    of_behavior = (pattern.fullmatch(name) for pattern in (_CHECKPOINT, _OF_BEHAVIOR, _MODEL, _BEST))
    return any(match is not None and match[1] in behaviors for match in of_behavior)


def _manifest(folder: Path) -> Mapping[str, Any]:
    """Read the manifest; empty where it is missing, damaged, or something else."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        with open_file(folder / MANIFEST) as file:
            manifest = json.loads(file.read(MOST_BYTES))
        return manifest if isinstance(manifest, dict) else {}
    return {}


def _behaviors(folder: Path, manifest: Mapping[str, Any]) -> Iterator[str]:
    """Yield the file names of the behaviors that manifest or configuration name, or else that have a checkpoint."""
    configured = _configuration(folder).get("behaviors")
    named = [*configured] if isinstance(configured, dict) else []
    for name, section in manifest.items():
        if isinstance(section, dict) and section.keys() & {"checkpoints", "final_checkpoint"}:
            named.append(name)
    if named:
        yield from (file_name(str(name)) for name in named)
        return
    for path in folder.glob("*/*-*"):
        if match := _CHECKPOINT.fullmatch(path.relative_to(folder).as_posix()):
            yield match[1]


def _listed(manifest: Mapping[str, Any]) -> Iterator[str]:
    """Yield the files that a manifest names; names that lead out of the folder do no harm, as no file there has one."""
    metadata = manifest.get("metadata")
    yield from _texts(metadata.get("files") if isinstance(metadata, dict) else None)
    entries = manifest.get("mlhooks")
    for entry in entries if isinstance(entries, list) else ():
        if not isinstance(entry, dict):
            continue
        yield from _texts(entry.get("exported"))
        behaviors = entry.get("behaviors")
        records = [entry.get("run"), *(behaviors.values() if isinstance(behaviors, dict) else ())]
        yield from _texts([record.get("path") for record in records if isinstance(record, dict)])


def _texts(value: Any) -> Iterable[str]:
    return [text for text in value if isinstance(text, str)] if isinstance(value, list) else []


def _is_own_configuration(folder: Path, run_id: str) -> bool:
    """Return whether the configuration there was written by a run of this name: every section is in it."""
    found = _configuration(folder)
    checkpoint = found.get("checkpoint_settings")
    return found.keys() >= _RESOLVED and isinstance(checkpoint, dict) and str(checkpoint.get("run_id")) == run_id


def _are_statistics(path: Path) -> bool:
    """Return whether a file begins with a line of statistics, as a run writes them."""
    with contextlib.suppress(OSError, ValueError, RecursionError), open_file(path) as file:
        line = json.loads(file.readline(MOST_BYTES))
        return isinstance(line, dict) and line.keys() >= _STATISTICS
    return False


def _configuration(folder: Path) -> Mapping[str, Any]:
    """Read the configuration; empty where there is none that can be read."""
    path = folder / "configuration.yaml"
    try:
        found = read_yaml(path).value if path.is_file() else None
    except Exception:  # A file of somebody else may hold anything.
        return {}
    return found if isinstance(found, dict) else {}
