"""Handle failing hooks: name the culprit, and stop the run or contain the failure, by the kind of the hook."""

from __future__ import annotations

import copy
import functools
import inspect
import logging
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import pluggy

from mlhooks import answers
from mlhooks.describing import is_shortage, shown, text_of
from mlhooks.errors import MlhooksError, PluginError, WrongAnswer
from mlhooks.places import defined_at, in_brackets, raised_at
from mlhooks.plugin_sources import Origin, describe

logger = logging.getLogger("mlhooks")

OFFERING = ("get_trainer_types", "get_env_types", "get_reward_signals", "get_plugin_settings")
"""Collect hooks that answer with a mapping by name, whose names no two plugins may claim."""
COLLECT = frozenset(
    {
        *OFFERING,
        "register_commands",
        "summary_stats",
        "register_side_channels",
        "export_model",
    }
)
CONTAINED_COLLECT = frozenset({"summary_stats", "export_model"})
COPIED: Mapping[str, tuple[str, Callable[[Any], Any]]] = {
    "configure": ("options", copy.deepcopy),
    "register_side_channels": ("options", copy.deepcopy),
    "create_env_manager": ("options", copy.deepcopy),
    "create_policy": ("behavior_spec", copy.deepcopy),
    "behavior_added": ("behavior_spec", copy.deepcopy),
    "write_stats": ("values", copy.copy),
    "add_property": ("value", copy.deepcopy),
    "update_finished": ("losses", copy.copy),
    "run_finished": ("outcome", copy.copy),  # The copy has the same `files`, to which plugins add theirs.
}
"""Arguments of which every plugin gets a copy of its own, so that what one changes reaches no other."""
MAKING = "mlhooks.training.making"
"""The module that answers for trainer classes which name their parts: its lines are no place to look for a mistake."""
MAX_FAILURES = 3
"""Failures in a row after which a plugin is taken out."""


def kind_of(caller: pluggy.HookCaller) -> str:
    """Return the kind of a hook: historic, firstresult, collect or observe."""
    assert caller.spec is not None
    if caller.is_historic():
        return "historic"
    if caller.spec.opts.get("firstresult"):
        return "firstresult"
    return "collect" if caller.name in COLLECT else "observe"


@dataclass(frozen=True, slots=True)
class DisabledPlugin:
    """A plugin that was taken out of a run, and why."""

    origin: Origin
    hook: str
    error: BaseException

    def __str__(self) -> str:
        return f"{self.origin} was taken out after {MAX_FAILURES} failures in a row of its hook {self.hook}."


class Keeper(Protocol):
    """The part of the plugin manager that a guard needs."""

    strict: bool
    active: Origin | None
    answers: list[tuple[Origin, Any]]
    given: Mapping[str, Any]
    reported: set[tuple[str, ...]]

    def take_out(self, disabled: DisabledPlugin) -> None:
        """Unregister a plugin that failed too often."""


class Guard:
    """Stands around one plugin's implementation of one hook; counts and attributes its failures."""

    __slots__ = ("contained", "first", "hook_name", "keeper", "origin", "streak", "where")

    def __init__(self, keeper: Keeper, caller: pluggy.HookCaller, origin: Origin, where: str = "") -> None:
        self.keeper = keeper
        self.hook_name = caller.name
        self.where = where or f"hook {caller.name}"
        self.origin = origin
        kind = kind_of(caller)
        self.first = kind == "firstresult"
        self.contained = kind == "observe" or caller.name in CONTAINED_COLLECT
        self.streak = 0

    def around(self, function: Callable[..., Any], arguments: Sequence[str]) -> Callable[..., Any]:
        """Guard a plain implementation. This runs at every call of a hook: it must stay cheap."""
        keeper, origin = self.keeper, self.origin
        if self.hook_name in answers.CHECKS:
            function = self._answering(function)
        if self.hook_name == "run_finished":
            function = self._adding(function, arguments)
        if self.hook_name == "export_model" and origin.distribution != "mlhooks":
            function = self._restoring_policy(function, arguments)
        function = self._copying(function, arguments)

        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            outer, keeper.active = keeper.active, origin
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                self.failed(error)
                return None
            finally:
                keeper.active = outer
            self.streak = 0
            return result

        return guarded

    def around_wrapper(self, function: Callable[..., Any], arguments: Sequence[str]) -> Callable[..., Any]:
        """Guard a hook wrapper: one that fails stands aside, and what it wraps goes on as if it were not there.

        A wrapper is a generator that yields once, gets the answers of the plugins that it wraps or their error, and
        ends with its own. Each of these is an end:

        - It fails before it yields, or yields not at all: the answers or the error pass by.
        - It returns answers, which are valid: they take the place of those that it got.
        - It returns a wrong answer, raises an error of its own, or yields again: it has failed, and the answers pass by
          as they were before it got them, or the error does.
        - It lets the error pass that it got: that is the failure of somebody else, and none of the wrapper.
        """
        function = self._copying(function, arguments)

        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            wrapper = function(*args, **kwargs)
            try:
                next(wrapper)
            except BaseException as error:
                self.failed(RuntimeError("the wrapper does not yield") if isinstance(error, StopIteration) else error)
                return (yield)  # The answers, or the error, pass by.
            raised, outcome = None, None
            try:
                outcome = yield
            except BaseException as error:
                raised = error
            kept = self._kept(outcome)
            try:
                wrapper.throw(raised) if raised is not None else wrapper.send(outcome)
            except StopIteration as end:
                try:
                    made = self._remade(outcome, kept, end.value)
                except WrongAnswer as wrong:
                    self.failed(_placed(wrong, function))
                else:
                    self.streak = 0
                    return made
            except BaseException as error:
                if error is not raised:  # Otherwise it is the failure of a plugin that the wrapper let pass.
                    self.failed(error)
            else:
                wrapper.close()
                self.failed(RuntimeError("the wrapper yields twice"))
            if raised is not None:  # The wrapper has failed, or let the error pass.
                raise raised
            return _restored(outcome, kept)

        return guarded

    def _remade(self, outcome: Any, kept: Any, value: Any) -> Any:
        """Check what a wrapper made of the plugins' answers; an old-style one has changed the outcome itself."""
        if self.hook_name not in answers.CHECKS:
            return value
        if not isinstance(outcome, pluggy.Result):
            return self._recheck(kept, value)
        if outcome.exception is None:
            outcome.force_result(self._recheck(kept, outcome.get_result()))
        return value

    def _recheck(self, kept: Any, result: Any) -> Any:
        given = self.keeper.given
        if self.first and result is None:
            if kept is not None:
                raise WrongAnswer(f"it returned None in place of {shown(kept)}, which it was given")
            return None
        if self.first:
            return answers.checked(self.hook_name, result, given)
        if not isinstance(result, list):
            raise WrongAnswer(f"it returned {shown(result)}, and must return the list of the plugins' answers")
        return self._note(
            [(owner, answers.checked(self.hook_name, answer, given)) for owner, answer in self._owned(result)]
        )

    def _kept(self, outcome: Any) -> Any:
        """Keep the outcome of a hook before a wrapper gets it, because a wrapper may change the answers in place."""
        if isinstance(outcome, pluggy.Result):
            return None if outcome.exception is not None else self._kept(outcome.get_result())
        if not isinstance(outcome, list) or self.hook_name not in answers.CHECKS:
            return outcome
        return self._note([(owner, copy.copy(answer)) for owner, answer in self._owned(outcome)])

    def _owned(self, found: list[Any]) -> list[tuple[Origin, Any]]:
        """Pair each answer with the plugin that gave it; answers that no plugin gave belong to this one."""
        owners = {id(answer): owner for owner, answer in self.keeper.answers}
        return [(owners.get(id(answer), self.origin), answer) for answer in found]

    def _note(self, owned: list[tuple[Origin, Any]]) -> list[Any]:
        self.keeper.answers += owned
        return [answer for _, answer in owned]

    def failed(self, error: BaseException) -> None:
        """Log, count and perhaps take the plugin out where the hook is contained; otherwise raise.

        Whatever a plugin raises is its failure, `sys.exit()` and cancelled tasks of asyncio included; only Ctrl-C is
        not.
        """
        if isinstance(error, KeyboardInterrupt):
            raise error
        if not self.contained or self.keeper.strict:
            self._stop(error)
        self.streak += 1
        kind = self.origin.name, type(error).__name__
        # It is the same cause if the words are equal, or the place.
        cause = {(*kind, text_of(error)), (*kind, raised_at(error) or self.hook_name)}
        if cause.isdisjoint(self.keeper.reported):
            self.keeper.reported |= cause
            logger.error(
                "%s failed in its hook %s: %s. The run goes on; a plugin is taken out after %d failures in a row.",
                self.origin,
                self.hook_name,
                describe(error),
                MAX_FAILURES,
                exc_info=error if logger.isEnabledFor(logging.DEBUG) else None,
            )
        if self.streak == MAX_FAILURES:
            disabled = DisabledPlugin(self.origin, self.hook_name, error)
            logger.error("%s The run goes on without it.", disabled)
            self.keeper.take_out(disabled)

    def _stop(self, error: BaseException) -> NoReturn:
        expected = MlhooksError if not self.contained else PluginError
        if is_shortage(error):
            raise error  # It is not the plugin's fault: settings ask for more than the machine has.
        if isinstance(error, expected):
            if self.origin.distribution != "mlhooks" and not getattr(error, "__notes__", None):
                error.add_note(f"Raised by {self.origin} in its {self.where}.")
            raise error
        raise PluginError(
            f"{self.origin} failed in its {self.where}: {describe(error)}. {self.origin.advice}"
        ) from error

    def _copying(self, function: Callable[..., Any], arguments: Sequence[str]) -> Callable[..., Any]:
        argument, copied = COPIED.get(self.hook_name, ("", copy.copy))
        if argument not in arguments:
            return function
        at = list(arguments).index(argument)

        @functools.wraps(function)
        def copying(*args: Any) -> Any:
            return function(*args[:at], copied(args[at]), *args[at + 1 :])

        return copying

    def _adding(self, function: Callable[..., Any], arguments: Sequence[str]) -> Callable[..., Any]:
        """Take in what a plugin adds to the files of an outcome, unless nobody could show that to people."""
        if "outcome" not in arguments:
            return function
        at = list(arguments).index("outcome")

        @functools.wraps(function)
        def adding(*args: Any) -> Any:
            outcome, files = args[at], getattr(args[at], "files", None)
            if files is None:
                return function(*args)
            before = {what: list(paths) for what, paths in files.items()}
            try:
                function(*args)
            finally:
                made = outcome.files
                try:
                    answers.check_files(made)
                except WrongAnswer as wrong:
                    made = before
                    raise _placed(wrong, function) from None
                finally:
                    if made is not files:
                        files.clear()
                        files.update(made)

        return adding

    def _restoring_policy(self, function: Callable[..., Any], arguments: Sequence[str]) -> Callable[..., Any]:
        """Put the policy back that an exporter has changed, because training goes on with it."""
        if "trainer" not in arguments:
            return function
        at = list(arguments).index("trainer")

        @functools.wraps(function)
        def restoring(*args: Any) -> Any:
            if not hasattr(args[at], "policy"):
                return function(*args)
            from mlhooks.training.policy_backup import PolicyBackup  # Whoever has a trainer has imported torch.

            backup, changed = PolicyBackup(args[at]), ""
            try:
                answer = function(*args)
            finally:
                changed = backup.restore()
            if changed:
                raise _placed(
                    WrongAnswer(
                        f"it changed {changed} of the policy, which were put back: export a copy, as by "
                        "copy.deepcopy(trainer.policy)"
                    ),
                    function,
                )
            return answer

        return restoring

    def _answering(self, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def answering(*args: Any, **kwargs: Any) -> Any:
            answer = function(*args, **kwargs)
            if answer is None:
                return None
            try:
                answer = answers.checked(self.hook_name, answer, self.keeper.given)
            except WrongAnswer as wrong:
                raise _placed(wrong, function) from None
            self._note([(self.origin, answer)])
            return answer

        return answering


def _placed(wrong: WrongAnswer, function: Callable[..., Any]) -> WrongAnswer:
    place = "" if function.__module__ == MAKING else in_brackets(defined_at(inspect.unwrap(function)))
    return WrongAnswer(f"{wrong}{place}")


def _restored(outcome: Any, kept: Any) -> Any:
    """Return what a wrapper that failed should have returned; the outcome of an old-style one is put back."""
    if isinstance(outcome, pluggy.Result) and kept is not None:
        outcome.force_result(kept)
    return kept
