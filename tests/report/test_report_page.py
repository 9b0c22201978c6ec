"""The page shows the statistics, loads nothing, escapes everything, and its links lead somewhere."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import pytest
from synthetic_studies import HOSTILE

from minitx.report import Ledger
from minitx.report.ledger import Entry
from minitx.report.wording import effect_text, sentence

VOID = {"meta", "img", "br", "path", "circle"}


class Page(HTMLParser):
    """Tags, attributes and text; open elements are kept in a stack, so that a stray end tag is seen."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] != "style":
            self.text.append(data)

    def values(self, attribute: str) -> list[str]:
        return [attrs[attribute] for _, attrs in self.tags if attribute in attrs]


@pytest.fixture(scope="module")
def page(report: Path) -> Page:
    return Page((report / "index.html").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def text(page: Page) -> str:
    return "".join(page.text)


def test_it_is_whole(page: Page) -> None:
    assert page.open == []
    ids = page.values("id")
    assert len(ids) == len(set(ids))


def test_nothing_is_loaded_from_anywhere(page: Page, report: Path) -> None:
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "form"}
    sources = page.values("src")
    assert len(sources) == 9 and all(source.startswith("data:image/svg+xml;base64,") for source in sources)
    for source in sources:
        svg = base64.b64decode(source.split(",")[1]).decode()
        assert all(link.startswith("#") for link in re.findall(r'href="([^"]*)"', svg))
        assert not re.findall(r"url\((?!#)", svg)
    assert "url(" not in (report / "index.html").read_text() and "@import" not in (report / "index.html").read_text()
    assert all("://" not in link for link in page.values("href"))
    [policy] = [attrs["content"] for _, attrs in page.tags if "http-equiv" in attrs]
    assert policy.startswith("default-src 'none'")


def test_every_link_leads_somewhere(page: Page, report: Path) -> None:
    ids = set(page.values("id"))
    links = page.values("href")
    assert len(links) > 200
    for link in links:
        assert link[1:] in ids if link.startswith("#") else (report / unquote(link)).is_dir()


def test_the_ledger_has_every_claim_and_its_verdict(page: Page, text: str, entries: Mapping[str, Entry]) -> None:
    badges = [attrs["class"].split()[1] for _, attrs in page.tags if attrs.get("class", "").startswith("badge ")]
    assert badges[: len(entries)] == [entry.verdict or "untested" for entry in entries.values()]
    for entry in entries.values():
        assert entry.claim.statement in text
    assert text.count("python train.py -m study=head_diversity") == 2  # in the ledger, and below


def test_numbers_and_sentences_are_those_of_the_findings(text: str, ledger: Ledger) -> None:
    for entry in ledger.entries:
        for part in entry.contrasts:
            assert text.count(effect_text(part)) >= 2
        if entry.result is not None:
            assert sentence(entry) in text
            assert entry.result.claim.prediction in text and entry.result.claim.would_change in text


def test_hostile_text_is_shown_as_it_is(text: str, page: Page) -> None:
    assert text.count(HOSTILE) >= 3  # title, note, arm
    assert not [attrs for _, attrs in page.tags if "onerror" in attrs]
    assert "{{ledger}}" in text


def test_narrow_screens_and_print_are_thought_of(report: Path, page: Page) -> None:
    html = (report / "index.html").read_text()
    assert "@media print" in html and "@media screen and (max-width" in html and 'name="viewport"' in html
    tables = [attrs for tag, attrs in page.tags if tag == "table"]
    scrolls = [attrs for _, attrs in page.tags if attrs.get("class") == "scroll"]
    assert len(tables) == len(scrolls) + 1  # the ledger stacks instead
