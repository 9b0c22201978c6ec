"""The counters of a run: where it is, what is best so far, and the sums since the last logged line.

All of them are saved in a checkpoint's state.json, so that a run goes on as if it had not been interrupted.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from minitx.training.schedule import WarmUp


@dataclass
class Window:
    """Sums since the last logged line."""

    loss: float = 0.0
    targets: int = 0
    tokens: int = 0
    grad_norm: float = 0.0
    steps: int = 0
    seconds: float = 0.0


@dataclass
class Counters:
    """Every counter of a run; saved in state.json."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    seconds: float = 0.0
    tokens: int = 0
    """Real tokens trained on: of the target side for a translator, of the text for a classifier."""
    settled: float | None = None
    """Seconds at step `SETTLED_AT`; the speed is measured from there."""
    warm_up: WarmUp | None = None
    """With `max_minutes`: how the warm-up ended, once it has."""
    best: float | None = None
    best_loss: float | None = None
    """Decides between equal scores."""
    best_step: int = 0
    validations: int = 0
    without_better: int = 0
    window: Window = field(default_factory=Window)

    @classmethod
    def from_json(cls, state: dict[str, Any]) -> Counters:
        ended = state["warm_up"]
        warm_up = WarmUp(**ended) if ended else None
        return cls(**{**state, "window": Window(**state["window"]), "warm_up": warm_up})

    def to_json(self) -> dict[str, Any]:
        return asdict(self)
