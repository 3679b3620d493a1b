"""How `torch_settings` have networks computed: in bfloat16, compiled, and on a device that arrays are copied to."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import mlhooks
from mlhooks.fast.switch import is_plain
from mlhooks.fast.switch import plain as switched_off
from mlhooks.nn.attention import EntityEncoder
from mlhooks.nn.layers import MLP
from mlhooks.nn.networks import Network
from mlhooks.nn.visual import ImageEncoder
from mlhooks.settings.run_options import TorchSettings
from mlhooks.testing.managers import make_manager
from mlhooks.testing.scripted import BEHAVIOR
from mlhooks.testing.specs import make_behavior_spec
from mlhooks.testing.trainer_loop import make_trainer, weights
from mlhooks.training.batch import Batch
from mlhooks.training.device import to_device
from mlhooks.training.torch_setup import Computing
from mlhooks.training.trainer import Trainer
from tests.scripted import train
from tests.training.test_visual import Pictures, settings

IMAGE, ROWS = (1, 20, 20), 40
CPU = torch.device("cpu")
BFLOAT16, COMPILE = {"autocast": "bfloat16"}, {"compile": True}
AGREES = {"rtol": 0.03, "atol": 0.03}  # bfloat16 has 8 bits.


def learner(kind: str, asked: Mapping[str, Any], *shapes: Any, branches: int = 1, **network: Any) -> Trainer:
    spec = make_behavior_spec(shapes or (2, IMAGE), branches=(3,) * branches, continuous=0 if kind == "dqn" else 2)
    network = {"hidden_units": 32, "num_layers": 1, "vis_encode_type": "simple", **network}
    trainer = make_trainer(make_manager(), spec, {"trainer_type": kind, "network_settings": network})
    Computing(TorchSettings(**asked), trainer.device).set_up(trainer.modules().values())
    trainer.optimizer.set_step(0)
    return trainer


def batch_for(trainer: Trainer, rows: int = ROWS) -> Batch:
    made = torch.Generator().manual_seed(3)
    spec = trainer.behavior_spec.action_spec
    return Batch(
        features=torch.rand(rows, trainer.policy.layout.size, generator=made),
        continuous=torch.randn(rows, spec.continuous_size, generator=made),
        discrete=torch.randint(3, (rows, spec.discrete_size), generator=made),
        log_probs=torch.full((rows, spec.continuous_size + spec.discrete_size), -3.0),
        values=torch.zeros(rows, 1),
        returns=torch.randn(rows, 1, generator=made),
        advantages=torch.randn(rows, 1, generator=made),
        signal_rewards=torch.randn(rows, 1, generator=made),
        next_features=torch.rand(rows, trainer.policy.layout.size, generator=made),
        discounts=torch.full((rows, 1), 0.9),
    )


def gradient_of(trainer: Trainer, batch: Batch) -> Tensor:
    optimizer: Any = trainer.optimizer
    optimizer.update(batch)
    gradient: Tensor = optimizer.flat.grad
    return gradient


@pytest.mark.parametrize("kind", ["ppo", "a2c", "dqn"])
def test_autocast_learns_the_same_to_the_rounding_of_bfloat16_and_keeps_float32(kind: str) -> None:
    exact, rounded = learner(kind, {}), learner(kind, BFLOAT16)
    assert all(
        rounded.modules()[name].state_dict().keys() == m.state_dict().keys() for name, m in exact.modules().items()
    )
    batch = batch_for(exact)
    optimizers: list[Any] = [exact.optimizer, rounded.optimizer]
    wanted, losses = (optimizer.loss(batch) for optimizer in optimizers)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    assert {name: loss.item() for name, loss in losses.items()} == pytest.approx(
        {name: loss.item() for name, loss in wanted.items()}, rel=0.03, abs=0.03
    )
    assert [loss.item() for loss in losses.values()] != [loss.item() for loss in wanted.values()]
    expected, gradient = (gradient_of(trainer, batch) for trainer in (exact, rounded))
    assert float(torch.cosine_similarity(gradient, expected, 0)) > 0.99
    kept = [*weights(rounded).values(), *optimizers[1].torch_optimizer.state_dict().values(), gradient]
    assert {t.dtype for t in kept if isinstance(t, Tensor) and t.is_floating_point()} == {torch.float32}


def test_autocast_gives_log_probabilities_and_values_in_float32() -> None:
    exact, rounded = learner("ppo", {}), learner("ppo", BFLOAT16)
    batch = batch_for(exact)
    obs = [np.ones((ROWS, 2), np.float32), np.ones((ROWS, *IMAGE), np.float32)]
    results = []
    for trainer in (exact, rounded):
        optimizer: Any = trainer.optimizer
        acted = trainer.policy.act(obs, None, np.random.default_rng(1))
        results.append(
            [*optimizer.policy.evaluate(batch), optimizer.estimate(batch.features), *map(torch.tensor, acted[:3])]
        )
    for ours, theirs in zip(*results, strict=True):
        assert ours.dtype is theirs.dtype
        assert torch.allclose(ours.double(), theirs.double(), **AGREES)
    assert not results[0][0].equal(results[1][0])


@pytest.mark.skipif(is_plain(), reason="torch computes all networks")
@pytest.mark.parametrize(("rows", "units", "rounds"), [(16, 256, False), (512, 256, True), (512, 128, False)])
def test_autocast_leaves_to_mirrors_what_they_compute_faster(rows: int, units: int, rounds: bool) -> None:
    exact, rounded = (learner("ppo", asked, 5, hidden_units=units) for asked in ({}, BFLOAT16))
    batch = batch_for(exact, rows)
    expected, gradient = (gradient_of(trainer, batch).clone() for trainer in (exact, rounded))
    assert gradient.equal(expected) is not rounds
    assert float(torch.cosine_similarity(gradient, expected, 0)) > 0.99


def test_autocast_gives_the_same_weights_with_the_same_seed_and_is_written_down(tmp_path: Path) -> None:
    flags = ["torch_settings.autocast=bfloat16"]
    runs = [train(settings("ppo", 512), tmp_path / str(n), Pictures(), overrides=flags) for n in (1, 2)]
    first, second = (weights(run.trainers[BEHAVIOR]) for run in runs)
    exact = weights(train(settings("ppo", 512), tmp_path / "exact", Pictures()).trainers[BEHAVIOR])
    assert all(first[name].equal(second[name]) for name in exact)
    assert not all(first[name].equal(exact[name]) for name in exact)
    assert "autocast: bfloat16" in (runs[0].path / "configuration.yaml").read_text()
    assert isinstance(mlhooks.load(runs[0].path).predict([np.ones(2), np.zeros(IMAGE)]), int)


class Compiler:
    """In place of `torch.compile`: notes what it is given."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, error: Exception | None = None) -> None:
        self.given: list[Any] = []
        self.error = error
        monkeypatch.setattr(torch, "compile", self)

    def __call__(self, function: Callable[..., Any], **options: Any) -> Callable[..., Any]:
        if self.error is not None:
            raise self.error
        self.given.append(getattr(function, "__self__", function))
        return function


@pytest.fixture
def _dynamo() -> Any:
    """What compiling sets in torch is set back."""
    from torch import _dynamo

    with _dynamo.config.patch(suppress_errors=False, recompile_limit=8):
        yield


@pytest.mark.usefixtures("_dynamo")
@pytest.mark.parametrize("shape", [IMAGE, (4, 3)], ids=["image", "entities"])
def test_layers_and_encoders_are_compiled_under_their_names(
    monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...]
) -> None:
    compiler = Compiler(monkeypatch)
    plain, compiled = learner("ppo", {}, 2, shape), learner("ppo", COMPILE, 2, shape)
    modules = [part for module in compiled.modules().values() for part in module.modules()]
    parts = [part for part in modules if type(part) in (MLP, ImageEncoder, EntityEncoder)]
    assert len(parts) == 4  # Actor and critic have two each.
    assert [given for given in compiler.given if isinstance(given, nn.Module)] == parts
    batch = batch_for(plain)
    with switched_off():  # Otherwise the native extension computes one of the losses, and rounds in another order.
        for trainer in (plain, compiled):
            trainer.optimizer.update(batch)
    assert weights(compiled).keys() == weights(plain).keys()
    assert all(tensor.equal(weights(plain)[name]) for name, tensor in weights(compiled).items())


def test_without_a_compiler_one_warning_says_so_and_networks_are_computed_as_before(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    Compiler(monkeypatch, RuntimeError("No working C++ compiler found.\nand more"))
    network, computing = nn.Sequential(MLP(3, [4], "tanh", "orthogonal")), Computing(TorchSettings(compile=True), CPU)
    before = network(torch.ones(2, 3))
    for _ in range(2):
        computing.set_up([network])
    (message,) = (record.getMessage() for record in caplog.records)
    assert "goes on without: No working C++ compiler found. To compile, install a C++ compiler" in message
    assert network(torch.ones(2, 3)).equal(before)


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="there is no C++ compiler")
@pytest.mark.parametrize("compiler", ["g++", "/nonexistent"])
def test_run_compiles_or_goes_on_without(tmp_path: Path, compiler: str) -> None:
    """In a process of its own, as torch looks for a compiler once."""
    script = f"""
from pathlib import Path
import torch
from mlhooks.testing.scripted import BEHAVIOR
from tests.scripted import train
from tests.training.test_visual import Pictures, settings
from mlhooks.testing.trainer_loop import weights
runs = [train(settings("ppo", 512), Path({str(tmp_path)!r}, f"{{asked}}"), Pictures(), overrides=[
    f"torch_settings.compile={{asked}}"]) for asked in (True, False)]
compiled, plain = (weights(run.trainers[BEHAVIOR]) for run in runs)
assert compiled.keys() == plain.keys()
assert all(torch.allclose(tensor, plain[name], atol=1e-3) for name, tensor in compiled.items())
print("graphs", torch._dynamo.utils.counters["stats"]["unique_graphs"])
"""
    environment = {**os.environ, "CXX": compiler, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path / "cache")}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("networks are not compiled") == (compiler != "g++"), done.stderr
    graphs = int(done.stdout.rpartition("graphs ")[2])
    assert graphs > 4 if compiler == "g++" else graphs <= 1


@pytest.mark.parametrize(
    ("device", "threaded", "how"),
    [
        ("cpu", False, {"dynamic": True}),
        ("cuda", False, {"mode": "reduce-overhead", "dynamic": False}),
        ("cuda", True, {"dynamic": True}),  # CUDA graphs are one thread's
    ],
)
def test_networks_on_a_gpu_are_compiled_as_cuda_graphs(
    monkeypatch: pytest.MonkeyPatch, device: str, threaded: bool, how: dict[str, Any]
) -> None:
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(nn.Module, "compile", lambda _, **options: asked.append(options))
    monkeypatch.setattr(Computing, "_compiles", True)
    modules = learner("ppo", {}).modules().values()
    Computing(TorchSettings(**COMPILE), torch.device(device)).set_up(modules, threaded=threaded)
    assert asked == [how] * 4  # Actor and critic have layers and an encoder of images each.


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
@pytest.mark.parametrize("kind", ["ppo", "dqn"])
def test_run_with_cuda_graphs_ends_with_finite_weights(tmp_path: Path, kind: str) -> None:
    config = settings(kind, 1024) | {"torch_settings": {"device": "cuda", **COMPILE}}
    run = train(config, tmp_path, Pictures())
    assert all(tensor.isfinite().all() for tensor in weights(run.trainers[BEHAVIOR]).values())


def test_array_on_the_cpu_shares_its_memory() -> None:
    array = np.zeros(3, np.float32)
    tensor = to_device(array, CPU)
    array[1] = 2.0
    assert tensor.tolist() == [0.0, 2.0, 0.0]


def test_array_for_cuda_goes_through_pinned_memory_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    pinned, sent = [], []

    def pin_memory(tensor: Tensor) -> Tensor:
        pinned.append(tensor.clone())
        return pinned[-1]

    def to(tensor: Tensor, device: torch.device, *, non_blocking: bool) -> Tensor:
        sent.append((tensor, device, non_blocking))
        return tensor

    monkeypatch.setattr(Tensor, "pin_memory", pin_memory)
    monkeypatch.setattr(Tensor, "to", to)
    array, device = np.zeros(3, np.float32), torch.device("cuda", 0)
    results = [to_device(array, device) for _ in range(2)]
    assert [(result is copy, on, beside) for result, (copy, on, beside) in zip(results, sent, strict=True)] == [
        (True, device, True)
    ] * 2
    assert [copy is staged for (copy, *_), staged in zip(sent, pinned, strict=True)] == [True, True]
    assert pinned[0] is not pinned[1]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU")
def test_array_on_cuda_is_what_it_was_at_the_call() -> None:
    array = np.ones(2**22, np.float32)
    tensors = []
    for number in range(20):
        array.fill(number)
        tensors.append(to_device(array, torch.device("cuda")))
    assert [tensor.mean().item() for tensor in tensors] == list(range(20))
    assert to_device(array[:0], torch.device("cuda")).shape == (0,)


def test_every_built_in_network_can_be_computed_in_bfloat16() -> None:
    for kind, names in {
        "ppo": {"Actor", "Critic"},
        "a2c": {"Actor", "Critic"},
        "dqn": {"QNetwork"},
        "sac": {"Actor", "Critic"},
    }.items():
        networks = [module for module in learner(kind, BFLOAT16).modules().values() if isinstance(module, Network)]
        assert {type(network).__name__ for network in networks} == names
        assert {network.autocast for network in networks} == {torch.bfloat16}
