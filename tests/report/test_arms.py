"""Means and intervals against scipy, sizes, tuning and missing runs."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from minitx.report.arms import arm_rows, arm_table
from minitx.report.ledger import Entry


def results(studies: Path, folder: str) -> dict:
    return json.loads((studies / folder / "results.json").read_text())


def test_every_mean_is_the_runs_and_every_interval_students(entries: Mapping[str, Entry], studies: Path) -> None:
    result = entries["C7"].result
    assert result is not None
    rows = arm_rows(result)
    assert [(row.arm, row.value) for row in rows][5:8] == [("transformer", 8000), ("cnn", 250), ("cnn", 500)]
    assert len(rows) == 4 * 6
    for row in rows:
        [one] = row.measured
        assert one is not None and [seed for seed, _, _ in one.runs] == [0, 1, 2, 3, 4]
        read = [results(studies, folder)["metrics"]["test"]["accuracy"]["value"] for _, _, folder in one.runs]
        expected = stats.ttest_1samp(read, 0).confidence_interval(0.95)
        assert (one.mean, one.low, one.high) == pytest.approx((np.mean(read), expected.low, expected.high))
        first = results(studies, one.runs[0][2])["metrics"]["test"]["accuracy"]["ci95"]
        assert one.sampling == (0, *first)
        assert row.seconds == pytest.approx(np.mean([12.5 + seed for seed in range(5)]))


def test_size_tuning_and_missing_seeds(entries: Mapping[str, Entry]) -> None:
    data_size, heads = entries["C7"].result, entries["C8a"].result
    assert data_size is not None and heads is not None
    by_arm = {row.arm: row for row in arm_rows(data_size)}
    assert [row.size for row in by_arm.values()] == [120_000, 120_321, 120_642, 120_963]
    assert by_arm["cnn"].tried is not None and by_arm["cnn"].tried.text == "lr 1e-3, best of 2"
    assert by_arm["cnn"].tried.score == 0.74 and by_arm["lstm"].tried is None
    [row] = [row for row in arm_rows(heads) if (row.arm, row.value) == ("fixed width", 2)]
    assert row.n_seeds == 5 and row.measured[0] is not None and len(row.measured[0].runs) == 4


def test_an_arm_without_cells_is_shown_as_missing(entries: Mapping[str, Entry]) -> None:
    result = entries["C9"].result
    assert result is not None
    [row] = [row for row in arm_rows(result) if row.arm == "full width"]
    assert row.measured == (None,)
    assert arm_table(result).lines["full width"][0][0].text == "missing"
