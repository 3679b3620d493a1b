from __future__ import annotations

import re
from pathlib import Path

import pytest

from mlhooks import example_configs
from mlhooks.cli import main
from mlhooks.errors import UsageError
from mlhooks.example_configs import example_names, find_config


@pytest.fixture
def examples(tmp_path, monkeypatch):
    """A package folder with two examples beside it, and an empty current folder."""
    folder = tmp_path / "checkout" / "examples" / "configs"
    folder.mkdir(parents=True)
    for name in ("walker_ppo", "ball_ppo"):
        (folder / f"{name}.yaml").touch()
    monkeypatch.setattr(example_configs, "__file__", str(tmp_path / "checkout" / "mlhooks" / "example_configs.py"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return folder


@pytest.mark.parametrize("name", ["ball_ppo", "ball_ppo.yaml", Path("ball_ppo.yaml")])
def test_example_is_found_by_name_from_any_folder(examples, name):
    assert find_config(name) == examples / "ball_ppo.yaml"


def test_file_of_the_current_folder_outranks_the_example(examples):
    Path("ball_ppo.yaml").touch()
    assert find_config("ball_ppo.yaml") == Path("ball_ppo.yaml")


def test_folder_is_no_configuration(examples):
    Path("ball_ppo").mkdir()
    assert find_config("ball_ppo") == examples / "ball_ppo.yaml"


def test_examples_inside_the_package_outrank_those_beside_it(examples):
    packaged = examples.parents[1] / "mlhooks" / "configs"
    packaged.mkdir(parents=True)
    (packaged / "only_ppo.yaml").touch()
    assert example_names() == ["only_ppo"]
    assert find_config("only_ppo") == packaged / "only_ppo.yaml"


def test_path_of_a_missing_file_is_not_taken_for_an_example(examples):
    with pytest.raises(UsageError, match=r"no configuration file 'old/ball_ppo\.yaml'"):
        find_config("old/ball_ppo.yaml")


def test_unknown_name_lists_the_examples_and_the_nearest(examples, capsys):
    assert main(["run", "walkr_ppo"]) == 2
    message = capsys.readouterr().err
    assert "'walkr_ppo'" in message
    assert "did you mean walker_ppo?" in message
    assert "ball_ppo, walker_ppo" in message


def test_file_of_a_similar_name_in_that_folder_is_named(examples):
    Path("old").mkdir()
    Path("old/3DBall.yaml").touch()
    with pytest.raises(
        UsageError, match=r"no configuration file 'old/3dbal\.yaml'.*; did you mean 3DBall\.yaml\? The ex"
    ):
        find_config("old/3dbal.yaml")


def test_folder_names_the_files_in_it(examples):
    Path("old").mkdir()
    with pytest.raises(UsageError, match="is a folder, and a configuration is a file; there is none in it"):
        find_config("old")
    for name in ("b.yml", "a.yaml", "notes.txt"):
        Path("old", name).touch()
    with pytest.raises(UsageError, match=r"; the files in it are a\.yaml, b\.yml\."):
        find_config("old")


def test_folder_and_weights_of_a_run_are_told_what_uses_them(examples):
    Path("results/first/run_logs").mkdir(parents=True)
    Path("results/first/configuration.yaml").touch()
    Path("results/first/Ball.policy.pt").touch()
    again = Path("results/first/configuration.yaml")
    with pytest.raises(UsageError, match=r"is the folder of a run.*--resume.*" + re.escape(str(again))):
        find_config("results/first")
    with pytest.raises(UsageError, match=r"is what a run learned.*--inference.*mlhooks\.load"):
        find_config("results/first/Ball.policy.pt")


@pytest.mark.parametrize("head", [b"\x7fELF", b"#!/bin/sh\n"])
def test_player_in_place_of_a_configuration_is_told_where_it_belongs(examples, head):
    Path("Game.x86_64").write_bytes(head)
    with pytest.raises(UsageError, match=r"is a program, not a configuration.*--env Game\.x86_64"):
        find_config("Game.x86_64")
