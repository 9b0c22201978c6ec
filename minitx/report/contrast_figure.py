"""One contrast's interval against plus and minus delta, as a small drawing in SVG that scales with the page."""

from __future__ import annotations

import math

from minitx.report.wording import delta_text, effect_text, plain
from minitx.studies.evidence import ContrastResult

WIDTH, HEIGHT, EDGE = 360, 66, 12
MIDDLE, BAND_TOP, BAND_END, LABELS = 24, 6, 42, 57
"""Heights: of the interval, of the band of delta, of the numbers below it."""
LABEL_ROOM = 34
"""Least distance between two numbers."""


def forest_svg(found: ContrastResult) -> str:
    """Shaded: within delta. Bar: the interval; diamond: the mean; dots: every seed. An arrow: the interval goes on."""
    low, high = _limits(found)

    def x(number: float) -> float:
        return EDGE + (min(max(number, low), high) - low) / (high - low) * (WIDTH - 2 * EDGE)

    delta, effect = found.part.delta, found.effect
    beyond = [(bound, way) for bound, way in ((effect.low, -1), (effect.high, 1)) if not low <= bound <= high]
    drawn = [
        _band(x(-delta), x(delta)),
        _upright(x(-delta), "#6b7783", "3 2"),
        _upright(x(delta), "#6b7783", "3 2"),
        _upright(x(0), "#16202c", ""),
        *(_dot(x(number)) for number in found.values),
        _bar(x(effect.low), x(effect.high)),
        *(_arrow(x(bound), way) for bound, way in beyond),
        _diamond(x(effect.mean)),
        *_numbers(x(-delta), x(0), x(delta), delta_text(found)),
    ]
    label = f"{effect_text(found)}, delta {delta_text(found)}"
    opened = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{label}">'
    return f"{opened}{''.join(drawn)}</svg>"


def _limits(found: ContrastResult) -> tuple[float, float]:
    """All of delta and of the seeds, and of the interval as far as that leaves something to see."""
    delta, effect = found.part.delta, found.effect
    inner = [-1.3 * delta, 1.3 * delta, *found.values]
    reach = 4 * max(map(abs, inner))
    bounds = [min(max(bound, -reach), reach) for bound in (effect.low, effect.high) if math.isfinite(bound)]
    low, high = min(inner + bounds), max(inner + bounds)
    margin = 0.06 * (high - low)
    return low - margin, high + margin


def _band(left: float, right: float) -> str:
    return f'<path d="M{left:.1f} {BAND_TOP}H{right:.1f}V{BAND_END}H{left:.1f}z" fill="#dfe5eb"/>'


def _dot(x: float) -> str:
    return f'<circle cx="{x:.1f}" cy="{MIDDLE + 11}" r="2.6" fill="#16202c" fill-opacity=".5"/>'


def _upright(x: float, colour: str, dashes: str) -> str:
    dashed = f' stroke-dasharray="{dashes}"' if dashes else ""
    return f'<path d="M{x:.1f} {BAND_TOP}V{BAND_END}" stroke="{colour}" stroke-width="1"{dashed}/>'


def _bar(left: float, right: float) -> str:
    ends = "".join(f"M{x:.1f} {MIDDLE - 5}v10" for x in (left, right))
    return f'<path d="M{left:.1f} {MIDDLE}H{right:.1f}{ends}" stroke="#0b4f8a" stroke-width="2.4" fill="none"/>'


def _arrow(x: float, way: int) -> str:
    back = -7 * way
    return f'<path d="M{x:.1f} {MIDDLE}l{back} -6v12z" fill="#0b4f8a" transform="translate({4 * way} 0)"/>'


def _diamond(x: float) -> str:
    return f'<path d="M{x:.1f} {MIDDLE - 6}l6 6l-6 6l-6 -6z" fill="#0b4f8a" stroke="#fff" stroke-width="1"/>'


def _numbers(left: float, zero: float, right: float, delta: str) -> list[str]:
    """-delta, 0 and delta, as far as they have room."""
    style = 'font-family="system-ui,sans-serif" font-size="11" fill="#3f4b57"'
    if zero - left >= LABEL_ROOM:
        places = [(left, f"{plain(-1, 0)[0]}{delta}", "middle"), (zero, "0", "middle"), (right, f"+{delta}", "middle")]
    else:
        places = [(zero, "0", "middle"), (max(zero, right) + 8, f"shaded: ±{delta}", "start")]
        if zero > 0.7 * WIDTH:
            places[1] = (min(zero, left) - 8, f"shaded: ±{delta}", "end")
    return [
        f'<text x="{min(max(x, EDGE), WIDTH - EDGE):.1f}" y="{LABELS}" text-anchor="{anchor}" {style}>{text}</text>'
        for x, text, anchor in places
    ]
