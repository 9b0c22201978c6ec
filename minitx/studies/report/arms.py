"""What every arm reached: mean and interval over seeds, every run, one run's sampling interval, size, time, tuning."""

from __future__ import annotations

from dataclasses import dataclass

from minitx.studies.evidence import Evidence, Finding, Observation
from minitx.studies.statistics import paired_interval
from minitx.studies.study import Value, place_name
from minitx.studies.tuning import Tuned


@dataclass(frozen=True)
class Measured:
    """One measure of an arm at one value of the axis."""

    measure: str
    runs: tuple[tuple[int, float, str], ...]
    """(seed, number, folder)"""
    mean: float
    low: float
    """Of the 95 % t interval over seeds; infinite for one seed."""
    high: float
    sampling: tuple[int, float, float] | None
    """(seed, low, high): 95 % interval of that run over the rows it was tested on."""


@dataclass(frozen=True)
class Tried:
    """What tuning chose."""

    chosen: str
    n_tries: int
    metric: str
    score: float

    @property
    def text(self) -> str:
        """`lr 1e-3, best of 4`"""
        return f"{self.chosen}, best of {self.n_tries}" if self.n_tries > 1 else self.chosen


@dataclass(frozen=True)
class ArmRow:
    """One line of the table of arms."""

    arm: str
    value: Value | None
    measured: tuple[Measured | None, ...]
    """In the order of `measures_of`; None where no cell has it."""
    size: int | None
    """Non-embedding parameters."""
    seconds: float | None
    """Mean training time."""
    n_seeds: int
    """Declared; as many runs as have finished may be fewer."""
    tried: Tried | None


def measures_of(finding: Finding) -> list[str]:
    """What the claim's contrasts measure."""
    parts = finding.evidence.tier.contrasts[finding.claim.id].values()
    return list(dict.fromkeys(part.measure for part in parts))


def arms_read(finding: Finding) -> list[str]:
    """Arms that the claim's contrasts read."""
    parts = finding.evidence.tier.contrasts[finding.claim.id].values()
    return [arm for arm in finding.evidence.tier.arms if any(arm in (part.arm, part.against) for part in parts)]


def arm_rows(finding: Finding) -> list[ArmRow]:
    """Every arm and value that has one of the claim's measures, and those that a contrast reads without any."""
    evidence, measures, read = finding.evidence, measures_of(finding), arms_read(finding)
    rows = []
    for arm in evidence.tier.arms:
        for value in evidence.tier.values_of(arm):
            measured = tuple(_measured(evidence, measure, arm, value) for measure in measures)
            if arm in read or any(measured):
                rows.append(_row(evidence, arm, value, measured))
    return rows


def _measured(evidence: Evidence, measure: str, arm: str, value: Value | None) -> Measured | None:
    cells = evidence.table.get((arm, value), {})
    seen = [(seed, cells[seed]) for seed in sorted(cells) if measure in cells[seed].measures]
    if not seen:
        return None
    runs = tuple((seed, cell.measures[measure], cell.folder) for seed, cell in seen)
    sampled = next(((seed, *cell.intervals[measure]) for seed, cell in seen if measure in cell.intervals), None)
    return Measured(measure, runs, *paired_interval([number for _, number, _ in runs]), sampled)


def _row(evidence: Evidence, arm: str, value: Value | None, measured: tuple[Measured | None, ...]) -> ArmRow:
    cells, n_seeds = list(evidence.table.get((arm, value), {}).values()), len(evidence.tier.seeds_of(arm))
    size, seconds = _size(evidence, arm, value, cells), _mean(cells, "seconds")
    return ArmRow(arm, value, measured, size, seconds, n_seeds, _tried(evidence, arm, value))


def _size(evidence: Evidence, arm: str, value: Value | None, cells: list[Observation]) -> int | None:
    told = evidence.sizes.get(place_name((arm, value)), evidence.sizes.get(arm))
    counted = _mean(cells, "n_params_non_embedding")
    return told if told is not None or counted is None else round(counted)


def _mean(cells: list[Observation], measure: str) -> float | None:
    numbers = [cell.measures[measure] for cell in cells if measure in cell.measures]
    return sum(numbers) / len(numbers) if numbers else None


def _tried(evidence: Evidence, arm: str, value: Value | None) -> Tried | None:
    tier, told = evidence.tier, evidence.tuning
    if told is None or tier.tuning is None:
        return None
    tuned = Tuned(tier.tuning, told["of"], told["metric"], told["scores"])
    best, scores = tuned.best(tier, (arm, value)), tuned.scores_of(tier, (arm, value))
    return None if best is None else Tried(best, len(scores), tuned.metric, scores[best])
