"""What a study found: every cell's measures, each contrast seed by seed, and the verdict on each claim.

study-<tier>.json (what was declared, and where its cells are) -> Evidence -> contrasts -> Holm over all -> ClaimResult.
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
    """A study's record with all that has finished of it."""

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
    """One contrast: its number for each seed, and what that says."""

    name: str
    part: Contrast
    seeds: tuple[int, ...]
    values: tuple[float, ...]
    effect: Effect


@dataclass(frozen=True)
class ClaimResult:
    """What a study says of a claim."""

    id: str
    claim: Claim
    evidence: Evidence
    parts: tuple[ContrastResult, ...]
    verdict: Verdict | None
    """None: cells that a contrast needs have not finished, or have not what it measures. No seed may be missing, for it
    may have failed for the very thing that is studied."""

    @property
    def study(self) -> str:
        return str(self.evidence.study.name)

    @property
    def tier(self) -> str:
        return self.evidence.study.tier

    def runs(self) -> list[str]:
        """Folders of every cell that a contrast of the claim reads."""
        arms = {arm for p in self.evidence.tier.contrasts[self.id].values() for arm in (p.arm, p.against)}
        return [seen.folder for seen in self.evidence.observations if seen.arm in arms]


# ------------------------------------------------------------------------------------------------------------ reading


def read_evidence(record: Path) -> Evidence:
    """The study that `record`, a study-<tier>.json, tells of, as far as its cells have finished.

    Raises:
        ConfigError: the file is none of minitx.
    """
    try:
        told = json.loads(record.read_text(encoding="utf-8"))
        study, cells = load_study(told["study"]), told["cells"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ConfigError(f"{record} must be a study's record ({error}); run the study again to write it") from None
    root, found, missing = record.parent.parent, [], []
    for cell in cells:
        seen = observe(root, cell["folder"], cell["arm"], cell["value"], cell["seed"])
        if seen is None:
            missing.append(cell["label"])
        else:
            found.append(seen)
    return Evidence(study, told["command"], tuple(found), tuple(missing), told["tuning"], told["sizes"])


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


def contrast_values(evidence: Evidence, part: Contrast) -> dict[int, float]:
    """Seed -> the contrast; only seeds that have every cell that it reads."""
    return _CONTRASTS[part.contrast](evidence, part)


def _difference(evidence: Evidence, part: Contrast) -> dict[int, float]:
    own, other = _sides(evidence, part)
    if other is None:
        return {seed: value - part.centre for seed, value in own.items()}
    return _paired(own, other, lambda a, b: a - b)


def _log_ratio(evidence: Evidence, part: Contrast) -> dict[int, float]:
    own, other = _sides(evidence, part)
    assert other is not None, "a study's declaration says so"
    return _paired(own, other, lambda a, b: math.log(a / b)) if _positive(own) and _positive(other) else {}


def _sides(evidence: Evidence, part: Contrast) -> tuple[dict[int, float], dict[int, float] | None]:
    own = evidence.per_seed(part.measure, part.arm, part.at)
    if part.against is None:
        return own, None
    return own, evidence.per_seed(part.measure, part.against, part.other_at)


def _positive(table: Mapping[int, float]) -> bool:
    """Whether every number has a logarithm."""
    return all(value > 0 for value in table.values())


def _paired(
    own: Mapping[int, float], other: Mapping[int, float], how: Callable[[float, float], float]
) -> dict[int, float]:
    return {seed: how(own[seed], other[seed]) for seed in own if seed in other}


def _slope(evidence: Evidence, part: Contrast) -> dict[int, float]:
    """On log10 of the axis, by least squares."""
    values = evidence.tier.values_of(part.arm)
    gaps = [_difference(evidence, part.model_copy(update={"at": value, "against_at": None})) for value in values]
    log_V = np.log10(np.array(values, dtype=np.float64))
    return {seed: float(np.polyfit(log_V, [gap[seed] for gap in gaps], 1)[0]) for seed in _common(gaps)}


def _exponent(evidence: Evidence, part: Contrast) -> dict[int, float]:
    """Minus its centre; on the values of the axis within a decade of the largest."""
    numbers = [float(value) for value in evidence.tier.values_of(part.arm) if value is not None]
    there = [n for n in numbers if (part.arm, _as_declared(evidence, part.arm, n)) in evidence.table]
    top = [n for n in there if n * LAST_DECADE >= max(there)]
    seen = [evidence.per_seed(part.measure, part.arm, _as_declared(evidence, part.arm, n)) for n in top]
    if len(top) < 2 or not all(map(_positive, seen)):
        return {}
    log_V = np.log(top)
    return {
        seed: float(np.polyfit(log_V, np.log([s[seed] for s in seen]), 1)[0]) - part.centre for seed in _common(seen)
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
    """Every claim of every study, in the order of the ledger, with Holm's correction over all contrasts of all of them.

    A contrast that no cell has been run for takes no part in the correction, and its claim has no verdict.
    """
    found: dict[tuple[int, str, str], tuple[Contrast, dict[int, float]]] = {}
    for number, evidence in enumerate(evidences):
        for claim, parts in evidence.tier.contrasts.items():
            for name, part in parts.items():
                found[number, claim, name] = part, contrast_values(evidence, part)
    known = {key: (list(values.values()), part.delta) for key, (part, values) in found.items() if values}
    effects = contrast_effects({"\0".join(map(str, key)): pair for key, pair in known.items()})
    findings = []
    for number, evidence in enumerate(evidences):
        for claim, parts in evidence.tier.contrasts.items():
            seen = [
                ContrastResult(name, part, tuple(values), tuple(values.values()), effects["\0".join(map(str, key))])
                for name in parts
                for key in [(number, claim, name)]
                for part, values in [found[key]]
                if values
            ]
            whole = len(seen) == len(parts) and all(
                set(p.seeds)
                == set(evidence.tier.seeds_of(p.part.arm)) & set(evidence.tier.seeds_of(p.part.against or p.part.arm))
                for p in seen
            )
            verdict = claim_verdict([(p.effect.verdict, p.part.expect) for p in seen]) if whole else None
            findings.append(ClaimResult(claim, evidence.study.claims[claim], evidence, tuple(seen), verdict))
    return sorted(findings, key=lambda finding: (finding.claim.order, finding.id, finding.tier))
