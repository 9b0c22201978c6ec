"""The rule of verdicts: from the values of a claim's parts, one for each seed, to supported, contradicted or undecided.

A part is one contrast. What it is expected to be is a region: above delta, within +-delta (`flat`), or below delta
(`no_better`). It *holds* where its interval lies inside that region, and is *contrary* where its interval lies wholly
outside. A claim is supported when every part holds (a conjunction is an intersection-union test, Berger 1982, and needs
no correction), and contradicted when some part is contrary at the level that Holm (1979) gives it among the parts.

Seeds are looked at up to four times. The intervals of every look are wider than those of a single one, so that all
looks together err as seldom as one interval of 95 % would (90 % for `negligible`, which is two one-sided tests).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Literal

import numpy as np
from scipy import stats

from minitx.studies.statistics import ALPHA, Floats

Expect = Literal["above", "flat", "no_better", "exact"]
Finding = Literal["above", "below", "negligible", "undecided"]
State = Literal["holds", "contrary", "open"]
Verdict = Literal["supported", "contradicted", "undecided"]
Needs = Literal["all", "one"]
Method = Literal["t", "sign", "solved", "rate", "exact"]
LOOKS = (5, 10, 20, 40)
"""Numbers of seeds at which a verdict may be asked for. One may be left out, none added."""
MIN_SEEDS = LOOKS[0]
"""Fewer values decide nothing."""
LOOK_ALPHA, FLAT_ALPHA = 0.015, 0.03
"""Error of the two-sided interval of one look: 98.5 % for `above` and what is contrary, 97 % for `flat` and
`no_better`. By simulation (tests/studies/test_verdicts.py) four looks then err in at most 5 %."""
HEAPS = 5.0
"""Values are in two heaps where the gap between these is more than so many times as wide as the wider of them."""
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Part:
    """What one contrast gave, seed by seed, and what it is expected to be."""

    low: tuple[float, ...]
    """Of each seed; below `high` where all that is known is that the value lies between the two (censored)."""
    high: tuple[float, ...]
    delta: float
    """The smallest effect worth naming."""
    expect: Expect
    method: Method = "t"
    """t: mean, Student's interval. sign: median, the interval of the sign test. solved: difference of two rates
    of success, from values 1, 0 and -1. rate: rate of success of one arm less `centre`. exact: all within delta."""
    centre: float = 0.0

    @property
    def n(self) -> int:
        return len(self.low)

    @cached_property
    def is_known(self) -> bool:
        """Whether every seed has a value: a measure that is not a number decides nothing, whatever was expected."""
        return not np.isnan([*self.low, *self.high]).any()

    @cached_property
    def used(self) -> Method:
        """`method`, or the sign test where Student's interval means nothing: values that are censored, all equal, or in
        two heaps."""
        if self.expect == "exact":
            return "exact"
        return "sign" if self.method == "t" and t_refused(self) is not None else self.method

    @cached_property
    def moments(self) -> tuple[float, float]:
        """Mean, and standard deviation over seeds."""
        return float(np.mean(self.low)), float(np.std(self.low, ddof=1))


@dataclass(frozen=True)
class Effect:
    """A part's effect over its seeds."""

    mean: float
    """Mean (t), median (sign), or difference of rates."""
    low: float
    """Of the interval that decides whether the part holds; so is `high`."""
    high: float
    n_seeds: int
    """Values that it is about: seeds, or pairs of seeds."""
    level: float
    method: Method
    finding: Finding
    state: State
    p: float
    """Smallest error over all looks at which the part would hold, or be contrary; 1 where neither can be."""
    seeds_needed: int | None
    """About how many values would decide it; None where that cannot be said or is more than 1,000."""


# ----------------------------------------------------------------------------------------------------------- intervals


def t_refused(part: Part) -> str | None:
    """Why Student's interval means nothing here; None where it may be used."""
    values = np.array(part.low)
    if part.low != part.high:
        return "some runs never got there"
    if part.n >= 2 and np.ptp(values) == 0:
        return "all seeds are equal"
    if part.n >= MIN_SEEDS and two_heaps(values):
        return "seeds fall into two heaps"
    return None


def two_heaps(values_N: Floats) -> bool:
    """Whether the widest gap between neighbours sets two groups apart, each narrow beside the gap."""
    ordered = np.sort(values_N)
    gaps = np.diff(ordered)
    place = int(np.argmax(gaps)) + 1
    return bool(gaps[place - 1] > HEAPS * max(np.ptp(ordered[:place]), np.ptp(ordered[place:])))


def interval(part: Part, alpha: float) -> tuple[float, float]:
    """The two-sided interval of error `alpha`; unbounded where a value is not a number."""
    if not part.is_known:
        return -np.inf, np.inf
    return _INTERVALS[part.used](part, alpha)


def _student(part: Part, alpha: float) -> tuple[float, float]:
    if part.n < 2:
        return -np.inf, np.inf
    mean, sd = part.moments
    half = _t(alpha, part.n - 1) * sd / part.n**0.5
    return mean - half, mean + half


@cache
def _t(alpha: float, freedom: int) -> float:
    return float(stats.t.isf(alpha / 2, freedom))


def _sign(part: Part, alpha: float) -> tuple[float, float]:
    """Of the median: the k-th smallest and largest value, with k from the binomial distribution."""
    k = _rank(alpha, part.n)
    return (sorted(part.low)[k - 1], sorted(part.high)[-k]) if k else (-np.inf, np.inf)


@cache
def _rank(alpha: float, n: int) -> int:
    """The largest k for which fewer than k of n coins show heads with a chance of alpha / 2 at most; 0 without any."""
    return int(np.searchsorted(stats.binom.cdf(np.arange(n), n, 0.5), alpha / 2, side="right"))


def _solved(part: Part, alpha: float) -> tuple[float, float]:
    """Difference of two rates: Clopper and Pearson's intervals (1934) of how often the one alone succeeds, and the
    other alone, each with half of the error."""
    ahead, behind = (_clopper_pearson(sum(v == way for v in part.low), part.n, alpha / 2) for way in (1, -1))
    return ahead[0] - behind[1], ahead[1] - behind[0]


def _rate(part: Part, alpha: float) -> tuple[float, float]:
    low, high = _clopper_pearson(sum(v == 1 for v in part.low), part.n, alpha)
    return low - part.centre, high - part.centre


@cache
def _clopper_pearson(k: int, n: int, alpha: float) -> tuple[float, float]:
    low = float(stats.beta.ppf(alpha / 2, k, n - k + 1)) if k else 0.0
    return low, float(stats.beta.isf(alpha / 2, k + 1, n - k)) if k < n else 1.0


def _exact(part: Part, alpha: float) -> tuple[float, float]:
    return min(part.low), max(part.high)


_INTERVALS: Mapping[Method, Callable[[Part, float], tuple[float, float]]] = {
    "t": _student, "sign": _sign, "solved": _solved, "rate": _rate, "exact": _exact,
}  # fmt: skip


def _middle(part: Part) -> float:
    if part.used == "sign":
        known = [b if np.isinf(a) else a for a, b in zip(part.low, part.high, strict=True)]
        return float(np.median([value for value in known if np.isfinite(value)] or [0.0]))
    return float(np.mean(part.low)) - (part.centre if part.used == "rate" else 0.0)


# ------------------------------------------------------------------------------------------------------------ verdicts


def limit_of(expect: Expect) -> float:
    """Error of the interval by which a part holds."""
    return LOOK_ALPHA if expect == "above" else FLAT_ALPHA


def holds(part: Part, divisor: float = 1) -> bool:
    """Whether the interval lies inside the region that is expected. divisor: of its error, as by Holm."""
    low, high = interval(part, limit_of(part.expect) / divisor)
    if part.expect == "exact":
        return -part.delta <= low and high <= part.delta
    if part.n < MIN_SEEDS:
        return False
    if part.expect == "above":
        return low > part.delta
    return high < part.delta and (part.expect == "no_better" or low > -part.delta)


def contrary(part: Part, divisor: float = 1) -> bool:
    """Whether the interval lies wholly outside the region that is expected. divisor: of its error, as by Holm."""
    if part.expect == "exact":
        return part.is_known and not holds(part)
    if part.n < MIN_SEEDS:
        return False
    low, high = interval(part, LOOK_ALPHA / divisor)
    if part.expect == "above":
        return high < part.delta
    return low > part.delta or (part.expect == "flat" and high < -part.delta)


def finding(part: Part) -> Finding:
    """What the effect is, whatever was expected."""
    if part.n < MIN_SEEDS and part.expect != "exact":
        return "undecided"
    low, high = interval(part, LOOK_ALPHA)
    if low > part.delta:
        return "above"
    if high < -part.delta:
        return "below"
    low, high = interval(part, FLAT_ALPHA)
    return "negligible" if -part.delta < low and high < part.delta else "undecided"


def verdict_of(parts: Mapping[str, Part], needs: Needs = "all") -> tuple[Verdict, dict[str, State]]:
    """The verdict on a claim, and the state of each of its parts.

    needs: `all`, as above. `one`: a single part that holds supports the claim, so that these are corrected, and only
    all of them contrary contradict it.
    """
    if needs == "all":
        holding, against = {name for name, part in parts.items() if holds(part)}, _by_holm(parts, contrary)
        supported, contradicted = len(holding) == len(parts) > 0, bool(against)
    else:
        holding, against = _by_holm(parts, holds), {name for name, part in parts.items() if contrary(part)}
        supported, contradicted = bool(holding), len(against) == len(parts) > 0
    states: dict[str, State] = {
        name: "contrary" if name in against else "holds" if name in holding else "open" for name in parts
    }
    return ("supported" if supported else "contradicted" if contradicted else "undecided"), states


def _by_holm(parts: Mapping[str, Part], shows: Callable[[Part, float], bool]) -> set[str]:
    """Parts that show it at the level that Holm's procedure gives each."""
    found, left = set[str](), set(parts)
    while more := {name for name in left if shows(parts[name], len(left))}:
        found |= more
        left -= more
    return found


def evaluate(parts: Mapping[str, Part], needs: Needs = "all") -> tuple[Verdict, dict[str, Effect]]:
    """The verdict on a claim, and the effect of each of its parts."""
    verdict, states = verdict_of(parts, needs)
    n_corrected = {"holds": 1 if needs == "all" else len(parts), "contrary": len(parts) if needs == "all" else 1}
    return verdict, {
        name: _effect(part, states[name], n_corrected.get(states[name], 1)) for name, part in parts.items()
    }


def claim_p(effects: Sequence[Effect], verdict: Verdict, needs: Needs = "all") -> float:
    """Smallest error at which the verdict on the claim would be what it is; 1 where it is undecided."""
    if verdict == "undecided":
        return 1.0
    state = "holds" if verdict == "supported" else "contrary"
    by_all = (verdict == "supported") == (needs == "all")
    return (max if by_all else min)(one.p for one in effects if one.state == state)


def _effect(part: Part, state: State, n_parts: int) -> Effect:
    """n_parts: by how many parts the error of the state is divided."""
    limit = limit_of(part.expect)
    low, high = interval(part, limit)
    return Effect(
        mean=_middle(part), low=low, high=high, n_seeds=part.n, level=1.0 if part.expect == "exact" else 1 - limit,
        method=part.used, finding=finding(part), state=state, p=_p(part, state, n_parts),
        seeds_needed=seeds_needed(part) if state == "open" else None,
    )  # fmt: skip


def _p(part: Part, state: State, n_parts: int) -> float:
    """ALPHA over the largest number of parts among which the state would still show, times how many there are."""
    if state == "open":
        return 1.0
    if part.expect == "exact":
        return 0.0
    shows = contrary if state == "contrary" else holds
    least, most = 0.0, 30.0  # of log10: one part, and more than any
    for _ in range(40):
        middle = (least + most) / 2
        least, most = (middle, most) if shows(part, 10**middle) else (least, middle)
    return min(1.0, ALPHA * n_parts / 10**least)


def seeds_needed(part: Part) -> int | None:
    """Values at which mean and spread as they are would decide the part, one way or the other."""
    if part.used != "t" or part.n < 2:
        return None
    mean, sd = part.moments
    distance = abs(part.delta - (abs(mean) if part.expect == "flat" else mean))
    inside = mean > part.delta if part.expect == "above" else mean < part.delta
    alpha = limit_of(part.expect) if inside else LOOK_ALPHA
    return next((n for n in range(MIN_SEEDS, MOST_SEEDS + 1) if _t(alpha, n - 1) * sd / n**0.5 < distance), None)


# ---------------------------------------------------------------------------------------------------- a whole report


def holm(ps: Sequence[float], alpha: float = ALPHA) -> list[bool]:
    """Which survive Holm's correction (1979): with it, all of them together are right with 1 - alpha."""
    order, kept = sorted(range(len(ps)), key=lambda place: ps[place]), set[int]()
    for rank, place in enumerate(order):
        if ps[place] > alpha / (len(ps) - rank):
            break
        kept.add(place)
    return [place in kept for place in range(len(ps))]


def benjamini_hochberg(ps: Sequence[float], alpha: float = ALPHA) -> list[bool]:
    """Which survive Benjamini and Hochberg's (1995): of those, a share alpha is wrong at most."""
    return [bool(p <= alpha) for p in stats.false_discovery_control(ps)] if ps else []
