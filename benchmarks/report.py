"""The words in which all benchmarks report: the machine, the day, spreads, and tables."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any

VECTORS = {"avx512f": "AVX-512", "avx2": "AVX2"}
"""What processors of one name differ in, the widest first."""
RUN = 1000
"""The characters of a line of results, which are enough for a run."""


def machine() -> str:
    """Return the processor, its cores, memory, system and Python, in words."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        text = cpuinfo.read_text(encoding="utf-8")
        names = (line.partition(": ")[2] for line in text.splitlines() if line.startswith("model name"))
        processor = next(names, processor)
        processor += next((f" with {name}" for flag, name in VECTORS.items() if f" {flag} " in text), "")
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{processor}, {os.cpu_count()} cores, {memory:.0f} GiB, {platform.system()} {platform.release()}, "
        f"Python {platform.python_version()}"
    )


def today() -> str:
    """Return the date."""
    return datetime.now(UTC).date().isoformat()


def spread(values: Sequence[float], digits: int) -> str:
    """Return the median, and in brackets the least and the greatest value."""
    low, middle, high = (f"{value:,.{digits}f}" for value in (min(values), median(values), max(values)))
    return f"{middle} ({low} to {high})" if len(values) > 1 else middle


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a Markdown table."""
    return [f"| {' | '.join(cells)} |" for cells in (header, ["---"] * len(header), *rows)]


def as_json(value: Any, depth: int = 0) -> str:
    """Return JSON with a line for each run and each fact, and numbers of nine digits."""
    line = json.dumps(_rounded(value))
    listed = isinstance(value, list | tuple) and any(isinstance(part, dict) for part in value)
    if (depth > 1 and not listed and len(line) <= RUN) or not value or not isinstance(value, dict | list | tuple):
        return line
    indent = " " * depth
    parts = [f"{json.dumps(str(key))}: " for key in value] if isinstance(value, dict) else [""] * len(value)
    inside = value.values() if isinstance(value, dict) else value
    lines = [f"{indent} {part}{as_json(each, depth + 1)}" for part, each in zip(parts, inside, strict=True)]
    begin, end = "{}" if isinstance(value, dict) else "[]"
    return "\n".join([begin, ",\n".join(lines), f"{indent}{end}"])


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(part) for part in value]
    return float(f"{value:.9g}") if isinstance(value, float) else value


def write(folder: Path, name: str, facts: dict[str, str], results: dict[str, Any], lines: Iterable[str]) -> None:
    """Write `name`.json with all that was measured and `name`.md with facts and `lines`, and print the latter."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(as_json({"about": facts, **results}) + "\n", encoding="utf-8")
    text = "\n".join([f"# {name}", "", *(f"- {key}: {value}" for key, value in facts.items()), "", *lines]) + "\n"
    (folder / f"{name}.md").write_text(text, encoding="utf-8")
    print(f"\n{text}", flush=True)
