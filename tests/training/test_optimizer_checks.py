"""Mistakes in an optimizer of a plugin are said by its name and line."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from builtin_plugins.a2c import A2CSettings
from builtin_plugins.ppo import PPOOptimizer, PPOSettings
from mlhooks import hookimpl
from mlhooks.errors import NonFiniteError, PluginError
from mlhooks.fast.switch import is_plain, native
from mlhooks.plugin import ActorCriticOptimizer, ActorPolicy, Batch, TrainerSettings
from mlhooks.training.run import Run
from tests.scripted import Env, config, train
from tests.steps import make_spec


def run_with(optimizer: type[PPOOptimizer], folder: Path, **settings: Any) -> Run:
    class Offer:
        @hookimpl
        def create_optimizer(self, trainer: Any, policy: Any) -> Any:
            return optimizer(policy, trainer.settings)

    return train(config("Corridor", "test:x", max_steps=200, **settings), folder, Env(), Offer())


def line_of(function: Callable[..., Any]) -> str:
    return f"{Path(__file__).name}:{inspect.getsourcelines(function)[1]}"


Spoil = Callable[[dict[str, torch.Tensor]], Any]


def refused(folder: Path, spoil: Spoil, at: int) -> str:
    """Return what is said when the losses of one update are spoilt."""

    class Wrong(PPOOptimizer):
        calls = 0

        def loss(self, batch: Any) -> Any:
            self.calls += 1
            losses = super().loss(batch)
            return spoil(losses) if self.calls == at else losses

    with pytest.raises(PluginError) as caught:
        run_with(Wrong, folder)
    start, _, problem = str(caught.value).partition("; ")
    assert re.fullmatch(r"`Wrong.loss` \(.*\) must return a mapping of scalar tensors with the key 'loss'", start)
    assert line_of(Wrong.loss) in start
    return problem


@pytest.mark.parametrize("at", [1, 4])
@pytest.mark.parametrize(
    ("spoil", "problem"),
    [
        (lambda losses: losses["loss"], "it returned a Tensor of shape ()."),
        (lambda losses: None, "it returned None."),
        (lambda losses: {"total": losses["loss"]}, "it returned 'total'."),
        (lambda losses: {**losses, "X": losses["loss"].item()}, "its 'X' is a float; for a number, leave out"),
        (lambda losses: {**losses, "loss": losses["loss"].item()}, "its 'loss' is a float; for a number, leave out"),
        (lambda losses: {**losses, "loss": losses["loss"] * torch.ones(3)}, "its 'loss' has the shape (3,); take"),
        (lambda losses: {**losses, "loss": losses["loss"].detach()}, "its 'loss' has no gradient, because"),
    ],
)
def test_wrong_losses_are_refused_at_the_first_update_and_later(
    tmp_path: Path, spoil: Spoil, problem: str, at: int
) -> None:
    assert refused(tmp_path, spoil, at).startswith(problem)


def test_reported_vector_is_refused_at_the_first_update(tmp_path: Path) -> None:
    assert refused(tmp_path, lambda losses: {**losses, "X": torch.ones(3)}, 1).startswith("its 'X' has the shape (3,)")


@pytest.mark.parametrize("branches", [(2,), (2, 2)])
def test_loss_that_pairs_each_row_with_all_rows_is_refused_with_its_line(
    tmp_path: Path, branches: tuple[int, ...]
) -> None:
    class Rows(ActorCriticOptimizer):
        def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
            log_probs, _ = self.policy.evaluate(batch)  # [rows, dimensions]
            return {"loss": -(log_probs * batch.returns.mean(1)).mean()}

    optimizer, batch = optimizer_and_batch(Rows, branches)
    with pytest.raises(
        PluginError, match=r"`Rows.loss` \(.*\) takes numbers of the shapes \[4\] and \[4, \d\]"
    ) as caught:
        optimizer.update(batch)
    assert f"together ({Path(__file__).name}:{inspect.getsourcelines(Rows.loss)[1] + 2})" in re.sub(
        r"\(\S*/", "(", str(caught.value)
    )
    assert "`column(x)`" in str(caught.value)


def test_loss_with_a_column_of_advantages_goes_with_any_number_of_dimensions() -> None:
    class Columns(ActorCriticOptimizer):
        def loss(self, batch: Batch) -> dict[str, torch.Tensor]:
            log_probs, _ = self.policy.evaluate(batch)
            return {"loss": -(log_probs * batch.standardize(batch.advantages)).mean(), "log_probs": log_probs.mean()}

    for branches in ((2,), (2, 2)):
        optimizer, batch = optimizer_and_batch(Columns, branches)
        assert optimizer.update(batch)["log_probs"].item() == pytest.approx(math.log(0.5), rel=0.1)


def optimizer_and_batch(kind: type[ActorCriticOptimizer], branches: tuple[int, ...]) -> tuple[Any, Batch]:
    torch.manual_seed(0)
    spec = make_spec(observation=3, continuous=0, branches=branches)
    settings = TrainerSettings(trainer_type="ppo", hyperparameters=PPOSettings())
    optimizer = kind(ActorPolicy("B", spec, settings, torch.device("cpu")), settings)
    return optimizer, Batch(
        features=torch.randn(4, 3),
        continuous=torch.zeros(4, 0),
        discrete=torch.zeros(4, len(branches), dtype=torch.int64),
        advantages=torch.tensor([[1.0], [2.0], [-1.0], [0.5]]),
        returns=torch.randn(4, 1),
    )


def test_optimizer_whose_base_was_not_initialized_is_refused(tmp_path: Path) -> None:
    class Forgetful(PPOOptimizer):
        def __init__(self, policy: Any, settings: Any) -> None:
            self.weight = 1.0

    with pytest.raises(PluginError, match=r"`Forgetful.__init__` \(.*\) must call super\(\).__init__") as caught:
        run_with(Forgetful, tmp_path)
    assert line_of(Forgetful.__init__) in str(caught.value)


def test_hyperparameters_that_a_base_cannot_read_are_named() -> None:
    asked = TrainerSettings(trainer_type="mine", hyperparameters=A2CSettings())
    with pytest.raises(
        PluginError,
        match=r"PPOOptimizer needs hyperparameters of mlhooks\.plugin\.SurrogateHyperparameters, and those of trainer "
        r"type 'mine' are A2CSettings: set hyperparameters_type to a subclass",
    ):
        PPOOptimizer(ActorPolicy("B", make_spec(observation=3), asked, torch.device("cpu")), asked)


def test_torch_optimizer_takes_the_flat_parameters_as_they_are(tmp_path: Path) -> None:
    class Direct(PPOOptimizer):
        def create_torch_optimizer(self, parameters: Any) -> Any:
            return torch.optim.SGD(parameters, lr=0.1)

    optimizer = run_with(Direct, tmp_path).trainers["Corridor"].optimizer
    (group,) = optimizer.torch_optimizer.param_groups
    assert [id(p) for p in group["params"]] == [id(p) for p in optimizer.flat.parameters]


def test_torch_optimizer_that_is_not_returned_is_refused(tmp_path: Path) -> None:
    class Nothing(PPOOptimizer):
        def create_torch_optimizer(self, parameters: Any) -> Any:
            torch.optim.SGD(parameters, lr=0.1)

    with pytest.raises(
        PluginError, match=r"`Nothing.create_torch_optimizer` \(.*must return a torch opt.*returned None"
    ):
        run_with(Nothing, tmp_path)


def test_modules_that_the_torch_optimizer_leaves_out_are_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class ActorOnly(PPOOptimizer):
        def create_torch_optimizer(self, parameters: Any) -> Any:
            return torch.optim.SGD(self.policy.actor.parameters(), lr=0.1)

    run_with(ActorOnly, tmp_path)
    (warning,) = [text for text in caplog.messages if "leaves out" in text]
    assert re.match(
        r"`ActorOnly.create_torch_optimizer` \(.*:\d+\) leaves out parameters of the modules 'critic',", warning
    )


def test_modules_that_are_frozen_may_be_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Frozen(PPOOptimizer):
        def __init__(self, policy: Any, settings: Any) -> None:
            super().__init__(policy, settings)
            self.critic.requires_grad_(False)

        def create_torch_optimizer(self, parameters: Any) -> Any:
            return torch.optim.SGD(self.policy.actor.parameters(), lr=0.1)

    run_with(Frozen, tmp_path)
    assert "leaves out" not in caplog.text


def test_loss_that_writes_to_its_batch_is_named(tmp_path: Path) -> None:
    class Writes(PPOOptimizer):
        def loss(self, batch: Any) -> Any:
            batch.returns.mul_(0.5)
            return super().loss(batch)

    with pytest.raises(PluginError, match=r"`Writes\.loss` \(.*\) wrote to `batch\.returns`, which the next epoch may"):
        run_with(Writes, tmp_path)


@pytest.mark.parametrize("scale", [1e21, float("inf")])
def test_gradients_that_cannot_be_applied_are_named(tmp_path: Path, scale: float) -> None:
    class Steep(PPOOptimizer):
        def loss(self, batch: Any) -> Any:
            losses = super().loss(batch)
            bias = self.critic.heads.bias
            # The loss stays what it is, and the derivative by this bias becomes `scale`.
            bias.register_hook(lambda gradient: torch.full_like(gradient, scale))
            return losses

    with pytest.raises(NonFiniteError) as caught:
        run_with(Steep, tmp_path)
    message = str(caught.value)
    if scale == 1e21:
        assert message.startswith(
            "the norm of the gradients is inf, because they are too large to be squared: up to 1.0e+21 in critic."
        )
    else:
        assert message.startswith("gradients became NaN or infinite in critic.")
    assert "at step 100. No parameter was changed by it. Try a lower learning_rate" in message


@pytest.mark.skipif(is_plain() or native("mlp") is None, reason="no loss computes on arrays")
def test_loss_that_fails_on_arrays_alone_is_told_to_leave_them(tmp_path: Path) -> None:
    class Wrong(PPOOptimizer):
        array_arithmetic = True

        def loss(self, batch: Any) -> Any:
            assert isinstance(self.values(batch), torch.Tensor), "no tensor"
            return super().loss(batch)

    said = (
        r"`Wrong\.loss` \(.*\) fails with array arithmetic, and does not without it: AssertionError: no tensor.*"
        r"\(.*test_optimizer_checks\.py:\d+\)\. Write the loss .* or set array_arithmetic = False on the class"
    )
    with pytest.raises(PluginError, match=f"(?s){said}"):
        run_with(Wrong, tmp_path)
