import platform
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlhooks.unity.builds import find_player, foreign_processor, lacks_data, platform_of
from mlhooks.unity.errors import PlayerNotFound

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="players here are shell scripts")

ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00%c\x00"
PROGRAMS = {"linux": ELF % 0x3E, "win32": b"MZ\x90\x00", "darwin": b"\xcf\xfa\xed\xfe\x07\x00"}
NAMES = {"linux": "Linux", "win32": "Windows", "darwin": "macOS"}


def program(folder: Path, head: bytes, name: str = "Game", mode: int = 0o755) -> Path:
    path = folder / name
    path.write_bytes(head + bytes(64))
    path.chmod(mode)
    return path


def test_player_is_found_with_and_without_its_ending(script: Callable[..., Path], tmp_path: Path) -> None:
    path = script("")
    assert Path(find_player(str(path))) == path
    if sys.platform == "linux":
        assert Path(find_player(str(tmp_path / "Game"))) == path


@pytest.mark.parametrize(
    ("path", "hint"), [("gane.x86_64", r"Did you mean .*Game\.x86_64\?"), ("Build/Game", "There is no folder .*Build")]
)
def test_player_that_is_not_there_is_refused_with_a_hint(
    script: Callable[..., Path], tmp_path: Path, path: str, hint: str
) -> None:
    script("")
    with pytest.raises(PlayerNotFound, match=rf"no Unity player for this platform at .*{path}\. {hint}") as caught:
        find_player(str(tmp_path / path))
    assert caught.value.exit_code == 2


def test_player_without_permission_is_refused_with_the_command_to_run(script: Callable[..., Path]) -> None:
    with pytest.raises(PlayerNotFound, match=r"not executable. Allow it with: chmod \+x .*Game.x86_64"):
        find_player(str(script("", mode=0o644)))


def test_player_of_the_current_folder_is_found_by_its_bare_name(
    script: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = script("", "Game")
    monkeypatch.chdir(tmp_path)
    assert find_player("Game") == str(path)


@pytest.mark.parametrize("built_for", sorted(PROGRAMS.keys() - {sys.platform}))
def test_player_of_another_platform_is_refused_by_the_platforms_names(tmp_path: Path, built_for: str) -> None:
    path = program(tmp_path, PROGRAMS[built_for], mode=0o644)  # whose permission is not what is wrong
    said = rf"was built for {NAMES[built_for]}, and this is {NAMES[sys.platform]}\. Build it anew"
    with pytest.raises(PlayerNotFound, match=said):
        find_player(str(path))


@pytest.mark.skipif(sys.platform == "darwin", reason="where it is a player")
def test_bundle_of_macos_is_refused_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "Game.app" / "Contents" / "MacOS").mkdir(parents=True)
    with pytest.raises(PlayerNotFound, match=r"Game\.app was built for macOS"):
        find_player(str(tmp_path / "Game.app"))


def test_player_of_this_platform_is_found(tmp_path: Path) -> None:
    path = program(tmp_path, PROGRAMS[sys.platform])
    assert (find_player(str(path)), platform_of(path)) == (str(path), sys.platform)


@pytest.mark.skipif(sys.platform != "linux", reason="endings differ")
def test_folder_of_a_player_is_refused_with_the_player_in_it(script: Callable[..., Path], tmp_path: Path) -> None:
    path = script("")
    with pytest.raises(PlayerNotFound, match=rf"That is a folder; in it there is {path}\."):
        find_player(str(tmp_path))


@pytest.mark.parametrize(
    ("number", "machine", "foreign"),
    [
        (0x3E, "x86_64", None),
        (0x3E, "AMD64", None),
        (0x3E, "aarch64", "x86_64"),
        (0xB7, "arm64", None),
        (0xB7, "x86_64", "arm64"),
        (0x03, "x86_64", None),  # a processor that runs both
        (0x77, "x86_64", None),  # unknown
    ],
)
def test_processor_of_a_linux_program(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, machine: str, foreign: str | None
) -> None:
    monkeypatch.setattr(platform, "machine", lambda: machine)
    assert foreign_processor(program(tmp_path, ELF % number)) == foreign


def test_player_without_its_data_is_told(tmp_path: Path, script: Callable[..., Path]) -> None:
    path = program(tmp_path, PROGRAMS["linux"], "Ball.x86_64")
    assert lacks_data(path) == tmp_path / "Ball_Data"
    (tmp_path / "Ball_Data").mkdir()
    assert lacks_data(path) is None
    assert lacks_data(script("", "Standin")) is None  # a script is no build
