"""Study records with results of MADE-UP numbers, as a study writes them: nothing here has been measured.

One study for each thing that a report can meet: every verdict, two parts, an axis of names, learning curves, costs, a
failed cell, too few seeds, a hostile name.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from minitx.report.ledger import declared_claims
from minitx.sweeps.cells import write_measure
from minitx.training.run_folder import RunFolder

HOSTILE = "</script><img src=x onerror=alert(1)> & {{ledger}} $x^2$ `a`|b [c](https://evil.example)"
MADE_UP = {"prediction": "Made up for a test.", "would_change": "Other made-up numbers."}
Number = Callable[[str, Any, np.random.Generator], Mapping[str, float]]
"""(arm, value, noise of the cell) -> measures."""


def write_study(
    root: Path,
    name: str,
    claims: list[str],
    tier: Mapping[str, Any],
    number: Number,
    *,
    tier_name: str = "quick",
    failed: tuple[tuple[str, Any, int], ...] = (),
    tuning: Mapping[str, Any] | None = None,
    texts: Mapping[str, str] | None = None,
    title: str = "A synthetic study",
) -> Path:
    """study-<tier>.json and a folder with results.json (and measures.json) for each cell that has not failed."""
    declared = {entry.id: entry.claim.model_dump() for entry in declared_claims()}
    tier = {"seeds": [0, 1, 2, 3, 4], **tier}
    study = {
        "name": name, "title": title, "tier": tier_name, tier_name: tier,
        "claims": {claim: {**declared[claim], **MADE_UP, **(texts or {})} for claim in claims},
    }  # fmt: skip
    folder, cells = root / name, []
    for arm, config in tier["arms"].items():
        for value in (config.get("values") or tier.get("values") or [None]) if tier.get("axis") else [None]:
            for seed in tier.get("seeds", [0, 1, 2, 3, 4])[: config.get("seeds")]:
                place = f"{name}/{len(cells):03d}"
                label = f"arm={arm}" + (f" value={value}" if value is not None else "") + f" seed={seed}"
                cells.append({"arm": arm, "value": value, "seed": seed, "label": label, "folder": place})
                if (arm, value, seed) not in failed:
                    # Arms share the noise of a seed, as they share its data.
                    rng = np.random.default_rng([seed, len(name), *map(ord, str(value))])
                    write_cell(root / place, number(arm, value, rng), seed)
    sizes = {f"{arm}": 120_000 + 321 * i for i, arm in enumerate(tier["arms"])}
    record = {
        "study": study, "command": f"python train.py -m study={name}", "tuning": tuning, "sizes": sizes, "cells": cells,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"study-{tier_name}.json"
    path.write_text(json.dumps(record), encoding="utf-8")
    return path


def write_cell(folder: Path, measures: Mapping[str, float], seed: int) -> None:
    """`test.x` goes to results.json as a metric with an interval, `seconds` beside it, the rest to measures.json."""
    folder.mkdir(parents=True, exist_ok=True)
    tested = {
        key.removeprefix("test."): {"value": value, "ci95": [value - 0.017, value + 0.019]}
        for key, value in measures.items()
        if key.startswith("test.")
    }
    results = {
        "status": "finished", "seed": seed, "metrics": {"test": tested}, "steps": 100,
        "seconds": measures.get("seconds", 12.5 + seed),
    }  # fmt: skip
    RunFolder(folder).write_results(results)
    beside = {key: value for key, value in measures.items() if not key.startswith("test.") and key != "seconds"}
    if beside:
        for name in {key.partition(".")[0] for key in beside}:
            own = {key.partition(".")[2]: value for key, value in beside.items() if key.startswith(f"{name}.")}
            write_measure(folder, name, "made up", own)


def difference(arm: str, against: str, delta: float, **more: Any) -> dict[str, Any]:
    return {"measure": "test.accuracy", "arm": arm, "against": against, "delta": delta, **more}


SIZES = [250, 500, 1000, 2000, 4000, 8000]
MODELS = {"transformer": (0.93, -4.1, 0.42), "cnn": (0.88, -2.2, 0.40), "bag": (0.71, -0.9, 0.35), "lstm": (0.3, 0, 1)}


def data_size(root: Path) -> Path:
    """C7, two parts: a gap that grows, and is below 0 at the smallest size. One arm learns nothing."""

    def number(arm: str, size: float, rng: np.random.Generator) -> dict[str, float]:
        a, b, c = MODELS[arm]
        shared = rng.normal(scale=0.006)
        return {"test.accuracy": a + b * size**-c + shared + 0.004 * math.sin(7 * len(arm) + shared * 1e4)}

    slope = {"contrast": "slope", "at": None, "note": "The gap closes as the data grows."}
    tier = {
        "axis": "data.train_size",
        "values": SIZES,
        "arms": {"transformer": {}, "cnn": {"match": "transformer"}, "bag": {}, "lstm": {}},
        "contrasts": {"C7": {
            "slope of the gap": difference("transformer", "cnn", 0.02, **slope),
            "gap at the smallest size": difference("cnn", "transformer", 0.02, at=250),
        }},
        "tuning": {"tries": {"lr 3e-4": ["optim.lr=3e-4"], "lr 1e-3": ["optim.lr=1e-3"]}},
        "on_purpose": {"size": "The bag has no layers to make it larger with."},
    }  # fmt: skip
    scores = {f"{arm}@{size}": {"lr 3e-4": 0.71, "lr 1e-3": 0.74} for arm in ("transformer", "cnn") for size in SIZES}
    tuning = {"tuning": tier["tuning"], "of": "made up", "metric": "accuracy", "scores": scores}
    texts = {
        "prediction": "The gap between the Transformer and the CNN grows with the data, and is below 0 at the start.",
        "would_change": "A Transformer that is no worse than the CNN on 250 rows.",
    }
    return write_study(root, "data_size", ["C7"], tier, number, tuning=tuning, texts=texts, title="How much data?")


def head_count(root: Path) -> Path:
    """C8a contradicted by a flat part, C8c by an effect too small; numbers within a decade; a cell failed."""

    def number(arm: str, heads: float, rng: np.random.Generator) -> dict[str, float]:
        shared = rng.normal(scale=0.004)
        return {"test.accuracy": 0.6 + 0.04 * math.log2(heads) + shared, "fit.gap": 0.31 + (len(arm) - 9) * shared}

    flat = {"expect": "flat", "note": "More than four heads bring nothing."}
    tier = {
        "axis": "model.n_heads",
        "values": [1, 2, 4, 8],
        "arms": {"fixed width": {}, "fixed head_dim": {"values": [1, 4, 8]}},
        "measures": ["fit"],
        "contrasts": {
            "C8a": {
                "four against one": difference("fixed width", "fixed width", 0.03, at=4, against_at=1),
                "eight against four": difference("fixed width", "fixed width", 0.015, at=8, against_at=4, **flat),
            },
            "C8c": {"over-fitting": {
                "measure": "fit.gap", "arm": "fixed width", "against": "fixed head_dim", "at": 4, "delta": 0.05,
            }},
        },
    }  # fmt: skip
    return write_study(root, "head_count", ["C8a", "C8c"], tier, number, failed=(("fixed width", 2, 3),))


def span(root: Path) -> Path:
    """C1 contradicted; an axis of names; hostile arm."""

    def number(arm: str, value: Any, rng: np.random.Generator) -> dict[str, float]:
        return {"test.accuracy": (0.5 if value == "global" else 0.62) + rng.normal(scale=0.008)}

    tier = {
        "axis": "model.attention.span",
        "values": ["sentence", "window", "global"],
        "arms": {"transformer": {}, HOSTILE: {}},
        "contrasts": {"C1": {
            "whole against sentence": difference(
                "transformer", "transformer", 0.02, at="global", against_at="sentence", note=HOSTILE
            ),
        }},
    }  # fmt: skip
    return write_study(root, "span", ["C1"], tier, number, title=HOSTILE)


def cost(root: Path) -> Path:
    """C5: exponents of seconds, as measured in rounds; log-log. One flat part, one ratio."""

    def number(arm: str, length: float, rng: np.random.Generator) -> dict[str, float]:
        power, base = {"naive": (1.98, 2e-8), "window": (1.03, 3e-6), "lstm": (1.0, 9e-5)}[arm]
        return {"seconds": base * length**power * math.exp(rng.normal(scale=0.03)) + 1e-4}

    exponent = {"contrast": "exponent", "measure": "seconds", "expect": "flat"}
    cells = {"kind": "cost"}
    tier = {
        "axis": "length",
        "values": [64, 256, 1024, 4096, 16384],
        "arms": {"naive": {**cells, "values": [64, 256, 1024, 4096]}, "window": cells, "lstm": cells},
        "contrasts": {"C5": {
            "attention is a square": {**exponent, "arm": "naive", "centre": 2.0, "delta": 0.2},
            "a window is a line": {**exponent, "arm": "window", "centre": 1.0, "delta": 0.2},
            "window against naive": {
                "contrast": "log_ratio", "measure": "seconds", "arm": "naive", "against": "window", "at": 4096,
                "delta": 0.1,
            },
        }},
    }  # fmt: skip
    return write_study(root, "cost", ["C5"], tier, number)


def distance(root: Path) -> Path:
    """C4 undecided: the seeds disagree. No axis, so arms stand side by side; full tier."""

    def number(arm: str, value: Any, rng: np.random.Generator) -> dict[str, float]:
        rng = np.random.default_rng([len(arm), int(1e6 * rng.random())])
        return {"test.accuracy": 0.7 + rng.normal(scale=0.05)}

    tier = {
        "arms": {"transformer": {}, "lstm": {}, "cnn": {}},
        "contrasts": {"C4": {"far facts": difference("transformer", "lstm", 0.02)}},
    }
    return write_study(root, "distance", ["C4"], tier, number, tier_name="full")


def exploratory(root: Path) -> Path:
    """C2 with three seeds: clear numbers, no verdict."""

    def number(arm: str, value: Any, rng: np.random.Generator) -> dict[str, float]:
        return {"test.accuracy": {"cnn": 0.9, "transformer": 0.8}[arm] + len(arm) * rng.normal(scale=0.001)}

    tier = {
        "seeds": [0, 1, 2],
        "arms": {"transformer": {}, "cnn": {}},
        "contrasts": {"C2": {"motif": difference("cnn", "transformer", 0.02)}},
    }
    return write_study(root, "local_global", ["C2"], tier, number)


def unfinished(root: Path) -> Path:
    """C9: one of two contrasts has no cell yet."""

    def number(arm: str, value: Any, rng: np.random.Generator) -> dict[str, float]:
        return {"test.accuracy": 0.7 + len(arm) * rng.normal(scale=0.001)}

    tier = {
        "arms": {"split": {}, "grouped": {}, "full width": {}},
        "contrasts": {"C9": {
            "same quality": difference("split", "grouped", 0.02, expect="flat"),
            "full-width heads": difference("full width", "split", 0.02),
        }},
    }  # fmt: skip
    failed = tuple(("full width", None, seed) for seed in range(5))
    return write_study(root, "two_builds", ["C9"], tier, number, failed=failed)


def write_all(root: Path) -> list[Path]:
    """Every synthetic study."""
    return [write(root) for write in (data_size, head_count, span, cost, distance, exploratory, unfinished)]
