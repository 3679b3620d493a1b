"""`mlhooks plugins new`: writes a package whose plugin works, to be changed into the one that is wanted."""

from __future__ import annotations

import importlib.util
import keyword
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import click
from click.shell_completion import CompletionItem

from mlhooks import plugin_sources
from mlhooks.cli.options import Command
from mlhooks.errors import UsageError
from mlhooks.plugin_sources import nearest

TEMPLATES = Path(__file__).parents[1] / "templates"
OFFERS = {
    "trainer": "a trainer type",
    "off-policy-trainer": "a trainer type",
    "optimizer": "an optimizer for a trainer type",
    "network": "a network for a trainer type",
    "stats-writer": "a statistics writer",
    "reward-signal": "a reward signal",
    "exporter": "an exporter of models",
    "env": "environments",
}
"""The kinds of plugin, each with a folder of templates, and what it offers."""
MEANT = {
    **dict.fromkeys(("on-policy-trainer", "trainer-on-policy", "on-policy"), "trainer"),
    **dict.fromkeys(("trainer-off-policy", "off-policy"), "off-policy-trainer"),
    **dict.fromkeys(("writer", "stats", "statistics-writer"), "stats-writer"),
    **dict.fromkeys(("loss", "create-optimizer"), "optimizer"),
    **dict.fromkeys(("policy", "actor", "create-policy"), "network"),
    **dict.fromkeys(("export", "export-model", "model-exporter"), "exporter"),
    **dict.fromkeys(("signal", "reward", "rewards", "intrinsic-reward"), "reward-signal"),
    "environment": "env",
}
"""Other words for a kind."""
_NAME = re.compile(r"[A-Za-z]([A-Za-z0-9._-]*[A-Za-z0-9])?")
_SUFFIX = ".tmpl"  # It keeps tools from taking a template for code.


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
        f"mlhooks run {'example.yaml' if (folder / 'example.yaml') in written else '3dball_ppo'}": "",
    }
    click.echo("\nNext:")
    for command, why in commands.items():
        click.echo(f"  {command:<{max(map(len, commands))}}  {f'# {why}' if why else ''}".rstrip())
    click.echo(f"Then change src/{words['my_module']}/__init__.py.")


def names_for(name: str) -> dict[str, str]:
    """Return what stands in a package called `name` in place of the names that the templates use.

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
    """Return whether `import` finds it; a mere folder, which Python takes for a namespace, does not count."""
    try:
        found = importlib.util.find_spec(module)
    except ValueError:  # The module was made in memory.
        return True
    return found is not None and found.origin is not None


def write_package(kind: str, folder: Path, words: Mapping[str, str]) -> list[Path]:
    """Write the package of a kind into a folder that does not exist yet, and return the files, sorted."""
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
    # One pass does it, because a name may contain one of the templates' names.
    return re.sub("|".join(map(re.escape, words)), lambda match: words[match[0]], text)


def _aligned(text: str) -> str:
    """Align the comments of commands that follow each other, which names have moved."""

    def align(block: re.Match[str]) -> str:
        rows = [re.split(r" {2,}# ", line, maxsplit=1) for line in block[0].splitlines()]
        width = max(len(command) for command, _ in rows)
        return "".join(f"{command:<{width}}  # {comment}\n" for command, comment in rows)

    return re.sub(r"(?:^\S.*? {2,}# .*\n)+", align, text, flags=re.MULTILINE)


class Kind(click.ParamType):  # type: ignore[type-arg]  # Older versions of click have none.
    """A kind of plugin, by any of its names; a wrong one is an error that names the nearest."""

    name = "kind"

    def convert(self, value: str, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the kind's own name."""
        word = value.lower().replace("_", "-")
        kind = MEANT.get(word, word)
        if kind not in OFFERS:
            guess = nearest(word, [*OFFERS, *MEANT]) or "."
            self.fail(f"{value!r} is no kind of plugin{guess} The kinds are {', '.join(OFFERS)}.", param, ctx)
        return kind

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002
        """Offer the kinds."""
        return [CompletionItem(kind, help=offer) for kind, offer in OFFERS.items() if kind.startswith(incomplete)]


new = Command(
    "new",
    callback=_new,
    params=[
        click.Argument(["name"]),
        click.Option(
            ["--kind"],
            type=Kind(),
            required=True,
            help="What the plugin is to offer: trainer, a trainer type that learns from rollouts (on-policy); "
            "off-policy-trainer, one that learns from a replay buffer; optimizer or network, another loss or another "
            "policy network for PPO; reward-signal, a reward signal; stats-writer, a statistics writer; exporter, an "
            "exporter of models; env, environments.",
        ),
    ],
    help=_new.__doc__,
)
