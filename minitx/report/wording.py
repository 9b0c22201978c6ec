"""Numbers, contrasts and verdicts as text, made from the numbers alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

from minitx.report.ledger import Entry, Ledger
from minitx.studies.claims import ClaimResult, ContrastResult
from minitx.studies.statistics import ALPHA
from minitx.studies.study import Contrast
from minitx.studies.verdicts import MIN_SEEDS, Finding, Method, State, Verdict
from minitx.sweeps.cells import Value

TITLE = "Claims about self-attention, tested"
UNTESTED = "not tested here"
HEADS: dict[Verdict | None, str] = {
    "supported": "Supported",
    "contradicted": "Contradicted",
    "undecided": "Undecided",
    None: "Not tested here",
}
SYMBOLS: dict[Verdict | None, str] = {
    "supported": "✓", "contradicted": "✗", "undecided": "?", None: "–",
}  # fmt: skip
MEANINGS: dict[Verdict, str] = {
    "supported": "Every part of the prediction holds: its interval lies wholly where it was expected.",
    "contradicted": "Some part turned out otherwise: its interval, corrected for the number of parts, lies wholly "
    "outside of where it was expected.",
    "undecided": f"The intervals leave it open, or there are fewer than {MIN_SEEDS} seeds.",
}
STATES: dict[State, str] = {"holds": "✓", "contrary": "✗", "open": "?"}
_FOUND: dict[Finding, str] = {
    "above": "above δ",
    "below": "below −δ",
    "negligible": "within ±{delta}, too small to name",
    "undecided": "too uncertain to name",
}
_OUTCOMES: dict[State, str] = {
    "holds": "as predicted", "contrary": "not as predicted", "open": "open",
}  # fmt: skip
_METHODS: dict[Method, str] = {
    "t": "", "sign": " (median, by the sign test)", "solved": " (exact)", "rate": " (exact)", "exact": "",
}  # fmt: skip
_EXPECTED = {"above": "above δ", "flat": "within ±δ", "no_better": "below δ", "exact": "equal to rounding"}
_UNITS = {"seconds": "time (s)", "bytes": "memory (bytes)", "speedup": "speed-up"}

# ------------------------------------------------------------------------------------------------------------ numbers


def plain(number: float, places: int = 3) -> str:
    """A number with a true minus and separated thousands; very small and large ones with a power of ten."""
    if number == 0:
        return "0"
    if math.isinf(number):
        return "∞" if number > 0 else "−∞"
    small_or_large = not 10.0 ** -max(places, 4) <= abs(number) < 1e7
    return (f"{number:.2e}" if small_or_large else f"{number:,.{places}f}").replace("-", "−")


def signed(number: float, places: int = 3) -> str:
    """`plain`, with its sign always."""
    return ("" if number < 0 else "+") + plain(number, places)


def places_for(*numbers: float) -> int:
    """Decimal places that give the smallest of these numbers three significant digits."""
    sizes = [abs(number) for number in numbers if number and math.isfinite(number)]
    return min(6, max(0, 2 - math.floor(math.log10(min(sizes))))) if sizes else 3


def places_of(found: ContrastResult) -> int:
    """Decimal places of a contrast: as many as delta needs, because smaller differences decide nothing."""
    return max(0, places_for(found.contrast.delta) - 1)


def interval(low: float, high: float, places: int = 3) -> str:
    """`[low, high]`"""
    return f"[{plain(low, places)}, {plain(high, places)}]"


def effect_text(found: ContrastResult) -> str:
    """`+0.031 [+0.020, +0.042]`"""
    effect, places = found.effect, places_of(found)
    return f"{signed(effect.mean, places)} [{signed(effect.low, places)}, {signed(effect.high, places)}]"


def delta_text(found: ContrastResult) -> str:
    """Delta as it was contrast."""
    return f"{found.contrast.delta:g}"


def percent(level: float) -> str:
    """`99.4 %`"""
    return f"{100 * level:.4g} %" if level < 0.9995 else f"{100 * level:.6g} %"


def p_text(p: float) -> str:
    """`p 0.012`, or `p < 0.001`, on one line."""
    return f"p\u00a0{p:.2g}" if p >= 0.001 else "p\u00a0<\u00a00.001"


def value_text(value: Value | None) -> str:
    """A value of the axis."""
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:,}"


# ------------------------------------------------------------------------------------------------------------- places


def measure_name(measure: str) -> str:
    """`test.accuracy` -> `test accuracy`, `loss.test` -> `test loss`, `cost.mixing_seconds` -> `mixing time (s)`,
    `parallel.log_speedup` -> `log speed-up`."""
    first, _, rest = measure.partition(".")
    if first == "loss" and rest:
        return f"{rest} loss"
    words = measure.replace(".", " ").replace("_", " ").split()
    if not words or words[-1] not in _UNITS:
        return " ".join(words)
    return " ".join([*words[1 if rest else 0 : -1], _UNITS[words[-1]]])


def axis_name(axis: str | None) -> str:
    """`data.train_size` -> `train_size`."""
    return "" if axis is None else axis.rsplit(".", 1)[-1]


def _place(arm: str, value: Value | None, axis: str | None) -> str:
    return arm if value is None else f"{arm} at {axis_name(axis)} {value_text(value)}"


def _sides(contrast: Contrast, axis: str | None) -> tuple[str, str | None]:
    """Both places that a difference compares."""
    return _place(contrast.arm, contrast.at, axis), None if contrast.against is None else _place(
        contrast.against, contrast.other_at, axis
    )


def contrast_text(contrast: Contrast, axis: str | None) -> str:
    """What is computed for each seed: `test accuracy: transformer at n 500 − cnn at n 500`."""
    name, (own, other) = measure_name(contrast.measure), _sides(contrast, axis)
    if contrast.kind == "slope":
        what = contrast.arm if contrast.against is None else f"({contrast.arm} − {contrast.against})"
        return (
            f"{name}: {'fall' if contrast.falls else 'change'} of {what} with every {contrast.per} of {axis_name(axis)}"
        )
    if contrast.kind == "rows_ratio":
        return f"{name}: log10 of the {axis_name(axis)} that {contrast.arm} needs over that of {contrast.against}"
    if contrast.kind == "excess_exponent":
        return f"{name}: exponent of {axis_name(axis)} for {contrast.arm}, linear part apart, minus {contrast.centre:g}"
    if contrast.kind == "exponent":
        return (
            f"{name}: exponent of {axis_name(axis)} for {contrast.arm} over the last tenfold, minus {contrast.centre:g}"
        )
    if contrast.kind == "log_ratio" and other is not None:
        return f"{name}: ln({own} / {other})"
    less = (f" − {contrast.centre:g}" if contrast.centre else "") if other is None else f" − {other}"
    return f"{name}: {own}{less}"


def measured_text(found: ContrastResult, axis: str | None) -> str:
    """The same with its value: `the test accuracy of transformer at n 500 is 0.03 lower than that of cnn at n 500`."""
    contrast, mean, places = found.contrast, found.effect.mean, places_of(found)
    name, (own, other) = measure_name(contrast.measure), _sides(contrast, axis)
    size, above = plain(abs(mean), places), mean >= 0
    if contrast.kind == "rows_ratio":
        return f"{contrast.arm} needs {10**mean:.3g} times the {axis_name(axis)} of {contrast.against}"
    if contrast.solved_at is not None:
        than = "" if other is None else f" above that of {other}"
        share = f"the share of seeds that solve the task ({name} from {contrast.solved_at:g})"
        return f"{share} with {own} is {plain(mean, 2)}{than}"
    if contrast.kind == "slope":
        what = (
            f"of {contrast.arm}" if contrast.against is None else f"of {contrast.arm} minus that of {contrast.against}"
        )
        way = "rises" if above != contrast.falls else "falls"
        return f"the {name} {what} {way} by {size} with every {contrast.per} of {axis_name(axis)}"
    if contrast.kind in ("exponent", "excess_exponent"):
        power = plain(contrast.centre + mean, places)
        grows = f"the {name} of {contrast.arm} grows with {axis_name(axis)} to the power {power}"
        return f"{grows}, {size} {'above' if above else 'below'} the {contrast.centre:g} of the claim"
    if contrast.kind == "log_ratio" and other is not None:
        return f"the {name} of {own} is {_times(mean)} that of {other}, a log ratio of {signed(mean, places)}"
    if other is None:
        beyond = f", {size} {'above' if above else 'below'} {contrast.centre:g}" if contrast.centre else ""
        return f"the {name} of {own} is {plain(contrast.centre + mean, places)}{beyond}"
    than = f"{size} {'higher' if above else 'lower'}"
    if contrast.arm == contrast.against:
        here, there = (f"at {axis_name(axis)} {value_text(value)}" for value in (contrast.at, contrast.other_at))
        return f"the {name} of {contrast.arm} is {than} {here} than {there}"
    return f"the {name} of {own} is {than} than that of {other}"


def _times(log_ratio: float) -> str:
    """`2.7 times`"""
    return f"{math.exp(log_ratio):.3g} times"


# ------------------------------------------------------------------------------------------------------------ verdicts


def marked_name(found: ContrastResult) -> str:
    """`✓ fused_is_square`: a contrast beside others of its claim, marked where it holds or is contrary."""
    return f"{STATES[found.effect.state]} {found.name}"


def predicted(found: ContrastResult) -> str:
    """Where the claim expects the effect."""
    return _EXPECTED[found.contrast.expect]


def outcome(found: ContrastResult) -> str:
    """What a contrast found, in a few words."""
    effect = found.effect
    if effect.n_seeds < MIN_SEEDS and found.contrast.expect != "exact":
        seeds = f"{effect.n_seeds} seed{'s' if effect.n_seeds > 1 else ''}"
        return f"too few seeds to tell ({seeds}, {MIN_SEEDS} are needed)"
    if found.contrast.expect == "exact":
        return f"{_OUTCOMES[effect.state]}: {'equal' if effect.state == 'holds' else 'unequal'}"
    return (
        f"{_OUTCOMES[effect.state]}: {_FOUND[effect.finding].format(delta=delta_text(found))}{_METHODS[effect.method]}"
    )


def errors_text(ledger: Ledger) -> str:
    """How many verdicts of the whole report may be wrong."""
    decided, tested = ledger.decided, [one for one in ledger.tested if one[1].verdict is not None]
    if not tested:
        return ""
    worst = f"{ALPHA * len(tested):.2g} of {len(tested)}"
    text = f"A verdict is wrong with {100 * ALPHA:.0f} % at most, whatever else is here: at worst {worst} on average."
    if not decided:
        return text
    seen = sum(result.p for _, result in decided)
    marks = [ledger.marks[entry.anchor] for entry, _ in decided]
    return (
        f"{text} At the noise seen here it is {seen:.2g} of the {len(decided)} that decide, of which "
        f"{sum(holm for holm, _ in marks)} survive Holm's correction over the whole report (**), "
        f"{sum(bh for _, bh in marks)} Benjamini and Hochberg's (* or **)."
    )


def mark(ledger: Ledger, entry: Entry) -> str:
    """`**`, `*` or nothing: what a verdict survives over the whole report."""
    holm, bh = ledger.marks.get(entry.anchor, (False, False))
    decided = entry.result is not None and entry.result.decided
    return "**" if decided and holm else "*" if decided and bh else ""


def sentence(entry: Entry) -> str:
    """The verdict on a claim in one sentence."""
    if entry.result is None:
        return f"{HEADS[None]}: no study in this folder asks about it."
    if entry.verdict is None:
        waiting = ", ".join(entry.unmeasured)
        return f"{HEADS[None]}: not every cell has finished with what {waiting or 'its contrasts'} needs."
    axis = entry.result.evidence.tier.axis
    head = "Exploratory, so undecided" if entry.exploratory else HEADS[entry.verdict]
    if entry.verdict == "undecided" and not entry.exploratory:
        head = f"{head}, {_progress(entry.result)}"
    return f"{head}: {'; '.join(_clause(found, axis) for found in entry.contrasts)}."


def _progress(result: ClaimResult) -> str:
    """`2 of 3 parts hold, about 80 values would decide the others`"""
    needed, parts = result.seeds_needed, len(result.contrasts)
    more = f", about {needed} values would decide the rest" if needed is not None else ""
    return f"{result.n_holding} of {parts} part{'s' if parts > 1 else ''} hold{'' if parts > 1 else 's'}{more}"


def _clause(found: ContrastResult, axis: str | None) -> str:
    effect, places = found.effect, places_of(found)
    bounds = f"{signed(effect.low, places)} to {signed(effect.high, places)}"
    return f"{measured_text(found, axis)} ({bounds}), {outcome(found)}"


def verdict_word(verdict: Verdict | None) -> str:
    """The verdict as the ledger names it."""
    return UNTESTED if verdict is None else verdict


def counted(entries: Sequence[Entry]) -> str:
    """`5 of 13 claims have been tested here: 2 supported, 3 contradicted.`; two tiers of a study give two verdicts."""
    claims = {entry.id for entry in entries}
    tested = {entry.id for entry in entries if entry.verdict is not None}
    verdicts = [entry.verdict for entry in entries if entry.verdict is not None]
    tally = ", ".join(f"{verdicts.count(verdict)} {verdict}" for verdict in MEANINGS if verdict in verdicts)
    more = f", with {len(verdicts)} verdicts" if len(verdicts) > len(tested) else ""
    return f"{len(tested)} of {len(claims)} claims have been tested here{more}" + (f": {tally}." if tally else ".")
