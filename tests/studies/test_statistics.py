"""Intervals against scipy, Holm against a loop, verdicts by hand, and how often a study errs."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import optimize, stats

from minitx.studies.statistics import (
    ALPHA,
    MIN_SEEDS,
    claim_verdict,
    contrast_effects,
    decide,
    deciding_alpha,
    learning_curve,
    paired_interval,
)

DELTA = 0.7
some_differences = st.tuples(st.integers(2, 11), st.floats(-3, 3, allow_subnormal=False), st.integers(0, 10**6)).map(
    lambda drawn: drawn[1] + np.random.default_rng(drawn[2]).normal(size=drawn[0])
)


@given(some_differences, st.sampled_from([0.9, 0.95, 0.99]))
def test_the_interval_is_students(differences: np.ndarray, level: float) -> None:
    expected = stats.ttest_1samp(differences, 0).confidence_interval(level)
    assert paired_interval(differences, level) == pytest.approx((differences.mean(), expected.low, expected.high))


def test_one_seed_says_nothing() -> None:
    assert paired_interval([0.3]) == (0.3, -np.inf, np.inf)
    assert contrast_effects({"a": ([5.0], DELTA)})["a"].verdict == "inconclusive"


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.71, 2.0, "supported"),
        (0.69, 2.0, "inconclusive"),
        (-2.0, -0.71, "contradicted"),
        (-0.69, 0.69, "negligible"),
        (0.1, 0.6, "negligible"),
        (-0.69, 0.71, "inconclusive"),
        (-9.0, 9.0, "inconclusive"),
        (0.7, 0.9, "inconclusive"),
    ],
)
def test_the_four_verdicts(low: float, high: float, verdict: str) -> None:
    assert decide(low, high, DELTA) == verdict


@given(some_differences)
def test_the_deciding_alpha_is_where_the_interval_decides(differences: np.ndarray) -> None:
    """Found again by searching over alpha."""

    def decided(alpha: float) -> float:
        _, low, high = paired_interval(differences, 1 - alpha)
        return -1.0 if decide(low, high, DELTA) == "inconclusive" else 1.0

    alpha = deciding_alpha(differences, DELTA)
    if not 1e-9 < alpha < 1 - 1e-9:
        return
    found = optimize.bisect(decided, 1e-12, 1 - 1e-12, xtol=1e-13)
    assert found == pytest.approx(alpha, rel=1e-6, abs=1e-9)


def test_equal_differences_decide_at_once() -> None:
    assert deciding_alpha([1.0] * 5, DELTA) == 0
    assert deciding_alpha([DELTA] * 5, DELTA) == 1
    assert contrast_effects({"a": ([0.1] * 5, DELTA)})["a"].verdict == "negligible"


@given(st.lists(some_differences, min_size=1, max_size=7))
def test_holm_against_a_loop(contrasts: list[np.ndarray]) -> None:
    """Step down: while the smallest alpha left is small enough, decide that contrast and go on with one less."""
    effects = contrast_effects({str(i): (values, DELTA) for i, values in enumerate(contrasts)})
    left = {str(i): deciding_alpha(values, DELTA) for i, values in enumerate(contrasts)}
    decided = []
    while left:
        name = min(left, key=lambda name: left[name])
        if left.pop(name) >= ALPHA / (len(left) + 1):
            break
        decided.append(name)
    for name, effect in effects.items():
        enough = effect.n_seeds >= MIN_SEEDS
        assert (effect.verdict != "inconclusive") == (name in decided and enough)
        if effect.verdict != "inconclusive":  # a reader sees the verdict in the interval
            assert decide(effect.low, effect.high, DELTA) == effect.verdict


def test_a_claim_needs_every_part() -> None:
    assert claim_verdict([("supported", "above"), ("negligible", "flat")]) == "supported"
    assert claim_verdict([("supported", "above"), ("inconclusive", "flat")]) == "inconclusive"
    assert claim_verdict([("supported", "above"), ("supported", "flat")]) == "contradicted"
    assert claim_verdict([("supported", "above"), ("negligible", "above")]) == "negligible"
    assert claim_verdict([("contradicted", "above"), ("inconclusive", "above")]) == "contradicted"


@pytest.mark.parametrize("true_effect", [0.0, DELTA])
def test_no_effect_and_an_effect_of_delta_are_seldom_called_supported(true_effect: float) -> None:
    """2,000 reports of nine contrasts with five seeds: in at most 5 % is any of them `supported`."""
    rng = np.random.default_rng(5)
    wrong = 0
    for _ in range(2000):
        drawn = {str(i): (true_effect + rng.normal(scale=0.4, size=5), DELTA) for i in range(9)}
        wrong += any(effect.verdict == "supported" for effect in contrast_effects(drawn).values())
    assert wrong / 2000 <= 0.05


SIZES = np.array([100.0, 300, 1000, 3000, 10_000, 30_000])


@pytest.mark.parametrize(("a", "b", "c"), [(0.2, 3.0, 0.5), (0.9, -2.0, 0.3), (1.7, 40.0, 1.2)])
def test_a_learning_curve_without_noise_is_found(a: float, b: float, c: float) -> None:
    values = a + b * SIZES**-c
    curve = learning_curve(SIZES, values + np.array([[-0.01], [0], [0.01]]))
    assert curve is not None
    found = [curve.parameter(name)[0] for name in ("a", "b", "c")]
    assert found == pytest.approx([a, b, c], rel=1e-3)
    y, low, high = curve.at([500.0, 5000.0])
    assert y == pytest.approx(a + b * np.array([500.0, 5000.0]) ** -c, rel=1e-4)
    # Seeds that differ by a constant leave the curve's interval to that constant: Student's.
    half = stats.t.ppf(0.975, 2) * 0.01 / np.sqrt(3)
    assert np.stack([y - low, high - y]) == pytest.approx(np.full((2, 2), half), rel=1e-3)


def test_the_intervals_of_a_learning_curve_cover() -> None:
    """60 studies of five seeds: intervals of 95 % hold the truth in 90 % at least."""
    rng, covered = np.random.default_rng(3), np.zeros(2)
    for _ in range(60):
        curve = learning_curve(SIZES, 0.9 - 2 * SIZES**-0.3 + rng.normal(scale=0.01, size=(5, 6)))
        assert curve is not None
        _, low, high = curve.parameter("c")
        _, [band_low], [band_high] = curve.at([500.0])
        covered += low < 0.3 < high, band_low < 0.9 - 2 * 500**-0.3 < band_high
    assert (covered >= 54).all() and (covered < 60).any()


def test_a_fit_that_means_nothing_is_none() -> None:
    rng = np.random.default_rng(1)
    falling = 0.9 - 2 * SIZES**-0.3 + rng.normal(scale=0.001, size=(5, 6))
    assert learning_curve(SIZES, falling) is not None
    assert learning_curve(SIZES[:3], falling[:, :3]) is None, "three points, three parameters"
    assert learning_curve(SIZES, falling[:1]) is None, "one seed"
    assert learning_curve(SIZES, 0.5 + rng.normal(scale=0.01, size=(5, 6))) is None, "nothing learnt"
    assert learning_curve(SIZES, np.log(SIZES) + rng.normal(scale=0.01, size=(5, 6))) is None, "no limit in sight"
    straight = [
        [0.1483, 0.2448, 0.3947, 0.522, 0.6097],
        [0.1324, 0.2419, 0.3937, 0.5207, 0.6074],
        [0.145, 0.2196, 0.3833, 0.5153, 0.6158],
        [0.141, 0.2384, 0.3833, 0.5196, 0.6026],
        [0.1405, 0.2456, 0.3923, 0.5062, 0.6065],
    ]  # measured; without the exponent's interval it was fitted with a limit of 3.6, of an accuracy
    assert learning_curve([100, 316, 1000, 3162, 10_000], straight) is None
