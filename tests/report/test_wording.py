"""The text of each kind of contrast and verdict, word by word."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from minitx.report.ledger import Entry, Ledger
from minitx.report.wording import (
    contrast_text,
    counted,
    effect_text,
    interval_text,
    measure_name,
    measured_text,
    outcome,
    p_text,
    percent,
    places_for,
    plain,
    sentence,
    signed,
    value_text,
    without_rounding_error,
)
from minitx.studies.claims import ContrastResult
from minitx.studies.study import Contrast
from minitx.studies.verdicts import Effect, Finding, State


def found(
    finding: Finding = "above", state: State = "holds", mean: float = 0.03, n_seeds: int = 5, **part: Any
) -> ContrastResult:
    made = Contrast(**{"measure": "test.accuracy", "arm": "a", "against": "b", "delta": 0.02, **part})
    effect = Effect(mean, mean - 0.004, mean + 0.004, n_seeds, 0.985, "t", finding, state, 0.01, None)
    return ContrastResult("contrast", made, tuple(range(n_seeds)), (mean,) * n_seeds, effect)


@pytest.mark.parametrize(
    ("number", "places", "text"),
    [
        (0.12345, 3, "0.123"),
        (-0.5, 2, "−0.50"),
        (12345.6, 0, "12,346"),
        (0, 3, "0"),
        (3e-7, 3, "3.00e−07"),
        (2.5e9, 1, "2.50e+09"),
        (math.inf, 3, "∞"),
        (-math.inf, 3, "−∞"),
    ],
)
def test_numbers(number: float, places: int, text: str) -> None:
    assert plain(number, places) == text


def test_signs_and_places() -> None:
    assert (signed(0.5, 1), signed(-0.5, 1), signed(-math.inf)) == ("+0.5", "−0.5", "−∞")
    assert [places_for(n) for n in (0.02, 0.5, 7.0, 431.0, 0.0)] == [4, 3, 2, 0, 3]
    assert (percent(0.95), percent(1 - 0.05 / 9), value_text(16384), value_text(None)) == (
        "95 %",
        "99.44 %",
        "16,384",
        "",
    )
    assert p_text(0.0123) == "p\u00a00.012" and p_text(1e-9) == "p\u00a0<\u00a00.001"


def test_effects_have_the_digits_of_delta() -> None:
    assert effect_text(found(mean=-0.0312)) == "−0.031 [−0.035, −0.027]"
    assert effect_text(found(mean=1.0, delta=0.5)) == "+1.00 [+1.00, +1.00]"


def test_measures() -> None:
    names = {
        "test.accuracy": "test accuracy",
        "loss.test": "test loss",
        "seconds": "time (s)",
        "cost.mixing_seconds": "mixing time (s)",
        "cost.peak_bytes": "peak memory (bytes)",
        "parallel.log_speedup": "log speed-up",
        "fit.gap_at_0.3": "fit gap at 0 3",
    }
    assert {name: measure_name(name) for name in names} == names


CONTRASTS = [
    ({"at": 250}, "test accuracy: a at train_size 250 − b at train_size 250",
     "the test accuracy of a at train_size 250 is 0.030 higher than that of b at train_size 250"),
    ({}, "test accuracy: a − b", "the test accuracy of a is 0.030 higher than that of b"),
    ({"against": "a", "at": 8, "against_at": 1}, "test accuracy: a at train_size 8 − a at train_size 1",
     "the test accuracy of a is 0.030 higher at train_size 8 than at train_size 1"),
    ({"against": None}, "test accuracy: a", "the test accuracy of a is 0.030"),
    ({"contrast": "slope"}, "test accuracy: change of (a − b) with every tenfold of train_size",
     "the test accuracy of a minus that of b rises by 0.030 with every tenfold of train_size"),
    ({"contrast": "slope", "against": None}, "test accuracy: change of a with every tenfold of train_size",
     "the test accuracy of a rises by 0.030 with every tenfold of train_size"),
    ({"contrast": "log_ratio"}, "test accuracy: ln(a / b)",
     "the test accuracy of a is 1.03 times that of b, a log ratio of +0.030"),
    ({"contrast": "exponent", "against": None, "centre": 2.0},
     "test accuracy: exponent of train_size for a over the last tenfold, minus 2",
     "the test accuracy of a grows with train_size to the power 2.030, 0.030 above the 2 of the claim"),
]  # fmt: skip


@pytest.mark.parametrize(("part", "contrast", "expected"), CONTRASTS)
def test_each_kind_of_contrast(part: dict[str, Any], contrast: str, expected: str) -> None:
    one = found(**part)
    assert contrast_text(one.contrast, "data.train_size") == contrast
    assert measured_text(one, "data.train_size") == expected


def test_an_effect_below_zero_is_lower() -> None:
    assert measured_text(found(mean=-0.03), None) == "the test accuracy of a is 0.030 lower than that of b"
    assert "falls by 0.030" in measured_text(found(mean=-0.03, contrast="slope"), "n")
    assert "0.97 times" in measured_text(found(mean=-0.03, contrast="log_ratio"), "n")


@pytest.mark.parametrize(
    ("finding", "state", "expect", "expected"),
    [
        ("above", "holds", "above", "as predicted: above δ"),
        ("below", "contrary", "above", "not as predicted: below −δ"),
        ("negligible", "contrary", "above", "not as predicted: within ±0.02, too small to name"),
        ("undecided", "open", "above", "open: too uncertain to name"),
        ("negligible", "holds", "flat", "as predicted: within ±0.02, too small to name"),
        ("above", "contrary", "flat", "not as predicted: above δ"),
        ("undecided", "holds", "no_better", "as predicted: too uncertain to name"),
        ("negligible", "holds", "exact", "as predicted: equal"),
        ("above", "contrary", "exact", "not as predicted: unequal"),
    ],
)
def test_the_outcome_of_a_contrast(finding: Finding, state: State, expect: str, expected: str) -> None:
    assert outcome(found(finding, state, expect=expect)) == expected


def test_an_interval_that_is_not_students_is_named() -> None:
    one = found("undecided", "open")
    by_signs = replace(one, effect=replace(one.effect, method="sign"))
    assert outcome(by_signs) == "open: too uncertain to name (median, by the sign test)"


def test_few_seeds_are_named() -> None:
    assert outcome(found("undecided", "open", n_seeds=3)) == "too few seeds to tell (3 of the 5 that are needed)"
    assert "(1 of the 5" in outcome(found("undecided", "open", n_seeds=1))


def test_a_sentence_for_every_verdict(entries: Mapping[str, Entry]) -> None:
    heads = {claim: sentence(entry).split(":")[0] for claim, entry in entries.items()}
    assert heads == {
        "C7": "Supported", "C8a": "Contradicted", "C8c": "Contradicted", "C5": "Supported",
        "C4": "Undecided, about 14 values would decide",
        "C1": "Contradicted", "C2": "Exploratory, so undecided",
        **dict.fromkeys(["C8b", "C8d", "C9", "C3", "C6", "C10"], "Not tested here"),
    }  # fmt: skip
    assert sentence(entries["C8a"]).endswith("not as predicted: above δ.")
    assert "full-width heads" in sentence(entries["C9"])
    assert sentence(entries["C3"]) == "Not tested here: no study in this folder asks about it."


def test_the_count(ledger: Ledger) -> None:
    expected = "7 of 13 claims have been tested here: 2 supported, 3 contradicted, 2 undecided."
    assert counted(ledger.entries) == expected
    assert counted([e for e in ledger.entries if e.verdict is None]) == "0 of 6 claims have been tested here."
    both_tiers = 2 * [next(entry for entry in ledger.entries if entry.verdict == "supported")]
    assert counted(both_tiers) == "1 of 1 claims have been tested here, with 2 verdicts: 2 supported."


def test_what_rounding_leaves_is_nothing() -> None:
    """It differs from machine to machine, and the report must not."""
    assert interval_text(-8.88e-16, -8.88e-16, 4.4e-16, 1e-6) == "+0 [+0, +0]"
    assert interval_text(0.0306, 0.0204, 0.0409, 0.01) == "+0.031 [+0.020, +0.041]"
    assert without_rounding_error(2e-12, 1e-6) == 2e-12
