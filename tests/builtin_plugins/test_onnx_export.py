"""ONNX models, against ML-Agents' own files and against the policies that they were written from."""

from __future__ import annotations

import inspect
import random
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from mlagents_envs.base_env import (
    ActionSpec,
)
from torch import Tensor, nn

from builtin_plugins import onnx_export
from mlhooks.nn.heads import ActionHeads, ActionParameters, SampledActions
from mlhooks.settings import MemorySettings, NetworkSettings, TrainerSettings
from mlhooks.training.policy import ActorPolicy, Policy
from mlhooks.training.prediction import LoadedPolicy
from mlhooks.training.q_policy import QPolicy
from mlhooks.training.squashed_policy import SquashedPolicy
from tests.builtin_plugins.onnx_models import (
    ACTIONS,
    EXTENSIONS,
    INPUT,
    KINDS,
    OBSERVATIONS,
    OPERATORS,
    OUTPUT,
    operators,
    policy_of,
    predicted,
    run,
    see_equal,
    session,
    some_inputs,
    spec_of,
)


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


@pytest.mark.parametrize(("kind", "actions"), [("ppo", "continuous"), ("ppo", "hybrid"), ("sac", "continuous")])
def test_state_dependent_noise_has_its_variance_in_the_model(kind: str, actions: str) -> None:
    spec = spec_of([(3,), (5,)], ACTIONS[actions])
    given = {"use_sde": True, "full_std": kind == "sac", "hidden_layers": [20, 16], "activation": "tanh"}
    policy = policy_of(spec, kind=KINDS[kind], normalize=True, **given)
    with torch.no_grad():
        policy.actor.heads.log_std.fill_(-2.0)
        policy.actor.heads.mean.weight.mul_(0.1)
        policy.actor.heads.mean.bias.mul_(0.1)
    model = onnx_export.as_onnx(policy, 9)
    see_equal(policy, spec, model)
    assert operators(model) - OPERATORS == {"Tanh"}
    inputs = some_inputs(spec, 1, np.random.default_rng(1))
    onnxruntime.set_seed(1)
    drawn = run(model, {name: each.repeat(5000, 0) for name, each in inputs.items()})["continuous_actions"]
    with torch.no_grad():
        features = policy.features([each for name, each in inputs.items() if name.startswith("obs_")])
        latent = policy.actor.encoder(features)
        mean = policy.actor.heads.mean(latent)[0].numpy()
        deviation = float((latent.square().sum() * np.exp(-4.0) + 1e-6).sqrt())
    assert np.abs(mean).max() + 4 * deviation < 3.0
    samples = np.arctanh(drawn) if kind == "sac" else 3.0 * drawn
    np.testing.assert_allclose(samples.mean(0), mean, atol=5 * deviation / 5000**0.5)
    np.testing.assert_allclose(samples.std(0), np.full(mean.shape, deviation), rtol=0.05)


@pytest.mark.parametrize("limit", [1.0, 0.4])
def test_actions_are_clipped_where_the_settings_say(limit: float) -> None:
    spec = spec_of([(3,)], ACTIONS["continuous"])
    policy = policy_of(spec, action_limit=limit)
    see_equal(policy, spec, onnx_export.as_onnx(policy, 9))
    actions = np.array([[-5.0, -0.3, 0.2, 7.0]], np.float32)
    sampled = SampledActions(actions, np.zeros((1, 0), np.int64), actions)
    np.testing.assert_allclose(
        policy.action_tuple(sampled).continuous, np.clip(actions, -limit, limit) / limit, rtol=1e-6
    )
    np.testing.assert_allclose(policy.from_environment(np.array([[-1.0, 0.5]], np.float32)), [[-limit, 0.5 * limit]])


@pytest.mark.parametrize(
    ("kind", "actions", "sde"),
    [
        ("ppo", "hybrid", False),
        ("ppo", "discrete", False),
        ("dqn", "branches", False),
        ("sac", "hybrid", False),
        ("ppo", "hybrid", True),
    ],
)
@pytest.mark.parametrize("observations", ["vectors", "mixed"])
def test_memory_is_carried_from_one_decision_to_the_next(observations: str, kind: str, actions: str, sde: bool) -> None:
    given = OBSERVATIONS[observations]
    spec = spec_of(given["shapes"], ACTIONS[actions])
    policy = policy_of(spec, kind=KINDS[kind], normalize=True, memory=MemorySettings(memory_size=12), use_sde=sde)
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


@pytest.mark.parametrize("kind", [ActorPolicy, QPolicy])
@pytest.mark.parametrize("shapes", [[(4,)], [(4, 36, 37)], [(3,), (4, 36, 37)]], ids=["vector", "image", "both"])
def test_policy_without_hidden_layers_is_exported(shapes: list[tuple[int, ...]], kind: type[Policy]) -> None:
    spec = spec_of(shapes, ACTIONS["discrete"])
    settings = {"visual_activation": "relu", "vis_encode_type": "nature_cnn", "hidden_layers": []}
    policy = policy_of(spec, kind=kind, **settings)
    see_equal(policy, spec, onnx_export.as_onnx(policy, 9))
    network = policy.actor if kind is ActorPolicy else policy.network
    assert network.encoder.output_size == sum(shape[0] for shape in shapes if len(shape) == 1) + 16 * (
        len(shapes[-1]) == 3
    )


def test_bound_of_normalized_observations_is_exported() -> None:
    spec = spec_of([(3,)], ACTIONS["continuous"])
    near, far = (policy_of(spec, normalize=True, normalize_clip=clip) for clip in (0.1, 10.0))
    given = some_inputs(spec, 7, np.random.default_rng(1))
    name = "deterministic_continuous_actions"
    differ = []
    for policy in (near, far):
        model = onnx_export.as_onnx(policy, 9)
        see_equal(policy, spec, model)
        differ.append(run(model, given)[name])
    assert np.abs(near.inputs.features([given["obs_0"]])).max() == np.float32(0.1)
    assert np.abs(differ[0] - differ[1]).max() > 1e-3


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
