"""Tuning: the same settings tried for every arm on validation before a study runs; all scores are stored."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minitx.config import rule
from minitx.metrics.scores import better
from minitx.studies.study import Study, Tier, Tuning
from minitx.sweeps.cells import Place, Value, place_name


@dataclass(frozen=True)
class Tuned:
    """The record of a tier's tries, conf/study/tuned/<study>-<tier>.json."""

    tuning: Tuning
    of: str
    """See `digest_of`."""
    metric: str
    scores: Mapping[str, Mapping[str, float]]
    """`arm` or `arm@value` -> name of the try -> validation score."""

    @classmethod
    def read(cls, path: Path, study: Study) -> Tuned | None:
        """The record of this very tuning; None where the tier declares none.

        Raises:
            ConfigError: the tier has tries, and no record of them.
        """
        tuning = study.chosen.tuning
        if tuning is None:
            return None
        remedy = f"run python train.py -m study={study.name} study.tier={study.tier} study.phase=tune"
        if not path.is_file():
            raise rule("study.tuning", path, "have been run before the study", remedy)
        stored = json.loads(path.read_text(encoding="utf-8"))
        if stored.get("of") != digest_of(study.chosen):
            raise rule("study.tuning", path, "be of the tries and cells that the study declares", remedy)
        return cls(tuning, stored["of"], stored["metric"], stored["scores"])

    def to_json(self) -> dict[str, Any]:
        return {
            "tuning": self.tuning.model_dump(mode="json"),
            "of": self.of,
            "metric": self.metric,
            "scores": {place: dict(scores) for place, scores in self.scores.items()},
        }

    def scores_of(self, tier: Tier, place: Place) -> Mapping[str, float]:
        """Of the place itself, or of the tuned one below it on the axis."""
        arm, value = place
        return self.scores.get(place_name((arm, tuned_value(tier, arm, value))), {})

    def best(self, tier: Tier, place: Place) -> str | None:
        """Name of the best try; None where nothing was tried for the arm."""
        scores, best = self.scores_of(tier, place), None
        for name, score in scores.items():
            if best is None or better(score, scores[best], self.metric):
                best = name
        return best

    def chosen(self, tier: Tier, place: Place) -> list[str]:
        """Overrides of the best try; none where nothing was tried for the arm."""
        best = self.best(tier, place)
        return [] if best is None else self.tuning.tries[best]


def digest_of(tier: Tier) -> str:
    """Digest of all that the tries depend on, so that a record of another version of the study is refused."""
    parts = tier.model_dump(mode="json", include={"overrides", "axis", "values", "arms", "tuning"})
    needed = {name for name, arm in tier.arms.items() if arm.tuned}
    needed |= {like for name in needed if (like := tier.arms[name].match) is not None}
    parts["arms"] = {name: arm for name, arm in parts["arms"].items() if name in needed}
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:16]


def tuned_value(tier: Tier, arm: str, value: Value | None) -> Value | None:
    """The value of the axis whose tries decide for `value`: itself, the nearest one below that was tried, or the first.

    An arm that has none of the values at which tries run is tried at its own.
    """
    if tier.tuning is None or tier.tuning.values is None or value is None:
        return value
    tried = [v for v in tier.tuning.values if v in tier.values_of(arm)]
    if value in tried or not tried:
        return value
    below = [v for v in tried if not isinstance(v, str) and not isinstance(value, str) and v < value]
    if below:
        return max(below, key=float)
    return tried[0]


def places_to_try(tier: Tier) -> Sequence[Place]:
    """Every (arm, value) that the tries run at."""
    return [
        (arm, value)
        for arm in tier.arms
        if tier.arms[arm].tuned
        for value in tier.values_of(arm)
        if value == tuned_value(tier, arm, value)
    ]
