import platform
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mlhooks.unity.builds import find_player
from mlhooks.unity.errors import PlayerNotFound
from mlhooks.unity.programs import foreign_processor, lacks_data, platform_of

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="players here are shell scripts")

ELF = b"\x7fELF\x02\x01\x01" + bytes(9) + b"\x02\x00%c\x00"
PROGRAMS = {"linux": ELF % 0x3E, "win32": b"MZ\x90\x00", "darwin": b"\xcf\xfa\xed\xfe\x07\x00"}
FOREIGN = "linux" if sys.platform == "win32" else "win32"
NOTHING = "Correct the path; what is no Unity player is named as in --env sim:3DBall or --env corridor.py:Corridor."
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


@pytest.mark.skipif(sys.platform != "linux", reason="endings differ, and elsewhere case does not count")
@pytest.mark.parametrize(
    ("path", "what", "advice"),
    [
        ("Build/gane.x86_64", "", "Did you mean Build/Game.x86_64?"),
        ("Build/game", "", "Did you mean Build/Game.x86_64?"),
        ("Build/GAME.exe", "", "Did you mean Build/Game.x86_64?"),
        ("build/game", ": there is no folder build", "Did you mean Build/Game.x86_64?"),
        ("Buidl", "", "Did you mean Build?"),
        ("Build/Other", "", "Choose a player that is there: Build/Game.x86_64"),
        ("Build", ": that is a folder", "Choose a player that is there: Build/Game.x86_64"),
        ("Build/Game_Data", ": that is a folder without players", "Did you mean Build/Game.x86_64?"),
        ("elsewhere/far/Game", ": there is no folder elsewhere", NOTHING),
        ("3DBall", "", NOTHING),
    ],
)
def test_wrong_path_is_refused_with_what_may_be_meant(
    script: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, what: str, advice: str
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "Build" / "Game_Data").mkdir(parents=True)
    for name in ("Build/Game.x86_64", "Build/UnityPlayer.so"):
        script("", name)
    (tmp_path / "Build" / "notes.txt").touch()
    with pytest.raises(PlayerNotFound) as caught:
        find_player(path)
    assert (caught.value.what, caught.value.advice) == (
        f"There is no Unity player for this platform at {path}{what}",
        advice,
    )
    assert str(caught.value) == f"{caught.value.what}. {advice}"
    assert caught.value.exit_code == 2


def test_folder_names_every_file_in_it_that_may_be_a_player(script: Callable[..., Path], tmp_path: Path) -> None:
    players = [script("", name) for name in ("Alone", "Game.x86_64")]
    script("", "libpart.so")
    script("", "notes", mode=0o644)
    program(tmp_path, PROGRAMS[FOREIGN], "Foreign", mode=0o755)
    with pytest.raises(PlayerNotFound) as caught:
        find_player(str(tmp_path))
    assert caught.value.advice == f"Choose a player that is there: {players[0]} or {players[1]}"


@pytest.mark.parametrize("path", ["", "Game", "gam.x86_64", "Other"])
def test_players_of_another_platform_are_named_as_such_where_there_are_no_others(tmp_path: Path, path: str) -> None:
    player = program(tmp_path, PROGRAMS[FOREIGN], f"Game.{'exe' if FOREIGN == 'win32' else 'x86_64'}", mode=0o644)
    with pytest.raises(PlayerNotFound) as caught:
        find_player(str(tmp_path / path))
    assert caught.value.advice.startswith(f"The player {player} was built for {NAMES[FOREIGN]}, and this is ")


@pytest.mark.parametrize("mode", [0o644, 0o755])
def test_configuration_in_place_of_a_player_is_told(script: Callable[..., Path], mode: int) -> None:
    path = script("", "3DBall.yaml", mode)
    with pytest.raises(PlayerNotFound, match=rf"is a configuration file.* mlhooks run {path} --env PLAYER"):
        find_player(str(path))


def test_file_that_is_no_program_is_not_to_be_made_executable(tmp_path: Path, script: Callable[..., Path]) -> None:
    (tmp_path / "notes.txt").touch()
    path = script("")
    with pytest.raises(PlayerNotFound, match=rf"notes.txt is no program. Choose a player that is there: {path}"):
        find_player(str(tmp_path / "notes.txt"))


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
    path = program(tmp_path, PROGRAMS[built_for], mode=0o644)  # Its permission is not what is wrong.
    said = rf"was built for {NAMES[built_for]}, and this is {NAMES[sys.platform]}\. Build it again"
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


@pytest.mark.parametrize(
    ("number", "machine", "foreign"),
    [
        (0x3E, "x86_64", None),
        (0x3E, "AMD64", None),
        (0x3E, "aarch64", "x86_64"),
        (0xB7, "arm64", None),
        (0xB7, "x86_64", "arm64"),
        (0x03, "x86_64", None),  # This processor runs both.
        (0x77, "x86_64", None),  # It is unknown.
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
    assert lacks_data(script("", "Standin")) is None  # A script is no build.
