"""Lengths at which made-up costs overtake each other, known from how they were made."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import synthetic_studies

from minitx.report.curves import overtakes, overtakings
from minitx.report.ledger import Entry
from minitx.studies.evidence import read_evidence

LENGTHS = [64, 256, 1024, 4096]


def test_a_power_overtakes_another_where_they_meet() -> None:
    """n^2 and 500 n meet at 500, between two measured lengths."""
    square, line = ({float(n): f * n**power for n in LENGTHS} for f, power in ((1.0, 2), (500.0, 1)))
    assert overtakes(square, line) == pytest.approx(500)
    assert overtakes(line, square) is None


def test_the_last_time_counts_and_only_shared_lengths() -> None:
    up_and_down = {64.0: 2.0, 256.0: 0.5, 1024.0: 2.0, 4096.0: 3.0}
    flat = dict.fromkeys(up_and_down, 1.0)
    assert overtakes(up_and_down, flat) == pytest.approx(512), "half way in logarithms"
    assert overtakes(up_and_down, {64.0: 1.0, 16384.0: 9.0}) == 64
    assert overtakes({64.0: 1.0, 256.0: 1.0}, flat) is None, "equal is not above"
    assert overtakes({}, flat) is None


def costs(arm: str, length: float, rng: np.random.Generator) -> dict[str, float]:
    """Powers of the length, times noise that the arms share in each round: it leaves every ratio as it is."""
    n, noise = float(length), math.exp(rng.normal())
    mixing = {"naive": n**2, "fused": n**2 / 20, "window": 100 * n, "lstm": 2000 * n}[arm]
    return {
        "cost.mixing_seconds": noise * mixing,
        "cost.training_seconds": noise * (mixing if arm == "lstm" else 600 * n),
    }


def test_what_is_told_of_costs(tmp_path: Path) -> None:
    cost = {"kind": "cost"}
    tier: dict[str, Any] = {
        "overrides": ["data=probe"],
        "axis": "data.max_length",
        "values": LENGTHS,
        "arms": {
            "naive": {**cost, "overrides": ["model=transformer", "model.attention.backend=naive"]},
            "fused": cost,
            "window": {**cost, "overrides": ["model=transformer", "model.attention.span=window"]},
            "lstm": {**cost, "overrides": ["model=lstm"]},
        },
        "contrasts": {},
    }
    found = list(overtakings(read_evidence(synthetic_studies.write_study(tmp_path, "cost", ["C5"], tier, costs))))
    assert found == [
        "The attention of naive takes more than half of a training step: from max_length 300 on.",
        "The attention of naive takes longer than that of window: from max_length 100 on.",
        "The attention of naive takes longer than a training step of lstm: from max_length 2,000 on.",
        "The attention of fused takes more than half of a training step: not within the measured lengths.",
        "The attention of fused takes longer than that of window: from max_length 2,000 on.",
        "The attention of fused takes longer than a training step of lstm: not within the measured lengths.",
        "The attention of window takes more than half of a training step: not within the measured lengths.",
    ]


def test_studies_of_other_things_have_none(entries: Mapping[str, Entry]) -> None:
    for claim in ("C7", "C8a", "C5"):
        result = entries[claim].result
        assert result is not None and not list(overtakings(result.evidence))
