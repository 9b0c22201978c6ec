"""What a run of the suite has found so far, on disk after every measurement, so that no interruption loses any."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from minitx.bench.flops import FORMULA
from minitx.bench.job import Job
from minitx.bench.plan import Plan
from minitx.bench.process import Life, Workers
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
            "settings": settings, "flop_formula": FORMULA, "notes": list(NOTES), "parts": {},
        }  # fmt: skip
        self.save()

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
            self.reporter.warn(f"{name}, {line}")
        if "error" in self._part:
            self.reporter.warn(f"{name}: {self._part['error']}")

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
