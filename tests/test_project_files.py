"""Files that services read which cannot be run here: that they are valid, and agree with the project."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
FORGE = ROOT / ".github"


def read(path: Path) -> Any:
    return yaml.safe_load(path.read_text(encoding="utf-8"))


def test_workflows_try_every_python_and_system_that_the_package_promises() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    promised = {name.rpartition(" :: ")[2] for name in project["classifiers"] if re.search(r":: 3\.\d+$", name)}
    matrix = read(FORGE / "workflows" / "ci.yml")["jobs"]["tests"]["strategy"]["matrix"]
    assert set(matrix["python"]) == promised
    assert {system.partition("-")[0] for system in matrix["os"]} == {"ubuntu", "macos", "windows"}
    (build,) = (
        step["env"]["CIBW_BUILD"]
        for step in read(FORGE / "workflows" / "wheels.yml")["jobs"]["wheels"]["steps"]
        if "cibuildwheel" in step.get("uses", "")
    )
    assert set(build.split()) == {f"cp{version.replace('.', '')}-*" for version in promised}


def test_each_step_of_a_workflow_does_something() -> None:
    for path in (FORGE / "workflows").glob("*.yml"):
        for name, job in read(path)["jobs"].items():
            assert all(("uses" in step) != ("run" in step) for step in job["steps"]), (path.name, name)


def test_pre_commit_takes_the_pinned_ruff() -> None:
    (pinned,) = re.findall(r"^ruff==(.*)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    assert read(ROOT / ".pre-commit-config.yaml")["repos"][0]["rev"] == f"v{pinned}"


def test_issue_templates_have_a_title_and_fields() -> None:
    templates = list((FORGE / "ISSUE_TEMPLATE").glob("*.yml"))
    assert len(templates) == 2
    for path in templates:
        template = read(path)
        assert template["name"]
        assert [field["id"] for field in template["body"]]
