from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import sacrebleu
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binom
from scipy.stats import bootstrap as scipy_bootstrap
from sklearn.metrics import accuracy_score, f1_score
from sklearn.metrics import confusion_matrix as sklearn_confusion

from minitx.metrics import intervals
from minitx.metrics.intervals import Interval, bootstrap
from minitx.metrics.scores import (
    METRICS,
    TextOutputs,
    accuracy,
    better,
    bleu,
    chrf,
    confusion_matrix,
    higher_is_better,
    in_points,
    macro_f1,
    main_metric,
    phoneme_error_rate,
    scores,
    word_error_rate,
)

CLASSES = 5
pairs = st.lists(st.tuples(st.integers(0, CLASSES - 1), st.integers(0, CLASSES - 1)), min_size=1, max_size=40)
symbols = st.lists(st.sampled_from("abc"), max_size=7)

HYPOTHESES = ["the cat sat on the mat", "a dog ran far away from home", "", "it is what it is , no more"]
REFERENCES = [
    ["the cat sat on a mat", "the cat was sitting on the mat"],
    ["a dog ran away from home"],
    ["nothing was said", "silence", "not a word"],
    ["it is what it is and no more", "it is this , no more"],
]


def noisy_labels(n: int, n_classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    return np.where(rng.random(n) < 0.7, labels, rng.integers(0, n_classes, n)), labels


# ----------------------------------------------------------------------------------------------------- classification


@given(pairs)
def test_classification_agrees_with_sklearn(cells: list[tuple[int, int]]) -> None:
    predicted, labels = zip(*cells, strict=True)
    assert accuracy(predicted, labels).value == pytest.approx(accuracy_score(labels, predicted))
    assert macro_f1(predicted, labels, CLASSES).value == pytest.approx(f1_score(labels, predicted, average="macro"))
    expected = sklearn_confusion(labels, predicted, labels=range(CLASSES))
    np.testing.assert_array_equal(confusion_matrix(predicted, labels, CLASSES), expected)


@pytest.mark.parametrize("score", [macro_f1, confusion_matrix])
def test_class_out_of_range_is_an_error(score: Callable[..., Any]) -> None:
    """Not a wrong cell: 1 * 3 + 4 would count as class 2 predicted as class 1."""
    with pytest.raises(ValueError, match=r"predicted must lie in 0..2, but reach 0..4"):
        score([0, 4], [0, 1], 3)
    with pytest.raises(ValueError, match=r"labels must lie in 0..2, but reach -1..1"):
        score([0, 1], [-1, 1], 3)


# -------------------------------------------------------------------------------------------------------- error rates


def recursive_distance(a: list[str], b: list[str]) -> int:
    """Levenshtein's definition, word for word."""

    @cache
    def distance(i: int, j: int) -> int:
        if 0 in (i, j):
            return i + j
        return min(distance(i - 1, j) + 1, distance(i, j - 1) + 1, distance(i - 1, j - 1) + (a[i - 1] != b[j - 1]))

    return distance(len(a), len(b))


several = st.lists(symbols, min_size=1, max_size=3)


@given(st.lists(st.tuples(symbols, several), min_size=1, max_size=5))
def test_error_rates_are_their_definition(examples: list[tuple[list[str], list[list[str]]]]) -> None:
    """Symbols of one and of several letters, as phonemes are."""
    long = [([2 * s for s in h], [[2 * s for s in r] for r in wanted]) for h, wanted in examples]
    for hypotheses, references in (zip(*examples, strict=True), zip(*long, strict=True)):
        nearest = [
            min((recursive_distance(h, r), -len(r)) for r in wanted)
            for h, wanted in zip(hypotheses, references, strict=True)
        ]
        errors, length = sum(d for d, _ in nearest), -sum(n for _, n in nearest)
        expected = errors / length if length else 0
        assert phoneme_error_rate(hypotheses, references).value == expected
        assert word_error_rate(hypotheses, references).value == np.mean([d > 0 for d, _ in nearest])


def test_error_rates_worked_by_hand() -> None:
    hypotheses = [["K", "AE", "T"], ["R", "IY", "D"], ["T", "AH", "M", "EY", "T"], []]
    references = [
        [["K", "AE", "T"]],  # 0 of 3
        [["R", "EH", "D"], ["R", "IY", "D"]],  # 0 of 3: any reference makes the word right
        [["T", "AH", "M", "EY", "T", "OW"], ["T", "AH", "M", "AA", "T", "OW"]],  # 1 of 6
        [["AH"]],  # 1 of 1
    ]
    # Summed before dividing, not the mean of four rates.
    assert phoneme_error_rate(hypotheses, references).value == pytest.approx(2 / 13)
    assert word_error_rate(hypotheses, references).value == pytest.approx(2 / 4)


@pytest.mark.parametrize("turned", [False, True], ids=["short-first", "long-first"])
def test_tied_references_count_the_longest(turned: bool) -> None:
    wanted = [["a", "b"], ["a", "b", "c", "d"]]
    rate = phoneme_error_rate([["a", "b", "c"]], [wanted[::-1] if turned else wanted])
    assert rate.value == pytest.approx(1 / 4)


def test_error_rate_may_exceed_one_and_empty_references_are_no_division_by_zero() -> None:
    assert phoneme_error_rate([list("abcd")], [[["x"]]]).value == pytest.approx(4.0)
    assert phoneme_error_rate([[]], [[[]]]).value == 0


def test_error_rates_need_references() -> None:
    for rate in (phoneme_error_rate, word_error_rate):
        with pytest.raises(ValueError, match="without any reference"):
            rate([["a"]], [[]])
    with pytest.raises(ValueError, match="without any reference"):
        bleu(["a", "b"], [["a"], []])


# -------------------------------------------------------------------------------------------------------- BLEU, chrF


def streams(references: list[list[str]]) -> Any:
    """sacrebleu's form: one list per reference number, None where an example has fewer."""
    return [[group[k] if k < len(group) else None for group in references] for k in range(3)]


def test_bleu_and_chrf_are_sacrebleus() -> None:
    assert bleu(HYPOTHESES, REFERENCES).value == pytest.approx(
        sacrebleu.corpus_bleu(HYPOTHESES, streams(REFERENCES)).score
    )
    assert chrf(HYPOTHESES, REFERENCES).value == pytest.approx(
        sacrebleu.corpus_chrf(HYPOTHESES, streams(REFERENCES)).score
    )


def test_signature_names_the_tokeniser() -> None:
    plain, letters = bleu(HYPOTHESES, REFERENCES), bleu(HYPOTHESES, REFERENCES, tokenize="char")
    assert plain.signature is not None and "tok:13a" in plain.signature and "version:" in plain.signature
    assert letters.signature is not None and "tok:char" in letters.signature
    assert plain.value != letters.value
    assert plain.to_json()["signature"] == plain.signature


def test_perfect_bleu_has_no_width() -> None:
    same = bleu([group[0] for group in REFERENCES], REFERENCES)
    assert (same.value, same.low, same.high) == pytest.approx((100, 100, 100))


def test_hypotheses_and_references_must_match_in_number() -> None:
    for score in (bleu, chrf, phoneme_error_rate, word_error_rate):
        with pytest.raises(ValueError, match="4 hypotheses must match 3 lists of references"):
            score(HYPOTHESES, REFERENCES[:3])


# ---------------------------------------------------------------------------------------------------------- intervals


def test_accuracy_interval_is_the_binomial_one() -> None:
    """Resampled hits are binomial, so the percentiles are known without any resampling."""
    predicted, labels = noisy_labels(n=997, n_classes=5, seed=1)
    found = accuracy(predicted, labels)
    expected = binom.ppf((0.025, 0.975), 997, found.value) / 997
    np.testing.assert_allclose((found.low, found.high), expected, atol=0.004)


def test_interval_equals_naive_resampling_of_examples() -> None:
    """Drawing rows one by one and asking sklearn gives the same interval, up to the chance in 400 resamples."""
    predicted, labels = noisy_labels(n=211, n_classes=7, seed=2)
    rng = np.random.default_rng(3)
    resampled = []
    for _ in range(400):
        rows = rng.integers(0, len(labels), len(labels))
        resampled.append(f1_score(labels[rows], predicted[rows], average="macro"))
    found = macro_f1(predicted, labels, 7)
    np.testing.assert_allclose((found.low, found.high), np.percentile(resampled, (2.5, 97.5)), atol=0.02)
    assert found.low < found.value < found.high


def test_bleu_interval_equals_naive_resampling_of_sentences() -> None:
    rng = np.random.default_rng(4)
    words = np.array(["the", "a", "cat", "dog", "sat", "ran", "on", "under", "mat", "home", "far", "away"])
    references = [" ".join(rng.choice(words, 9)) for _ in range(60)]
    hypotheses = [" ".join(np.where(rng.random(9) < 0.8, r.split(), rng.choice(words, 9))) for r in references]
    resampled = []
    for _ in range(200):
        rows = rng.integers(0, 60, 60)
        of_rows = [[references[i] for i in rows]]
        resampled.append(sacrebleu.corpus_bleu([hypotheses[i] for i in rows], of_rows).score)
    found = bleu(hypotheses, [[r] for r in references])
    np.testing.assert_allclose((found.low, found.high), np.percentile(resampled, (2.5, 97.5)), atol=2.0)


def test_bootstrap_agrees_with_scipys_percentile_interval() -> None:
    values = np.random.default_rng(8).exponential(size=101)
    found = bootstrap(np.stack([values, np.ones_like(values)], axis=1), intervals.ratio)
    theirs = scipy_bootstrap(
        (values,), np.mean, n_resamples=4000, method="percentile", random_state=1
    ).confidence_interval
    width = theirs.high - theirs.low
    np.testing.assert_allclose((found.low, found.high), (theirs.low, theirs.high), atol=0.1 * width)


def test_many_distinct_statistics_are_resampled_in_pieces() -> None:
    """The mean of n numbers has an error of s / sqrt(n); 5,003 distinct rows do not fit into one piece."""
    values = np.random.default_rng(5).normal(size=5003)
    stats = np.stack([values, np.ones_like(values)], axis=1)
    found = bootstrap(stats, lambda sums: sums[:, 0] / sums[:, 1])
    error = values.std() / np.sqrt(len(values))
    assert found.value == pytest.approx(values.mean())
    assert (found.high - found.low) / error == pytest.approx(2 * 1.96, rel=0.1)


def test_many_rows_that_repeat_are_drawn_as_often_as_they_are_there() -> None:
    """3,001 distinct rows of 5,003 examples: the law of the mean, whatever the order."""
    values = np.random.default_rng(9).normal(size=3001)
    values = np.concatenate([values, np.repeat(values[:2], 1001)])
    stats = np.stack([values, np.ones_like(values)], axis=1)
    found = bootstrap(stats, lambda sums: sums[:, 0] / sums[:, 1])
    error = values.std() / np.sqrt(len(values))
    assert (found.high - found.low) / error == pytest.approx(2 * 1.96, rel=0.1)
    assert (found.high + found.low) / 2 == pytest.approx(values.mean(), abs=0.2 * error)
    assert bootstrap(stats[::-1], lambda sums: sums[:, 0] / sums[:, 1]) == found


def test_interval_depends_on_the_examples_alone() -> None:
    predicted, labels = noisy_labels(n=101, n_classes=3, seed=6)
    state = str(np.random.get_state())  # noqa: NPY002 (the global generator is what must not move)
    first = macro_f1(predicted, labels, 3)
    assert macro_f1(predicted[::-1], labels[::-1], 3) == first
    assert str(np.random.get_state()) == state  # noqa: NPY002


@pytest.mark.parametrize(
    "score",
    [
        pytest.param(lambda: accuracy([], []), id="accuracy"),
        pytest.param(lambda: macro_f1([], [], 3), id="macro-f1"),
        pytest.param(lambda: phoneme_error_rate([], []), id="per"),
        pytest.param(lambda: word_error_rate([], []), id="wer"),
        pytest.param(lambda: bleu([], []), id="bleu"),
        pytest.param(lambda: chrf([], []), id="chrf"),
    ],
)
def test_no_examples_are_an_error(score: Callable[[], Any]) -> None:
    with pytest.raises(ValueError, match="at least one example"):
        score()


def test_interval_remembers_its_examples() -> None:
    """In their order; equality, JSON and repr leave them out."""
    found = phoneme_error_rate([list("ab"), list("c"), list("ab")], [[list("ab")], [list("cd")], [list("ax")]])
    assert found.examples is not None
    np.testing.assert_array_equal(found.examples.rows_DF[found.examples.which_N], [[0, 2], [1, 2], [1, 2]])
    np.testing.assert_array_equal(found.examples.counts_D, [1, 2])
    assert found.examples.statistic(np.array([[2.0, 6.0]])) == pytest.approx([found.value])
    bare = Interval(found.value, found.low, found.high)
    assert found == bare and repr(found) == repr(bare) and found.to_json() == bare.to_json()


@pytest.mark.parametrize("metric", ["accuracy", "macro_f1", "bleu"])
def test_remembered_examples_survive_pickling(metric: str) -> None:
    made = {
        "accuracy": lambda: accuracy([0, 1, 1], [0, 1, 0]),
        "macro_f1": lambda: macro_f1([0, 1, 1], [0, 1, 0], 2),
        "bleu": lambda: bleu(HYPOTHESES, REFERENCES),
    }
    found = made[metric]()
    again = pickle.loads(pickle.dumps(found)).examples
    total_F = again.counts_D @ again.rows_DF
    assert again.statistic(total_F[None]) == pytest.approx([found.value])


def test_remembered_examples_are_small() -> None:
    """A row for each cell of the confusion matrix that occurs, not for each example."""
    predicted, labels = noisy_labels(n=25_000, n_classes=77, seed=7)
    found = macro_f1(np.where(predicted == labels, labels, (labels + 1 + predicted % 3) % 77), labels, 77)
    assert found.examples is not None and len(found.examples.rows_DF) <= 4 * 77
    assert found.examples.rows_DF.nbytes + found.examples.which_N.nbytes < 1_000_000


def test_json_form() -> None:
    assert Interval(0.5, 0.25, 0.75).to_json() == {"value": 0.5, "ci95": [0.25, 0.75]}


def test_every_metric_has_a_direction_and_a_unit() -> None:
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names)) == 8
    assert [m for m in (*names, "loss") if not higher_is_better(m)] == ["ece", "per", "wer", "loss"]
    assert [m for m in names if in_points(m)] == ["bleu", "chrf"]
    main = {of: main_metric(of) for of in ("classification", "masked", "error_rate", "bleu")}
    assert main == {"classification": "accuracy", "masked": "masked_accuracy", "error_rate": "per", "bleu": "bleu"}


def test_scores_are_those_of_the_data_the_main_one_first() -> None:
    texts = TextOutputs(hypotheses=HYPOTHESES, references=REFERENCES, bleu_tokenize="char")
    symbols = [h.split() for h in HYPOTHESES], [[r.split() for r in group] for group in REFERENCES]
    assert list(scores("bleu", texts).items()) == [
        ("bleu", bleu(HYPOTHESES, REFERENCES, tokenize="char")), ("chrf", chrf(HYPOTHESES, REFERENCES)),
    ]  # fmt: skip
    assert list(scores("error_rate", texts).items()) == [
        ("per", phoneme_error_rate(*symbols)), ("wer", word_error_rate(*symbols)),
    ]  # fmt: skip


def test_direction_decides_which_score_is_better() -> None:
    assert better(0.9, 0.8, "accuracy") and not better(0.8, 0.9, "accuracy")
    assert better(0.1, 0.2, "per") and not better(0.2, 0.1, "per")
    assert not better(0.5, 0.5, "accuracy") and not better(0.5, 0.5, "per")
    for metric in ("accuracy", "per"):
        assert better(0.5, float("nan"), metric) and not better(float("nan"), 0.5, metric)
        assert not better(float("nan"), float("nan"), metric)


def test_metrics_are_json_numbers() -> None:
    assert all(type(x) is float for x in (accuracy([1], [1]).value, accuracy([1], [1]).low, accuracy([1], [1]).high))
    assert intervals.RESAMPLES == 1000
