"""Contrasts along an axis, of solved tasks and of runs that never got there, each against numbers by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
from study_helpers import CLAIM

from minitx.studies.contrasts import contrast_bounds, known, part_of
from minitx.studies.evidence import Evidence, Observation
from minitx.studies.study import Contrast, load_study

SEEDS = [3, 5]
Cells = Mapping[tuple[str, float], Mapping[int, Mapping[str, float]]]
"""(arm, value) -> seed -> measures"""


def evidence(cells: Cells) -> Evidence:
    arms = {arm: {"values": sorted({v for a, v in cells if a == arm})} for arm, _ in cells}
    values = sorted({v for _, v in cells})
    contrasts = {"C8a": {"x": {"measure": "m", "arm": next(iter(arms)), "at": values[0], "delta": 1}}}
    tier: dict[str, Any] = {"axis": "n", "values": values, "arms": arms, "contrasts": contrasts, "seeds": SEEDS}
    study = load_study({"name": "x", "claims": {"C8a": CLAIM}, "quick": tier})
    seen = [
        Observation(arm, value, seed, "", dict(measures))
        for (arm, value), by_seed in cells.items()
        for seed, measures in by_seed.items()
    ]
    return Evidence(study, "", tuple(seen), (), None, {})


def curve(arm: str, points: Mapping[float, tuple[float, float]]) -> dict[tuple[str, float], dict[int, Any]]:
    return {(arm, n): {s: {"m": y} for s, y in zip(SEEDS, both, strict=True)} for n, both in points.items()}


def contrast(**keys: Any) -> Contrast:
    return Contrast(**{"measure": "m", "arm": "a", "delta": 0.1, **keys})


def contrast_values(evidence: Evidence, contrast: Contrast) -> dict[int, float]:
    return {seed: known(both) for seed, both in contrast_bounds(evidence, contrast).items()}


def test_how_many_times_the_rows_an_arm_needs() -> None:
    """Seed 3: nine tenths of the way from 0.1 to where the worse one ends, 0.6, is 0.55. a comes there two thirds of
    the way from 100 to 1,000, b half the way from 10 to 100. Seed 5: b is there at the smallest size already."""
    cells = curve("a", {10: (0.2, 0.1), 100: (0.35, 0.3), 1000: (0.65, 0.5)})
    cells |= curve("b", {10: (0.5, 0.8), 100: (0.6, 0.9), 1000: (0.6, 0.9)})
    found = contrast_bounds(evidence(cells), contrast(contrast="rows_ratio", against="b", centre=0.1))
    assert found[3] == pytest.approx((2 + 2 / 3 - 1.5,) * 2)
    level = 0.1 + 0.9 * 0.4
    low, high = found[5]
    assert low == pytest.approx(2 + (level - 0.3) / 0.2 - 1) and high == math.inf, "b needs ten rows at most"


def test_the_exponent_of_what_is_beyond_proportion() -> None:
    """7 n^2 + 300 n: its plain exponent is far from 2 at these lengths, that of the excess exactly 2."""
    cells = curve("a", {n: (7 * n**2 + 300 * n,) * 2 for n in (8, 16, 32, 64, 128)})
    along = {"centre": 2.0}
    excess = contrast_values(evidence(cells), contrast(contrast="excess_exponent", **along))
    assert excess == pytest.approx({3: 0.0, 5: 0.0}, abs=1e-12)
    assert abs(contrast_values(evidence(cells), contrast(contrast="exponent", **along))[3]) > 0.2


def test_the_fall_with_every_doubling() -> None:
    cells = curve("a", {1: (0.5, 0.4), 2: (0.4, 0.4), 4: (0.33, 0.2), 16: (0.1, 0.1)})
    found = contrast_values(evidence(cells), contrast(contrast="slope", per="doubling", falls=True))
    assert found[3] == pytest.approx(-np.polyfit([0, 1, 2, 4], [0.5, 0.4, 0.33, 0.1], 1)[0])


def test_a_run_that_never_got_there_bounds_the_difference() -> None:
    cells = {("a", 1.0): {3: {"last": 9.0}, 5: {"m": 6.0, "last": 9.0}}, ("b", 1.0): {s: {"m": 5.0} for s in SEEDS}}
    asked = contrast(against="b", at=1, censored_at="last")
    assert contrast_bounds(evidence(cells), asked) == {3: (4.0, math.inf), 5: (1.0, 1.0)}
    assert contrast_values(evidence(cells), asked) == {3: 4.0, 5: 1.0}
    other_way = asked.model_copy(update={"arm": "b", "against": "a"})
    assert contrast_bounds(evidence(cells), other_way)[3] == (-math.inf, -4.0)
    both = {**cells, ("b", 1.0): {3: {"last": 9.0}, 5: {"m": 5.0}}}
    assert contrast_bounds(evidence(both), asked)[3] == (-math.inf, math.inf), "nothing is known of two that never did"


def test_solved_or_not_is_a_matter_of_rates() -> None:
    cells = curve("a", {1: (0.97, 0.55)}) | curve("b", {1: (0.5, 0.96)})
    part, seeds = part_of(evidence(cells), contrast(against="b", at=1, solved_at=0.9), SEEDS)
    assert (part.method, part.low, seeds) == ("solved", (1.0, -1.0), (3, 5))
    alone, _ = part_of(evidence(cells), contrast(at=1, solved_at=0.9, centre=0.5), SEEDS)
    assert (alone.method, alone.low, alone.centre) == ("rate", (1.0, 0.0), 0.5)


@pytest.mark.parametrize(
    ("kind", "bad"),
    [
        ("slope", math.nan),
        ("slope", math.inf),
        ("exponent", math.nan),
        ("exponent", math.inf),
        ("excess_exponent", math.nan),
    ],
)
def test_a_line_through_what_is_no_number_is_none(kind: str, bad: float) -> None:
    cells = curve("a", {1: (1.0, 1.0), 2: (5.0, bad), 4: (23.0, 24.0), 8: (70.0, 90.0)})
    found = contrast_values(evidence(cells), contrast(contrast=kind, centre=1.0))
    assert math.isnan(found[5]) and not math.isnan(found[3])


def test_what_is_no_number_is_neither_solved_nor_unsolved_nor_a_curve() -> None:
    cells = curve("a", {1: (0.97, math.nan)}) | curve("b", {1: (0.5, 0.96)})
    part, _ = part_of(evidence(cells), contrast(at=1, solved_at=0.9, centre=0.5), SEEDS)
    assert part.low[0] == 1.0 and math.isnan(part.low[1]) and not part.is_known
    cells = curve("a", {10: (0.2, 0.1), 100: (0.35, math.nan)}) | curve("b", {10: (0.5, 0.8), 100: (0.6, 0.9)})
    found = contrast_bounds(evidence(cells), contrast(contrast="rows_ratio", against="b", centre=0.1))
    assert all(math.isnan(bound) for bound in found[5]) and not any(math.isnan(bound) for bound in found[3])
