"""The rules of verdicts: few false ones, and the power that the formula predicts."""

from __future__ import annotations

import pytest

from minitx.studies.power import Noise, power, seeds_needed, simulate

NINE = {f"c{i}": Noise(sd=0.01 * (i + 1), n_seeds=5, delta=0.02) for i in range(9)}


@pytest.mark.parametrize("effect", [0.0, 1.0])
def test_no_effect_and_one_of_delta_are_rarely_supported(effect: float) -> None:
    """In any of nine contrasts together: 5 % and what chance adds to 1,000 reports."""
    assert simulate(NINE, effect, rounds=1000)["any"] <= 0.05 + 3 * (0.05 * 0.95 / 1000) ** 0.5


def test_the_share_of_a_lone_contrast_is_what_the_formula_says() -> None:
    noise = Noise(sd=0.013, n_seeds=7, delta=0.02)
    expected = power(noise, 0.05)
    assert 0.3 < expected < 0.95
    assert simulate({"c": noise}, 2.0, rounds=1000)["c"] == pytest.approx(expected, abs=0.05)


def test_more_noise_needs_more_seeds() -> None:
    needed = [seeds_needed(Noise(sd, 5, 0.02), alpha=0.005) for sd in (0.001, 0.02, 0.05)]
    assert needed[0] == 5 and needed[1] is not None and needed[2] is not None and 5 < needed[1] < needed[2]
    for sd, n in zip((0.02, 0.05), needed[1:], strict=True):
        assert n is not None
        assert power(Noise(sd, n, 0.02), 0.005) >= 0.8 > power(Noise(sd, n - 1, 0.02), 0.005)
    assert seeds_needed(Noise(10.0, 5, 0.001)) is None
