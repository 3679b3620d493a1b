"""Refuse, before training, what a configuration asks for and the installed code cannot do."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mlhooks.errors import UnsupportedError
from mlhooks.finding import Finding, Severity
from mlhooks.mlagents_wheel.offers import HOW_TO_GET, OWN_TYPES, PREFIX
from mlhooks.settings.behaviors import TrainerSettings
from mlhooks.settings.findings import KeyPath, error_from, in_order
from mlhooks.settings.hyperparameters import OffPolicyHyperparameters, OnPolicyHyperparameters
from mlhooks.settings.networks import unread
from mlhooks.settings.resolve import LoadedOptions
from mlhooks.settings.run_options import RunOptions
from mlhooks.settings.schema import SettingsRegistry

FEW_ROLLOUTS, FEW_MINIBATCHES = 4, 100
"""Updates from which one can expect that a policy has changed: on whole rollouts, or on minibatches of a replay."""
_Complaint = tuple[KeyPath, str, Severity]


def unsupported_settings(
    options: RunOptions, trainer_types: Mapping[str, type], reward_signals: Mapping[str, Any]
) -> list[Finding]:
    """Return what a run would refuse (errors) or do differently (warnings), with places where they are known.

    Args:
        options: valid options.
        trainer_types: the installed trainer classes, whose `supports` says what they can do.
        reward_signals: the installed reward signals.
    """
    findings = []
    for path, message, severity in _complaints(options, trainer_types, reward_signals):
        findings.append(Finding(severity=severity, message=message, **options.place_of(path, of_key=True)))
    return in_order(findings)


def refuse_unsupported(loaded: LoadedOptions, registry: SettingsRegistry) -> list[Finding]:
    """Return the warnings of `unsupported_settings`.

    Raises:
        UnsupportedError: there are errors among them; lists them all.
    """
    findings = unsupported_settings(loaded.options, registry.trainer_types, registry.reward_signals)
    if any(finding.severity == "error" for finding in findings):
        raise error_from(UnsupportedError, findings)
    return findings


def _complaints(
    options: RunOptions, trainer_types: Mapping[str, type], reward_signals: Mapping[str, Any]
) -> Iterator[_Complaint]:
    entries: dict[KeyPath, TrainerSettings] = {("behaviors", name): entry for name, entry in options.behaviors.items()}
    if options.default_settings is not None:
        entries["default_settings",] = options.default_settings
    for path, settings in entries.items():
        yield from _of_behavior(settings, path, trainer_types, reward_signals)
        # Listed behaviors have these defaults in their own settings, and each is to be warned of once.
        if not options.checkpoint_settings.inference and (path[0] == "behaviors" or not options.behaviors):
            yield from _hardly_updated(settings, path)
        if hasattr(trainer_types.get(settings.trainer_type), "own_reward_signals"):
            for key in ("compile", "autocast"):
                if getattr(options.torch_settings, key):
                    message = f"{key} has no effect on networks of ML-Agents, as {settings.trainer_type} has them"
                    yield ("torch_settings", key), message, "warning"


def _of_behavior(
    settings: TrainerSettings, path: KeyPath, trainer_types: Mapping[str, type], reward_signals: Mapping[str, Any]
) -> Iterator[_Complaint]:
    kind = settings.trainer_type
    trainer: Any = trainer_types.get(kind)
    supports, instead = getattr(trainer, "supports", None), through_mlagents(kind, trainer_types)
    asked: dict[str, tuple[KeyPath, object]] = {
        "memory": (("network_settings", "memory"), settings.network_settings.memory),
        "self_play": (("self_play",), settings.self_play),
        "behavioral_cloning": (("behavioral_cloning",), settings.behavioral_cloning),
    }
    for capability, (key, value) in asked.items():
        if value is not None and not getattr(supports, capability, False):
            message = f"the trainer type {kind} does not support {capability}; remove it, or set it to null{instead}"
            yield (*path, *key), message, "error"
    if settings.behavioral_cloning is not None and settings.behavioral_cloning.strength == 0:
        message = "nothing is imitated: the learning rate of imitation is strength times the policy's"
        yield (*path, "behavioral_cloning", "strength"), message, "warning"
    own = getattr(trainer, "own_reward_signals", None)
    for name in settings.reward_signals:
        if own is not None and name not in own:
            message = f"the trainer type {kind} knows no reward signals but its own ({', '.join(own)})"
            yield (*path, "reward_signals", name), message, "error"
        elif own is None and name not in reward_signals:
            installed = ", ".join(sorted(reward_signals)) or "none"
            message = f"no installed plugin provides the reward signal {name} (installed: {installed}){instead}"
            yield (*path, "reward_signals", name), message, "error"
    if settings.threaded and not getattr(supports, "threaded", False):
        message = f"threaded has no effect with the trainer type {kind}: environments wait during an update"
        yield (*path, "threaded"), message, "warning"
    for key, message in getattr(trainer, "refused_settings", lambda _: ())(settings):
        yield (*path, *key), message, "error"
    parts = [getattr(trainer, name, None) for name in ("policy_type", "optimizer_type")]
    for name in [] if None in parts else unread(settings.network_settings, *parts):  # Plugins may make them.
        message = f"the networks of the trainer type {kind} have no {name}; remove it"
        yield (*path, "network_settings", name), message, "error"


def through_mlagents(kind: str, trainer_types: Mapping[str, type]) -> str:
    """Return how the trainer of that name which ML-Agents has, or a package for it, is asked for in place of ours."""
    other = f"{PREFIX}{kind}"
    if kind in OWN_TYPES and other not in trainer_types:
        return f". Or write trainer_type: {other}, for ML-Agents' own trainer, and install that: {HOW_TO_GET}"
    if trainer_types.get(other) in (None, trainer_types.get(kind)):
        return ""
    whose = "ML-Agents' own trainer" if kind in OWN_TYPES else "the trainer that another package has for ML-Agents"
    return f". Or write trainer_type: {other}, for {whose}"


def _hardly_updated(settings: TrainerSettings, path: KeyPath) -> Iterator[_Complaint]:
    """Name what keeps a run from learning, although every value is valid by itself."""
    h, end = settings.hyperparameters, settings.max_steps
    needed: dict[str, int] = {}
    key, updates, few = "", 0, 0
    if isinstance(h, OnPolicyHyperparameters):
        needed = {"buffer_size": h.buffer_size}
        key, updates, few = "buffer_size", end // h.buffer_size, FEW_ROLLOUTS
    elif isinstance(h, OffPolicyHyperparameters) and h.batch_size <= h.buffer_size:  # Else no minibatch ever fills.
        needed = {"buffer_init_steps": h.buffer_init_steps + 1, "batch_size": h.batch_size}
        left = end - max(needed.values())
        key, updates, few = "steps_per_update", int(left / h.steps_per_update), FEW_MINIBATCHES
    late = {key: steps for key, steps in needed.items() if steps > end}
    for name, steps in late.items():
        message = f"nothing will be learned: the run ends at max_steps {end}, and the first update needs {steps} steps"
        yield (*path, "hyperparameters", name), message, "warning"
    if key and not late and updates < few:
        times = "one update" if updates == 1 else f"{updates} updates"
        message = f"hardly anything will be learned: the run ends at max_steps {end}, after {times}"
        yield (*path, "hyperparameters", key), message, "warning"
