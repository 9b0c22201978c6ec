"""The report as Markdown, with its figures as files beside it: for a repository, or a text editor."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from minitx.report.arms import TableCell, arm_table
from minitx.report.labels import in_words
from minitx.report.ledger import Entry, Ledger
from minitx.report.notes import notes_of
from minitx.report.page import Figures, Link
from minitx.report.phrases import say, told
from minitx.report.wording import (
    HEADS,
    SYMBOLS,
    TITLE,
    contrast_text,
    counted,
    delta_text,
    effect_text,
    errors_text,
    mark,
    marked_name,
    outcome,
    percent,
    predicted,
    sentence,
    verdict_word,
)
from minitx.studies.claims import ClaimResult

_SPECIAL = re.compile(r"([\\`*_\[\]|~])")
_AT_START = re.compile(r"^([#>]|[-+=](?=[\s=-]|$)|\d+(?=[.)]\s))")
"""What begins a heading, a quotation, a list or a rule."""


def report_markdown(ledger: Ledger, figures: Figures, link: Link) -> str:
    """The report as one Markdown text; figures are given by their addresses."""
    blocks = [f"# {say(TITLE)}", md(counted(ledger.entries)), md(errors_text(ledger)), _ledger(ledger)]
    blocks = [block for block in blocks if block]
    for entry, found in ledger.tested:
        blocks += _section(entry, found, figures.get(entry.anchor, {}), link)
    untested = [entry for entry in ledger.entries if entry.result is None]
    if untested:
        blocks.append(f"## {say(HEADS[None])}")
        blocks += [
            block for e in untested for block in (f"**{md(e.id)}** {md(told(e.claim.statement))}", code(e.command))
        ]
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
        statement = md(told(entry.claim.statement))
        claim = statement if entry.result is None else f"[{statement}](#{entry.anchor.lower()})"
        named = len(entry.contrasts) > 1
        texts = [(f"{marked_name(one)} " if named else "") + effect_text(one) for one in entry.contrasts]
        effects = "<br>".join(map(md, texts)) or f"`{entry.command}`"
        deltas = "<br>".join(delta_text(one) for one in entry.contrasts)
        seeds = str(entry.result.n_seeds) if entry.result is not None and entry.contrasts else ""
        tier = say(entry.result.tier) if entry.result is not None else ""
        verdict = _verdict(entry) + md(mark(ledger, entry)) + (f" ({say('exploratory')})" if entry.exploratory else "")
        rows.append([entry.id, claim, verdict, effects, deltas, seeds, tier])
    heads = ["id", say("claim"), say("verdict"), say("effect [interval]"), "δ", say("seeds"), say("tier")]
    return _table(heads, rows)


def _section(entry: Entry, result: ClaimResult, figures: Mapping[str, tuple[str, str]], link: Link) -> Iterator[str]:
    yield f'<a id="{entry.anchor.lower()}"></a>\n\n## {md(entry.id)}: {md(told(entry.claim.statement))}'
    title, name = md(told(result.evidence.study.title)), f"[{md(result.study)}]({link(result.study)})"
    about = say("Study {name}, tier {tier}: {title}", name=name, tier=say(result.tier), title=title)
    yield f"{_verdict(entry)}{say('. ')}{about}"
    yield f"**{say('Predicted before the study ran')}{say('.')}** {md(told(result.claim.prediction))}"
    yield f"> {md(sentence(entry))}"
    for address, caption in figures.values():
        yield f"![{md(caption)}]({address})"
    yield _contrasts(entry, result)
    yield _arms(result, link)
    for note in notes_of(entry, result):
        yield f"**{note.heading}{say('.')}**"
        yield "\n".join(f"- {md(line)}" for line in note.lines)
    yield f"**{say('What would change the verdict')}{say('.')}** {md(told(result.claim.would_change))}"
    yield f"**{say('Run it again')}{say('.')}**"
    yield code(entry.command)


def _contrasts(entry: Entry, result: ClaimResult) -> str:
    axis = result.evidence.tier.axis
    rows = []
    for one in entry.contrasts:
        effect, note = one.effect, told(one.contrast.note)
        what = contrast_text(one.contrast, axis) + (say(" ({note})", note=note) if note else "")
        numbers = [effect_text(one), percent(effect.level), delta_text(one), str(effect.n_seeds), f"{effect.p:.2g}"]
        rows.append([md(cell) for cell in (told(in_words(one.name)), what, *numbers, predicted(one), outcome(one))])
    for name, waiting in entry.unmeasured.items():
        rows.append([md(told(in_words(name))), md(contrast_text(waiting, axis)), *[""] * 6, verdict_word(None)])
    heads = [
        say("contrast"), say("of each seed"), say("effect [interval]"), say("level"), "δ", say("seeds"), "p",
        say("the claim says"), say("found"),
    ]  # fmt: skip
    return _table(heads, rows)


def _arms(result: ClaimResult, link: Link) -> str:
    table = arm_table(result)
    rows = [[md(arm), *(_cell(cell, link) for cell in line)] for arm, lines in table.lines.items() for line in lines]
    return _table([say("arm"), *map(md, table.heads)], rows)


def _cell(cell: TableCell, link: Link) -> str:
    runs = [f"[{run.text}]({link(run.folder)})" for run in cell.runs]
    return " ".join([*([f"**{md(cell.strong)}**"] if cell.strong else []), *runs, md(cell.text)]).strip()
