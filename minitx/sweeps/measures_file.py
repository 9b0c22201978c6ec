"""measures.json in a cell's folder: what was computed of a trained model beside its results, and of what.

{"fit": {"of": "1", "values": {"gap_at_0.5": 0.1, ...}}, "across": {"of": "<the other seed's folder>", ...}}
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from minitx.training.run_folder import write_json

MEASURES = "measures.json"


def measures_of(path: Path) -> dict[str, float]:
    """`fit.gap_at_0.5` -> value, of all that has been computed of a cell."""
    return {f"{name}.{key}": value for name, kept in _read(path).items() for key, value in kept["values"].items()}


def is_kept(path: Path, name: str, of: str) -> bool:
    """Whether a measure has been computed, of this very thing."""
    return bool(_read(path).get(name, {}).get("of") == of)


def keep(path: Path, name: str, of: str, values: Mapping[str, float]) -> None:
    """Write a measure, instead of an earlier one. of: what it was computed with; another one is to be computed anew."""
    write_json(path / MEASURES, {**_read(path), name: {"of": of, "values": dict(values)}})


def _read(path: Path) -> dict[str, Any]:
    file = path / MEASURES
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.is_file() else {}
