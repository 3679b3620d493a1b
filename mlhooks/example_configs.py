"""The example configurations that come with mlhooks, found by name from any folder."""

from __future__ import annotations

from pathlib import Path

from mlhooks.describing import cut
from mlhooks.errors import UsageError
from mlhooks.plugin_sources import nearest
from mlhooks.unity.programs import is_program


def examples_folder() -> Path:
    """The folder of the examples: inside the package when it was built, beside it in a checkout."""
    package = Path(__file__).parent
    packaged = package / "configs"
    return packaged if packaged.is_dir() else package.parent / "examples" / "configs"


def example_names() -> list[str]:
    """The names of all examples, without their suffix."""
    return sorted(path.stem for path in examples_folder().glob("*.yaml"))


def find_config(config: str | Path) -> Path:
    """The configuration file that a person means: the file itself, or else the example of that name.

    Args:
        config: a path, or the name of an example with or without `.yaml`.

    Raises:
        UsageError: there is neither, or the file is a program.
    """
    path = Path(config)
    try:
        there = path.exists()
    except OSError as error:
        raise UsageError(f"{cut(repr(str(path)), 300)} cannot be a configuration file: {error.strerror}.") from error
    if there and not path.is_dir():
        # Of a pipe, even a look at its first bytes takes them away.
        if path.suffix not in {".yaml", ".yml"} and path.is_file() and is_program(path):
            raise UsageError(f"{path} is a program, not a configuration. A player stands behind --env: --env {path}")
        return path
    name = path.name.removesuffix(".yaml")
    names = example_names()
    if path.parent == Path() and name in names:
        return examples_folder() / f"{name}.yaml"
    files = sorted(file.name for file in (path if path.is_dir() else path.parent).glob("*.y*ml"))
    if path.is_dir():
        inside = f"the files in it are {', '.join(files)}" if files else "there is none in it"
        raise UsageError(f"{path} is a folder, and a configuration is a file; {inside}.")
    guess = nearest(path.name, files) or nearest(name, names) or "."
    raise UsageError(
        f"There is no configuration file {cut(repr(str(path)), 300)}, and no example of that name{guess} "
        f"The examples are {', '.join(names)}."
    )
