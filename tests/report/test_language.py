"""The report in Chinese: nothing lacks its Chinese, values stand in it, and no English sentence is left on the page."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from string import Formatter

import pytest
import yaml
from tiny import ROOT

from minitx.report import Ledger, head_figure, notes, wording, write_report
from minitx.report.effects import EFFECTS_CAPTION
from minitx.report.labels import in_words
from minitx.report.phrases import chinese, say, speaking, spoken, told

REPORT = ROOT / "minitx" / "report"
TABLES = (
    wording.HEADS, wording.MEANINGS, wording._FOUND, wording._OUTCOMES, wording._METHODS, wording._EXPECTED,
    notes.FAIRNESS,
)  # fmt: skip


def said() -> Iterator[str]:
    """Every phrase of the code and of the page's template, and those that stand in tables."""
    for path in REPORT.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "say" and node.args:
                first = node.args[0]
                if isinstance(first, ast.Constant):
                    yield str(first.value)
    yield from re.findall(r'\bsay\("([^"]+)"', (REPORT / "report_page.html").read_text(encoding="utf-8"))
    yield from (phrase for table in TABLES for phrase in table.values() if phrase)
    yield from (
        "supported",
        "contradicted",
        "undecided",
        "quick",
        "full",
        "tenfold",
        "doubling",
        wording.TITLE,
        wording.UNTESTED,
    )
    yield from (EFFECTS_CAPTION, head_figure.HEADS_CAPTION)


def of_studies() -> Iterator[str]:
    """Every text of the study files that a report shows."""
    for path in sorted((ROOT / "conf" / "study").rglob("*.yaml")):
        yield from texts(yaml.safe_load(path.read_text(encoding="utf-8")))


def texts(node: object, key: str = "") -> Iterator[str]:
    if isinstance(node, dict):
        if key == "contrasts":
            yield from (in_words(name) for claim in node.values() for name in claim)
        for name, value in node.items():
            if name in ("statement", "prediction", "would_change", "title", "note") and value:
                yield value
            if name in ("arms", "on_purpose") and all(isinstance(text, str) for text in value.values()):
                yield from value.values()
            yield from texts(value, name)
    if isinstance(node, list):
        for value in node:
            yield from texts(value, key)


@pytest.mark.parametrize("phrase", sorted({*said(), *of_studies()}))
def test_every_phrase_has_its_chinese(phrase: str) -> None:
    values = [{name for _, name, _, _ in Formatter().parse(text) if name} for text in (phrase, chinese()[phrase])]
    assert values[0] == values[1]


def test_nothing_is_left_over() -> None:
    assert set(chinese()) - {*said(), *of_studies(), *notes_headings()} == set()


def notes_headings() -> set[str]:
    source = (REPORT / "notes.py").read_text(encoding="utf-8")
    return set(re.findall(r'^        "([A-Z][^"]+)": tuple', source, re.MULTILINE))


def test_a_language_is_spoken_within_its_context() -> None:
    assert spoken() == "en" and say("{n} {verdict}", n=2, verdict="supported") == "2 supported"
    with speaking("zh"):
        assert say("{n} {verdict}", n=2, verdict=say("supported")) == "2 个得到支持"
        assert (
            told("a study of your own") == "a study of your own"
            and told("More heads raise quality") == "头越多质量越高"
        )
        with pytest.raises(KeyError):
            say("a phrase that nobody translated")
    assert spoken() == "en"


def test_the_page_speaks_chinese(ledger: Ledger, tmp_path: Path) -> None:
    """No sentence of the template or of the verdicts is left in English; texts of the synthetic studies are."""
    with speaking("zh"):
        page, markdown, _ = write_report(ledger, tmp_path)
    text = page.read_text(encoding="utf-8")
    assert '<html lang="zh">' in text and "自注意力的若干论断" in text
    for file in (text, markdown.read_text(encoding="utf-8")):
        visible = re.sub(r"(?s)<style>.*?</style>|<[^>]+>|`[^`]*`", " ", file)
        ours = [phrase for phrase in said() if len(phrase) > 20 and "{" not in phrase and phrase in visible]
        assert ours == [] and "the test accuracy of" not in visible
