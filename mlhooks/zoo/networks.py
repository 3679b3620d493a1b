"""`policy_kwargs` of Stable-Baselines3's policies as `network_settings`, and the torch optimizer among them."""

from __future__ import annotations

from typing import Any

from mlhooks.settings.hyperparameters import OptimizerType
from mlhooks.zoo.entry import Entry, plain
from mlhooks.zoo.environments import Found
from mlhooks.zoo.python_text import Name

ACTIVATIONS = {
    "tanh": "tanh",
    "relu": "relu",
    "elu": "elu",
    "leakyrelu": "leaky_relu",
    "gelu": "gelu",
    "silu": "swish",
}
"""Activation functions by the names of their classes in torch, in lower case."""
IMAGE_UNITS = 512
"""Units of the layer behind the convolutions of Stable-Baselines3's NatureCNN."""
ADAM = {"eps": 1e-5}
"""Arguments of Adam in Stable-Baselines3's policies of actor and critic, where an entry has none."""


class PolicyArguments:
    """`policy_kwargs` of an entry, as far as they are not converted yet.

    Args:
        entry: the entry.
    """

    def __init__(self, entry: Entry) -> None:
        self.entry = entry
        given = entry.take("policy_kwargs")
        if given is not None and not isinstance(given, dict):
            raise entry.wrong("policy_kwargs", plain(given), "must be dict(...)")
        self.values: dict[str, Any] = dict(given or {})

    def take(self, key: str, default: Any = None) -> Any:
        """Return an argument, which counts as expressed then, or the default."""
        return self.values.pop(key, default)

    def rest(self) -> None:
        """Note what nothing has taken."""
        for key, value in self.values.items():
            self.entry.lacks(f"policy_kwargs: {key}={plain(value)}")
        self.values = {}


def optimizer_of(
    arguments: PolicyArguments, *, name: str, given: dict[str, Any], adam: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the keys of the torch optimizer.

    Args:
        arguments: those of the policy.
        name: the optimizer where they name none.
        given: its arguments then.
        adam: arguments of Adam where they name that one and none for it; None for `given` where that is Adam's.

    Raises:
        UsageError: its arguments are no dict.
    """
    kind, written = arguments.take("optimizer_class"), arguments.take("optimizer_kwargs")
    if written is not None and not isinstance(written, dict):
        raise arguments.entry.wrong("policy_kwargs", plain(written), "as optimizer_kwargs must be dict(...)")
    if kind is not None:
        named = kind.last if isinstance(kind, Name) else str(kind).lower()
        usual = given if name == "adam" else adam
        given, name = (usual or {}) if named == "adam" else {}, named
    if written is not None and not (kind is None and name == "rmsprop"):  # A2C puts its own in their place.
        given = written
    name = "rmsprop_tf" if name == "rmsproptflike" else name
    if name not in set(OptimizerType):
        arguments.entry.lacks(f"policy_kwargs: optimizer_class={plain(kind)}, with its optimizer_kwargs")
        return {}
    return ({} if name == "adam" else {"optimizer": name}) | ({"optimizer_kwargs": given} if given else {})


def layers_of(arguments: PolicyArguments, default: list[int]) -> tuple[list[int], list[int]]:
    """Return the widths of the layers of policy and critic, of a `net_arch` in one of its forms.

    Args:
        arguments: those of the policy.
        default: the widths where they do not say.

    Raises:
        UsageError: the `net_arch` is in no form that is known.
    """
    written = arguments.take("net_arch")
    if written is None:
        return default, default
    parts = written if isinstance(written, list) else [written]
    shared = [width for width in parts if isinstance(width, int) and not isinstance(width, bool)]
    apart = [part for part in parts if isinstance(part, dict)]
    if len(shared) == len(parts):
        return shared, shared
    if len(apart) == 1 and len(shared) == len(parts) - 1:
        keys = {"pi": apart[0].get("pi", []), "vf": apart[0].get("vf", apart[0].get("qf", []))}
        others = apart[0].keys() - {"pi", "vf", "qf"}
        if all(_widths(widths) for widths in keys.values()) and not others:
            if shared:
                arguments.entry.lacks(f"policy_kwargs: layers {shared} that policy and critic share before their own")
            return shared + keys["pi"], shared + keys["vf"]
    raise arguments.entry.wrong("policy_kwargs", plain(written), "is no net_arch that is known")


def _widths(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(width, int) and width > 0 for width in value)


def activation_of(arguments: PolicyArguments, default: str) -> str:
    """Return the activation function."""
    written = arguments.take("activation_fn")
    if written is None:
        return default
    name = ACTIVATIONS.get(written.last if isinstance(written, Name) else str(written).lower())
    if name is None:
        arguments.entry.lacks(f"policy_kwargs: activation_fn={plain(written)}")
    return name or default


def exploration_of(entry: Entry, arguments: PolicyArguments, found: Found, *, squashed: bool) -> dict[str, Any]:
    """Return the keys of `network_settings` about the noise on continuous actions.

    Args:
        entry: the entry.
        arguments: those of its policy.
        found: the environment.
        squashed: whether actions pass a tanh, as in SAC.
    """
    settings: dict[str, Any] = {}
    use_sde = entry.flag("use_sde", default=False)
    frequency = entry.whole("sde_sample_freq", -1, least=-1)
    log_std, full_std = arguments.take("log_std_init"), arguments.take("full_std", True)
    if found.bound == 0.0:
        return settings  # Discrete actions have no deviation.
    if log_std is not None and (use_sde or not squashed):
        settings["log_std_init"] = log_std
    if use_sde:
        settings["use_sde"] = True
        if frequency != -1:
            settings["sde_sample_freq"] = frequency
        if not full_std:
            settings["full_std"] = False
    if squashed:
        return settings
    if found.why_not:
        entry.assumes("continuous actions, if there are any, have the bounds -1 and 1")
    elif found.bound is None:
        entry.lacks("actions in the units of the environment, where their bounds are not -x and x for all")
    settings["action_limit"] = found.bound or 1.0
    return settings
