"""What a run asks of a policy of the package before there is any."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from mlhooks.mlagents_wheel.policy import WheelPolicy
from mlhooks.settings import TrainerSettings
from mlhooks.testing.specs import make_behavior_spec
from mlhooks.training.torch_setup import Threads


@pytest.mark.parametrize(("observations", "shares"), [((5, 2), False), ((5, (3, 20, 20)), True)], ids=str)
def test_threads_are_shared_where_the_package_reads_images(observations: tuple[Any, ...], shares: bool) -> None:
    spec, settings = make_behavior_spec(observations, branches=(2,)), TrainerSettings()
    policy = WheelPolicy("A", spec, settings, torch.device("cpu"))
    threads = Threads(None)
    threads.available = 2
    before = torch.get_num_threads()
    try:
        threads.adapt_to(SimpleNamespace(settings=settings, policy=policy))  # type: ignore[arg-type]
    finally:
        torch.set_num_threads(before)
    assert threads.count == (2 if shares else 1)
