from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import product
from math import comb
from typing import Any

import numpy as np
import pytest
import sacrebleu
from rapidfuzz.distance import Levenshtein
from sacrebleu.metrics.bleu import BLEU
from sacrebleu.metrics.chrf import CHRF
from sacrebleu.significance import PairedTest
from scipy.stats import binomtest, permutation_test

from minitx.metrics import comparison as module
from minitx.metrics.calibration import ece
from minitx.metrics.comparison import TRIALS, Comparison, McNemar, compare, compare_evaluations, mcnemar
from minitx.metrics.evaluate import Evaluation
from minitx.metrics.intervals import Interval, bootstrap, ratio
from minitx.metrics.scores import TextOutputs, accuracy, bleu, chrf, macro_f1, scores

CLASSES = 3
WORDS = np.array(["the", "a", "cat", "dog", "sat", "ran", "on", "under", "mat", "home", "far", "away"])
Score = Callable[[Sequence[Any], Sequence[Any]], Interval]
Value = Callable[[Sequence[Any], Sequence[Any]], float]


def rates(outputs: Sequence[str], truth: Sequence[str]) -> dict[str, Interval]:
    return scores("error_rate", TextOutputs(hypotheses=outputs, references=[[t] for t in truth]))


SCORES: dict[str, Score] = {
    "accuracy": accuracy,
    "macro_f1": lambda outputs, truth: macro_f1(outputs, truth, CLASSES),
    "per": lambda outputs, truth: rates(outputs, truth)["per"],
    "wer": lambda outputs, truth: rates(outputs, truth)["wer"],
    "bleu": lambda outputs, truth: bleu(list(outputs), [[t] for t in truth]),
    "chrf": lambda outputs, truth: chrf(list(outputs), [[t] for t in truth]),
}


def exact_f1(outputs: Sequence[int], truth: Sequence[int]) -> Fraction:
    seen = sorted({*outputs, *truth})
    hits = [sum(o == t == c for o, t in zip(outputs, truth, strict=True)) for c in seen]
    counts = [list(outputs).count(c) + list(truth).count(c) for c in seen]
    return sum((Fraction(2 * hit, count) for hit, count in zip(hits, counts, strict=True)), Fraction(0)) / len(seen)


def plain_per(outputs: Sequence[str], truth: Sequence[str]) -> float:
    errors = sum(Levenshtein.distance(o.split(), t.split()) for o, t in zip(outputs, truth, strict=True))
    return errors / sum(len(t.split()) for t in truth)


VALUES: dict[str, Value] = {
    "accuracy": lambda outputs, truth: float(np.mean(np.equal(outputs, truth))),
    "macro_f1": lambda outputs, truth: float(exact_f1(outputs, truth)),
    "per": plain_per,
    "wer": lambda outputs, truth: float(np.mean(np.not_equal(outputs, truth))),
    "bleu": lambda outputs, truth: sacrebleu.corpus_bleu(outputs, [truth]).score,
    "chrf": lambda outputs, truth: sacrebleu.corpus_chrf(outputs, [truth]).score,
}
"""The same scores from the outputs themselves, knowing nothing of sums."""
each_metric = pytest.mark.parametrize("metric", SCORES)

Runs = tuple[np.ndarray, np.ndarray, np.ndarray]


def two_runs(metric: str, n: int, seed: int, good: tuple[float, float] = (0.75, 0.6)) -> Runs:
    """(outputs of a, outputs of b, truth): each class, or each word, is kept with the given probabilities."""
    rng = np.random.default_rng(seed)
    if metric in ("accuracy", "macro_f1"):
        truth = rng.integers(0, CLASSES, n)
        a, b = (np.where(rng.random(n) < p, truth, rng.integers(0, CLASSES, n)) for p in good)
        return a, b, truth
    short, long = (1, 4) if metric == "wer" else (5, 12)
    texts = [rng.choice(WORDS, rng.integers(short, long)) for _ in range(n)]
    runs = [[np.where(rng.random(len(t)) < p, t, rng.choice(WORDS, len(t))) for t in texts] for p in good]
    a, b, truth = (np.array([" ".join(words) for words in texts]) for texts in (*runs, texts))
    return a, b, truth


def compared(metric: str, a: np.ndarray, b: np.ndarray, truth: np.ndarray) -> Comparison:
    score = SCORES[metric]
    return compare(score(a, truth), score(b, truth))


@pytest.fixture
def few_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """For what does not hang on their number."""
    monkeypatch.setattr(module, "TRIALS", 1000)


def numbers(found: Comparison) -> tuple[float, ...]:
    return found.difference, found.low, found.high, found.p_value


# --------------------------------------------------------------------------------------------------------- references


@each_metric
def test_p_value_is_that_of_all_swaps(metric: str) -> None:
    """All 2^9 ways to swap the outputs of nine examples."""
    n, value = 9, VALUES[metric]
    a, b, truth = two_runs(metric, n, seed=10, good=(0.8, 0.4))

    def difference(tossed: np.ndarray) -> float:
        one, other = np.where(tossed, b, a).tolist(), np.where(tossed, a, b).tolist()
        return value(one, truth.tolist()) - value(other, truth.tolist())

    wanted = abs(difference(np.zeros(n, dtype=bool)))
    p = np.mean([abs(difference(np.array(tossed))) >= wanted - 1e-9 for tossed in product([False, True], repeat=n)])
    assert 0.01 < p < 0.9  # else the case is no test
    assert compared(metric, a, b, truth).p_value == pytest.approx(p, abs=0.02)  # four standard errors


def test_rounding_breaks_no_tie() -> None:
    """Classes that change places give one macro F1, but in floating point a sum hangs on the order of its terms."""
    truth, a, b = [2, 2, 1, 1, 0, 1], [0, 1, 2, 1, 2, 0], [0, 2, 0, 1, 1, 2]
    wanted = abs(exact_f1(a, truth) - exact_f1(b, truth))
    extreme = []
    for one, other in zip(product(*zip(a, b, strict=True)), product(*zip(b, a, strict=True)), strict=True):
        extreme.append(abs(exact_f1(one, truth) - exact_f1(other, truth)) >= wanted)
    found = compare(macro_f1(a, truth, CLASSES), macro_f1(b, truth, CLASSES))
    assert found.p_value == pytest.approx(np.mean(extreme), abs=0.02)  # 0.75 without the tolerance


@each_metric
def test_interval_is_that_of_resampled_examples(metric: str) -> None:
    """Drawing examples one by one, and scoring the outputs of both runs."""
    n, value = 25, VALUES[metric]
    a, b, truth = two_runs(metric, n, seed=2)
    rng, differences = np.random.default_rng(3), []
    for _ in range(200):
        rows = rng.integers(0, n, n)
        one, other, wanted = a[rows].tolist(), b[rows].tolist(), truth[rows].tolist()
        differences.append(value(one, wanted) - value(other, wanted))
    found = compared(metric, a, b, truth)
    width = found.high - found.low
    np.testing.assert_allclose(
        (found.low, found.high), np.percentile(differences, (2.5, 97.5)), atol=0.2 * width
    )  # 4 sd
    whole = truth.tolist()
    assert found.difference == pytest.approx(value(a.tolist(), whole) - value(b.tolist(), whole))


@pytest.mark.parametrize("seed", range(4))
def test_p_value_of_accuracy_is_mcnemars(seed: int) -> None:
    """The exact test: of the examples that only one run got right, is each run's share one half?"""
    a, b, truth = two_runs("accuracy", 500, seed, good=(0.72, 0.68))
    wins, losses = int(((a == truth) & (b != truth)).sum()), int(((a != truth) & (b == truth)).sum())
    exact = binomtest(wins, wins + losses).pvalue
    assert compared("accuracy", a, b, truth).p_value == pytest.approx(exact, abs=0.02)


def test_p_value_of_a_mean_is_scipys() -> None:
    """The paired permutation test of scipy, which swaps the two outputs of each example or not."""
    rng = np.random.default_rng(5)
    x = rng.normal(size=40)
    y = x + rng.normal(0.25, 1, size=40)
    one, other = (bootstrap(np.stack([values, np.ones(40)], axis=1), ratio) for values in (x, y))
    theirs = permutation_test(
        (x, y),
        lambda x, y, axis: np.mean(x - y, axis=axis),
        permutation_type="samples",
        n_resamples=9999,
        random_state=1,
    )
    assert compare(one, other).p_value == pytest.approx(theirs.pvalue, abs=0.02)


@pytest.mark.parametrize(("metric", "theirs"), [("bleu", BLEU), ("chrf", CHRF)])
@pytest.mark.parametrize("seed", [3, 4])
def test_agrees_with_sacrebleus_paired_tests(metric: str, theirs: Any, seed: int) -> None:
    a, b, truth = two_runs(metric, 150, seed, good=(0.7, 0.67))
    ours_a, ours_b = SCORES[metric](a, truth), SCORES[metric](b, truth)
    found, p_values = compare(ours_a, ours_b), {}
    for kind, trials in (("ar", 4000), ("bs", 1000)):
        systems = [("b", b.tolist()), ("a", a.tolist())]
        paired = PairedTest(systems, {metric: theirs()}, [truth.tolist()], test_type=kind, n_samples=trials)
        of_b, of_a = next(results for name, results in paired()[1].items() if name != "System")
        assert found.difference == pytest.approx(of_a.score - of_b.score)
        p_values[kind] = of_a.p_value
    assert found.p_value == pytest.approx(p_values["ar"], abs=0.03)
    # Its bootstrap p-value centres *absolute* differences, which is another number: put its question to our resamples.
    assert ours_a.examples is not None and ours_b.examples is not None
    resampled = np.abs(module._pair(ours_a.examples, ours_b.examples)[0].resampled(np.random.default_rng(0), 2000))
    centred = np.mean(resampled - resampled.mean() > abs(found.difference))
    assert centred == pytest.approx(p_values["bs"], abs=0.06)


# ------------------------------------------------------------------------------------------------------- known results


@each_metric
@pytest.mark.usefixtures("few_trials")
def test_identical_runs_do_not_differ(metric: str) -> None:
    a, _, truth = two_runs(metric, 30, seed=5)
    assert numbers(compared(metric, a, a.copy(), truth)) == (0, 0, 0, 1)


@each_metric
def test_better_on_every_example_is_no_chance(metric: str) -> None:
    if metric in ("accuracy", "macro_f1"):
        truth = np.arange(60) % CLASSES
        wrong = (truth + 1) % CLASSES
    else:
        truth = two_runs(metric, 60, seed=6)[2]
        wrong = np.array([f"x y {text}" for text in truth])
    found = compared(metric, truth, wrong, truth)
    worst, best = sorted((found.low, found.high), key=abs)
    assert found.p_value == 1 / (TRIALS + 1)
    assert np.sign(worst) == np.sign(best) == (-1 if metric in ("per", "wer") else 1)


@pytest.mark.usefixtures("few_trials")
def test_null_comparisons_are_significant_about_one_time_in_twenty() -> None:
    """300 pairs of runs that differ by chance alone: p < 0.05, or an interval without 0, must be rare, not absent."""
    rng, found = np.random.default_rng(7), []
    for _ in range(300):
        lengths, hardness = rng.integers(1, 4, 100), rng.random(100)  # what is hard is hard for both
        errors = rng.binomial(lengths, hardness, size=(2, 100))
        a, b = (bootstrap(np.stack([e, lengths], axis=1), lambda sums: sums[:, 0] / sums[:, 1]) for e in errors)
        found.append(compare(a, b))
    assert 0.02 <= np.mean([one.p_value < 0.05 for one in found]) <= 0.09
    assert 0.02 <= np.mean([one.low > 0 or one.high < 0 for one in found]) <= 0.09


def test_examples_are_kept_paired() -> None:
    """Scores that go up and down together differ by much less than either is uncertain by."""
    rng = np.random.default_rng(8)
    hits = rng.random(1000) < 0.6
    also = np.where(rng.random(1000) < 0.02, ~hits, hits)
    a, b = accuracy(hits, np.ones(1000, dtype=bool)), accuracy(also, np.ones(1000, dtype=bool))
    found = compare(a, b)
    independent = np.hypot(a.high - a.low, b.high - b.low)
    assert found.high - found.low < 0.3 * independent
    # And by as much as theory predicts: the mean of 1,000 values out of -1, 0 and 1.
    error = (hits.astype(float) - also).std() / np.sqrt(1000)
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.1)
    shuffled = compare(a, accuracy(rng.permutation(also), np.ones(1000, dtype=bool)))
    assert shuffled.high - shuffled.low == pytest.approx(independent, rel=0.1)


# ------------------------------------------------------------------------------------------------------------ symmetry


@each_metric
@pytest.mark.usefixtures("few_trials")
def test_exchanged_runs_are_the_mirror_image(metric: str) -> None:
    a, b, truth = two_runs(metric, 30, seed=9)
    there, back = compared(metric, a, b, truth), compared(metric, b, a, truth)
    assert numbers(back) == (-there.difference, -there.high, -there.low, there.p_value)
    assert there.difference != 0 and abs(there.low) != abs(there.high)


@each_metric
@pytest.mark.usefixtures("few_trials")
def test_mirror_image_where_the_runs_are_indistinguishable(metric: str) -> None:
    """What one run does on an example, the other does on its twin: only a symmetric interval mirrors itself."""
    a, b, truth = two_runs(metric, 20, seed=9)
    one, other, twice = np.concatenate([a, b]), np.concatenate([b, a]), np.concatenate([truth, truth])
    found = compared(metric, one, other, twice)
    assert found.low == -found.high < 0
    assert numbers(found) == numbers(compared(metric, other, one, twice)) == (0, found.low, found.high, 1)


@each_metric
@pytest.mark.usefixtures("few_trials")
def test_order_of_the_examples_is_irrelevant(metric: str) -> None:
    a, b, truth = two_runs(metric, 30, seed=10)
    order = np.random.default_rng(11).permutation(30)
    assert compared(metric, a[order], b[order], truth[order]) == compared(metric, a, b, truth)


def test_no_global_random_number_is_drawn() -> None:
    state = str(np.random.get_state())  # noqa: NPY002 (the global generator is what must not move)
    compared("macro_f1", *two_runs("macro_f1", 30, seed=12))
    assert str(np.random.get_state()) == state  # noqa: NPY002


@each_metric
@pytest.mark.usefixtures("few_trials")
def test_pieces_change_nothing(metric: str, monkeypatch: pytest.MonkeyPatch) -> None:
    a, b, truth = two_runs(metric, 30, seed=13)
    whole = compared(metric, a, b, truth)
    monkeypatch.setattr(module, "PIECE", 701)
    assert compared(metric, a, b, truth) == whole


# ----------------------------------------------------------------------------------------------------------- wrong use


def test_what_cannot_be_compared_is_an_error() -> None:
    a, b, truth = two_runs("bleu", 30, seed=14)
    score, shorter = SCORES["bleu"](a, truth), SCORES["bleu"](b[:20], truth[:20])
    with pytest.raises(ValueError, match="same examples, but one is over 30 and the other over 20"):
        compare(score, shorter)
    letters = bleu(b.tolist(), [[t] for t in truth], tokenize="char")
    with pytest.raises(ValueError, match=r"signatures differ: .*tok:13a.* and .*tok:char"):
        compare(score, letters)
    with pytest.raises(ValueError, match="the second score must know its examples"):
        compare(score, replace(score, examples=None))
    with pytest.raises(ValueError, match="the first score must know its examples"):
        compare(Interval(0.5, 0.4, 0.6), Interval(0.5, 0.4, 0.6))
    with pytest.raises(ValueError, match="of one metric and the same classes, but sum 6 and 8 statistics"):
        compare(macro_f1([0, 1], [0, 1], 3), macro_f1([0, 1], [0, 1], 4))


def test_numbers_are_plain_floats() -> None:
    real = compared("accuracy", *two_runs("accuracy", 30, seed=15))
    assert [type(x) for x in numbers(real)] == [float] * 4
    assert (real.n_examples, real.n_trials) == (30, TRIALS)


# --------------------------------------------------------------------------------------------------------- evaluations


def evaluation(rows: Sequence[int], **metrics: Interval) -> Evaluation:
    return Evaluation(loss=1.0, metrics=metrics, main=next(iter(metrics)), rows=np.array(rows), predictions=[])


def test_evaluations_are_compared_metric_by_metric() -> None:
    a, b, truth = two_runs("accuracy", 30, seed=16)
    rows = list(range(100, 130))
    one = evaluation(rows, accuracy=accuracy(a, truth), macro_f1=macro_f1(a, truth, CLASSES))
    other = evaluation(rows, accuracy=accuracy(b, truth), macro_f1=macro_f1(b, truth, CLASSES))
    expected = {name: compare(one.metrics[name], other.metrics[name]) for name in ("accuracy", "macro_f1")}
    assert compare_evaluations(one, other) == expected
    assert compare_evaluations(one, evaluation(rows, accuracy=accuracy(b, truth))) == {"accuracy": expected["accuracy"]}


@pytest.mark.parametrize(
    "rows", [pytest.param([0, 1, 2], id="fewer"), pytest.param([0, 1, 2, 4], id="others"), [3, 2, 1, 0]]
)
def test_evaluations_of_other_rows_are_an_error(rows: list[int]) -> None:
    one, other = (evaluation(r, accuracy=accuracy(np.zeros(len(r)), np.zeros(len(r)))) for r in ([0, 1, 2, 3], rows))
    with pytest.raises(ValueError, match=rf"same rows in the same order, but theirs differ \(4 and {len(rows)} rows\)"):
        compare_evaluations(one, other)


def test_evaluations_without_a_common_metric_are_an_error() -> None:
    one = evaluation([0, 1], accuracy=accuracy([0, 1], [0, 1]))
    other = evaluation([0, 1], **rates(["a b", "c"], ["a b", "d"]))
    with pytest.raises(ValueError, match="one has accuracy and the other per, wer"):
        compare_evaluations(one, other)


# ------------------------------------------------------------------------------------------------------------- McNemar


def evaluated(right: Sequence[int], rows: Sequence[int] | None = None) -> Evaluation:
    """A classifier that is right of the rows with a 1."""
    log_probs = np.log(np.where(np.array(right)[:, None] == [1, 0], 0.7, 0.3)).astype(np.float32)
    numbers = np.arange(len(right)) if rows is None else np.array(rows)
    labels = np.zeros(len(right), dtype=np.int64)
    return Evaluation(
        loss=1.0, metrics={}, main="", rows=numbers, predictions=[], log_probs=log_probs, labels=labels
    )  # fmt: skip


@pytest.mark.parametrize(("a_alone", "b_alone"), [(0, 0), (1, 0), (5, 5), (3, 11), (13, 2), (40, 61)])
def test_mcnemar_is_the_sum_of_the_coin(a_alone: int, b_alone: int) -> None:
    """All outcomes of fair coins that are no likelier than what came."""
    n = a_alone + b_alone
    likely = [Fraction(comb(n, k), 2**n) for k in range(n + 1)]
    p = float(sum(x for x in likely if x <= likely[a_alone]))
    a = [1] * a_alone + [0] * b_alone + [1] * 7 + [0] * 3
    b = [0] * a_alone + [1] * b_alone + [1] * 7 + [0] * 3
    found = mcnemar(evaluated(a), evaluated(b))
    assert (found.a_alone, found.b_alone) == (a_alone, b_alone)
    assert found.p_value == pytest.approx(p, rel=1e-9)
    assert mcnemar(evaluated(b), evaluated(a)) == McNemar(b_alone, a_alone, found.p_value)


def test_mcnemar_needs_two_classifiers_and_the_same_rows() -> None:
    with pytest.raises(ValueError, match="same rows in the same order"):
        mcnemar(evaluated([1, 0]), evaluated([1, 0], rows=[1, 0]))
    with pytest.raises(ValueError, match="must be of two classifiers"):
        mcnemar(evaluated([1, 0]), evaluation([0, 1], **rates(["a", "c"], ["a", "d"])))


def test_calibration_errors_are_compared() -> None:
    """One run sharpened: its errors are larger, in one direction."""
    rng = np.random.default_rng(8)
    chances = rng.dirichlet(np.ones(3), 211)
    labels = np.array([rng.choice(3, p=row) for row in chances])
    sharp = np.log(chances) * 6
    one, other = ece(np.log(chances), labels), ece(sharp - np.log(np.exp(sharp).sum(1, keepdims=True)), labels)
    found = compare(one, other)
    assert found.difference == pytest.approx(one.value - other.value) and found.high < 0 and found.p_value < 0.01
