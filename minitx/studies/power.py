"""How often the rule of verdicts errs, and what it can see, at the noise of real studies: 2,000 simulated ones each.

python -m minitx.studies.power outputs/studies      writes power.json into that folder
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minitx.studies.claims import evaluate_claims
from minitx.studies.evidence import read_evidence
from minitx.studies.verdicts import LOOKS, MIN_SEEDS, Expect, Part, Verdict, holds, verdict_of
from minitx.training.run_folder import write_json

ROUNDS = 2000


@dataclass(frozen=True)
class Noise:
    """Of one part that is judged by Student's interval."""

    sd: float
    """Standard deviation over seeds."""
    delta: float
    expect: Expect = "above"
    expected: float | None = None
    """The effect that it was planned for; None = 0 for `flat`, -delta for `no_better`, else twice delta."""

    @property
    def planned(self) -> float:
        if self.expected is not None:
            return self.expected
        return {"flat": 0.0, "no_better": -self.delta}.get(self.expect, 2 * self.delta)


def simulated_verdict(
    noise: Sequence[Noise], effects: Sequence[float], rng: np.random.Generator, looks: Sequence[int] = LOOKS
) -> tuple[Verdict, int]:
    """(verdict, seeds) of one study with normal noise: at the first look that decides, else at the last."""
    drawn = [rng.normal(effect, n.sd, looks[-1]) for n, effect in zip(noise, effects, strict=True)]
    verdict: Verdict = "undecided"
    for n_seeds in looks:
        parts = {
            str(i): Part(values := tuple(d[:n_seeds]), values, n.delta, n.expect)
            for i, (n, d) in enumerate(zip(noise, drawn, strict=True))
        }
        verdict, _ = verdict_of(parts)
        if verdict != "undecided":
            return verdict, n_seeds
    return verdict, looks[-1]


def wrong_verdicts(noise: Sequence[Noise], effect: float, rounds: int = ROUNDS, seed: int = 0) -> dict[Verdict, float]:
    """Share of studies with each wrong verdict, where every true effect is `effect` times its delta.

    `supported` is wrong where the truth of some part is not inside its region, `contradicted` where that of none is
    outside. On the edge of a region, as at delta, both are wrong.
    """
    inside = all(_is_inside(effect, n.expect) for n in noise)
    outside = any(_is_outside(effect, n.expect) for n in noise)
    rng, wrong = np.random.default_rng(seed), {"supported": 0, "contradicted": 0}
    for _ in range(rounds):
        verdict, _ = simulated_verdict(noise, [effect * n.delta for n in noise], rng)
        wrong["supported"] += verdict == "supported" and not inside
        wrong["contradicted"] += verdict == "contradicted" and not outside
    return {"supported": wrong["supported"] / rounds, "contradicted": wrong["contradicted"] / rounds}


def _is_inside(effect: float, expect: Expect) -> bool:
    """effect: in multiples of delta."""
    return effect > 1 if expect == "above" else effect < 1 and (expect == "no_better" or effect > -1)


def _is_outside(effect: float, expect: Expect) -> bool:
    return effect < 1 if expect == "above" else effect > 1 or (expect == "flat" and effect < -1)


def power(noise: Noise, rounds: int = ROUNDS, seed: int = 0, looks: Sequence[int] = LOOKS) -> float:
    """Share of studies in which the part holds at some look, where the true effect is the planned one."""
    rng, seen = np.random.default_rng(seed), 0
    for _ in range(rounds):
        drawn = rng.normal(noise.planned, noise.sd, looks[-1])
        parts = (Part(v := tuple(drawn[:n]), v, noise.delta, noise.expect) for n in looks)
        seen += any(holds(part) for part in parts)
    return seen / rounds


def noise_of(records: Sequence[Path]) -> dict[str, dict[str, Noise]]:
    """`study/tier/claim` -> contrast -> its noise, of those judged by Student's interval."""
    found: dict[str, dict[str, Noise]] = {}
    for result in evaluate_claims([read_evidence(record) for record in records]):
        for one in result.contrasts:
            if one.effect.method == "t" and len(one.values) >= MIN_SEEDS:
                noise = Noise(
                    float(np.std(one.values, ddof=1)), one.contrast.delta, one.contrast.expect, one.contrast.expected
                )
                found.setdefault(f"{result.study}/{result.tier}/{result.id}", {})[one.name] = noise
    return found


def simulate(noise: Mapping[str, Mapping[str, Noise]], rounds: int = ROUNDS) -> dict[str, Any]:
    """power.json."""
    return {
        "rounds": rounds,
        "looks": list(LOOKS),
        "claims": {
            claim: {
                "wrong_at_0": wrong_verdicts([*parts.values()], 0.0, rounds),
                "wrong_at_delta": wrong_verdicts([*parts.values()], 1.0, rounds),
                "wrong_at_minus_delta": wrong_verdicts([*parts.values()], -1.0, rounds),
                "parts": {
                    name: {"sd": n.sd, "delta": n.delta, "planned": n.planned, "power": power(n, rounds)}
                    for name, n in parts.items()
                },
            }
            for claim, parts in noise.items()
        },
    }


def main(arguments: Sequence[str]) -> None:
    """Simulate at the noise of the studies in a folder; write power.json there and print what it says."""
    folder = Path(arguments[0])
    noise = noise_of(sorted(folder.glob("*/study-*.json")))
    if not noise:
        raise SystemExit(f"{folder} holds no contrast of {MIN_SEEDS} seeds or more; run a study first")
    found = simulate(noise)
    write_json(folder / "power.json", found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
