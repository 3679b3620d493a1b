"""`mlhooks plugins new`: writes a package whose plugin works, to be changed into the one that is wanted."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import click

from mlhooks import plugin_sources
from mlhooks.cli.options import Command
from mlhooks.errors import UsageError

TEMPLATES = Path(__file__).parents[1] / "templates"
OFFERS = {"trainer": "a trainer type", "stats-writer": "a statistics writer", "env": "environments"}
"""The kinds of plugin, each with a folder of templates, and what it offers."""
_NAME = re.compile(r"[A-Za-z]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_SUFFIX = ".tmpl"  # keeps tools from taking a template for code


def _new(name: str, kind: str) -> None:
    """Write the package NAME, into a new folder of that name.

    It has its tests, passes them and the conformance run as it is, and says in its README where to go on.
    """
    words = names_for(name)
    folder = Path(words["my-distribution"])
    if folder.exists():
        raise UsageError(f"{folder} exists already, and nothing was written. Choose another name, or remove it first.")
    written = write_package(kind, folder, words)
    plugin = words["my-plugin"]
    click.echo(f"Wrote {folder}:")
    for path in written:
        click.echo(f"  {path.relative_to(folder).as_posix()}")
    commands = {
        f"cd {folder}": "",
        "pip install -e '.[dev]'": "",
        "pytest": "its own tests",
        f"pytest --mlhooks-plugin {plugin}": f"what mlhooks demands of every plugin that offers {OFFERS[kind]}",
        f"mlhooks run {'3dball_ppo' if kind == 'stats-writer' else 'example.yaml'}": "",
    }
    click.echo("\nNext:")
    for command, why in commands.items():
        click.echo(f"  {command:<{max(map(len, commands))}}  {f'# {why}' if why else ''}".rstrip())
    click.echo(f"Then change src/{words['my_module']}/__init__.py.")


def names_for(name: str) -> dict[str, str]:
    """What stands in a package called `name` in place of the names that the templates use.

    The plugin is called as the distribution, without a leading `mlhooks-`.

    Raises:
        UsageError: `name` is no name of a distribution, or its module or plugin would take another one's place.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name for a package: use letters, digits and hyphens, beginning with a letter, such as "
            "mlhooks-my-trainer."
        )
    distribution = re.sub(r"[-_.]+", "-", name).lower()
    module = distribution.replace("-", "_")
    plugin = distribution.removeprefix("mlhooks-")
    if keyword.iskeyword(module) or module in sys.stdlib_module_names or _is_importable(module):
        raise UsageError(
            f"{name}: Python has a module or a word {module!r} already, which the package would hide. Choose another "
            f"name, such as mlhooks-my-{plugin}."
        )
    taken = [*plugin_sources.builtins(), *plugin_sources.from_entry_points()]
    for origin in (candidate.origin for candidate in taken):
        if origin.name == plugin and origin.distribution != distribution:
            raise UsageError(f"{name}: there is a plugin {plugin!r} already, of {origin}. Choose another name.")
    words = "".join(word.capitalize() for word in re.split(r"[^a-z0-9]+", plugin))
    return {"my-distribution": distribution, "my_module": module, "my-plugin": plugin, "MyPlugin": words}


def _is_importable(module: str) -> bool:
    """Whether `import` finds it; a mere folder of that name, which Python takes for a namespace, does not count."""
    try:
        found = importlib.util.find_spec(module)
    except ValueError:  # a module that was made in memory
        return True
    return found is not None and found.origin is not None


def write_package(kind: str, folder: Path, words: Mapping[str, str]) -> list[Path]:
    """Write the package of a kind into a folder that does not exist yet; returns the files, sorted."""
    written = []
    for template in sorted(path for path in (TEMPLATES / kind).rglob("*") if path.is_file()):
        relative = template.relative_to(TEMPLATES / kind).as_posix().removesuffix(_SUFFIX)
        path = folder / _filled(relative, words)
        path.parent.mkdir(parents=True, exist_ok=True)
        text = _filled(template.read_text(encoding="utf-8"), words)
        path.write_text(_aligned(text) if path.suffix == ".md" else text, encoding="utf-8", newline="\n")
        written.append(path)
    return written


def _filled(text: str, words: Mapping[str, str]) -> str:
    # in one pass, because a name may contain one of the templates' names
    return re.sub("|".join(map(re.escape, words)), lambda match: words[match[0]], text)


def _aligned(text: str) -> str:
    """Align the comments of commands that follow each other, which names have moved."""

    def align(block: re.Match[str]) -> str:
        rows = [re.split(r" {2,}# ", line, maxsplit=1) for line in block[0].splitlines()]
        width = max(len(command) for command, _ in rows)
        return "".join(f"{command:<{width}}  # {comment}\n" for command, comment in rows)

    return re.sub(r"(?:^\S.*? {2,}# .*\n)+", align, text, flags=re.MULTILINE)


new = Command(
    "new",
    callback=_new,
    params=[
        click.Argument(["name"]),
        click.Option(["--kind"], type=click.Choice(list(OFFERS)), required=True, help="What the plugin is to offer."),
    ],
    help=_new.__doc__,
)
