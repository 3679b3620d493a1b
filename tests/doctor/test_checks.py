"""Every kind of problem is found, and what is right is not one."""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from textwrap import dedent

import pytest
from packaging.requirements import Requirement

from mlhooks.doctor import Check, Questions, examine, machine, plugins, software, unity
from mlhooks.fast.native import is_outdated, note_build
from mlhooks.unity import ports, schema
from tests.unity.client import free_port


def by_name(checks: Iterable[Check]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_names_and_versions_of_what_is_installed() -> None:
    found = by_name([*software.versions(), *software.requirements()])
    assert found["Python"].text.startswith(".".join(map(str, sys.version_info[:3])))
    assert found["torch"] == Check("torch", "ok", metadata.version("torch"))
    assert {check.state for check in found.values()} == {"ok"}


def test_native_extension_that_is_older_than_its_sources_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, module = tmp_path / "loops.pyx", tmp_path / "loops.so"
    source.write_text("def kinds(): return []")
    module.write_bytes(b"built")
    assert not is_outdated(tmp_path)  # Nobody has noted of what it was built.
    note_build(tmp_path)
    assert not is_outdated(tmp_path)
    source.write_text("def kinds(): return ['any']")
    assert is_outdated(tmp_path)
    monkeypatch.setattr(software, "is_plain", lambda: False)
    monkeypatch.setattr(software, "is_outdated", lambda: is_outdated(tmp_path))
    found = by_name([*software.versions()])["native extension"]
    assert (found.state, found.text) == ("warning", "built from other sources than there are now")
    module.write_bytes(b"from elsewhere")
    assert not is_outdated(tmp_path)


def test_package_that_is_missing_or_too_old_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [Requirement("numpy>=999"), Requirement("mlhooks-no-such-package>=1")]
    monkeypatch.setattr(software, "needed_by", lambda name, extra="": wanted if name == "mlhooks" else [])
    problems = {check.name: check for check in software.requirements() if check.state == "problem"}
    assert problems.keys() == {"numpy", "mlhooks-no-such-package"}
    version = metadata.version("numpy")
    assert problems["numpy"].text == f"numpy {version} is installed, and >=999 is needed"
    assert problems["numpy"].advice == 'Install it: pip install "numpy>=999"'
    assert problems["mlhooks-no-such-package"].text == "mlhooks-no-such-package is not installed"


def test_extra_that_is_missing_is_no_problem_and_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = [Requirement("mlhooks-no-such-package")]
    monkeypatch.setattr(software, "needed_by", lambda name, extra: wanted if extra == "gymnasium" else [])
    found = by_name(software.extras())
    assert found["extra gymnasium"].state == "ok"
    assert found["extra gymnasium"].text == "not there: mlhooks-no-such-package is not installed"
    assert "pip install 'mlhooks[gymnasium]'" in found["extra gymnasium"].advice
    assert found["extra testing"] == Check("extra testing", "ok", "installed")


def test_an_extra_is_what_it_adds(install: object, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = ["base>=1", 'more>=2; extra == "plots"', 'other; extra == "dev"']
    monkeypatch.setattr(metadata, "requires", lambda name: texts)
    assert [requirement.name for requirement in software.needed_by("any")] == ["base"]
    assert [requirement.name for requirement in software.needed_by("any", "plots")] == ["more"]


def test_protobuf_and_the_unity_protocol_are_found() -> None:
    found = by_name(software.protocol())
    assert found["protobuf backend"].text in {"upb", "cpp"}
    assert found["Unity protocol"] == Check("Unity protocol", "ok", "1.5.0; players of 1.0 and later fit")


@pytest.mark.parametrize(
    ("variable", "advice"), [("python", "Unset the environment variable"), ("", "force-reinstall")]
)
def test_slow_protobuf_is_a_warning(monkeypatch: pytest.MonkeyPatch, variable: str, advice: str) -> None:
    monkeypatch.setattr("google.protobuf.internal.api_implementation.Type", lambda: "python")
    monkeypatch.setenv("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", variable)
    check = by_name(software.protocol())["protobuf backend"]
    assert (check.state, advice in check.advice) == ("warning", True)


@pytest.mark.parametrize("error", [schema.SchemaError("protobuf refuses it"), ImportError("protobuf refuses it")])
def test_bridge_that_does_not_install_is_a_problem(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    class Refuses:
        def find_spec(self, name: str, *_: object) -> None:
            if name.startswith("mlagents_envs.communicator_objects."):
                raise error

    for name in [name for name in sys.modules if name.startswith("mlagents_envs.communicator_objects.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Refuses(), *sys.meta_path])
    check = by_name(software.protocol())["Unity protocol"]
    assert check.state == "problem"
    assert "protobuf refuses it" in check.text


def test_worker_process_starts() -> None:
    check = by_name(machine.workers())["workers"]
    assert check.state == "ok", check


def test_worker_that_does_not_start_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise OSError("no space left on /dev/shm")

    monkeypatch.setattr("multiprocessing.context.SpawnContext.Pipe", no_memory)
    check = by_name(machine.workers())["workers"]
    assert check.state == "problem"
    assert "OSError: no space left on /dev/shm" in check.text
    assert "without --num-envs" in check.advice


def test_little_shared_memory_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(machine, "start_worker", lambda timeout: None)
    monkeypatch.setattr(machine, "SHARED", tmp_path)
    monkeypatch.setattr(machine, "LEAST_SHARED", 2**80)
    check = by_name(machine.workers())["shared memory"]
    assert (check.state, "--shm-size" in check.advice) == ("warning", True)


def test_device_is_the_one_that_torch_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda index: "Fast Card")
    (check,) = machine.device()
    assert (check.state, check.text.endswith(": Fast Card")) == ("ok", True)


@pytest.mark.parametrize(("driver", "state"), [(None, "ok"), ("/usr/bin/nvidia-smi", "warning")])
def test_card_that_torch_cannot_use_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, driver: str | None, state: str
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("shutil.which", lambda name: driver)
    (check,) = machine.device()
    assert (check.state, check.text.startswith("CPU")) == (state, True)


def test_torch_that_does_not_import_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    (check,) = machine.device()
    assert check.state == "problem"
    assert "torch does not import" in check.text


@pytest.mark.parametrize(
    ("questions", "editor", "state"),
    [
        (Questions(), True, "warning"),  # The Editor does not need it.
        (Questions(num_envs=3), True, "problem"),
        (Questions(env="Game"), False, "problem"),
        (Questions(base_port=0), True, "problem"),
    ],
)
def test_port_that_is_taken_names_its_holder(
    monkeypatch: pytest.MonkeyPatch, questions: Questions, editor: bool, state: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(unity, "BASE_PORT", port)
        if questions.base_port is not None:
            questions = Questions(base_port=port)
        check = by_name(unity.ports(questions, editor=editor))[f"port {port}"]
    assert check.state == state
    assert check.text.startswith(f"Port {port} is taken by ")
    assert check.advice == "End that process, or choose other ports with --base-port."


def test_port_of_the_editor(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setattr(ports, "EDITOR_PORT", port)
        check = by_name(unity.ports(Questions(base_port=free_port()), editor=True))[f"port {port} (Editor)"]
    assert (check.state, check.advice) == ("problem", "End that process: the Unity Editor connects to this port alone.")


def test_every_worker_has_a_port() -> None:
    first = free_port()
    found = list(unity.ports(Questions(base_port=first, num_envs=3), editor=False))
    assert [check.name for check in found] == [f"port {first + index}" for index in range(3)]


@pytest.mark.parametrize("port", [0, 65536])
def test_port_that_does_not_exist_is_a_problem(port: int) -> None:
    (check,) = unity.ports(Questions(base_port=port), editor=False)
    assert (check.state, check.text) == ("problem", "There is no such port")


@pytest.mark.parametrize(
    ("display", "state"),
    [
        ({}, "warning"),
        ({"DISPLAY": ":0"}, "ok"),
        ({"WAYLAND_DISPLAY": "wayland-0"}, "ok"),
        ({"DISPLAY": ""}, "warning"),
    ],
)
def test_display(monkeypatch: pytest.MonkeyPatch, display: dict[str, str], state: str) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    for name in unity.DISPLAYS:
        monkeypatch.delenv(name, raising=False)
    for name, value in display.items():
        monkeypatch.setenv(name, value)
    (check,) = unity.display()
    assert check.state == state
    assert ("--no-graphics" in check.advice) == (state == "warning")


def test_no_display_is_asked_for_where_there_always_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert list(unity.display()) == []


def test_player_that_is_not_there_is_a_problem() -> None:
    (check,) = unity.build("Build/Game")
    assert check.state == "problem"
    assert check.text == "There is no Unity player for this platform at Build/Game: there is no folder Build"
    assert check.advice.startswith("Correct the path; ")


@pytest.mark.skipif(sys.platform == "win32", reason="players here are shell scripts")
def test_player_that_can_run_is_none(tmp_path: Path) -> None:
    path = tmp_path / "Game"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)
    assert list(unity.build(str(path))) == [Check("player", "ok", f"{path}, a script")]
    path.chmod(0o644)
    (check,) = unity.build(str(path))
    assert (check.state, check.advice) == ("problem", f"Allow it with: chmod +x {path}")
    (check,) = unity.build(str(tmp_path))
    assert check.text.endswith(": that is a folder without players")
    path.chmod(0o755)
    (check,) = unity.build(str(tmp_path))
    assert (check.state, check.advice) == ("problem", f"Choose a player that is there: {path}")


@pytest.mark.skipif(sys.platform != "linux", reason="a program of Linux")
def test_player_without_its_data_and_of_another_processor_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "Game.x86_64"
    path.write_bytes(b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00\x3e\x00" + bytes(64))
    path.chmod(0o755)
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    found = by_name(unity.build(str(path)))
    assert {name: check.state for name, check in found.items()} == {
        "player": "ok",
        "player's processor": "warning",
        "player's data": "warning",
    }
    assert "built for x86_64" in found["player's processor"].text
    assert str(tmp_path / "Game_Data") in found["player's data"].text


def test_other_environments_are_asked_for_their_names() -> None:
    (right,) = unity.checks(Questions(env="sim:3DBall"))
    (wrong,) = unity.checks(Questions(env="sim:3DBal"))
    (unknown,) = unity.checks(Questions(env="simm:3DBall"))
    assert right == Check("environment", "ok", "sim:3DBall")
    assert (wrong.state, 'did you mean "3DBall"' in wrong.text) == ("problem", True)
    assert (unknown.state, "there is no environment kind 'simm'" in unknown.text) == ("problem", True)


def test_kinds_of_environments_that_are_asked_have_their_plugins_settings(tmp_path: Path) -> None:
    (tmp_path / "maze.py").write_text(
        dedent("""
        from mlhooks.plugin import EnvironmentKind, SettingsModel, UsageError, hookimpl

        class Settings(SettingsModel):
            size: int = 3

        def check(name, options):
            raise UsageError(f"no maze of size {options.plugins.settings['maze'].size}")

        @hookimpl
        def get_plugin_settings():
            return {"maze": Settings}

        @hookimpl
        def get_env_types():
            return {"maze": EnvironmentKind(print, check)}
        """)
    )
    (found,) = unity.checks(Questions(env="maze:x", plugins_dir=tmp_path))
    assert found == Check("environment", "problem", "no maze of size 3")


def test_plugins_that_load_are_fine() -> None:
    (check,) = plugins.checks(Questions())
    assert check.state == "ok"


def test_plugin_that_does_not_load_is_a_problem_and_the_others_are_still_tried(tmp_path: Path) -> None:
    (tmp_path / "broken.py").write_text("import no_such_module\n")
    (tmp_path / "misspelt.py").write_text("from mlhooks import hookimpl\n@hookimpl\ndef write_statz(): ...\n")
    found = by_name(plugins.checks(Questions(plugins_dir=tmp_path)))
    assert found.keys() == {"plugin broken", "plugin misspelt"}
    assert {check.state for check in found.values()} == {"problem"}
    assert "no_such_module" in found["plugin broken"].text
    assert "-p no:broken" in found["plugin broken"].text
    assert "write_stats" in found["plugin misspelt"].text
    blocked = Questions(plugins_dir=tmp_path, plugin_names=("no:broken", "no:misspelt"))
    assert [check.state for check in plugins.checks(blocked)] == ["ok"]


def test_plugins_that_claim_one_name_are_a_problem(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from mlhooks import hookimpl\n@hookimpl\ndef get_env_types():\n    return {'sim': print}\n"
    )
    (check,) = plugins.checks(Questions(plugins_dir=tmp_path))
    assert check.state == "problem"
    assert "Two plugins claim 'sim'" in check.text


def test_folder_of_plugins_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    (check,) = plugins.checks(Questions(plugins_dir=tmp_path / "none"))
    assert check.state == "problem"


def test_writer_that_needs_mlagents_is_a_warning(install) -> None:
    install(
        "theirs", {"theirs": "theirs:make"}, group="mlagents.stats_writer", theirs="import mlagents.trainers.buffer\n"
    )
    found = by_name(plugins.checks(Questions()))
    assert found["plugin theirs"].state == "warning"
    assert found["plugin theirs"].advice.startswith("Block it by -p no:theirs, or: pip install")


def test_check_that_stumbles_is_a_problem_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumbles() -> None:
        raise ValueError("not a version")

    monkeypatch.setattr(software, "versions", stumbles)
    monkeypatch.setattr(machine, "workers", list)
    found = by_name(examine(Questions(env="sim:3DBall")))
    assert found["doctor"].text == "Stumbled over versions: ValueError: not a version"
    assert found["doctor"].state == "problem"
    assert {"torch", "Unity protocol", "environment", "plugins"} <= found.keys()
