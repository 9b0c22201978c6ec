"""What a study found: its declaration, and every cell's measures.

study-<tier>.json says what was asked and where the cells are. Where their folders are gone, cells-<tier>.csv beside it
has their measures.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from minitx.errors import ConfigError
from minitx.studies.study import Study, Tier, load_study
from minitx.sweeps.cells import Value, read_measures
from minitx.training.run_folder import RunFolder


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
    device: str = ""
    """What a timing was taken on; nothing where a model was trained."""


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
    stored_cells = _stored_cells(record)
    for cell in cells:
        seen = observe(root, cell["folder"], cell["arm"], cell["value"], cell["seed"])
        if seen is None:
            seen = stored_cells.get((cell["arm"], _text(cell["value"]), str(cell["seed"])))
        if seen is None:
            missing.append(cell["label"])
        else:
            found.append(seen)
    return Evidence(study, stored["command"], tuple(found), tuple(missing), stored["tuning"], stored["sizes"])


def _stored_cells(record: Path) -> dict[tuple[str, str, str], Observation]:
    """(arm, value, seed) as text -> cell, of cells-<tier>.csv; none where there is no such file."""
    path = record.with_name(record.name.replace("study-", "cells-")).with_suffix(".csv")
    if not path.is_file():
        return {}
    found = {}
    with path.open(newline="", encoding="utf-8") as file:
        for line in csv.DictReader(file):
            arm, value, seed, folder = (line.pop(key) for key in CELL_COLUMNS)
            device = line.pop(DEVICE_COLUMN, "")
            measures = {name: float(number) for name, number in line.items() if number}
            found[arm, value, seed] = Observation(arm, _value(value), int(seed), folder, measures, device=device)
    return found


CELL_COLUMNS = ("arm", "value", "seed", "folder")
"""First columns of cells-<tier>.csv; measures follow."""
DEVICE_COLUMN = "device"
"""Before the measures, in the table of a study that takes timings."""


def write_cells(path: Path, evidence: Evidence) -> None:
    """cells-<tier>.csv: one line a finished cell, with all its measures but the time of training, which differs from
    run to run."""
    names = sorted({name for seen in evidence.observations for name in seen.measures} - {"seconds"})
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        has_devices = any(seen.device for seen in evidence.observations)
        writer.writerow([*CELL_COLUMNS, *([DEVICE_COLUMN] if has_devices else []), *names])
        for seen in evidence.observations:
            measured = (seen.measures.get(name, "") for name in names)
            device = [seen.device] if has_devices else []
            writer.writerow([seen.arm, _text(seen.value), seen.seed, seen.folder, *device, *measured])


def _text(value: Value | None) -> str:
    return "" if value is None else str(value)


def _value(text: str) -> Value | None:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text or None


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
    device = results["device"] if "kind" in results else ""
    return Observation(arm, value, seed, folder, measures, intervals, device)
