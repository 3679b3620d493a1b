"""Whatever is in a file, `config check` and `config show` end with a verdict: exit code 0 or 2, and no defect."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import pytest

from mlhooks.cli import main
from mlhooks.example_configs import examples_folder

SEEDS = 40
CONFIGS = sorted(examples_folder().glob("*.yaml"))
WORDS = """\
null ~ true yes -0 .inf -.nan 1e400 0x_ 0b1 0o7 12:30 1_000 2025-01-31 99999999999999999999 1e30 -1 '' "" "C:\\Users"
"C:\\xylo" "\\ud800" "\\0" [] {} [[]] [1, {a: 2}] {<<: {a: 1}} {<<: 1} {? [a] : b} {1: 2} &a [*a] *b !!int x !!float x
!!null x !!set {a} !!omap [a: 1] !!binary x !!timestamp x !!python/object:os.system {} !!str 1 ! | > @ ` % - ? : # =
<<"""
NASTY = [*WORDS.split(), "9" * 5000, "[" * 2000, "{a: " * 2000, "- " * 500, "x" * 5000, "{? [a] : b}", "!!bool maybe"]
CHARACTERS = [*"\t\0\r\x01\x7f\x85\u2028\ufeff\U0001f600\"'{}[]:#&*!|>%@`,-?\\", "\r\n", "\n---\n", "\n...\n"]


def replace_a_value(text: str, draw: random.Random) -> str:
    lines = text.split("\n")
    at = draw.choice([number for number, line in enumerate(lines) if ":" in line] or [0])
    lines[at] = f"{lines[at].partition(':')[0]}: {draw.choice(NASTY)}"
    return "\n".join(lines)


def replace_a_key(text: str, draw: random.Random) -> str:
    lines = text.split("\n")
    at = draw.choice([number for number, line in enumerate(lines) if ":" in line] or [0])
    indent = lines[at][: len(lines[at]) - len(lines[at].lstrip())]
    lines[at] = f"{indent}{draw.choice(NASTY)}:{lines[at].partition(':')[2]}"
    return "\n".join(lines)


def insert_a_character(text: str, draw: random.Random) -> str:
    at = draw.randrange(len(text) + 1)
    return text[:at] + draw.choice(CHARACTERS) + text[at:]


def move_lines(text: str, draw: random.Random) -> str:
    lines = text.split("\n")
    at, to = draw.randrange(len(lines)), draw.randrange(len(lines))
    return "\n".join([*lines[:at], *lines[at:to][:9], " " * draw.randrange(9) + lines[to].lstrip(), *lines[at:]])


def cut_off(text: str, draw: random.Random) -> str:
    return text[: draw.randrange(len(text) + 1)]


DAMAGES: list[Callable[[str, random.Random], str]] = [
    replace_a_value,
    replace_a_value,
    replace_a_key,
    insert_a_character,
    move_lines,
    cut_off,
]


def damaged(seed: int) -> bytes:
    """Return one of the examples with one to three damages, some of them in its bytes."""
    draw = random.Random(seed)
    text = draw.choice(CONFIGS).read_text(encoding="utf-8")
    for _ in range(draw.randint(1, 3)):
        text = draw.choice(DAMAGES)(text, draw)
    encoding = draw.choice(["utf-8"] * 6 + ["utf-16", "utf-8-sig", "latin-1", "utf-32"])
    data = bytearray(text.encode(encoding, "replace"))
    if data and draw.random() < 0.2:
        data[draw.randrange(len(data))] = draw.randrange(256)
    return bytes(data)


def test_damaged_files_get_a_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    for seed in range(SEEDS):
        Path("c.yaml").write_bytes(damaged(seed))
        codes = {}
        for command in (["check"], ["show"], ["check", "--json"]):
            codes[command[-1]] = main(["config", *command, "c.yaml"])
            captured = capfd.readouterr()
            said = captured.out + captured.err
            assert codes[command[-1]] in (0, 2), f"seed {seed}, {command}: {said}"
            assert "defect" not in said, f"seed {seed}, {command}: {said}"
            assert "Traceback" not in said, f"seed {seed}, {command}: {said}"
            assert len(said) < 100_000, f"seed {seed}, {command}"
            if codes[command[-1]] == 2 and command == ["check"]:
                assert "c.yaml" in said, f"seed {seed}: {said}"
        assert json.loads(captured.out)["valid"] == (codes["check"] == 0)
        assert codes["check"] >= codes["show"], f"seed {seed}"  # A run may refuse what is shown.
