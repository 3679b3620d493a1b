from __future__ import annotations

import importlib
import logging
import os
import sys

import numpy as np
import pytest
import torch

from mlhooks.mlagents_wheel import patches

TORCH = """
    import os
    from distutils.version import LooseVersion
    import pkg_resources
    assert LooseVersion(pkg_resources.get_distribution("torch").version) >= LooseVersion("1.6.0")
    try:
        pkg_resources.get_distribution("a-package-that-nobody-has")
    except pkg_resources.DistributionNotFound:
        missing = True
    import torch
    torch.set_num_threads(torch.get_num_threads() + 3)
    torch.set_default_device("meta")
    torch.set_default_dtype(torch.float64)
    os.environ["KMP_BLOCKTIME"] = "0"
"""
SERIALIZATION = """
    class torch:
        class onnx:
            symbol = 7
            @staticmethod
            def export(*args, **kwargs):
                return args, kwargs
        tensor = 5
    def export(**more):
        return torch.onnx.export("actor", opset_version=9, **more), torch.onnx.symbol, torch.tensor
"""
UTILS = """
    import numpy as np
    def lambda_return(r, value_estimates, gamma=0.99, lambd=0.8, value_next=0.0):
        returns = np.zeros_like(r)
        returns[-1] = r[-1] + gamma * value_next
        return returns
"""
SETTINGS = """
    import attr
    @attr.s(auto_attribs=True)
    class HyperparamSettings:
        batch_size: int = 1024
    @attr.s(auto_attribs=True)
    class RewardSignalSettings:
        gamma: float = 0.99
    @attr.s(auto_attribs=True)
    class PPOSettings(HyperparamSettings):
        beta: float = 0.005
"""
LOUD = """
    import logging, sys
    logger = logging.getLogger(__name__)
    logger.addHandler(logging.StreamHandler(sys.stdout))
    logger.setLevel(logging.INFO)
"""


@pytest.fixture
def imported(wheel):
    def make(name: str, source: str):
        wheel(**{name: source})
        patches.install()
        return importlib.import_module(name)

    return make


def test_every_patch_says_why():
    assert all(patch.reason for patch in patches.PATCHES.values())


def test_torch_is_left_as_it_was(imported, monkeypatch):
    monkeypatch.delenv("KMP_BLOCKTIME", raising=False)
    threads = torch.get_num_threads()
    try:
        assert imported("mlagents.torch_utils.torch", TORCH).missing
        assert torch.get_num_threads() == threads
        assert torch.zeros(1).device.type == "cpu"
        assert torch.get_default_dtype() is torch.float32
        assert "KMP_BLOCKTIME" not in os.environ
    finally:
        torch.set_num_threads(threads)


def test_stand_ins_of_the_import_are_gone_after_it(imported, monkeypatch):
    stale = object()
    monkeypatch.setitem(sys.modules, "pkg_resources", stale)
    threads = torch.get_num_threads()
    imported("mlagents.torch_utils.torch", TORCH)
    torch.set_num_threads(threads)
    assert sys.modules["pkg_resources"] is stale


def test_the_alias_of_numpy_is_there_for_the_import_only(imported):
    module = imported("mlagents.trainers.buffer", "import numpy as np\ndef f(x: np.float = 0): ...")
    assert module.f.__annotations__ == {"x": float}
    assert "float" not in vars(np)


def test_a_value_in_an_array_of_one_bootstraps(imported):
    module = imported("mlagents.trainers.trainer.trainer_utils", UTILS)
    assert module.lambda_return(np.ones(2), None, value_next=np.array([2.0])).tolist() == [0.0, 1.0 + 0.99 * 2.0]
    assert module.lambda_return(np.ones(2), None, gamma=0.5, value_next=4.0).tolist() == [0.0, 3.0]


def test_models_are_exported_by_the_tracer(imported):
    module = imported("mlagents.trainers.torch_entities.model_serialization", SERIALIZATION)
    assert module.export() == ((("actor",), {"dynamo": False, "opset_version": 9}), 7, 5)
    assert module.export(dynamo=True)[0][1]["dynamo"]


def test_settings_keep_the_fields_of_subclasses(imported):
    settings = imported("mlagents.trainers.settings", SETTINGS)
    cattr = importlib.import_module("cattr")
    assert cattr.unstructure(settings.PPOSettings(beta=0.1)) == {"batch_size": 1024, "beta": 0.1}


def test_what_the_package_logs_goes_to_the_log_of_mlhooks(imported, caplog, capsys):
    module = imported("mlagents.trainers.loud", LOUD)
    with caplog.at_level(logging.DEBUG, "mlhooks"):
        module.logger.warning("An agent  has\n a group reward")
        module.logger.info("Exported a.onnx")
    records = [record for record in caplog.records if record.name == "mlhooks"]
    assert [(record.levelname, record.getMessage()) for record in records] == [
        ("WARNING", "mlagents: An agent has a group reward"),
        ("DEBUG", "mlagents: Exported a.onnx"),
    ]
    assert not logging.getLogger("mlagents").propagate
    assert capsys.readouterr().out == ""


def test_files_on_disk_stay(imported, install):
    module = imported("mlagents.trainers.buffer", "import numpy as np\ndef f(x: np.float = 0): ...")
    with open(module.__file__, encoding="utf-8") as file:  # noqa: PTH123
        assert file.read() == "import numpy as np\ndef f(x: np.float = 0): ..."
