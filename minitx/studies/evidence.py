"""What a study found: every cell's measures, each contrast seed by seed, and the verdict on each claim.

study-<tier>.json (what was contrast, and where its cells are) -> Evidence -> contrasts -> Holm over all -> ClaimResult.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from minitx.errors import ConfigError
from minitx.studies.statistics import Effect, Verdict, claim_verdict, contrast_effects
from minitx.studies.study import Claim, Contrast, Study, Tier, load_study
from minitx.sweeps.cells import Value, read_measures
from minitx.training.run_folder import RunFolder

LAST_DECADE = 10.0


@dataclass(frozen=True)
class Observation:
    """One finished cell."""

    arm: str
    value: Value | None
    seed: int
    folder: str
    """Relative to the folder of all studies."""
    measures: Mapping[str, float]
    """`test.accuracy`, `loss.test`, `seconds`, `steps`, `n_params_non_embedding`, `fit.gap`, ..."""
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    """Measure -> 95 % interval over the rows that it was measured on, where there is one."""


@dataclass(frozen=True)
class Evidence:
    """A study as it was declared, and its cells that have finished."""

    study: Study
    command: str
    observations: tuple[Observation, ...]
    missing: tuple[str, ...]
    """Labels of cells that have not finished."""
    tuning: Mapping[str, Any] | None
    """The record of what was tried on validation."""
    sizes: Mapping[str, int]
    """`arm` or `arm@value` -> non-embedding parameters."""

    @property
    def tier(self) -> Tier:
        return self.study.chosen

    @cached_property
    def table(self) -> dict[tuple[str, Value | None], dict[int, Observation]]:
        """(arm, value) -> seed -> cell."""
        found: dict[tuple[str, Value | None], dict[int, Observation]] = {}
        for seen in self.observations:
            found.setdefault((seen.arm, seen.value), {})[seen.seed] = seen
        return found

    def per_seed(self, measure: str, arm: str, value: Value | None) -> dict[int, float]:
        """Seed -> the measure, of the cells that have it."""
        cells = self.table.get((arm, value), {})
        return {seed: cell.measures[measure] for seed, cell in cells.items() if measure in cell.measures}


@dataclass(frozen=True)
class ContrastResult:
    """One contrast: its value for each seed, and the effect over seeds."""

    name: str
    contrast: Contrast
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    effect: Effect


@dataclass(frozen=True)
class ClaimResult:
    """A study's contrasts and verdict on one claim."""

    id: str
    claim: Claim
    evidence: Evidence
    contrasts: tuple[ContrastResult, ...]
    verdict: Verdict | None
    """None where a cell that a contrast needs has not finished or lacks the measure: no seed may be missing, because it
    may have failed for the very reason that is studied."""

    @property
    def study(self) -> str:
        return str(self.evidence.study.name)

    @property
    def declared(self) -> Mapping[str, Contrast]:
        """Name -> every contrast of the claim, as declared."""
        return self.evidence.tier.contrasts[self.id]

    @property
    def measures(self) -> list[str]:
        """What its contrasts measure."""
        return list(dict.fromkeys(contrast.measure for contrast in self.declared.values()))

    @property
    def arms(self) -> list[str]:
        """The arms that its contrasts read."""
        read = {arm for contrast in self.declared.values() for arm in (contrast.arm, contrast.against)}
        return [arm for arm in self.evidence.tier.arms if arm in read]

    @property
    def tier(self) -> str:
        return self.evidence.study.tier

    def runs(self) -> list[str]:
        """Folders of every cell that a contrast of the claim reads."""
        return [seen.folder for seen in self.evidence.observations if seen.arm in self.arms]


# ------------------------------------------------------------------------------------------------------------ reading


def read_evidence(record: Path) -> Evidence:
    """The study of a record, study-<tier>.json, with those of its cells that have finished.

    Raises:
        ConfigError: the file is none of minitx.
    """
    try:
        stored = json.loads(record.read_text(encoding="utf-8"))
        study, cells = load_study(stored["study"]), stored["cells"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ConfigError(f"{record} must be a study's record ({error}); run the study again to write it") from None
    root, found, missing = record.parent.parent, [], []
    for cell in cells:
        seen = observe(root, cell["folder"], cell["arm"], cell["value"], cell["seed"])
        if seen is None:
            missing.append(cell["label"])
        else:
            found.append(seen)
    return Evidence(study, stored["command"], tuple(found), tuple(missing), stored["tuning"], stored["sizes"])


def observe(root: Path, folder: str, arm: str, value: Value | None, seed: int) -> Observation | None:
    """A cell's measures, or None while it has not finished."""
    results = RunFolder(root / folder).results()
    if results is None or results["status"] != "finished":
        return None
    measures: dict[str, float] = {f"loss.{split}": loss for split, loss in results.get("loss", {}).items()}
    intervals = {}
    for split, metrics in results["metrics"].items():
        for name, metric in metrics.items():
            measures[f"{split}.{name}"] = metric["value"]
            if metric.get("ci95"):
                intervals[f"{split}.{name}"] = (metric["ci95"][0], metric["ci95"][1])
    measures |= {
        key: results[key]
        for key in ("seconds", "steps", "n_params_non_embedding", "n_train")
        if results.get(key) is not None
    }
    measures |= read_measures(root / folder)
    return Observation(arm, value, seed, folder, measures, intervals)


# ---------------------------------------------------------------------------------------------------------- contrasts


def contrast_values(evidence: Evidence, contrast: Contrast) -> dict[int, float]:
    """Seed -> the contrast; only seeds that have every cell that it reads."""
    return _CONTRASTS[contrast.kind](evidence, contrast)


def _difference(evidence: Evidence, contrast: Contrast) -> dict[int, float]:
    own, other = _sides(evidence, contrast)
    if other is None:
        return {seed: value - contrast.centre for seed, value in own.items()}
    return _paired(own, other, lambda a, b: a - b)


def _log_ratio(evidence: Evidence, contrast: Contrast) -> dict[int, float]:
    own, other = _sides(evidence, contrast)
    assert other is not None, "a study's declaration says so"
    return _paired(own, other, lambda a, b: math.log(a / b)) if _positive(own) and _positive(other) else {}


def _sides(evidence: Evidence, contrast: Contrast) -> tuple[dict[int, float], dict[int, float] | None]:
    own = evidence.per_seed(contrast.measure, contrast.arm, contrast.at)
    if contrast.against is None:
        return own, None
    return own, evidence.per_seed(contrast.measure, contrast.against, contrast.other_at)


def _positive(table: Mapping[int, float]) -> bool:
    """Whether every number has a logarithm."""
    return all(value > 0 for value in table.values())


def _paired(
    own: Mapping[int, float], other: Mapping[int, float], how: Callable[[float, float], float]
) -> dict[int, float]:
    return {seed: how(own[seed], other[seed]) for seed in own if seed in other}


def _slope(evidence: Evidence, contrast: Contrast) -> dict[int, float]:
    """On log10 of the axis, by least squares."""
    values = evidence.tier.values_of(contrast.arm)
    gaps = [_difference(evidence, contrast.model_copy(update={"at": value, "against_at": None})) for value in values]
    log_V = np.log10(np.array(values, dtype=np.float64))
    return {seed: float(np.polyfit(log_V, [gap[seed] for gap in gaps], 1)[0]) for seed in _common(gaps)}


def _exponent(evidence: Evidence, contrast: Contrast) -> dict[int, float]:
    """Minus its centre; on the values of the axis within a decade of the largest."""
    numbers = [float(value) for value in evidence.tier.values_of(contrast.arm) if value is not None]
    there = [n for n in numbers if (contrast.arm, _as_declared(evidence, contrast.arm, n)) in evidence.table]
    top = [n for n in there if n * LAST_DECADE >= max(there)]
    seen = [evidence.per_seed(contrast.measure, contrast.arm, _as_declared(evidence, contrast.arm, n)) for n in top]
    if len(top) < 2 or not all(map(_positive, seen)):
        return {}
    log_V = np.log(top)
    return {
        seed: float(np.polyfit(log_V, np.log([s[seed] for s in seen]), 1)[0]) - contrast.centre
        for seed in _common(seen)
    }


def _as_declared(evidence: Evidence, arm: str, number: float) -> Value | None:
    return next(value for value in evidence.tier.values_of(arm) if value is not None and float(value) == number)


def _common(tables: Sequence[Mapping[int, float]]) -> list[int]:
    """Seeds that all of them have."""
    return sorted(set.intersection(*(set(table) for table in tables))) if tables else []


_CONTRASTS: dict[str, Callable[[Evidence, Contrast], dict[int, float]]] = {
    "difference": _difference,
    "log_ratio": _log_ratio,
    "slope": _slope,
    "exponent": _exponent,
}


# ------------------------------------------------------------------------------------------------------------ verdicts


def evaluate_claims(evidences: Sequence[Evidence]) -> list[ClaimResult]:
    """Every claim of every study, in the order of the claims, with Holm's correction over all contrasts of all of them.

    A contrast that no cell has been run for takes no part in the correction, and its claim has no verdict.
    """
    declared = {
        (number, claim, name): contrast
        for number, evidence in enumerate(evidences)
        for claim, contrasts in evidence.tier.contrasts.items()
        for name, contrast in contrasts.items()
    }
    values = {key: contrast_values(evidences[key[0]], contrast) for key, contrast in declared.items()}
    effects = contrast_effects(
        {key: ([*found.values()], declared[key].delta) for key, found in values.items() if found}
    )
    results = []
    for number, evidence in enumerate(evidences):
        for claim, contrasts in evidence.tier.contrasts.items():
            found = tuple(
                ContrastResult(name, contrast, tuple(by_seed), tuple(by_seed.values()), effects[number, claim, name])
                for name, contrast in contrasts.items()
                if (by_seed := values[number, claim, name])
            )
            results.append(_claim_result(claim, evidence, found))
    return sorted(results, key=lambda result: (result.claim.order, result.id, result.tier))


def _claim_result(claim: str, evidence: Evidence, found: tuple[ContrastResult, ...]) -> ClaimResult:
    """With a verdict where every contrast has all its seeds."""
    whole = len(found) == len(evidence.tier.contrasts[claim]) and all(
        set(one.seeds) == _seeds_of(evidence.tier, one.contrast) for one in found
    )
    verdict = claim_verdict([(one.effect.verdict, one.contrast.expect) for one in found]) if whole else None
    return ClaimResult(claim, evidence.study.claims[claim], evidence, found, verdict)


def _seeds_of(tier: Tier, contrast: Contrast) -> set[int]:
    """Seeds that both arms have."""
    return set(tier.seeds_of(contrast.arm)) & set(tier.seeds_of(contrast.against or contrast.arm))
