"""A cell is one configuration to be run: its name by hash, its folder, and the measures stored beside its results.

measures.json in a cell's folder holds what was computed of it, and by which version:
{"fit": {"of": "1", "values": {"gap_at_0.5": 0.1, ...}}, "across": {"of": "<the other seed's folder>", ...}}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minitx.config import Config, NetConfig
from minitx.training.run_folder import RunFolder, run_hash, safe_name, write_json

MEASURES_FILE = "measures.json"
Value = int | float | str
Place = tuple[str, Value | None]
"""(arm, its value on the axis; None without an axis)"""
Compute = Callable[[Path, Config], Mapping[str, float]]
"""(folder of the cell, its configuration) -> numbers by name"""


@dataclass(frozen=True)
class Measure:
    """Numbers computed of a cell and stored in its folder, to be computed anew when the version changes."""

    name: str
    version: str
    compute: Compute
    """A function of a module, because worker processes find it by its name."""
    is_timing: bool = False
    """A timing is all that its cell does, alone on the machine; other measures are taken of a trained run."""


MEASURES: dict[str, Measure] = {}
"""Name -> measure, of all modules imported so far; see `measure`."""


def measure(name: str, version: str, *, is_timing: bool = False) -> Callable[[Compute], Compute]:
    """`@measure("fit", version="1")` registers a function as a measure; raise the version when its numbers change."""

    def register(compute: Compute) -> Compute:
        MEASURES[name] = Measure(name, version, compute, is_timing)
        return compute

    return register


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One combination of swept values, or one seed of a study's arm."""

    values: Mapping[str, str]
    """Swept key -> this cell's value, as typed."""
    overrides: tuple[str, ...] = ()
    config: Config | None = None
    hash: str = ""
    error: str | None = None
    """Why this combination cannot run at all."""
    arm: str = ""
    """Of a study; so are value and seed."""
    value: Value | None = None
    seed: int = 0
    timing: Measure | None = None
    """What is timed here; None where a model is trained."""
    measures: tuple[Measure, ...] = ()
    """Computed after training."""

    @property
    def folder(self) -> str:
        """`<swept values>-<hash>`, safe as a folder name and in an override."""
        values = "_".join(f"{leaf(k)}-{v}" for k, v in self.values.items()) or "cell"
        return safe_name(f"{values}-{self.hash}")

    @property
    def label(self) -> str:
        return _label(self.values) or "the only cell"

    @property
    def key(self) -> str:
        """The hash; the label of a cell that cannot run and so has none."""
        return self.hash or self.label

    @property
    def group(self) -> str:
        """Names the cells that differ in the seed alone."""
        if self.arm:
            return place_name((self.arm, self.value))
        return _label({key: value for key, value in self.values.items() if key != "seed"}) or "all"


def leaf(key: str) -> str:
    """`model.n_heads` -> `n_heads`."""
    return key.rsplit(".", 1)[-1]


def _label(values: Mapping[str, str]) -> str:
    return " ".join(f"{leaf(key)}={value}" for key, value in values.items())


def place_name(place: Place) -> str:
    """`transformer@500`, or `transformer` where there is no axis."""
    arm, value = place
    return arm if value is None else f"{arm}@{value}"


def cell_folders(cells: Sequence[Cell], folder: Path) -> dict[str, Path]:
    """Hash -> the folder of that cell: one that has it already, in any study beside `folder`, or a new one here."""
    known = [path for path in sorted(folder.parent.glob("*/*")) if (path / "config.yaml").is_file()]
    found = {}
    for cell in cells:
        same = [path for path in known if path.name.endswith(f"-{cell.hash}")]
        finished = [path for path in same if (RunFolder(path).results() or {}).get("status") == "finished"]
        found[cell.hash] = next(iter(finished + same), folder / cell.folder)
    return found


def is_done(cell: Cell, path: Path) -> bool:
    """Whether this very cell has finished in `path`, with all its measures.

    A run that was continued in place, with more steps say, is another cell.
    """
    assert cell.config is not None, "a cell without a configuration cannot run"
    folder = RunFolder(path)
    results = folder.results()
    if results is None or results["status"] != "finished":
        return False
    if run_hash(folder.read_config(), "", "", "") != run_hash(cell.config, "", "", ""):
        return False
    wanted = (cell.timing,) if cell.timing is not None else cell.measures
    return not isinstance(cell.config.model, NetConfig) or all(has_measure(path, m.name, m.version) for m in wanted)


# ------------------------------------------------------------------------------------------------------------ measures


def add_measures(path: Path, measures: Sequence[Measure]) -> None:
    """Compute those measures of a finished run that are not stored yet.

    Raises:
        ConfigError: a measure does not go with the run.
    """
    config = RunFolder(path).read_config()
    with RunFolder(path).locked():  # two studies may share the cell
        for one in measures:
            if isinstance(config.model, NetConfig) and not has_measure(path, one.name, one.version):
                write_measure(path, one.name, one.version, one.compute(path, config))


def read_measures(path: Path) -> dict[str, float]:
    """`fit.gap_at_0.5` -> value, of all that has been computed of a cell."""
    return {f"{name}.{key}": value for name, stored in _read(path).items() for key, value in stored["values"].items()}


def has_measure(path: Path, name: str, version: str) -> bool:
    """Whether a measure has been computed by this version."""
    return bool(_read(path).get(name, {}).get("of") == version)


def write_measure(path: Path, name: str, version: str, values: Mapping[str, float]) -> None:
    """Store a measure instead of an earlier one."""
    write_json(path / MEASURES_FILE, {**_read(path), name: {"of": version, "values": dict(values)}})


def _read(path: Path) -> dict[str, Any]:
    file = path / MEASURES_FILE
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}
