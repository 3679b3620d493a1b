"""Checks of what a plugin's policy and optimizer learn: that it is there, that it is saved, and that it changes."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from mlhooks.describing import described, with_article
from mlhooks.errors import PluginError
from mlhooks.places import is_others
from mlhooks.training.part_checks import called

if TYPE_CHECKING:
    from mlhooks.training.batch import Batch
    from mlhooks.training.optimizer import Optimizer
    from mlhooks.training.policy import Policy
    from mlhooks.training.store import ExperienceStore
    from mlhooks.training.trainer import Trainer

logger = logging.getLogger("mlhooks")

SETTLED = 32
"""The number of updates, each of a minibatch, by which every parameter that is learned has changed."""
NAMED = 4
"""The number of parameters that a warning names."""


def check_modules(policy: Policy, optimizer: Optimizer) -> None:
    """Refuse parts whose `modules` are no modules by name, and warn of networks that are not among them.

    Raises:
        PluginError: names the method, and says what is wrong.
    """
    found: dict[str, nn.Module] = {}
    for part in (policy, optimizer):
        modules = part.modules()
        problem = None if isinstance(modules, Mapping) else f"it returned {with_article(modules)}"
        for name, module in modules.items() if problem is None else ():
            if not isinstance(name, str) or not isinstance(module, nn.Module):
                problem = f"its {name!r} is {with_article(module)}; nn.ParameterDict holds such alone"
        if problem is not None:
            raise PluginError(f"{called(part, 'modules')} must return torch modules by name; {problem}.")
        found |= {f"{type(part).__name__}.{name}": module for name, module in modules.items()}
        _warn_of_left_out(policy.behavior_name, part, modules)
    if getattr(optimizer, "policy", policy) is not policy:
        raise PluginError(
            f"Behavior {policy.behavior_name!r}: {type(optimizer).__name__} was made with another policy than the one "
            "that acts, and would improve it in vain: hand over the argument `policy` of create_optimizer."
        )
    for name, module in found.items():
        _check_saved(name, module)
    inside = [inner for module in found.values() for inner in module.modules()]
    known = {id(parameter) for module in inside for parameter in module.parameters(recurse=False)}
    for owner in dict.fromkeys([policy, optimizer, *inside]):
        for attribute, value in vars(owner).items():
            if attribute not in _OF_TORCH and any(id(p) not in known for p in _learnable(value)):
                kind = type(owner).__name__
                logger.warning(
                    "Behavior %r: `%s.%s` has parameters that require gradients and that no module of `modules()` has, "
                    "so that they are neither learned nor saved. Name it in `modules()` of policy or optimizer; within "
                    "a network, use nn.ModuleList or nn.Parameter. What is not to be learned gets "
                    "requires_grad_(False).",
                    policy.behavior_name,
                    kind,
                    attribute,
                )


def _warn_of_left_out(behavior: str, part: Policy | Optimizer, modules: Mapping[str, nn.Module]) -> None:
    """Warn where a plugin's `modules` leave out what nobody else would miss, such as a target network."""
    base: Any = next(kind for kind in type(part).__mro__ if not of_a_plugin(kind))
    try:
        of_base = base.modules(part)
    except AttributeError:  # A plugin may do without the networks of the base.
        return
    learned = {id(parameter) for module in modules.values() for parameter in module.parameters()}
    for name, module in of_base.items():
        parameters = list(module.parameters())
        if parameters and not any(p.requires_grad or id(p) in learned for p in parameters):
            logger.warning(
                "Behavior %r: %s leaves out %r, which %s has and no checkpoint will have: add yours to those of the "
                "base, {**super().modules(), ...}.",
                *(behavior, called(part, "modules"), name, base.__name__),
            )


_SAVING = ("state_dict", "load_state_dict", "_save_to_state_dict", "_load_from_state_dict")
"""Methods by which a module is saved and restored."""


def _check_saved(name: str, module: nn.Module) -> None:
    """Refuse a module whose own methods of saving lose what it has learned.

    Raises:
        PluginError: names the module.
    """
    kinds = {type(inner) for inner in module.modules()}
    own = [kind for kind in kinds if any(of_a_plugin(getattr(kind, method)) for method in _SAVING)]
    if not own:
        return
    problem = None
    try:
        other = copy.deepcopy(module)
    except Exception:  # A module need not be one that can be copied.
        return
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(1)  # It may be one of whole numbers.
    try:
        other.load_state_dict(module.state_dict())
    except Exception as error:
        problem = f"fails: {described(error)}"
    else:
        pairs = zip(module.named_parameters(), other.parameters(), strict=True)
        lost = [inner for (inner, wanted), found in pairs if wanted.requires_grad and not torch.equal(wanted, found)]
        if lost:
            problem = f"does not bring back {', '.join(lost[:NAMED])}"
    if problem is not None:
        kind = own[0].__name__
        raise PluginError(
            f"A checkpoint would lose {name}: what `{kind}.load_state_dict` does with the result of its `state_dict` "
            f"{problem}. Leave both to torch.nn.Module, which has a get_extra_state for what is no tensor."
        )


_OF_TORCH = ("_modules", "_parameters", "_buffers")


def _learnable(value: object) -> Iterator[Tensor]:
    """Yield the parameters in an attribute: a module, a tensor that learns, or several of these in a list or dict."""
    inside: Iterable[Any] = (value,)
    if isinstance(value, list | tuple | dict):
        inside = value.values() if isinstance(value, dict) else value
    for each in inside:
        if isinstance(each, nn.Module):
            yield from (parameter for parameter in each.parameters() if parameter.requires_grad)
        elif isinstance(each, Tensor) and each.requires_grad and each.is_leaf:
            yield each


def check_probabilities(policy: Policy, batch: Batch) -> None:
    """Compare a plugin's `evaluate` with what its `act` said, before anything is learned.

    Raises:
        PluginError: it returns something else than a log-probability and an entropy for each action dimension.
    """
    evaluate, acted = getattr(policy, "evaluate", None), batch.log_probs
    if evaluate is None or acted is None or not kinds_of_plugins(policy, *policy.modules().values()):
        return
    with torch.no_grad():
        found = evaluate(batch)
    if not isinstance(found, tuple) or len(found) != 2 or not all(isinstance(part, Tensor) for part in found):
        given = with_article(found)
        raise PluginError(f"{called(policy, 'evaluate')} must return a pair of Tensors; it returned {given}.")
    log_probs, _ = found
    if log_probs.shape != acted.shape:
        raise PluginError(
            f"{called(policy, 'evaluate')} must return log-probabilities of each action dimension, here "
            f"{tuple(acted.shape)}; they have the shape {tuple(log_probs.shape)}."
        )
    if policy.inputs.normalizer is not None or batch.width != 1:
        return  # What was observed reads otherwise by now, or rows are padding.
    difference = float((log_probs - acted).abs().max())
    if not difference <= 1e-2 * (1.0 + float(acted.abs().max())):
        logger.warning(
            "Behavior %r: %s gives other log-probabilities than `act` did for the same decisions, by up to %.3g, and "
            "nothing was learned in between. Ratios of probabilities are wrong then.",
            *(policy.behavior_name, called(policy, "evaluate"), difference),
        )


def check_acted(policy: Policy, store: ExperienceStore) -> None:
    """Refuse a plugin's policy whose decisions were not finite, where something else has failed because of that.

    Raises:
        PluginError: names the function.
    """
    acted = slice(0, store.waiting)
    if not kinds_of_plugins(policy, *policy.modules().values()):
        return  # Observations that are too large do that to mlhooks' own.
    if np.isfinite(store.continuous[acted]).all() and np.isfinite(store.log_prob[acted]).all():
        return
    raise PluginError(
        f"Behavior {policy.behavior_name!r}: {called(policy, 'act')} returned actions or log-probabilities that are "
        "NaN or infinite. Look at what its network computes for what was observed then."
    )


def warn_of_no_update(trainer: Trainer) -> None:
    """Warn where a plugin's trainer is done and has never learned."""
    if not trainer.updates and any(map(of_a_plugin, (type(trainer), type(trainer.learning)))):
        logger.warning(
            "Behavior %r: no update was counted in %d steps: %s never said that there is enough to learn from, or the "
            "`update` beside it does not add 1 to `self.updates`.",
            *(trainer.behavior_name, trainer.step, called(trainer.learning, "ready")),
        )


class ParameterChanges:
    """Warns once of parameters that no update has changed, where a plugin brings the network or what learns it.

    Args:
        trainer: the trainer, before an update.
    """

    def __init__(self, trainer: Trainer) -> None:
        policy, optimizer = trainer.policy, trainer.optimizer
        modules = policy.modules()
        if isinstance(critic := getattr(optimizer, "critic", None), nn.Module):
            modules = {**modules, "critic": critic}
        signals = {id(signal) for signal in trainer.reward_signals}  # They do not decide what is learned.
        kinds = kinds_of_plugins(*(part for part in parts_of(trainer) if id(part) not in signals))
        self._left = SETTLED if kinds else 0
        named = ((f"{m}.{n}", p) for m, module in modules.items() for n, p in module.named_parameters())
        self._before = {n: (p, p.detach().clone()) for n, p in named if self._left and p.requires_grad}
        of_policy = [p.requires_grad for module in policy.modules().values() for p in module.parameters()]
        self._frozen = bool(of_policy) and not any(of_policy)  # A table in numpy has no parameters.
        self._kinds = ", ".join(sorted(kind.__name__ for kind in kinds))
        self._behavior = policy.behavior_name

    @property
    def done(self) -> bool:
        """Whether there is nothing more to compare."""
        return self._left <= 0

    def count(self, reports: int) -> None:
        """Take note of so many more updates of minibatches."""
        if self.done:
            return
        self._left -= max(1, reports)
        if not self.done:
            return
        same = [name for name, (parameter, before) in self._before.items() if torch.equal(parameter, before)]
        if same or self._frozen:
            more = f" and {len(same) - NAMED} more" if len(same) > NAMED else ""
            logger.warning(
                "Behavior %r, with %s of a plugin: %d updates have changed nothing in %s. Parameters are not learned "
                "behind a `detach()`, `no_grad()` or numpy in a network or a loss, with `requires_grad_(False)`, and "
                "by an update or a torch optimizer that takes no step on them.",
                *(self._behavior, self._kinds, SETTLED),
                "the policy" if self._frozen else f"{', '.join(same[:NAMED])}{more}",
            )
        self._before = {}


def parts_of(trainer: Trainer) -> list[object]:
    """Return a trainer and its parts, with the networks of its policy and critic."""
    parts = [trainer, trainer.learning, trainer.policy, trainer.optimizer, *trainer.reward_signals]
    networks = [*trainer.policy.modules().values(), getattr(trainer.optimizer, "critic", None)]
    return [*parts, *(network for network in networks if network is not None)]


def kinds_of_plugins(*parts: object) -> set[type]:
    """Return the classes of parts that come from plugins; of networks with the modules in them."""
    inside = (each for part in parts for each in (part.modules() if isinstance(part, nn.Module) else (part,)))
    return {type(each) for each in inside if of_a_plugin(type(each))}


def of_a_plugin(kind: Any) -> bool:
    """Return whether a class or function is of a plugin, and did not come with mlhooks."""
    return is_others(kind.__module__) and not kind.__module__.startswith("builtin_plugins.")
