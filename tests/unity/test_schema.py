import subprocess
import sys
from importlib.abc import InspectLoader

import pytest

from mlhooks.unity import schema

schema.install()


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_message_classes_round_trip_with_nested_messages_maps_and_enums() -> None:
    from mlagents_envs.communicator_objects.command_pb2 import QUIT, RESET, STEP, CommandProto
    from mlagents_envs.communicator_objects.unity_message_pb2 import UnityMessageProto

    message = UnityMessageProto()
    message.header.status = 200
    message.unity_input.rl_input.command = RESET
    message.unity_input.rl_input.agent_actions["Ball?team=0"].value.add().continuous_actions.extend([0.5, -1.0])
    copy = UnityMessageProto.FromString(message.SerializeToString())
    assert copy == message
    assert list(copy.unity_input.rl_input.agent_actions["Ball?team=0"].value[0].continuous_actions) == [0.5, -1.0]
    assert (STEP, RESET, QUIT) == (0, 1, 2)
    assert CommandProto.Name(1) == "RESET"


def test_modules_are_the_same_whichever_way_they_are_imported() -> None:
    from mlagents_envs.communicator_objects import header_pb2, unity_message_pb2

    field = unity_message_pb2.UnityMessageProto.DESCRIPTOR.fields_by_name["header"]
    assert field.message_type is header_pb2.HeaderProto.DESCRIPTOR
    assert type(unity_message_pb2.UnityMessageProto().header) is header_pb2.HeaderProto


def test_enum_values_of_a_file_are_names_of_its_module() -> None:
    from mlagents_envs.communicator_objects import observation_pb2

    assert (observation_pb2.NONE, observation_pb2.PNG) == (0, 1)
    assert (observation_pb2.DEFAULT, observation_pb2.GOAL_SIGNAL) == (0, 1)


def test_unity_environment_imports_without_distutils_left_behind_and_without_warnings() -> None:
    code = (
        "import sys, warnings; warnings.simplefilter('error')\n"
        "from mlhooks.unity import schema; schema.install()\n"
        "import mlagents_envs.environment as e, mlagents_envs.rpc_communicator\n"
        "print(e.StrictVersion('1.5.0').version, 'distutils' in sys.modules)"
    )
    assert run(code) == "(1, 5, 0) False"


def test_installing_twice_adds_one_finder() -> None:
    schema.install()
    assert sum(type(finder).__module__ == schema.__name__ for finder in sys.meta_path) == 1


@pytest.mark.parametrize("module", ["mlhooks", "mlhooks.cli", "mlhooks.unity.schema", "builtin_plugins.sim_env"])
def test_importing_mlhooks_needs_neither_grpc_nor_protobuf(module: str) -> None:
    loaded = run(f"import sys, {module}; print([m for m in sys.modules if m in ('grpc', 'google.protobuf')])")
    assert loaded == "[]"


class Source(InspectLoader):
    def __init__(self, source: str) -> None:
        self.source = source

    def get_source(self, fullname: str) -> str:
        return self.source


def load(source: str) -> dict[str, object]:
    module = type(sys)("made_up_pb2")
    schema._Messages(Source(source)).exec_module(module)
    return vars(module)


def serialized(name: str, message: str, field: str, number: int) -> bytes:
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto

    proto = FileDescriptorProto(name=name, package=name.removesuffix(".proto"), syntax="proto3")
    kind, label = FieldDescriptorProto.TYPE_INT32, FieldDescriptorProto.LABEL_OPTIONAL
    proto.message_type.add(name=message).field.add(name=field, number=number, type=kind, label=label)
    return proto.SerializeToString()


def test_modules_of_current_generators_are_understood() -> None:
    data = serialized("current.proto", "Thing", "size", 3)
    contents = load(f"DESCRIPTOR = _descriptor_pool.Default().AddSerializedFile({data!r})")
    assert contents["Thing"](size=7).SerializeToString() == b"\x18\x07"


def test_module_without_a_descriptor_is_refused_with_versions() -> None:
    with pytest.raises(schema.SchemaError, match=r"mlagents-envs 0\.\d+.*protobuf \d+.*made_up_pb2 holds no file"):
        load("import descriptors_from_elsewhere")


def test_damaged_descriptor_is_refused() -> None:
    with pytest.raises(schema.SchemaError, match="protobuf refuses the descriptor"):
        load("AddSerializedFile = x.AddSerializedFile(b'no descriptor at all')")


@pytest.mark.parametrize(
    ("field", "number", "complaint"),
    [("status", 9, "HeaderProto.status has the number 9 in place of 1"), ("state", 1, "HeaderProto.status is missing")],
)
def test_schema_of_another_shape_is_refused_by_field(field: str, number: int, complaint: str) -> None:
    data = serialized(f"other_{field}.proto", "HeaderProto", field, number)
    with pytest.raises(schema.SchemaError, match=complaint):
        load(f"x.AddSerializedFile({data!r})")


@pytest.mark.parametrize(
    ("text", "version"), [("1.5.0", (1, 5, 0)), ("1.5", (1, 5, 0)), ("2.0.0-preview.1", (2, 0, 0))]
)
def test_versions_are_numbers(text: str, version: tuple[int, ...]) -> None:
    assert schema.Version(text).version == version


def test_text_that_is_no_version_is_refused() -> None:
    with pytest.raises(ValueError, match="unknown"):
        schema.Version("unknown")
