"""Positions in the figure of a contrast, read back from its SVG."""

from __future__ import annotations

import math
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import pytest

from minitx.report.figures import FOREST_WIDTH, forest_svg
from minitx.studies.claims import ContrastResult
from minitx.studies.study import Contrast
from minitx.studies.verdicts import Effect

DELTA = 0.02


def found(mean: float, low: float, high: float, values: tuple[float, ...]) -> ContrastResult:
    part = Contrast(measure="m", arm="a", delta=DELTA)
    return ContrastResult(
        "n",
        part,
        tuple(range(len(values))),
        values,
        Effect(mean, low, high, 5, 0.95, "t", "negligible", "open", 0.1, None),
    )


def paths(svg: str) -> list[str]:
    root = ElementTree.fromstring(svg)
    return [path.attrib["d"] for path in root.iter("{http://www.w3.org/2000/svg}path")]


def xs(path: str) -> list[float]:
    return [float(x) for x in re.findall(r"[MH]([\d.]+)", path)]


def test_all_stands_on_one_scale() -> None:
    svg = forest_svg(found(0.03, 0.01, 0.05, (0.012, 0.03, 0.048)))
    band, minus, plus, zero, bar, diamond = paths(svg)
    at = {
        -DELTA: xs(minus)[0],
        0.0: xs(zero)[0],
        DELTA: xs(plus)[0],
        0.01: xs(bar)[0],
        0.05: xs(bar)[1],
        0.03: xs(diamond)[0],
    }
    circles = [float(x) for x in re.findall(r'cx="([\d.]+)"', svg)]
    at |= dict(zip((0.012, 0.0300001, 0.048), circles, strict=True))
    slope = (at[0.05] - at[-DELTA]) / (0.05 + DELTA)
    for number, x in at.items():
        assert x == pytest.approx(at[-DELTA] + slope * (number + DELTA), abs=0.11)
        assert 0 < x < FOREST_WIDTH
    assert xs(band)[:2] == [at[-DELTA], at[DELTA]]


def test_an_interval_without_end_has_arrows() -> None:
    one = found(0.03, 0.01, 0.05, (0.03,))
    without, both = forest_svg(one), forest_svg(replace(one, effect=replace(one.effect, low=-math.inf, high=math.inf)))
    assert len(paths(both)) == len(paths(without)) + 2
    assert "nan" not in both and "inf" not in re.sub('aria-label="[^"]*"', "", both)


@pytest.mark.parametrize("mean", [3.0, -3.0])
def test_numbers_of_a_narrow_band_do_not_overlap(mean: float) -> None:
    svg = forest_svg(found(mean, mean - 0.1, mean + 0.1, (mean,)))
    assert re.findall(r">([^<]*)</text>", svg) == ["0", "shaded: ±0.02"]
    assert all(0 <= float(x) <= FOREST_WIDTH for x in re.findall(r'<text x="([\d.-]+)"', svg))
