from __future__ import annotations

import pickle

import pytest

from mlhooks.envs.manager import Worker, WorkerFailure, WorkerLost
from mlhooks.envs.messages import Failed
from mlhooks.envs.restarts import RestartPolicy, restart_report
from mlhooks.errors import ContractBroken, EnvironmentFailure, EnvironmentPaused, NonFiniteError, UsageError
from mlhooks.settings.run_options import EnvironmentSettings

ERROR = RuntimeError("it exploded")


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def count_restarts(policy: RestartPolicy, worker: int = 0, most: int = 50) -> int:
    for restarts in range(most):
        try:
            policy.restart(Worker(worker), ERROR)
        except WorkerFailure:
            return restarts
    return most


def test_lifetime_limit_counts_each_worker_for_itself() -> None:
    policy = RestartPolicy(3, -1, 60)
    assert [count_restarts(policy, worker) for worker in (0, 1, 0)] == [3, 3, 0]


def test_rate_limit_counts_restarts_within_the_period() -> None:
    clock = Clock()
    policy = RestartPolicy(-1, 2, 60, clock)
    assert count_restarts(policy) == 2
    clock.now = 59.9
    assert count_restarts(policy) == 0
    clock.now = 60.0
    assert count_restarts(policy) == 2


def test_minus_one_is_no_limit() -> None:
    assert count_restarts(RestartPolicy(-1, -1, 60)) == 50


def test_defaults_are_one_restart_a_minute_and_ten_in_all() -> None:
    policy = RestartPolicy.from_settings(EnvironmentSettings())
    assert (policy.lifetime, policy.rate, policy.period) == (10, 1, 60)


@pytest.mark.parametrize(
    ("lifetime", "rate", "message"),
    [
        (0, -1, r"worker 2 failed: RuntimeError: it exploded\. It was not restarted before, and --max-lifetime"),
        (-1, 0, r"It was not restarted in the last 60 seconds, and --restarts-rate-limit-n is 0 "),
    ],
)
def test_message_says_what_failed_and_which_limit_is_reached(lifetime: int, rate: int, message: str) -> None:
    with pytest.raises(WorkerFailure, match=message) as caught:
        RestartPolicy(lifetime, rate, 60).restart(Worker(2), ERROR)
    assert caught.value.error is ERROR


@pytest.mark.parametrize(("lifetime", "rate"), [(1, -1), (-1, 1)])
def test_limit_that_one_error_reaches_again_and_again_is_not_told_to_be_the_cause(lifetime: int, rate: int) -> None:
    same, other, silent = (RestartPolicy(lifetime, rate, 60) for _ in range(3))
    same.restart(Worker(0), KeyError("speed"))
    with pytest.raises(WorkerFailure, match=r"-1: no limit\)\. It failed in the same way before: mend that error"):
        same.restart(Worker(0), KeyError("speed"))
    other.restart(Worker(0), KeyError("speed"))
    with pytest.raises(WorkerFailure, match=r"-1: no limit\)\.$"):
        other.restart(Worker(0), OSError("no connection"))
    silent.restart(Worker(0), EnvironmentFailure("The process ended."))
    with pytest.raises(WorkerFailure, match=r"-1: no limit\)\.$"):
        silent.restart(Worker(0), EnvironmentFailure("The process ended."))


def test_what_cannot_be_done_is_not_tried_again() -> None:
    with pytest.raises(UsageError, match="no such simulation"):
        RestartPolicy(-1, -1, 60).restart(Worker(0), UsageError("no such simulation"))


def test_environment_that_a_person_stopped_is_counted_nowhere() -> None:
    policy = RestartPolicy(1, 1, 60)
    lost = [policy.restart(Worker(0), EnvironmentPaused("stopped")) for _ in range(5)]
    assert all(each.paused for each in lost)
    assert not policy.restart(Worker(0), ERROR).paused
    with pytest.raises(WorkerFailure, match="restarted once"):
        policy.restart(Worker(0), ERROR)


def test_report_names_each_worker_how_often_and_why() -> None:
    lost = [WorkerLost(Worker(2), ERROR), WorkerLost(Worker(0), UsageError("First.")), WorkerLost(Worker(2), ERROR)]
    assert restart_report(lost).splitlines() == [
        "Environments were started again 3 times:",
        "    worker 0, once, at last because: First.",
        "    worker 2, 2 times, at last because: RuntimeError: it exploded",
    ]


MISTAKE = TypeError("step() takes 1 positional argument")


def told(error: Exception) -> EnvironmentFailure:
    """Return an error as environment kinds tell what an environment raised."""
    failure = EnvironmentFailure("The environment failed in step().")
    failure.__cause__ = error
    return failure


def elsewhere(error: Exception) -> Exception:
    """Return the error of a worker process, as it arrives."""
    return pickle.loads(pickle.dumps(Failed.by(error))).exception()


def unpicklable() -> Exception:
    class Local(TypeError):
        pass

    return elsewhere(Local("a local class"))


@pytest.mark.parametrize(
    "error",
    [
        MISTAKE,
        AttributeError("no x"),
        NameError("no y"),
        ModuleNotFoundError("no z"),
        NotImplementedError(),
        ContractBroken("an agent ends twice."),
        told(MISTAKE),
        told(told(MISTAKE)),
        elsewhere(MISTAKE),
        elsewhere(told(MISTAKE)),
        elsewhere(ContractBroken("an agent ends twice.")),
        unpicklable(),
    ],
    ids=repr,
)
def test_mistake_in_code_is_final_without_a_restart(error: Exception) -> None:
    with pytest.raises(WorkerFailure, match="is not started again, since it would fail in the same way") as caught:
        RestartPolicy(-1, -1, 60).restart(Worker(0), error)
    assert caught.value.error is error


@pytest.mark.parametrize(
    "error",
    [ERROR, told(ERROR), elsewhere(ERROR), NonFiniteError("reward is NaN."), ValueError("out of range")],
    ids=repr,
)
def test_accident_is_none(error: Exception) -> None:
    assert RestartPolicy(-1, -1, 60).restart(Worker(0), error).error is error


def test_same_failure_with_no_step_between_is_final() -> None:
    policy = RestartPolicy(-1, -1, 60)
    for error, steps in ((ERROR, 0), (ERROR, 1), (ValueError("another"), 0), (ERROR, 0)):
        policy.restart(Worker(0), error, steps=steps)
    policy.restart(Worker(1), ERROR, steps=0)
    with pytest.raises(WorkerFailure, match="had been started again after the same failure, and made no step since"):
        policy.restart(Worker(0), RuntimeError("it exploded"), steps=0)


@pytest.mark.parametrize("error", [ERROR, told(ERROR), elsewhere(told(ERROR))], ids=repr)
def test_first_step_that_fails_is_not_tried_again(error: Exception) -> None:
    with pytest.raises(WorkerFailure, match="since no environment of this run has made a step yet"):
        RestartPolicy(-1, -1, 60).restart(Worker(0), error, steps=0, begun=False)


def test_process_that_ends_before_its_first_step_is_started_again() -> None:
    assert RestartPolicy(-1, -1, 60).restart(Worker(0), EnvironmentFailure("It ended."), steps=0, begun=False)


@pytest.mark.parametrize(
    "error", [EnvironmentFailure("The player ended with exit code 1."), ConnectionError("refused")]
)
def test_accident_that_happens_again_at_once_keeps_to_the_limits(error: Exception) -> None:
    policy = RestartPolicy(3, -1, 60)
    for _ in range(3):
        policy.restart(Worker(0), error, steps=0)
    with pytest.raises(WorkerFailure, match="--max-lifetime-restarts is 3"):
        policy.restart(Worker(0), error, steps=0)
