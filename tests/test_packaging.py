from __future__ import annotations

import ast
import json
import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import click
import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from mlhooks import example_configs
from mlhooks.cli import main
from mlhooks.cli.group import COMMANDS
from mlhooks.cli.run import run
from mlhooks.testing import documentation_links

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS_PAGE = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
PACKAGES = ("mlhooks", "builtin_plugins")


def requirements(*extras):
    texts = PROJECT["project"]["dependencies"] if not extras else []
    for extra in extras:
        texts = texts + PROJECT["project"]["optional-dependencies"][extra]
    return {canonicalize_name(Requirement(text).name): Requirement(text) for text in texts}


OF_WHEEL = {"attr": "attrs", "cattr": "cattrs", "mlagents": "mlagents"}  # These are modules by their distribution.
# These are distributions that another one always brings along, in a fixed version.
PART_OF = {"pydantic-core": "pydantic"}


def third_party_imports():
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom) and node.module and not node.level:
                    names = [node.module]
                for name in names:
                    top = name.partition(".")[0]
                    if top not in sys.stdlib_module_names and top not in PACKAGES:
                        yield top, path


def test_every_import_belongs_to_a_declared_dependency():
    distributions = packages_distributions()
    core, gymnasium, testing = requirements(), requirements("gymnasium"), requirements("testing")
    pettingzoo = requirements("pettingzoo")
    undeclared = {
        f"{path.relative_to(ROOT)} imports {module}"
        for module, path in third_party_imports()
        if not {PART_OF.get(name := canonicalize_name(found), name) for found in distributions.get(module, [])}
        & (
            core.keys()
            | (gymnasium.keys() if path.name.startswith("gymnasium") else set())
            | (pettingzoo.keys() if path.name.startswith("pettingzoo") else set())
            | (testing.keys() if path.is_relative_to(ROOT / "mlhooks" / "testing") else set())
        )
        and not (
            path.is_relative_to(ROOT / "mlhooks" / "mlagents_wheel")
            and OF_WHEEL.get(module) in requirements("mlagents").keys() | {"mlagents"}  # No extra can bring it.
        )
    }
    assert undeclared == set()


def test_constraints_pin_every_direct_dependency_to_an_allowed_version():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = dict(line.split("==") for line in lines if line and not line.startswith("#"))
    pins = {canonicalize_name(name): version for name, version in pins.items()}
    direct = requirements() | requirements("gymnasium", "dev", "mlagents", "atari", "pettingzoo")
    assert direct.keys() <= pins.keys()
    assert [name for name, requirement in direct.items() if pins[name] not in requirement.specifier] == []


def test_dev_extra_holds_every_other_extra_but_that_of_a_package_of_its_own():
    extras = requirements(*(PROJECT["project"]["optional-dependencies"].keys() - {"dev", "mlagents"}))
    apart = requirements("atari").keys() | {"mpe2"}  # No test imports MPE2, which brings scipy.
    assert extras.keys() - apart <= requirements("dev").keys()


def test_wheel_gets_what_lies_beside_the_package_where_it_is_looked_for():
    wheel = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert tuple(wheel["packages"]) == PACKAGES
    assert wheel["force-include"] == {
        "examples/configs": "mlhooks/configs",
        "benchmarks/learning_results.json": "mlhooks/configs/learning_results.json",
        "docs": "mlhooks/docs",
    }
    assert documentation_links.page() in {ROOT / "docs" / "testing.md", ROOT / "mlhooks" / "docs" / "testing.md"}
    assert example_configs.examples_folder() in {ROOT / "examples" / "configs", ROOT / "mlhooks" / "configs"}
    assert "3dball_ppo" in example_configs.example_names()
    assert all((ROOT / package / "py.typed").exists() for package in PACKAGES)


def test_readme_has_exactly_one_test_command_for_ci():
    (command,) = re.findall(r"<!-- the test command -->\n```bash\n(.*)\n```\n<!-- end of the test command -->", README)
    assert "-c constraints.txt -e '.[dev]'" in command
    assert command.endswith("&& pytest")


def test_page_of_commands_names_every_command():
    assert [name for name in COMMANDS if f"`mlhooks {name}" not in COMMANDS_PAGE] == []


def test_page_of_commands_names_every_flag_of_run():
    flags = [max(param.opts, key=len) for param in run.params if isinstance(param, click.Option)]
    assert [flag for flag in flags if not re.search(rf"`{flag}\b", COMMANDS_PAGE)] == []


def test_readme_links_lead_to_files():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", README)
    assert [link for link in links if not (ROOT / link).exists()] == []


def readme_plugin():
    (source,) = re.findall(r"```python\n(from mlhooks.plugin import hookimpl\n.*?)```", README, flags=re.DOTALL)
    return source


def test_readme_plugin_prints_every_summary(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("lines.py").write_text(readme_plugin(), encoding="utf-8")
    settings = {"max_steps": 600, "hyperparameters.buffer_size": 240, "summary_freq": 240}
    changes = [f"--set=behaviors.3DBall.{key}={value}" for key, value in settings.items()]
    blocked = ["-pno:tensorboard", "-pno:curve"]
    assert main(["run", "3dball_ppo", "-p", "lines.py", "--strict-plugins", *changes, *blocked]) == 0
    lines = re.findall(r"^3DBall, step (\d+): Policy/Entropy = ([\d.]+)$", capsys.readouterr().out, flags=re.MULTILINE)
    # These are the updates, none of which fits between 480 and 600.
    assert [int(step) for step, _ in lines] == [240, 480]
    with Path("results/ppo/stats.jsonl").open(encoding="utf-8") as file:
        stored = [json.loads(line)["values"].get("Policy/Entropy", {}).get("mean") for line in file]
    assert [float(value) for _, value in lines] == pytest.approx(stored[:2], rel=1e-5)


@pytest.mark.slow
def test_readme_plugin_passes_the_conformance_tests(tmp_path):
    (tmp_path / "lines.py").write_text(readme_plugin(), encoding="utf-8")
    assert main(["plugins", "check", str(tmp_path / "lines.py")]) == 0
