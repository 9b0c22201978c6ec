"""The report as one HTML page that loads nothing: the ledger, a section for each tested claim, then the untested.

`report_page.html` beside this file is its jinja2 template; all text is escaped there.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Mapping
from importlib.resources import files

from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from minitx.report.arms import arm_table
from minitx.report.figures import forest_svg
from minitx.report.labels import in_words
from minitx.report.ledger import Entry, Ledger
from minitx.report.notes import notes_of
from minitx.report.phrases import say, spoken, told
from minitx.report.wording import (
    HEADS,
    MEANINGS,
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
    p_text,
    percent,
    predicted,
    sentence,
    verdict_word,
)

Link = Callable[[str], str]
"""A folder of a cell or study -> its address from the page."""
Figures = Mapping[str, Mapping[str, tuple[str, str]]]
"""Anchor of an entry -> measure -> (SVG or address, caption)."""


def report_page(ledger: Ledger, figures: Figures, link: Link) -> str:
    """The page as HTML."""
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    functions = (
        arm_table, contrast_text, counted, delta_text, effect_text, errors_text, mark, marked_name, notes_of, outcome,
        p_text, percent, predicted, sentence, verdict_word, say, told, in_words,
    )  # fmt: skip
    environment.globals.update({function.__name__: function for function in functions})
    environment.globals.update(
        heads=HEADS, symbols=SYMBOLS, meanings=MEANINGS, forest=lambda found: Markup(forest_svg(found)),
        seeds_text=_seeds_text, language=spoken(),  data_uri=_data_uri, figures=figures, link=link,
    )  # fmt: skip
    template = environment.from_string(files(__package__).joinpath("report_page.html").read_text(encoding="utf-8"))
    untested = [entry for entry in ledger.entries if entry.result is None]
    return template.render(title=say(TITLE), ledger=ledger, untested=untested) + "\n"


def _seeds_text(entry: Entry) -> str:
    """`10 seeds, quick`"""
    assert entry.result is not None, "only entries with a result have seeds"
    tier = say(entry.result.tier)
    return say("{seeds} seeds, {tier}", seeds=entry.result.n_seeds, tier=tier) if entry.contrasts else tier


def _data_uri(svg: str) -> str:
    return f"data:image/svg+xml;base64,{base64.b64encode(svg.encode()).decode('ascii')}"
