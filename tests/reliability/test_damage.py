"""Damaged configurations, results and weights: a sentence each time, and never other weights."""

from __future__ import annotations

import json
import logging
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mlhooks
from mlhooks.cli import main
from mlhooks.errors import MlhooksError
from mlhooks.example_configs import examples_folder
from mlhooks.names import MANIFEST
from tests.scripted import QUIET, config, train

ODD_VALUES = [
    *("null", "-1", "0", "1e400", "-.inf", ".nan", "9" * 5000, "''", "[]", "{}", "!!bool maybe", "~", "&a [*a]"),
    *(
        "'\0'",
        "\ud7ff",
        "0x",
        "1_000",
        "2026-01-01",
        "[[[[[[",
        "{a: {a: {a",
        "yes",
        "../../x",
        "C:\\Users",
        "%",
        "@x",
        "|",
    ),
]
ODD = [
    None,
    True,
    -1,
    0,
    10**400,
    2**63,
    1.5,
    float("nan"),
    "",
    "x" * 300,
    "../../x",
    "/x",
    [],
    [[]],
    {},
    {"path": None},
]


def flip(data: bytes, rng: random.Random) -> bytes:
    changed = bytearray(data)
    if changed:
        bit = rng.randrange(len(changed) * 8)
        changed[bit // 8] ^= 1 << bit % 8
    return bytes(changed)


def damaged_text(data: bytes, rng: random.Random) -> bytes:
    """Return a text with bytes flipped, or with lines cut, doubled, moved, indented or given another value."""
    lines = data.split(b"\n")
    for _ in range(rng.randint(1, 3)):
        at = rng.randrange(len(lines))
        what = rng.randrange(8)
        if what == 0:
            lines = flip(b"\n".join(lines), rng).split(b"\n")
        elif what == 1:
            del lines[at : at + rng.randint(1, 3)]
        elif what == 2:
            lines.insert(at, rng.choice(lines) if lines else b"x")
        elif what == 3:
            lines[at] = b" " * rng.randint(1, 5) + lines[at]
        elif what == 4:
            lines[at] = lines[at][: rng.randint(0, len(lines[at]))]
        elif what == 5:
            lines = lines[: at + 1]
        else:
            key, _, _ = lines[at].partition(b":")
            lines[at] = key + b": " + rng.choice(ODD_VALUES).encode("utf-8", "surrogatepass")
        lines = lines or [b""]
    return b"\n".join(lines)


def sentence(code: int, text: str, told: str, *, writers_fail: bool = False) -> None:
    """Demand that a command ended for people: with an exit code of ours, and no traceback or defect.

    Where nothing but data is wrong, no built-in plugin fails either.
    """
    assert code in (0, 1, 2), f"{told}: {code}"
    assert "Traceback" not in text, f"{told}\n{text[-3000:]}"
    assert "defect" not in text, f"{told}\n{text[-3000:]}"
    assert writers_fail or f"(mlhooks {mlhooks.__version__}) failed" not in text, f"{told}\n{text[-3000:]}"
    assert code == 0 or text.strip(), told


def test_damaged_configurations_are_refused_with_sentences(
    tmp_path: Path, cases: Callable[[int], list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    examples = sorted(examples_folder().glob("*.yaml"))
    for case in cases(500):
        rng = random.Random(case)
        source, path = rng.choice(examples), tmp_path / "damaged.yaml"
        path.write_bytes(damaged_text(source.read_bytes(), rng))
        told = f"{source.name}: --reliability-seed {case}"
        refused = ["--env", "nosuch:Thing", "--results-dir", str(tmp_path / "results")]
        for command in (["config", "check", str(path)], ["config", "show", str(path)], ["run", str(path), *refused]):
            code = main(command)
            captured = capsys.readouterr()
            sentence(code, captured.out + captured.err, f"{told}: {command[:2]}")
        assert code != 0, told


SHORT = config("3DBall", "sim:3DBall", max_steps=600, hyperparameters={"batch_size": 60, "buffer_size": 300})
SHORT["behaviors"]["3DBall"]["network_settings"]["hidden_units"] = 8


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(SHORT, tmp_path_factory.mktemp("trained")).path


def damage(run: Path, rng: random.Random, damaged: set[Path]) -> str:
    """Damage one more file of a run's folder in one of many ways; says which and how."""
    files = [path for path in sorted(run.rglob("*")) if path.is_file() and path not in damaged]
    likely = [path for path in files if path.name in ("training_status.json", "configuration.yaml", "stats.jsonl")]
    path = rng.choice(likely if rng.random() < 0.5 else files)
    damaged.add(path)
    ways: dict[str, Callable[[], Any]] = {
        "flipped": lambda: path.write_bytes(flip(path.read_bytes(), rng)),
        "cut": lambda: path.write_bytes(path.read_bytes()[: rng.randrange(path.stat().st_size + 1)]),
        "empty": lambda: path.write_bytes(b""),
        "zeros": lambda: path.write_bytes(b"\0" * path.stat().st_size),
        "gone": path.unlink,
        "a folder": lambda: (path.unlink(), path.mkdir()),
        "another file": lambda: path.write_bytes(rng.choice(files).read_bytes()),
    }
    if hasattr(os, "mkfifo"):
        ways["a pipe"] = lambda: (path.unlink(), os.mkfifo(path))
    if path.suffix in (".json", ".jsonl", ".yaml"):
        ways["damaged text"] = lambda: path.write_bytes(damaged_text(path.read_bytes(), rng))
    if path.suffix in (".json", ".jsonl"):
        ways["odd value"] = lambda: path.write_text(odd_json(path.read_text(), rng))
    way = rng.choice(list(ways))
    ways[way]()
    return f"{path.relative_to(run).as_posix()}: {way}"


def odd_json(text: str, rng: random.Random) -> str:
    """Return a JSON text, or one of its lines, with something in it replaced by a value of another kind."""
    try:
        lines, whole = [json.loads(text)], True
    except ValueError:
        lines, whole = [json.loads(line) for line in text.splitlines()], False
    places: list[tuple[Any, Any]] = []

    def walk(value: Any) -> None:
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, item in items:
            places.append((value, key))
            walk(item)

    walk(lines)
    container, key = rng.choice(places)
    container[key] = rng.choice(ODD)
    return json.dumps(lines[0]) if whole else "".join(json.dumps(line) + "\n" for line in lines)


def test_damaged_results_are_used_or_refused_with_sentences(
    trained: Path, tmp_path: Path, cases: Callable[[int], list[int]], capsys: pytest.CaptureFixture[str]
) -> None:
    results = tmp_path / "results"
    (tmp_path / "config.yaml").write_text(json.dumps(SHORT))
    more = ["--env", "sim:3DBall", "--set", "behaviors.3DBall.max_steps=900", "--set", "env_settings.num_envs=1"]
    quiet = [part for name in QUIET if name != "no:curve" for part in ("-p", name)]
    where = ["--results-dir", str(results), "--run-id", "run", *quiet]
    for case in cases(200):
        rng = random.Random(case)
        shutil.rmtree(results, ignore_errors=True)
        shutil.copytree(trained, results / "run")
        damaged: set[Path] = set()
        told = f"--reliability-seed {case}: " + " and ".join(
            damage(results / "run", rng, damaged) for _ in range(rng.choice([1, 1, 2]))
        )
        own = [] if rng.random() < 0.5 else [str(tmp_path / "config.yaml")]
        try:
            mlhooks.load(results / "run").predict(np.zeros(8, np.float32))
        except MlhooksError as error:
            sentence(error.exit_code, str(error), told)
        for flags in (["--inference", "--episodes", "1"], ["--resume"], ["--force"]):
            code = main(["run", *own, *where, *flags, *more])
            captured = capsys.readouterr()
            text = captured.out + captured.err
            # The exporter says that a folder lies in place of a model, and the run goes on.
            sentence(code, text, f"{told}: {flags[0]}", writers_fail="cannot be written: Is a directory" in text)


def test_no_flipped_bit_gives_other_weights(
    trained: Path, tmp_path: Path, cases: Callable[[int], list[int]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, "mlhooks")
    observation = np.linspace(-1, 1, 8, dtype=np.float32)
    expected = mlhooks.load(trained).predict(observation)
    run = tmp_path / "run"
    files = [
        "3DBall.policy.pt",
        "3DBall/3DBall-600.pt",
        "3DBall/3DBall-600.policy.pt",
        str(MANIFEST),
        "run_logs/state-600.pt",
    ]
    uses: dict[str, Callable[[Path], Any]] = {
        "load of the file": lambda path: mlhooks.load(path if path.suffix == ".pt" else run),
        "load of the run": lambda _: mlhooks.load(run),
        "init_path": lambda path: begun({"behaviors.3DBall.init_path": str(path)}),
        "--initialize-from": lambda _: begun({"checkpoint_settings.initialize_from": "run"}),
        "--inference": lambda _: train(
            SHORT, tmp_path, flags={"checkpoint_settings.inference": True}, episodes=1
        ).trainers["3DBall"],
    }

    def begun(flags: dict[str, Any]) -> Any:
        settings = json.loads(json.dumps(SHORT))
        settings["behaviors"]["3DBall"]["max_steps"] = 12
        return train(settings, tmp_path, run_id="begun", force=True, flags=flags).trainers["3DBall"]

    silent, refused = 0, 0
    for case in cases(1000):
        rng = random.Random(case)
        shutil.rmtree(run, ignore_errors=True)
        shutil.copytree(trained, run)
        path = run / rng.choice(files)
        path.write_bytes(flip(path.read_bytes(), rng))
        use = rng.choices(list(uses), [8, 8, 1, 1, 1])[0]
        try:
            made = uses[use](path)
        except MlhooksError:
            refused += 1
            continue
        policy = getattr(made, "policy", None) or made._policy
        policy.deterministic = True
        got = policy.action_tuple(policy.act([observation[None]], None, np.random.default_rng(0))).continuous[0]
        unharmed = np.array_equal(got, expected) or path.suffix != ".pt"
        older = "run" in use or use.startswith("--")  # These go on from an older checkpoint that verifies, and say so.
        silent += not (unharmed or older)
    assert not silent, f"{silent} of {len(cases(1000))} flipped bits gave other weights"
    assert refused, "no flipped bit was refused"
