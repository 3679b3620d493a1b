"""ONNX models, against ML-Agents' own files and against the policies that they were written from."""

from __future__ import annotations

import inspect
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from mlagents_envs.base_env import (
    ActionSpec,
    ActionTuple,
    BehaviorSpec,
    DimensionProperty,
    ObservationSpec,
    ObservationType,
)
from torch import Tensor, nn

import mlhooks
from builtin_plugins import onnx_export
from builtin_plugins.dqn import DQNSettings
from mlhooks import hookimpl
from mlhooks.cli import main
from mlhooks.example_configs import find_config
from mlhooks.mlagents_wheel.trainer import WheelTrainer
from mlhooks.names import MANIFEST
from mlhooks.nn.heads import ActionHeads, ActionParameters
from mlhooks.settings import MemorySettings, NetworkSettings, TrainerSettings
from mlhooks.sims import Ball3D
from mlhooks.training.policy import ActorPolicy, Policy
from mlhooks.training.prediction import LoadedPolicy
from mlhooks.training.q_policy import QPolicy
from mlhooks.training.run_folder import RunFolder
from mlhooks.training.squashed_policy import SquashedPolicy
from tests.scripted import QUIET, Env, config
from tests.scripted import train as train_without_models

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


def train(*arguments: Any, **more: Any) -> Any:
    """Train with the exporter, which other tests leave out because it takes time."""
    names = [name for name in QUIET if name != "no:onnx_export"]
    return train_without_models(*arguments, **{"plugin_names": names, **more})


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


@pytest.mark.parametrize("actions", ACTIONS)
@pytest.mark.parametrize("observations", OBSERVATIONS)
def test_model_decides_as_the_policy_with_operators_of_mlagents_own(observations: str, actions: str) -> None:
    given = OBSERVATIONS[observations]
    spec = spec_of(given["shapes"], ACTIONS[actions], given.get("goals", ()))
    policy = policy_of(spec, **given.get("network", {}))
    model = onnx_export.as_onnx(policy, 9)
    see_equal(policy, spec, model)
    assert operators(model) - OPERATORS == set()
    assert [(each.domain, each.version) for each in onnx.load_from_string(model).opset_import] == [("", 9)]


@pytest.mark.parametrize("shape", [(4, 5), (3, 20, 20)], ids=["entities", "image"])
def test_vector_without_numbers_takes_the_place_of_no_other_observation(shape: tuple[int, ...]) -> None:
    spec = spec_of([(0,), shape], ACTIONS["continuous"])
    policy, inputs = policy_of(spec), some_inputs(spec, 7, np.random.default_rng(1))
    outputs = run(onnx_export.as_onnx(policy, 9), {"obs_1": inputs["obs_1"]})
    wanted = predicted(policy, spec, inputs)["deterministic_continuous_actions"]
    np.testing.assert_allclose(outputs["deterministic_continuous_actions"], wanted, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dueling", [False, True])
@pytest.mark.parametrize(
    ("observations", "actions"), [("vectors", "discrete"), ("mixed", "branches"), ("goal", "branches")]
)
def test_model_of_q_learning_takes_the_highest_value(observations: str, actions: str, dueling: bool) -> None:
    given = OBSERVATIONS[observations]
    spec = spec_of(given["shapes"], ACTIONS[actions], given.get("goals", ()))
    policy = policy_of(spec, kind=QPolicy, dueling=dueling, **given.get("network", {}))
    model = onnx_export.as_onnx(policy, 9)
    see_equal(policy, spec, model)
    assert operators(model) - OPERATORS == set()
    outputs = run(model, some_inputs(spec, 7, np.random.default_rng(1)))
    np.testing.assert_array_equal(outputs["discrete_actions"], outputs["deterministic_discrete_actions"])


@pytest.mark.parametrize("actions", ["continuous", "hybrid"])
def test_squashed_actions_are_tanh_of_samples_and_of_the_mean(actions: str) -> None:
    spec = spec_of([(3,), (5,)], ACTIONS[actions])
    policy = policy_of(spec, kind=SquashedPolicy, normalize=True)
    with torch.no_grad():  # Actions near 1 would not tell what they were before the squashing.
        for layer in (policy.actor.heads.mean, policy.actor.heads.log_std):
            layer.weight.mul_(0.1)
            layer.bias.mul_(0.5)
    model = onnx_export.as_onnx(policy, 9)
    see_equal(policy, spec, model)
    assert operators(model) - OPERATORS == {"Tanh"}
    inputs = some_inputs(spec, 1, np.random.default_rng(1))
    onnxruntime.set_seed(1)
    drawn = np.arctanh(run(model, {name: each.repeat(5000, 0) for name, each in inputs.items()})["continuous_actions"])
    features = policy.features([each for name, each in inputs.items() if name.startswith("obs_")])
    parameters = policy.actor(features)
    mean, deviation = (each[0].detach().numpy() for each in (parameters.mean, parameters.log_std.exp()))
    np.testing.assert_array_less(np.abs(drawn.mean(0) - mean), 4 * deviation / 5000**0.5)
    np.testing.assert_allclose(drawn.std(0), deviation, rtol=4 / 10_000**0.5)


@pytest.mark.parametrize(
    ("kind", "actions"), [("ppo", "hybrid"), ("ppo", "discrete"), ("dqn", "branches"), ("sac", "hybrid")]
)
@pytest.mark.parametrize("observations", ["vectors", "mixed"])
def test_memory_is_carried_from_one_decision_to_the_next(observations: str, kind: str, actions: str) -> None:
    given = OBSERVATIONS[observations]
    spec = spec_of(given["shapes"], ACTIONS[actions])
    policy = policy_of(spec, kind=KINDS[kind], normalize=True, memory=MemorySettings(memory_size=12))
    model = onnx_export.as_onnx(policy, 9)
    assert operators(model) - OPERATORS == ({"Tanh"} if kind == "sac" else set())
    nodes = [node.op_type for node in onnx.load_from_string(model).graph.node]
    around = nodes[nodes.index("LSTM") - 4 : nodes.index("LSTM") + 4]  # ML-Agents' Hallway does so.
    assert around == ["Transpose", "Slice", "Slice", "Transpose", "LSTM", "Squeeze", "Transpose", "Concat"]
    opened, rng = session(model), np.random.default_rng(5)
    assert opened.get_inputs()[-1].name == "recurrent_in"
    assert opened.get_outputs()[-1].name == "recurrent_out"
    for rows in (1, 7):
        loaded, memory = LoadedPolicy("Ball", spec, policy), np.zeros((rows, 1, 12), np.float32)
        for _ in range(4):
            inputs = some_inputs(spec, rows, rng)
            outputs = run(opened, {**inputs, "recurrent_in": memory})
            assert outputs["memory_size"].tolist() == [12]
            assert outputs["recurrent_out"].shape == memory.shape
            memory = outputs["recurrent_out"]
            for name, array in predicted(loaded, spec, inputs).items():
                np.testing.assert_allclose(outputs[name], array, rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("encoder", ["fully_connected", "match3", "resnet", "simple", "nature_cnn"])
def test_every_encoder_of_images_is_exported(encoder: str) -> None:
    spec = spec_of([(2, 37, 40)], ACTIONS["continuous"])
    policy = policy_of(spec, vis_encode_type=encoder)
    model = onnx_export.as_onnx(policy, 9)
    see_equal(policy, spec, model)
    assert operators(model) - OPERATORS == set()
    assert "Transpose" not in operators(model)  # Images go into the first convolution as Unity sends them.


@pytest.mark.parametrize("activation", ["tanh", "relu", "elu", "leaky_relu", "gelu"])
def test_every_activation_is_exported(activation: str) -> None:
    spec = spec_of([(4,)], ACTIONS["hybrid"])
    policy = policy_of(spec, activation=activation)
    model = onnx_export.as_onnx(policy, 9)
    see_equal(policy, spec, model)
    assert operators(model) - OPERATORS <= EXTENSIONS


@pytest.mark.parametrize("opset", [9, 13, 15, 20])
@pytest.mark.parametrize("observations", ["mixed", "kinds_of_entities"])
def test_later_operators_compute_the_same(observations: str, opset: int) -> None:
    spec = spec_of(OBSERVATIONS[observations]["shapes"], ACTIONS["hybrid"])
    policy = policy_of(spec, normalize=True)
    model = onnx_export.as_onnx(policy, opset)
    see_equal(policy, spec, model)
    assert onnx.load_from_string(model).opset_import[0].version == opset


BALL = [
    (INPUT, "obs_0", "FLOAT", ["batch", 8]),
    (OUTPUT, "version_number", "FLOAT", [1]),
    (OUTPUT, "memory_size", "FLOAT", [1]),
    (OUTPUT, "continuous_actions", "FLOAT", ["batch", 2]),
    (OUTPUT, "continuous_action_output_shape", "FLOAT", [1]),
    (OUTPUT, "deterministic_continuous_actions", "FLOAT", ["batch", 2]),
]
BASIC = [
    (INPUT, "obs_0", "FLOAT", ["batch", 20]),
    (INPUT, "action_masks", "FLOAT", ["batch", 3]),
    (OUTPUT, "version_number", "FLOAT", [1]),
    (OUTPUT, "memory_size", "FLOAT", [1]),
    (OUTPUT, "discrete_actions", "INT64", ["batch", 1]),
    (OUTPUT, "discrete_action_output_shape", "FLOAT", [1, 1]),
    (OUTPUT, "deterministic_discrete_actions", "INT64", ["batch", 1]),
]
HALLWAY = [
    (INPUT, "obs_0", "FLOAT", ["batch", 105]),
    (INPUT, "obs_1", "FLOAT", ["batch", 3]),
    (INPUT, "action_masks", "FLOAT", ["batch", 5]),
    (INPUT, "recurrent_in", "FLOAT", ["batch", 1, 128]),
    *BASIC[2:],
    (OUTPUT, "recurrent_out", "FLOAT", ["batch", 1, 128]),
]
HYBRID = [
    (INPUT, "obs_0", "FLOAT", ["batch", 3, 20, 20]),
    (INPUT, "obs_1", "FLOAT", ["batch", 8]),
    (INPUT, "action_masks", "FLOAT", ["batch", 5]),
    *BALL[1:],
    (OUTPUT, "discrete_actions", "INT64", ["batch", 2]),
    (OUTPUT, "discrete_action_output_shape", "FLOAT", [1, 2]),
    (OUTPUT, "deterministic_discrete_actions", "INT64", ["batch", 2]),
]
"""Inputs and outputs of models that ML-Agents wrote: 3DBall, Basic, Hallway, and a behavior with all kinds."""


@pytest.mark.parametrize(
    ("shapes", "actions", "wanted", "constants"),
    [
        ([(8,)], ActionSpec(2, ()), BALL, {"continuous_action_output_shape": [2]}),
        ([(20,)], ActionSpec(0, (3,)), BASIC, {"discrete_action_output_shape": [[3]]}),
        ([(105,), (3,)], ActionSpec(0, (5,)), HALLWAY, {"discrete_action_output_shape": [[5]]}),
        (
            [(3, 20, 20), (8,)],
            ActionSpec(2, (2, 3)),
            HYBRID,
            {"continuous_action_output_shape": [2], "discrete_action_output_shape": [[2, 3]]},
        ),
    ],
    ids=["3DBall", "Basic", "Hallway", "hybrid"],
)
def test_inputs_and_outputs_are_those_of_mlagents_own_models(
    shapes: list[tuple[int, ...]], actions: ActionSpec, wanted: list[Any], constants: dict[str, Any]
) -> None:
    spec = spec_of(shapes, actions)
    sizes = [shape[-1] for _, name, _, shape in wanted if name == "recurrent_in"]
    memory = MemorySettings(memory_size=sizes[0]) if sizes else None
    model = onnx_export.as_onnx(policy_of(spec, normalize=True, memory=memory), 9)
    graph = onnx.load_from_string(model).graph
    found = [
        (side, value.name, onnx.TensorProto.DataType.Name(value.type.tensor_type.elem_type), dimensions(value))
        for side, values in ((INPUT, graph.input), (OUTPUT, graph.output))
        for value in values
    ]
    assert found == wanted
    inputs = some_inputs(spec, 2, np.random.default_rng(0))
    if sizes:
        inputs["recurrent_in"] = np.zeros((2, 1, sizes[0]), np.float32)
    outputs = run(model, inputs)
    said = {name: outputs[name].tolist() for name in ("version_number", "memory_size", *constants)}
    assert said == {"version_number": [3], "memory_size": sizes or [0], **constants}


def dimensions(value: Any) -> list[Any]:
    return [dimension.dim_param or dimension.dim_value for dimension in value.type.tensor_type.shape.dim]


def test_samples_have_the_distribution_of_the_policy() -> None:
    rows = 20_000
    spec = spec_of([(2,)], ActionSpec(2, (3, 2)))
    policy = policy_of(spec)
    with torch.no_grad():
        policy.actor.heads.mean.weight.mul_(0.05)
        policy.actor.heads.mean.bias.copy_(torch.tensor([0.6, 0.0]))
        policy.actor.heads.log_std.copy_(torch.tensor([-1.0, 1.5]))
    onnxruntime.set_seed(1)
    masks = np.tile(np.float32([1, 0, 1, 1, 1]), (rows, 1))
    outputs = run(onnx_export.as_onnx(policy, 9), {"obs_0": np.ones((rows, 2), np.float32), "action_masks": masks})
    parameters = policy.actor(torch.ones((1, 2)))

    mean, deviation = parameters.mean[0].detach().numpy(), np.exp([-1.0, 1.5])
    continuous = outputs["continuous_actions"] * 3.0
    assert continuous[:, 0].mean() == pytest.approx(mean[0], abs=4 * deviation[0] / rows**0.5)
    assert continuous[:, 0].std() == pytest.approx(deviation[0], rel=4 / (2 * rows) ** 0.5)
    assert np.corrcoef(continuous[1:, 0], continuous[:-1, 0])[0, 1] == pytest.approx(0, abs=4 / rows**0.5)
    beyond = [np.mean(continuous[:, 1] <= -3.0), np.mean(continuous[:, 1] >= 3.0)]
    normal = torch.distributions.Normal(float(mean[1]), float(deviation[1]))
    tails = [float(normal.cdf(torch.tensor(-3.0))), 1 - float(normal.cdf(torch.tensor(3.0)))]
    np.testing.assert_allclose(beyond, tails, atol=4 * 0.5 / rows**0.5)

    logits = parameters.logits[0].detach()
    wanted = [torch.softmax(logits[[0, 2]], 0).tolist(), torch.softmax(logits[3:], 0).tolist()]
    for branch, actions, probabilities in ((0, [0, 2], wanted[0]), (1, [0, 1], wanted[1])):
        drawn = outputs["discrete_actions"][:, branch]
        shares = [np.mean(drawn == action) for action in actions]
        assert sum(shares) == 1.0  # Nothing that is forbidden was drawn.
        np.testing.assert_allclose(shares, probabilities, atol=4 * 0.5 / rows**0.5)


def test_export_leaves_policy_and_random_numbers_as_they_were() -> None:
    spec = spec_of([(4,), (3, 20, 20)], ACTIONS["hybrid"])
    policy = policy_of(spec, normalize=True)
    policy.actor.autocast = torch.bfloat16  # Models compute in float32 in any case.
    weights = {name: tensor.clone() for name, tensor in policy.actor.state_dict().items()}
    states = torch.get_rng_state(), random.getstate(), np.random.get_state(legacy=True)  # noqa: NPY002
    model = onnx_export.as_onnx(policy, 9)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert random.getstate() == states[1]
    np.testing.assert_equal(np.random.get_state(legacy=True), states[2])  # noqa: NPY002
    assert all(torch.equal(tensor, weights[name]) for name, tensor in policy.actor.state_dict().items())
    assert policy.actor.autocast is torch.bfloat16
    assert policy.actor.training
    assert all(parameter.requires_grad for parameter in policy.actor.parameters())
    assert onnx_export.as_onnx(policy, 9) == model
    policy.actor.autocast = None
    see_equal(policy, spec, model)


class Residual(nn.Module):
    """A network of somebody else, which reads all features as one."""

    def __init__(self, size: int, actions: ActionSpec) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(size, 8), nn.Linear(8, 8)
        self.heads = ActionHeads(8, actions, "lecun_normal")

    def forward(self, features: Tensor) -> ActionParameters:
        encoding = torch.tanh(self.first(features))
        found: ActionParameters = self.heads(encoding + torch.tanh(self.second(encoding)))
        return found


def test_network_of_somebody_else_is_exported() -> None:
    spec = spec_of([(4,), (1, 5, 6)], ACTIONS["hybrid"])
    settings = TrainerSettings(network_settings=NetworkSettings(vis_encode_type="match3"))
    policy = ActorPolicy("Ball", spec, settings, torch.device("cpu"), Residual(34, spec.action_spec))
    see_equal(policy, spec, onnx_export.as_onnx(policy, 9))


class Branching(Residual):
    """A network that computes something else for large numbers, which tracing cannot see."""

    def forward(self, features: Tensor) -> ActionParameters:
        return super().forward(features * 0.5 if float(features.abs().max()) > 3.0 else features)


def test_branch_of_somebody_else_is_named_once(caplog: pytest.LogCaptureFixture) -> None:
    spec = spec_of([(4,)], ACTIONS["hybrid"])
    policy = ActorPolicy("Ball", spec, TrainerSettings(), torch.device("cpu"), Branching(4, spec.action_spec))
    for _ in range(2):
        onnx_export.as_onnx(policy, 9)
    assert len(caplog.records) == 1
    line = inspect.getsourcelines(Branching.forward)[1] + 1
    assert f"what {__file__}:{line} does depends on the numbers" in caplog.text


class Shifted(ActorPolicy):
    def features(self, obs: Any) -> Tensor:
        return super().features(obs) + 1.0


class Bessel(nn.Module):
    """A network with an operator that opset 9 does not have."""

    def __init__(self, size: int, actions: ActionSpec) -> None:
        super().__init__()
        self.heads = ActionHeads(size, actions, "lecun_normal")

    def forward(self, features: Tensor) -> ActionParameters:
        found: ActionParameters = self.heads(torch.special.i1(features))
        return found


class Offers:
    """Gives PPO a policy of its own, and counts what the manager is asked."""

    def __init__(self, make: Any) -> None:
        self.make = make

    @hookimpl
    def create_policy(self, trainer: Any, behavior_spec: BehaviorSpec) -> Policy:
        policy: Policy = self.make(trainer.behavior_name, behavior_spec, trainer.settings, trainer.device)
        return policy


def bessel(name: str, spec: BehaviorSpec, settings: TrainerSettings, device: torch.device) -> ActorPolicy:
    return ActorPolicy(name, spec, settings, device, Bessel(3, spec.action_spec))


CORRIDOR = config("Corridor", "test:x")  # 600 steps, a checkpoint every 200


@pytest.mark.parametrize(
    ("make", "reason"), [(Shifted, "Shifted overrides features"), (bessel, "special_i1")], ids=["own code", "operator"]
)
def test_policy_that_cannot_be_exported_is_named_once_and_the_run_goes_on(
    tmp_path: Path, make: Any, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    finished = train(CORRIDOR, tmp_path, Env(), Offers(make), strict_plugins=True)
    warnings = [record.message for record in caplog.records if "no ONNX model" in record.message]
    assert len(warnings) == 1
    assert "'Corridor'" in warnings[0]
    assert reason in warnings[0]
    assert not list(finished.path.rglob("*.onnx"))
    assert finished.trainers["Corridor"].step == 600


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(config("Corridor", "test:x", keep_checkpoints=2), tmp_path_factory.mktemp("trained"), Env()).path


def manifest_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    return found


def test_models_lie_beside_the_checkpoints_that_are_kept_and_the_manifest_names_them(trained: Path) -> None:
    assert sorted(path.relative_to(trained).as_posix() for path in trained.rglob("*.onnx")) == [
        "Corridor.onnx",
        "Corridor/Corridor-400.onnx",
        "Corridor/Corridor-600.onnx",
    ]
    manifest, beside = manifest_of(trained), (trained / "Corridor").as_posix()
    named = manifest["Corridor"]["checkpoints"]
    assert [each["file_path"] for each in named] == [f"{beside}/Corridor-{step}.onnx" for step in (400, 600)]
    assert [each["auxillary_file_paths"][0] for each in named] == [
        f"{beside}/Corridor-{step}.pt" for step in (400, 600)
    ]
    last = manifest["Corridor"]["final_checkpoint"]
    assert last["file_path"] == (trained / "Corridor.onnx").as_posix()
    assert f"{beside}/Corridor-600.pt" in last["auxillary_file_paths"]
    for model, source in (
        ("Corridor.onnx", "Corridor.policy.pt"),
        ("Corridor/Corridor-400.onnx", "Corridor/Corridor-400.pt"),
    ):
        policy = mlhooks.load(trained / source)
        for place in range(5):
            obs = np.full((1, 3), place, np.float32)
            outputs = run((trained / model).read_bytes(), {"obs_0": obs, "action_masks": np.ones((1, 2), np.float32)})
            assert outputs["deterministic_discrete_actions"][0, 0] == policy.predict(obs[0])


def test_checkpoint_of_a_run_without_models_is_dropped_like_others(tmp_path: Path) -> None:
    settings = config("Corridor", "test:x", max_steps=200, keep_checkpoints=2)
    first = train(settings, tmp_path, Env(), plugin_names=QUIET).path
    assert manifest_of(first)["Corridor"]["final_checkpoint"]["file_path"].endswith("/Corridor-200.pt")
    train(settings, tmp_path, Env(), resume=True, overrides=["behaviors.Corridor.max_steps=600"])
    named = manifest_of(first)["Corridor"]["checkpoints"]
    assert [Path(each["file_path"]).name for each in named] == ["Corridor-400.onnx", "Corridor-600.onnx"]
    files = {path.name for path in (first / "Corridor").iterdir() if path.suffix in (".pt", ".onnx")}
    assert files == {f"Corridor-{step}{end}" for step in (400, 600) for end in (".onnx", ".policy.pt", ".pt")}


def test_export_again_writes_the_models_that_the_run_wrote(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = Path(shutil.copytree(trained, tmp_path / "runs" / "copy"))
    model = (copy / "Corridor.onnx").read_bytes()
    (copy / "Corridor.onnx").unlink()
    assert main(["export", "copy", "--results-dir", str(copy.parent)]) == 0
    assert (copy / "Corridor.onnx").read_bytes() == model
    said = [f"Wrote {copy / name}" for name in ("Corridor.policy.pt", "Corridor.onnx")]
    assert capsys.readouterr().out.splitlines() == said

    checkpoint = copy / "Corridor" / "Corridor-400.pt"
    assert main(["export", str(checkpoint), "--onnx", "--opset", "15", "--output", str(tmp_path / "elsewhere")]) == 0
    (written,) = (tmp_path / "elsewhere").iterdir()
    assert written.name == "Corridor-400.onnx"
    assert onnx.load(written).opset_import[0].version == 15
    obs = {"obs_0": np.ones((2, 3), np.float32), "action_masks": np.ones((2, 2), np.float32)}
    outputs = run(written.read_bytes(), obs)["deterministic_discrete_actions"]
    np.testing.assert_array_equal(outputs, mlhooks.load(checkpoint).predict(obs["obs_0"]))


def test_best_policy_is_exported_beside_its_own_file(trained: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(trained, tmp_path / "copy"))
    shutil.copy(copy / "Corridor" / "Corridor-400.policy.pt", copy / "Corridor.best.policy.pt")
    written = mlhooks.export(copy, best=True, only="onnx_export")
    assert written == [copy / "Corridor.best.onnx"]
    assert written[0].read_bytes() == (copy / "Corridor" / "Corridor-400.onnx").read_bytes()


def test_run_that_goes_on_is_not_written_to(trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    copy = Path(shutil.copytree(trained, tmp_path / "copy"))
    (copy / "Corridor.onnx").unlink()
    with RunFolder(copy, "copy").hold():
        assert main(["export", str(copy), "--onnx"]) == 2
        assert f"process {os.getpid()}" in capsys.readouterr().err
        assert not (copy / "Corridor.onnx").exists()
        assert main(["export", str(copy), "--onnx", "--output", str(tmp_path / "elsewhere")]) == 0
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == ["Corridor.onnx"]


def test_time_of_exports_is_told(trained: Path) -> None:
    timers = json.loads((trained / "run_logs" / "timers.json").read_text())
    assert timers["children"]["checkpoint"]["children"]["export"]["count"] == 3


def test_opset_is_refused_where_mlagents_own_exporter_writes() -> None:
    settings = TrainerSettings(trainer_type="mlagents:ppo", onnx_opset=15)
    assert [key for key, _ in WheelTrainer.refused_settings(settings)] == [("onnx_opset",)]
    assert list(WheelTrainer.refused_settings(TrainerSettings(trainer_type="mlagents:ppo", onnx_opset=9))) == []


def test_opset_of_the_settings_is_that_of_the_models(tmp_path: Path) -> None:
    path = train(config("Corridor", "test:x", max_steps=100, onnx_opset=12), tmp_path, Env()).path
    assert onnx.load(path / "Corridor.onnx").opset_import[0].version == 12


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["export", "none"], "There is no checkpoint at none"),
        (["export", "{run}", "--behavior", "Other"], "holds the behaviors Corridor"),
        (["export", "{run}", "--onnx", "-p", "no:onnx_export"], "no exporter 'onnx_export'"),
        (["export", "{run}", "--opset", "8"], "9<=x<=20"),
    ],
)
def test_what_cannot_be_exported_is_an_error(
    trained: Path, arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([argument.format(run=trained) for argument in arguments]) in (1, 2)
    assert said in capsys.readouterr().err


def test_export_of_a_policy_without_a_form_for_onnx_writes_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    finished = train(CORRIDOR, tmp_path, Env(), Offers(Shifted))
    caplog.clear()
    assert mlhooks.export(finished.path, only="onnx_export", plugins=[Offers(Shifted)]) == []
    assert "Shifted overrides features" in caplog.text


@pytest.mark.slow
def test_learned_policy_plays_3dball_to_100_in_onnxruntime(tmp_path: Path) -> None:
    finished = train(find_config("3dball_ppo"), tmp_path, overrides=["env_settings.seed=1"])
    opened = session((finished.path / "3DBall.onnx").read_bytes())
    env = Ball3D(num_areas=1, seed=9)
    env.reset()
    returns, total = [], np.zeros(env.num_agents)
    while len(returns) < env.num_agents:
        decisions, terminals = env.get_steps("3DBall")
        total[terminals.agent_id] += terminals.reward
        returns += total[terminals.agent_id].tolist()
        total[terminals.agent_id] = 0.0
        total[decisions.agent_id] += decisions.reward
        actions = run(opened, {"obs_0": decisions.obs[0]})["deterministic_continuous_actions"]
        env.set_actions("3DBall", ActionTuple(continuous=actions))
        env.step()
    np.testing.assert_allclose(returns, 100.0, atol=1.0)
