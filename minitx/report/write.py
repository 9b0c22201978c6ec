"""Writes the report: index.html, report.md with figures/, and claims.json; and the ledger on the console."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from minitx.config import rule
from minitx.report.arms import measures_of
from minitx.report.claims_json import claims_json
from minitx.report.ledger import Entry, Ledger
from minitx.report.markdown import report_markdown
from minitx.report.outcome_figure import caption, outcome_figure, svg_of
from minitx.report.page import report_page
from minitx.report.wording import counted, effect_text, verdict_word
from minitx.studies.evidence import ClaimResult
from minitx.training.console import Reporter
from minitx.training.run_folder import safe_name, write_atomic


def say_ledger(reporter: Reporter, ledger: Ledger) -> None:
    """A line for each claim and tier; under it, how to test what has not been."""
    columns = ["id", "claim", "verdict", "effect [interval]", "tier"]
    reporter.table(counted(ledger.entries), columns, [_row(entry) for entry in ledger.entries], names={"claim"})
    for command in dict.fromkeys(entry.command for entry in ledger.entries if entry.verdict is None):
        reporter.say(f"not tested here: {command}")


def _row(entry: Entry) -> list[str]:
    found = entry.finding
    effects = "\n".join(effect_text(part) for part in entry.parts)
    return [entry.id, entry.claim.statement, verdict_word(entry.verdict), effects, "" if found is None else found.tier]


FIGURES = "figures"


@dataclass(frozen=True)
class Drawn:
    """A figure of an entry."""

    measure: str
    svg: str
    caption: str


def write_report(ledger: Ledger, out: Path) -> list[Path]:
    """All files of the report, into `out`; what it wrote for people and programs to open.

    Raises:
        ConfigError: `out` cannot be written.
    """
    link = _link(ledger.folder, out)
    try:
        (out / FIGURES).mkdir(parents=True, exist_ok=True)
        drawn = {entry.anchor: _draw(entry, found) for entry, found in ledger.tested}
        in_page = {anchor: {one.measure: (one.svg, one.caption) for one in each} for anchor, each in drawn.items()}
        beside = {anchor: _write_figures(out, anchor, each) for anchor, each in drawn.items()}
        texts = {
            "index.html": report_page(ledger, in_page, link),
            "report.md": report_markdown(ledger, beside, link),
            "claims.json": json.dumps(claims_json(ledger), indent=1, ensure_ascii=False, allow_nan=False) + "\n",
        }
        for name, text in texts.items():
            write_atomic(out / name, text)
    except OSError as error:
        raise rule("--output", out, f"be a folder that can be written ({error.strerror})", "name another") from None
    return [out / name for name in texts]


def _draw(entry: Entry, found: ClaimResult) -> list[Drawn]:
    drawn = []
    for measure in measures_of(found):
        figure = outcome_figure(found.evidence, measure, entry.parts)
        if figure is not None:
            drawn.append(Drawn(measure, svg_of(figure), caption(found.evidence, measure, entry.parts)))
    return drawn


def _write_figures(out: Path, anchor: str, drawn: list[Drawn]) -> dict[str, tuple[str, str]]:
    """Measure -> (address from report.md, caption)."""
    written = {}
    for one in drawn:
        name = f"{anchor}-{safe_name(one.measure)}.svg"
        write_atomic(out / FIGURES / name, one.svg)
        written[one.measure] = (f"{FIGURES}/{name}", one.caption)
    return written


def _link(folder: Path, out: Path) -> Callable[[str], str]:
    """Addresses of what lies in the folder of studies, from the report."""
    there = os.path.relpath(folder, out)

    def link(inside: str) -> str:
        return quote(Path(there, inside).as_posix())

    return link
