from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from builtin_plugins.inprocess import InProcessManager
from mlhooks.envs.manager import WorkerLost
from mlhooks.envs.parameters import Sampler, set_parameters
from mlhooks.envs.restarts import RestartPolicy
from mlhooks.errors import UsageError
from mlhooks.settings.environment_parameters import (
    ConstantSettings,
    GaussianSettings,
    MultiRangeUniformSettings,
    ParameterRandomizationSettings,
    UniformSettings,
)
from tests.envs.numbered import Numbered, Plan

MANY = 20_000


def test_constant_is_its_value() -> None:
    assert Sampler(ConstantSettings(value=2.5)).draw(3).tolist() == [2.5, 2.5, 2.5]


def test_uniform_lies_between_its_bounds() -> None:
    drawn = Sampler(UniformSettings(min_value=-1, max_value=3, seed=1)).draw(MANY)
    assert -1 <= drawn.min() < -0.99
    assert 2.99 < drawn.max() <= 3
    assert drawn.mean() == pytest.approx(1, abs=0.05)


def test_gaussian_has_its_mean_and_deviation() -> None:
    drawn = Sampler(GaussianSettings(mean=4, st_dev=0.5, seed=1)).draw(MANY)
    assert (drawn.mean(), drawn.std()) == (pytest.approx(4, abs=0.02), pytest.approx(0.5, abs=0.02))


def test_ranges_are_drawn_from_as_often_as_they_are_long() -> None:
    drawn = Sampler(MultiRangeUniformSettings(intervals=[(0, 1), (10, 13)], seed=1)).draw(MANY)
    low = drawn < 5
    assert low.mean() == pytest.approx(0.25, abs=0.02)
    assert drawn[low].max() <= 1
    assert drawn[~low].min() >= 10
    points = Sampler(MultiRangeUniformSettings(intervals=[(1, 1), (2, 2)], seed=1)).draw(100)
    assert set(points) == {1, 2}


@pytest.mark.parametrize("settings", [UniformSettings(seed=7), GaussianSettings(seed=-7)])
def test_seed_and_worker_decide_what_is_drawn_and_state_goes_on(settings: ParameterRandomizationSettings) -> None:
    first, again, other = Sampler(settings, 0), Sampler(settings, 0), Sampler(settings, 1)
    drawn = first.draw(5)
    np.testing.assert_array_equal(again.draw(5), drawn)
    assert not np.isclose(other.draw(5), drawn).any()
    later = Sampler(settings, 0)
    later.load_state_dict(first.state_dict())
    np.testing.assert_array_equal(later.draw(5), first.draw(5))


def test_environment_that_takes_none_is_left_alone_where_there_are_none() -> None:
    set_parameters(Numbered(), {}, 0)
    with pytest.raises(UsageError, match=r"gymnasium:X takes no environment parameters.*environment_parameters.*mass"):
        set_parameters(Numbered(), {"mass": ConstantSettings(value=1)}, 0, "gymnasium:X")


class Weighed(Numbered):
    """Knows its weight."""

    weight = 0.0

    def set_parameters(self, parameters: Mapping[str, Sampler]) -> None:
        self.weight = float(parameters["weight"].draw()[0])


def test_environment_that_is_made_again_in_process_gets_the_parameters_of_now() -> None:
    manager = InProcessManager(lambda index: Weighed(index, Plan({2: "raise"})), 2, RestartPolicy(-1, -1, 60))

    def weights() -> list[float]:
        return [env.weight for env in manager.envs if isinstance(env, Weighed)]

    list(manager.ready())
    list(manager.ready())
    assert weights() == [0, 0]
    assert all(isinstance(event, WorkerLost) for event in manager.ready())
    manager.set_parameters({"weight": ConstantSettings(value=2)}, reset=True)
    assert weights() == []
    list(manager.ready())
    assert weights() == [2, 2]
    manager.set_parameters({"weight": ConstantSettings(value=3)})
    assert weights() == [3, 3]
