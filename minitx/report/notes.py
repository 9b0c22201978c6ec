"""Notes beside a verdict: seeds, missing cells, rules broken on purpose, learning curves, crossings, costs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from minitx.report.curves import crossings, learning_curves, overtakings
from minitx.report.labels import axis_name, measure_name
from minitx.report.ledger import Entry, command_of
from minitx.report.phrases import say, told
from minitx.report.wording import interval, places_for, plain, value_text
from minitx.studies.claims import ClaimResult
from minitx.studies.verdicts import MIN_SEEDS

MOST_MISSING = 12
"""Cells named one by one."""
FAIRNESS: Mapping[str, str] = {
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
    return [Note(say(heading), lines) for heading, lines in notes.items() if lines]


def _curves(result: ClaimResult) -> Iterator[str]:
    for measure in result.measures:
        for arm, curve in learning_curves(result.evidence, measure).items():
            (a, *a_bounds), (c, *c_bounds) = curve.parameter("a"), curve.parameter("c")
            digits = places_for(a)
            yield say(
                "{arm}, {name}: a (what more data leads to) {a}, c {c}",
                arm=arm, name=measure_name(measure),
                a=f"{plain(a, digits)} {interval(a_bounds[0], a_bounds[1], digits)}",
                c=f"{plain(c, 2)} {interval(c_bounds[0], c_bounds[1], 2)}",
            )  # fmt: skip


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
        what = say("The {name} of {a} and {b}", name=measure_name(part.measure), a=part.arm, b=part.against)
        seen = crossings(result.evidence, part)
        for before, after in seen:
            yield say(
                "{what}: the order changes between {axis} {before} and {after}.",
                what=what, axis=axis, before=value_text(before), after=value_text(after),
            )  # fmt: skip
        if not seen:
            yield say("{what}: no change of order seen within the measured range.", what=what)


def _seeds(entry: Entry, result: ClaimResult) -> Iterator[str]:
    evidence = result.evidence
    seeds = ", ".join(str(seed) for seed in evidence.tier.seeds)
    if _is_trained(result):
        yield say("Seeds {seeds}: each fixes initialisation, order and subset, and the arms share them.", seeds=seeds)
    else:
        yield say("Seeds {seeds}: each is a round of timing; nothing is trained.", seeds=seeds)
    devices = sorted({seen.device for seen in evidence.observations if seen.device})
    if devices:
        yield say("Timed on: {devices}.", devices="; ".join(devices))
    if entry.exploratory:
        yield say("Exploratory: with fewer than {n} seeds no verdict is given, whatever the numbers.", n=MIN_SEEDS)
    n_done, n_missing = len(evidence.observations), len(evidence.missing)
    if not n_missing:
        yield say("All {n} cells of the study have finished.", n=n_done)
        return
    named = "; ".join(evidence.missing[:MOST_MISSING])
    if n_missing > MOST_MISSING:
        named = say("{named}; and {n} more", named=named, n=n_missing - MOST_MISSING)
    yield say(
        "Of {all} cells {n} have not finished, and take no part: {named}.",
        all=n_done + n_missing,
        n=n_missing,
        named=named,
    )


def _is_trained(result: ClaimResult) -> bool:
    """Whether the claim is about runs; else about timings."""
    return any(result.evidence.tier.arms[arm].kind == "train" for arm in result.arms)


def _on_purpose(result: ClaimResult) -> Iterator[str]:
    for broken, why in result.evidence.tier.on_purpose.items():
        yield say("Not held to {rule}: {why}", rule=say(FAIRNESS[broken]), why=told(why))


def _other_tier(result: ClaimResult) -> Iterator[str]:
    study = result.evidence.study
    other = "full" if result.tier == "quick" else "quick"
    if getattr(study, other) is not None:
        larger, smaller = (
            (say("the real data sets and larger models"), say("small embedded data"))
            if _is_trained(result)
            else (say("longer texts"), say("shorter texts"))
        )
        what = larger if other == "full" else smaller
        yield say("On {what}: {command}", what=what, command=command_of(result.study, other))
