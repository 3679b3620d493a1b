"""What a failing hook does: names its culprit, and stops the run or is contained, by the kind of the hook."""

from __future__ import annotations

import functools
import logging
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import pluggy

from mlhooks.errors import MlhooksError, PluginError
from mlhooks.plugin_sources import Origin, describe

logger = logging.getLogger("mlhooks")

ANSWERS: Mapping[str, type] = {
    "get_env_types": Mapping,
    "get_trainer_types": Mapping,
    "get_reward_signals": Mapping,
    "summary_stats": Mapping,
    "register_side_channels": Iterable,
    "export_model": Iterable,
}
"""The collect hooks that return something, and what."""
COLLECT = frozenset({"register_commands", *ANSWERS})
CONTAINED_COLLECT = frozenset({"summary_stats", "export_model"})
MAX_FAILURES = 3
"""Failures in a row after which a plugin is taken out."""


def kind_of(caller: pluggy.HookCaller) -> str:
    """The kind of a hook: historic, firstresult, collect or observe."""
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
    error: Exception

    def __str__(self) -> str:
        return (
            f"{self.origin} was taken out after {MAX_FAILURES} failures in a row of its hook {self.hook}: "
            f"{describe(self.error)}"
        )


class Keeper(Protocol):
    """What a guard needs of the plugin manager."""

    strict: bool
    active: Origin | None
    answers: list[tuple[Origin, Any]] | None

    def take_out(self, disabled: DisabledPlugin) -> None:
        """Unregister a plugin that failed too often."""


class Guard:
    """Stands around one plugin's implementation of one hook; counts and attributes its failures."""

    __slots__ = ("contained", "hook_name", "keeper", "origin", "reported", "streak")

    def __init__(self, keeper: Keeper, caller: pluggy.HookCaller, origin: Origin) -> None:
        self.keeper = keeper
        self.hook_name = caller.name
        self.origin = origin
        self.contained = kind_of(caller) == "observe" or caller.name in CONTAINED_COLLECT
        self.streak = 0
        self.reported = False

    def around(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Guard a plain implementation. This runs at every call of a hook: it must stay cheap."""
        keeper, origin = self.keeper, self.origin
        if self.hook_name in ANSWERS:
            function = self._answering(function, ANSWERS[self.hook_name])

        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Any:
            outer, keeper.active = keeper.active, origin
            try:
                result = function(*args, **kwargs)
            except Exception as error:
                self.failed(error)
                return None
            finally:
                keeper.active = outer
            self.streak = 0
            return result

        return guarded

    def around_wrapper(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Guard a hook wrapper: one that fails stands aside, and what it wraps goes on as if it were not there."""

        @functools.wraps(function)
        def guarded(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
            wrapper = function(*args, **kwargs)
            try:
                next(wrapper)
            except Exception as error:
                self.failed(RuntimeError("the wrapper does not yield") if isinstance(error, StopIteration) else error)
                return (yield)
            raised, outcome = None, None
            try:
                outcome = yield
            except BaseException as error:
                raised = error
            try:
                wrapper.throw(raised) if raised is not None else wrapper.send(outcome)
            except StopIteration as end:
                self.streak = 0
                return end.value
            except Exception as error:
                if error is not raised:
                    self.failed(error)
            else:
                wrapper.close()
                self.failed(RuntimeError("the wrapper yields twice"))
            if raised is not None:
                raise raised
            return outcome

        return guarded

    def failed(self, error: Exception) -> None:
        """Log, count and perhaps take the plugin out where the hook is contained; otherwise raise."""
        if not self.contained or self.keeper.strict:
            self._stop(error)
        self.streak += 1
        if not self.reported:
            self.reported = True
            logger.error(
                "%s failed in its hook %s: %s. The run goes on.",
                self.origin,
                self.hook_name,
                describe(error),
                exc_info=error if logger.isEnabledFor(logging.DEBUG) else None,
            )
        if self.streak == MAX_FAILURES:
            disabled = DisabledPlugin(self.origin, self.hook_name, error)
            logger.error("%s", disabled)
            self.keeper.take_out(disabled)

    def _stop(self, error: Exception) -> None:
        expected = MlhooksError if not self.contained else PluginError
        if isinstance(error, expected):
            if self.origin.distribution != "mlhooks" and not getattr(error, "__notes__", None):
                error.add_note(f"Raised by {self.origin} in its hook {self.hook_name}.")
            raise error
        raise PluginError(
            f"{self.origin} failed in its hook {self.hook_name}: {describe(error)}. {self.origin.advice}"
        ) from error

    def _answering(self, function: Callable[..., Any], expected: type) -> Callable[..., Any]:
        keeper, origin = self.keeper, self.origin

        @functools.wraps(function)
        def answering(*args: Any, **kwargs: Any) -> Any:
            answer = function(*args, **kwargs)
            if answer is not None:
                if not isinstance(answer, expected) or isinstance(answer, str):
                    raise TypeError(f"it returned {answer!r}, not a {expected.__name__.lower()}")
                if expected is Iterable and isinstance(answer, Iterable):
                    answer = list(answer)  # a generator runs here, where its failure has a name
                if keeper.answers is not None:
                    keeper.answers.append((origin, answer))
            return answer

        return answering
