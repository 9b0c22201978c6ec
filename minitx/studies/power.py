"""What a report can see: how often its rules say `supported` at a given true effect, and how many seeds that takes.

python -m minitx.studies.power outputs/studies      the noise of these studies, 2,000 simulated reports each
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

from minitx.studies.evidence import contrast_values, read_evidence
from minitx.studies.statistics import ALPHA, MIN_SEEDS, contrast_effects
from minitx.training.run_folder import write_json

ROUNDS = 2000
WANTED = 0.8
"""Share of reports that ought to see an effect of twice delta."""
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Noise:
    """Of one contrast: standard deviation over seeds, how many there are, and the smallest effect worth naming."""

    sd: float
    n_seeds: int
    delta: float


def simulate(noise: Mapping[str, Noise], effect: float, rounds: int = ROUNDS, seed: int = 0) -> dict[str, float]:
    """Contrast -> share of simulated reports in which it is `supported`, where every true effect is `effect` deltas.

    A report holds all contrasts and corrects over them; the noise is normal. The key `any` is the share of reports with
    at least one.
    """
    rng, counts, any_count = np.random.default_rng(seed), dict.fromkeys(noise, 0), 0
    for _ in range(rounds):
        drawn = {name: (rng.normal(effect * n.delta, n.sd, n.n_seeds), n.delta) for name, n in noise.items()}
        found = [name for name, seen in contrast_effects(drawn).items() if seen.verdict == "supported"]
        any_count += bool(found)
        for name in found:
            counts[name] += 1
    return {**{name: count / rounds for name, count in counts.items()}, "any": any_count / rounds}


def power(noise: Noise, alpha: float, effect: float = 2.0) -> float:
    """Chance that the (1 - alpha) interval of a true effect of `effect` deltas lies above delta, normal noise."""
    if noise.sd == 0:
        return float(effect > 1)
    freedom = noise.n_seeds - 1
    shift = (effect - 1) * noise.delta / noise.sd * np.sqrt(noise.n_seeds)
    return float(stats.nct.sf(stats.t.ppf(1 - alpha / 2, freedom), freedom, shift))


def seeds_needed(noise: Noise, alpha: float = ALPHA, wanted: float = WANTED) -> int | None:
    """Seeds at which an effect of twice delta is seen in a share `wanted` of reports; None where 1,000 are too few."""
    for n in range(MIN_SEEDS, MOST_SEEDS + 1):
        if power(Noise(noise.sd, n, noise.delta), alpha) >= wanted:
            return n
    return None


def noise_of(records: Sequence[Path]) -> dict[str, Noise]:
    """`study/tier/claim.contrast` -> its noise, of contrasts that have all the seeds that a verdict takes."""
    found = {}
    for record in records:
        evidence = read_evidence(record)
        for claim, contrasts in evidence.tier.contrasts.items():
            for name, contrast in contrasts.items():
                values = np.array([*contrast_values(evidence, contrast).values()])
                if len(values) >= MIN_SEEDS:
                    key = f"{evidence.study.name}/{evidence.study.tier}/{claim}.{name}"
                    found[key] = Noise(float(values.std(ddof=1)), len(values), contrast.delta)
    return found


def main(arguments: Sequence[str]) -> None:
    """Simulate at the noise of the studies in a folder; write power.json there and print what it says."""
    folder = Path(arguments[0])
    noise = noise_of(sorted(folder.glob("*/study-*.json")))
    if not noise:
        raise SystemExit(f"{folder} holds no contrast of {MIN_SEEDS} seeds or more; run a study first")
    shares: dict[str, Any] = {str(effect): simulate(noise, effect) for effect in (0.0, 1.0, 2.0)}
    alpha = ALPHA / len(noise)
    contrasts = {
        name: {
            "sd": n.sd, "delta": n.delta, "n_seeds": n.n_seeds,
            "supported": {effect: by[name] for effect, by in shares.items()},
            "seeds_needed": seeds_needed(n, alpha),
        }
        for name, n in noise.items()
    }  # fmt: skip
    found = {"rounds": ROUNDS, "any": {effect: by["any"] for effect, by in shares.items()}, "contrasts": contrasts}
    write_json(folder / "power.json", found)
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main(sys.argv[1:])
