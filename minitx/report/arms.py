"""The table of arms: mean and interval over seeds, every run, size, time and what tuning chose."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from minitx.report.labels import measure_name
from minitx.report.phrases import say
from minitx.report.wording import interval, places_for, plain, value_text
from minitx.studies.claims import ClaimResult
from minitx.studies.evidence import Evidence, Observation
from minitx.studies.statistics import paired_interval
from minitx.studies.tuning import Tuned
from minitx.sweeps.cells import Value, place_name


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
        if self.n_tries < 2:
            return self.chosen
        return say("{chosen}, best of {n}", chosen=self.chosen, n=self.n_tries)


@dataclass(frozen=True)
class ArmRow:
    """One line of the table of arms."""

    arm: str
    value: Value | None
    measured: tuple[Measured | None, ...]
    """In the order of the claim's measures; None where no cell has it."""
    size: int | None
    """Non-embedding parameters."""
    seconds: float | None
    """Mean training time."""
    n_seeds: int
    """As declared; fewer runs may have finished."""
    tried: Tried | None


def arm_rows(result: ClaimResult) -> list[ArmRow]:
    """Every arm and value that has one of the claim's measures, or is read by one of its contrasts."""
    evidence, measures, read = result.evidence, result.measures, result.arms
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
    planned = evidence.sizes.get(place_name((arm, value)), evidence.sizes.get(arm))
    counted = _mean(cells, "n_params_non_embedding")
    return planned if planned is not None or counted is None else round(counted)


def _mean(cells: list[Observation], measure: str) -> float | None:
    numbers = [cell.measures[measure] for cell in cells if measure in cell.measures]
    return sum(numbers) / len(numbers) if numbers else None


def _tried(evidence: Evidence, arm: str, value: Value | None) -> Tried | None:
    tier, stored = evidence.tier, evidence.tuning
    if stored is None or tier.tuning is None:
        return None
    tuned = Tuned(tier.tuning, stored["of"], stored["metric"], stored["scores"])
    best, scores = tuned.best(tier, (arm, value)), tuned.scores_of(tier, (arm, value))
    return None if best is None else Tried(best, len(scores), tuned.metric, scores[best])


@dataclass(frozen=True)
class RunLink:
    """One run's number, and the folder that it comes from."""

    text: str
    seed: int
    folder: str


@dataclass(frozen=True)
class TableCell:
    """The contents of a table's cell: a bold number, numbers of runs, and text."""

    strong: str = ""
    runs: tuple[RunLink, ...] = ()
    text: str = ""

    @property
    def empty(self) -> bool:
        return not (self.strong or self.runs or self.text)


@dataclass(frozen=True)
class Column:
    """A heading, and the cell of each row below it."""

    head: str
    cell: Callable[[ArmRow], TableCell]


@dataclass(frozen=True)
class ArmTable:
    """Headings beside that of the arm, and the rows of each arm."""

    heads: tuple[str, ...]
    lines: dict[str, list[tuple[TableCell, ...]]]
    """Arm -> its rows, one for each value of the axis."""


def arm_table(result: ClaimResult) -> ArmTable:
    """The table without its empty columns."""
    rows = arm_rows(result)
    columns = [column for column in _columns(result) if not all(column.cell(row).empty for row in rows)]
    lines: dict[str, list[tuple[TableCell, ...]]] = {}
    for row in rows:
        lines.setdefault(row.arm, []).append(tuple(column.cell(row) for column in columns))
    return ArmTable(tuple(column.head for column in columns), lines)


def _columns(result: ClaimResult) -> list[Column]:
    axis, measures = result.evidence.tier.axis, result.measures
    columns = [Column(axis or "", lambda row: TableCell(text=value_text(row.value)))]
    for place, measure in enumerate(measures):
        columns += _columns_of(measure_name(measure), place)
    columns.append(Column(say("parameters"), lambda row: TableCell(text="" if row.size is None else f"{row.size:,}")))
    if "seconds" not in measures:
        columns.append(
            Column(say("seconds"), lambda row: TableCell(text="" if row.seconds is None else plain(row.seconds, 1)))
        )
    columns.append(Column(say("tuning chose"), lambda row: TableCell(text="" if row.tried is None else row.tried.text)))
    return columns


def _columns_of(name: str, place: int) -> list[Column]:
    """Of one measure, the `place`-th of the claim."""
    return [
        Column(say("{name}: mean [95 % over seeds]", name=name), lambda row: _shown_mean(row.measured[place])),
        Column(say("every run"), lambda row: _runs(row.measured[place], row.n_seeds)),
        Column(say("one run's 95 % over test rows"), lambda row: _sampling(row.measured[place])),
    ]


def _digits(one: Measured) -> int:
    """Decimal places for all numbers of one measure of an arm: four significant digits."""
    return min(6, places_for(one.mean) + 1) if abs(one.mean) < 1000 else 0


def _shown_mean(one: Measured | None) -> TableCell:
    if one is None:
        return TableCell(text=say("missing"))
    known = math.isfinite(one.low)  # not of one seed, nor of seeds that are all equal
    return TableCell(
        strong=plain(one.mean, _digits(one)), text=interval(one.low, one.high, _digits(one)) if known else ""
    )


def _runs(one: Measured | None, n_seeds: int) -> TableCell:
    if one is None:
        return TableCell()
    few = say("({n} of {all} seeds)", n=len(one.runs), all=n_seeds) if len(one.runs) < n_seeds else ""
    return TableCell(
        runs=tuple(RunLink(plain(number, _digits(one)), seed, folder) for seed, number, folder in one.runs), text=few
    )


def _sampling(one: Measured | None) -> TableCell:
    if one is None or one.sampling is None:
        return TableCell()
    _, low, high = one.sampling
    return TableCell(text=interval(low, high, _digits(one)))
