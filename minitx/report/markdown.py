"""The report as Markdown, with its figures as files beside it: for a repository, or a text editor."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence

from minitx.report.arms import Cell, arm_table
from minitx.report.ledger import Entry, Ledger
from minitx.report.notes import notes_of
from minitx.report.page import TITLE
from minitx.report.wording import (
    HEADS,
    SYMBOLS,
    contrast_text,
    counted,
    delta_text,
    effect_text,
    marked_name,
    outcome,
    percent,
    sentence,
    verdict_word,
)
from minitx.studies.evidence import ClaimResult

Link = Callable[[str], str]
_SPECIAL = re.compile(r"([\\`*_\[\]|~])")
_AT_START = re.compile(r"^([#>]|[-+=](?=[\s=-]|$)|\d+(?=[.)]\s))")
"""What begins a heading, a quotation, a list or a rule."""


def report_markdown(ledger: Ledger, figures: Mapping[str, Mapping[str, tuple[str, str]]], link: Link) -> str:
    """figures: an entry's anchor -> measure -> (address, caption)."""
    blocks = [f"# {TITLE}", md(counted(ledger.entries)), _ledger(ledger)]
    for entry, found in ledger.tested:
        blocks += _section(entry, found, figures.get(entry.anchor, {}), link)
    untested = [entry for entry in ledger.entries if entry.finding is None]
    if untested:
        blocks.append(f"## {HEADS[None]}")
        blocks += [block for e in untested for block in (f"**{md(e.id)}** {md(e.claim.statement)}", code(e.command))]
    return "\n\n".join(blocks) + "\n"


def md(text: str) -> str:
    """Text that stays text: whatever Markdown or HTML would read into it is taken out, and it is one line."""
    one_line = re.sub(r"\s*[\r\n\t\v\f\u2028\u2029]\s*", " ", text).strip()
    plain_text = _SPECIAL.sub(r"\\\1", one_line.replace("&", "&amp;").replace("<", "&lt;"))
    return _AT_START.sub(_escaped, plain_text)


def _escaped(found: re.Match[str]) -> str:
    """A number of a list has its point escaped, for a digit cannot be."""
    return f"{found[1]}&#8203;" if found[1].isdecimal() else f"\\{found[1]}"


def code(text: str) -> str:
    """A block of code, whatever is in it."""
    longest = max((len(run) for run in re.findall(r"`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{text}\n{fence}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are Markdown already."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _verdict(entry: Entry) -> str:
    return f"{SYMBOLS[entry.verdict]} {verdict_word(entry.verdict)}"


def _ledger(ledger: Ledger) -> str:
    rows = []
    for entry in ledger.entries:
        says = md(entry.claim.statement)
        claim = says if entry.finding is None else f"[{says}](#{entry.anchor.lower()})"
        names = [f"{marked_name(part)} " if len(entry.parts) > 1 else "" for part in entry.parts]
        told_of = map("{}{}".format, names, map(effect_text, entry.parts))
        effects = "<br>".join(map(md, told_of)) or f"`{entry.command}`"
        deltas = "<br>".join(delta_text(part) for part in entry.parts)
        seeds = ", ".join(str(n) for n in sorted({part.effect.n_seeds for part in entry.parts}))
        tier = entry.finding.tier if entry.finding is not None else ""
        told = _verdict(entry) + (" (exploratory)" if entry.exploratory else "")
        rows.append([entry.id, claim, told, effects, deltas, seeds, tier])
    return _table(["id", "claim", "verdict", "effect [interval]", "δ", "seeds", "tier"], rows)


def _section(entry: Entry, found: ClaimResult, figures: Mapping[str, tuple[str, str]], link: Link) -> Iterator[str]:
    yield f'<a id="{entry.anchor.lower()}"></a>\n\n## {md(entry.id)}: {md(entry.claim.statement)}'
    title = md(found.evidence.study.title)
    yield f"{_verdict(entry)}. Study [{md(found.study)}]({link(found.study)}), tier {found.tier}: {title}"
    yield f"**Predicted before the study ran.** {md(found.claim.prediction)}"
    yield f"> {md(sentence(entry))}"
    for address, told in figures.values():
        yield f"![{md(told)}]({address})"
    yield _contrasts(entry, found)
    yield _arms(found, link)
    for note in notes_of(entry, found):
        yield f"**{note.heading}.**"
        yield "\n".join(f"- {md(line)}" for line in note.lines)
    yield f"**What would change the verdict.** {md(found.claim.would_change)}"
    yield "**Run it again.**"
    yield code(entry.command)


def _contrasts(entry: Entry, found: ClaimResult) -> str:
    axis = found.evidence.tier.axis
    rows = []
    for part in entry.parts:
        effect, predicted = part.effect, "within ±δ" if part.part.expect == "flat" else "above δ"
        asked = contrast_text(part.part, axis) + (f" ({part.part.note})" if part.part.note else "")
        numbers = [effect_text(part), percent(effect.level), delta_text(part), str(effect.n_seeds), f"{effect.p:.2g}"]
        rows.append([md(cell) for cell in (part.name, asked, *numbers, predicted, outcome(part))])
    for name, waiting in entry.unmeasured.items():
        rows.append([md(name), md(contrast_text(waiting, axis)), *[""] * 6, HEADS[None].lower()])
    heads = ["contrast", "of each seed", "effect [interval]", "level", "δ", "seeds", "p", "the claim says", "found"]
    return _table(heads, rows)


def _arms(found: ClaimResult, link: Link) -> str:
    table = arm_table(found)
    rows = [[md(arm), *(_cell(cell, link) for cell in line)] for arm, lines in table.lines.items() for line in lines]
    return _table(["arm", *map(md, table.heads)], rows)


def _cell(cell: Cell, link: Link) -> str:
    runs = [f"[{run.text}]({link(run.folder)})" for run in cell.runs]
    return " ".join([*([f"**{md(cell.strong)}**"] if cell.strong else []), *runs, md(cell.text)]).strip()
