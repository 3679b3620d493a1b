"""Files of weights: any bit that is not as it was written, and any value that cannot be, is refused with a sentence."""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import random
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import mlhooks
from mlhooks.errors import CheckpointError
from mlhooks.names import MANIFEST
from mlhooks.training.checkpoints import CheckpointFolder, pack, read_state, unpack, write_state
from mlhooks.training.sealed import LENGTH, SEAL, load_sealed, seal
from tests.scripted import config, train

SETTINGS = config("3DBall", "sim:3DBall", max_steps=600, hyperparameters={"batch_size": 60, "buffer_size": 300})


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train(SETTINGS, tmp_path_factory.mktemp("trained")).path


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def resealed(path: Path, alter: Callable[[dict[str, Any]], Any]) -> None:
    """Let a file of a run's folder hold something else, with a digest and a manifest that vouch for it."""
    state = read_state(path)
    alter(state)
    data = write_state(path, state)
    for run in (path.parent, path.parent.parent):
        if (run / MANIFEST).exists():
            manifest = json.loads((run / MANIFEST).read_text())
            for entry in manifest["mlhooks"]:
                for file in (*entry["behaviors"].values(), entry["run"]):
                    if run / file["path"] == path:
                        file |= {"size": len(data), "sha256": hashlib.sha256(data).hexdigest()}
            (run / MANIFEST).write_text(json.dumps(manifest))


def test_file_is_an_archive_that_torch_and_zip_tools_read(trained: Path) -> None:
    file = trained / "3DBall.policy.pt"
    assert torch.load(file, weights_only=True)["mlhooks"]["behavior"] == "3DBall"
    with zipfile.ZipFile(file) as archive:
        assert archive.testzip() is None
        digest = hashlib.sha256(file.read_bytes()[:-LENGTH]).hexdigest()
        assert archive.comment == b"mlhooks sha256 " + digest.encode()


@pytest.mark.parametrize("name", ["3DBall.policy.pt", "3DBall/3DBall-600.pt"])
def test_any_flipped_bit_is_refused(trained: Path, tmp_path: Path, name: str) -> None:
    data, alone = (trained / name).read_bytes(), tmp_path / "alone.pt"
    end = range((len(data) - LENGTH - 22) * 8, len(data) * 8)
    for bit in (*end, *random.Random(1).sample(range(len(data) * 8), 200)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        alone.write_bytes(flipped)
        with pytest.raises(CheckpointError) as caught:
            read_state(alone)
        assert f"{alone} cannot be read" in str(caught.value)


@pytest.mark.parametrize("kept", [0, 1, LENGTH, 5000, -1])
def test_cut_and_empty_files_are_refused(trained: Path, tmp_path: Path, kept: int) -> None:
    data = (trained / "3DBall.policy.pt").read_bytes()
    for text in (data[:kept], data + b"\0", data + data):
        (tmp_path / "cut.pt").write_bytes(text)
        with pytest.raises(CheckpointError, match=r"cut.pt cannot be read.*(is empty|does not end|SHA-256)"):
            mlhooks.load(tmp_path / "cut.pt")


def test_file_without_a_digest_is_refused(trained: Path, tmp_path: Path) -> None:
    torch.save(torch.load(trained / "3DBall.policy.pt", weights_only=True), tmp_path / "plain.pt")
    with pytest.raises(CheckpointError, match="does not end with the digest"):
        mlhooks.load(tmp_path / "plain.pt")


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_weights_that_are_not_finite_are_refused_by_their_key(run: Path, value: float) -> None:
    def spoil(state: dict[str, Any]) -> None:
        state["modules"]["policy.actor"]["encoder.layers.0.weight"][0, 0] = value

    key = r"policy.actor.encoder.layers.0.weight has values that are NaN or infinite"
    resealed(run / "3DBall.policy.pt", spoil)
    with pytest.raises(CheckpointError, match=f"3DBall.policy.pt.*{key}"):
        mlhooks.load(run / "3DBall.policy.pt")
    resealed(run / "3DBall" / "3DBall-600.pt", spoil)
    more = ["behaviors.3DBall.max_steps=1200"]
    begun = json.loads(json.dumps(SETTINGS))
    begun["behaviors"]["3DBall"]["init_path"] = str(run / "3DBall")
    for use in (
        lambda: mlhooks.load(run),
        lambda: train(SETTINGS, run.parent, resume=True, overrides=more),
        lambda: train(SETTINGS, run.parent, flags={"checkpoint_settings.inference": True}, episodes=1),
        lambda: train(SETTINGS, run.parent, run_id="b", flags={"checkpoint_settings.initialize_from": "run"}),
        lambda: train(begun, run.parent, run_id="c"),
    ):
        with pytest.raises(CheckpointError, match=f"3DBall-600.pt.*{key}"):
            use()


def test_checkpoint_of_another_behavior_is_refused(run: Path) -> None:
    text = (run / MANIFEST).read_text()
    (run / MANIFEST).write_text(re.sub(r'"3DBall"(: {\s+"path")', r'"3DBalk"\1', text))
    assert "3DBalk" in CheckpointFolder(run).newest()["behaviors"]
    with pytest.raises(
        CheckpointError, match=r"3DBall-600.pt: it is of behavior '3DBall', and the manifest names it for '3DBalk'"
    ):
        train(SETTINGS, run.parent, resume=True, overrides=["behaviors.3DBall.max_steps=1200"])


def _put(*keys: Any, value: Any) -> Callable[[Any], None]:
    def put(state: Any) -> None:
        for key in keys[:-1]:
            state = state[key]
        state[keys[-1]] = value

    return put


def _spoil(*keys: Any, at: Any = 0, value: Any) -> Callable[[Any], None]:
    def spoil(state: Any) -> None:
        for key in keys:
            state = state[key]
        state[at] = value

    return spoil


LIES = {
    "step is a text": (_put("step", value="many"), "step is 'many'"),
    "step is negative": (_put("step", value=-1), "step is -1"),
    "no updates": (lambda state: state.pop("updates"), "has no 'updates'"),
    "no module": (lambda state: state["modules"].pop("policy.actor"), "has no 'policy.actor'"),
    "weights are a list": (
        _put("modules", "policy.actor", "encoder.layers.0.bias", value=[1.0]),
        "policy.actor.encoder.layers.0.bias is list in the checkpoint",
    ),
    "weights are whole": (
        _put("modules", "policy.actor", "encoder.layers.0.bias", value=torch.zeros(8, dtype=torch.int64)),
        "policy.actor.encoder.layers.0.bias is torch.int64",
    ),
    "generator": (_put("rng", "state", value=None), "cannot be taken over: TypeError"),
    "moments": (_put("optimizer", "torch_optimizer", "exp_avg", value=torch.zeros(3)), "3 entries"),
    "moments of NaN": (_spoil("optimizer", "torch_optimizer", "exp_avg", value=float("nan")), "NaN or infinite"),
    "options": (_put("optimizer", "torch_optimizer", "param_groups", value=[]), "not enough values"),
    "row outside": (_spoil("store", "open_row", value=10**12), "open_row has numbers"),
    "successor outside": (_put("store", "successor", value=np.full(12, 7777)), "successor has numbers"),
    "reward of another length": (_put("store", "reward", value=np.zeros(3, np.float32)), r"reward is float32 \(3,\)"),
    "reward of another type": (_put("store", "reward", value=np.zeros(12)), "reward is float64"),
    "observations": (_put("store", "obs", value=[np.zeros((12, 3), np.float32)]), r"obs is float32 \(12, 3\)"),
    "size": (_put("store", "size", value=2**60), "size is 1152921504606846976"),
    "slots": (_put("pool", "size", value=10**9), "the number of slots is 1000000000"),
    "free slots": (_put("pool", "free", value=[5, 5]), "cannot be in use or free"),
    "agents": (lambda state: state["slots"][0][2]["slots"].__setitem__(0, 99), "cannot be in use or free"),
    "waiting": (_put("waiting", value=[[0, "3DBall", 5]]), "agents that wait for a decision"),
    "episodes": (_put("episodes", "return", value=np.zeros(2)), "the lengths of episodes is int64"),
    "returns": (_put("episodes", "recent", value=[float("nan")]), "a return is nan"),
    "statistics": (_put("stats", value={"x": {"aggregation": "MEAN", "values": [1.0]}}), "has no 'MEAN'"),
    "spec": (_put("mlhooks", "spec", "continuous", value=10**9), "the number of continuous actions is 1000000000"),
    "no spec": (lambda state: state["mlhooks"].pop("spec"), "has no 'spec'"),
    "header": (_put("mlhooks", value=3), "is not an mlhooks checkpoint"),
}


@pytest.mark.parametrize("lie", LIES)
def test_state_that_cannot_be_is_refused_with_the_file_and_what_it_is(run: Path, lie: str) -> None:
    alter, words = LIES[lie]
    resealed(run / "3DBall" / "3DBall-600.pt", alter)
    with pytest.raises(CheckpointError, match=f"3DBall-600.pt.*{words}"):
        train(SETTINGS, run.parent, resume=True, overrides=["behaviors.3DBall.max_steps=1200"])


RUN_LIES = {
    "no curriculum": (lambda state: state.pop("curriculum"), "has no 'curriculum'"),
    "python": (_put("random", "python", value=[1, 2]), "not enough values"),
    "numpy": (_put("random", "numpy", value=[]), "cannot be taken over"),
    "torch": (_put("random", "torch", value=np.zeros(3, np.uint8)), "cannot be taken over"),
}


@pytest.mark.parametrize("lie", RUN_LIES)
def test_state_of_the_run_that_cannot_be_is_refused_with_the_file(run: Path, lie: str) -> None:
    alter, words = RUN_LIES[lie]
    resealed(run / "run_logs" / "state-600.pt", alter)
    with pytest.raises(CheckpointError, match=f"state-600.pt.*{words}"):
        train(SETTINGS, run.parent, resume=True, overrides=["behaviors.3DBall.max_steps=1200"])


HEADERS = {
    "settings": _put("mlhooks", "settings", value="[" * 50_000),
    "settings of another form": _put("mlhooks", "settings", value="3"),
    "no settings": lambda state: state["mlhooks"].pop("settings"),
    "behavior": _put("mlhooks", "behavior", value=None),
    "observations": _put("mlhooks", "spec", "observations", value=[{"shape": [-1]}]),
    "modules": _put("modules", value=None),
}


@pytest.mark.parametrize("lie", HEADERS)
def test_policy_file_whose_header_lies_is_refused(run: Path, lie: str) -> None:
    resealed(run / "3DBall.policy.pt", HEADERS[lie])
    with pytest.raises(mlhooks.errors.MlhooksError) as caught:
        mlhooks.load(run / "3DBall.policy.pt")
    assert "3DBall.policy.pt" in "\n".join([str(caught.value), *getattr(caught.value, "__notes__", ())])


def test_environment_state_of_another_number_of_areas_begins_new_episodes_with_the_usual_warning(
    run: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for areas, steps in ((2, 1200), (1, 1800)):
        caplog.clear()
        overrides = [f"behaviors.3DBall.max_steps={steps}", f"env_settings.num_areas={areas}"]
        resumed = train(SETTINGS, run.parent, resume=True, overrides=overrides)
        assert "its episodes begin again, so the resumed run will differ" in caplog.text
        assert "environment has" in caplog.text  # It says how many agents the state is of, and how many there are.
        assert resumed.trainers["3DBall"].step == steps


class Opened:
    """Pickled, it is a call of whatever function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> Any:
        return self.call


def archive(path: Path, content: bytes, compression: int = zipfile.ZIP_STORED) -> Path:
    """Return a file that vouches for any pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as file:
        file.writestr("archive/data.pkl", content)
        file.writestr("archive/version", "3\n")
    data = buffer.getvalue()[:-2] + LENGTH.to_bytes(2, "little")
    path.write_bytes(data + SEAL + hashlib.sha256(data).hexdigest().encode())
    return path


def test_forged_archive_runs_nothing_and_takes_no_more_memory_than_it_has_bytes(tmp_path: Path) -> None:
    made = tmp_path / "made"
    forged = {
        "a call": archive(tmp_path / "a.pt", pickle.dumps(Opened(os.mkdir, str(made)), protocol=2)),
        "much memory": archive(tmp_path / "b.pt", pickle.dumps(Opened(bytearray, 10**13), protocol=2)),
        "an archive that unpacks": archive(tmp_path / "c.pt", b"\0" * 10**7, zipfile.ZIP_DEFLATED),
        "no pickle": archive(tmp_path / "d.pt", b"hello"),
        "nesting": archive(tmp_path / "e.pt", b"\x80\x02" + b"](" * 10**5 + b"e" * 10**5 + b"."),
    }
    twice: list[Any] = [0]
    for _ in range(60):
        twice = [twice, twice]
    forged["doubling"] = archive(tmp_path / "f.pt", pickle.dumps({"mlhooks": twice}, protocol=2))
    round_trip: list[Any] = []
    round_trip.append(round_trip)
    forged["a ring"] = archive(tmp_path / "g.pt", pickle.dumps({"mlhooks": round_trip}, protocol=2))
    for what, path in forged.items():
        with pytest.raises(CheckpointError) as caught:
            read_state(path)
        assert f"{path} cannot be read as an mlhooks checkpoint" in str(caught.value), what
    assert not made.exists()


def test_storage_that_claims_to_be_larger_than_it_is_is_refused(tmp_path: Path) -> None:
    data = seal({"mlhooks": {}, "x": torch.zeros(77)})
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        content = file.read("archive/data.pkl").replace(
            b"K\x4d", b"K\xff"
        )  # It stands in the storage, and in the tensor's size.
    claims = archive(tmp_path / "claims.pt", content)
    with pytest.raises(CheckpointError, match=r"claims.pt cannot be read"):
        read_state(claims)


def test_state_that_could_not_be_loaded_is_not_saved() -> None:
    assert unpack(load_plain({"a": [np.float32(1.5), (1, None, "x", b"y", True)]})) == {
        "a": [1.5, [1, None, "x", b"y", True]]
    }
    for value in ({1, 2}, object(), Path("x"), np.array([None])):
        with pytest.raises((CheckpointError, TypeError), match=r"to be saved holds .*, an? |can't convert"):
            pack({"a": [value]})


def test_key_that_no_state_may_have_is_named_with_its_place() -> None:
    with pytest.raises(CheckpointError, match=r"the key \(1, 2\), a tuple, at signals\.count\.1\. .* keys"):
        pack({"signals": {"count": {1: {(1, 2): 3}}}})


def load_plain(value: Any) -> Any:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x")
        path.write_bytes(seal(pack(value)))
        return load_sealed(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no named pipes")
def test_pipe_or_device_in_place_of_a_policy_file_blocks_nobody(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.pt")
    for path in (tmp_path / "pipe.pt", Path("/dev/zero")):
        with pytest.raises(
            CheckpointError, match=f"{path} cannot be read .* it is a pipe, socket or device, not a file"
        ):
            mlhooks.load(path)
