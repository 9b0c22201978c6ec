"""claims.json holds the statistics in full, and is valid JSON where an interval is infinite."""

from __future__ import annotations

import json
import math
from pathlib import Path

import numpy as np
import pytest
import synthetic_studies
from scipy import stats

from minitx.report import read_ledger
from minitx.report.ledger import declared_claims
from minitx.report.write import claims_json

KEYS = {
    "id", "claim", "verdict", "effect", "interval", "delta", "n_seeds", "runs", "command", "study", "tier",
    "exploratory", "parts", "seeds", "p", "seeds_needed",
}  # fmt: skip
PART_KEYS = {
    "name", "measure", "contrast", "arm", "against", "expect", "found", "effect", "interval", "level", "p", "delta",
    "n_seeds", "state", "method", "seeds", "values",
}  # fmt: skip


def test_every_claim_has_every_key(report: Path) -> None:
    written = json.loads((report / "claims.json").read_text())
    claims = {entry.id: entry for entry in declared_claims()}
    assert [one["id"] for one in written] == list(claims)
    for one in written:
        assert set(one) == KEYS and one["claim"] == claims[one["id"]].claim.statement
        assert all(set(part) == PART_KEYS for part in one["parts"])
        if one["parts"]:
            assert [one[k] for k in ("effect", "interval")] == [one["parts"][0][k] for k in ("effect", "interval")]
        else:
            assert [one[k] for k in ("verdict", "effect", "interval", "delta", "n_seeds", "tier")] == [None] * 6
            assert one["command"] == f"python train.py -m study={claims[one['id']].study}" and one["runs"] == []


def test_effects_are_scipys_at_the_level_of_the_look(report: Path, studies: Path) -> None:
    claims = {one["id"]: one for one in json.loads((report / "claims.json").read_text())}
    record = json.loads((studies / "distance" / "study-full.json").read_text())
    read = {
        (cell["arm"], cell["seed"]): json.loads((studies / cell["folder"] / "results.json").read_text())
        for cell in record["cells"]
    }
    gaps = [
        np.subtract(*(read[arm, seed]["metrics"]["test"]["accuracy"]["value"] for arm in ("transformer", "lstm")))
        for seed in range(5)
    ]
    [part] = claims["C4"]["parts"]
    assert part["values"] == pytest.approx(gaps) and part["seeds"] == [0, 1, 2, 3, 4]
    expected = stats.ttest_1samp(gaps, 0).confidence_interval(part["level"])
    assert part["interval"] == pytest.approx([expected.low, expected.high])
    assert claims["C4"]["effect"] == pytest.approx(np.mean(gaps))


def test_runs_are_folders_of_the_arms_that_were_compared(report: Path, studies: Path) -> None:
    claims = {one["id"]: one for one in json.loads((report / "claims.json").read_text())}
    assert len(claims["C7"]["runs"]) == 2 * 6 * 5 and len(claims["C4"]["runs"]) == 2 * 5
    assert all((studies / run / "results.json").is_file() for one in claims.values() for run in one["runs"])


def test_an_infinite_bound_is_null(tmp_path: Path) -> None:
    path = synthetic_studies.distance(tmp_path)
    record = json.loads(path.read_text())
    record["cells"] = [cell for cell in record["cells"] if cell["seed"] == 0]
    record["study"]["full"]["seeds"] = [0]
    path.write_text(json.dumps(record))
    [one] = [one for one in claims_json(read_ledger(tmp_path)) if one["parts"]]
    assert one["interval"] == [None, None] and one["exploratory"] and one["verdict"] == "undecided"
    assert math.isfinite(one["effect"]) and json.dumps(one, allow_nan=False)
