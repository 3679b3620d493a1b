"""The message classes of `mlagents_envs` on a protobuf that refuses its generated modules.

The modules under `mlagents_envs.communicator_objects` build their classes in a way that protobuf gave up, but each
holds its serialized file descriptor. After `install()`, importing one of them builds the classes from those bytes
through the descriptor pool of the protobuf that is installed; the modules' own code never runs. The import of
`mlagents_envs.environment` also gets the version class that it expects of `distutils`, which Python 3.12 removed.

Nothing is imported before it is asked for: `install()` itself needs neither protobuf nor grpc.
"""

from __future__ import annotations

import ast
import importlib
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.abc import InspectLoader, Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import TYPE_CHECKING, Any

from mlhooks.errors import MlhooksError

if TYPE_CHECKING:
    from google.protobuf.descriptor import FileDescriptor  # type: ignore[import-untyped]

PACKAGE = "mlagents_envs.communicator_objects"

FIELDS: Mapping[str, Mapping[str, int]] = {
    "UnityMessageProto": {"header": 1, "unity_output": 2, "unity_input": 3},
    "HeaderProto": {"status": 1, "message": 2},
    "UnityOutputProto": {"rl_output": 1, "rl_initialization_output": 2},
    "UnityInputProto": {"rl_input": 1, "rl_initialization_input": 2},
    "UnityRLOutputProto": {"agentInfos": 2, "side_channel": 3},
    "UnityRLInputProto": {"agent_actions": 1, "command": 4, "side_channel": 5},
    "AgentInfoProto": {
        "reward": 7,
        "done": 8,
        "max_step_reached": 9,
        "id": 10,
        "action_mask": 11,
        "observations": 13,
        "group_id": 14,
        "group_reward": 15,
    },
    "ObservationProto": {"shape": 1, "compression_type": 2, "compressed_data": 3, "float_data": 4},
    "AgentActionProto": {"vector_actions_deprecated": 1, "continuous_actions": 6, "discrete_actions": 7},
}
"""The fields that mlhooks reads and writes on the wire itself, and their numbers."""


class SchemaError(MlhooksError):
    """The installed mlagents-envs or protobuf is not one that the Unity protocol can be built from."""


def install() -> None:
    """Make `mlagents_envs` importable as it is; may be called more than once.

    Raises:
        SchemaError: Not here, but from a later import of the modules: the installed release of `mlagents_envs` holds
            no descriptors or lacks fields that mlhooks needs, or protobuf is too old.
    """
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    """Finds the modules of `mlagents_envs` that cannot run as they are."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        loader: type[_Messages] | type[_WithDistutils]
        if fullname.startswith(f"{PACKAGE}.") and fullname.endswith("_pb2"):
            loader = _Messages
        elif fullname == "mlagents_envs.environment":
            loader = _WithDistutils
        else:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, InspectLoader):
            spec.loader = loader(spec.loader)
        return spec


class _Messages(Loader):
    """Fills a module with the messages and enums of its descriptor, as generated code would."""

    def __init__(self, source: InspectLoader) -> None:
        self._source = source

    def exec_module(self, module: ModuleType) -> None:
        serialized = _descriptor_bytes(self._source.get_source(module.__name__) or "")
        if serialized is None:
            raise SchemaError(_misfit(f"{module.__name__} holds no file descriptor in a known form"))
        try:
            contents = _build(serialized, module.__name__)
        except ImportError as error:
            raise SchemaError(f"The Unity protocol needs protobuf 3.20 or later: {error}") from error
        except SchemaError:
            raise
        except Exception as error:  # protobuf's errors share no base below this.
            raise SchemaError(_misfit(f"protobuf refuses the descriptor of {module.__name__}: {error}")) from error
        module.__dict__.update(contents)


def _descriptor_bytes(source: str) -> bytes | None:
    """Return the serialized FileDescriptorProto in the source of a generated module of any generation."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Call):
            continue
        candidates = [keyword.value for keyword in node.keywords if keyword.arg == "serialized_pb"]
        if isinstance(node.func, ast.Attribute) and node.func.attr == "AddSerializedFile":
            candidates += node.args
        for value in candidates:
            # Written for Python 2 and 3 alike, the bytes are an argument: _b('...')
            if isinstance(value, ast.Call) and value.args:
                value = value.args[0]
            if isinstance(value, ast.Constant) and isinstance(value.value, (bytes, str)):
                return value.value if isinstance(value.value, bytes) else value.value.encode("latin-1")
    return None


def _build(serialized: bytes, module_name: str) -> dict[str, Any]:
    """Register a file, after those it depends on, and return what its module should contain.

    The builder is what the modules of current generators call.
    """
    from google.protobuf import descriptor_pb2, descriptor_pool  # type: ignore[import-untyped]
    from google.protobuf.internal import builder  # type: ignore[import-untyped]

    file_proto = descriptor_pb2.FileDescriptorProto.FromString(serialized)
    for dependency in file_proto.dependency:
        importlib.import_module(dependency.removesuffix(".proto").replace("/", ".") + "_pb2")
    pool = descriptor_pool.Default()
    pool.AddSerializedFile(serialized)
    file = pool.FindFileByName(file_proto.name)
    _check(file)
    contents: dict[str, Any] = {"DESCRIPTOR": file}
    builder.BuildMessageAndEnumDescriptors(file, contents)
    builder.BuildTopDescriptorsAndMessages(file, module_name, contents)
    return contents


def _check(file: FileDescriptor) -> None:
    for message_name, message in file.message_types_by_name.items():
        for name, number in FIELDS.get(message_name, {}).items():
            field = message.fields_by_name.get(name)
            if field is None or field.number != number:
                found = "is missing" if field is None else f"has the number {field.number} in place of {number}"
                raise SchemaError(_misfit(f"the field {message_name}.{name} {found}"))


def _misfit(what: str) -> str:
    from importlib.metadata import version

    return (
        f"mlagents-envs {version('mlagents-envs')} with protobuf {version('protobuf')} does not fit this version of "
        f"mlhooks: {what}. Update mlhooks, or install the versions of its constraints.txt."
    )


class _WithDistutils(Loader):
    """Runs a module's own code with `distutils.version` at hand, and leaves no trace of it."""

    def __init__(self, loader: InspectLoader) -> None:
        self._loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        with distutils_version():
            self._loader.exec_module(module)


@contextmanager
def distutils_version() -> Iterator[None]:
    """Stand in for `distutils`, which is gone, deprecated, or someone else's copy, while a module is imported."""
    from packaging.version import Version as LooseVersion  # No other import needs this one.

    names = ("distutils", "distutils.version")
    before = {name: sys.modules.get(name) for name in names}
    package, version = ModuleType(names[0]), ModuleType(names[1])
    package.__dict__.update(__path__=[], version=version)
    version.__dict__.update(StrictVersion=Version, LooseVersion=LooseVersion)
    sys.modules.update({names[0]: package, names[1]: version})
    try:
        yield
    finally:
        for name, module in before.items():
            if module is None:
                del sys.modules[name]
            else:
                sys.modules[name] = module


class Version:
    """A dotted version, as much of it as `mlagents_envs` uses: `version` is a tuple of three or more numbers.

    Raises:
        ValueError: The text is not a version.
    """

    def __init__(self, text: str) -> None:
        numbers = [int(part) for part in text.partition("-")[0].split(".")]
        self.version = (*numbers, *[0] * (3 - len(numbers)))
