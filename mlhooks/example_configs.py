"""The example configurations that come with mlhooks, found by name from any folder."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from mlhooks.errors import UsageError
from mlhooks.names import VERSION
from mlhooks.plugin_sources import nearest
from mlhooks.shortening import cut
from mlhooks.unity.programs import is_program


def examples_folder() -> Path:
    """Return the folder of the examples: inside the package when it was built, beside it in a checkout."""
    package = Path(__file__).parent
    packaged = package / "configs"
    return packaged if packaged.is_dir() else package.parent / "examples" / "configs"


def example_names() -> list[str]:
    """Return the names of all examples, without their suffix."""
    return sorted(path.stem for path in examples_folder().glob("*.yaml"))


_ENVIRONMENT = re.compile(r"(gymnasium|pettingzoo|sim|python|[^:]*\.py):.")


@dataclass(frozen=True)
class Measured:
    """The results of an example over seeds: mean returns of 100 episodes of the final policy, or games that it wins.

    Attributes:
        measure: `evaluation` for returns; `won` for the share of games, in percent, against the policy that it began
            with.
        median, worst: of the seeds.
        seeds: how many there were.
        steps: of one run; seconds: the median of the time that it took.
    """

    measure: str
    median: float
    worst: float
    seeds: int
    steps: int
    seconds: float


@dataclass(frozen=True)
class Example:
    """An example configuration, as its file and the measurements describe it.

    Attributes:
        name: what `mlhooks run` calls it.
        text: what it is about.
        env_path, trainer_type: what it trains, and how.
        extra: the extra of mlhooks that brings its environment; None where there is nothing to install.
        measured: what it reaches; None where nobody has measured that.
    """

    name: str
    text: str
    env_path: str
    trainer_type: str
    extra: str | None
    measured: Measured | None


def examples() -> list[Example]:
    """Return all examples, by name."""
    results = json.loads(_results_file().read_text(encoding="utf-8"))
    return [_example(name, results.get(name)) for name in example_names()]


def _results_file() -> Path:
    """Return the runs behind docs/results.md: beside the examples in a built package, in benchmarks in a checkout."""
    packaged = Path(__file__).parent / "configs" / "learning_results.json"
    return packaged if packaged.is_file() else examples_folder().parents[1] / "benchmarks" / "learning_results.json"


def _example(name: str, result: dict[str, list[dict[str, float]]] | None) -> Example:
    import yaml  # The command line starts without this import.

    text = (examples_folder() / f"{name}.yaml").read_text(encoding="utf-8")
    document = yaml.safe_load(text)
    about = text.partition("\n")[0].removeprefix("# ")
    needs = re.search(r" Needs .*mlhooks\[(\w+)\].*", about)
    (entry,) = document["behaviors"].values()
    measured = None
    if result is not None:
        runs = result["runs"]
        measure = "won" if "won" in runs[0] else "evaluation"
        scores = [run[measure] for run in runs]
        seconds = median(run["seconds"] for run in runs)
        steps = max(int(run["steps"]) for run in runs)
        measured = Measured(measure, median(scores), min(scores), len(runs), steps, seconds)
    return Example(
        name,
        about[: needs.start()] if needs else about,
        document["env_settings"]["env_path"],
        entry["trainer_type"],
        needs[1] if needs else None,
        measured,
    )


def _names_environment(text: str) -> bool:
    return bool(_ENVIRONMENT.match(text) or (VERSION.search(text) and not text.endswith((".yaml", ".yml"))))


def is_nothing(config: object, flags: Mapping[str, object], overrides: Sequence[str]) -> bool:
    """Return whether a run is asked for without a configuration, an environment, or a run to go on with.

    Such a run would wait for a Unity Editor that most people do not have.
    """
    goes_on = any(flags.get(f"checkpoint_settings.{key}") for key in ("resume", "inference"))
    named = "env_settings.env_path" in flags or any(text.startswith("env_settings") for text in overrides)
    return config is None and not named and not goes_on


def find_config(config: str | Path) -> Path:
    """Return the configuration file that a person means: the file itself, or else the example of that name.

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
    if path.suffix == ".py" or (not there and _names_environment(str(config))):
        full = f"gymnasium:{config}" if VERSION.search(str(config)) and ":" not in str(config) else str(config)
        full = f"{full}:CLASS" if path.suffix == ".py" else full
        raise UsageError(f"{config} is no configuration. An environment stands behind --env: mlhooks run --env {full}")
    if there and path.suffix == ".pt" and path.is_file():
        raise UsageError(
            f"{path} is what a run learned, not a configuration. To let it act, say --inference and the --run-id of "
            "its run; to train on, --resume and the --run-id; in Python, mlhooks.load takes the file."
        )
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
    if path.is_dir() and Path(path, "run_logs").is_dir() and "configuration.yaml" in files:
        raise UsageError(
            f"{path} is the folder of a run, and a configuration is a file. To go on with the run, say --resume and "
            f"its --run-id; to train again with its settings, say {path / 'configuration.yaml'}."
        )
    if path.is_dir():
        inside = f"the files in it are {', '.join(files)}" if files else "there is none in it"
        raise UsageError(f"{path} is a folder, and a configuration is a file; {inside}.")
    guess = nearest(path.name, files) or nearest(name, names) or "."
    raise UsageError(
        f"There is no configuration file {cut(repr(str(path)), 300)}, and no example of that name{guess} "
        f"The examples are {', '.join(names)}."
    )
