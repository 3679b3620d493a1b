"""Who opts in to array arithmetic and who does not, in updates of real trainers, and what optimizers may do."""

from __future__ import annotations

import copy
from contextlib import nullcontext
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from builtin_plugins.dqn import DQNOptimizer
from builtin_plugins.ppo import PPOOptimizer
from mlhooks.errors import PluginError
from mlhooks.fast.adam import Adam, FlatParameters
from mlhooks.fast.switch import plain
from mlhooks.nn.networks import Critic, QNetwork
from mlhooks.plugin import ActorCriticOptimizer, Batch, QPolicy, hookimpl
from mlhooks.plugins import load_plugins
from mlhooks.testing.tasks import Branches, Mixed
from mlhooks.testing.trainer_loop import Play, make_trainer
from mlhooks.training.policy import ActorPolicy, Policy
from mlhooks.training.trainer import Trainer
from tests.fast.recording import needs_native

pytestmark = needs_native
SMALL = {"network_settings": {"hidden_units": 16, "num_layers": 1}, "max_steps": 10_000}
PPO = {**SMALL, "trainer_type": "ppo", "hyperparameters": {"batch_size": 64, "buffer_size": 128, "num_epoch": 1}}
DQN = {
    **SMALL,
    "trainer_type": "dqn",
    "hyperparameters": {
        "batch_size": 64,
        "buffer_size": 500,
        "buffer_init_steps": 64,
        "steps_per_update": 64,
        "exploration_initial_eps": 0.0,
        "exploration_final_eps": 0.0,
    },
}


class Parts(NamedTuple):
    """Offers an optimizer, and perhaps a policy."""

    optimizer: Any
    policy: Any = None

    @hookimpl
    def create_optimizer(self, trainer: Any, policy: Any) -> Any:
        return self.optimizer(policy, trainer.settings)

    @hookimpl
    def create_policy(self, trainer: Any, behavior_spec: Any) -> Any:
        if self.policy is None:
            return None
        return self.policy(trainer.behavior_name, behavior_spec, trainer.settings, torch.device("cpu"))


def updated(parts: Parts, *, dqn: bool = False, rounds: int = 1) -> Trainer:
    plugins, env = load_plugins(), Branches if dqn else Mixed
    plugins.register(parts)
    torch.manual_seed(0)
    trainer = make_trainer(plugins, env.spec, DQN if dqn else PPO, seed=3)
    play = Play(trainer, env(seed=3))
    for _ in range(rounds):
        play.until_ready()
        trainer.update()
    return trainer


def weights(trainer: Trainer) -> dict[str, Tensor]:
    modules = {**trainer.policy.modules(), **trainer.optimizer.modules()}
    return {f"{m}.{n}": p.detach() for m, module in modules.items() for n, p in module.named_parameters()}


class Seen:
    """The kinds of tensors that code of a plugin got."""

    def __init__(self) -> None:
        self.kinds: set[type] = set()

    def look(self, result: Any) -> Any:
        self.kinds |= {type(part) for part in (result if isinstance(result, tuple) else (result,)) if part is not None}
        return result


class Wrapper(nn.Module):
    def __init__(self, network: nn.Module, seen: Seen) -> None:
        super().__init__()
        self.network, self.seen = network, seen

    def forward(self, features: Tensor) -> Any:
        return self.seen.look(self.network(features))


def by_a_mixin(seen: Seen) -> Parts:
    class Mixin:
        def values(self, batch: Batch) -> Tensor:
            return seen.look(super().values(batch))  # type: ignore[misc, no-any-return]

    class Optimizer(Mixin, PPOOptimizer):
        pass

    return Parts(Optimizer)


def by_a_property(seen: Seen) -> Parts:
    class Optimizer(PPOOptimizer):
        @property
        def values(self) -> Any:  # type: ignore[override]
            return lambda batch: seen.look(self.critic(batch.features))

    return Parts(Optimizer)


def by_a_call(seen: Seen) -> Parts:
    class Own(Critic):
        def __call__(self, features: Tensor) -> Any:
            return seen.look(super().__call__(features))

    class Optimizer(PPOOptimizer):
        def __init__(self, policy: ActorPolicy, settings: Any) -> None:
            super().__init__(policy, settings)
            self.critic = Own(policy.layout, settings.network_settings, len(settings.reward_signals))

    return Parts(Optimizer)


def by_a_module_around(seen: Seen) -> Parts:
    class Optimizer(PPOOptimizer):
        def __init__(self, policy: ActorPolicy, settings: Any) -> None:
            super().__init__(policy, settings)
            self.critic: Any = Wrapper(self.critic, seen)

    return Parts(Optimizer)


def by_an_actor_around(seen: Seen) -> Parts:
    class Own(ActorPolicy):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.actor = Wrapper(self.actor, seen)

    return Parts(PPOOptimizer, Own)


def by_methods_of_objects(seen: Seen) -> Parts:
    class Optimizer(PPOOptimizer):
        def __init__(self, policy: ActorPolicy, settings: Any) -> None:
            super().__init__(policy, settings)
            values, evaluate = self.values, policy.evaluate
            self.values = lambda batch: seen.look(values(batch))  # type: ignore[method-assign]
            policy.evaluate = lambda batch: seen.look(evaluate(batch))  # type: ignore[method-assign]

    return Parts(Optimizer)


def by_what_comes_before_the_step(seen: Seen) -> Parts:
    class Optimizer(PPOOptimizer):
        def gradients_ready(self, losses: dict[str, Tensor]) -> None:
            super().gradients_ready(seen.look(tuple(losses.values())) and losses)

    return Parts(Optimizer)


@pytest.mark.parametrize(
    "offer",
    [
        by_a_mixin,
        by_a_property,
        by_a_call,
        by_a_module_around,
        by_an_actor_around,
        by_methods_of_objects,
        by_what_comes_before_the_step,
    ],
)
def test_code_that_never_opted_in_gets_tensors(offer: Any) -> None:
    seen = Seen()
    updated(offer(seen))
    assert seen.kinds
    assert seen.kinds <= {Tensor, nn.Parameter}


class Own(ActorCriticOptimizer):
    def loss(self, batch: Batch) -> dict[str, Tensor]:
        log_probs, _ = self.policy.evaluate(batch)
        errors = (self.values(batch) - batch.returns).square()
        return {"loss": errors.mean() - (log_probs * batch.standardize(batch.advantages)).mean()}


class Forgets(Own):
    """Forgets the gradients as torch's optimizers do: they become None."""

    def update(self, batch: Batch) -> dict[str, Tensor]:
        losses = super().update(batch)
        self.critic.zero_grad()
        self.policy.actor.zero_grad()
        return losses

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        self.values(batch).sum().backward()
        self.critic.zero_grad()
        return super().loss(batch)


@pytest.mark.parametrize("is_plain", [True, False])
def test_gradients_may_be_set_to_none_between_and_in_losses(is_plain: bool) -> None:
    with plain() if is_plain else nullcontext():
        found, wanted = (weights(updated(Parts(kind), rounds=2)) for kind in (Forgets, Own))
    torch.testing.assert_close(found, wanted)


class OnArrays(Own):
    array_arithmetic = True

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        return super().loss(batch)


class ForgetsOnArrays(Own):
    array_arithmetic = True

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        self.critic.zero_grad()
        self.policy.actor.zero_grad()
        return super().loss(batch)


def test_gradients_may_be_set_to_none_in_a_loss_on_arrays() -> None:
    trainers = [updated(Parts(kind), rounds=2) for kind in (ForgetsOnArrays, OnArrays)]
    assert not any(trainer.optimizer._scope.fallbacks for trainer in trainers)  # type: ignore[attr-defined]
    torch.testing.assert_close(*map(weights, trainers))


class RowByRow(Own):
    """Computes the critic for all rows, and then for each row by one of torch's function transforms."""

    array_arithmetic = True

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        losses = super().loss(batch)
        each = torch.vmap(lambda row: self.critic(row[None])[0])(batch.features)
        assert each.shape == batch.returns.shape
        return losses


def test_loss_on_arrays_may_have_torch_transform_networks_after_calling_them() -> None:
    torch.testing.assert_close(weights(updated(Parts(RowByRow))), weights(updated(Parts(OnArrays))))


class Replaces(Own):
    """Puts other gradients in place of those that were found."""

    def gradients_ready(self, losses: dict[str, Tensor]) -> None:
        for parameter in self.flat:
            assert parameter.grad is not None
            parameter.grad = torch.zeros_like(parameter)


@pytest.mark.parametrize("is_plain", [True, False])
def test_gradients_may_be_replaced_before_the_step(is_plain: bool) -> None:
    with plain() if is_plain else nullcontext():
        found, wanted = (weights(updated(Parts(Replaces), rounds=rounds)) for rounds in (1, 0))
    torch.testing.assert_close(found, wanted)


def test_copy_of_an_optimizer_learns_apart() -> None:
    optimizer: Any = updated(Parts(Own)).optimizer
    other = copy.deepcopy(optimizer)
    before = [p.clone() for p in optimizer.critic.parameters()]
    other.flat.data.add_(1.0)
    torch.testing.assert_close([*other.critic.parameters()], [p + 1.0 for p in before])
    torch.testing.assert_close([*optimizer.critic.parameters()], before)


@pytest.mark.parametrize("is_plain", [True, False])
def test_parameters_may_be_of_half_precision(is_plain: bool) -> None:
    with plain() if is_plain else nullcontext():
        parameter = nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
        flat = FlatParameters([parameter])
        (parameter * torch.tensor([3.0, 4.0, 0.0])).sum().backward()
        assert flat.norm() == 5.0
        Adam(flat, lr=0.5).step()
        flat.zero()
    assert parameter.tolist() == pytest.approx([0.5, 0.5, 1.0], rel=0.01)
    assert not flat.grad.any()


class SmallMistake(PPOOptimizer):
    """A gradient of the actor that is there with tensors only, beside one of the critic that is far larger."""

    array_arithmetic = True

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        losses = super().loss(batch)
        log_probs, _ = self.policy.evaluate(batch)
        if isinstance(log_probs, Tensor):
            losses["loss"] = losses["loss"] + log_probs.mean()
        return {"loss": losses["loss"] + 1e4 * self.values(batch).mean()}


def test_wrong_gradient_is_found_beside_much_larger_ones() -> None:
    with pytest.raises(PluginError, match="another gradient with array arithmetic than with tensors, in actor"):
        updated(Parts(SmallMistake))


class Counting(PPOOptimizer):
    """Counts its batches in a buffer, as batch normalization and spectral norms do."""

    array_arithmetic = True

    def __init__(self, policy: ActorPolicy, settings: Any) -> None:
        super().__init__(policy, settings)
        self.critic.register_buffer("seen", torch.zeros(()))

    def loss(self, batch: Batch) -> dict[str, Tensor]:
        self.critic.seen += 1.0  # type: ignore[operator]
        return super().loss(batch)


def test_comparison_of_gradients_leaves_buffers_alone() -> None:
    trainer: Any = updated(Parts(Counting))
    assert trainer.optimizer.critic.seen == 2.0  # It has minibatches of 64 of 128 rows.


class WithClosure(Own):
    def create_torch_optimizer(self, parameters: FlatParameters) -> Any:
        return torch.optim.LBFGS(parameters.parameters)


def test_torch_optimizer_that_needs_a_closure_is_refused() -> None:
    with pytest.raises(PluginError, match="LBFGS wants to compute the loss again"):
        updated(Parts(WithClosure))


class Negated(QNetwork):
    def forward(self, features: Tensor) -> Tensor:
        return -super().forward(features)


class NegatedPolicy(QPolicy):
    def __init__(self, name: str, spec: Any, settings: Any, device: torch.device) -> None:
        super().__init__(name, spec, settings, device)
        self.network = Negated(self.layout, spec.action_spec, settings.network_settings, dueling=False)


def choices(policy: Policy, env: Any) -> np.ndarray:
    policy.deterministic = True
    (observation,) = env.spec.observation_specs
    obs = np.random.default_rng(0).normal(size=(50, *observation.shape)).astype(np.float32)
    actions = policy.act([obs], None, np.random.default_rng(0))
    return np.concatenate([actions.continuous, actions.discrete], axis=1)


def test_values_decide_as_the_network_of_a_subclass_computes_them() -> None:
    policy: Any = updated(Parts(DQNOptimizer, NegatedPolicy), dqn=True).policy
    found = choices(policy, Branches)
    with plain():
        wanted = choices(policy, Branches)
    np.testing.assert_array_equal(found, wanted)


def test_actor_decides_as_its_hooks_change_it() -> None:
    policy: Any = updated(Parts(PPOOptimizer)).policy
    before = choices(policy, Mixed)
    policy.actor.register_forward_hook(lambda module, inputs, output: output._replace(mean=output.mean + 1.0))
    policy.weights_changed()
    size = Mixed.spec.action_spec.continuous_size
    np.testing.assert_allclose(choices(policy, Mixed)[:, :size], before[:, :size] + 1.0, rtol=1e-5)
