"""Torch optimizers by name: their classes, arguments that do not fit them, and their steps on flat parameters."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from mlhooks.errors import UnsupportedError
from mlhooks.fast.adam import Adam, FlatParameters
from mlhooks.settings import HyperparameterSettings, OptimizerType
from mlhooks.settings.findings import shown
from mlhooks.training.descent import GradientStepper

NOT_ARGUMENTS = {"self", "params", "lr", "maximize", "differentiable", "capturable"}
"""Arguments of torch's optimizers that a run gives itself or has no use for, as it minimizes a loss step by step."""
OF_SHAPES = {OptimizerType.ADAFACTOR}
"""Optimizers whose steps depend on the shapes of parameters; all others work elementwise."""
FAST_ARGUMENTS = {"betas", "eps"}
"""The arguments of Adam that mlhooks' own has as well."""


def make_torch_optimizer(parameters: FlatParameters, settings: HyperparameterSettings, lr: float) -> GradientStepper:
    """Return the torch optimizer that hyperparameters name, by default Adam.

    Raises:
        UnsupportedError: the installed torch has no optimizer of this name, or it refuses an argument.
    """
    kind, arguments = asked_for(settings)
    for _, message in problems(settings):
        raise UnsupportedError(f"hyperparameters.{message}")
    if kind is OptimizerType.ADAM and arguments.keys() <= FAST_ARGUMENTS:
        return Adam(parameters, lr, **arguments)
    return NamedOptimizer(parameters, kind, lr, arguments)


def asked_for(settings: HyperparameterSettings) -> tuple[OptimizerType, dict[str, Any]]:
    """Return the optimizer that hyperparameters name, and its arguments as torch takes them."""
    kind: OptimizerType = getattr(settings, "optimizer", OptimizerType.ADAM)
    written: Mapping[str, Any] = getattr(settings, "optimizer_kwargs", None) or {}
    return kind, {name: tuple(value) if isinstance(value, list) else value for name, value in written.items()}


def problems(settings: HyperparameterSettings) -> Iterator[tuple[tuple[str, ...], str]]:
    """Yield what is wrong with the optimizer that hyperparameters name: the path of the key below them, and why."""
    if not settings.model_fields_set & {"optimizer", "optimizer_kwargs"}:
        return
    kind, arguments = asked_for(settings)
    if kind is OptimizerType.ADAM and arguments.keys() <= FAST_ARGUMENTS:
        if message := _problem_of_fast(**arguments):
            yield ("optimizer_kwargs",), f"optimizer_kwargs: adam refuses them: {message}"
        return
    made = optimizer_class(kind)
    if made is None:
        yield ("optimizer",), f"optimizer: torch {torch.__version__} has no {kind.value}"
        return
    defaults = {
        name: each.default for name, each in inspect.signature(made).parameters.items() if name not in NOT_ARGUMENTS
    }
    wrong = {name: problem for name, value in arguments.items() if (problem := _problem_of(name, value, defaults))}
    for name, problem in wrong.items():
        yield ("optimizer_kwargs", name), f"optimizer_kwargs: {kind.value}{problem}"
    if not wrong:
        try:
            made([nn.Parameter(torch.zeros(1))], lr=1.0, **arguments)
        except (TypeError, ValueError, IndexError, RuntimeError) as error:
            yield ("optimizer_kwargs",), f"optimizer_kwargs: {kind.value} refuses them: {error}"


def _problem_of(name: str, value: Any, defaults: Mapping[str, Any]) -> str | None:
    """Say what is wrong with an argument of one of torch's optimizers, of which the default tells the type."""
    if name not in defaults:
        return f" takes no argument {name}; it takes {', '.join(defaults)}"
    default = defaults[name]
    if default is None or isinstance(default, bool):
        wanted = "true or false" if default is not None else "true, false or null"
        fits = isinstance(value, bool) or value is default
    elif isinstance(default, tuple):
        wanted = f"a list of {len(default)} numbers, as in {_in_yaml(default)}"
        fits = isinstance(value, tuple) and len(value) == len(default)
        fits = fits and all(_is_number(n) or n is usual is None for n, usual in zip(value, default, strict=True))
    else:
        wanted, fits = "a number", _is_number(value)
    return None if fits else f": {name} must be {wanted}, and not {_in_yaml(value)}"


def _in_yaml(value: Any) -> str:
    return f"[{', '.join(map(_in_yaml, value))}]" if isinstance(value, tuple) else shown(value)


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, float | int):
        return False
    return value == math.inf or abs(value) <= sys.float_info.max  # Whole numbers may be too large for torch.


def _problem_of_fast(betas: Any = (0.9, 0.999), eps: Any = 1e-8) -> str | None:
    """Say what is wrong with arguments of mlhooks' own Adam, without torch's, which takes long to import."""
    pair = betas if isinstance(betas, tuple) else ()
    if len(pair) != 2 or not all(_is_number(beta) and 0.0 <= beta < 1.0 for beta in pair):
        return f"betas must be two numbers from 0 to below 1, as in [0.9, 0.999], and not {_in_yaml(betas):.60}"
    if not _is_number(eps) or eps < 0.0:
        return f"eps must be a number of at least 0, and not {_in_yaml(eps):.60}"
    return None


def optimizer_class(kind: OptimizerType) -> Callable[..., torch.optim.Optimizer] | None:
    """Return the class of an optimizer; None where the installed torch has none of this name."""
    if kind is OptimizerType.RMSPROP_TF:
        from mlhooks.training.rmsprop_tf import RMSpropTF  # It imports torch.optim, as below.

        return RMSpropTF
    from torch import optim  # It takes long to import, which few runs need.

    classes = {name.lower(): value for name, value in vars(optim).items() if isinstance(value, type)}
    return classes.get(kind.value)


class NamedOptimizer:
    """An optimizer of `torch.optim` on flat parameters.

    One that works elementwise gets all parameters as a single one, so that its step is a handful of operations whatever
    the number of layers.

    Args:
        parameters: what it steps on.
        kind: which optimizer it is; lr: its first learning rate.
        arguments: its other arguments.

    Attributes:
        param_groups: its options, of which `lr` follows the schedule.
        title: its name in messages.
    """

    def __init__(
        self, parameters: FlatParameters, kind: OptimizerType, lr: float, arguments: Mapping[str, Any]
    ) -> None:
        self.parameters, self.kind, self.arguments = parameters, kind, dict(arguments)
        self.title = kind.value
        self._targets: list[Tensor] = [*parameters.parameters]
        if kind not in OF_SHAPES:
            whole = nn.Parameter(parameters.data, requires_grad=False)
            whole.grad = parameters.grad
            self._targets = [whole]
        self._torch = self._made_for(self._targets, lr)
        self.param_groups = self._torch.param_groups

    def _made_for(self, targets: list[Tensor], lr: float) -> torch.optim.Optimizer:
        made = optimizer_class(self.kind)
        assert made is not None
        return made(targets, lr=lr, **self.arguments)

    def step(self) -> None:
        """Apply the gradients."""
        self._torch.step()

    def state_dict(self) -> dict[str, Any]:
        """Return which optimizer it is, and what torch's knows of each parameter; its options are settings."""
        return {"optimizer": self.kind.value, "state": self._torch.state_dict()["state"]}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            ValueError: it is not a state of this optimizer, or of parameters of other sizes.
        """
        of = state.get("optimizer", OptimizerType.ADAM.value)
        if of != self.kind.value:
            raise ValueError(f"it is of {of}, and the settings ask for {self.kind.value}")
        if state["state"]:
            self._check(state["state"])
        options = self._torch.state_dict()["param_groups"]
        self._torch.load_state_dict({"state": state["state"], "param_groups": options})
        self.param_groups = self._torch.param_groups

    def _check(self, state: Any) -> None:
        """Refuse a state that torch would take and fail with at the next step."""
        zeros = [torch.zeros_like(target) for target in self._targets]
        for target in zeros:
            target.grad = torch.zeros_like(target)
        other = self._made_for(zeros, 0.0)
        other.step()
        wanted, found = _shapes(other.state_dict()["state"]), _shapes(state)
        if wanted != found:
            raise ValueError(f"it holds {found!s:.200}, and must hold {wanted!s:.200}")

    def __reduce__(self) -> tuple[Any, ...]:
        group = self.param_groups[0]
        return NamedOptimizer, (self.parameters, self.kind, group["lr"], self.arguments), self.state_dict()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.load_state_dict(state)


def _shapes(state: Any) -> Any:
    """Return a state with the shape in place of each tensor, and the type in place of everything else."""
    if isinstance(state, dict):
        return {key: _shapes(value) for key, value in state.items()}
    return list(state.shape) if isinstance(state, Tensor) else type(state).__name__
