from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from mlagents_envs.base_env import ActionSpec
from torch.distributions import Categorical, Normal

from mlhooks.nn.heads import (
    ActionHeads,
    ActionParameters,
    branch_slices,
    counted_entropies,
    evaluate,
    sample,
    whole_actions,
)

SPECS = [ActionSpec(3, ()), ActionSpec(0, (4,)), ActionSpec(0, (2, 5, 3)), ActionSpec(2, (3, 2))]


def draw(spec: ActionSpec, rows: int, *, masked: bool) -> tuple[ActionParameters, torch.Tensor | None]:
    generator = torch.Generator().manual_seed(3)
    total = sum(spec.discrete_branches)
    mean = torch.randn(rows, spec.continuous_size, generator=generator) if spec.continuous_size else None
    log_std = torch.randn(spec.continuous_size, generator=generator) if spec.continuous_size else None
    logits = 2 * torch.randn(rows, total, generator=generator) if total else None
    mask = None
    if masked and total:
        mask = torch.rand(rows, total, generator=generator) < 0.4
        for columns in branch_slices(spec):
            mask[:, columns.start] = False  # One action of each branch stays allowed.
    return ActionParameters(mean, log_std, logits), mask


def reference(
    spec: ActionSpec, p: ActionParameters, mask: torch.Tensor | None, continuous: torch.Tensor, discrete: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return log-probabilities and entropies [rows, dimensions] by torch's distributions."""
    log_probs, entropies = [], []
    if p.mean is not None and p.log_std is not None:
        normal = Normal(p.mean, p.log_std.exp())
        log_probs.append(normal.log_prob(continuous))
        entropies.append(normal.entropy())
    for index, columns in enumerate(branch_slices(spec)):
        assert p.logits is not None
        probabilities = torch.softmax(p.logits[:, columns], 1)
        if mask is not None:
            probabilities = probabilities * ~mask[:, columns]
        categorical = Categorical(probs=probabilities / probabilities.sum(1, keepdim=True))
        log_probs.append(categorical.log_prob(discrete[:, index])[:, None])
        entropies.append(categorical.entropy()[:, None])
    return torch.cat(log_probs, 1), torch.cat(entropies, 1)


def as_numpy(tensor: torch.Tensor | None) -> np.ndarray | None:
    return None if tensor is None else tensor.numpy()


@pytest.mark.parametrize("spec", SPECS, ids=str)
@pytest.mark.parametrize("masked", [False, True])
def test_log_probabilities_and_entropies_equal_torch_distributions(spec: ActionSpec, masked: bool) -> None:
    p, mask = draw(spec, 64, masked=masked)
    actions = sample(
        *(as_numpy(x) for x in p),
        branches=branch_slices(spec),
        mask=as_numpy(mask),
        rng=np.random.default_rng(0),
        deterministic=False,
    )
    continuous, discrete = torch.from_numpy(actions.continuous), torch.from_numpy(actions.discrete)
    log_prob, entropy = evaluate(p, continuous, discrete, mask, branch_slices(spec))
    expected_log_prob, expected_entropy = reference(spec, p, mask, continuous, discrete)
    torch.testing.assert_close(log_prob, expected_log_prob, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(entropy, expected_entropy, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(torch.from_numpy(actions.log_prob), expected_log_prob, rtol=1e-4, atol=1e-4)


def test_masked_actions_are_never_taken_in_a_million_draws() -> None:
    rows = 10_000
    logits = np.tile(np.array([[9.0, -3.0, 0.0, 2.0, 1.0, 5.0]], np.float32), (rows, 1))
    mask = np.tile(np.array([[True, False, False, True, False, True]]), (rows, 1))
    rng = np.random.default_rng(1)
    counts = np.zeros((2, 3), np.int64)
    for _ in range(100):
        actions = sample(
            None, None, logits, branches=[slice(0, 3), slice(3, 6)], mask=mask, rng=rng, deterministic=False
        ).discrete
        for branch in range(2):
            counts[branch] += np.bincount(actions[:, branch], minlength=3)
    assert counts.sum() == 2_000_000
    assert counts[0, 0] == 0
    assert counts[1].tolist() == [0, 1_000_000, 0]
    share = 1 / (1 + np.exp(-3.0))  # This is the softmax of -3 and 0.
    assert counts[0, 2] / 1e6 == pytest.approx(share, abs=5 * np.sqrt(share * (1 - share) / 1e6))


def test_extreme_logits_neither_overflow_nor_draw_what_never_happens() -> None:
    logits = np.array([[1000.0, 0.0], [-1000.0, 0.0]], np.float32)
    actions = sample(
        None,
        None,
        logits,
        branches=[slice(0, 2)],
        mask=None,
        rng=np.random.default_rng(0),
        deterministic=False,
    )
    assert actions.discrete.tolist() == [[0], [1]]
    assert actions.log_prob.tolist() == [[0.0], [0.0]]


def test_deterministic_actions_are_the_mode_that_the_mask_allows() -> None:
    mean, log_std = np.array([[0.3, -2.0]], np.float32), np.zeros(2, np.float32)
    actions = sample(
        mean,
        log_std,
        np.array([[5.0, 1.0, 2.0]], np.float32),
        branches=[slice(0, 3)],
        mask=np.array([[True, False, False]]),
        rng=np.random.default_rng(0),
        deterministic=True,
    )
    assert actions.continuous.tolist() == mean.tolist()
    assert actions.discrete.tolist() == [[2]]
    densest, share = -0.5 * math.log(2 * math.pi), -math.log(1 + math.exp(-1.0))  # Two logits are 1 apart.
    assert actions.log_prob.tolist() == [pytest.approx([densest, densest, share], rel=1e-6)]


def test_whole_actions_add_dimensions_up_and_ml_agents_takes_the_mean_of_continuous_ones() -> None:
    # There are two continuous actions and two branches.
    entropies = torch.tensor([[1.0, 2.0, 4.0, 8.0], [0.0, 0.5, 0.25, 0.125]])
    assert whole_actions(entropies).tolist() == [[15.0], [0.875]]
    assert counted_entropies(entropies, ActionSpec(2, (3, 3))).tolist() == [[13.5], [0.625]]
    assert counted_entropies(entropies[:, :2], ActionSpec(2, ())).mean() == pytest.approx(0.875)
    assert counted_entropies(entropies[:, 2:], ActionSpec(0, (3, 3))).tolist() == [[12.0], [0.375]]
    assert counted_entropies(entropies[:, 1:], ActionSpec(1, (3, 3))).tolist() == [[14.0], [0.875]]


def test_gaussian_samples_have_the_mean_and_deviation_of_the_head() -> None:
    mean = np.tile(np.array([[1.0, -2.0]], np.float32), (200_000, 1))
    log_std = np.log(np.array([0.5, 2.0], np.float32))
    drawn = sample(
        mean, log_std, None, branches=[], mask=None, rng=np.random.default_rng(2), deterministic=False
    ).continuous
    np.testing.assert_allclose(drawn.mean(0), [1.0, -2.0], atol=0.03)
    np.testing.assert_allclose(drawn.std(0), [0.5, 2.0], rtol=0.01)


def test_new_heads_begin_near_zero_mean_and_with_deviation_one() -> None:
    torch.manual_seed(0)
    heads = ActionHeads(64, ActionSpec(3, (4,)), "kaiming_he")
    p = heads(torch.randn(500, 64))
    assert p.log_std.tolist() == [0.0, 0.0, 0.0]
    assert p.mean.abs().mean() < 0.5
    assert p.logits.shape == (500, 4)
