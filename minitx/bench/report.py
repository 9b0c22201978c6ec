"""What a run of the suite has found so far, on disk after every measurement; its tables and its figures."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from minitx.bench.jobs import Job, Plan
from minitx.bench.measure import FORMULA
from minitx.bench.worker import Life, Workers
from minitx.training.console import Reporter
from minitx.training.run_folder import write_atomic

WORKER_SECONDS = 1200.0
"""No single measurement takes longer, outside a part's own limit."""
NOTES = (
    "Dropout is 0.1 on embeddings and sub-layer outputs for everybody. On the attention weights each contestant has "
    "its own default: minitx none, torch (nn.MultiheadAttention) 0.1, transformers (BERT) 0.1.",
    "Real tokens are counted, never padding: of the text in classification, of the target side in translation.",
    "minitx and torch are pre-norm; transformers' BERT is post-norm and has a pooler (a further D x D matrix).",
    "Every measurement is a process of its own; contestants take turns within a round; start-up and the first steps "
    "are not counted.",
    "transformers draws its batches with group_by_length; their order is shuffled, so that a few steps are a fair "
    "sample of an epoch and not its longest rows.",
)


class OutOfTime(Exception):
    """A part has used up its seconds."""


@dataclass(frozen=True)
class Table:
    """What a part shows."""

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Summary:
    """What a part comes to: for the JSON, and for people."""

    facts: Mapping[str, Any]
    tables: Sequence[Table]


@dataclass
class Bench:
    """One run of the suite: measures, records, tells."""

    plan: Plan
    folder: Path
    reporter: Reporter
    workers: Workers
    report: dict[str, Any] = field(default_factory=dict)
    _deadline: float = 0.0
    _part: dict[str, Any] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        return self.folder / "bench.json"

    def save(self) -> None:
        write_atomic(self.file, json.dumps(self.report, indent=1, ensure_ascii=False) + "\n")

    def begin(self, machine: Mapping[str, Any], command: Sequence[str], settings: Mapping[str, Any]) -> None:
        self.report = {
            "status": "running", "dry_run": self.plan.dry, "machine": machine, "command": list(command),
            "settings": settings, "flop_formula": FORMULA, "notes": list(NOTES), "parts": self._earlier(machine),
        }  # fmt: skip
        self.save()

    def _earlier(self, machine: Mapping[str, Any]) -> dict[str, Any]:
        """Parts of an earlier call that are done, where it was on the same kind of machine."""
        if not self.file.is_file():
            return {}
        before = json.loads(self.file.read_text(encoding="utf-8"))
        if before["dry_run"] != self.plan.dry or before["machine"].get("gpu") != machine.get("gpu"):
            return {}
        return {name: part for name, part in before["parts"].items() if part["status"] == "done"}

    def is_done(self, name: str) -> bool:
        """Whether an earlier call with the same --output has measured this part."""
        return name in self.report["parts"]

    def run_part(self, name: str, run: Callable[[Bench], None], summarise: Callable[[Sequence[Any]], Summary]) -> None:
        """Run a part within its limit; whatever becomes of it, what was measured is summed up, saved and shown."""
        limit = self.plan.seconds(name)
        started = time.monotonic()
        self._deadline = started + limit
        self._part = {"status": "running", "limit_seconds": limit, "jobs": {}, "measurements": []}
        self.report["parts"][name] = self._part
        try:
            run(self)
            self._part["status"] = "done"
        except OutOfTime:
            self._part["status"] = "timed out"
            self._part["error"] = f"stopped after its limit of {limit:.0f} s; what stands here was measured before"
        except KeyboardInterrupt:
            self._part["status"] = "interrupted"
            raise
        except Exception as error:  # the other parts do not depend on this one
            traceback.print_exc()
            self._part["status"], self._part["error"] = "failed", f"{type(error).__name__}: {error}"
        finally:
            self._part["seconds"] = round(time.monotonic() - started, 3)
            summary = summarise(self._part["measurements"])
            self._part["summary"] = dict(summary.facts)
            self.save()
            self._show(name, summary)

    def _show(self, name: str, summary: Summary) -> None:
        mark = "DRY RUN, never to be quoted: " if self.plan.dry else ""
        for table in summary.tables:
            self.reporter.table(mark + table.title, table.columns, table.rows)
        for line in dict.fromkeys(f"{m['label']}: {m['error']}" for m in self._part["measurements"] if "error" in m):
            self.reporter.warning(f"{name}, {line}")
        if "error" in self._part:
            self.reporter.warning(f"{name}: {self._part['error']}")

    @property
    def seconds_left(self) -> float:
        """Of the part that runs."""
        return self._deadline - time.monotonic()

    def measure(self, label: str, number: int, job: Job, life: Life | None = None, **marks: Any) -> dict[str, Any]:
        """Run a job as `label` in round `number` and record it, with `marks` to find it by.

        What is not installed is not asked again. Raises OutOfTime when the part's seconds are used up.
        """
        self._part["jobs"].setdefault(label, job.model_dump(mode="json"))
        absent = next((m for m in self._part["measurements"] if m["label"] == label and _absent(m)), None)
        if absent is not None:
            return dict(absent)
        left = self.seconds_left
        if left <= 0:
            raise OutOfTime
        measured = self.workers.ask(job, min(left, WORKER_SECONDS), life)
        self.note(label, number, measured, **marks)
        if measured["status"] == "timed out" and self.seconds_left <= 0:
            raise OutOfTime
        return measured

    def note(self, label: str, number: int, measured: Mapping[str, Any], **marks: Any) -> None:
        """Record what was measured without a worker."""
        self._part["measurements"].append({"label": label, "round": number, **marks, **measured})
        self.save()


def _absent(measured: Mapping[str, Any]) -> bool:
    return bool(measured["status"] == "not installed")


# Okabe and Ito's colours, told apart by every eye; markers tell them apart in print.
STYLES = {
    "sdpa": ("#0072B2", "o"), "naive": ("#D55E00", "s"), "window": ("#009E73", "^"),
    "minitx": ("#0072B2", "o"), "torch": ("#D55E00", "s"),
}  # fmt: skip
WIDTH, HEIGHT = 5.2, 4.0
LABEL_HEIGHT = 0.045
"""Of a label, as a share of the panel."""
Lines = Mapping[str, Mapping[int, float]]
Panel = Callable[[Axes], None]


def write_figures(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """The figures of the parts that have something to show."""
    sums = {name: part.get("summary", {}) for name, part in report["parts"].items()}
    mark = "DRY RUN, never to be quoted" if report["dry_run"] else ""
    written = []
    memory = _points(sums.get("memory", {}))
    if memory:
        panels = [_growth_panel(memory, sums["memory"]["exponents"], 2**-20, "memory of a step (MiB)")]
        written.append(_write(folder / "memory.png", panels, mark))
    panels = _speed_panels(sums)
    if panels:
        written.append(_write(folder / "scaling.png", panels, mark))
    return written


def _points(summary: Mapping[str, Any]) -> dict[str, dict[int, float]]:
    found = {label: {int(n): v for n, v in each.items() if v > 0} for label, each in summary.get("points", {}).items()}
    return {label: each for label, each in found.items() if each}


def _speed_panels(sums: Mapping[str, Any]) -> list[Panel]:
    """The cost against the length, then one panel per factor of the scaling."""
    panels: list[Panel] = []
    cost = _points(sums.get("cost", {}))
    if cost:
        panels.append(_growth_panel(cost, sums["cost"]["exponents"], 1e3, "time of a step (ms)"))
    for factor, lines in sums.get("scaling", {}).get("tokens_per_second", {}).items():
        panels.append(partial(_scaling, factor=factor, lines=lines))
    return panels


def _write(path: Path, panels: list[Panel], mark: str) -> Path:
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(WIDTH * columns, HEIGHT * rows), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, draw in zip(grid, panels, strict=False):
        draw(axes)
    for axes in grid[len(panels) :]:
        axes.set_visible(False)
    if mark:
        figure.suptitle(mark, fontsize=9, color="#aa0000")
    figure.savefig(path, dpi=150)
    return path


def _growth_panel(lines: Lines, exponents: Mapping[str, Any], scale: float, what: str) -> Panel:
    """Value against length, one line a backend, with its exponent in the legend."""

    def draw(axes: Axes) -> None:
        shown = {label: {n: scale * v for n, v in points.items()} for label, points in lines.items()}
        powers = {label: exponents.get(label) for label in lines}
        legend = {label: label if e is None else f"{label}, grows as length^{e:.2f}" for label, e in powers.items()}
        _frame(axes, shown, "length (tokens, one row)", what, legend)

    return draw


def _scaling(axes: Axes, factor: str, lines: Lines) -> None:
    shown = {label: {int(n): v for n, v in points.items()} for label, points in lines.items()}
    _frame(axes, shown, factor, "training tokens/s", {label: label for label in shown}, log=False)


def _frame(axes: Axes, lines: Lines, x_label: str, y_label: str, legend: Mapping[str, str], log: bool = True) -> None:
    """Draw the lines; x is logarithmic, and y too, or linear from zero."""
    for label, points in lines.items():
        colour, marker = STYLES[label]
        xs = sorted(points)
        ys = [points[x] for x in xs]
        axes.plot(xs, ys, color=colour, marker=marker, markersize=5, linewidth=1.5, label=legend[label])
    ticks = sorted({x for points in lines.values() for x in points})
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [f"{x:,}" for x in ticks])
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.margins(x=0.2, y=0.12)
    if log:
        axes.set_yscale("log")
    else:
        axes.set_ylim(0, 1.25 * max(y for points in lines.values() for y in points.values()))
    axes.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.grid(which="major", color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=8, loc="upper left" if log else "upper right")
    for x, side in {ticks[0]: -1, ticks[-1]: 1}.items():
        _label_end(axes, lines, x, side)


def _label_end(axes: Axes, lines: Lines, x: int, side: int) -> None:
    """The values at one end of the lines, beside their points, moved apart where they would overlap."""
    ends = sorted((points[x], label) for label, points in lines.items() if x in points)
    heights = [axes.transAxes.inverted().transform(axes.transData.transform((x, value)))[1] for value, _ in ends]
    for lower in range(len(heights) - 1):
        heights[lower + 1] = max(heights[lower + 1], heights[lower] + LABEL_HEIGHT)
    for (value, label), height in zip(ends, heights, strict=True):
        text = f"{value:,.0f}" if value >= 100 else f"{value:.3g}"
        axes.annotate(
            text, (x, height), (7 * side, 0), xycoords=("data", "axes fraction"), textcoords="offset points",
            ha="right" if side < 0 else "left", va="center", fontsize=7.5, color=STYLES[label][0],
        )  # fmt: skip
