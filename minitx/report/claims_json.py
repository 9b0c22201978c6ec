"""claims.json: the ledger for programs, every number in full."""

from __future__ import annotations

import math
from typing import Any

from minitx.report.ledger import Entry, Ledger
from minitx.studies.evidence import ContrastResult


def claims_json(ledger: Ledger) -> list[dict[str, Any]]:
    """One object for each claim and tier that a study speaks of, and for each claim that none does.

    `verdict` null: not tested here, `command` tests it. `effect`, `ci95`, `delta` and `n_seeds` are the first
    part's; `ci95` has the level that Holm's procedure held the contrast to, so that the verdicts of a report are all
    right with 95 %; an infinite bound is null. `runs`: folders of the cells that the contrasts read, relative to the
    folder of studies.
    """
    return [_claim(entry) for entry in ledger.entries]


def _claim(entry: Entry) -> dict[str, Any]:
    found, parts = entry.finding, [_part(part) for part in entry.parts]
    first = parts[0] if parts else dict.fromkeys(("effect", "ci95", "delta", "n_seeds"))
    return {
        "id": entry.id,
        "claim": entry.claim.statement,
        "verdict": entry.verdict,
        **{key: first[key] for key in ("effect", "ci95", "delta", "n_seeds")},
        "runs": [] if found is None else found.runs(),
        "command": entry.command,
        "study": entry.study,
        "tier": None if found is None else found.tier,
        "exploratory": entry.exploratory,
        "parts": parts,
    }


def _part(found: ContrastResult) -> dict[str, Any]:
    part, effect = found.part, found.effect
    return {
        "name": found.name,
        "measure": part.measure,
        "contrast": part.contrast,
        "arm": part.arm,
        "against": part.against,
        "expect": part.expect,
        "found": effect.verdict,
        "effect": effect.mean,
        "ci95": [_finite(effect.low), _finite(effect.high)],
        "level": effect.level,
        "p": effect.p,
        "delta": part.delta,
        "n_seeds": effect.n_seeds,
        "seeds": list(found.seeds),
        "values": list(found.values),
    }


def _finite(bound: float) -> float | None:
    return bound if math.isfinite(bound) else None
