"""Trainer classes that name their policy and optimizer, and the plugins that put others in their place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from builtin_plugins.a2c import A2COptimizer, A2CSettings, A2CTrainer
from builtin_plugins.dqn import DQNOptimizer, DQNTrainer, QPolicy
from mlhooks import hookimpl
from mlhooks.errors import MlhooksError, PluginError
from mlhooks.testing.managers import make_manager
from mlhooks.testing.specs import make_behavior_spec
from mlhooks.testing.trainer_loop import make_trainer
from mlhooks.training.off_policy import OffPolicyTrainer
from mlhooks.training.on_policy import OnPolicyTrainer
from mlhooks.training.optimizer import Optimizer
from mlhooks.training.policy import ActorPolicy, Policy
from mlhooks.training.trainer import Trainer

SPEC = make_behavior_spec(branches=(3,))


class Mine(OnPolicyTrainer):
    hyperparameters_type = A2CSettings
    policy_type = ActorPolicy
    optimizer_type = A2COptimizer


class OtherPolicy(ActorPolicy): ...


class OtherOptimizer(A2COptimizer): ...


class Forgot(Policy):
    act = modules = lambda *_: {}

    def __init__(self, *_: Any) -> None: ...


class Breaking(A2COptimizer):
    def __init__(self, *_: Any) -> None:
        raise ValueError("no idea")


class Offer:
    """Offers a trainer class as `mine`."""

    def __init__(self, kind: type[Trainer], **changes: Any) -> None:
        self.kind = type("Changed", (kind,), changes) if changes else kind

    @hookimpl
    def get_trainer_types(self) -> dict[str, type[Trainer]]:
        return {"mine": self.kind}


def made(*plugins: object, kind: str = "mine") -> Trainer:
    return make_trainer(make_manager(*plugins), SPEC, {"trainer_type": kind})


def test_named_parts_are_made_where_no_plugin_answers() -> None:
    trainer = made(Offer(Mine))
    assert (type(trainer.policy), type(trainer.optimizer)) == (ActorPolicy, A2COptimizer)
    assert trainer.optimizer.policy is trainer.policy
    assert trainer.optimizer.settings is trainer.policy.settings is trainer.settings


def test_built_in_trainers_name_theirs() -> None:
    assert (DQNTrainer.policy_type, DQNTrainer.optimizer_type) == (QPolicy, DQNOptimizer)
    assert (A2CTrainer.policy_type, A2CTrainer.optimizer_type) == (ActorPolicy, A2COptimizer)
    assert (OnPolicyTrainer.policy_type, OffPolicyTrainer.optimizer_type) == (None, None)


@pytest.mark.parametrize("options", [{}, {"tryfirst": True}, {"trylast": True}])
def test_plugin_that_answers_is_asked_before_whatever_its_mark(options: dict[str, bool]) -> None:
    class Third:
        @hookimpl(**options)
        def create_policy(self, trainer: Trainer, behavior_spec: Any) -> Policy:
            return OtherPolicy(trainer.behavior_name, behavior_spec, trainer.settings, trainer.device)

        @hookimpl(**options)
        def create_optimizer(self, trainer: Trainer, policy: Any) -> Optimizer:
            return OtherOptimizer(policy, trainer.settings)

    for plugins in ([Third(), Offer(Mine)], [Offer(Mine), Third()]):
        trainer = made(*plugins)
        assert (type(trainer.policy), type(trainer.optimizer)) == (OtherPolicy, OtherOptimizer)


def test_plugin_that_answers_none_leaves_the_named_parts() -> None:
    class Third:
        @hookimpl
        def create_policy(self) -> None: ...

        @hookimpl
        def create_optimizer(self, trainer: Trainer, policy: Any) -> Optimizer | None:
            return None if isinstance(trainer, Mine) else OtherOptimizer(policy, trainer.settings)

    assert type(made(Offer(Mine), Third()).optimizer) is A2COptimizer
    assert type(made(Offer(Mine), Third(), kind="a2c").optimizer) is OtherOptimizer


def test_wrapper_sees_and_replaces_what_was_named() -> None:
    seen = []

    class Wrapper:
        @hookimpl(wrapper=True)
        def create_optimizer(self, trainer: Trainer, policy: Any) -> Any:
            seen.append((yield))
            return OtherOptimizer(policy, trainer.settings)

    assert type(made(Offer(Mine), Wrapper()).optimizer) is OtherOptimizer
    assert [type(each) for each in seen] == [A2COptimizer]


def test_named_policy_cannot_change_the_spec_of_others() -> None:
    class Changing(ActorPolicy):
        def __init__(self, behavior_name: str, behavior_spec: Any, *others: Any) -> None:
            super().__init__(behavior_name, behavior_spec, *others)
            behavior_spec.observation_specs.clear()

    assert len(made(Offer(Mine, policy_type=Changing)).behavior_spec.observation_specs) == 1


@pytest.mark.parametrize(("hook", "part"), [("create_policy", "policy_type"), ("create_optimizer", "optimizer_type")])
def test_trainer_that_names_none_and_whom_nobody_answers_is_refused(hook: str, part: str) -> None:
    with pytest.raises(
        PluginError, match=f"No plugin answered {hook} for .*trainer_type 'mine': .*must.*Changed.{part}"
    ):
        made(Offer(Mine, **{part: None}))


def test_failure_of_a_named_part_is_its_plugins() -> None:
    with pytest.raises(PluginError, match=r"plugin 'Offer' .*failed in its Changed\.optimizer_type: ValueError: no id"):
        made(Offer(Mine, optimizer_type=Breaking))
    with pytest.raises(PluginError, match=r"'Offer' .*Changed\.policy_type: .*its Forgot does not call super"):
        made(Offer(Mine, policy_type=Forgot))


def test_refusal_of_a_named_part_is_passed_on() -> None:
    class Refusing(ActorPolicy):
        def __init__(self, *_: Any) -> None:
            raise MlhooksError("not this one")

    with pytest.raises(MlhooksError, match="not this one") as caught:
        made(Offer(Mine, policy_type=Refusing))
    assert caught.value.__notes__[0].endswith("in its Changed.policy_type.")


def test_named_optimizer_is_not_made_for_a_policy_of_another_kind() -> None:
    class Foreign:
        @hookimpl
        def create_policy(self, trainer: Trainer, behavior_spec: Any) -> Policy:
            return ActorPolicy(trainer.behavior_name, behavior_spec, trainer.settings, trainer.device)

    with pytest.raises(PluginError, match=r"policy of type ActorPolicy .*DQNOptimizer .*is made for QPolicy"):
        made(Foreign(), kind="dqn")


@pytest.mark.parametrize(
    ("attribute", "value", "said"),
    [
        ("policy_type", A2COptimizer, r"Changed\.policy_type is .* must be a subclass of mlhooks\.plugin\.P"),
        ("policy_type", Policy, r"Changed\.policy_type is .* which lacks act, modules"),
        ("optimizer_type", ActorPolicy, r"Changed\.optimizer_type is .* must be a subclass of mlhooks\.plugin\.Opt"),
        ("optimizer_type", "ppo", r"Changed\.optimizer_type is 'ppo'"),
    ],
)
def test_what_is_no_such_class_is_refused_when_it_is_offered(attribute: str, value: Any, said: str) -> None:
    with pytest.raises(PluginError, match=said):
        made(Offer(Mine, **{attribute: value}))


def test_values_have_gradients_and_estimates_have_none() -> None:
    trainer: Any = made(Offer(Mine))
    features = trainer.policy.features([np.eye(3, dtype=np.float32)])
    batch = type("Rows", (), {"features": features})()
    values, estimates = trainer.optimizer.values(batch), trainer.optimizer.estimate(features)
    assert values.requires_grad
    assert not estimates.requires_grad
    np.testing.assert_allclose(values.detach().numpy(), estimates.numpy(), rtol=1e-6, atol=1e-6)
