"""From a settings class of attrs, as trainers of ML-Agents have one, to the pydantic model that mlhooks reads."""

from __future__ import annotations

import contextlib
import copy
import types
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Union, get_args, get_origin

from pydantic import Field, create_model
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from mlhooks.describing import named
from mlhooks.errors import PluginUnfit
from mlhooks.settings import HyperparameterSettings, Problem, ScheduleType, derived

if TYPE_CHECKING:
    from mlhooks.mlagents_wheel.offers import Offer

_FOLLOWS = ("beta_schedule", "epsilon_schedule")
"""What ML-Agents lets follow `learning_rate_schedule` where a file of its own `ppo` or `poca` does not say it."""


class WheelHyperparameters(HyperparameterSettings):
    """Base of the models that are made; what it holds is judged by the class of attrs, too."""

    offer: ClassVar[Offer]
    settings_class: ClassVar[type]

    def problems(self) -> Iterator[Problem]:
        """Yield what `mlagents-learn` would say about the values, too."""
        yield from super().problems()
        values, good = to_structure(self), True
        for key in sorted(self.model_fields_set & values.keys()):
            try:
                structured(self.settings_class, {key: values[key]}, only_fields=True)
            except Exception as error:
                good = False
                yield Problem((key,), _refusal(self.offer, self.settings_class, error))
        if good:
            try:
                structured(self.settings_class, values)
            except Exception as error:
                yield Problem((), _refusal(self.offer, self.settings_class, error))


def to_structure(settings: HyperparameterSettings) -> dict[str, Any]:
    """Return the values for the class of attrs, without defaults of types that only the package knows."""
    fields = type(settings).model_fields
    return {
        key: value
        for key, value in settings.as_dict().items()
        if fields[key].annotation is not Any or value != fields[key].default
    }


def _refusal(offer: Offer, settings_class: type, error: Exception) -> str:
    return f"{settings_class.__name__} of {offer.origin} refuses it: {named(error)}"


def structured(settings_class: type, values: Mapping[str, Any], *, only_fields: bool = False) -> Any:
    """Return the settings as the package's own code makes them; with `only_fields`, the values of their fields alone.

    Raises:
        Exception: as `mlagents-learn` would, of whatever type.
    """
    from mlagents.trainers.settings import check_and_structure, strict_to_cls

    known = {key: value for key, value in values.items() if key in _fields(settings_class)}
    if only_fields:
        return {key: check_and_structure(key, value, settings_class) for key, value in values.items()}
    return strict_to_cls(known, settings_class)


def model_of(settings_class: type, offer: Offer) -> type[HyperparameterSettings]:
    """Return the model of a settings class: its fields with their types and defaults.

    Raises:
        PluginUnfit: it is no class of attrs, or its defaults cannot be made.
    """
    import attr
    import cattr

    # Some types are names that only a type checker has; such fields take anything.
    with contextlib.suppress(Exception):
        attr.resolve_types(settings_class)
    try:
        fields = _fields(settings_class)
        defaults = settings_class()
    except Exception as error:
        why = named(error).rstrip(".")
        raise PluginUnfit(
            f"{offer.origin}: the settings class {settings_class!r} of its trainer type {offer.name!r} cannot be used: "
            f"{why}. It must be a class of attrs whose fields all have defaults. {offer.origin.advice}"
        ) from error
    made: dict[str, Any] = {}
    for name, field in fields.items():
        annotation, default = _annotation(field.type), cattr.unstructure(getattr(defaults, name))
        if isinstance(annotation, type) and issubclass(annotation, Enum):
            default = annotation(default)
        made[name] = annotation, _field(name, field, default, settings_class, offer)
    model = create_model(settings_class.__name__, __base__=WheelHyperparameters, __module__=__name__, **made)
    model.offer, model.settings_class = offer, settings_class
    return model


def _fields(settings_class: type) -> dict[str, Any]:
    import attr

    return dict(attr.fields_dict(settings_class))


def _field(name: str, field: Any, default: Any, settings_class: type, offer: Offer) -> Any:
    description = f"As {settings_class.__name__} of {offer.origin.distribution or 'its package'} has it."
    if offer.is_own and name in _FOLLOWS:
        return derived(lambda settings: settings.learning_rate_schedule, description=description)
    if getattr(field.default, "takes_self", False):

        def from_siblings(settings: Any) -> Any:
            given = {key: to_jsonable_python(getattr(settings, key)) for key in settings.model_fields_set}
            return getattr(structured(settings_class, given), name)

        return derived(from_siblings, description=description)
    known: FieldInfo | None = HyperparameterSettings.model_fields.get(name)
    if known is not None:
        info = copy.copy(known)
        info.default = default
        return info
    if isinstance(default, list | dict):
        return Field(default_factory=lambda: copy.deepcopy(default), description=description)
    return Field(default=default, description=description)


def _annotation(kind: Any) -> Any:
    """Return the type as pydantic takes it; what it does not know is left to the class of attrs."""
    if kind in (int, float, bool, str, type(None)):
        return kind
    if isinstance(kind, type) and issubclass(kind, Enum):
        return ScheduleType if {member.value for member in kind} == {*ScheduleType} else kind
    origin, arguments = get_origin(kind), get_args(kind)
    if origin in (Union, types.UnionType):
        return Union[tuple(_annotation(argument) for argument in arguments)]  # noqa: UP007 - The members are in a tuple.
    if origin in (list, dict) and arguments:
        return origin[tuple(_annotation(argument) for argument in arguments)]
    return Any
