from __future__ import annotations

import pytest

from mlhooks import hookimpl
from mlhooks.errors import MlhooksError, PluginError
from mlhooks.plugins import PluginManager
from tests.parts import AnyPolicy
from tests.test_containment import ORIGIN, Policy, Steady, create_policy, flaky_manager, write


def test_wrapper_of_either_kind_works():
    class New:
        @hookimpl(wrapper=True)
        def create_policy(self):
            return AnyPolicy(f"new({(yield).name})")

    class Old:
        @hookimpl(hookwrapper=True)
        def create_policy(self):
            outcome = yield
            outcome.force_result(AnyPolicy(f"old({outcome.get_result().name})"))

    manager = PluginManager()
    for plugin in (Policy(), New(), Old()):
        manager.register(plugin)
    assert create_policy(manager) == "old(new(policy))"


def test_wrapper_sees_and_may_replace_the_failure_of_what_it_wraps():
    class Rescues:
        @hookimpl(wrapper=True)
        def create_policy(self):
            try:
                return (yield)
            except PluginError as error:
                return AnyPolicy(f"rescued from {error.__cause__!r}")

    manager = PluginManager()
    manager.register(Policy(ValueError("boom")))
    manager.register(Rescues())
    assert create_policy(manager) == "rescued from ValueError('boom')"


def test_failure_that_a_wrapper_lets_pass_stays_its_culprits():
    class Passes:
        @hookimpl(wrapper=True)
        def create_policy(self):
            return (yield)

    manager = PluginManager()
    manager.register(Policy(ValueError("boom")), "culprit")
    manager.register(Passes(), "innocent")
    with pytest.raises(PluginError, match="'culprit'") as caught:
        create_policy(manager)
    assert "innocent" not in str(caught.value)


def failing_wrapper(hook, where, **options):
    def before(self):
        raise ValueError("boom")
        yield

    def after(self):
        yield
        raise ValueError("boom")

    def twice(self):
        yield
        yield

    def never(self):
        return
        yield

    body = {"before": before, "after": after, "twice": twice, "never": never}[where]
    return type("Wrapper", (), {hook: hookimpl(**options)(body)})()


@pytest.mark.filterwarnings("ignore::pluggy.PluggyTeardownRaisedWarning")
@pytest.mark.parametrize("options", [{"wrapper": True}, {"hookwrapper": True}], ids=["new", "old"])
@pytest.mark.parametrize("where", ["before", "after", "twice", "never"])
def test_failing_wrapper_of_an_observer_stands_aside(where, options, caplog):
    manager, steady = PluginManager(), Steady()
    manager.register(steady)
    wrapper = failing_wrapper("write_stats", where, **options)
    manager.register(wrapper, "flaky", origin=ORIGIN)
    write(manager, 4)
    assert steady.steps == [0, 1, 2, 3]
    assert not manager.is_registered(wrapper)
    assert "'flaky' (mlhooks-flaky 3.1) failed" in caplog.text


@pytest.mark.filterwarnings("ignore::pluggy.PluggyTeardownRaisedWarning")
@pytest.mark.parametrize("options", [{"wrapper": True}, {"hookwrapper": True}], ids=["new", "old"])
@pytest.mark.parametrize("where", ["before", "after", "twice", "never"])
def test_failing_wrapper_of_a_fatal_hook_names_its_culprit(where, options):
    manager = PluginManager()
    manager.register(Policy())
    manager.register(failing_wrapper("create_policy", where, **options), "flaky", origin=ORIGIN)
    with pytest.raises(MlhooksError, match=r"'flaky' \(mlhooks-flaky 3\.1\)"):
        create_policy(manager)


def test_interrupt_passes_through_a_wrapper():
    class Passes:
        @hookimpl(wrapper=True)
        def write_stats(self):
            return (yield)

    manager, _, _ = flaky_manager(KeyboardInterrupt())
    manager.register(Passes())
    with pytest.raises(KeyboardInterrupt):
        write(manager)
