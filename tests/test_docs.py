"""Every snippet of docs/plugins.md, executed in its order in one folder; and the names in its table."""

from __future__ import annotations

import csv
import inspect
import os
import pkgutil
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from mlhooks import hookspecs
from mlhooks.cli import main

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
BLOCK = re.compile(r"(?:<!-- (?P<note>.*?) -->\n)?```(?P<language>\w+)\n(?P<text>.*?)```\n", re.DOTALL)
REQUIRED = re.findall(
    r"\S+",
    """
    OnPolicyTrainer OffPolicyTrainer TorchOptimizer.update _process_trajectory _update_policy create_policy
    create_optimizer get_type_and_setting SimpleActor SharedActorCritic StatsWriter StatsSummary RunOptions
    mlagents.stats_writer mlagents.trainer_type
    """,
)


QUIET = ["no:tensorboard", "no:curve", "no:onnx_export"]
"""Writers and exporters that take longer than these runs, and of which no section tells."""
A_TENTH = [
    "behaviors.3DBall.summary_freq=1200",
    "behaviors.3DBall.hyperparameters.batch_size=100",
    "behaviors.3DBall.hyperparameters.buffer_size=1200",
]
"""Settings of `3dball_ppo` with which a tenth of the steps is enough for updates and as many summaries."""


class Block(NamedTuple):
    language: str
    text: str
    note: str


def blocks(page: str) -> Iterator[Block]:
    """Code blocks, and the comment in the line above each."""
    for match in BLOCK.finditer(page):
        yield Block(match["language"], match["text"], match["note"] or "")


def section(title: str) -> list[Block]:
    """Return the code blocks of one section, subsections included."""
    (text,) = re.findall(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    return list(blocks(text))


class Reader:
    """Does what a reader of a section does."""

    def __init__(self, folder: Path, install, monkeypatch) -> None:
        self.folder, self.install, self.monkeypatch = folder, install, monkeypatch
        self.written: set[str] = set()
        self.commands: list[str] = []

    def follow(self, block: Block) -> None:
        kind, _, name = block.note.partition(": ")
        if kind == "file":
            path = self.folder / name
            before = path.read_text(encoding="utf-8") + "\n\n" if name in self.written else ""
            path.write_text(before + block.text, encoding="utf-8")
            self.written.add(name)
        elif block.language == "bash":
            for line in block.text.splitlines():
                self.run(line, int(name) if kind == "fails" else 0)
        elif block.language == "python":
            exec(compile(block.text, "docs/plugins.md", "exec"), {})
        elif block.language == "toml" and kind == "entry points":
            self.install_project(tomllib.loads(block.text)["project"])

    def run(self, line: str, code: int) -> None:
        """Run a command line: mlhooks here, so that it is fast, and pytest in a process of its own."""
        self.commands.append(line)
        command, *arguments = shlex.split(line, comments=True)
        if arguments[:2] == ["run", "3dball_ppo"]:
            arguments = [re.sub(r"(max_steps=\d+)0$", r"\1", argument) for argument in arguments]
            arguments += (word for setting in A_TENTH for word in ("--set", setting))
        if command == "mlhooks":
            quiet = QUIET if arguments[0] == "run" else []
            assert main([*arguments, *(word for name in quiet for word in ("-p", name))]) == code, line
        elif command == "cd":
            self.monkeypatch.chdir(arguments[0])
        elif line.startswith("pip install -e"):
            self.install_project(tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"])
            self.monkeypatch.syspath_prepend(Path("src").resolve())
        elif command == "pytest":
            environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
            result = subprocess.run(
                [sys.executable, "-m", "pytest", *arguments],
                env=environment,
                capture_output=True,
                text=True,
                timeout=280,
                check=False,
            )
            assert result.returncode == code, result.stdout
        else:
            raise AssertionError(f"nobody knows how to run {line!r}")

    def install_project(self, project) -> None:
        """Do what pip does for an editable install."""
        for group, points in project["entry-points"].items():
            self.install(project["name"], points, group=group, version=project["version"])


@pytest.fixture
def reader(tmp_path, install, monkeypatch) -> Reader:
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path / "folder")
    monkeypatch.syspath_prepend(tmp_path / "folder")
    return Reader(tmp_path / "folder", install, monkeypatch)


@pytest.mark.parametrize("validated", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_statistics_writer(reader, capfd, validated):
    for block in section("A statistics writer"):
        if not validated:
            block = block._replace(text=re.sub(r"^mlhooks plugins check .*\n", "", block.text, flags=re.MULTILINE))
        reader.follow(block)
    rows = list(csv.DictReader(Path("results/tabled/table.csv").read_text(encoding="utf-8").splitlines()))
    assert [int(row["step"]) for row in rows if row["key"] == "Policy/Learning Rate"] == [1200, 2400, 3600]
    assert "table  " in capfd.readouterr().out
    assert Path("last_step.txt").read_text(encoding="utf-8") == "3DBall 2400"
    assert "mlhooks plugins check table.py" in reader.commands or not validated


@pytest.mark.parametrize("validated", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_trainer_in_four_steps(reader, capfd, validated):
    said = ""
    for block in section("A trainer in four steps"):
        if not validated:
            block = block._replace(text=re.sub(r"^pytest .*\n", "", block.text, flags=re.MULTILINE))
        if block.language == "text":
            assert " ".join(block.text.split()) in " ".join(said.split())
            continue
        capfd.readouterr()
        reader.follow(block)
        said = "".join(capfd.readouterr())
    assert Path("results/ppo/Basic.policy.pt").exists()
    assert "pytest --mlhooks-plugin klpo.py" in reader.commands or not validated


def test_environment_of_ones_own(reader, capfd):
    for block in section("An environment"):
        reader.follow(block)
    (reward,) = re.findall(r"mean reward (-?[\d.]+) \(last", capfd.readouterr().out)
    assert float(reward) > 0.8  # Chance earns far less.


def test_another_optimizer_for_ppo(reader):
    import torch

    import mlhooks

    for block in section("Another optimizer for PPO"):
        reader.follow(block)
    arguments = {"run_id": "calm", "plugin_names": ["calm_ppo.py", "no:console", *QUIET]}
    run = mlhooks.train("3dball_ppo", resume=True, overrides=[*A_TENTH, "behaviors.3DBall.max_steps=3600"], **arguments)
    optimizer = run.trainers["3DBall"].optimizer
    assert type(optimizer).__name__ == "CalmOptimizer"
    assert isinstance(optimizer.torch_optimizer, torch.optim.AdamW)
    assert '"Losses/Output Size"' in Path("results/calm/stats.jsonl").read_text(encoding="utf-8")


def test_another_network(reader, capfd):
    for block in section("Another network"):
        reader.follow(block)
    out = capfd.readouterr().out
    assert "ResidualActor(" in out
    assert "5 episodes: mean reward" in out


def test_reward_signal(reader):
    for block in section("A reward signal"):
        reader.follow(block)
    text = Path("results/ppo/stats.jsonl").read_text(encoding="utf-8")
    assert '"Policy/Novelty Value Estimate"' in text
    shares = [float(share) for share in re.findall(r'"Policy/Places Seen": (?:\{[^}]*"mean": )?([\d.]+)', text)]
    assert 0.4 < shares[-1] <= 1.0  # An episode ends at two of the twenty places.
    learned = Path("results/surprise/stats.jsonl").read_text(encoding="utf-8")
    losses = [float(loss) for loss in re.findall(r'"Losses/Surprise Loss": (?:\{[^}]*"mean": )?([\d.e-]+)', learned)]
    assert losses[-1] < 0.75 * losses[0]
    assert '"Policy/Surprise Value Estimate"' in learned


def test_plugins_of_a_configuration(reader, capfd):
    for block in section("Plugins of a configuration"):
        reader.follow(block)
    out = capfd.readouterr().out
    assert [len(digits) for digits in re.findall(r"^best mean reward: \d+\.(\d+)$", out, re.MULTILINE)] == [3, 2]
    assert out.count(f"  plugins      best (file {Path('best.py')})") == 2
    assert "best:\n      digits: 3" in out


@pytest.mark.parametrize("validated", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_package(reader, validated):
    for block in section("A package"):
        if not validated:
            block = block._replace(text=re.sub(r"^pytest.*\n", "", block.text, flags=re.MULTILINE))
        if block.language == "toml":
            written = tomllib.loads((reader.folder / "mlhooks-mine" / "pyproject.toml").read_text(encoding="utf-8"))
            assert written["project"]["entry-points"] == tomllib.loads(block.text)["project"]["entry-points"]
        reader.follow(block)
    assert Path("results/ppo/3DBall.policy.pt").exists()


def test_every_snippet_is_executed():
    tested = [
        *("A statistics writer", "A trainer in four steps", "Another optimizer for PPO", "Another network"),
        *("A reward signal", "An environment", "Plugins of a configuration", "A package"),
    ]
    assert [block for title in tested for block in section(title)] == list(blocks(PAGE))
    assert {block.language for block in blocks(PAGE)} <= {"python", "yaml", "bash", "toml", "text"}


def rows() -> list[tuple[str, str]]:
    _, _, table = PAGE.partition("\n## Coming from ML-Agents\n")
    return re.findall(r"^\| (?!ML-Agents|---)(.+?) \| (.+?) \|$", table, re.MULTILINE)


def test_table_names_what_people_look_for():
    theirs = {name for row, _ in rows() for name in re.findall(r"`([^`]+)`", row)}
    assert set(REQUIRED) <= theirs


@pytest.mark.parametrize(
    "name", sorted({name for _, row in rows() for name in re.findall(r"`(mlhooks\.[\w.]+)`", row)})
)
def test_name_of_the_table_exists(name):
    owner, _, attribute = name.rpartition(".")
    found = pkgutil.resolve_name(owner)
    assert hasattr(found, attribute) or attribute in inspect.get_annotations(found)


def test_hooks_of_the_table_exist():
    named = {name for _, row in rows() for name in re.findall(r"hook `(\w+)`", row)}
    assert named
    assert not [name for name in named if not hasattr(hookspecs, name)]


def test_every_name_of_the_table_is_of_a_kind_that_is_checked():
    kinds = (r"hook `\w+`", r"`mlhooks\.[\w.]+`", r"`mlhooks( plugins( hooks)?)?`", "`get_trainer_types`")
    known = "|".join([*kinds, r"`trainer\.stats`", "`shared_critic: true`"])
    names = [name for _, row in rows() for name in re.findall(r"(?:hook )?`[^`]+`", row)]
    assert [name for name in names if not re.fullmatch(known, name)] == []


def test_links_lead_to_files():
    links = re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)", PAGE)
    assert [link for link, _ in links if not (ROOT / "docs" / link).exists()] == []
    titles = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in re.findall(r"^## (.*)$", PAGE, re.M)}
    assert {anchor for link, anchor in links if not link and anchor} == titles
