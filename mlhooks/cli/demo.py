"""`mlhooks demo`: what is in demonstrations, and recording new ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mlhooks.cli import completing
from mlhooks.cli.options import Command, SectionedCommand, SectionOption, plugin_options
from mlhooks.errors import UsageError

if TYPE_CHECKING:
    from mlhooks.demos.records import Records

LAST, BEST, RANDOM = "last", "best", "random"


def _info(path: Path, as_json: bool) -> None:
    """Tell what is in FILE, a .demo file or a folder of them.

    It has the behavior's observations and actions, the steps, the episodes and their mean reward.
    """
    from mlhooks.demos.demonstration import read_demos

    files = [{"path": str(file), **_described(records)} for file, records in read_demos(path).items()]
    if as_json:
        click.echo(json.dumps({"files": files} if path.is_dir() else files[0], indent=1))
        return
    for described in files:
        click.echo(f"{described['path']}: behavior {described['behavior']!r}")
        for index, observation in enumerate(described["observations"]):
            name = f" ({observation['name']})" if observation["name"] else ""
            click.echo(f"  observation {index}{name}: {observation['shape']}")
        actions = described["actions"]
        click.echo(f"  actions: {actions['continuous']} continuous, discrete branches {actions['discrete']}")
        click.echo(f"  {_counted(described)}")


def _described(records: Records) -> dict[str, Any]:
    actions = records.spec.action_spec
    return {
        "behavior": records.behavior_name,
        "observations": [{"name": obs.name, "shape": list(obs.shape)} for obs in records.spec.observation_specs],
        "actions": {"continuous": actions.continuous_size, "discrete": list(actions.discrete_branches)},
        "steps": len(records),
        "transitions": len(records.rows),
        "episodes": records.episodes,
        "mean_reward": records.mean_reward,
    }


def _counted(described: Mapping[str, Any]) -> str:
    episodes = "1 episode" if described["episodes"] == 1 else f"{described['episodes']:,} episodes"
    return (
        f"{described['steps']:,} steps in {episodes}, mean reward {described['mean_reward']:.3f}; "
        f"{described['transitions']:,} transitions to learn from"
    )


def _record(
    run: str | None,
    env: str | None,
    policy: str | None,
    behavior: str | None,
    episodes: int,
    output: Path,
    stochastic: bool,
    seed: int,
    results_dir: Path,
    force: bool,
    overrides: tuple[str, ...],
    plugin_names: tuple[str, ...],
    plugins_dir: Path | None,
) -> None:
    """Play episodes, and record what the agents of a behavior see and do.

    With RUN, a run's id or folder, its policy acts in its environment; without it, a random policy acts in --env. A
    function of your own acts by --policy FILE.py:FUNCTION: it is called with the observation of one agent and returns
    its action, for a Gymnasium environment what that shows and takes. The file is one of ML-Agents' format.
    """
    from mlhooks.demos.demonstration import SUFFIX

    if output.suffix != SUFFIX:
        raise UsageError(f"-o {output}: a demonstration is called NAME{SUFFIX}.")
    if output.exists() and not force:
        raise UsageError(f"{output} exists already: choose another name, or say --force to replace it.")
    if run is None and env is None:
        raise UsageError("Name a RUN whose policy is to be recorded, or an environment by --env, as sim:Basic.")
    policy = policy or (LAST if run else RANDOM)
    if run is None and policy in {LAST, BEST}:
        raise UsageError(f"--policy {policy} is that of a RUN, and none is named.")

    from mlhooks.demos.writing import write_demo
    from mlhooks.envs.closing import close
    from mlhooks.training.environment_scheme import make_factory
    from mlhooks.training.recording import Recorder

    source = None if run is None else _source(run, results_dir, env)
    flags: dict[str, Any] = {
        "env_settings.seed": seed,
        "env_settings.num_envs": 1,
        "checkpoint_settings.inference": True,
    }
    flags |= {} if env is None else {"env_settings.env_path": env}
    options, manager, names = _options(source, flags, overrides, plugin_names, plugins_dir)
    make_actor = _actors(source, policy, stochastic, options.env_settings.seed, names, plugins_dir)
    factory = make_factory(options, manager)
    factory.check()
    made = factory(0)
    try:
        records = Recorder(made, make_actor, behavior).record(episodes)
    finally:
        close(made, "The environment")
    write_demo(output, records)
    click.echo(f"{output}: {_counted(_described(records))}")


def _source(run: str, results_dir: Path, env: str | None) -> Path:
    """Return the folder of a run that is named by its id or path, or the file of a policy."""
    from mlhooks.training.which_run import no_run

    for path in (Path(run), results_dir / run):
        if (path / "configuration.yaml").is_file():
            return path
    if Path(run).is_file():
        if env is None:
            raise UsageError(f"{run} is the file of a policy: name the environment in which it is to act by --env.")
        return Path(run)
    text = no_run(results_dir, run)
    raise UsageError(text[0].upper() + text[1:])


def _options(
    source: Path | None,
    flags: dict[str, Any],
    overrides: tuple[str, ...],
    plugin_names: tuple[str, ...],
    plugins_dir: Path | None,
) -> tuple[Any, Any, list[str]]:
    """Return the options of the environment, the plugins, and the values of `-p` that name them."""
    import numpy as np

    from mlhooks.settings import read_configuration
    from mlhooks.training.admission import admit
    from mlhooks.training.named_plugins import name_all_plugins

    file = source / "configuration.yaml" if source is not None and source.is_dir() else None
    configuration = read_configuration(file)
    named = name_all_plugins(
        configuration,
        flags=flags,
        overrides=overrides,
        names=plugin_names,
        plugins_dir=plugins_dir,
        stored=file is not None,
    )
    manager = named.load()
    options = admit(named.configuration, manager, flags=flags, overrides=overrides).options
    if options.env_settings.seed < 0:
        options.env_settings.seed = int(np.random.default_rng().integers(0, 10_000))
    manager.configure(options)
    return options, manager, [*named.configured, *plugin_names]


def _actors(
    source: Path | None, policy: str, stochastic: bool, seed: int, names: list[str], plugins_dir: Path | None
) -> Any:
    """Return what makes the actor of each behavior that the environment shows."""
    import numpy as np

    from mlhooks.training.recording import Random, Scripted, Trained

    if policy == RANDOM:
        return lambda name, spec, spaces: Random(spec, np.random.default_rng(seed))  # noqa: ARG005
    if policy in {LAST, BEST}:
        from mlhooks.api import load

        def trained(name: str, spec: Any, spaces: Any) -> Trained:  # noqa: ARG001
            whose = name if source is not None and source.is_dir() else None
            best = policy == BEST
            assert source is not None
            loaded = load(source, whose, best=best, plugin_names=names, plugins_dir=plugins_dir)
            return Trained(loaded, not stochastic, name, spec, np.random.default_rng(seed))

        return trained
    from mlhooks.envs.references import find

    found = find(policy)
    function = found() if isinstance(found, type) else found
    return lambda name, spec, spaces: Scripted(function, policy, spec, spaces)  # noqa: ARG005


def _record_options() -> list[SectionOption]:
    def option(section: str, names: list[str], text: str, **attrs: Any) -> SectionOption:
        return SectionOption(names, section=section, help=text, **attrs)

    return [
        option(
            "Demonstration",
            ["-o", "--output"],
            "The file to write, NAME.demo.",
            type=click.Path(dir_okay=False, path_type=Path),
            metavar="FILE",
            required=True,
        ),
        option(
            "Demonstration",
            ["--episodes"],
            "How many episodes to record. [10]",
            metavar="N",
            type=click.IntRange(min=1),
            default=10,
        ),
        option("Demonstration", ["--behavior"], "Which behavior to record, where there are several.", metavar="NAME"),
        option("Demonstration", ["--force"], "Replace the file if there is one.", is_flag=True),
        option(
            "Policy",
            ["--policy"],
            "Who acts: the last or the best policy of RUN, random, or a function as FILE.py:FUNCTION. [last, or random "
            "without RUN]",
            metavar="POLICY",
        ),
        option(
            "Policy",
            ["--stochastic"],
            "Let the policy of RUN draw its actions instead of taking the likeliest ones.",
            is_flag=True,
        ),
        option("Policy", ["--seed"], "Seed of all random numbers; -1 draws one. [-1]", type=int, default=-1),
        option(
            "Policy",
            ["--results-dir"],
            "Folder in which RUN is. [results]",
            type=click.Path(file_okay=False, path_type=Path),
            metavar="DIR",
            default=Path("results"),
        ),
        option(
            "Environment",
            ["--env"],
            "The environment, as `mlhooks run --env`; by default that of RUN.",
            metavar="PATH",
            shell_complete=completing.environments,
        ),
        option(
            "Environment",
            ["--set", "overrides"],
            "Change one setting, as in --set env_settings.num_areas=8. May be given many times.",
            metavar="KEY.PATH=VALUE",
            multiple=True,
            shell_complete=completing.settings,
        ),
        *plugin_options(),
    ]


demo = click.Group(
    "demo",
    help="Look at demonstrations of experts, and record new ones.",
    commands=[
        Command(
            "info",
            callback=_info,
            help=_info.__doc__,
            params=[
                click.Argument(["path"], metavar="FILE", type=click.Path(path_type=Path)),
                click.Option(["--json", "as_json"], is_flag=True, help="Print JSON."),
            ],
        ),
        SectionedCommand(
            "record",
            callback=_record,
            help=_record.__doc__,
            params=[click.Argument(["run"], required=False, shell_complete=completing.run_ids), *_record_options()],
        ),
    ],
)
