"""The options of a run: every section of the configuration, with ML-Agents' attribute names."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, SerializeAsAny, WithJsonSchema

from mlhooks.errors import SettingsError
from mlhooks.finding import Finding
from mlhooks.plugin_sources import name_of
from mlhooks.settings.base import PathText, Problem, RunId, SettingsModel, check_text, extension
from mlhooks.settings.behaviors import EvaluationSettings, TrainerSettings
from mlhooks.settings.environment_parameters import FLOAT32, INT32, EnvironmentParameterSettings
from mlhooks.settings.findings import KeyPath, Origin, Place, error_from, nearest
from mlhooks.settings.yaml_source import dump_yaml

_LONGEST_WAIT = 2_000_000
"""Seconds; what waits for sockets and pipes counts milliseconds in 32 bits."""


def _storable(value: dict[str, Any] | None) -> dict[str, Any] | None:
    stack: list[Any] = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, dict | list):
            stack.extend([*item, *item.values()] if isinstance(item, dict) else item)
        elif isinstance(item, str):
            check_text(item)
        elif not isinstance(item, bool | int | float | None):
            raise ValueError(f"holds a {type(item).__name__}, which configuration.yaml cannot store")  # noqa: TRY004
    return value


def _one_wrapper(value: Any) -> dict[str, dict[str, Any]]:
    """Return an entry of `wrappers` as a mapping of the wrapper's name to its arguments."""
    if isinstance(value, str) and value:
        return {value: {}}
    if not isinstance(value, dict) or not value:
        raise ValueError("names no wrapper: write Name, or Name: {argument: value}")
    name, *others = value
    if others and value[name] is None:
        raise ValueError(f"is more than one key: indent the arguments of {name} deeper, or write {name}: {{...}}")
    if others:
        raise ValueError(f"names {', '.join(value)} at once: each wrapper is an entry of its own, with a dash")
    arguments = {} if value[name] is None else value[name]
    if not isinstance(arguments, dict):
        raise ValueError(f"gives {name} something that has no names: write {name}: {{argument: value}}")  # noqa: TRY004
    return {name: _storable(arguments) or {}}


WrapperEntry: TypeAlias = Annotated[
    Any,
    AfterValidator(_one_wrapper),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "minLength": 1},
                {
                    "type": "object",
                    "minProperties": 1,
                    "maxProperties": 1,
                    "additionalProperties": {"type": ["object", "null"]},
                },
            ]
        }
    ),
]
"""The name of a wrapper, or its name with its arguments: `{FrameStackObservation: {stack_size: 4}}`."""

FOR_ONE_RUN = ("force", "resume", "inference")
"""Keys of checkpoint_settings that are said for one invocation; in a file they have no effect."""


class TeamSettings(SettingsModel):
    """A team of agents in an environment of PettingZoo: their behavior, their side in self-play, and their group."""

    agents: list[str] = Field(
        min_length=1, description="Names of agents, in which * stands for any text and ? for one letter."
    )
    behavior: str | None = Field(
        default=None, min_length=1, description="The behavior by which they act; null for that of their spaces."
    )
    team: int | None = Field(
        default=None, ge=0, le=INT32, description="Number of the team in self-play; null where there is none."
    )
    group: Literal["own", "mean", "sum"] | None = Field(
        default=None,
        description="Make them a group in each copy, as POCA trains: each has its own rewards, or the mean or sum of "
        "these is the group's; null for no group.",
    )

    def problems(self) -> Iterator[Problem]:
        """Refuse a name of a behavior with a team in it."""
        if self.behavior is not None and "?" in self.behavior:
            message = f"{self.behavior} has a question mark: write the number of the team under the key team"
            yield Problem(("behavior",), message)


class EnvironmentSettings(SettingsModel):
    """The environment, the number of its workers and copies, and the limits of its restarts."""

    env_path: PathText | None = Field(
        default=None,
        description="The environment: scheme:name, or the path of a Unity player; null for the Unity editor.",
    )
    env_args: list[str] | None = Field(default=None, description="Arguments for the Unity player.")
    base_port: int = Field(default=5005, ge=0, le=65535, description="First port of the Unity protocol.")
    num_envs: int = Field(default=1, ge=1, le=65535, description="Worker processes, or Unity players.")
    num_areas: int = Field(default=1, ge=1, le=INT32, description="Copies of the environment in each worker.")
    timeout_wait: int = Field(default=60, ge=0, le=_LONGEST_WAIT, description="Seconds to wait for an environment.")
    seed: int = Field(default=-1, ge=-1, le=2**32 - 1, description="Seed of everything random; -1 for a random one.")
    max_lifetime_restarts: int = Field(
        default=10, ge=-1, description="Restarts of a failed environment; -1 for no limit."
    )
    restarts_rate_limit_n: int = Field(default=1, ge=-1, description="Restarts within the period; -1 for no limit.")
    restarts_rate_limit_period_s: int = Field(default=60, ge=0, description="Length of that period in seconds.")
    env_kwargs: Annotated[dict[str, Any] | None, AfterValidator(_storable)] = extension(
        None, description="Keyword arguments for the environment, such as gymnasium.make's."
    )
    wrappers: list[WrapperEntry] | None = extension(
        None,
        description="Wrappers around each copy of a Gymnasium environment, the innermost first: Gymnasium's by name, "
        "your own as FILE.py:CLASS or MODULE:CLASS.",
    )
    atari: bool = extension(
        False,
        description="Preprocess an Atari game as usual (Mnih et al. 2015; SB3's AtariWrapper): AtariPreprocessing, "
        "EpisodicLife, a stack of 4 frames, and rewards clipped to [-1, 1].",
    )
    check: Literal["first", "always", "never"] = extension(
        "first",
        description="Which observations of each copy must be within the bounds of their space: the first ones, but "
        "with only a warning at the end of an episode; all; or none.",
    )
    max_entities: int | None = extension(
        None,
        ge=1,
        le=10**6,
        description="Members that a Gymnasium Sequence has at most where its space has no max_length.",
    )
    grid_observations: bool = extension(
        False,
        description="Read Boxes of three or four dimensions that are no images, such as boards, by the encoder of "
        "images, as ML-Agents reads grid sensors, and not as vectors.",
    )
    teams: list[TeamSettings] | None = extension(
        None, description="Behaviors, teams and groups of a PettingZoo environment's agents; null: by spaces alone."
    )
    bind: str | None = extension(
        None, description="Address on which Unity players are awaited; null for this machine's loopback address."
    )

    _whole_episodes: bool = PrivateAttr(default=False)

    @property
    def whole_episodes(self) -> bool:
        """Whether episodes are played to see how good a policy is, so that no wrapper may cut them short."""
        return self._whole_episodes

    @whole_episodes.setter
    def whole_episodes(self, wanted: bool) -> None:
        self._whole_episodes = wanted

    def problems(self) -> Iterator[Problem]:
        """Refuse several workers for the Unity Editor, which is a single environment."""
        if self.num_envs > 1 and self.env_path is None:
            message = "num_envs must be 1 without env_path: the Unity editor is a single environment"
            yield Problem(("num_envs",), message)


class EngineSettings(SettingsModel):
    """The rendering and the time of a Unity player."""

    width: int = Field(default=84, ge=1, le=INT32, description="Width of the window in pixels.")
    height: int = Field(default=84, ge=1, le=INT32, description="Height of the window in pixels.")
    quality_level: int = Field(default=5, ge=0, le=INT32, description="Unity's quality level.")
    time_scale: float = Field(default=20, ge=0, le=FLOAT32, description="How many times faster than real time.")
    target_frame_rate: int = Field(default=-1, ge=-1, le=INT32, description="Frames per second; -1 for no limit.")
    capture_frame_rate: int = Field(
        default=60, ge=0, le=INT32, description="Frames per second of simulated time; 0 for real time."
    )
    no_graphics: bool = Field(default=False, description="Run without a graphics device.")
    no_graphics_monitor: bool = Field(default=False, description="Give only the first player a graphics device.")


class CheckpointSettings(SettingsModel):
    """The place of a run's results, and the way it starts."""

    run_id: RunId = Field(default="ppo", min_length=1, description="Name of the run, and of its folder.")
    initialize_from: str | None = Field(default=None, description="Name of the run whose weights to start from.")
    load_model: bool = Field(default=False, description="Deprecated and without effect: resume.")
    resume: bool = Field(default=False, description="Continue the run of this name.")
    force: bool = Field(default=False, description="Overwrite the run of this name.")
    train_model: bool = Field(default=False, description="Deprecated and without effect: runs train anyway.")
    inference: bool = Field(default=False, description="Act without learning.")
    results_dir: PathText = Field(default="results", min_length=1, description="Folder of all runs.")

    _results_dir_as_said: str | None = PrivateAttr(default=None)

    def anchor(self, folder: Path) -> None:
        """Take a relative results_dir for one in this folder, wherever the working directory will be."""
        self._results_dir_as_said = self._results_dir_as_said or self.results_dir
        self.results_dir = str(folder / self.results_dir)

    @property
    def write_path(self) -> str:
        """The folder of this run."""
        return os.path.join(self.results_dir, self.run_id)  # noqa: PTH118 - It is text, as in ML-Agents.

    @property
    def maybe_init_path(self) -> str | None:
        """The folder of the run to start from, if there is one."""
        return self.initialize_from and os.path.join(self.results_dir, self.initialize_from)  # noqa: PTH118

    @property
    def run_logs_dir(self) -> str:
        """The folder of this run's logs."""
        return os.path.join(self.write_path, "run_logs")  # noqa: PTH118

    def problems(self) -> Iterator[Problem]:
        """Report flags that ML-Agents still reads and no longer obeys."""
        if self.load_model:
            yield Problem(("load_model",), "load_model is deprecated and has no effect; use resume", "warning")
        if self.train_model:
            message = "train_model is deprecated and has no effect; remove it, runs train unless inference is set"
            yield Problem(("train_model",), message, "warning")


class TorchSettings(SettingsModel):
    """The device, threads and precision of torch."""

    ignores_unknown_keys: ClassVar[bool] = True

    device: str | None = Field(default=None, description="Device, such as cpu or cuda:0; null for the best there is.")
    threads: int | None = extension(
        None,
        ge=1,
        le=4096,
        description="Threads of one operation; null: one, or all for large networks, images and entities.",
    )
    compile: bool = extension(
        False, description="Have torch.compile compile what torch computes of networks; it needs a C++ compiler."
    )
    autocast: Literal["bfloat16"] | None = extension(
        None, description="Type in which torch computes networks; null: float32, in which all else is computed anyway."
    )
    plain: bool = extension(
        False, description="Compute everything in plain torch and numpy, slowly: does a fault also show there?"
    )


def _is_no_block(value: str) -> str:
    if value.startswith("no:"):
        raise ValueError("no: belongs to -p; what is to be kept out stands by its name alone under plugins.block")
    return value


PluginText: TypeAlias = Annotated[PathText, Field(min_length=1), AfterValidator(_is_no_block)]
"""The name of a plugin or module, or the path of a .py file."""


class BlockedSettings(BaseModel):
    """Settings of a blocked plugin, kept as they are written, because their model is not loaded."""

    model_config = ConfigDict(extra="allow")


class PluginsSettings(SettingsModel):
    """The plugins of a run beside the built-in and installed ones, and settings of plugins."""

    load: list[PluginText] = Field(
        default_factory=list, description="Plugins to load: names, modules, and .py files relative to this file."
    )
    block: list[PluginText] = Field(default_factory=list, description="Plugins to keep out, by their names.")
    settings: dict[str, SerializeAsAny[BaseModel]] = Field(
        default_factory=dict, description="Settings by the name under which a plugin offers them."
    )

    def problems(self) -> Iterator[Problem]:
        """Refuse a plugin that is both loaded and blocked."""
        loaded = {name_of(text) for text in self.load}
        for index, text in enumerate(self.block):
            if name_of(text) in loaded:
                yield Problem(("block", index), f"{text} is also under load; remove one of the two")


class RunOptions(SettingsModel):
    """All options of a run. Two are equal when they mean the same, wherever they came from."""

    default_settings: TrainerSettings | None = Field(
        default=None, description="Settings that every behavior starts from."
    )
    behaviors: dict[str, TrainerSettings] = Field(default_factory=dict, description="Settings by behavior name.")
    env_settings: EnvironmentSettings = Field(default_factory=EnvironmentSettings, description="The environment.")
    engine_settings: EngineSettings = Field(default_factory=EngineSettings, description="The Unity player.")
    environment_parameters: dict[str, EnvironmentParameterSettings] | None = Field(
        default=None, description="Parameters that the environment reads, by name."
    )
    checkpoint_settings: CheckpointSettings = Field(
        default_factory=CheckpointSettings, description="Where the run is stored, and how it starts."
    )
    torch_settings: TorchSettings = Field(default_factory=TorchSettings, description="Where and how torch computes.")
    plugins: PluginsSettings = extension(
        default_factory=PluginsSettings, description="The plugins to load, and settings of their own."
    )
    debug: bool = Field(default=False, description="Say more while running.")

    _fallback: TrainerSettings | None = PrivateAttr(default=None)
    _origin: Origin = PrivateAttr(default_factory=Origin)
    _environment: Callable[..., Any] | None = PrivateAttr(default=None)

    @property
    def own_environment(self) -> Callable[..., Any] | None:
        """The class or function that was handed to `mlhooks.train` as the environment; no configuration names it."""
        return self._environment

    @own_environment.setter
    def own_environment(self, maker: Callable[..., Any] | None) -> None:
        self._environment = maker

    def place_of(self, path: KeyPath, *, of_key: bool = False) -> Place:
        """Return where a setting is written, for a `Finding` about it.

        Args:
            path: the setting's keys.
            of_key: whether the place is that of the key, not that of its value.
        """
        return self._origin.place(path, of_key=of_key)

    def settings_for(self, behavior_name: str) -> TrainerSettings:
        """Return the settings of a behavior: its own entry, or the default settings.

        Raises:
            SettingsError: the configuration lists behaviors, but not this one, and has no default_settings.
        """
        fallback = self.default_settings or self._fallback
        if behavior_name in self.behaviors or fallback is None:
            try:
                return self.behaviors[behavior_name]
            except KeyError:
                raise self._not_listed(behavior_name) from None
        return fallback.model_copy(deep=True)

    @property
    def trainer_types(self) -> set[str]:
        """The trainer types that are named."""
        entries = [*self.behaviors.values(), *([self.default_settings] if self.default_settings else [])]
        return {entry.trainer_type for entry in entries}

    @property
    def evaluations(self) -> list[EvaluationSettings]:
        """How behaviors are evaluated while they are trained; nothing with inference."""
        entries = [*self.behaviors.values(), self.default_settings or self._fallback]
        found = [entry.evaluation for entry in entries if entry is not None and entry.evaluation is not None]
        return [] if self.checkpoint_settings.inference else found

    def with_evaluation(self) -> RunOptions:
        """Return the options with the environment of evaluations counted as one more worker, if there are any."""
        env = self.env_settings
        if not self.evaluations or env.env_path is None:  # The Unity Editor is a single one.
            return self
        return self.model_copy(update={"env_settings": env.model_copy(update={"num_envs": env.num_envs + 1})})

    def without_behaviors(self) -> RunOptions:
        """Return a copy with what environments need, which is small enough to be sent to each worker process."""
        options = self.model_copy(update={"behaviors": {}, "default_settings": None})
        options._fallback, options._origin = None, Origin()
        return options

    def _not_listed(self, behavior_name: str) -> SettingsError:
        near = nearest(behavior_name, self.behaviors)
        change = f"write {behavior_name!r} in place of {near!r}, or change the other" if near else "change one of them"
        finding = Finding(
            severity="error",
            file=self._origin.file,
            key="behaviors",
            message=f"the environment shows the behavior {behavior_name!r}, and the configuration has "
            f"{' and '.join(map(repr, self.behaviors)) or 'none'}. The names must be equal: {change} (in Unity, the "
            "Behavior Name of the agent's Behavior Parameters), or give default_settings for all others",
        )
        return error_from(SettingsError, [finding])

    def to_store(self) -> RunOptions:
        """Return the options as a run stores them, without what was said for this invocation alone."""
        checkpoint = self.checkpoint_settings
        said = {"results_dir": checkpoint._results_dir_as_said or checkpoint.results_dir}
        flags = dict.fromkeys(FOR_ONE_RUN, False)
        return self.model_copy(update={"checkpoint_settings": checkpoint.model_copy(update={**said, **flags})})

    def to_yaml(self) -> str:
        """Return the resolved options as YAML, which reads back equal."""
        return dump_yaml(self.as_dict())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunOptions) and self.as_dict() == other.as_dict()
