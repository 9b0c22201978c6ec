"""The table of a claim's arms as words and links, for the page and for Markdown alike."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from minitx.studies.evidence import Finding
from minitx.studies.report.arms import ArmRow, Measured, arm_rows, measures_of
from minitx.studies.report.words import interval, measure_name, places_for, plain, value_text


@dataclass(frozen=True)
class Run:
    """A run's number, and where it comes from."""

    text: str
    seed: int
    folder: str


@dataclass(frozen=True)
class Cell:
    """What stands in a cell, in this order."""

    strong: str = ""
    runs: tuple[Run, ...] = ()
    text: str = ""

    @property
    def empty(self) -> bool:
        return not (self.strong or self.runs or self.text)


@dataclass(frozen=True)
class Column:
    """A heading, and how to fill a line under it."""

    head: str
    cell: Callable[[ArmRow], Cell]


@dataclass(frozen=True)
class ArmTable:
    """Headings without that of the arm, and the lines of each arm."""

    heads: tuple[str, ...]
    lines: dict[str, list[tuple[Cell, ...]]]
    """Arm -> its lines, one for each value of the axis."""


def arm_table(finding: Finding) -> ArmTable:
    """Columns in which nothing stands are left out."""
    rows = arm_rows(finding)
    columns = [column for column in _columns(finding) if not all(column.cell(row).empty for row in rows)]
    lines: dict[str, list[tuple[Cell, ...]]] = {}
    for row in rows:
        lines.setdefault(row.arm, []).append(tuple(column.cell(row) for column in columns))
    return ArmTable(tuple(column.head for column in columns), lines)


def _columns(finding: Finding) -> list[Column]:
    axis, measures = finding.evidence.tier.axis, measures_of(finding)
    columns = [Column(axis or "", lambda row: Cell(text=value_text(row.value)))]
    for place, measure in enumerate(measures):
        columns += _columns_of(measure_name(measure), place)
    columns.append(Column("parameters", lambda row: Cell(text="" if row.size is None else f"{row.size:,}")))
    if "seconds" not in measures:
        columns.append(Column("seconds", lambda row: Cell(text="" if row.seconds is None else plain(row.seconds, 1))))
    columns.append(Column("tuning chose", lambda row: Cell(text="" if row.tried is None else row.tried.text)))
    return columns


def _columns_of(name: str, place: int) -> list[Column]:
    """Of one measure, the `place`-th of the claim."""
    return [
        Column(f"{name}: mean [95 % over seeds]", lambda row: _mean(row.measured[place])),
        Column("every run", lambda row: _runs(row.measured[place], row.n_seeds)),
        Column("one run's 95 % over test rows", lambda row: _sampling(row.measured[place])),
    ]


def _digits(one: Measured) -> int:
    """Behind the point, for all numbers of one measure of an arm: four that count."""
    return min(6, places_for(one.mean) + 1) if abs(one.mean) < 1000 else 0


def _mean(one: Measured | None) -> Cell:
    if one is None:
        return Cell(text="missing")
    return Cell(strong=plain(one.mean, _digits(one)), text=interval(one.low, one.high, _digits(one)))


def _runs(one: Measured | None, n_seeds: int) -> Cell:
    if one is None:
        return Cell()
    few = f"({len(one.runs)} of {n_seeds} seeds)" if len(one.runs) < n_seeds else ""
    return Cell(
        runs=tuple(Run(plain(number, _digits(one)), seed, folder) for seed, number, folder in one.runs), text=few
    )


def _sampling(one: Measured | None) -> Cell:
    if one is None or one.sampling is None:
        return Cell()
    _, low, high = one.sampling
    return Cell(text=interval(low, high, _digits(one)))
