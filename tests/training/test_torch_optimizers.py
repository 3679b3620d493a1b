"""Torch optimizers by name, against torch's own on separate parameters and against formulas by hand."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from builtin_plugins.ppo import PPOOptimizer, PPOSettings
from mlhooks.errors import CheckpointError, SettingsError, UnsupportedError
from mlhooks.fast.adam import Adam, FlatParameters
from mlhooks.settings import OptimizerType, TrainerSettings
from mlhooks.training.descent import Descent
from mlhooks.training.policy import ActorPolicy
from mlhooks.training.torch_optimizers import make_torch_optimizer, optimizer_class, problems
from tests.scripted import Env, config, train
from tests.steps import make_spec

OTHERS = {"Optimizer", "LBFGS", "SparseAdam", "Muon"}
"""Classes of `torch.optim` that need the loss again, sparse gradients, or matrices alone; and the base."""


def settings(**hyperparameters: Any) -> PPOSettings:
    return PPOSettings(learning_rate=0.01, **hyperparameters)


def parameters() -> list[nn.Parameter]:
    g = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=g)) for shape in ((3, 4), (4,), (2, 4), (1,))]


def gradients(steps: int) -> Iterator[list[torch.Tensor]]:
    g = torch.Generator().manual_seed(1)
    for _ in range(steps):
        yield [torch.randn(p.shape, generator=g) for p in parameters()]


def moved(optimizer: Any, parts: list[nn.Parameter], steps: int = 5, skip: int = 0) -> list[torch.Tensor]:
    """Return parameters after steps by given gradients, with a learning rate that falls."""
    for step, grads in enumerate(gradients(steps)):
        if step < skip:
            continue
        for part, grad in zip(parts, grads, strict=True):
            if part.grad is None:
                part.grad = grad
            else:
                part.grad.copy_(grad)
        optimizer.param_groups[0]["lr"] = 0.01 / (1 + step)
        optimizer.step()
    return [part.detach().clone() for part in parts]


def test_all_optimizers_of_torch_have_a_name() -> None:
    kinds = {n for n, v in vars(torch.optim).items() if isinstance(v, type) and issubclass(v, torch.optim.Optimizer)}
    named = {optimizer_class(kind).__name__ for kind in OptimizerType}
    assert named - {"RMSpropTF"} == kinds - OTHERS


@pytest.mark.parametrize("written", ["RMSprop", "torch.optim.RMSprop", "rmsprop"])
def test_names_are_read_in_whatever_case(written: str) -> None:
    assert settings(optimizer=written).optimizer is OptimizerType.RMSPROP


ARGUMENTS: dict[str, dict[str, Any]] = {
    "rmsprop": {"alpha": 0.9, "eps": 1e-5, "momentum": 0.5, "centered": True},
    "sgd": {"momentum": 0.9, "nesterov": True},
    "adam": {"betas": [0.8, 0.95], "weight_decay": 0.1},
}


@pytest.mark.parametrize("with_arguments", [True, False])
@pytest.mark.parametrize("kind", OptimizerType)
def test_steps_are_those_of_torch_on_separate_parameters(kind: OptimizerType, with_arguments: bool) -> None:
    arguments = ARGUMENTS.get(kind.value, {}) if with_arguments else {}
    ours, theirs = parameters(), parameters()
    flat = FlatParameters(ours)
    made = make_torch_optimizer(flat, settings(optimizer=kind, optimizer_kwargs=arguments), 0.01)
    given = {name: tuple(value) if isinstance(value, list) else value for name, value in arguments.items()}
    torchs = optimizer_class(kind)(theirs, lr=0.01, **given)
    found, wanted = moved(made, flat.parameters), moved(torchs, theirs)
    for a, b, start in zip(found, wanted, parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
        assert not torch.equal(b, start)


@pytest.mark.parametrize(("momentum", "centered", "decay"), [(0.0, False, 0.0), (0.9, True, 0.1)])
def test_rmsprop_of_tensorflow_equals_its_formula(momentum: float, centered: bool, decay: float) -> None:
    arguments = {"alpha": 0.9, "eps": 1e-3, "momentum": momentum, "centered": centered, "weight_decay": decay}
    flat = FlatParameters(parameters())
    made = make_torch_optimizer(flat, settings(optimizer="rmsprop_tf", optimizer_kwargs=arguments), 0.01)
    found = torch.cat([part.reshape(-1) for part in moved(made, flat.parameters)]).tolist()
    numbers = torch.cat([part.detach().reshape(-1) for part in parameters()]).tolist()
    each = zip(*(torch.cat([g.reshape(-1) for g in grads]).tolist() for grads in gradients(5)), strict=True)
    for number, grads, result in zip(numbers, each, found, strict=True):
        x, square, mean, step = number, 1.0, 0.0, 0.0
        for k, gradient in enumerate(grads):
            lr, g = 0.01 / (1 + k), gradient + decay * x
            square = 0.9 * square + 0.1 * g * g
            mean = 0.9 * mean + 0.1 * g
            deviation = math.sqrt(square - (mean * mean if centered else 0.0) + 1e-3)
            step = momentum * step + lr * g / deviation
            x -= step
        assert result == pytest.approx(x, rel=1e-5, abs=1e-6)


def test_adam_stays_fast_with_the_options_that_it_has() -> None:
    flat = FlatParameters(parameters())
    made = make_torch_optimizer(flat, settings(optimizer_kwargs={"eps": 1e-2, "betas": [0.5, 0.9]}), 0.01)
    assert isinstance(made, Adam)
    theirs = parameters()
    wanted = moved(torch.optim.Adam(theirs, lr=0.01, eps=1e-2, betas=(0.5, 0.9)), theirs)
    for a, b in zip(moved(made, flat.parameters), wanted, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["rmsprop", "rmsprop_tf", "nadam", "adafactor", "sgd"])
def test_restored_state_goes_on_the_same(kind: str) -> None:
    asked = settings(optimizer=kind)
    flat, other = FlatParameters(parameters()), FlatParameters(parameters())
    made = make_torch_optimizer(flat, asked, 0.01)
    moved(made, flat.parameters, steps=3)
    state = copy.deepcopy(made.state_dict())
    other.data.copy_(flat.data)
    wanted = moved(made, flat.parameters, steps=5, skip=3)
    resumed = make_torch_optimizer(other, asked, 0.01)
    resumed.load_state_dict(state)
    for a, b in zip(moved(resumed, other.parameters, steps=5, skip=3), wanted, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("copy_of", [copy.deepcopy, lambda made: pickle.loads(pickle.dumps(made))])
def test_copy_has_parameters_of_its_own(copy_of: Callable[[Any], Any]) -> None:
    flat = FlatParameters(parameters())
    made = make_torch_optimizer(flat, settings(optimizer="rmsprop"), 0.01)
    moved(made, flat.parameters, steps=3)
    before = flat.data.clone()
    copied = copy_of(made)
    theirs = moved(copied, copied.parameters.parameters, steps=5, skip=3)
    assert torch.equal(flat.data, before)
    for a, b in zip(moved(made, flat.parameters, steps=5, skip=3), theirs, strict=True):
        assert torch.equal(a, b)


def other_size(state: dict[str, Any]) -> None:
    state["state"][0]["square_avg"] = torch.ones(3)


def lacking(state: dict[str, Any]) -> None:
    del state["state"][0]["square_avg"]


@pytest.mark.parametrize("damage", [other_size, lacking])
def test_state_that_does_not_fit_is_refused(damage: Callable[[dict[str, Any]], None]) -> None:
    modules = {"only": nn.Linear(2, 2)}

    def create(flat: FlatParameters) -> Any:
        return make_torch_optimizer(flat, settings(optimizer="rmsprop"), 0.01)

    descent = Descent(modules, 0.01, create=create)
    descent.step(lambda: {"loss": modules["only"](torch.ones(1, 2)).square().sum()})
    state = copy.deepcopy(descent.state_dict())
    damage(state)
    with pytest.raises(CheckpointError, match="square_avg"):
        descent.load_state_dict(state)


@pytest.mark.parametrize(("saved", "asked"), [("adam", "rmsprop"), ("rmsprop", "adam"), ("sgd", "rmsprop")])
def test_state_of_another_optimizer_is_refused_by_its_name(saved: str, asked: str) -> None:
    state = make_torch_optimizer(FlatParameters(parameters()), settings(optimizer=saved), 0.01).state_dict()
    descent = Descent(
        {"only": nn.Linear(2, 2)}, 0.01, create=lambda flat: make_torch_optimizer(flat, settings(optimizer=asked), 0.01)
    )
    with pytest.raises(
        CheckpointError, match=f"(?i)does not fit {asked}: it is of {saved}, and the settings ask for {asked}"
    ):
        descent.load_state_dict(state)


@pytest.mark.parametrize(
    ("kind", "arguments", "message"),
    [
        ("rmsprop", {"alfa": 0.9}, "rmsprop takes no argument alfa; it takes alpha, eps"),
        ("rmsprop", {"eps": -1.0}, "rmsprop refuses them: Invalid epsilon"),
        ("sgd", {"nesterov": True}, "sgd refuses them: Nesterov"),
        ("sgd", {"maximize": True}, "sgd takes no argument maximize"),
        ("adam", {"betas": [0.9]}, "adam refuses them: betas must be two numbers"),
        ("adam", {"eps": "small"}, "adam refuses them: eps must be a number"),
        ("adam", {"betas": ["x", 0.9]}, "numbers from 0 to below 1, as in [0.9, 0.999], and not ['x', 0.9]"),
        ("rmsprop_tf", {"alpha": "much"}, "rmsprop_tf: alpha must be a number, and not 'much'"),
        ("rmsprop", {"eps": math.nan}, "eps must be a number, and not nan"),
        ("sgd", {"weight_decay": 10**400}, "weight_decay must be a number, and not 1000"),
        ("adam", {"eps": 10**400}, "adam refuses them: eps must be a number"),
        ("sgd", {"momentum": True}, "momentum must be a number, and not true"),
        ("adamw", {"amsgrad": 3}, "adamw: amsgrad must be true or false, and not 3"),
        ("adam", {"foreach": "yes"}, "foreach must be true, false or null, and not 'yes'"),
        ("adamax", {"betas": [0.9]}, "betas must be a list of 2 numbers, as in [0.9, 0.999], and not [0.9]"),
        ("rprop", {"etas": 3}, "etas must be a list of 2 numbers, as in [0.5, 1.2], and not 3"),
        ("adafactor", {"eps": [None, "x"]}, "as in [null, 0.001], and not [null, 'x']"),
        ("rmsprop", {"capturable": True}, "rmsprop takes no argument capturable"),
    ],
)
def test_arguments_that_do_not_fit_are_named_before_training(kind: str, arguments: Any, message: str) -> None:
    asked = settings(optimizer=kind, optimizer_kwargs=arguments)
    found = list(problems(asked))
    assert [path[0] for path, _ in found] == ["optimizer_kwargs"]
    assert message in found[0][1]
    with pytest.raises(UnsupportedError, match="optimizer_kwargs"):
        make_torch_optimizer(FlatParameters(parameters()), asked, 0.01)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        ("adafactor", {"eps": [None, 1e-3], "d": 2}),
        ("rprop", {"etas": [0.4, 1.1], "foreach": False}),
        ("adamw", {"fused": None, "weight_decay": 0, "amsgrad": True}),
    ],
)
def test_arguments_of_every_kind_are_taken(kind: str, arguments: Any) -> None:
    assert list(problems(settings(optimizer=kind, optimizer_kwargs=arguments))) == []


def test_run_refuses_arguments_with_their_place(tmp_path: Path) -> None:
    asked = config("Corridor", "test:x", hyperparameters={"optimizer": "rmsprop", "optimizer_kwargs": {"alfa": 0.9}})
    with pytest.raises(UnsupportedError, match=r"(?s)optimizer_kwargs\.alfa.*takes no argument alfa"):
        train(asked, tmp_path, Env())
    asked["behaviors"]["Corridor"]["hyperparameters"] = {"optimizer": "rmsprob"}
    with pytest.raises(SettingsError, match=r"(?s)rmsprob.*rmsprop"):
        train(asked, tmp_path, Env())


def test_plugin_that_makes_its_own_optimizer_refuses_the_setting() -> None:
    class Own(PPOOptimizer):
        def create_torch_optimizer(self, parameters: FlatParameters) -> Any:
            return torch.optim.SGD(parameters.parameters, lr=0.1)

    spec = make_spec(observation=3)
    asked = TrainerSettings(trainer_type="ppo", hyperparameters=PPOSettings(optimizer="rmsprop"))
    optimizer = Own(ActorPolicy("B", spec, asked, torch.device("cpu")), asked)
    with pytest.raises(
        UnsupportedError, match=r"a torch optimizer of its own, a SGD.*remove hyperparameters\.optimizer"
    ):
        optimizer.set_step(0)
