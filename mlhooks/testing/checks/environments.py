"""Checks of an environment kind: steps that fit the spec and one another, seeds, reset and close."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path

import numpy as np
import pytest
from mlagents_envs.base_env import BaseEnv, BehaviorSpec, DecisionSteps, TerminalSteps

from mlhooks.errors import MlhooksError, UnsupportedError
from mlhooks.testing.assertions import demand, fail
from mlhooks.testing.environments import DEFAULT_NAME, arrays, difference, make, random_actions, steps_of, walk
from mlhooks.testing.managers import train_in
from mlhooks.testing.short_runs import PPO
from mlhooks.testing.side_effects import Belongings
from mlhooks.testing.target import Target

TICKS = 300


@pytest.fixture(params=[1, 12], ids=["one_area", "twelve_areas"])
def env(mlhooks_target: Target, environment: str, scratch: Path, request: pytest.FixtureRequest) -> Iterator[BaseEnv]:  # noqa: ARG001
    """One worker's environment, with one area and with several."""
    made = _make(mlhooks_target, environment, num_areas=request.param)
    yield made
    made.close()


def _make(target: Target, environment: str, **arguments: int) -> BaseEnv:
    try:
        return make(target, environment, **arguments)
    except MlhooksError as error:
        hint = (
            " Say which environments are to be tried: in the plugin by conformance_environments = "
            f'("{environment.split(":")[0]}:NAME",), or by --mlhooks-env.'
        )
        fail(f"{error}{hint if environment.endswith(f':{DEFAULT_NAME}') else ''}")


def test_steps_fit_the_spec(env: BaseEnv) -> None:
    """Observations, rewards, ids and ends have the shapes and types of the behavior's spec, and are finite."""
    for tick, shown in enumerate(walk(env, TICKS)):
        demand(shown, "After reset() the environment shows no behavior in behavior_specs.")
        for name, pair in shown.items():
            for kind, steps in zip(("decision", "terminal"), pair, strict=True):
                problem = _misfit(env.behavior_specs[name], steps)
                demand(not problem, f"Tick {tick}: the {kind} steps of {name} do not fit: {problem}.")


def _misfit(spec: BehaviorSpec, steps: DecisionSteps | TerminalSteps) -> str | None:
    agents = len(steps.agent_id)
    if len(steps.obs) != len(spec.observation_specs):
        return f"there are {len(steps.obs)} observations, and {len(spec.observation_specs)} in the spec"
    columns = [(f"observation {i}", obs, tuple(spec.observation_specs[i].shape)) for i, obs in enumerate(steps.obs)]
    columns += [("reward", steps.reward, ()), ("group_reward", steps.group_reward, ())]
    for what, array, shape in columns:
        if array.shape != (agents, *shape):
            return f"{what} of {agents} agents has shape {array.shape} instead of {(agents, *shape)}"
        if array.dtype != np.float32 and not (array.dtype == np.uint8 and len(shape) == 3):
            return f"{what} has the type {array.dtype} instead of float32{' or uint8' if len(shape) == 3 else ''}"
        if not np.isfinite(array).all():
            return f"{what} is NaN or infinite"
    for what, array in (("agent_id", steps.agent_id), ("group_id", steps.group_id)):
        if array.shape != (agents,) or not np.issubdtype(array.dtype, np.integer):
            return f"{what} must be {agents} whole numbers, and is {array.dtype} of shape {array.shape}"
    if isinstance(steps, TerminalSteps) and (
        steps.interrupted.shape != (agents,) or steps.interrupted.dtype != np.bool_
    ):
        return f"interrupted must be {agents} booleans"
    return None


def test_agent_ids_are_unique(env: BaseEnv) -> None:
    """No agent is twice among the decision steps or twice among the terminal steps of a tick, over all behaviors."""
    for tick, shown in enumerate(walk(env, TICKS)):
        for index, kind in enumerate(("decision", "terminal")):
            ids = np.concatenate([pair[index].agent_id for pair in shown.values()])
            demand(
                len(np.unique(ids)) == len(ids),
                f"Tick {tick}: an agent is twice among the {kind} steps: {sorted(ids)}.",
            )


def test_masks_are_shaped_right(env: BaseEnv) -> None:
    """A mask is one boolean array for each branch, [agents, choices], and leaves every agent a choice."""
    for tick, shown in enumerate(walk(env, TICKS)):
        for name, (decisions, _) in shown.items():
            sizes, mask = env.behavior_specs[name].action_spec.discrete_branches, decisions.action_mask
            if mask is None:
                continue
            shapes = [(branch.shape, branch.dtype) for branch in mask]
            wanted = [((len(decisions), size), np.dtype(np.bool_)) for size in sizes]
            demand(shapes == wanted, f"Tick {tick}: the masks of {name} are {shapes}, and should be {wanted}.")
            stuck = any(branch.all(axis=1).any() for branch in mask)
            demand(not stuck, f"Tick {tick}: the mask of {name} forbids an agent every action (True forbids).")


def test_ends_and_beginnings_do_not_contradict(env: BaseEnv) -> None:
    """Only agents that were asked end; one that ends and begins in one tick begins without the last reward."""
    asked: set[int] = set()
    for tick, shown in enumerate(walk(env, TICKS)):
        for name, (decisions, terminals) in shown.items():
            if tick == 0:
                demand(len(terminals) == 0, f"Right after reset() there are terminal steps of {name}.")
                demand(not decisions.reward.any(), f"Right after reset() agents of {name} have a reward.")
            strangers = set(terminals.agent_id.tolist()) - asked
            demand(not strangers, f"Tick {tick}: agents {sorted(strangers)} of {name} end, and were never asked.")
            again = np.isin(decisions.agent_id, terminals.agent_id)
            demand(
                not decisions.reward[again].any(),
                f"Tick {tick}: agents {decisions.agent_id[again].tolist()} of {name} end and begin again, and their "
                "first decision has a reward: it belongs to the terminal step alone.",
            )
            asked -= set(terminals.agent_id.tolist())
            asked |= set(decisions.agent_id.tolist())


def test_final_observations_are_not_those_of_the_next_episode(env: BaseEnv) -> None:
    """A terminal step has the last observation of its episode, not the first one of the next."""
    same, ends, lengths = 0, 0, 0
    for tick, shown in enumerate(walk(env, TICKS)):
        lengths = tick
        for decisions, terminals in shown.values():
            for row, agent in enumerate(terminals.agent_id.tolist()):
                for next_row in np.flatnonzero(decisions.agent_id == agent).tolist():
                    ends += 1
                    parts = zip(terminals.obs, decisions.obs, strict=True)
                    same += all(np.array_equal(final[row], first[next_row]) for final, first in parts)
    if ends < 3 or ends > lengths / 2:
        pytest.skip("too few episodes of some length ended to tell")
    demand(
        same < ends,
        f"All {ends} terminal steps have the observation with which the agent's next episode begins; interrupted "
        "episodes are bootstrapped from the final observation, which must be that of the episode that ended.",
    )


def test_steps_stay_as_they_were_shown(env: BaseEnv) -> None:
    """What get_steps() returned does not change with later steps, nor between two calls; actions are not written to."""
    kept = []
    for shown in walk(env, 20):
        kept.append((shown, arrays(shown)))
        changed = difference(arrays(steps_of(env)), kept[-1][1])
        demand(changed is None, f"Two calls of get_steps() without a step() between them differ in the {changed}.")
    for shown, copy in kept:
        changed = difference(arrays(shown), copy)
        demand(
            changed is None, f"A later step() changed what get_steps() had returned: the {changed}. Make new arrays."
        )


def test_reset_begins_again_whenever_it_is_called(env: BaseEnv) -> None:
    """reset() works twice in a row and in the middle of episodes; afterwards the same agents ask for decisions."""
    env.reset()
    env.reset()
    first = {name: sorted(decisions.agent_id.tolist()) for name, (decisions, _) in steps_of(env).items()}
    demand(any(first.values()), "After reset() no agent asks for a decision.")
    list(walk(env, 7))
    env.reset()
    shown = steps_of(env)
    counts = {name: len(decisions) for name, (decisions, _) in shown.items()}
    wanted = {name: len(ids) for name, ids in first.items()}
    demand(counts == wanted, f"After a reset() in the middle {counts} agents ask for decisions, and at first {wanted}.")
    ended = sum(len(terminals) for _, terminals in shown.values())
    demand(not ended, f"After a reset() in the middle there are {ended} terminal steps.")
    rewarded = any(decisions.reward.any() for decisions, _ in shown.values())
    demand(not rewarded, "After a reset() in the middle agents have a reward of the episode before.")


def test_reset_goes_on_with_the_random_numbers(mlhooks_target: Target, environment: str, scratch: Path) -> None:  # noqa: ARG001
    """Where seeds make episodes begin in other ways, a second reset() does not begin the first episode again."""
    begins = []
    for seed in (1, 2):
        env = _make(mlhooks_target, environment, seed=seed)
        for _ in range(4):
            env.reset()
            begins.append(arrays(steps_of(env)))
        env.close()
    first, *later = begins[:4]
    if difference(first, begins[4]):
        same = all(difference(first, each) is None for each in later)
        demand(not same, "Every reset() begins the same episode: seed the random generator once, not at each reset.")


def test_close_works_twice_and_leaves_nothing(mlhooks_target: Target, environment: str, scratch: Path) -> None:  # noqa: ARG001
    """close() may be called twice, also before reset(), and ends all threads, processes, files and sockets."""
    for ticks in (None, 3, 3):
        gc.collect()
        before = Belongings()
        env = _make(mlhooks_target, environment)
        if ticks is not None:
            list(walk(env, ticks))
        env.close()
        env.close()
    left = [f"{what}: {', '.join(found)}" for what, found in Belongings().more_than(before).items() if found]
    demand(not left, f"After close() there are still {'; '.join(left)}.")


def test_seeds_reproduce(mlhooks_target: Target, environment: str, scratch: Path) -> None:  # noqa: ARG001
    """One seed and the same actions give the same steps; workers with one seed draw from streams of their own."""
    first, again, other_seed, other_worker = (
        _course(_make(mlhooks_target, environment, **arguments))
        for arguments in ({"seed": 1}, {"seed": 1}, {"seed": 2}, {"seed": 1, "worker": 1})
    )
    for tick, (a, b) in enumerate(zip(first, again, strict=True)):
        found = difference(a, b)
        demand(found is None, f"With one seed, the {found} differ between two environments at tick {tick}.")
    if any(difference(a, b) for a, b in zip(first, other_seed, strict=True)):
        demand(
            any(difference(a, b) for a, b in zip(first, other_worker, strict=True)),
            "Workers 0 and 1 do the same with one seed: make the random generator from seed and worker_id.",
        )


def _course(env: BaseEnv) -> list[dict[str, np.ndarray]]:
    try:
        return [arrays(shown) for shown in walk(env, 60)]
    finally:
        env.close()


def test_num_areas_are_copies(mlhooks_target: Target, environment: str, scratch: Path) -> None:  # noqa: ARG001
    """With num_areas 3 there are three times as many agents."""
    counts = []
    for areas in (1, 3):
        env = _make(mlhooks_target, environment, num_areas=areas)
        env.reset()
        counts.append({name: len(decisions) for name, (decisions, _) in steps_of(env).items()})
        env.close()
    demand(
        counts[1] == {name: 3 * count for name, count in counts[0].items()},
        f"With num_areas 1 there are {counts[0]} agents, and with num_areas 3 {counts[1]}: num_areas is the number of "
        "copies in one environment.",
    )


@pytest.mark.parametrize("areas", [1, 6])
def test_saved_state_is_the_whole_state(mlhooks_target: Target, environment: str, areas: int, scratch: Path) -> None:  # noqa: ARG001
    """Where it offers state_dict() and load_state_dict(), a restored environment goes on exactly as the saved one."""
    env = _make(mlhooks_target, environment, num_areas=areas)
    if not hasattr(env, "state_dict"):
        env.close()
        pytest.skip("it offers no state_dict(), so resumed runs begin new episodes")
    list(walk(env, 25, idle=0.5))
    state = deepcopy(env.state_dict())
    other = _make(mlhooks_target, environment, seed=9, num_areas=areas)
    other.reset()
    other.load_state_dict(state)
    found = difference(arrays(steps_of(env)), arrays(steps_of(other)))
    demand(found is None, f"After load_state_dict() the {found} differ.")
    for tick in range(TICKS // 2):
        for name, (decisions, _) in steps_of(env).items():
            action = random_actions(env.behavior_specs[name], decisions, np.random.default_rng(tick), idle=0.5)
            for each in (env, other):
                each.set_actions(name, action)
        env.step()
        other.step()
        found = difference(arrays(steps_of(env)), arrays(steps_of(other)))
        demand(found is None, f"{tick + 1} steps after load_state_dict() the {found} differ: something is not saved.")
    env.close()
    other.close()


def test_parameters_may_come_at_any_time(mlhooks_target: Target, environment: str, scratch: Path) -> None:  # noqa: ARG001
    """Where it offers set_parameters(), it may be called before reset() and in the middle of episodes, which go on."""
    env = _make(mlhooks_target, environment)
    if not hasattr(env, "set_parameters"):
        pytest.skip("it offers no set_parameters(), so environment_parameters are refused")
    env.set_parameters({})
    list(walk(env, 7))
    before = arrays(steps_of(env))
    env.set_parameters({})
    found = difference(before, arrays(steps_of(env)))
    demand(
        found is None,
        f"set_parameters() in the middle of episodes changed the {found}: parameters count for the episodes that begin "
        "afterwards.",
    )
    env.close()


def test_a_run_trains_in_it(mlhooks_target: Target, environment: str, scratch: Path) -> None:
    """PPO trains in it for a moment, with every failing hook fatal."""
    settings = {"default_settings": {**PPO, "max_steps": 300}}
    try:
        run = train_in(scratch, mlhooks_target.manager(), {"behaviors": {}, **settings}, env=environment)
    except UnsupportedError as error:
        pytest.skip(f"PPO cannot learn in it: {error}")
    demand(run.outcome.status == "finished", f"The run ended as {run.outcome.status}.")
