"""Turns, medians, ratios and exponents on numbers worked out by hand."""

from __future__ import annotations

from typing import Any

import pytest

from minitx.bench.parts import growth_exponent, medians, ratios, sum_training, turn


def row(label: str, number: int, speed: float, status: str = "ok") -> dict[str, Any]:
    return {"label": label, "round": number, "status": status, "speed": speed}


ROWS = [
    row("minitx", 0, 10.0), row("torch", 0, 5.0), row("minitx", 1, 30.0), row("torch", 1, 10.0),
    row("minitx", 2, 12.0), row("torch", 2, 12.0), row("minitx", 3, 99.0), row("torch", 3, 0.0, status="failed"),
]  # fmt: skip


def test_the_order_rotates() -> None:
    assert [turn(["a", "b", "c"], n) for n in range(4)] == [
        ["a", "b", "c"], ["b", "c", "a"], ["c", "a", "b"], ["a", "b", "c"],
    ]  # fmt: skip
    assert turn([], 3) == []


def test_medians_leave_failures_out() -> None:
    assert medians(ROWS, "speed") == {"minitx": 21.0, "torch": 10.0}


def test_ratios_are_within_a_round() -> None:
    """2, 3 and 1; the ratio of the medians would be 2.1."""
    found = ratios(ROWS, "speed", "minitx")["torch"]
    assert found == {"median": 2.0, "min": 1.0, "max": 3.0, "rounds": [2.0, 3.0, 1.0]}
    assert ratios(ROWS, "speed", "nobody") == {}


def test_the_exponent_is_of_the_last_three_lengths() -> None:
    points = {1: 1000.0, 2: 1000.0, 4: 16.0, 8: 64.0, 16: 256.0}
    assert growth_exponent(points) == pytest.approx(2.0)
    assert growth_exponent({4: 1.0, 8: 2.0}) is None
    assert growth_exponent({4: 0.0, 8: 2.0, 16: 3.0}) is None


def test_mfu_is_against_the_peak_of_its_own_round() -> None:
    """1 GFLOP in a second against 2 and against 4 GFLOP/s: 50 % and 25 %."""
    measured = [
        {
            "label": "minitx", "round": n, "status": "ok", "seconds": 1.0, "steps": 2, "tokens_per_second": 7.0,
            "tokens_per_step": 3.5, "padding": 0.0, "flops_per_second": 1e9, "peak_gflops": peak,
        }
        for n, peak in enumerate((2.0, 4.0))
    ]  # fmt: skip
    missing = {"label": "transformers", "round": 0, "status": "not installed", "error": "..."}
    summary = sum_training([*measured, missing], "classification")
    assert summary.facts["medians"]["mfu"] == {"minitx": pytest.approx(0.375)}
    assert summary.facts["medians"]["seconds_per_step"] == {"minitx": 0.5}
    assert [row[:2] for row in summary.tables[0].rows] == [["minitx", "7"], ["transformers", "not installed"]]
