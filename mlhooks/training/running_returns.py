"""Rewards in units of the deviation of their discounted sums, as Stable-Baselines3's `VecNormalize` has them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from mlhooks.training.signal_returns import EpisodeSums
from mlhooks.training.store import ExperienceStore

FIRST_COUNT, EPSILON = 1e-4, 1e-8
"""The weight of the mean 0 and the variance 1 that come before all rewards, and what is added to variances."""


class ReturnStatistics(nn.Module):
    """Running mean and variance of discounted sums of rewards, of each reward signal (Chan et al. 1979, eq. 2.1)."""

    count: Tensor
    mean: Tensor
    m2: Tensor

    def __init__(self, signals: int) -> None:
        super().__init__()
        self.register_buffer("count", torch.full((), FIRST_COUNT, dtype=torch.float64))
        self.register_buffer("mean", torch.zeros(signals, dtype=torch.float64))
        self.register_buffer("m2", torch.full((signals,), FIRST_COUNT, dtype=torch.float64))

    def scales(self, sums: np.ndarray, tick: np.ndarray) -> np.ndarray:
        """Merge sums, and return the reciprocal deviation [rows, signals] as it was after each row's tick.

        Args:
            sums: [rows, signals], in the order of time.
            tick: [rows], the time of each row.
        """
        count, mean, m2 = float(self.count), self.mean.cpu().numpy(), self.m2.cpu().numpy()
        from_mean = sums - mean
        last = np.searchsorted(tick, tick, side="right") - 1  # Those of one tick are merged together.
        counts = count + np.arange(1, len(sums) + 1)[:, None]
        shifts = np.cumsum(from_mean, 0)
        m2s = m2 + np.cumsum(from_mean**2, 0) - shifts**2 / counts
        self.count.fill_(float(counts[-1, 0]))
        self.mean.copy_(torch.from_numpy(mean + shifts[-1] / counts[-1]))
        self.m2.copy_(torch.from_numpy(m2s[-1]))
        scales: np.ndarray = 1.0 / np.sqrt(np.maximum(m2s / counts, 0.0)[last] + EPSILON)
        return scales

    def scale(self) -> np.ndarray:
        """Return the reciprocal deviation [signals] as it is now, float32."""
        variance = (self.m2 / self.count).cpu().numpy()
        scale: np.ndarray = (1.0 / np.sqrt(variance + EPSILON)).astype(np.float32)
        return scale


class RunningReturns(EpisodeSums):
    """Follows the discounted sums of the rewards that agents got since their episodes began.

    Args:
        gammas: [signals], the discount factor of each reward signal's sums.

    Attributes:
        statistics: mean and variance of all these sums.
    """

    def __init__(self, gammas: np.ndarray) -> None:
        super().__init__(len(gammas))
        self.gammas = gammas.tolist()
        self.statistics = ReturnStatistics(len(gammas))

    def add(self, store: ExperienceStore, rows: np.ndarray, rewards: np.ndarray) -> np.ndarray:
        """Add the rewards of complete rows, and return by what each is to be multiplied: [rows, signals] float32.

        Args:
            store: the rows.
            rows: [rows] indices of rows, in any order; between those of one agent, none is missing.
            rewards: [rows, signals].
        """
        if not len(rows):
            return np.ones(rewards.shape, np.float32)
        order = np.lexsort((store.tick[rows], store.slot[rows]))
        rows = rows[order]
        first, last, before = self.episodes(store, rows)
        goes_on = np.ones(len(rows))
        goes_on[first] = 0.0
        sums = rewards[order].astype(np.float64)
        for signal, gamma in enumerate(self.gammas):
            sums[first, signal] += gamma * before[:, signal]
            total, factors = 0.0, (goes_on * gamma).tolist()
            # A loop over Python's floats takes a fraction of one over small arrays.
            pairs = zip(sums[:, signal].tolist(), factors, strict=True)
            sums[:, signal] = [total := reward + factor * total for reward, factor in pairs]
        self.keep(store, rows, last, sums[last])
        in_time = np.argsort(store.tick[rows], kind="stable")
        scales = np.empty(rewards.shape, np.float32)
        scales[order[in_time]] = self.statistics.scales(sums[in_time], store.tick[rows[in_time]])
        return scales
