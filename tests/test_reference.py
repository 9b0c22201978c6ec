"""The committed results are what they say: differences, verdicts and scores follow from the stored numbers."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats
from tiny import ROOT

from minitx.report import read_ledger, write_report
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
    """Each part judged by Student's t, its interval at its level by scipy; and what that and delta say of the part and
    of its claim."""
    judged = 0
    for claim in read("claims"):
        for part in claim["parts"]:
            (low, high), delta, expect = part["interval"], part["delta"], part["expect"]
            if part["method"] != "t":
                continue
            judged += 1
            values = np.array(part["values"])
            assert part["effect"] == pytest.approx(values.mean(), abs=1e-12)
            interval = stats.ttest_1samp(values, 0).confidence_interval(part["level"])
            assert (low, high) == pytest.approx((interval.low, interval.high))
            flat = stats.ttest_1samp(values, 0).confidence_interval(0.97)
            one_suffices = claim["id"] in alternatives(claim)
            holds = {
                "above": part["name"] in surviving(claim["parts"]) if one_suffices else low > delta,
                "no_better": flat.high < delta,
                "flat": -delta < flat.low and flat.high < delta,
            }[expect]
            assert (part["state"] == "holds") == holds, (claim["id"], part["name"])
        states = [part["state"] for part in claim["parts"]]
        needed = any if claim["id"] in alternatives(claim) else all
        assert (claim["verdict"] == "supported") == (bool(states) and needed(state == "holds" for state in states))
        assert claim["verdict"] != "contradicted" or "contrary" in states
    assert judged > 5


def surviving(parts: list[Any]) -> set[str]:
    """Those above delta by Holm (1979), step by step: the surest at a third of the error of three, the next at half."""
    ps = {
        part["name"]: stats.ttest_1samp(part["values"], part["delta"], alternative="greater").pvalue
        if part["method"] == "t" else 1.0
        for part in parts
    }  # fmt: skip
    found = set()
    for left, name in zip(range(len(ps), 0, -1), sorted(ps, key=ps.__getitem__), strict=True):
        [level] = [part["level"] for part in parts if part["name"] == name]
        if ps[name] >= (1 - level) / 2 / left:
            break
        found.add(name)
    return found


def alternatives(claim: Any) -> list[str]:
    """The claims of its study that need one of their parts alone, as the record says."""
    if claim["tier"] is None:
        return []
    record = REFERENCE / "studies" / claim["study"] / f"study-{claim['tier']}.json"
    found: list[str] = json.loads(record.read_text())["study"][claim["tier"]]["at_least_one"]
    return found


def test_the_report_is_made_of_what_is_committed(tmp_path: Path) -> None:
    """The same report.md byte by byte, the same claims, and every figure it shows, from records and tables alone."""
    shutil.copytree(REFERENCE / "studies", tmp_path / "studies")
    write_report(read_ledger(tmp_path / "studies"), tmp_path)
    assert (tmp_path / "report.md").read_text() == (REFERENCE / "report.md").read_text(), (
        "python -m minitx.report.reference report writes it anew"
    )
    claims = json.loads((tmp_path / "claims.json").read_text())
    assert [flat(claim) for claim in claims] == [pytest.approx(flat(claim), nan_ok=True) for claim in read("claims")]
    figures = {path.name for path in (REFERENCE / "figures").glob("*.svg") if not path.name.endswith(".zh.svg")}
    assert figures == {path.name for path in (tmp_path / "figures").iterdir()}
    assert all(f"figures/{name}" in (tmp_path / "report.md").read_text() for name in figures)


def flat(value: Any, key: str = "") -> dict[str, Any]:
    """Nested JSON as one mapping, for pytest.approx."""
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        return {name: one for k, v in items for name, one in flat(v, f"{key}/{k}").items()}
    return {key: value}


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
