from __future__ import annotations

import logging
from asyncio import CancelledError

import pytest

from mlhooks import hookimpl
from mlhooks.errors import PluginError, UnsupportedError
from mlhooks.plugins import Origin, PluginManager
from tests.parts import AnyPolicy

ORIGIN = Origin("flaky", "mlhooks-flaky", "3.1", "entry point")


class Flaky:
    """Writes statistics; fails as often as told, one entry of `plan` per call."""

    def __init__(self, *plan):
        self.plan = list(plan)
        self.calls = 0

    @hookimpl
    def write_stats(self, step):
        self.calls += 1
        error = self.plan.pop(0) if self.plan else None
        if error is not None:
            raise error


class Steady:
    def __init__(self):
        self.steps = []

    @hookimpl
    def write_stats(self, step):
        self.steps.append(step)


def flaky_manager(*plan, strict=False):
    manager, flaky, steady = PluginManager(strict=strict), Flaky(*plan), Steady()
    manager.register(steady, "steady")
    manager.register(flaky, "flaky", origin=ORIGIN)  # It is registered last, so it is called first.
    return manager, flaky, steady


def write(manager, times=1):
    for step in range(times):
        manager.hook.write_stats(category="ball", values={}, step=step)


def test_failing_observer_is_logged_with_its_culprit_and_the_others_get_the_call(caplog):
    manager, _, steady = flaky_manager(ValueError("disk is full"))
    write(manager)
    assert steady.steps == [0]
    (record,) = caplog.records
    assert record.name == "mlhooks"
    assert record.levelno == logging.ERROR
    for word in ("'flaky'", "mlhooks-flaky", "3.1", "write_stats", "ValueError: disk is full", "test_containment.py"):
        assert word in record.getMessage()
    assert manager.disabled == []


def test_observer_is_logged_once_although_it_fails_again_and_again(caplog):
    manager, flaky, _ = flaky_manager(ValueError(1), None, ValueError(2), ValueError(3), None, ValueError(4))
    write(manager, 6)
    assert flaky.calls == 6
    (record,) = caplog.records
    assert "ValueError: 1" in record.getMessage()


def test_other_cause_of_the_same_plugin_is_logged_too(caplog):
    manager, _, _ = flaky_manager(ValueError(), None, OSError("the disk is full"))
    write(manager, 3)
    assert len(caplog.records) == 2
    assert "OSError: the disk is full" in caplog.records[1].getMessage()


def test_one_cause_in_several_hooks_of_a_plugin_is_logged_once(caplog):
    class Writer:
        def _open(self):
            raise OSError(f"the disk is full: {self}")

        @hookimpl
        def run_started(self):
            raise OSError(f"the disk is full: {self}")

        @hookimpl
        def on_add_stat(self):
            self._open()

        @hookimpl
        def write_stats(self):
            self._open()

        @hookimpl
        def run_finished(self):
            self._open()

    manager = PluginManager()
    manager.register(Writer(), "flaky", origin=ORIGIN)
    manager.hook.run_started(run=None)
    for step in range(5):
        manager.hook.on_add_stat(category="ball", key="a", value=1.0, aggregation=None)
        manager.hook.write_stats(category="ball", values={}, step=step)
    manager.hook.run_finished(run=None, outcome=None)
    assert len(manager.disabled) == 1
    failure, removal = caplog.messages
    assert "the disk is full" in failure
    assert "was taken out after 3 failures in a row" in removal


def test_three_failures_in_a_row_take_the_plugin_out(caplog):
    manager, flaky, steady = flaky_manager(*[ValueError("boom")] * 9)
    write(manager, 5)
    assert flaky.calls == 3
    assert steady.steps == [0, 1, 2, 3, 4]
    assert not manager.is_registered(flaky)
    (disabled,) = manager.disabled
    assert (disabled.origin, disabled.hook) == (ORIGIN, "write_stats")
    assert str(disabled).startswith("plugin 'flaky' (mlhooks-flaky 3.1) was taken out after 3 failures")
    failure, removal = caplog.messages
    assert "a plugin is taken out after 3 failures in a row" in failure
    assert removal == f"{disabled} The run goes on without it."


def test_removal_is_told_when_it_happens(caplog):
    manager, _, _ = flaky_manager(*[ValueError("boom")] * 9)
    write(manager, 2)
    assert "was taken out" not in caplog.text
    write(manager)
    assert caplog.text.count("was taken out") == 1


class Sink:
    """Opens a file, and closes it at the end."""

    def __init__(self, *errors):
        self.errors = errors
        self.writes = self.closed = 0

    @hookimpl
    def write_stats(self):
        self.writes += 1
        raise self.errors[0]

    @hookimpl
    def run_finished(self, run, outcome):
        self.closed += 1
        if self.errors[1:]:
            raise self.errors[1]


def test_plugin_that_was_taken_out_still_hears_that_the_run_is_finished():
    manager, sink = PluginManager(), Sink(ValueError("disk is full"))
    manager.register(sink, "sink", origin=ORIGIN)
    write(manager, 5)
    manager.hook.run_finished(run=None, outcome=None)
    assert (sink.writes, sink.closed) == (3, 1)
    assert len(manager.disabled) == 1
    assert not manager.is_registered(sink)


def test_failure_of_a_plugin_that_was_taken_out_is_contained(caplog):
    manager, sink = PluginManager(), Sink(ValueError("disk is full"), OSError("it was never opened"))
    manager.register(sink, "sink", origin=ORIGIN)
    write(manager, 3)
    manager.hook.run_finished(run=None, outcome=None)
    assert sink.closed == 1
    assert "'sink' (mlhooks-flaky 3.1) failed in its hook run_finished: OSError: it was never opened" in caplog.text


def test_success_forgives_earlier_failures():
    manager, flaky, _ = flaky_manager(ValueError(), ValueError(), None, ValueError(), ValueError(), None)
    write(manager, 6)
    assert manager.is_registered(flaky)


def test_streaks_of_different_hooks_do_not_add_up():
    class FailsEverywhere:
        @hookimpl
        def write_stats(self):
            raise ValueError

        @hookimpl
        def run_started(self):
            raise ValueError

    manager, plugin = PluginManager(), FailsEverywhere()
    manager.register(plugin)
    write(manager, 2)
    manager.hook.run_started(run=None)
    assert manager.is_registered(plugin)
    write(manager)
    assert not manager.is_registered(plugin)
    assert not manager.implemented("run_started")


def test_strict_mode_makes_an_observers_failure_fatal():
    manager, _, _ = flaky_manager(ValueError("boom"), strict=True)
    with pytest.raises(PluginError, match=r"'flaky' \(mlhooks-flaky 3\.1\).*write_stats.*ValueError: boom") as caught:
        write(manager)
    assert isinstance(caught.value.__cause__, ValueError)


def test_strict_mode_names_the_plugin_of_an_expected_error_too():
    manager, _, _ = flaky_manager(UnsupportedError("no such thing"), strict=True)
    with pytest.raises(PluginError, match=r"'flaky'.*no such thing"):
        write(manager)


@pytest.mark.parametrize("strict", [False, True])
def test_interrupt_passes_through_an_observer(strict):
    manager, flaky, _ = flaky_manager(*[KeyboardInterrupt()] * 4, strict=strict)
    for _ in range(4):
        with pytest.raises(KeyboardInterrupt):
            write(manager)
    assert manager.is_registered(flaky)


class OwnEnd(BaseException):
    """Of a library that does not want to be caught."""


NO_EXCEPTIONS = pytest.mark.parametrize(
    "error", [SystemExit(0), SystemExit("bye"), CancelledError(), GeneratorExit(), OwnEnd("over")], ids=repr
)


@NO_EXCEPTIONS
def test_whatever_an_observer_raises_is_contained(error, caplog):
    manager, _, steady = flaky_manager(*[error] * 4)
    write(manager, 5)
    assert steady.steps == [0, 1, 2, 3, 4]
    assert len(manager.disabled) == 1
    assert f"'flaky' (mlhooks-flaky 3.1) failed in its hook write_stats: {type(error).__name__}" in caplog.text


@NO_EXCEPTIONS
def test_whatever_ends_a_strict_run_is_an_error_of_its_plugin(error):
    manager, _, _ = flaky_manager(error, strict=True)
    with pytest.raises(PluginError, match=rf"'flaky'.*write_stats: {type(error).__name__}"):
        write(manager)


class Policy:
    def __init__(self, error=None):
        self.error = error

    @hookimpl
    def create_policy(self):
        if self.error:
            raise self.error
        return AnyPolicy("policy")


def create_policy(manager):
    return manager.hook.create_policy(trainer=None, behavior_spec=None).name


def test_plugin_that_exits_where_it_must_answer_is_an_error_of_its_own():
    manager = PluginManager()
    manager.register(Policy(SystemExit(0)), "flaky", origin=ORIGIN)
    with pytest.raises(PluginError, match=r"'flaky'.*create_policy: SystemExit: 0"):
        create_policy(manager)


def broken(text):
    class Broken(Exception):
        def __str__(self):
            if isinstance(text, BaseException):
                raise text
            return text

    return Broken()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (ValueError("no text"), "__str__ raises ValueError"),
        (SystemExit(0), "__str__ raises SystemExit"),
        (None, "__str__ raises TypeError"),
        ("x" * 1_000_000, "x... (1,000,000 characters in all)"),
    ],
    ids=["raises", "exits", "none", "long"],
)
def test_error_that_cannot_tell_its_text_is_reported_all_the_same(text, said, caplog):
    manager, _, steady = flaky_manager(broken(text))
    write(manager)
    assert steady.steps == [0]
    (record,) = caplog.records
    assert "'flaky' (mlhooks-flaky 3.1) failed in its hook write_stats: Broken" in record.getMessage()
    assert said in record.getMessage()
    assert len(record.getMessage()) < 3000


def test_traceback_is_logged_when_debugging(caplog):
    manager, _, _ = flaky_manager(ValueError("boom"))
    with caplog.at_level(logging.DEBUG, logger="mlhooks"):
        write(manager)
    assert "Traceback" in caplog.text


def test_expected_error_of_a_fatal_hook_keeps_its_type_and_names_the_plugin():
    class Refuses:
        @hookimpl
        def create_policy(self):
            raise UnsupportedError("visual observations are not supported")

    manager = PluginManager()
    manager.register(Refuses(), "flaky", origin=ORIGIN)
    with pytest.raises(UnsupportedError) as caught:
        manager.hook.create_policy(trainer=None, behavior_spec=None)
    assert str(caught.value) == "visual observations are not supported"
    assert caught.value.__notes__ == [f"Raised by {ORIGIN} in its hook create_policy."]


def test_registering_a_bad_object_while_observing_is_contained(caplog):
    class Registers:
        @hookimpl
        def run_started(self, run):
            run.register(object(), "bad")

    manager = PluginManager()
    manager.register(Registers(), "registers", origin=ORIGIN)
    manager.hook.run_started(run=manager)
    assert "'bad' (mlhooks-flaky 3.1)" in caplog.text
    assert [row.name for row in manager.describe()] == ["registers"]


def summary(manager):
    return manager.collect_mapping("summary_stats", trainer=None, step=1)


class Summary:
    def __init__(self, answer):
        self.answer = answer

    @hookimpl
    def summary_stats(self):
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.mark.parametrize("bad", [ValueError("boom"), [1, 2], "text"], ids=repr)
def test_failing_summary_is_contained(bad, caplog):
    manager = PluginManager()
    manager.register(Summary({"Losses/KL": 1.0}), "good")
    manager.register(Summary(bad), "bad")
    assert summary(manager) == {"Losses/KL": 1.0}
    assert "'bad'" in caplog.text


def test_two_claims_to_one_summary_key_keep_the_first_and_are_logged_once(caplog):
    manager = PluginManager()
    manager.register(Summary({"Losses/KL": 1.0}), "called second")
    manager.register(Summary({"Losses/KL": 2.0}), "called first")
    assert summary(manager) == {"Losses/KL": 2.0}
    assert summary(manager) == {"Losses/KL": 2.0}
    (record,) = caplog.records
    assert "'called first'" in record.getMessage()
    assert "'called second'" in record.getMessage()


def test_two_claims_to_one_summary_key_are_fatal_in_strict_mode():
    manager = PluginManager(strict=True)
    manager.register(Summary({"Losses/KL": 1.0}), "one")
    manager.register(Summary({"Losses/KL": 2.0}), "two")
    with pytest.raises(PluginError, match="'Losses/KL'"):
        summary(manager)


def test_export_that_fails_halfway_through_its_files_is_contained(tmp_path, caplog):
    class Exports:
        @hookimpl
        def export_model(self, path):
            yield path.with_suffix(".one")
            raise OSError("disk is full")

    class Other:
        @hookimpl
        def export_model(self, path):
            yield path.with_suffix(".two")

    manager = PluginManager()
    (tmp_path / "m.two").touch()
    manager.register(Exports(), "exports")
    manager.register(Other(), "other")
    assert manager.hook.export_model(trainer=None, path=tmp_path / "m") == [[tmp_path / "m.two"]]
    assert "disk is full" in caplog.text


def test_answers_are_not_kept_after_a_direct_call():
    manager = PluginManager()
    manager.register(Summary({"a": 1.0}))
    manager.hook.summary_stats(trainer=None, step=1)
    assert manager.answers == []


def test_summary_does_not_take_the_place_of_what_the_run_reports(caplog):
    manager = PluginManager()
    manager.register(Summary({"Is Training": 7.0, "Losses/KL": 1.0}), "liar")
    given = {"taken": {"Is Training"}, "trainer": None, "step": 1}
    assert manager.collect_mapping("summary_stats", **given) == {"Losses/KL": 1.0}
    (record,) = caplog.records
    assert "'liar'" in record.getMessage()
    assert "'Is Training' in summary_stats, which the run itself reports" in record.getMessage()
