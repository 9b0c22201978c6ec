"""A plain sweep: its cells run, then summed up as mean and 95 % interval over seeds, in CSV files and a plot."""

from __future__ import annotations

import csv
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minitx.errors import Stopped
from minitx.sweeps.cells import Cell, leaf
from minitx.sweeps.executor import Backend, InThisProcess, local_workers, run_cells
from minitx.sweeps.launched import MakeLauncher, launched
from minitx.sweeps.progress import CellStatus, ProgressTable
from minitx.training.console import Reporter
from minitx.training.run_folder import RunFolder, safe_name


def sweep_name(cells: Sequence[Cell], swept: Sequence[str]) -> str:
    """`<data>-<swept keys>-<digest of what is typed beside them>`: the same line, or one with more values, finds the
    same folder."""
    names = {cell.config.data.name for cell in cells if cell.config is not None}
    data = names.pop() if len(names) == 1 else "sweep"
    fixed = sorted({o for cell in cells for o in cell.overrides if o.split("=", 1)[0] not in swept})
    digest = hashlib.sha256("\n".join(fixed).encode()).hexdigest()[:6]
    return safe_name("-".join([data, *(leaf(key) for key in swept), digest]))


def run_sweep(
    cells: Sequence[Cell], folder: Path, swept: Sequence[str], workers: int | InThisProcess | MakeLauncher
) -> list[ArmSummary]:
    """Run every cell that has not finished, then write table.csv, cells.csv and table.png.

    workers: how many processes, or what runs the cells in this one, or a launcher.

    Raises:
        SystemExit: 1 when a cell failed, 130 or 143 when the sweep was stopped; typed again, the same line goes on.
    """
    folder.mkdir(parents=True, exist_ok=True)
    reporter = Reporter(folder / "sweep.log")
    try:
        unique = list({cell.key: cell for cell in cells}.values())
        reporter.info(f"sweep   {len(unique)} cells in {folder}")
        if len(unique) < len(cells):
            reporter.warning(f"{len(cells) - len(unique)} cells differ in nothing that changes a result, and run once")
        status = CellStatus(unique, {cell.key: folder / cell.folder for cell in unique})
        with ProgressTable(folder.name, reporter) as table:
            run_cells(status, _backend(workers, status, folder, reporter), table, reporter)
        outcomes = [_outcome(cell, status) for cell in unique]
        arms = summarise([(cell.values, results) for cell, results, _ in outcomes if results is not None])
        _report(reporter, arms, outcomes, folder, swept)
    except Stopped as stop:
        reporter.info(str(stop))
        raise SystemExit(stop.exit_code) from None
    finally:
        reporter.close()
    if status.failed:
        raise SystemExit(1)
    return arms


def _backend(
    workers: int | InThisProcess | MakeLauncher, status: CellStatus, folder: Path, reporter: Reporter
) -> Callable[[Sequence[Cell]], Backend]:
    if isinstance(workers, int):
        return local_workers(workers, folder, reporter)
    if isinstance(workers, InThisProcess):
        return lambda _: workers
    return launched(workers, status, folder, reporter)


Outcome = tuple[Cell, Mapping[str, Any] | None, str | None]
"""(cell, its results.json, or the error that it failed with)"""


def _outcome(cell: Cell, status: CellStatus) -> Outcome:
    done = cell.key in status.done
    return cell, RunFolder(status.folder_of(cell)).results() if done else None, status.failed.get(cell.key)


def _report(
    reporter: Reporter, arms: Sequence[ArmSummary], outcomes: Sequence[Outcome], folder: Path, swept: Sequence[str]
) -> None:
    """The table on the console, both CSV files and the plot."""
    if not arms:
        reporter.info("no cell finished; there is nothing to tabulate")
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
    write_csv(folder, arms, outcomes, keys)
    write_plot(folder / "table.png", arms, keys)
    reporter.info(f"written {folder}/table.csv, cells.csv, table.png")


# ---------------------------------------------------------------------------------------------------------- the table


@dataclass(frozen=True)
class Mean:
    """A mean over seeds and its t interval; no interval from a single seed."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        return math.fsum(self.values) / len(self.values)

    @property
    def half_width(self) -> float | None:
        """Half of the 95 % interval by Student's t with n - 1 degrees of freedom; None where n = 1, or where all
        values are equal and so say nothing of their spread."""
        n = len(self.values)
        if n < 2 or min(self.values) == max(self.values):
            return None
        from scipy.stats import t

        variance = math.fsum((v - self.mean) ** 2 for v in self.values) / (n - 1)
        return float(t.ppf(0.975, n - 1)) * math.sqrt(variance / n)

    @property
    def text(self) -> str:
        half = self.half_width
        return f"{self.mean:.4f}" + ("" if half is None else f" ± {half:.4f}")


@dataclass(frozen=True, kw_only=True)
class ArmSummary:
    """The finished cells that differ in the seed alone."""

    values: Mapping[str, str]
    metrics: Mapping[str, Mean]
    n_params: int
    seconds: float
    """Mean training time."""

    @property
    def n_seeds(self) -> int:
        return len(next(iter(self.metrics.values())).values)

    def label(self, keys: Sequence[str]) -> str:
        return " ".join(f"{leaf(key)}={self.values[key]}" for key in keys) or "all"


def summarise(cells: Sequence[tuple[Mapping[str, str], Mapping[str, Any]]], split: str = "test") -> list[ArmSummary]:
    """Group (swept values, results.json) pairs into arms, in the order in which arms first appear."""
    groups: dict[tuple[tuple[str, str], ...], list[Mapping[str, Any]]] = {}
    for values, results in cells:
        groups.setdefault(tuple((k, v) for k, v in values.items() if k != "seed"), []).append(results)
    return [_arm(dict(key), members, split) for key, members in groups.items()]


def _arm(values: dict[str, str], members: Sequence[Mapping[str, Any]], split: str) -> ArmSummary:
    names = members[0]["metrics"][split]
    return ArmSummary(
        values=values,
        metrics={name: Mean(tuple(m["metrics"][split][name]["value"] for m in members)) for name in names},
        n_params=members[0]["n_params"],
        seconds=math.fsum(m["seconds"] for m in members) / len(members),
    )


def all_metrics(arms: Sequence[ArmSummary]) -> list[str]:
    """Names of every metric that any arm has, in order of appearance: arms of different tasks have different ones."""
    return list(dict.fromkeys(name for arm in arms for name in arm.metrics))


def write_csv(
    folder: Path,
    arms: Sequence[ArmSummary],
    cells: Sequence[Outcome],
    keys: Sequence[str],
) -> None:
    """table.csv, one line an arm; cells.csv, one line a cell, failed ones with their error."""
    metrics = all_metrics(arms)
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(
            [*keys, "n_seeds", *(f"{m}_{part}" for m in metrics for part in ("mean", "ci95_half_width")), "n_params"]
        )
        for arm in arms:
            means = [arm.metrics.get(m) for m in metrics]
            scores = [x for mean in means for x in ((mean.mean, mean.half_width) if mean else ("", ""))]
            writer.writerow([*(arm.values[k] for k in keys), arm.n_seeds, *scores, arm.n_params])
    swept = list(cells[0][0].values)
    with (folder / "cells.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*swept, *metrics, "folder", "error"])
        for cell, results, error in cells:
            tested = results["metrics"]["test"] if results else {}
            values = [tested[m]["value"] if m in tested else "" for m in metrics]
            writer.writerow([*(cell.values[k] for k in swept), *values, cell.folder if results else "", error or ""])


def write_plot(path: Path, arms: Sequence[ArmSummary], keys: Sequence[str]) -> None:
    """One panel a metric: every seed as a dot, mean and interval per arm; numbers to scale, names in order."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    metrics = all_metrics(arms)
    figure = Figure(figsize=(1 + 4.2 * len(metrics), 3.6), layout="constrained")
    FigureCanvasAgg(figure)
    places, numeric = _places(arms, keys)
    for axes, metric in zip(figure.subplots(1, len(metrics), squeeze=False)[0], metrics, strict=True):
        for place, arm in zip(places, arms, strict=True):
            if metric not in arm.metrics:
                continue
            mean = arm.metrics[metric]
            axes.plot([place] * arm.n_seeds, mean.values, "o", color="#888888", markersize=3.5, alpha=0.8, zorder=1)
            axes.errorbar(
                [place], [mean.mean], yerr=mean.half_width or 0, fmt="D", color="#0b5394", capsize=4, zorder=2
            )
        axes.set_ylabel(f"test {metric}")
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        axes.spines[["top", "right"]].set_visible(False)
        if numeric:
            if min(places) > 0 and max(places) / min(places) >= 4:
                axes.set_xscale("log")
            axes.set_xticks(places, [arm.values[keys[0]] for arm in arms])
            axes.minorticks_off()
            axes.set_xlabel(keys[0])
        else:
            axes.set_xticks(places, [arm.label(keys) for arm in arms], rotation=20, ha="right", fontsize=8)
    figure.suptitle("mean and 95 % interval over seeds (diamonds), every seed (dots)", fontsize=9)
    figure.savefig(path, dpi=150)


def _places(arms: Sequence[ArmSummary], keys: Sequence[str]) -> tuple[list[float], bool]:
    """Each arm's position on the x axis, and whether the axis is of numbers."""
    if len(keys) == 1:
        try:
            return [float(arm.values[keys[0]]) for arm in arms], True
        except ValueError:  # names such as `rotary`: in order instead
            pass
    return [float(i) for i in range(len(arms))], False
