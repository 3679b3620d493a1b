"""`mlhooks examples` says what the examples reach, as docs/results.md does."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import yaml

from builtin_plugins.gymnasium_extras import extra_of
from mlhooks.cli import main
from mlhooks.example_configs import example_names, examples, find_config

ROOT = Path(__file__).parents[2]
TABLE = re.findall(
    r"^\| `(\w+)` \| ([\d,]+) \| evaluation \| [^|]+ \| (-?[\d.]+) \| (-?[\d.]+) \|",
    (ROOT / "docs" / "results.md").read_text(encoding="utf-8"),
    re.MULTILINE,
)


@pytest.mark.parametrize("row", [row for row in TABLE if row[0] in example_names()], ids=lambda row: row[0])
def test_example_reaches_what_the_page_of_results_says(row):
    name, steps, median, worst = row
    (example,) = [example for example in examples() if example.name == name]
    digits = len(median.partition(".")[2])
    measured = example.measured
    assert measured is not None
    assert f"{measured.steps:,}" == steps
    assert (round(measured.median, digits), round(measured.worst, digits)) == (float(median), float(worst))


def test_example_that_nobody_measured_says_so(capsys):
    assert main(["examples"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "pong_ppo Play Pong" in out
    assert "ppo in gymnasium:ALE/Pong-v5; what it reaches is not measured." in out


def test_every_example_is_described_as_its_file_is(capsys):
    assert main(["examples", "--json"]) == 0
    found = {entry["name"]: entry for entry in json.loads(capsys.readouterr().out)}
    assert list(found) == example_names()
    for name, entry in found.items():
        document = yaml.safe_load(find_config(name).read_text(encoding="utf-8"))
        (behavior,) = document["behaviors"].values()
        assert (entry["env_path"], entry["trainer_type"]) == (
            document["env_settings"]["env_path"],
            behavior["trainer_type"],
        )
        assert entry["text"].endswith((".", "v1.", "v3."))
        assert "pip install" not in entry["text"]


def test_extra_of_an_example_is_the_one_that_a_missing_package_names():
    import gymnasium

    for example in examples():
        kind, _, env_id = example.env_path.partition(":")
        if kind in ("sim", "pettingzoo"):
            assert example.extra == (None if kind == "sim" else "pettingzoo")
        else:
            atari = env_id.startswith("ALE/")  # These are not registered before they are installed.
            place = "ale_py" if atari else gymnasium.spec(env_id).entry_point.partition(":")[0]
            needed = extra_of(place)
            # Drawing alone needs the extra of classic control.
            assert example.extra == ("gymnasium" if needed == "classic" else needed)


def test_names_are_for_scripts(capsys):
    assert main(["examples", "--names"]) == 0
    assert capsys.readouterr().out.splitlines() == example_names()


def test_lines_fit_the_terminal(capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "60")
    assert main(["examples"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 60
