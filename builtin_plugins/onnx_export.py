"""Exports policies as ONNX models, which Unity's inference loads as it loads those of ML-Agents."""

from __future__ import annotations

import copy
import importlib.util
import inspect
import io
import logging
import os
import warnings
from pathlib import Path
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn

import mlhooks
from mlhooks.describing import described
from mlhooks.nn.networks import Network
from mlhooks.plugin import Policy, Trainer, UnsupportedError, hookimpl
from mlhooks.training.durable import write_durably

logger = logging.getLogger("mlhooks")

VERSION = 3
"""The layout of inputs and outputs, as Unity's package numbers it: MLAgents2_0."""
DECIDING = ("act", "action_tuple", "features")
"""The methods of a policy that `exported` repeats: who overrides one of them has to override `exported`, too."""
_without_model: WeakSet[Trainer] = WeakSet()
_told: set[str] = set()


@hookimpl
def export_model(trainer: Trainer, path: Path) -> list[Path]:
    """Write the policy as `path` with .onnx appended; where that cannot be done, log the reason once for a trainer."""
    from mlhooks.mlagents_wheel.trainer import WheelTrainer

    if isinstance(trainer, WheelTrainer) or trainer in _without_model:
        return []  # Trainers of ML-Agents' own package have an exporter of their own.
    file = path.with_name(f"{path.name}.onnx")
    try:
        data = as_onnx(trainer.policy, trainer.settings.onnx_opset)
    except Exception as error:  # Code of others is traced, and may do what ONNX has no operators for.
        _without_model.add(trainer)
        file.unlink(missing_ok=True)  # An earlier file would hold another policy.
        reason = described(error).strip().partition("\n")[0].rstrip(".")
        logger.warning(
            "Behavior %r gets no ONNX model for Unity: %s. All else is saved.", trainer.behavior_name, reason
        )
        return []
    write_durably(file, data)
    return [file]


def as_onnx(policy: Policy, opset: int) -> bytes:
    """Return the policy as an ONNX model.

    The policy, its networks and the state of torch's random numbers stay as they are.

    Args:
        policy: the policy, whose method `exported` is traced.
        opset: the version of the operators.

    Raises:
        UnsupportedError: the policy has no form that can be traced, or the package onnx is missing.
        Exception: torch or other people's code, which is traced, raised an error of whatever type.
    """
    if importlib.util.find_spec("onnx") is None:
        raise UnsupportedError("the package onnx is not installed: pip install onnx")
    _refuse_unknown(policy)
    model = ExportedPolicy(_copied(policy))
    export: Any = torch.onnx.export
    # Later versions of torch have a second exporter, which does not know operators as old as those of Unity.
    tracing = {"dynamo": False} if "dynamo" in inspect.signature(export).parameters else {}
    buffer = io.BytesIO()
    cuda = [policy.device] if policy.device.type == "cuda" else []
    with torch.random.fork_rng(cuda), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        export(
            model,
            tuple(model.example.values()),
            buffer,
            input_names=list(model.example),
            output_names=model.names,
            dynamic_axes={name: {0: "batch"} for name in [*model.example, *model.names] if name not in model.constants},
            opset_version=opset,
            **tracing,
        )
    for place in sorted(_branches_of_others(caught) - _told):
        _told.add(place)
        logger.warning(
            "The ONNX model may decide otherwise than the policy: what %s does depends on the numbers that it gets, "
            "and the model always does what was done for zeros. Say it by operations of torch, such as torch.where.",
            place,
        )
    return buffer.getvalue()


def _branches_of_others(caught: list[warnings.WarningMessage]) -> set[str]:
    """Return the lines of other people's code that turn tensors into Python numbers, which tracing takes for constant.

    All other warnings are expected: that this exporter is deprecated, and that torch and mlhooks do the same with sizes
    and with numbers that are indeed constant.
    """
    own = tuple(str(Path(file).parent) + os.sep for file in (torch.__file__, mlhooks.__file__, __file__))
    found = (each for each in caught if each.category.__name__ == "TracerWarning")
    return {f"{each.filename}:{each.lineno}" for each in found if not each.filename.startswith(own)}


def _refuse_unknown(policy: Policy) -> None:
    """Refuse a policy that overrides how it decides, but not `exported`, whose model would decide otherwise.

    Raises:
        UnsupportedError: the policy is such a one.
    """
    lineage = type(policy).__mro__
    own = {name: next(n for n, kind in enumerate(lineage) if name in vars(kind)) for name in (*DECIDING, "exported")}
    changed = [name for name in DECIDING if own[name] < own["exported"]]
    if changed:
        raise UnsupportedError(f"{type(policy).__name__} overrides {changed[0]}, and not Policy.exported beside it")


def _copied(policy: Policy) -> Policy:
    """Return a copy of a policy with networks that are not compiled, require no gradients and compute in float32."""
    shared = (policy.behavior_spec, policy.settings, policy.layout)
    copied = copy.deepcopy(policy, {id(each): each for each in shared})
    for module in copied.modules().values():
        module.requires_grad_(False).eval()
        for part in module.modules():
            if isinstance(part, Network):
                part.autocast = None
    return copied


class ExportedPolicy(nn.Module):
    """A policy as a module, from the inputs that Unity gives to the outputs that it reads.

    It has only those inputs and outputs for which the behavior has observations, actions or a memory.

    Args:
        policy: the policy, whose networks become parts of this module.

    Attributes:
        example: by name, each input for one agent.
        names: the names of all outputs, in their order.
        constants: by name, the outputs that say what the model is.
    """

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        self._policy = policy
        for name, module in policy.modules().items():
            self.add_module(name.replace(".", "_"), module)
        spec, device = policy.behavior_spec, policy.device
        actions, size = spec.action_spec, policy.memory_size
        self.example = {
            f"obs_{number}": torch.zeros((1, *observation.shape), device=device)
            for number, observation in enumerate(spec.observation_specs)
        }
        self.constants: dict[str, list[Any]] = {"version_number": [VERSION], "memory_size": [size]}
        self.names = [*self.constants]
        if actions.continuous_size:
            self.constants["continuous_action_output_shape"] = [actions.continuous_size]
            self.names += ["continuous_actions", "continuous_action_output_shape", "deterministic_continuous_actions"]
        if actions.discrete_size:
            self.example["action_masks"] = torch.ones((1, sum(actions.discrete_branches)), device=device)
            self.constants["discrete_action_output_shape"] = [[*actions.discrete_branches]]
            self.names += ["discrete_actions", "discrete_action_output_shape", "deterministic_discrete_actions"]
        if size:
            self.example["recurrent_in"] = torch.zeros((1, 1, size), device=device)
            self.names.append("recurrent_out")
        for name, value in self.constants.items():
            self.register_buffer(f"constant_{name}", torch.tensor(value, dtype=torch.float32, device=device))

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return all outputs, in the order of `names`, for all inputs, in the order of `example`."""
        given = dict(zip(self.example, inputs, strict=True))
        obs = [given[name] for name in given if name.startswith("obs_")]
        actions = self._policy.exported(obs, given.get("action_masks"), given.get("recurrent_in"))
        computed: dict[str, Any] = {
            "continuous_actions": actions.continuous,
            "deterministic_continuous_actions": actions.likely_continuous,
            "discrete_actions": actions.discrete,
            "deterministic_discrete_actions": actions.likely_discrete,
            "recurrent_out": actions.memory,
        }
        computed |= {name: getattr(self, f"constant_{name}") for name in self.constants}
        return tuple(computed[name] for name in self.names)
