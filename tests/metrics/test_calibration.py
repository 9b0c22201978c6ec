"""The calibration error against its definition, loop by loop, and bins made by hand."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.calibration import calibration_curve
from sklearn.linear_model import LogisticRegression

from minitx.metrics.calibration import MOST_TEMPERATURE, N_BINS, Calibration, calibrate, ece, fit_temperature


def some_outputs(n: int, n_classes: int, sharpness: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(log-probabilities, labels): labels are drawn from the probabilities before these are sharpened."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(n, n_classes))
    chances = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    labels = np.array([rng.choice(n_classes, p=row) for row in chances])
    logits *= sharpness
    return logits - np.log(np.exp(logits).sum(1, keepdims=True)), labels


def naive_ece(log_probs: np.ndarray, labels: np.ndarray) -> float:
    """Guo et al. 2017, equation 3, word for word."""
    n, total = len(labels), 0.0
    for b in range(15):
        members = [i for i in range(n) if b / 15 < np.exp(max(log_probs[i])) <= (b + 1) / 15]
        if members:
            accuracy = np.mean([np.argmax(log_probs[i]) == labels[i] for i in members])
            confidence = np.mean([np.exp(max(log_probs[i])) for i in members])
            total += len(members) / n * abs(accuracy - confidence)
    return total


@pytest.mark.parametrize(("n", "n_classes"), [(1, 2), (13, 3), (211, 7), (1999, 2)])
def test_ece_is_its_definition(n: int, n_classes: int) -> None:
    log_probs, labels = some_outputs(n, n_classes, sharpness=1.7)
    found = ece(log_probs, labels)
    assert found.value == pytest.approx(naive_ece(log_probs, labels), rel=1e-12)
    assert calibrate(log_probs, labels).accuracy == pytest.approx((log_probs.argmax(1) == labels).mean())


def test_ece_worked_by_hand() -> None:
    """Two of confidence 0.8, one right; one of 0.6, right: 2/3 |0.5 - 0.8| + 1/3 |1 - 0.6|."""
    chances, labels = np.array([[0.8, 0.2], [0.2, 0.8], [0.4, 0.6]]), np.array([0, 0, 1])
    assert ece(np.log(chances), labels).value == pytest.approx(2 / 3 * 0.3 + 1 / 3 * 0.4)
    found = calibrate(np.log(chances), labels)
    assert (found.confidence, found.accuracy) == pytest.approx((2.2 / 3, 2 / 3))
    full = {b: (x.n, x.confidence, x.accuracy) for b, x in enumerate(found.bins) if x.n}
    # 0.6 is the upper edge of its bin (8/15, 9/15], and 0.8 of (11/15, 12/15].
    assert list(full) == [8, 11] and full[8][0] == 1 and full[11][0] == 2
    assert full[8][1:] == pytest.approx((0.6, 1.0)) and full[11][1:] == pytest.approx((0.8, 0.5))


def test_interval_equals_naive_resampling_of_examples() -> None:
    log_probs, labels = some_outputs(149, 3, sharpness=2.0)
    rng, scores = np.random.default_rng(3), []
    for _ in range(300):
        rows = rng.integers(0, 149, 149)
        scores.append(naive_ece(log_probs[rows], labels[rows]))
    found = ece(log_probs, labels)
    np.testing.assert_allclose((found.low, found.high), np.percentile(scores, (2.5, 97.5)), atol=0.02)


def test_ece_does_not_hang_on_the_order_of_many_examples() -> None:
    log_probs, labels = some_outputs(1999, 3, sharpness=1.5)
    assert ece(log_probs[::-1], labels[::-1]) == ece(log_probs, labels)
    found = ece(log_probs, labels)
    assert 0 < found.low < found.value < found.high < 1


def test_bins_add_up() -> None:
    log_probs, labels = some_outputs(997, 5, sharpness=0.6)
    found = calibrate(log_probs, labels)
    full = [b for b in found.bins if b.n]
    assert len(found.bins) == N_BINS and sum(b.n for b in full) == 997
    assert all(b.low < (b.confidence or 0) <= b.high for b in full)
    assert all(b.confidence is None and b.accuracy is None for b in found.bins if not b.n)
    assert sum(b.n * (b.confidence or 0) for b in full) / 997 == pytest.approx(found.confidence)
    gaps = sum(b.n * abs((b.accuracy or 0) - (b.confidence or 0)) for b in full)
    assert gaps / 997 == pytest.approx(ece(log_probs, labels).value)


def test_bins_are_those_of_sklearns_calibration_curve() -> None:
    log_probs, labels = some_outputs(997, 5, sharpness=1.3)
    right, confidence = log_probs.argmax(1) == labels, np.exp(log_probs.max(1))
    accuracies, confidences = calibration_curve(right, confidence, n_bins=N_BINS)
    full = [b for b in calibrate(log_probs, labels).bins if b.n]
    np.testing.assert_allclose([b.accuracy for b in full], accuracies)
    np.testing.assert_allclose([b.confidence for b in full], confidences)


@pytest.mark.parametrize(
    ("sharpness", "verdict"), [(3.0, "over-confident"), (0.3, "under-confident"), (1.0, "a gap within chance")]
)
def test_verdict(sharpness: float, verdict: str) -> None:
    assert calibrate(*some_outputs(997, 3, sharpness, seed=1)).verdict == verdict


def test_margin_is_two_standard_errors() -> None:
    log_probs, labels = some_outputs(101, 3, sharpness=1.0)
    gaps = [np.exp(max(p)) - (np.argmax(p) == label) for p, label in zip(log_probs, labels, strict=True)]
    error = (sum((g - np.mean(gaps)) ** 2 for g in gaps) / 100) ** 0.5 / 101**0.5
    assert calibrate(log_probs, labels).margin == pytest.approx(1.96 * error)


def test_one_example_and_certainty() -> None:
    one = calibrate(np.log([[0.9, 0.1]]), [1])
    assert one.verdict == "a gap within chance" and ece(np.log([[0.9, 0.1]]), [1]).value == pytest.approx(0.9)
    certain = np.array([[0.0, -np.inf], [-np.inf, 0.0]])
    assert ece(certain, [0, 1]).value == 0 and calibrate(certain, [0, 1]).bins[-1].n == 2


def test_what_is_no_number_stays_none() -> None:
    """Of weights that training has blown up: no crash, no warning, no false score."""
    found = ece([[np.nan, np.nan], [-0.5, -1.0]], [0, 1])
    assert np.isnan(found.value)


def test_json_form() -> None:
    found = Calibration(confidence=0.5, accuracy=0.25, margin=float("inf"), bins=calibrate([[0.0]], [0]).bins)
    shown = found.to_json()
    assert (shown["confidence"], shown["accuracy"], len(shown["bins"])) == (0.5, 0.25, 15)
    assert shown["bins"][14] == {"low": 14 / 15, "high": 1.0, "n": 1, "confidence": 1.0, "accuracy": 1.0}


@pytest.mark.parametrize(
    ("n", "sharpness", "n_classes"), [(20_011, 0.5, 2), (20_011, 1, 3), (20_011, 2.3, 7), (997, 1, 79)]
)
def test_the_temperature_undoes_sharpening(n: int, sharpness: float, n_classes: int) -> None:
    """Labels drawn from probabilities whose logits were then multiplied: the likeliest divisor is about that number.
    Also of as many classes as rows allow: the doubt about a label is not one about each of the others."""
    log_probs, labels = some_outputs(n, n_classes, sharpness)
    assert fit_temperature(log_probs, labels) == pytest.approx(sharpness, rel=0.05)


def test_the_temperature_is_the_likeliest() -> None:
    """Against scikit-learn's logistic regression on log-odds, without a constant: its one weight is 1 / temperature.
    Every row stands there once for each class, with that class's share."""
    n = 1_999
    log_probs, labels = some_outputs(n, 2, sharpness=1.7)
    odds = (log_probs[:, 1] - log_probs[:, 0])[:, None]
    model = LogisticRegression(C=1e9, fit_intercept=False, tol=1e-10, max_iter=1000)
    shares = np.r_[np.full(n, (n + 1) / (n + 2)), np.full(n, 1 / (n + 2))]
    model.fit(np.r_[odds, odds], np.r_[labels, 1 - labels], sample_weight=shares)
    assert fit_temperature(log_probs, labels) == pytest.approx(1 / model.coef_.item(), rel=1e-4)


def test_few_rows_that_are_all_right_leave_doubt() -> None:
    """Of two rows, each label has three quarters: odds of 3, which ln 9 = 2 ln 3 reaches at a temperature of 2."""
    log_probs = np.log([[0.9, 0.1], [0.1, 0.9]])
    assert fit_temperature(log_probs, [0, 1]) == pytest.approx(2.0, rel=1e-4)
    assert fit_temperature(log_probs, [1, 0]) == pytest.approx(MOST_TEMPERATURE, rel=1e-3), "right by chance at most"
