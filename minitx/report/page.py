"""The report as one HTML page: ledger on top, a section for each claim that a study tests, then the untested."""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Iterable, Mapping
from html import escape
from importlib.resources import files

from minitx.report.arms import Cell, arm_table
from minitx.report.contrast_figure import forest_svg
from minitx.report.ledger import Entry, Ledger
from minitx.report.notes import Note, notes_of
from minitx.report.wording import (
    HEADS,
    MEANINGS,
    SYMBOLS,
    contrast_text,
    counted,
    delta_text,
    effect_text,
    marked_name,
    outcome,
    p_text,
    percent,
    sentence,
    verdict_word,
)
from minitx.studies.evidence import ClaimResult, ContrastResult
from minitx.studies.statistics import Verdict

VOID = {"img", "br"}


class Html(str):
    """Text that is markup."""

    __slots__ = ()


def tag(name: str, *children: str, **attributes: str | None) -> Html:
    """`<name attributes>children</name>`; `class_` is class, `data_x` is data-x, and None is left out."""
    named = {key.rstrip("_").replace("_", "-"): value for key, value in attributes.items() if value is not None}
    opened = name + "".join(f' {key}="{escape(value)}"' for key, value in named.items())
    return Html(f"<{opened}>" if name in VOID else f"<{opened}>{join(children)}</{name}>")


def join(children: Iterable[str], between: str = "") -> Html:
    """One after the other."""
    return Html(between.join(child if isinstance(child, Html) else escape(child) for child in children))


Link = Callable[[str], str]
"""A folder of a cell or study -> its address from the page."""
TITLE = "Claims about self-attention, tested"


def report_page(ledger: Ledger, figures: Mapping[str, Mapping[str, tuple[str, str]]], link: Link) -> str:
    """figures: an entry's anchor -> measure -> (SVG, caption)."""
    untested = [entry for entry in ledger.entries if entry.finding is None]
    sections = [_section(entry, found, figures.get(entry.anchor, {}), link) for entry, found in ledger.tested]
    parts = {
        "title": tag("title", TITLE),
        "heading": tag("h1", TITLE),
        "summary": tag("p", counted(ledger.entries), class_="summary"),
        "legend": _legend(),
        "ledger": _ledger(ledger),
        "sections": join(sections, "\n"),
        "untested": _untested(untested) if untested else Html(""),
    }
    template = files(__package__).joinpath("report_page.html").read_text(encoding="utf-8")
    # One pass, so that a text which happens to spell a placeholder stays as it is.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


# ------------------------------------------------------------------------------------------------------------- ledger


def _badge(verdict: Verdict | None) -> Html:
    symbol = tag("span", SYMBOLS[verdict], aria_hidden="true")
    return tag("span", symbol, " ", verdict_word(verdict), class_=f"badge {verdict or 'untested'}")


def _legend() -> Html:
    rows = [tag("div", tag("dt", _badge(verdict)), tag("dd", meaning)) for verdict, meaning in MEANINGS.items()]
    untested = tag("div", tag("dt", _badge(None)), tag("dd", "No finished study in this folder asks about it."))
    return tag("dl", *rows, untested, class_="legend")


def _ledger(ledger: Ledger) -> Html:
    heads = ("Claim", "Verdict", "Effect [interval], δ", "Seeds, tier")
    head = tag("tr", *(tag("th", name, scope="col") for name in heads))
    rows = join((_ledger_row(entry) for entry in ledger.entries), "\n")
    return tag("table", tag("thead", head), tag("tbody", rows), class_="ledger")


def _ledger_row(entry: Entry) -> Html:
    claim = (
        tag("a", tag("b", entry.id), " ", entry.claim.statement, href=f"#{entry.anchor}")
        if entry.finding is not None
        else join((tag("b", entry.id), " ", entry.claim.statement))
    )
    first = (tag("td", claim, class_="claim"), tag("td", _badge(entry.verdict), data_label="Verdict"))
    command = (tag("code", entry.command),) if entry.verdict is None else ()
    if entry.finding is None:
        return tag("tr", *first, tag("td", *command, colspan="2", data_label="Run"), class_="quiet")
    effects = (_effect(part, marked_name(part) if len(entry.parts) > 1 else None) for part in entry.parts)
    seeds = "–".join(str(n) for n in sorted({part.effect.n_seeds for part in entry.parts}))
    told = f"{seeds} seeds, {entry.finding.tier}" if seeds else entry.finding.tier
    exploratory = (tag("small", "exploratory"),) if entry.exploratory else ()
    return tag(
        "tr",
        *first,
        tag("td", tag("div", *effects, *command), data_label="Effect", class_="number"),
        tag("td", tag("div", told, *exploratory), data_label="Runs"),
    )


def _effect(part: ContrastResult, name: str | None) -> Html:
    numbers = tag("span", effect_text(part), class_="whole"), ", ", tag("span", f"δ {delta_text(part)}", class_="whole")
    return tag("div", *((tag("small", name),) if name else ()), *numbers, class_="line")


# ------------------------------------------------------------------------------------------------------------ section


def _section(entry: Entry, found: ClaimResult, figures: Mapping[str, tuple[str, str]], link: Link) -> Html:
    study = tag("a", found.study, href=link(found.study))
    about = tag("p", "Study ", study, f", tier {found.tier}: {found.evidence.study.title}", class_="about")
    body = (
        tag("header", tag("h2", tag("b", entry.id), " ", entry.claim.statement), _badge(entry.verdict)),
        about,
        _told("Predicted before the study ran", found.claim.prediction),
        tag("p", sentence(entry), class_=f"verdict {entry.verdict or 'untested'}"),
        tag("div", _figures(figures), _contrasts(entry, found), class_="evidence"),
        _arms(found, link),
        *(_note(note) for note in notes_of(entry, found)),
        _told("What would change the verdict", found.claim.would_change),
        tag("h3", "Run it again"),
        tag("pre", tag("code", entry.command)),
    )
    return tag("section", *body, id=entry.anchor)


def _told(heading: str, text: str) -> Html:
    return tag("div", tag("h3", heading), tag("p", text))


def _note(note: Note) -> Html:
    if len(note.lines) == 1:
        return _told(note.heading, note.lines[0])
    return tag("div", tag("h3", note.heading), tag("ul", *(tag("li", line) for line in note.lines)))


def _figures(figures: Mapping[str, tuple[str, str]]) -> Html:
    return tag("div", *(_figure(svg, told) for svg, told in figures.values()), class_="figures")


def _figure(svg: str, told: str) -> Html:
    data = base64.b64encode(svg.encode()).decode("ascii")
    picture = tag("img", src=f"data:image/svg+xml;base64,{data}", alt=told)
    return tag("figure", picture, tag("figcaption", told))


def _contrasts(entry: Entry, found: ClaimResult) -> Html:
    axis = found.evidence.tier.axis
    measured = [_contrast(part, axis) for part in entry.parts]
    waiting = [
        tag("div", tag("h4", name), tag("p", contrast_text(part, axis), class_="formula"), tag("p", HEADS[None] + "."))
        for name, part in entry.unmeasured.items()
    ]
    told = tag("p", "Shaded: within ±δ. Bar: the interval. Diamond: the mean. Dots: every seed.", class_="hint")
    return tag("div", tag("h3", "Contrasts"), *measured, *waiting, *((told,) if measured else ()), class_="contrasts")


def _contrast(part: ContrastResult, axis: str | None) -> Html:
    effect = part.effect
    predicted = "within ±δ" if part.part.expect == "flat" else "above δ"
    numbers = f"{effect_text(part)}, δ {delta_text(part)}"
    details = (
        f"{percent(effect.level)} interval, {effect.n_seeds} seeds, {p_text(effect.p)}. The claim says: {predicted}."
    )
    return tag(
        "div",
        tag("h4", part.name, tag("span", f": {outcome(part)}")),
        *((tag("p", part.part.note),) if part.part.note else ()),
        tag("p", contrast_text(part.part, axis), class_="formula"),
        Html(forest_svg(part)),
        tag("p", tag("b", numbers), ". ", details, class_="hint"),
    )


# --------------------------------------------------------------------------------------------------------------- arms


def _arms(found: ClaimResult, link: Link) -> Html:
    table = arm_table(found)
    head = tag("tr", *(tag("th", name, scope="col") for name in ("Arm", *table.heads)))
    bodies = []
    for arm, lines in table.lines.items():
        name = tag("th", arm, scope="rowgroup", rowspan=str(len(lines)))
        cells = (join(_cell(cell, link) for cell in line) for line in lines)
        bodies.append(tag("tbody", *(tag("tr", *(() if i else (name,)), line) for i, line in enumerate(cells))))
    told = "Each run links to its folder. Parameters: without embeddings. Seconds: of training, mean over runs."
    whole = tag("table", tag("thead", head), *bodies)
    scroll = tag("div", whole, class_="scroll", tabindex="0", role="region", aria_label="Arms")
    return tag("div", tag("h3", "Arms"), scroll, tag("p", told, class_="hint"))


def _cell(cell: Cell, link: Link) -> Html:
    runs = [tag("a", run.text, href=link(run.folder), title=f"seed {run.seed}") for run in cell.runs]
    inside = [*((tag("b", cell.strong),) if cell.strong else ()), *runs, *((cell.text,) if cell.text else ())]
    return tag("td", "–" if cell.empty else join(inside, " "), class_="number runs" if runs else "number")


# ----------------------------------------------------------------------------------------------------------- untested


def _untested(entries: list[Entry]) -> Html:
    rows = (tag("dt", tag("b", e.id), " ", e.claim.statement) + tag("dd", tag("code", e.command)) for e in entries)
    told = tag("p", "The command runs the study that asks about the claim.", class_="hint")
    return tag("section", tag("h2", HEADS[None]), told, tag("dl", *map(Html, rows), class_="commands"), id="untested")
