"""Every measure and axis of the study files has a name in words, in both languages."""

from __future__ import annotations

import math
import re

import pytest
import yaml
from tiny import ROOT

from minitx.report.labels import (
    AXIS_LABELS,
    MEASURE_LABELS,
    WORDS,
    axis_label,
    is_accuracy,
    measure_label,
    possible_range,
)

FILES = sorted((ROOT / "conf" / "study").rglob("*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_nothing_is_called_by_its_key(path: object) -> None:
    declared = yaml.safe_load(path.read_text())  # type: ignore[attr-defined]
    for tier in (declared.get("quick"), declared.get("full")):
        for contrasts in (tier or {}).get("contrasts", {}).values():
            assert {contrast["measure"] for contrast in contrasts.values()} <= set(MEASURE_LABELS)
        if tier and tier.get("axis"):
            assert tier["axis"] in AXIS_LABELS


def test_both_languages() -> None:
    for english, chinese in (*MEASURE_LABELS.values(), *AXIS_LABELS.values(), *WORDS.values()):
        assert re.search(r"[\u4e00-\u9fff]", chinese) and english.isascii()
    assert axis_label("model.n_heads", log=True) == "heads (log scale)"
    assert axis_label("model.n_heads", log=True, language="zh") == "头数（对数刻度）"
    assert measure_label("test.f1") == "test f1" and axis_label("model.d_ff", log=False) == "d_ff"


def test_what_a_measure_can_be() -> None:
    assert {possible_range(name) for name in ("test.accuracy", "test.masked_accuracy", "roles.follows_values")} == {
        (0, 1)
    }
    never_negative = (
        "test.per",
        "loss.test",
        "cost.peak_bytes",
        "cost.mixing_flops",
        "seconds",
        "compute.gflops_to_1.5",
    )
    assert {possible_range(name) for name in never_negative} == {(0, math.inf)}
    signed = ("fit.mean_gap", "parallel.log_speedup", "updates.log2_to_0.9", "builds.difference", "across.maps_less")
    assert {possible_range(name) for name in signed} == {(-math.inf, math.inf)}
    assert is_accuracy("test.masked_accuracy") and not is_accuracy("test.per")
