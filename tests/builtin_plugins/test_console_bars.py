from __future__ import annotations

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from builtin_plugins import console_bars, console_numbers
from tests.builtin_plugins.test_console import CONTROL


def bars_at(width, *behaviors):
    screen = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    bars = console_bars.ProgressBars(screen)
    for name, step, reward in behaviors:
        trainer = SimpleNamespace(
            step=step, mean_reward=reward, self_play=None, settings=SimpleNamespace(max_steps=500_000)
        )
        bars.add(name, trainer)
    screen.print(bars.render())
    return CONTROL.sub("", screen.file.getvalue()).splitlines()


@pytest.mark.parametrize("width", [1, 10, 20, 40, 59, 60, 80, 120, 200])
def test_every_behavior_has_lines_that_fit(width):
    lines = bars_at(width, ("3DBall", 60_000, 5.31), ("A behavior with a very long name", 500_001, -1234.5))
    assert len(lines) in ((2,) if width >= 120 else (2, 4))
    assert all(len(line) <= width for line in lines)


@pytest.mark.parametrize("width", [60, 80, 120])
def test_bar_shows_everything_from_sixty_columns_on(width):
    lines = bars_at(width, ("3DBall", 60_000, 5.31))
    assert len(lines) == (1 if width == 120 else 2)
    for text in ("3DBall ━", "12%", "mean reward 5.31 (last 100 episodes)", "-:--:-- left", "0.0/s", "60,000/500,000"):
        assert text in " ".join(lines)
    assert "no episode yet" in " ".join(bars_at(width, ("3DBall", 60_000, None)))


def test_bar_estimates_from_the_steps_it_saw(monkeypatch):
    times = iter([100.0, 110.0])
    monkeypatch.setattr(console_bars, "time", SimpleNamespace(monotonic=lambda: next(times)))
    screen = Console(file=io.StringIO(), width=120, color_system=None)
    bars = console_bars.ProgressBars(screen)
    trainer = SimpleNamespace(
        step=200_000, mean_reward=1.0, self_play=None, settings=SimpleNamespace(max_steps=500_000)
    )
    bars.add("3DBall", trainer)
    screen.print(bars.render())
    trainer.step = 240_000
    screen.print(bars.render())
    first, second = screen.file.getvalue().splitlines()
    assert "-:--:-- left" in first
    assert "4.0k/s" in second
    assert "0:01:05 left" in second
    assert "48%" in second


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0.0"), (3.44, "3.4"), (9.96, "10"), (512, "512"), (999.6, "1.0k"), (12_345, "12.3k"), (4e6, "4.0M")],
)
def test_short_number(value, text):
    assert console_numbers.short_number(value) == text


@pytest.mark.parametrize(
    ("value", "text"), [(0.0, "0.00"), (5.309, "5.31"), (-0.93, "-0.93"), (0.0004, "0.0004"), (float("nan"), "nan")]
)
def test_decimal(value, text):
    assert console_numbers.decimal(value) == text
