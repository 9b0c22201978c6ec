"""Curves and lines of made-up arms come out as they were made."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
import synthetic_studies

from minitx.report.curves import crossings, exponent_line, learning_curves, numbers_of
from minitx.report.ledger import Entry
from minitx.studies.study import Contrast


def test_learning_curves_of_the_arms_that_learn(entries: Mapping[str, Entry]) -> None:
    result = entries["C7"].result
    assert result is not None
    curves = learning_curves(result.evidence, "test.accuracy")
    assert list(curves) == ["transformer", "cnn", "bag"]
    for arm in ("transformer", "cnn"):
        a, _, c = synthetic_studies.MODELS[arm]
        for name, truth in (("a", a), ("c", c)):
            _, low, high = curves[arm].parameter(name)
            assert low < truth < high
    assert learning_curves(result.evidence, "test.loss") == {}


def test_only_the_size_of_the_data_makes_learning_curves(entries: Mapping[str, Entry]) -> None:
    result = entries["C5"].result
    assert result is not None and learning_curves(result.evidence, "seconds") == {}


def test_the_line_of_an_exponent_goes_through_the_last_tenfold(entries: Mapping[str, Entry]) -> None:
    entry = entries["C5"]
    assert entry.result is not None
    line = exponent_line(entry.result.evidence, entry.contrasts[0])
    assert line is not None and line.x.tolist() == [1024, 4096]
    assert np.log(line.y[1] / line.y[0]) / np.log(4) == pytest.approx(line.exponent)
    seen = [list(entry.result.evidence.per_seed("seconds", "naive", n).values()) for n in (1024, 4096)]
    assert np.log(line.y).mean() == pytest.approx(np.log(seen).mean())
    assert exponent_line(entry.result.evidence, entry.contrasts[2]) is None


def test_a_crossing_is_seen_where_both_sides_are_clear(entries: Mapping[str, Entry]) -> None:
    result = entries["C7"].result
    assert result is not None
    seen = crossings(result.evidence, Contrast(measure="test.accuracy", arm="transformer", against="cnn", delta=1))
    assert seen == [(2000, 4000)]
    never = crossings(result.evidence, Contrast(measure="test.accuracy", arm="cnn", against="lstm", delta=1))
    assert never == []


def test_names_are_no_numbers(entries: Mapping[str, Entry]) -> None:
    result, sizes = entries["C1"].result, entries["C7"].result
    assert result is not None and sizes is not None
    assert numbers_of(result.evidence, "transformer") is None
    assert numbers_of(sizes.evidence, "cnn") == [250, 500, 1000, 2000, 4000, 8000]
