"""All changes to the package `mlagents` 1.1.0 with which it runs on current Python, numpy, torch and cattrs.

Nothing is changed on disk. After `install()`, a module that is listed in `PATCHES` is imported with what it lacks at
hand, and a few of its names are replaced afterwards, whoever imports it: a package that brings a trainer, one that
brings a statistics writer, or mlhooks. The standard library's import system does the rest, and a program that never
imports `mlagents` never gets here.
"""

from __future__ import annotations

import functools
import importlib.metadata
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

from mlhooks.unity import schema

PACKAGE = "mlagents"
logger = logging.getLogger("mlhooks")


@dataclass(frozen=True)
class Patch:
    """A patch that one module needs.

    Attributes:
        reason: why, with the line of version 1.1.0.
        around: contexts in which the module is imported.
        after: what changes it once it is imported.
    """

    reason: str
    around: tuple[Callable[[], AbstractContextManager[None]], ...] = ()
    after: Callable[[ModuleType], None] | None = None


def install() -> None:
    """Let `mlagents` and `mlagents_envs` be importable as they are installed; may be called more than once."""
    schema.install()
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


@contextmanager
def _pkg_resources() -> Iterator[None]:
    """Stand in for the module that setuptools 82 removed."""

    class DistributionNotFound(Exception):
        pass

    def get_distribution(name: str) -> importlib.metadata.Distribution:
        try:
            return importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError as error:
            raise DistributionNotFound(name) from error

    stand_in = ModuleType("pkg_resources")
    stand_in.__dict__.update(DistributionNotFound=DistributionNotFound, get_distribution=get_distribution)
    stand_in.__dict__["iter_entry_points"] = lambda group, name=None: [
        point for point in importlib.metadata.entry_points(group=group) if name in (None, point.name)
    ]
    before = sys.modules.get("pkg_resources")
    sys.modules["pkg_resources"] = stand_in
    try:
        yield
    finally:
        if before is None:
            del sys.modules["pkg_resources"]
        else:
            sys.modules["pkg_resources"] = before


@contextmanager
def old_modules() -> Iterator[None]:
    """Stand in for modules of ML-Agents' time that are not there, while a package that was made for it is imported."""
    with ExitStack() as stack:
        for name, stand_in in (("pkg_resources", _pkg_resources), ("distutils", schema.distutils_version)):
            if name not in sys.modules and PathFinder.find_spec(name) is None:
                stack.enter_context(stand_in())
        yield


@contextmanager
def _torch_as_it_is() -> Iterator[None]:
    """Bring back what the process had of torch: threads, default device and type, and the variable of OpenMP."""
    import torch

    threads, dtype, variable = torch.get_num_threads(), torch.get_default_dtype(), os.environ.get("KMP_BLOCKTIME")
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_default_device(None)
        torch.set_default_dtype(dtype)
        if variable is None:
            os.environ.pop("KMP_BLOCKTIME", None)
        else:
            os.environ["KMP_BLOCKTIME"] = variable


@contextmanager
def _numpy_float() -> Iterator[None]:
    """Give numpy the alias that version 1.24 removed."""
    import numpy as np

    if "float" in vars(np):
        yield
        return
    vars(np)["float"] = float
    try:
        yield
    finally:
        del vars(np)["float"]


def _keep_fields_of_subclasses(_: ModuleType) -> None:
    """Unstructure an object by its own class, in whatever field it is.

    cattrs from 1.7 on goes by the type of the field, `HyperparamSettings`, and would leave out what subclasses add.
    """
    import attr
    import cattr

    converter = cattr.global_converter

    def by_class(value: Any) -> dict[str, Any]:
        return {field.name: converter.unstructure(getattr(value, field.name)) for field in attr.fields(type(value))}

    for module, name in (("settings", "HyperparamSettings"), ("settings", "RewardSignalSettings")):
        base = getattr(sys.modules[f"{PACKAGE}.trainers.{module}"], name)
        converter.register_unstructure_hook_func(functools.partial(_is_class_below, base), by_class)


def _is_class_below(base: type, kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, base)


def _export_by_tracing(module: ModuleType) -> None:
    """Export by the tracer, which knows opset 9; the exporter that torch took in its place begins at opset 18."""

    class Onnx:
        def __getattr__(self, name: str) -> Any:
            return getattr(module_torch.onnx, name)

        def export(self, *args: Any, **kwargs: Any) -> Any:
            import warnings

            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # Tracing warns that it is deprecated and follows one branch only.
                return module_torch.onnx.export(*args, **{"dynamo": False, **kwargs})

    class Torch:
        onnx = Onnx()

        def __getattr__(self, name: str) -> Any:
            return getattr(module_torch, name)

    module_torch: Any = module.torch
    module.torch = Torch()  # type: ignore[attr-defined]


def _scalars_of_one_element(module: ModuleType) -> None:
    """Let `lambda_return` bootstrap from an array of one value, which numpy 2.4 refuses to put into one place."""
    original: Callable[..., Any] = module.lambda_return

    @functools.wraps(original)
    def lambda_return(r: Any, value_estimates: Any, *args: Any, **kwargs: Any) -> Any:
        import numpy as np

        if "value_next" in kwargs:
            kwargs["value_next"] = float(np.asarray(kwargs["value_next"]).reshape(-1)[0])
        return original(r, value_estimates, *args, **kwargs)

    module.lambda_return = lambda_return  # type: ignore[attr-defined]


PATCHES: Mapping[str, Patch] = {
    "mlagents.torch_utils.torch": Patch(
        "It asks pkg_resources (line 4), which setuptools 82 no longer has, for the version of torch, and compares it "
        "by distutils.version (line 3), which Python 3.12 removed; then it sets torch's threads and default device for "
        "the whole process (lines 37 and 63).",
        (_pkg_resources, schema.distutils_version, _torch_as_it_is),
    ),
    "mlagents.trainers.buffer": Patch("A type is given as np.float (line 210).", (_numpy_float,)),
    "mlagents.trainers.settings": Patch(
        "It dumps settings by cattrs 1.5, which looked at each object's own class.", after=_keep_fields_of_subclasses
    ),
    "mlagents.trainers.torch_entities.model_serialization": Patch(
        "It calls torch.onnx.export (line 164) with opset 9 and without dynamo, whose default changed in torch 2.9.",
        after=_export_by_tracing,
    ),
    "mlagents.trainers.trainer.trainer_utils": Patch(
        "It puts an array of one value into one place of another (line 38).", after=_scalars_of_one_element
    ),
}
"""The modules that are patched. Besides, mlhooks reads the entry points itself, because `register_stats_writer_plugins`
and `register_trainer_plugins` index them as no Python from 3.12 on lets them be indexed; and what the package logs goes
to mlhooks' log, not to standard output."""


class _Finder(MetaPathFinder):
    """Finds the modules of `mlagents`, to import them with their patches."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith(f"{PACKAGE}."):
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            spec.loader = _Patched(spec.loader)
        return spec


class _Patched(Loader):
    """Runs a module's own code with its patch, if it has one."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loader, name)  # Tracebacks, for example, ask for `get_source`.

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        patch = PATCHES.get(module.__name__, Patch(""))
        with ExitStack() as stack:
            for context in patch.around:
                stack.enter_context(context())
            self._loader.exec_module(module)
        if patch.after is not None:
            patch.after(module)
        _log_to_mlhooks(module.__name__)


def _log_to_mlhooks(name: str) -> None:
    """Let a module's logger, which prints to standard output, hand its records to mlhooks' log."""
    for handler in list(logging.getLogger(name).handlers):
        logging.getLogger(name).removeHandler(handler)
    root = logging.getLogger(PACKAGE)
    if not any(isinstance(handler, _ToMlhooks) for handler in root.handlers):
        root.addHandler(_ToMlhooks())
    root.propagate = False


class _ToMlhooks(logging.Handler):
    """Passes warnings and errors on; what is only told, such as the name of a file, is for debugging."""

    def emit(self, record: logging.LogRecord) -> None:
        level = record.levelno if record.levelno >= logging.WARNING else logging.DEBUG
        logger.log(level, "%s: %s", PACKAGE, " ".join(record.getMessage().split()))
