"""What a reader must know beside a verdict: seeds, missing cells, rules broken on purpose, curves, crossings, costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from minitx.report.arms import arms_read, measures_of
from minitx.report.curves import crossings, learning_curves, overtakings
from minitx.report.ledger import Entry, command_of
from minitx.report.wording import axis_name, interval, measure_name, places_for, plain, value_text
from minitx.studies.evidence import ClaimResult
from minitx.studies.statistics import MIN_SEEDS

MOST_MISSING = 12
"""Cells named one by one."""
FAIRNESS = {
    "size": "equal numbers of parameters",
    "data": "the same data",
    "head": "the same embedding and head",
    "budget": "the same budget of training",
    "tuning": "the same number of tries in tuning",
}


@dataclass(frozen=True)
class Note:
    """A heading, and what there is to say under it."""

    heading: str
    lines: tuple[str, ...]


def notes_of(entry: Entry, found: ClaimResult) -> list[Note]:
    """Those that have something to say."""
    told = {
        "Learning curves": tuple(_curves(found)),
        "Crossings": tuple(_crossings(entry, found)),
        "Where the square overtakes the rest": tuple(overtakings(found.evidence)),
        "Seeds and missing cells": tuple(_seeds(entry, found)),
        "Rules of fairness broken on purpose": tuple(_on_purpose(found)),
        "The other tier": tuple(_other_tier(found)),
    }
    return [Note(heading, lines) for heading, lines in told.items() if lines]


def _curves(found: ClaimResult) -> Iterator[str]:
    for measure in measures_of(found):
        for arm, curve in learning_curves(found.evidence, measure).items():
            (a, *a_bounds), (c, *c_bounds) = curve.parameter("a"), curve.parameter("c")
            digits = places_for(a)
            limit = f"a (what more data leads to) {plain(a, digits)} {interval(a_bounds[0], a_bounds[1], digits)}"
            yield f"{arm}, {measure_name(measure)}: {limit}, c {plain(c, 2)} {interval(c_bounds[0], c_bounds[1], 2)}"


def _crossings(entry: Entry, found: ClaimResult) -> Iterator[str]:
    axis = axis_name(found.evidence.tier.axis)
    pairs = {(p.part.arm, p.part.against, p.part.measure): p.part for p in entry.parts if p.part.contrast == "slope"}
    for part in pairs.values():
        if part.against is None:
            continue
        what = f"The {measure_name(part.measure)} of {part.arm} and {part.against}"
        seen = crossings(found.evidence, part)
        for before, after in seen:
            yield f"{what}: the order changes between {axis} {value_text(before)} and {value_text(after)}."
        if not seen:
            yield f"{what}: no change of order seen within the measured range."


def _seeds(entry: Entry, found: ClaimResult) -> Iterator[str]:
    evidence = found.evidence
    seeds = ", ".join(str(seed) for seed in evidence.tier.seeds)
    if _is_trained(found):
        yield f"Seeds {seeds}: each fixes initialisation, order and subset, and the arms share them."
    else:
        yield f"Seeds {seeds}: each is a round of timing; nothing is trained."
    if entry.exploratory:
        yield f"Exploratory: with fewer than {MIN_SEEDS} seeds no verdict is given, whatever the numbers."
    n_done, n_missing = len(evidence.observations), len(evidence.missing)
    if not n_missing:
        yield f"All {n_done} cells of the study have finished."
        return
    named = "; ".join(evidence.missing[:MOST_MISSING])
    more = f"; and {n_missing - MOST_MISSING} more" if n_missing > MOST_MISSING else ""
    yield f"Of {n_done + n_missing} cells {n_missing} have not finished, and take no part: {named}{more}."


def _is_trained(found: ClaimResult) -> bool:
    """Whether the claim is about runs; else about timings."""
    return any(found.evidence.tier.arms[arm].kind == "train" for arm in arms_read(found))


def _on_purpose(found: ClaimResult) -> Iterator[str]:
    for broken, why in found.evidence.tier.on_purpose.items():
        yield f"Not held to {FAIRNESS[broken]}: {why}"


def _other_tier(found: ClaimResult) -> Iterator[str]:
    study = found.evidence.study
    other = "full" if found.tier == "quick" else "quick"
    if getattr(study, other) is not None:
        larger, smaller = (
            ("the real data sets and larger models", "small embedded data")
            if _is_trained(found)
            else ("longer texts", "shorter texts")
        )
        what = larger if other == "full" else smaller
        yield f"On {what}: {command_of(found.study, other)}"
