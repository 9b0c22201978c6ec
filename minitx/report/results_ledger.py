"""The tables of claims in the README and on the page of reference results, from claims.json and power.json."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from minitx.report.labels import in_words
from minitx.report.ledger import command_of
from minitx.report.phrases import Language, say, speaking, told
from minitx.report.wording import interval_text

Json = Mapping[str, Any]
HEADERS: Mapping[Language, tuple[str, ...]] = {
    "en": ("claim", "verdict", "effect [interval]", "tier, seeds", "command"),
    "zh": ("论断", "结论", "效应 [区间]", "规模，种子数", "命令"),
}


def row(*cells: str) -> str:
    return "| " + " | ".join(cells) + " |"


def header(*cells: str) -> list[str]:
    return [row(*cells), "|" + "---|" * len(cells)]


def readme_claims(claims: Sequence[Json], language: Language) -> Iterator[str]:
    """A row for each claim and tier: in plain words, the verdict, one number, the command."""
    yield from header(*HEADERS[language])
    with speaking(language):
        for claim in claims:
            part = deciding(claim)
            number = "–" if part is None else f"{told(in_words(part['name']))} {contrast_text(part)}"
            seeds = f"{say(claim['tier'])}, {claim['seeds']}" if claim["tier"] else "–"
            verdict, command = say(claim["verdict"] or "not tested here"), rerun(claim)
            yield row(f"{claim['id']} {told(claim['claim'])}", verdict, number, seeds, f"`{command}`")


def deciding(claim: Json) -> Json | None:
    """The part that is shown for a claim: what contradicts it, what leaves it open, or the first; None without any."""
    wanted = {"contradicted": "contrary", "undecided": "open"}.get(claim["verdict"])
    parts = claim["parts"]
    return next((part for part in parts if part["state"] == wanted), parts[0] if parts else None)


def rerun(claim: Json) -> str:
    """The command of a claim, without the settings of the machine that it ran on."""
    return command_of(claim["study"], claim["tier"] or "quick")


def ledger_table(claims: Sequence[Json]) -> Iterator[str]:
    yield from header("id", "claim", "verdict", "contrasts: effect [interval], δ", "tier, seeds")
    for claim in claims:
        verdict = claim["verdict"] or f"not tested here: `{rerun(claim)}`"
        parts = claim["parts"]
        evidence = "; ".join(f"{in_words(part['name'])} {contrast_text(part)}, δ {part['delta']:g}" for part in parts)
        seeds = f"{claim['tier']}, {claim['seeds']} seeds" if parts else ""
        yield row(claim["id"], claim["claim"], verdict, evidence, seeds)


def contrast_text(part: Json) -> str:
    """`+0.031 [+0.020, +0.042]`"""
    low, high = (
        math.copysign(math.inf, sign) if bound is None else bound
        for bound, sign in zip(part["interval"], (-1, 1), strict=True)
    )
    return interval_text(part["effect"], low, high, part["delta"])


def power_lines(power: Json) -> Iterator[str]:
    """What the rule of verdicts errs at the noise of these studies, and which parts it could miss."""
    worst = {at: max(max(found[at].values()) for found in power["claims"].values()) for at in WRONG_AT}
    weak = [
        f"{in_words(name)} of {claim.rpartition('/')[2]} ({100 * part['power']:.0f} %)"
        for claim, found in power["claims"].items() for name, part in found["parts"].items()
        if part["power"] < ENOUGH_POWER
    ]  # fmt: skip
    shares = ", ".join(f"{100 * share:.1f} % {WRONG_AT[at]}" for at, share in worst.items())
    yield ""
    yield f"Simulated {power['rounds']:,} times each at the noise of these studies ([power.json](power.json)): of the"
    yield f"claims that Student's intervals judge, the worst has a wrong verdict in {shares}."
    seen = "but for " + ", ".join(weak) if weak else "for every part"
    yield f"An effect of the planned size is seen in {100 * ENOUGH_POWER:.0f} % or more within"
    yield f"{power['looks'][-1]} seeds, {seen}."


WRONG_AT = {
    "wrong_at_0": "where there is no effect",
    "wrong_at_delta": "where every effect is just δ",
    "wrong_at_minus_delta": "where it is just −δ",
}
ENOUGH_POWER = 0.8
