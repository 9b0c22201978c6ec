"""Links and figures of report.md resolve, tables are tables, and text stays text."""

from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import unquote

import pytest

from minitx.report import Ledger
from minitx.report.markdown import code, md
from minitx.report.wording import effect_text, sentence


@pytest.fixture(scope="module")
def text(report: Path) -> str:
    return (report / "report.md").read_text(encoding="utf-8")


def test_links_and_figures_resolve(text: str, report: Path) -> None:
    links = [unquote(link) for link in re.findall(r"(?<!\\)\]\(([^)\s]*)\)", text)]
    assert len(links) > 200 and sum(link.endswith(".svg") for link in links) == 17
    for link in links:
        assert f'<a id="{link[1:]}">' in text if link.startswith("#") else (report / link).exists(), link


def test_every_line_of_a_table_has_its_cells(text: str) -> None:
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 1 + 2 * 8
    for block in blocks:
        assert {len(re.findall(r"(?<!\\)\|", line)) for line in block} == {len(re.findall(r"(?<!\\)\|", block[0]))}


def test_it_says_what_the_page_says(text: str, ledger: Ledger) -> None:
    for entry in ledger.entries:
        assert md(entry.claim.statement) in text
        if entry.result is not None:
            assert f"> {md(sentence(entry))}" in text
        assert all(md(effect_text(part)) in text for part in entry.contrasts)


@pytest.mark.parametrize(
    ("raw", "shown"),
    [
        ("a|b `c` *d* _e_ [f](g)", r"a\|b \`c\` \*d\* \_e\_ \[f\](g)"),
        ("<b>&amp;", "&lt;b>&amp;amp;"),
        ("# x", r"\# x"),
        ("- x", r"\- x"),
        ("−0.1 -x", "−0.1 -x"),
        ("1. x", "1&#8203;. x"),
        ("a\n\n# b", "a # b"),
        ("7 of 12", "7 of 12"),
    ],
)
def test_text_stays_text(raw: str, shown: str) -> None:
    assert md(raw) == shown


def test_code_ends_where_it_ends() -> None:
    assert code("a ``` b") == "````\na ``` b\n````"
