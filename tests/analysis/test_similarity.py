"""Similarities of heads against their definitions, on sizes that are all different."""

from __future__ import annotations

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from minitx.analysis.similarity import Covariance, Similarity, effective_rank, linear_cka, map_similarity


def rows(seed: int, *shape: int) -> torch.Tensor:
    """Distributions over the last axis, about a third of their entries exactly 0."""
    rng = np.random.default_rng(seed)
    raw = rng.exponential(size=shape) * (rng.random(shape) > 1 / 3)
    raw[..., 0] += 1e-3
    return torch.from_numpy(raw / raw.sum(-1, keepdims=True))


def test_maps_are_compared_by_jensen_shannon_divergence() -> None:
    p, q = rows(0, 3, 7, 11), rows(1, 5, 7, 11)
    expected = [
        [sum(1 - jensenshannon(p[h, n], q[g, n], base=2) ** 2 for n in range(7)) for g in range(5)] for h in range(3)
    ]
    np.testing.assert_allclose(map_similarity(p, q), expected, rtol=1e-12)
    np.testing.assert_allclose(map_similarity(p, p).diagonal(), 7, rtol=1e-12)


def test_maps_that_share_no_key_are_not_alike() -> None:
    p = torch.tensor([[[0.25, 0.75, 0, 0, 0]]])
    assert float(map_similarity(p, torch.tensor([[[0, 0, 0.5, 0.5, 0]]]))) == pytest.approx(0, abs=1e-15)


def test_covariance_in_pieces_is_that_of_all_rows() -> None:
    """Means of a million would leave raw sums of squares with four digits."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(41, 3)) + 1e6, rng.normal(size=(41, 5)) - 2e6
    pieces = Covariance()
    for part in (slice(0, 1), slice(1, 24), slice(24, 41)):
        pieces.add(torch.from_numpy(x[part]), torch.from_numpy(y[part]))
    expected = (x - x.mean(0)).T @ (y - y.mean(0))
    np.testing.assert_allclose(pieces.sum_AB, expected, rtol=1e-7, atol=1e-7)
    assert pieces.n == 41


def test_cka_is_its_definition() -> None:
    """HSIC of centred Gram matrices of the queries (Kornblith et al. 2019, section 3)."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(23, 2, 3)) + 2, rng.normal(size=(23, 5, 7)) - 1
    y[:, 3, :3] += 3 * x[:, 1]
    centre = np.eye(23) - 1 / 23

    def hsic(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.trace(a @ a.T @ centre @ b @ b.T @ centre))

    expected = [
        [hsic(x[:, h], y[:, g]) / math.sqrt(hsic(x[:, h], x[:, h]) * hsic(y[:, g], y[:, g])) for g in range(5)]
        for h in range(2)
    ]
    np.testing.assert_allclose(cka(x, y), expected, rtol=1e-12)
    assert np.argmax(expected) == 8


def cka(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """x (N, H, W), y (N, G, V) -> (H, G)."""
    sums = [Covariance(), Covariance(), Covariance()]
    flat = [torch.from_numpy(side.reshape(len(side), -1)) for side in (x, y)]
    for of, (i, j) in zip(sums, [(0, 1), (0, 0), (1, 1)], strict=True):
        of.add(flat[i], flat[j])
    return linear_cka(*(of.sum_AB for of in sums), (x.shape[1], y.shape[1])).numpy()


def test_cka_knows_no_rotation_and_no_scale() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(23, 1, 5))
    turn, _ = np.linalg.qr(rng.normal(size=(5, 5)))
    assert cka(x, 7 * x @ turn + 3) == pytest.approx(1)
    assert cka(x, x @ rng.normal(size=(5, 5)))[0, 0] < 0.99
    assert np.isnan(cka(x, np.ones((23, 1, 2)))).all(), "an output that never changes is like nothing"


@pytest.mark.parametrize("rank", [1, 2, 5], ids=lambda rank: f"rank-{rank}")
def test_effective_rank_is_that_of_the_singular_values(rank: int) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(23, rank)) @ rng.normal(size=(rank, 7)) + 5
    sums = Covariance()
    sums.add(torch.from_numpy(x), torch.from_numpy(x))
    share = np.linalg.svd(x - x.mean(0), compute_uv=False)[:rank]
    share = share / share.sum()
    assert effective_rank(sums.sum_AB) == pytest.approx(math.exp(-(share * np.log(share)).sum()), rel=1e-5)
    assert effective_rank(sums.sum_AB) <= rank * (1 + 1e-5)


def test_effective_rank_of_equal_directions_is_their_number() -> None:
    assert effective_rank(torch.eye(5, dtype=torch.float64)) == pytest.approx(5)
    assert math.isnan(effective_rank(torch.zeros(3, 3, dtype=torch.float64)))


@pytest.mark.parametrize("shape", [(3, 5), (5, 3), (4, 4)])
def test_the_matching_is_the_best_of_all(shape: tuple[int, int]) -> None:
    similarity = np.random.default_rng(3).random(shape)
    found = Similarity.of(similarity, within=False)
    few, many = min(shape), max(shape)
    wide = similarity if shape[0] <= shape[1] else similarity.T
    best = max(sum(wide[i, p[i]] for i in range(few)) for p in permutations(range(many), few))
    assert found.matched == pytest.approx(best / few) and len(found.pairs) == few
    assert sum(similarity[pair] for pair in found.pairs) == pytest.approx(best)
    assert found.mean == pytest.approx(similarity.mean())
    assert found.similarity == tuple(map(tuple, similarity.tolist()))


def test_within_a_layer_no_head_is_its_own_partner() -> None:
    half = np.random.default_rng(1).random((5, 5))
    similarity = (half + half.T) / 2
    np.fill_diagonal(similarity, 1)
    found = Similarity.of(similarity, within=True)
    others = [p for p in permutations(range(5)) if all(p[i] != i for i in range(5))]
    assert found.matched == pytest.approx(max(sum(similarity[i, p[i]] for i in range(5)) for p in others) / 5)
    assert found.mean == pytest.approx((similarity.sum() - 5) / 20)


def test_what_is_not_known_is_left_out() -> None:
    alone = Similarity.of(np.ones((1, 1)), within=True)
    assert alone.pairs == () and math.isnan(alone.mean) and math.isnan(alone.matched)
    similarity = np.array([[0.5, np.nan, 0.25], [np.nan, np.nan, np.nan]])
    found = Similarity.of(similarity, within=False)
    assert found.pairs == ((0, 0),) and found.mean == 0.375 and found.matched == 0.5
