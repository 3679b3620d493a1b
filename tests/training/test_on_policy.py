from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from mlhooks import hookimpl
from tests.scripted import config, train

NORMALIZED = config(
    "3DBall",
    "sim:3DBall",
    max_steps=300,
    hyperparameters={"batch_size": 300, "buffer_size": 300, "num_epoch": 1},
    network_settings={"normalize": True},
)


def test_first_rollout_is_learned_from_by_normalized_features(tmp_path: Path) -> None:
    batches = []

    class Look:
        @hookimpl
        def behavior_added(self, trainer: Any) -> None:
            update = trainer.optimizer.update
            trainer.optimizer.update = lambda batch: (batches.append(batch), update(batch))[1]

    train(NORMALIZED, tmp_path, Look())
    features = batches[0].features
    torch.testing.assert_close(features.mean(0), torch.zeros(8), atol=0.1, rtol=0)  # but for the clipping at 5
    torch.testing.assert_close(features.std(0), torch.ones(8), atol=0.2, rtol=0)
