"""Notes beside a verdict: seeds, missing cells, rules broken on purpose, learning curves, crossings, costs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from minitx.report.curves import crossings, learning_curves, overtakings
from minitx.report.ledger import Entry, command_of
from minitx.report.wording import axis_name, interval, measure_name, places_for, plain, value_text
from minitx.studies.claims import ClaimResult
from minitx.studies.verdicts import MIN_SEEDS

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
    """A heading and the lines under it."""

    heading: str
    lines: tuple[str, ...]


def notes_of(entry: Entry, result: ClaimResult) -> list[Note]:
    """All notes that are not empty."""
    notes = {
        "Learning curves": tuple(_curves(result)),
        "Crossings": tuple(_crossings(entry, result)),
        "Where the square overtakes the rest": tuple(overtakings(result.evidence)),
        "Seeds and missing cells": tuple(_seeds(entry, result)),
        "Rules of fairness broken on purpose": tuple(_on_purpose(result)),
        "The other tier": tuple(_other_tier(result)),
    }
    return [Note(heading, lines) for heading, lines in notes.items() if lines]


def _curves(result: ClaimResult) -> Iterator[str]:
    for measure in result.measures:
        for arm, curve in learning_curves(result.evidence, measure).items():
            (a, *a_bounds), (c, *c_bounds) = curve.parameter("a"), curve.parameter("c")
            digits = places_for(a)
            limit = f"a (what more data leads to) {plain(a, digits)} {interval(a_bounds[0], a_bounds[1], digits)}"
            yield f"{arm}, {measure_name(measure)}: {limit}, c {plain(c, 2)} {interval(c_bounds[0], c_bounds[1], 2)}"


def _crossings(entry: Entry, result: ClaimResult) -> Iterator[str]:
    axis = axis_name(result.evidence.tier.axis)
    pairs = {
        (one.contrast.arm, one.contrast.against, one.contrast.measure): one.contrast
        for one in entry.contrasts
        if one.contrast.kind == "slope"
    }
    for part in pairs.values():
        if part.against is None:
            continue
        what = f"The {measure_name(part.measure)} of {part.arm} and {part.against}"
        seen = crossings(result.evidence, part)
        for before, after in seen:
            yield f"{what}: the order changes between {axis} {value_text(before)} and {value_text(after)}."
        if not seen:
            yield f"{what}: no change of order seen within the measured range."


def _seeds(entry: Entry, result: ClaimResult) -> Iterator[str]:
    evidence = result.evidence
    seeds = ", ".join(str(seed) for seed in evidence.tier.seeds)
    if _is_trained(result):
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


def _is_trained(result: ClaimResult) -> bool:
    """Whether the claim is about runs; else about timings."""
    return any(result.evidence.tier.arms[arm].kind == "train" for arm in result.arms)


def _on_purpose(result: ClaimResult) -> Iterator[str]:
    for broken, why in result.evidence.tier.on_purpose.items():
        yield f"Not held to {FAIRNESS[broken]}: {why}"


def _other_tier(result: ClaimResult) -> Iterator[str]:
    study = result.evidence.study
    other = "full" if result.tier == "quick" else "quick"
    if getattr(study, other) is not None:
        larger, smaller = (
            ("the real data sets and larger models", "small embedded data")
            if _is_trained(result)
            else ("longer texts", "shorter texts")
        )
        what = larger if other == "full" else smaller
        yield f"On {what}: {command_of(result.study, other)}"
