"""The command line of the player stand-in: a Unity player's own arguments, and those that say what to play."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NoReturn

from mlhooks.errors import UsageError

SIMULATIONS = (
    *("3DBall", "Basic", "GridWorld", "PushTogether", "Recall", "Sacrifice", "Sorter"),
    *("StrikeAndGuard", "Tag"),
)
"""The names of `mlhooks.sims.SIMULATIONS`, which is imported later."""
SCENES: dict[str, tuple[str, ...]] = {
    "SoccerTwos": tuple(f"SoccerTwos?team={team}:bare+3x3x3+rays264+rays72+group+stay+contest*2" for team in (0, 1)),
    "StrikersVsGoalie": (
        "Goalie?team=0:bare+3x3x3+rays738+group+stay+contest*1",
        "Striker?team=1:bare+3x3x3+rays231+rays63+group+stay+contest*2",
    ),
    "DungeonEscape": ("DungeonEscape:bare+7+rays175+rays1+group*3",),
    "PushBlockCollab": ("PushBlockCollab:bare+7+grid6x20x20+group+stay*3",),
}
"""Scripted behaviors of the shapes, teams and groups of scenes of ML-Agents, whose courses they do not have."""
WORLDS = (*SIMULATIONS, "scripted", *SCENES)
OBSERVATIONS = ("buffer", "goal", "gray", "png", "stack", "tensor")
ACTIONS = ("continuous", "discrete", "branches", "hybrid")
TRAITS = (*OBSERVATIONS, *ACTIONS, "mask", "group", "skip")
OF_TEAMS = ("bare", "stay", "contest")
SIZED = {
    "branches": re.compile(r"\d+(x\d+)*"),
    "rays": re.compile(r"rays(\d+)"),
    "grid": re.compile(r"grid(\d+)x(\d+)x(\d+)"),
}
"""Traits with numbers: sizes of branches, of a vector, of a grid's channels, height and width."""
FAULTS = ("crash", "exit", "hang", "stall", "slow-start", "quit", "nan", "nan-reward", "shape", "version", "close")
AT_START = ("slow-start", "version")
IN_MESSAGE = ("nan", "nan-reward", "shape", "close")
CURRENT = "1.5.0"
DEFAULT = (
    "Continuous:continuous+skip",
    "Discrete:discrete+mask+goal",
    "Branches:branches+mask+buffer+skip",
    "Hybrid:hybrid+mask+gray+png+stack+tensor",
    "Group:discrete+group",
    "Late:continuous+buffer@20",
)
SIZES: dict[str, tuple[int, tuple[int, ...]]] = {
    "continuous": (2, ()),
    "discrete": (0, (3,)),
    "branches": (0, (3, 2, 4)),
    "hybrid": (2, (3, 2)),
}
"""Number of continuous actions and sizes of discrete branches."""
_TEAM, _SIZES = re.compile(r"[^?]+(\?team=\d+)?"), re.compile(r"\d+")

EPILOG = f"""\
--behavior gives a behavior's name, which may end in ?team=T. For a simulation it replaces the simulation's own name.
For `scripted` it may be given many times and go on with traits and the step at which the behavior appears, as in
Walker, Striker?team=1:discrete+mask+group*2 or Late:hybrid+png@50; *2 is the number of its agents in an area. The
traits are
  {", ".join(OBSERVATIONS)}: more sensors, as are rays264, a vector, and grid6x20x20;
  {", ".join(ACTIONS)}: the kind of actions, one of them, or sizes of branches, as in 3x3x3;
  mask, group, skip: forbidden actions, groups with group rewards, agents that do not decide at every step;
  stay, contest, bare: no member of a group leaves before the others; teams win 1 and lose 1 in place of rewards for
  steps; there are no sensors but those named.
Every other scripted behavior has the sensors "clock" (seed, agent, episode, step) and "action" (the agent's last one).
{", ".join(SCENES)}
are scripted, too, with the sensors, actions, teams and groups of those scenes.

A fault happens just before message --fault-step, counted from 1 after the handshake; 0 is before the player connects.
`hang` at message 1 is a player whose agents never ask for a decision. Unity's own arguments are accepted; -logFile PATH
is honoured and the others change nothing.
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message[:1].upper()}{message[1:]}. Say --help for the arguments of the player stand-in.")


def parse(arguments: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """Return the options among the arguments, and the others, which a Unity player may understand.

    Raises:
        UsageError: The world is unknown, or an option has a value that it cannot have.
    """
    options, others = _parser().parse_known_args(list(arguments))
    if options.fault_step is None:
        options.fault_step = 0 if options.fault in AT_START else 1
    if options.fault_step == 0 and options.fault in IN_MESSAGE:
        raise UsageError(f"--fault {options.fault} spoils a message, so its --fault-step is 1 or more.")
    if options.fault_step > 0 and options.fault == "version":
        raise UsageError("A player names its version at the start: --fault version has no --fault-step.")
    return options, others


def _parser() -> _Parser:
    parser = _Parser(
        "sim-player",
        description="Play a simulation as a Unity player would: connect to a trainer's port and obey it.",
        epilog=EPILOG,
        add_help=False,  # -h is the beginning of other players' arguments
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("world", metavar="NAME", choices=WORLDS, help=f"what to play: {', '.join(WORLDS)}")
    add("--help", action="help", help="show this message and exit")
    add("--mlagents-port", nargs="?", metavar="PORT", help="the trainer's port; the last one given counts")
    add("-logFile", "-logfile", dest="log_file", metavar="PATH", help="where to write the log; - is standard output")
    add("--write-executable", type=Path, metavar="PATH", help="write a file that starts this player, and exit")
    add("--behavior", action="append", default=[], dest="behaviors", metavar="NAME", help="see below")
    add("--agents", type=_positive, metavar="N", help="agents in one area, of each behavior")
    add("--areas", type=_positive, metavar="N", help="areas, in place of the number that the trainer asks for")
    add("--agent-ids", choices=("stay", "change"), default="stay", help="whether an episode brings a new agent id")
    add("--episode-length", type=_positive, default=10, metavar="N", help="least steps of a scripted episode")
    add(
        "--image-size", type=_positive, default=36, metavar="N", help="height of scripted images, 4 less than the width"
    )
    add(
        "--stats", action="store_true", help="send stats: scripted episodes, and environment parameters when one begins"
    )
    add("--echo-channel", action="append", default=[], metavar="UUID", help="a side channel that is sent back")
    add("--prepared", type=_positive, metavar="N", help="record N messages first, and send only those, in turn")
    add("--communication-version", default=CURRENT, metavar="V", help="protocol version to speak, from 1.0.0")
    add("--package-version", metavar="V", help="Unity package; images of those before 3 have their channels last")
    add("--fault", choices=FAULTS, help="what goes wrong")
    add(
        "--fault-step", type=_natural, metavar="N", help="at which message; default 1, or 0 where only that makes sense"
    )
    add("--fault-seconds", type=float, metavar="S", help="how long a stall (5), slow start (5) or hang (3600) lasts")
    add("--fault-worker", type=_natural, metavar="I", help="only in the player on port BASE + I")
    add("--base-port", type=_natural, default=5005, metavar="BASE", help="port of worker 0, for --fault-worker")
    add("--fault-once", type=Path, metavar="PATH", help="only if this file does not exist; the fault creates it")
    return parser


def port_of(options: argparse.Namespace) -> int | None:
    """Return the trainer's port; None, as for a player, if there is none or it is not a number."""
    try:
        return int(options.mlagents_port)
    except (TypeError, ValueError):
        return None


def log_path(arguments: Sequence[str]) -> str | None:
    """Return the value of the last -logFile, whether or not the other arguments make sense."""
    places = [i for i, text in enumerate(arguments[:-1]) if text.lower() == "-logfile"]
    return arguments[places[-1] + 1] if places else None


def _natural(text: str) -> int:
    value = int(text)
    if value < 0:
        raise argparse.ArgumentTypeError(f"{text} is less than 0")
    return value


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


@dataclass(frozen=True, slots=True)
class Part:
    """A behavior in the script: its name with its team, its traits, when its agents appear, and how many in an area."""

    name: str
    traits: frozenset[str]
    since: int = 0
    agents: int | None = None

    @property
    def team(self) -> int:
        """The number of its team."""
        return int(self.name.rpartition("=")[2])

    @property
    def actions(self) -> tuple[int, tuple[int, ...]]:
        """Number of continuous actions, and sizes of the branches."""
        sizes = [trait for trait in self.traits if SIZED["branches"].fullmatch(trait)]
        if sizes:
            return 0, tuple(int(size) for size in sizes[0].split("x"))
        return next((SIZES[trait] for trait in ACTIONS if trait in self.traits), SIZES["continuous"])


def with_team(name: str) -> str:
    """Return a behavior's name as a player sends it."""
    return name if "?team=" in name else f"{name}?team=0"


def scripted_behaviors(texts: Sequence[str]) -> list[Part]:
    """Read behaviors spelt `NAME[?team=T][:TRAIT+TRAIT...][*AGENTS][@STEP]`.

    Raises:
        UsageError: A spelling is wrong, or a name is there twice.
    """
    found = [_part(text) for text in texts or DEFAULT]
    names = [part.name for part in found]
    for name in names:
        if names.count(name) > 1:
            raise UsageError(f"--behavior {name} is given twice; a second team is another one: NAME?team=1.")
    return found


def _part(text: str) -> Part:
    rest, at, since = text.partition("@")
    rest, star, agents = rest.partition("*")
    name, _, spelt = rest.partition(":")
    traits = frozenset(filter(None, spelt.split("+")))
    known = {*TRAITS, *OF_TEAMS}
    wrong = sorted(trait for trait in traits - known if not any(form.fullmatch(trait) for form in SIZED.values()))
    kinds = [trait for trait in traits if trait in ACTIONS or SIZED["branches"].fullmatch(trait)]
    numbers = [number for mark, number in ((at, since), (star, agents)) if mark]
    right = _TEAM.fullmatch(name) and len(kinds) < 2 and all(number.isdecimal() for number in numbers)
    if wrong or not right or any("0" in _SIZES.findall(trait) for trait in traits):
        raise UsageError(
            f"--behavior {text} is not NAME:TRAIT+TRAIT*AGENTS@STEP with at most one of {', '.join(ACTIONS)} or sizes "
            "of branches"
            + (f"; there is no trait {', '.join(wrong)}, only {', '.join((*TRAITS, *OF_TEAMS))}." if wrong else ".")
        )
    seen = (*OBSERVATIONS, SIZED["rays"], SIZED["grid"])
    if "bare" in traits and not any(re.fullmatch(form, trait) for form in seen for trait in traits):
        raise UsageError(f"--behavior {text} is bare and has no sensor; name one, as in {name}:bare+rays8.")
    if star and int(agents) < 1:
        raise UsageError(f"--behavior {text} has no agents.")
    return Part(with_team(name), traits, int(since or 0), int(agents) if star else None)
