"""The committed results are what they say: differences, verdicts and scores follow from the stored numbers."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from tiny import ROOT

from minitx.report.reference import unseen_rates

REFERENCE = ROOT / "outputs" / "reference"


def read(name: str) -> Any:
    return json.loads((REFERENCE / f"{name}.json").read_text(encoding="utf-8"))


def test_differences_are_those_of_the_stored_runs() -> None:
    """Paired by seed, against scipy."""
    for found in read("classification").values():
        by_seed = {
            model: {run["seed"]: run["metrics"]["test"]["accuracy"]["value"] for run in runs}
            for model, runs in found["runs"].items()
        }
        for model, stated in found["transformer_minus"].items():
            one = by_seed[model][0]
            pairs = [value - by_seed[model].get(seed, one) for seed, value in by_seed["transformer"].items()
                     if model == "linear" or seed in by_seed[model]]  # fmt: skip
            assert stated["value"] == pytest.approx(np.mean(pairs)) and stated["n_seeds"] == len(pairs)
            if len(pairs) > 1:
                interval = stats.ttest_1samp(pairs, 0).confidence_interval(0.95)
                assert stated["ci95"] == pytest.approx([interval.low, interval.high])


def test_verdicts_of_the_ledger_follow_from_its_numbers() -> None:
    """Each contrast's interval at its level by scipy, and the verdict that it and delta give."""
    for claim in read("claims"):
        for part in claim["parts"]:
            values, (low, high), delta = part["values"], part["interval"], part["delta"]
            assert part["effect"] == pytest.approx(np.mean(values), abs=1e-12)
            if np.std(values) > 0:
                interval = stats.ttest_1samp(values, 0).confidence_interval(part["level"])
                assert (low, high) == pytest.approx((interval.low, interval.high))
            inside = -delta < low and high < delta
            found = (
                "supported" if low > delta else "contradicted" if high < -delta else "negligible" if inside else None
            )
            assert part["found"] in (found, "inconclusive")


def test_the_unseen_words_are_scored_as_reported() -> None:
    report = read("default")["unseen_words"]
    assert {name: interval.to_json() for name, interval in unseen_rates().items()} == report


def test_the_unseen_words_are_in_no_dictionary_we_train_on(tmp_path: Path) -> None:
    from minitx.config.load import load
    from minitx.data import load_data

    data = load_data(load({"data": {"tokenizer": {"kind": "char", "joint": False}, "cache_dir": str(tmp_path)}}).data)
    known = {split.text(i) for split in data.splits.values() for i in range(len(split))}
    with (REFERENCE / "unseen_words.csv").open(encoding="utf-8") as file:
        words = [line["word"] for line in csv.DictReader(file)]
    assert len(words) == len(set(words)) == 50 and not known & set(words)
