"""Writes the tables of `benchmarks/results` into pages: `python benchmarks/performance_page.py`.

The pages are `benchmarks/RESULTS.md` and `docs/many_agents.md`. What stands there between `<!-- NAME -->` and
`<!-- end of NAME -->` becomes the content of `results/NAME.md` without its title; places whose results are missing stay
as they are, and are named.
"""

from __future__ import annotations

import re

from peers import HERE, ROOT

PAGES = HERE / "RESULTS.md", ROOT / "docs" / "many_agents.md"
PLACE = re.compile(r"<!-- (?P<name>\w+) -->\n.*?<!-- end of (?P=name) -->", re.DOTALL)


def content(place: re.Match[str]) -> str:
    """Return what stands in one place from now on."""
    name = place["name"]
    file = HERE / "results" / f"{name}.md"
    if not file.exists():
        print(f"There is no {file.relative_to(ROOT)}.")
        return place[0]
    _, _, text = file.read_text(encoding="utf-8").partition("\n")
    return f"<!-- {name} -->\n{text.strip()}\n<!-- end of {name} -->"


if __name__ == "__main__":
    for page in PAGES:
        page.write_text(PLACE.sub(content, page.read_text(encoding="utf-8")), encoding="utf-8")
