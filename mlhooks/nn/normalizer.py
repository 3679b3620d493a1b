"""Running normalization of observations."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from mlhooks.settings.networks import MOST_NORMALIZED


class Normalizer(nn.Module):
    """Shifts and scales features by their running mean and variance and clips the result to [-clip, clip].

    Statistics are merged batch by batch (Chan, Golub and LeVeque 1979, eq. 2.1), in float64 so that millions of
    batches lose nothing. They change only when `update` is called, which trainers do at update boundaries. Until the
    first update, features pass unchanged but for the clipping.

    Args:
        size: the number of features.
        clip: the bound of the result.
    """

    count: Tensor
    mean: Tensor
    m2: Tensor

    def __init__(self, size: int, clip: float = MOST_NORMALIZED) -> None:
        super().__init__()
        self.clip = clip
        self.register_buffer("count", torch.zeros((), dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(size, dtype=torch.float64))
        self.register_buffer("m2", torch.zeros(size, dtype=torch.float64))
        self._shift_scale: tuple[np.ndarray, np.ndarray] | None = None
        # The hook gets the module, because that of a copy must not mean the module that was copied.
        self.register_load_state_dict_post_hook(_forget)  # type: ignore[no-untyped-call]

    def update(self, features: np.ndarray) -> None:
        """Merge a batch [rows, size] into the statistics."""
        rows = features.shape[0]
        if rows == 0:
            return
        batch = features.astype(np.float64)
        batch_mean = batch.mean(axis=0)
        delta = torch.from_numpy(batch_mean).to(self.mean) - self.mean
        total = self.count + rows
        self.m2 += torch.from_numpy(((batch - batch_mean) ** 2).sum(axis=0)).to(self.m2)
        self.m2 += delta**2 * self.count * rows / total
        self.mean += delta * rows / total
        self.count.copy_(total)
        self._shift_scale = None

    def shift_scale(self) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and reciprocal standard deviation as float32 arrays of [size]."""
        if self._shift_scale is None:
            mean, m2, count = self.mean.cpu().numpy(), self.m2.cpu().numpy(), float(self.count)
            variance = m2 / count if count else np.ones_like(m2)
            scale = 1.0 / np.sqrt(np.maximum(variance, 1e-8))
            self._shift_scale = mean.astype(np.float32), scale.astype(np.float32)
        return self._shift_scale

    def normalize(self, features: np.ndarray) -> np.ndarray:
        """Normalize [rows, size] float32."""
        shift, scale = self.shift_scale()
        normalized: np.ndarray = (features - shift) * scale
        np.clip(normalized, -self.clip, self.clip, out=normalized)
        return normalized

    def forward(self, features: Tensor) -> Tensor:
        """Normalize [rows, size] on the features' device; for exported models."""
        shift, scale = (torch.from_numpy(array).to(features.device) for array in self.shift_scale())
        return torch.clamp((features - shift) * scale, -self.clip, self.clip)


def _forget(module: Normalizer, _: Any) -> None:
    """Let shift and scale be computed again, because other statistics were loaded."""
    module._shift_scale = None
