"""What the lens measured, on the console and in TensorBoard."""

from __future__ import annotations

import math
from collections.abc import Mapping

from minitx.evaluation.field import HELD
from minitx.evaluation.head_maps import Looks, Place
from minitx.evaluation.lens import LayerHeads, LensReport
from minitx.training.console import Reporter

COLUMNS = ("layer", "head", "entropy", "spread", "distance", "importance", "loss without", "accuracy without", "rank")
LEGEND = (
    "entropy: of a query's weights, nats; spread: the same over its largest value; distance: tokens (cross: share of "
    "the length, from the diagonal); importance: |d loss / d gate|; without the head: change of loss, and of accuracy "
    "in points; rank: effective rank of what it writes"
)


def look_scalars(looks: Mapping[Place, Looks]) -> dict[str, float]:
    """`encoder_L1/H2/entropy` and so on, layers and heads counted from 1."""
    return {
        f"{place}/H{head + 1}/{name}": values[head]
        for place, of_layer in looks.items()
        for name, values in _shown(of_layer).items()
        for head in range(len(values))
    }


def _shown(looks: Looks) -> dict[str, tuple[float, ...]]:
    """Cross-attention has no distance in tokens."""
    far = {"relative_distance": looks.relative_distance} if looks.distance is None else {"distance": looks.distance}
    return {"entropy": looks.entropy, "spread": looks.spread, **far}


def say_heads(reporter: Reporter, report: LensReport, what: str) -> None:
    """The table of heads, a line on each layer's likeness, and one on the field. what: the rows, in words."""
    whole = report.quality
    if report.layers:
        title = f"{what}: loss {whole.loss:.4f}, accuracy {100 * whole.accuracy:.2f} %"
        reporter.table(title, COLUMNS, [row for layer in report.layers for row in _rows(layer)])
        reporter.say(LEGEND)
    for layer in report.layers:
        maps, outputs, width = layer.maps.mean, layer.outputs.mean, f"joint rank {layer.joint_rank:.1f}"
        if len(layer.rank) > 1:
            reporter.say(
                f"{layer.place}: heads are alike by {_share(maps)} in maps, {_share(outputs)} in outputs; {width}"
            )
    field = report.field
    said = f"{100 * HELD:.0f} % of the gradient within {field.width:,} positions; farthest that is read {field.reach:,}"
    reporter.say(f"field   {said}")


def _rows(layer: LayerHeads) -> list[tuple[str, ...]]:
    looks, effects = layer.looks, layer.effects
    return [
        (
            str(layer.place),
            str(head + 1),
            f"{looks.entropy[head]:.3f}",
            _share(looks.spread[head]),
            f"{looks.distance[head]:.2f}" if looks.distance is not None else f"{looks.relative_distance[head]:.3f}",
            f"{effects.importance[head]:.4f}",
            f"{effects.loss_without[head]:+.4f}",
            f"{100 * effects.accuracy_without[head]:+.2f}",
            f"{layer.rank[head]:.1f}",
        )
        for head in range(len(layer.rank))
    ]


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.2f}"
