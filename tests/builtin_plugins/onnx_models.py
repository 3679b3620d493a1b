"""Policies of every kind, and their ONNX models in onnxruntime."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
from mlagents_envs.base_env import (
    ActionSpec,
    BehaviorSpec,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
)

from builtin_plugins.dqn import DQNSettings
from mlhooks.settings import NetworkSettings, TrainerSettings
from mlhooks.training.policy import ActorPolicy, Policy
from mlhooks.training.prediction import LoadedPolicy
from mlhooks.training.q_policy import QPolicy
from mlhooks.training.squashed_policy import SquashedPolicy

OPERATORS = {
    *(
        "Add",
        "ArgMax",
        "Cast",
        "Clip",
        "Concat",
        "Constant",
        "Conv",
        "Div",
        "Exp",
        "Gather",
        "Gemm",
        "Identity",
        "LSTM",
    ),
    *("LeakyRelu", "Less", "Log", "MatMul", "MaxPool", "Mul", "Multinomial", "Pow", "RandomNormalLike", "ReduceMean"),
    *("ReduceSum", "Relu", "Reshape", "Shape", "Sigmoid", "Slice", "Softmax", "Sqrt", "Squeeze", "Sub", "Transpose"),
    *("Unsqueeze",),
}
"""Those of ML-Agents' own models, of networks of every kind."""
EXTENSIONS = {"Tanh", "Relu", "Elu", "Where", "Erf"}
"""Those of activations that ML-Agents does not have."""
OBSERVATIONS: dict[str, dict[str, Any]] = {
    "vector": {"shapes": [(8,)]},
    "vectors": {"shapes": [(3,), (5,)], "network": {"normalize": True}},
    "image": {"shapes": [(3, 20, 24)]},
    "mixed": {"shapes": [(4,), (1, 36, 37), (2,), (3, 20, 20)], "network": {"normalize": True}},
    "goal": {"shapes": [(4,), (2,)], "goals": [1]},
    "goal_as_input": {"shapes": [(4,), (2,)], "goals": [0], "network": {"goal_conditioning_type": "none"}},
    "entities": {"shapes": [(3,), (4, 5)]},
    "entities_alone": {"shapes": [(6, 2)]},
    "kinds_of_entities": {"shapes": [(4, 5), (3, 20, 20), (3, 2), (2,)], "network": {"normalize": True}},
    "goal_image": {"shapes": [(3,), (3, 20, 20)], "goals": [1]},
}
ACTIONS = {
    "continuous": ActionSpec(2, ()),
    "discrete": ActionSpec(0, (3,)),
    "branches": ActionSpec(0, (3, 2, 4)),
    "hybrid": ActionSpec(3, (2, 3)),
}
DIMENSIONS = {
    1: (DimensionProperty.NONE,),
    2: (DimensionProperty.VARIABLE_SIZE, DimensionProperty.NONE),
    3: (
        DimensionProperty.TRANSLATIONAL_EQUIVARIANCE,
        DimensionProperty.TRANSLATIONAL_EQUIVARIANCE,
        DimensionProperty.NONE,
    ),
}
KINDS: dict[str, type[Policy]] = {"ppo": ActorPolicy, "sac": SquashedPolicy, "dqn": QPolicy}
INPUT, OUTPUT = "input", "output"


def spec_of(
    shapes: list[tuple[int, ...]], actions: ActionSpec, goals: tuple[int, ...] | list[int] = ()
) -> BehaviorSpec:
    kinds = [ObservationType.GOAL_SIGNAL if n in goals else ObservationType.DEFAULT for n in range(len(shapes))]
    return BehaviorSpec(
        [
            ObservationSpec(shape, DIMENSIONS[len(shape)], kind, f"sensor {number}")
            for number, (shape, kind) in enumerate(zip(shapes, kinds, strict=True))
        ],
        actions,
    )


def policy_of(
    spec: BehaviorSpec, *, kind: type[Policy] = ActorPolicy, seed: int = 3, dueling: bool = False, **network: Any
) -> Any:
    """Return a policy with weights as spread as after training, and a normalizer that has seen observations."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    settings = TrainerSettings(network_settings=NetworkSettings(**{"hidden_units": 16, **network}))
    if kind is QPolicy:
        settings.hyperparameters = DQNSettings(dueling=dueling)
    policy = kind("Ball", spec, settings, torch.device("cpu"))
    with torch.no_grad():
        for module in policy.modules().values():
            for name, parameter in module.named_parameters():
                if name.endswith(("mean.weight", "logits.weight", "bias", "log_std")):
                    parameter += torch.randn_like(parameter)
    policy.inputs.update([3.0 * rng.standard_normal((50, *each.shape), np.float32) + 1.0 for each in observed(spec)])
    policy.weights_changed()
    return policy


def observed(spec: BehaviorSpec) -> list[Any]:
    return list(spec.observation_specs)


def some_inputs(spec: BehaviorSpec, rows: int, rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Random observations, and masks that allow at least one action of each branch."""
    shapes = [(rows, *each.shape) for each in observed(spec)]
    obs = [rng.random(s, np.float32) if len(s) == 4 else 3 * rng.standard_normal(s, np.float32) for s in shapes]
    for array in (each for each in obs if each.ndim == 3):  # Some entities of some agents are not there.
        array[rng.random(array.shape[:2]) < 0.4] = 0.0
    inputs = {f"obs_{number}": array for number, array in enumerate(obs)}
    if branches := spec.action_spec.discrete_branches:
        allowed = [rng.random((rows, size)) < 0.6 for size in branches]
        for part in allowed:
            part[np.arange(rows), rng.integers(part.shape[1], size=rows)] = True
        inputs["action_masks"] = np.concatenate(allowed, 1).astype(np.float32)
    return inputs


def predicted(policy: Any, spec: BehaviorSpec, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return what the policy itself decides, by the names of a model's outputs."""
    obs = [array for name, array in inputs.items() if name.startswith("obs_")]
    masks = inputs.get("action_masks")
    loaded = policy if isinstance(policy, LoadedPolicy) else LoadedPolicy("Ball", spec, policy)
    answer = loaded.predict(
        obs[0] if len(obs) == 1 else obs, action_mask=None if masks is None else masks == 0, raw=True
    )
    parts = answer if isinstance(answer, tuple) else (answer,)
    names = {np.float32: "deterministic_continuous_actions", np.int32: "deterministic_discrete_actions"}
    return {names[part.dtype.type]: part for part in parts}


def session(model: bytes) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def run(model: bytes | onnxruntime.InferenceSession, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    opened = session(model) if isinstance(model, bytes) else model
    names = [output.name for output in opened.get_outputs()]
    return dict(zip(names, opened.run(names, inputs), strict=True))


def see_equal(policy: Any, spec: BehaviorSpec, model: bytes) -> None:
    """Demand that the model is valid and decides as the policy does, for one agent and for several."""
    onnx.checker.check_model(onnx.load_from_string(model), full_check=True)
    opened, rng = session(model), np.random.default_rng(5)
    for rows in (1, 7):
        inputs = some_inputs(spec, rows, rng)
        outputs, wanted = run(opened, inputs), predicted(policy, spec, inputs)
        assert {name for name in outputs if name.startswith("deterministic")} == wanted.keys()
        for name, array in wanted.items():
            np.testing.assert_allclose(outputs[name], array, rtol=0, atol=1e-5, err_msg=name)
            random_one = outputs[name.removeprefix("deterministic_")]
            assert random_one.shape == array.shape
            assert random_one.dtype == outputs[name].dtype


def operators(model: bytes) -> set[str]:
    return {node.op_type for node in onnx.load_from_string(model).graph.node}
