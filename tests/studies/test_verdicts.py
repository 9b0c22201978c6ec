"""The rule of verdicts: intervals against scipy, parts and claims by hand, and how often studies err."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from minitx.studies.power import Noise, power, wrong_verdicts
from minitx.studies.verdicts import (
    FLAT_ALPHA,
    LOOK_ALPHA,
    LOOKS,
    Effect,
    Expect,
    Method,
    Part,
    benjamini_hochberg,
    claim_p,
    contrary,
    evaluate,
    finding,
    holds,
    holm,
    interval,
    t_refused,
    two_heaps,
    verdict_of,
)

DELTA = 0.7


def part(values: list[float], expect: Expect = "above", method: Method = "t", centre: float = 0.0) -> Part:
    return Part(tuple(values), tuple(values), DELTA, expect, method, centre)


def around(mean: float, spread: float = 0.1, n: int = 7) -> list[float]:
    """Values of exactly this mean, neither equal nor in heaps."""
    return [mean + spread * (i - (n - 1) / 2) for i in range(n)]


# ------------------------------------------------------------------------------------------------------------ intervals


def test_the_constants_of_the_looks() -> None:
    """Student's quantiles at 98.5 and 97 %, as ../studies/README.md has them."""
    assert [round(float(stats.t.isf(LOOK_ALPHA / 2, n - 1)), 2) for n in LOOKS] == [4.09, 3.0, 2.67, 2.54]
    assert [round(float(stats.t.isf(FLAT_ALPHA / 2, n - 1)), 2) for n in LOOKS] == [3.3, 2.57, 2.35, 2.25]


@pytest.mark.parametrize("alpha", [0.3, 0.05, 0.015])
def test_the_interval_is_students(alpha: float) -> None:
    values = np.random.default_rng(3).normal(0.4, 1.1, 11)
    expected = stats.ttest_1samp(values, 0).confidence_interval(1 - alpha)
    assert interval(part(list(values)), alpha) == pytest.approx((expected.low, expected.high))


@pytest.mark.parametrize("n", [5, 7, 11, 23])
def test_the_sign_tests_interval_covers_the_median(n: int) -> None:
    """By definition: a value inside is not rejected by scipy's binomial test, one outside is."""
    values = np.sort(np.random.default_rng(n).normal(size=n))
    low, high = interval(part(list(values), method="sign"), 0.05)
    for tried in (values[:-1] + values[1:]) / 2:
        p = stats.binomtest(int((values > tried).sum()), n, 0.5).pvalue
        assert (low < tried < high) == (p > 0.05)
    assert interval(part(around(1.0, n=5), method="sign"), LOOK_ALPHA) == (-np.inf, np.inf), "five coins prove nothing"


def test_a_rate_has_clopper_and_pearsons_interval() -> None:
    solved = [1.0] * 9 + [0.0] * 2
    expected = stats.binomtest(9, 11).proportion_ci(0.95, "exact")
    low, high = interval(part(solved, method="rate", centre=0.5), 0.05)
    assert (low + 0.5, high + 0.5) == pytest.approx((expected.low, expected.high))


def test_a_difference_of_rates_from_two_exact_intervals() -> None:
    values = [1.0] * 6 + [-1.0] * 2 + [0.0] * 5
    ahead, behind = (stats.binomtest(k, 13).proportion_ci(0.975, "exact") for k in (6, 2))
    assert interval(part(values, method="solved"), 0.05) == pytest.approx(
        (ahead.low - behind.high, ahead.high - behind.low)
    )


def test_students_interval_is_refused_where_it_means_nothing() -> None:
    heaps = [0.5, 0.501, 0.499, 0.0, 0.001, 0.002, 0.5]
    assert t_refused(part(heaps)) == "seeds fall into two heaps" and part(heaps).used == "sign"
    assert t_refused(part([0.3] * 7)) == "all seeds are equal" and part([0.3] * 7).used == "sign"
    censored = Part((1.0, 2.0, 3.0, 2.5, 1.5), (1.0, np.inf, 3.0, 2.5, 1.5), DELTA, "above")
    assert t_refused(censored) == "some runs never got there" and censored.used == "sign"
    assert t_refused(part(around(0.3))) is None
    rng = np.random.default_rng(0)
    for n, most in ((5, 0.025), (10, 0.001)):
        assert np.mean([two_heaps(rng.normal(size=n)) for _ in range(4000)]) <= most, "seldom refused for nothing"


def test_runs_that_never_got_there_count_as_far_as_they_are_known() -> None:
    """Ten censored values that are all beyond delta support `above`; they never support `flat`."""
    low = tuple(around(2.0, n=10))
    censored = Part(low, (np.inf,) * 10, DELTA, "above")
    assert holds(censored) and interval(censored, LOOK_ALPHA) == (min(low), np.inf)
    assert not holds(Part((0.1,) * 10, (np.inf,) * 10, DELTA, "flat"))
    nothing = Part((-np.inf,) * 10, (np.inf,) * 10, DELTA, "above")
    assert evaluate({"a": nothing})[0] == "undecided" and evaluate({"a": nothing})[1]["a"].mean == 0.0


# ---------------------------------------------------------------------------------------------------- parts and claims


@pytest.mark.parametrize(
    ("mean", "expect", "state", "found"),
    [
        (1.5, "above", "holds", "above"),
        (0.75, "above", "open", "undecided"),
        (0.2, "above", "contrary", "negligible"),
        (-1.5, "above", "contrary", "below"),
        (0.2, "flat", "holds", "negligible"),
        (1.5, "flat", "contrary", "above"),
        (-1.5, "flat", "contrary", "below"),
        (0.7, "flat", "open", "undecided"),
        (0.2, "no_better", "holds", "negligible"),
        (-1.5, "no_better", "holds", "below"),
        (1.5, "no_better", "contrary", "above"),
    ],
)
def test_what_a_part_is(mean: float, expect: Expect, state: str, found: str) -> None:
    verdict, effects = evaluate({"only": part(around(mean), expect)})
    assert (effects["only"].state, effects["only"].finding) == (state, found)
    assert verdict == {"holds": "supported", "contrary": "contradicted", "open": "undecided"}[state]


def test_four_seeds_decide_nothing_but_what_is_exact() -> None:
    assert evaluate({"a": part(around(9.0, n=4))})[0] == "undecided"
    assert evaluate({"a": part([0.0], "exact")})[0] == "supported"
    assert evaluate({"a": part([0.0, 0.0, 0.8], "exact")})[0] == "contradicted"


def test_a_claim_needs_every_part_and_one_contrary_part_is_enough() -> None:
    above, flat, open_, contrary_ = (
        part(around(1.5)), part(around(0.1), "flat"), part(around(0.75)), part(around(0.1))
    )  # fmt: skip
    assert verdict_of({"a": above, "b": flat})[0] == "supported"
    assert verdict_of({"a": above, "b": open_})[0] == "undecided"
    assert verdict_of({"a": above, "b": open_, "c": contrary_})[0] == "contradicted"
    assert verdict_of({"a": contrary_, "b": open_, "c": above}, "one")[0] == "supported"
    assert verdict_of({"a": contrary_, "b": contrary_}, "one")[0] == "contradicted"
    assert verdict_of({"a": contrary_, "b": open_}, "one")[0] == "undecided"


def test_contrary_parts_are_corrected_by_holm_within_the_claim() -> None:
    """A part that is contrary alone is not beside three others that are open."""
    values = around(DELTA - 0.16, n=5)
    barely = next(
        p for spread in np.linspace(0.3, 0.01, 200)
        if contrary(p := part([DELTA - 0.2 + spread * (v - values[2]) / 0.1 for v in values]))
    )  # fmt: skip
    open_ = part(around(0.75, n=5))
    assert verdict_of({"a": barely})[0] == "contradicted"
    assert verdict_of({"a": barely, "b": open_, "c": open_, "d": open_})[0] == "undecided"


@pytest.mark.parametrize(("mean", "expect"), [(1.5, "above"), (0.2, "above"), (0.3, "flat"), (1.1, "no_better")])
def test_p_is_the_error_at_which_the_state_just_shows(mean: float, expect: Expect) -> None:
    one = part(around(mean, 0.05), expect)
    _, effects = evaluate({"a": one})
    [effect] = effects.values()
    assert effect.state != "open" and 0 < effect.p <= 0.05
    shows = contrary if effect.state == "contrary" else holds
    divisor = 0.05 / effect.p
    assert shows(one, divisor * 0.99) and not shows(one, divisor * 1.01)


def test_the_p_of_a_claim() -> None:
    def effect(p: float, state: str) -> Effect:
        return Effect(0, 0, 0, 5, 0.985, "t", "above", state, p, None)  # type: ignore[arg-type]

    all_hold = [effect(0.01, "holds"), effect(0.03, "holds")]
    assert claim_p(all_hold, "supported") == 0.03 and claim_p(all_hold, "supported", "one") == 0.01
    assert claim_p([effect(0.01, "contrary"), effect(0.02, "contrary"), effect(1, "open")], "contradicted") == 0.01
    assert claim_p(all_hold, "undecided") == 1.0


def test_seeds_that_would_decide() -> None:
    """At that number and this spread the interval just clears delta."""
    values = around(0.9, 0.2, n=7)
    _, effects = evaluate({"a": part(values)})
    needed = effects["a"].seeds_needed
    assert needed is not None and needed > 7
    sd = float(np.std(values, ddof=1))
    half = [stats.t.isf(LOOK_ALPHA / 2, n - 1) * sd / n**0.5 for n in (needed - 1, needed)]
    assert half[0] >= 0.2 > half[1]


# ------------------------------------------------------------------------------------------------------ whole reports


def test_holm_and_benjamini_hochberg_against_their_definitions() -> None:
    rng = np.random.default_rng(7)
    for _ in range(50):
        ps = (rng.uniform(size=11) ** 4).tolist()
        order = sorted(ps)
        n_holm = len(list(itertools.takewhile(lambda ip: ip[1] <= 0.05 / (11 - ip[0]), enumerate(order))))
        assert holm(ps) == [p in order[:n_holm] for p in ps]
        n_bh = max((rank for rank, p in enumerate(order, 1) if p <= 0.05 * rank / 11), default=0)
        assert benjamini_hochberg(ps) == [p in order[:n_bh] for p in ps]
    assert holm([]) == benjamini_hochberg([]) == []


# --------------------------------------------------------------------------------------------- how often studies err


@pytest.mark.slow
@pytest.mark.parametrize("expect", ["above", "flat", "no_better"])
@pytest.mark.parametrize("sd", [0.4, 1.5])
@pytest.mark.parametrize("effect", [-1.0, 0.0, 1.0])
def test_four_looks_err_in_five_per_cent_at_most(expect: Expect, sd: float, effect: float) -> None:
    """2,000 simulated studies; what chance adds to 5 % of 2,000 is three standard errors."""
    allowed = 0.05 + 3 * (0.05 * 0.95 / 2000) ** 0.5
    for share in wrong_verdicts([Noise(sd, 1.0, expect)], effect).values():
        assert share <= allowed


@pytest.mark.slow
def test_a_claim_of_four_parts_errs_no_more() -> None:
    noise = [Noise(0.5, 1.0), Noise(1.0, 1.0), Noise(0.7, 1.0, "flat"), Noise(0.3, 1.0, "no_better")]
    for effect in (0.0, 1.0):
        assert max(wrong_verdicts(noise, effect).values()) <= 0.065


def test_power_grows_with_looks_and_falls_with_noise() -> None:
    assert power(Noise(2.0, 1.0), 300) > power(Noise(2.0, 1.0), 300, looks=(5, 10)) + 0.2
    assert power(Noise(2.0, 1.0), 300) > power(Noise(5.0, 1.0), 300) + 0.2
    assert power(Noise(0.5, 1.0), 300) >= 0.99
    assert finding(part(around(1.5))) == "above"


@pytest.mark.parametrize("expect", ["above", "flat", "no_better", "exact"])
@pytest.mark.parametrize("method", ["t", "sign", "rate"])
@pytest.mark.parametrize("place", [0, 3, 6])
def test_a_value_that_is_no_number_decides_nothing_wherever_it_stands(
    expect: Expect, method: Method, place: int
) -> None:
    """And it changes nothing for the parts beside it: it counts as p = 1."""
    spoiled = around(2.0, 0.01)
    spoiled[place] = math.nan
    parts = {"spoiled": part(spoiled, expect, method), "whole": part(around(2.0, 0.01))}
    for order in (parts, dict(reversed(parts.items()))):
        verdict, effects = evaluate(order)
        assert verdict == "undecided"
        assert (effects["spoiled"].state, effects["spoiled"].finding, effects["spoiled"].p) == ("open", "undecided", 1)
        assert effects["whole"] == evaluate({"whole": parts["whole"]})[1]["whole"]
