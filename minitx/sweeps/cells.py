"""A sweep's cells: named by hash, skipped when finished, resumed when half done, and summed up in a table.

A cell is one configuration; an arm is the cells that differ in nothing but the seed.
"""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minitx.config import Config
from minitx.errors import Stopped
from minitx.sweeps.table import Arm, all_metrics, summarise, write_csv, write_plot
from minitx.training.console import Reporter
from minitx.training.run_folder import RunFolder, safe_name


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One combination of swept values."""

    overrides: tuple[str, ...]
    values: Mapping[str, str]
    """Swept key -> this cell's value, as typed."""
    config: Config | None = None
    hash: str = ""
    error: str | None = None
    """Why this combination cannot run at all."""

    @property
    def folder(self) -> str:
        """`<swept values>-<hash>`, safe as a folder name and in an override."""
        values = "_".join(f"{leaf(k)}-{v}" for k, v in self.values.items()) or "cell"
        return safe_name(f"{values}-{self.hash}")

    @property
    def label(self) -> str:
        return " ".join(f"{leaf(k)}={v}" for k, v in self.values.items()) or "the only cell"


@dataclass
class Outcome:
    """What became of a cell."""

    cell: Cell
    results: dict[str, Any] | None = None
    error: str | None = None
    skipped: bool = False
    """It had finished before."""


def leaf(key: str) -> str:
    """`model.n_heads` -> `n_heads`."""
    return key.rsplit(".", 1)[-1]


def sweep_name(cells: Sequence[Cell], swept: Sequence[str]) -> str:
    """`<data>-<swept keys>-<digest of what is typed beside them>`: the same line, or one with more values, finds the
    same folder."""
    names = {cell.config.data.name for cell in cells if cell.config is not None}
    data = names.pop() if len(names) == 1 else "sweep"
    fixed = sorted({o for cell in cells for o in cell.overrides if o.split("=", 1)[0] not in swept})
    digest = hashlib.sha256("\n".join(fixed).encode()).hexdigest()[:6]
    return safe_name("-".join([data, *(leaf(key) for key in swept), digest]))


def run_cells(
    cells: Sequence[Cell], folder: Path, swept: Sequence[str], launch: Callable[[Cell, int], dict[str, Any]]
) -> list[Arm]:
    """Run every cell that has not finished, tell each outcome as it comes, then write table.csv, cells.csv, table.png.

    A failing cell is told and the others go on; if any failed the exit code is 1. Ctrl-C ends the sweep; typed again,
    the same line goes on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    reporter = Reporter(folder / "sweep.log")
    unique = list({cell.hash or cell.label: cell for cell in cells}.values())
    reporter.say(f"sweep   {len(unique)} cells in {folder}")
    if len(unique) < len(cells):
        reporter.warn(f"{len(cells) - len(unique)} cells differ in nothing that changes a result, and run once")
    try:
        outcomes = []
        for number, cell in enumerate(unique):
            outcomes.append(_run_cell(cell, folder, number, launch))
            reporter.say(f"[{number + 1}/{len(unique)}] {cell.label}  {_told(outcomes[-1])}")
    except (Stopped, KeyboardInterrupt) as stop:
        reporter.say("sweep stopped; type the same line again to go on")
        reporter.close()
        raise SystemExit(stop.exit_code if isinstance(stop, Stopped) else 130) from None
    arms = summarise([(o.cell.values, o.results) for o in outcomes if o.results is not None])
    _report(reporter, arms, outcomes, folder, swept)
    reporter.close()
    if any(o.error for o in outcomes):
        raise SystemExit(1)
    return arms


def _run_cell(cell: Cell, folder: Path, number: int, launch: Callable[[Cell, int], dict[str, Any]]) -> Outcome:
    if cell.error is not None:
        return Outcome(cell, error=cell.error)
    before = RunFolder(folder / cell.folder).results()
    if before is not None and before["status"] == "finished":
        return Outcome(cell, results=before, skipped=True)
    try:
        return Outcome(cell, results=launch(cell, number))
    except Exception as error:
        with (folder / "sweep.log").open("a", encoding="utf-8") as log:
            log.write(traceback.format_exc())
        return Outcome(cell, error=(str(error) or repr(error)).splitlines()[0])


def _told(outcome: Outcome) -> str:
    if outcome.results is None:
        return f"FAILED: {outcome.error}"
    metrics = outcome.results["metrics"]["test"]
    shown = "  ".join(f"{name} {m['value']:.4f}" for name, m in metrics.items())
    how = "already done" if outcome.skipped else f"{outcome.results['seconds']:.0f} s"
    return f"{shown}  ({how})"


def _report(
    reporter: Reporter, arms: Sequence[Arm], outcomes: Sequence[Outcome], folder: Path, swept: Sequence[str]
) -> None:
    """The table on the console, both CSV files and the plot."""
    if not arms:
        reporter.say("no cell finished; there is nothing to tabulate")
        return
    keys = [key for key in swept if key != "seed"]
    metrics = all_metrics(arms)
    rows = [
        [
            arm.label(keys),
            str(arm.n_seeds),
            *(arm.metrics[m].text if m in arm.metrics else "" for m in metrics),
            f"{arm.n_params:,}",
            f"{arm.seconds:.0f}",
        ]
        for arm in arms
    ]
    title = "test metrics: mean over seeds with 95 % t interval"
    reporter.table(title, ["arm", "seeds", *metrics, "parameters", "seconds"], rows)
    write_csv(folder, arms, [(o.cell, o.results, o.error) for o in outcomes], keys)
    write_plot(folder / "table.png", arms, keys)
    reporter.say(f"written {folder}/table.csv, cells.csv, table.png")
