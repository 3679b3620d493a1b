"""Simulations with wrong episodes, seeds, rewards or states."""

from __future__ import annotations

from typing import Any

from tests.testing.mutants.mutant import mutant
from tests.testing.mutants.patch import Patch

SIMULATION = "mlhooks.sims.base:Simulation"
END = "self._terminals = self._end({}, reward[rows], {}, rows)"
FINAL = "[part[rows] for part in obs]"
SEEDED = "np.random.default_rng([seed, worker_id])"


@mutant("sim_env", caught_by="test_ends_and_beginnings_do_not_contradict")
def sim_reward_of_the_end_twice(patch: Patch) -> None:
    patch.drop(f"{SIMULATION}._advance", "reward[rows] = 0.0")


@mutant("sim_env", caught_by="test_final_observations_are_not_those_of_the_next_episode")
def sim_final_observation_of_the_next_episode(patch: Patch) -> None:
    started = END.format("self._observe(rows)", "~terminated[rows]")
    patch.drop(f"{SIMULATION}._advance", "self._start(rows)")
    patch.replace(f"{SIMULATION}._advance", END.format(FINAL, "~terminated[rows]"), f"self._start(rows); {started}")


@mutant("sim_env", caught_by="test_final_observations_are_not_those_of_the_next_episode")
def sim_begins_with_the_final_observation(patch: Patch) -> None:
    patch.drop(f"{SIMULATION}._advance", "part[rows] = first")


@mutant("sim_env", caught_by="test_interrupted_are_those_that_a_step_limit_cuts")
def sim_interruptions_inverted(patch: Patch) -> None:
    patch.replace(
        f"{SIMULATION}._advance", END.format(FINAL, "~terminated[rows]"), END.format(FINAL, "terminated[rows]")
    )


@mutant("sim_env", caught_by="test_interrupted_are_those_that_a_step_limit_cuts")
def sim_step_limit_is_terminal(patch: Patch) -> None:
    nobody = END.format(FINAL, "np.zeros(len(rows), np.bool_)")
    patch.replace(f"{SIMULATION}._advance", END.format(FINAL, "~terminated[rows]"), nobody)


@mutant("sim_env", caught_by="test_interrupted_are_those_that_a_step_limit_cuts")
def sim_reset_keeps_ages(patch: Patch) -> None:
    patch.drop(f"{SIMULATION}._restart", "self._ages[:] = 0")


@mutant("sim_env", caught_by="test_rewards_belong_to_their_own_episode")
def sim_rewards_one_tick_late(patch: Patch) -> None:
    late = """
        reward, terminated = self._move(action)
        reward, self._late = getattr(self, "_late", np.zeros_like(reward)), reward.copy()
    """
    patch.replace(f"{SIMULATION}._advance", "reward, terminated = self._move(action)", late)


@mutant("sim_env", caught_by="test_steps_stay_as_they_were_shown")
def sim_rewards_overwritten(patch: Patch) -> None:
    buffered = """
        self._buffer = getattr(self, "_buffer", reward)
        self._buffer[:] = reward
        self._decisions = self._decide(obs, self._buffer, mask=self._mask())
    """
    decided = "self._decisions = self._decide(obs, reward, mask=self._mask())"
    patch.replace(f"{SIMULATION}._advance", decided, buffered)


@mutant("sim_env", caught_by="test_seeds_reproduce")
def sim_seed_ignored(patch: Patch) -> None:
    patch.replace(f"{SIMULATION}.__init__", SEEDED, "np.random.default_rng()")


@mutant("sim_env", caught_by="test_seeds_reproduce")
def sim_workers_alike(patch: Patch) -> None:
    patch.replace(f"{SIMULATION}.__init__", SEEDED, "np.random.default_rng(seed)")


@mutant("sim_env", caught_by="test_num_areas_are_copies")
def sim_areas_ignored(patch: Patch) -> None:
    @patch.around("builtin_plugins.sim_env:make")
    def make(original: Any, name: str, **arguments: Any) -> Any:
        return original(name, **{**arguments, "num_areas": 1})


@mutant("sim_env", caught_by="test_parameters_may_come_at_any_time")
def sim_parameters_begin_again(patch: Patch) -> None:
    patch.insert(f"{SIMULATION}.set_parameters", "self._restart()")


@mutant("sim_env", caught_by="test_saved_state_is_the_whole_state")
def sim_random_state_not_saved(patch: Patch) -> None:
    patch.drop(f"{SIMULATION}.load_state_dict", "self._rng.bit_generator.state = state['random']")


@mutant("sim_env", caught_by="test_saved_state_is_the_whole_state")
def sim_ages_not_restored(patch: Patch) -> None:
    patch.drop(f"{SIMULATION}.load_state_dict", "self._ages[:] = state['ages']")


@mutant("sim_env", caught_by="test_saved_state_is_the_whole_state")
def sim_acceleration_not_saved(patch: Patch) -> None:
    state = "('tilt', 'view', {}'height', 'pull')"
    patch.replace("mlhooks.sims.ball3d:Ball3D", state.format("'acceleration', "), state.format(""))


@mutant("sim_env", caught_by="test_steps_fit_the_spec")
def sim_double_precision(patch: Patch) -> None:
    single = "self.view.T.astype(np.float32, order='C')"
    patch.replace("mlhooks.sims.ball3d:Ball3D._observe", single, "self.view.T")


@mutant("sim_env", caught_by="test_masks_are_shaped_right")
def sim_mask_inverted(patch: Patch) -> None:
    patch.replace("mlhooks.sims.grid_world:GridWorld._mask", "FORBIDDEN[self.cell]", "~FORBIDDEN[self.cell]")


@mutant("sim_env", caught_by="test_agent_ids_are_unique")
def sim_same_ids(patch: Patch) -> None:
    ids = "np.arange(agents, dtype=np.int32)"
    patch.replace("mlhooks.envs.single_behavior:SingleBehaviorEnv.__init__", ids, "np.zeros(agents, dtype=np.int32)")
