"""From a behavior's settings to the package's own `TrainerSettings`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mlhooks.mlagents_wheel.hyperparameters import to_structure
from mlhooks.mlagents_wheel.offers import Offer
from mlhooks.settings import RunOptions, TrainerSettings


def wheel_settings(settings: TrainerSettings, offer: Offer, folder: Path) -> Any:
    """Return a behavior's settings as the package's own code makes them, with its defaults for what it adds.

    Args:
        settings: of the behavior, resolved.
        offer: the trainer type.
        folder: to which relative paths of demonstrations belong.
    """
    import attr
    import cattr
    from mlagents import plugins
    from mlagents.trainers import settings as own

    kind, hyperparameters = offer.classes
    plugins.all_trainer_types[offer.name] = kind
    plugins.all_trainer_settings[offer.name] = hyperparameters
    values = settings.as_dict()
    # mlhooks steps environments and trainers in turn, begins from checkpoints itself, and has spread these evenly.
    values |= {"trainer_type": offer.name, "threaded": False, "init_path": None, "even_checkpoints": False}
    values = {key: value for key, value in values.items() if key in attr.fields_dict(own.TrainerSettings)}
    known = attr.fields_dict(hyperparameters)
    given = to_structure(settings.hyperparameters)
    values["hyperparameters"] = {key: value for key, value in given.items() if key in known}
    values["network_settings"] = _network(values["network_settings"], own)
    for signal in values["reward_signals"].values():
        signal["network_settings"] = _network(signal["network_settings"], own)
        signal.pop("encoding_size", None)  # It is in the network settings by now.
    for section in [values["behavioral_cloning"], *values["reward_signals"].values()]:
        if section and section.get("demo_path"):
            section["demo_path"] = str(folder / section["demo_path"].replace("\\", "/"))
    before, own.TrainerSettings.default_override = own.TrainerSettings.default_override, None
    try:
        return cattr.structure(values, own.TrainerSettings)
    finally:
        own.TrainerSettings.default_override = before


def _network(values: dict[str, Any], own: Any) -> dict[str, Any]:
    import attr

    known = attr.fields_dict(own.NetworkSettings)
    return {key: value for key, value in values.items() if key in known}


def reward_buffer_of(options: RunOptions | None, behavior_name: str) -> int:
    """Return how many returns lessons ask a behavior to remember, as ML-Agents' parameter manager counts them."""
    lessons = [
        lesson.completion_criteria.min_lesson_length
        for parameter in ((options and options.environment_parameters) or {}).values()
        for lesson in parameter.curriculum
        if lesson.completion_criteria is not None and lesson.completion_criteria.behavior == behavior_name
    ]
    return max([1, *lessons])
