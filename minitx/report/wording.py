"""Numbers, contrasts and verdicts as text, made from the numbers alone."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from minitx.report.labels import axis_name, in_words, measure_name
from minitx.report.ledger import Entry, Ledger
from minitx.report.phrases import say, told
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
    "undecided": "The intervals leave it open, or there are fewer than 5 seeds.",
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


def without_rounding_error(number: float, delta: float) -> float:
    """0 in place of what is less than a millionth of delta, which differs from machine to machine."""
    return 0.0 if abs(number) < 1e-6 * delta else number


def interval_text(mean: float, low: float, high: float, delta: float) -> str:
    """`+0.031 [+0.020, +0.042]`, to as many places as delta needs, because smaller differences decide nothing."""
    places = max(0, places_for(delta) - 1)
    mean, low, high = (without_rounding_error(number, delta) for number in (mean, low, high))
    return f"{signed(mean, places)} [{signed(low, places)}, {signed(high, places)}]"


def effect_text(found: ContrastResult) -> str:
    """`interval_text` of a contrast."""
    effect = found.effect
    return interval_text(effect.mean, effect.low, effect.high, found.contrast.delta)


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


def _place(arm: str, value: Value | None, axis: str | None) -> str:
    if value is None:
        return arm
    return say("{arm} at {axis} {value}", arm=arm, axis=axis_name(axis), value=value_text(value))


def _sides(contrast: Contrast, axis: str | None) -> tuple[str, str | None]:
    """Both places that a difference compares."""
    return _place(contrast.arm, contrast.at, axis), None if contrast.against is None else _place(
        contrast.against, contrast.other_at, axis
    )


def contrast_text(contrast: Contrast, axis: str | None) -> str:
    """What is computed for each seed: `test accuracy: transformer at n 500 − cnn at n 500`."""
    name, (own, other) = measure_name(contrast.measure), _sides(contrast, axis)
    values = {
        "name": name, "arm": contrast.arm, "against": contrast.against, "axis": axis_name(axis), "own": own,
        "other": other,
    }  # fmt: skip
    centre = f"{contrast.centre:g}"
    if contrast.kind == "slope":
        what = contrast.arm if contrast.against is None else f"({contrast.arm} − {contrast.against})"
        per = say(contrast.per)
        if contrast.falls:
            return say("{name}: fall of {what} with every {per} of {axis}", what=what, per=per, **values)
        return say("{name}: change of {what} with every {per} of {axis}", what=what, per=per, **values)
    if contrast.kind == "rows_ratio":
        return say("{name}: log10 of the {axis} that {arm} needs over that of {against}", **values)
    if contrast.kind == "excess_exponent":
        return say("{name}: exponent of {axis} for {arm}, linear part apart, minus {centre}", centre=centre, **values)
    if contrast.kind == "exponent":
        return say(
            "{name}: exponent of {axis} for {arm} over the last tenfold, minus {centre}", centre=centre, **values
        )
    if contrast.kind == "log_ratio" and other is not None:
        return say("{name}: ln({own} / {other})", **values)
    less = (f" − {centre}" if contrast.centre else "") if other is None else f" − {other}"
    return say("{name}: {what}", name=name, what=f"{own}{less}")


def measured_text(found: ContrastResult, axis: str | None) -> str:
    """The same with its value: `the test accuracy of transformer at n 500 is 0.03 lower than that of cnn at n 500`."""
    contrast, places = found.contrast, places_of(found)
    mean = without_rounding_error(found.effect.mean, contrast.delta)
    own, other = _sides(contrast, axis)
    size, above = plain(abs(mean), places), mean >= 0
    values = {
        "name": measure_name(contrast.measure), "arm": contrast.arm, "against": contrast.against, "size": size,
        "axis": axis_name(axis), "own": own, "other": other,
    }  # fmt: skip
    if contrast.kind == "rows_ratio":
        return say("{arm} needs {times} times the {axis} of {against}", times=f"{10**mean:.3g}", **values)
    if contrast.solved_at is not None:
        at = f"{contrast.solved_at:g}"
        if other is None:
            values["share"] = plain(mean, 2)
            return say(
                "the share of seeds that solve the task ({name} from {at}) with {own} is {share}", at=at, **values
            )
        return say(
            "the share of seeds that solve the task ({name} from {at}) with {own} is {share} above that of {other}",
            at=at, share=plain(mean, 2), **values,
        )  # fmt: skip
    if contrast.kind == "slope":
        values["per"] = say(contrast.per)
        values["what"] = contrast.arm
        if contrast.against is not None:
            values["what"] = say("{arm} minus that of {against}", arm=contrast.arm, against=contrast.against)
        if above != contrast.falls:
            return say("the {name} of {what} rises by {size} with every {per} of {axis}", **values)
        return say("the {name} of {what} falls by {size} with every {per} of {axis}", **values)
    if contrast.kind in ("exponent", "excess_exponent"):
        values |= {"power": plain(contrast.centre + mean, places), "centre": f"{contrast.centre:g}"}
        if above:
            return say(
                "the {name} of {arm} grows with {axis} to the power {power}, {size} above the {centre} of the claim",
                **values,
            )
        return say(
            "the {name} of {arm} grows with {axis} to the power {power}, {size} below the {centre} of the claim",
            **values,
        )
    if contrast.kind == "log_ratio" and other is not None:
        values |= {"times": f"{math.exp(mean):.3g}", "log": signed(mean, places)}
        return say("the {name} of {own} is {times} times that of {other}, a log ratio of {log}", **values)
    if other is None:
        values |= {"value": plain(contrast.centre + mean, places), "centre": f"{contrast.centre:g}"}
        if not contrast.centre:
            return say("the {name} of {own} is {value}", **values)
        if above:
            return say("the {name} of {own} is {value}, {size} above {centre}", **values)
        return say("the {name} of {own} is {value}, {size} below {centre}", **values)
    if contrast.arm == contrast.against:
        values |= {"here": value_text(contrast.at), "there": value_text(contrast.other_at)}
        if above:
            return say("the {name} of {arm} is {size} higher at {axis} {here} than at {axis} {there}", **values)
        return say("the {name} of {arm} is {size} lower at {axis} {here} than at {axis} {there}", **values)
    if above:
        return say("the {name} of {own} is {size} higher than that of {other}", **values)
    return say("the {name} of {own} is {size} lower than that of {other}", **values)


# ------------------------------------------------------------------------------------------------------------ verdicts


def marked_name(found: ContrastResult) -> str:
    """`✓ fused_is_square`: a contrast beside others of its claim, marked where it holds or is contrary."""
    return f"{STATES[found.effect.state]} {told(in_words(found.name))}"


def predicted(found: ContrastResult) -> str:
    """Where the claim expects the effect."""
    return say(_EXPECTED[found.contrast.expect])


def outcome(found: ContrastResult) -> str:
    """What a contrast found, in a few words."""
    effect = found.effect
    state = say(_OUTCOMES[effect.state])
    if effect.n_seeds < MIN_SEEDS and found.contrast.expect != "exact":
        return say("too few seeds to tell ({n} of the {least} that are needed)", n=effect.n_seeds, least=MIN_SEEDS)
    if found.contrast.expect == "exact":
        return say("{state}: equal", state=state) if effect.state == "holds" else say("{state}: unequal", state=state)
    seen = say(_FOUND[effect.finding], delta=delta_text(found))
    return say("{state}: {found}{method}", state=state, found=seen, method=say(_METHODS[effect.method]))


def errors_text(ledger: Ledger) -> str:
    """How many verdicts of the whole report may be wrong."""
    decided, tested = ledger.decided, [one for one in ledger.tested if one[1].verdict is not None]
    if not tested:
        return ""
    worst = say(
        "A verdict is wrong with {alpha} % at most, whatever else is here: at worst {wrong} of {n} on average.",
        alpha=f"{100 * ALPHA:.0f}", wrong=f"{ALPHA * len(tested):.2g}", n=len(tested),
    )  # fmt: skip
    if not decided:
        return worst
    marks = [ledger.marks[entry.anchor] for entry, _ in decided]
    return say(
        "{worst} At the noise seen here it is {seen} of the {n} that decide, of which {n_holm} survive Holm's "
        "correction over the whole report (**), {n_bh} Benjamini and Hochberg's (* or **).",
        worst=worst, seen=f"{sum(result.p for _, result in decided):.2g}", n=len(decided),
        n_holm=sum(holm for holm, _ in marks), n_bh=sum(bh for _, bh in marks),
    )  # fmt: skip


def mark(ledger: Ledger, entry: Entry) -> str:
    """`**`, `*` or nothing: what a verdict survives over the whole report."""
    holm, bh = ledger.marks.get(entry.anchor, (False, False))
    decided = entry.result is not None and entry.result.decided
    return "**" if decided and holm else "*" if decided and bh else ""


def sentence(entry: Entry) -> str:
    """The verdict on a claim in one sentence."""
    head = say(HEADS[entry.verdict])
    if entry.result is None:
        return say("{head}: no study in this folder asks about it.", head=head)
    if entry.verdict is None:
        waiting = ", ".join(entry.unmeasured) or say("its contrasts")
        return say("{head}: not every cell has finished with what {waiting} needs.", head=head, waiting=waiting)
    axis = entry.result.evidence.tier.axis
    if entry.exploratory:
        head = say("Exploratory, so undecided")
    elif entry.verdict == "undecided":
        head = say(", ").join([head, *_progress(entry.result)])
    clauses = say("; ").join(_clause(found, axis) for found in entry.contrasts)
    return say("{head}: {clauses}.", head=head, clauses=clauses)


def _progress(result: ClaimResult) -> Iterator[str]:
    """`2 of 3 parts hold`, `about 80 values would decide`"""
    if len(result.contrasts) > 1:
        yield say("{n} of {parts} parts hold", n=result.n_holding, parts=len(result.contrasts))
    if result.seeds_needed is not None:
        yield say("about {n} values would decide", n=result.seeds_needed)


def _clause(found: ContrastResult, axis: str | None) -> str:
    low, high = (
        signed(without_rounding_error(bound, found.contrast.delta), places_of(found))
        for bound in (found.effect.low, found.effect.high)
    )
    return say(
        "{measured} ({low} to {high}), {outcome}",
        measured=measured_text(found, axis), low=low, high=high, outcome=outcome(found),
    )  # fmt: skip


def verdict_word(verdict: Verdict | None) -> str:
    """The verdict as the ledger names it."""
    return say(UNTESTED if verdict is None else verdict)


def counted(entries: Sequence[Entry]) -> str:
    """`5 of 13 claims have been tested here: 2 supported, 3 contradicted.`; two tiers of a study give two verdicts."""
    claims = {entry.id for entry in entries}
    tested = {entry.id for entry in entries if entry.verdict is not None}
    verdicts = [entry.verdict for entry in entries if entry.verdict is not None]
    tally = say(", ").join(
        say("{n} {verdict}", n=verdicts.count(verdict), verdict=say(verdict))
        for verdict in MEANINGS
        if verdict in verdicts
    )
    text = say("{n} of {all} claims have been tested here", n=len(tested), all=len(claims))
    if len(verdicts) > len(tested):
        text = say("{text}, with {n} verdicts", text=text, n=len(verdicts))
    return say("{text}: {tally}.", text=text, tally=tally) if tally else say("{text}.", text=text)
