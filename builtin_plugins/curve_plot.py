"""The child process that draws a learning curve: a JSON object comes in on standard input, a PNG file goes out."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl

mpl.use("Agg")

from matplotlib import pyplot as plt

STYLE: dict[Any, Any] = {
    "font.size": 10.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#9aa0a6",
    "axes.labelcolor": "#3c4043",
    "xtick.color": "#5f6368",
    "ytick.color": "#5f6368",
    "text.parse_math": False,  # A $ in a name is a $.
    "axes.prop_cycle": mpl.rcsetup.cycler(
        color=["#1a73e8", "#e8710a", "#188038", "#9334e6", "#d93025", "#12857f", "#7a5c3e"]
    ),
}


def plot(curves: dict[str, list[list[float]]], title: str, path: Path) -> None:
    """Draw mean reward against steps, with a band of one standard deviation on both sides.

    Args:
        curves: Behavior name -> [step, mean, standard deviation] of its points, in the order of the steps.
        title: What stands above the picture.
        path: The PNG file to write.
    """
    with mpl.rc_context(STYLE):
        figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
        for name, points in curves.items():
            _add_curve(axes, name, points)
        axes.set_title(title, loc="left", fontweight="bold", fontsize=13, color="#202124", pad=12)
        axes.set_title("band: ± 1 standard deviation over episodes", loc="right", fontsize=9, color="#80868b", pad=12)
        axes.set_xlabel("steps")
        axes.set_ylabel("mean episode reward")
        axes.xaxis.set_major_formatter("{x:,.0f}")
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:,.10g}")
        axes.xaxis.set_major_locator(mpl.ticker.MaxNLocator(7, steps=[1, 2, 2.5, 5, 10], integer=True))
        axes.grid(color="#e8eaed", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.margins(x=0.01)
        axes.legend(*axes.get_legend_handles_labels(), loc="best", frameon=False)
        figure.savefig(path, dpi=150, format="png")
        plt.close(figure)


def _add_curve(axes: Any, name: str, points: list[list[float]]) -> None:
    steps, means, deviations = zip(*points, strict=True)
    low = [mean - deviation for mean, deviation in zip(means, deviations, strict=True)]
    high = [mean + deviation for mean, deviation in zip(means, deviations, strict=True)]
    (line,) = axes.plot(steps, means, linewidth=2, label=f"{name}, last {means[-1]:,.4g}")
    axes.fill_between(steps, low, high, color=line.get_color(), alpha=0.15, linewidth=0)
    axes.plot(steps[-1], means[-1], "o", color=line.get_color(), markersize=5)


def main() -> None:
    """Draw what standard input asks for; the file appears under its name only when it is whole."""
    job = json.loads(sys.stdin.buffer.read())
    path = Path(job["path"])
    partial = path.with_name(path.name + ".tmp")
    plot(job["curves"], job["title"], partial)
    partial.replace(path)


if __name__ == "__main__":
    main()
