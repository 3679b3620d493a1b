"""Playing episodes with the policies of trainers in an environment apart, which changes nothing of the training."""

from __future__ import annotations

import contextlib
import logging
import random
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import torch
from mlagents_envs.base_env import ActionTuple, BaseEnv, DecisionSteps, TerminalSteps

from mlhooks.envs import players
from mlhooks.envs.closing import close
from mlhooks.envs.factory import EnvironmentFactory, evaluation_seed
from mlhooks.envs.own_terms import counted
from mlhooks.envs.parameters import Parameters, set_parameters
from mlhooks.envs.slots import SlotMap, SlotPool
from mlhooks.envs.specs import in_words, same_shape
from mlhooks.envs.told import stats_of, steps_of
from mlhooks.errors import ContractBroken, EnvironmentFailure, MlhooksError
from mlhooks.settings.behaviors import EvaluationSettings
from mlhooks.training.carried import CarriedMemories, seen_by
from mlhooks.training.episodes import Episodes
from mlhooks.training.evaluation import Evaluation
from mlhooks.training.step_checks import check_values
from mlhooks.training.trainer import Trainer

logger = logging.getLogger("mlhooks")

LONG, TOO_LONG = 100_000, 1_000_000
"""Steps of the environment without the end of an episode that counts: until that is said, and until it is a failure."""


class Evaluator:
    """Plays episodes with policies as they are, in an environment of its own.

    Each time the environment begins with the same seed, where its kind makes environments quickly: a new one is made.
    Another one, such as a Unity player, is made once and then reset; its random numbers go on, unless it offers its
    state.

    Args:
        make_env: makes the environment of a worker.
        worker_id: the number that no worker of training has.
        seed: of the run.
    """

    def __init__(self, make_env: EnvironmentFactory, worker_id: int, seed: int) -> None:
        self._make_env, self._worker_id, self._seed = make_env, worker_id, evaluation_seed(seed)
        self._env: BaseEnv | None = None
        self._first_state: Mapping[str, object] | None = None
        self._is_new = False
        self._players: list[players.Process] = []

    def open(self) -> None:
        """Make the environment, so that one that cannot be made is known before training.

        Raises:
            MlhooksError: it cannot be made.
        """
        with _random_numbers_apart(self._seed, torch.device("cpu")):
            try:
                self._made()
            except MlhooksError as error:
                error.add_note("That is the environment of evaluations, which is made beside those of training.")
                raise

    def _made(self) -> BaseEnv:
        if self._env is None:
            with players.noticed() as self._players:
                self._env = self._make_env(self._worker_id)
            self._is_new = True
        return self._env

    def play(
        self,
        wanted: Mapping[str, EvaluationSettings],
        trainers: Mapping[str, Trainer],
        parameters: Parameters,
        stopped: Callable[[], bool],
    ) -> dict[str, Evaluation] | None:
        """Play until there are enough episodes of each behavior that is wanted.

        Args:
            wanted: behavior name -> how it is evaluated.
            trainers: of all behaviors; those that are not wanted act as in training.
            parameters: the environment parameters now.
            stopped: whether to give up, asked at every step.

        Returns:
            Behavior name -> its episodes; None where it was stopped.

        Raises:
            Exception: of whatever type, by the environment.
        """
        device = next(iter(trainers.values())).device
        sides = {name: _Side(trainer, wanted.get(name), self._seed) for name, trainer in trainers.items()}
        with _random_numbers_apart(self._seed, device), _deterministic(sides.values()):
            try:
                env = self._made()
                _seed(self._seed, device)  # Making one may have drawn random numbers.
                self._begin(env, parameters)
                done = self._play(env, sides, stopped)
            except BaseException:
                players.kill(self._players)  # Closing the environment would wait for them.
                self.close()
                raise
            if self._make_env.is_quick:
                self.close()
        return {name: sides[name].counted for name in wanted} if done else None

    def _begin(self, env: BaseEnv, parameters: Parameters) -> None:
        if hasattr(env, "state_dict") and not self._make_env.is_quick:
            if self._is_new:
                env.reset()
                self._first_state = env.state_dict()
            else:
                env.load_state_dict(self._first_state)
        self._is_new = False
        set_parameters(env, parameters, self._worker_id)
        env.reset()

    def _play(self, env: BaseEnv, sides: Mapping[str, _Side], stopped: Callable[[], bool]) -> bool:
        waited, counted = 0, 0
        while not stopped():
            specs, steps = steps_of(env)
            for behavior_id, (decisions, terminals) in steps.items():
                side = sides.get(behavior_id.partition("?")[0])
                if side is None:  # Training has not shown it yet, so that nobody can decide for its agents.
                    if len(decisions):
                        env.set_actions(behavior_id, specs[behavior_id].action_spec.empty_action(len(decisions)))
                    continue
                if not same_shape(side.trainer.behavior_spec, specs[behavior_id]):
                    raise ContractBroken(
                        f"Its behavior {behavior_id!r} is not that of training: it has {in_words(specs[behavior_id])}, "
                        f"and there it has {in_words(side.trainer.behavior_spec)}."
                    )
                action = side.decide(behavior_id, decisions, terminals, self._worker_id)
                if action is not None:
                    env.set_actions(behavior_id, action)
            stats_of(env)  # They are not those of training.
            if all(side.is_done for side in sides.values()):
                return True
            now = sum(len(side.returns) for side in sides.values())
            waited, counted = (waited + 1, counted) if now == counted else (0, now)
            if waited in (LONG, TOO_LONG):
                self._tell_that_it_is_long(sides, waited)
            env.step()
        return False

    def _tell_that_it_is_long(self, sides: Mapping[str, _Side], waited: int) -> None:
        missing = [
            f"{len(side.returns)} of {side.counted.episodes} episodes of {name!r}"
            for name, side in sides.items()
            if not side.is_done
        ]
        said = f"in {waited:,} steps no episode has ended that counts; there are {' and '.join(missing)}"
        if waited >= TOO_LONG:
            raise EnvironmentFailure(f"{said[0].upper()}{said[1:]}. Episodes must end, as by max_episode_steps.")
        logger.warning("Training waits for an evaluation: %s. Ctrl-C ends the run.", said)

    def close(self) -> None:
        """Close the environment, if there is one."""
        env, self._env = self._env, None
        if env is not None:
            close(env, "The environment of evaluations")


class _Side:
    """The agents of one behavior in the environment of evaluations.

    Args:
        trainer: whose policy acts.
        settings: how it is evaluated; None where nobody asks.
        seed: of its random numbers.
    """

    def __init__(self, trainer: Trainer, settings: EvaluationSettings | None, seed: int) -> None:
        self.trainer, self.name = trainer, trainer.behavior_name
        policy = trainer.policy
        self.deterministic = policy.deterministic if settings is None else settings.deterministic
        self.counted = Evaluation(0 if settings is None else settings.episodes)
        self.counted.expect(self.name)
        self._rng = np.random.default_rng([seed, zlib.crc32(self.name.encode())])
        self._pool, self._maps, self._episodes = SlotPool(), dict[str, SlotMap](), Episodes()
        self._carried = CarriedMemories(policy)

    @property
    def returns(self) -> list[float]:
        """Of the episodes that count."""
        return self.counted.returns[self.name]

    @property
    def is_done(self) -> bool:
        """Whether there are enough."""
        return self.counted.complete()

    def decide(
        self, behavior_id: str, decisions: DecisionSteps, terminals: TerminalSteps, worker_id: int
    ) -> ActionTuple | None:
        """Take in what the environment shows, and decide for the agents that ask."""
        slots = self._maps.setdefault(behavior_id, SlotMap(self._pool))
        ended = slots.find(terminals.agent_id)
        check_values(self.trainer.acting, worker_id, terminals, terminals.group_id, terminals.interrupted)
        check_values(self.trainer.acting, worker_id, decisions, decisions.group_id)
        where = slots.slots(decisions.agent_id) if len(decisions) else ended[:0]
        self._episodes.reserve(self._pool.size)
        if len(terminals):
            known = ended >= 0
            seen = self._episodes.ended(ended[known], (terminals.reward + terminals.group_reward)[known])
            self.counted.ended(self.name, self._pool.size, *counted(terminals, known, ended[known], *seen))
            self._carried.forget(ended[known])
            slots.release(terminals.agent_id[~np.isin(terminals.agent_id, decisions.agent_id)])
        if not len(decisions):
            return None
        self._episodes.decided(where, decisions.reward + decisions.group_reward)
        policy = self.trainer.policy
        return policy.action_tuple(self._carried.act(where, *seen_by(policy, decisions), self._rng))


@contextlib.contextmanager
def _deterministic(sides: Iterable[_Side]) -> Iterator[None]:
    """Let policies act as their evaluations want it, and afterwards as before."""
    found = list(sides)
    before = [side.trainer.policy.deterministic for side in found]
    try:
        for side in found:
            side.trainer.policy.deterministic = side.deterministic
        yield
    finally:
        for side, value in zip(found, before, strict=True):
            side.trainer.policy.deterministic = value


@contextlib.contextmanager
def _random_numbers_apart(seed: int, device: torch.device) -> Iterator[None]:
    """Seed the global random generators, and afterwards leave them as they were."""
    python, legacy = random.getstate(), np.random.get_state(legacy=True)  # noqa: NPY002
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        try:
            _seed(seed, device)
            yield
        finally:
            random.setstate(python)
            np.random.set_state(legacy)  # noqa: NPY002


def _seed(seed: int, device: torch.device) -> None:
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 - Environments and policies may use the global generator.
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
