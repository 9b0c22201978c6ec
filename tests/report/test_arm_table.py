from __future__ import annotations

from collections.abc import Mapping

from minitx.report.arms import arm_table
from minitx.report.ledger import Entry


def test_columns_without_anything_are_left_out(entries: Mapping[str, Entry]) -> None:
    heads = {}
    for claim in ("C7", "C8c", "C5", "C4"):
        result = entries[claim].result
        assert result is not None
        heads[claim] = arm_table(result).heads
    mean, sampling = "test accuracy: mean [95 % over seeds]", "one run's 95 % over test rows"
    assert heads["C7"] == (
        "data.train_size", mean, "every run", sampling, "parameters", "seconds", "tuning chose",
    )  # fmt: skip
    assert heads["C8c"] == ("model.n_heads", "fit gap: mean [95 % over seeds]", "every run", "parameters", "seconds")
    assert heads["C5"] == ("length", "time (s): mean [95 % over seeds]", "every run", "parameters")
    assert heads["C4"] == (mean, "every run", sampling, "parameters", "seconds")


def test_a_cell_says_how_many_seeds_it_has(entries: Mapping[str, Entry]) -> None:
    result = entries["C8a"].result
    assert result is not None
    runs = [line[2] for line in arm_table(result).lines["fixed width"]]
    assert [cell.text for cell in runs] == ["", "(4 of 5 seeds)", "", ""]
    assert [run.seed for run in runs[1].runs] == [0, 1, 2, 4]
