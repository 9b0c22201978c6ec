from __future__ import annotations

import base64
import json
import re
from html.parser import HTMLParser
from typing import Any

import numpy as np

from minitx.analysis.attention_maps import TITLES, AttentionView, Inspection, Kind
from minitx.analysis.page import Live, inspect_page, to_bytes

HOSTILE = "</script><img src=x onerror=alert(1)> & {{body}} \u2028 {{data}} 映画"


class Page(HTMLParser):
    """The elements of a page, the ids among them, and the text inside each kind."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.texts: dict[str, list[str]] = {}
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_data(self, data: str) -> None:
        self.texts.setdefault(self.tags[-1] if self.tags else "", []).append(data)

    def values(self, attribute: str) -> list[str]:
        return [value for name, value in self.attributes if name == attribute]

    @property
    def json(self) -> Any:
        [data] = [text for text in self.texts["script"] if text.startswith("{")]
        return json.loads(data)


def made_up(kind: Kind, layers: int = 2, heads: int = 3, queries: int = 5, keys: int = 7) -> AttentionView:
    weights = np.random.default_rng(1).dirichlet(np.ones(keys), (layers, heads, queries)).astype(np.float32)
    weights[..., 0, 1:] = 0
    tokens = tuple(f"q{i}" for i in range(queries)), tuple(f"k{i}" for i in range(keys))
    if kind == "pooling":
        return AttentionView(kind, weights, *tokens)
    losses = tuple(tuple(0.01 * (layer - head) for head in range(heads)) for layer in range(layers))
    return AttentionView(kind, weights, *tokens, weights[::-1], losses)


def inspections() -> list[Inspection]:
    hostile = AttentionView("encoder", np.ones((1, 1, 1, 1), np.float32), (HOSTILE,), (HOSTILE,))
    return [
        Inspection("photograph", "F OW T", (made_up("cross"), made_up("encoder"), made_up("decoder"))),
        Inspection(HOSTILE, HOSTILE, (hostile, made_up("pooling", layers=1, heads=1, queries=1))),
    ]


def test_page_carries_every_weight_of_every_head() -> None:
    shown = inspections()
    views = [view for text in Page(inspect_page(shown)).json["texts"] for view in text["views"]]
    for view, found in zip([view for one in shown for view in one.views], views, strict=True):
        assert tuple(found["queries"]) == view.query_tokens and tuple(found["keys"]) == view.key_tokens
        assert (found["layers"], found["heads"]) == view.weights.shape[:2]
        shaded = np.frombuffer(base64.b64decode(found["weights"]), np.uint8).reshape(view.weights.shape)
        np.testing.assert_allclose((shaded / 255.0) ** 2, view.weights, atol=0.004)
        np.testing.assert_array_equal(shaded == 0, view.weights == 0)
        assert (found["value_weighted"] is None) == (view.value_weighted is None)
        assert found["loss_without"] == (None if view.loss_without is None else [list(x) for x in view.loss_without])


def test_only_a_masked_weight_is_byte_zero() -> None:
    weights = np.array([0, 1e-30, 1e-6, 0.25, 1, 1.0000001], np.float32)
    assert to_bytes(weights).tolist() == [0, 1, 1, 128, 255, 255]


def test_page_stands_alone() -> None:
    page = Page(inspect_page(inspections()))
    assert not {"link", "img", "iframe", "object", "embed", "base"} & set(page.tags)
    assert not page.values("src")
    assert not page.values("href")
    assert not re.search(r"url\(|@import|https?:|fetch\(|import\(", inspect_page(inspections()))
    [policy] = [value for value in page.values("content") if "default-src" in value]
    assert policy.startswith("default-src 'none'")


def test_text_stays_text() -> None:
    html = inspect_page([inspections()[1]], title=HOSTILE, subtitle=HOSTILE)
    page = Page(html)
    assert "".join(page.texts["h1"]).strip() == HOSTILE  # also: a text that spells a placeholder is left alone
    [found] = page.json["texts"]
    assert (found["text"], found["output"], found["views"][0]["keys"]) == (HOSTILE, HOSTILE, [HOSTILE])
    assert page.tags.count("script") == 2 and "onerror" not in [name for name, _ in page.attributes]


def test_texts_and_views_keep_their_order() -> None:
    page = Page(inspect_page(inspections()))
    assert [[view["title"] for view in text["views"]] for text in page.json["texts"]] == [
        [TITLES[kind] for kind in kinds] for kinds in (("cross", "encoder", "decoder"), ("encoder", "pooling"))
    ]


def test_a_live_page_asks_its_own_server_alone() -> None:
    html = inspect_page([], title=HOSTILE, live=Live(example=HOSTILE))
    page = Page(html)
    assert "".join(page.texts["textarea"]).strip() == HOSTILE and "onerror" not in [name for name, _ in page.attributes]
    [policy] = [value for value in page.values("content") if "default-src" in value]
    assert policy.startswith("default-src 'none'") and policy.endswith("connect-src 'self'")
    assert html.count("fetch(") == 1 and 'fetch("attention"' in html


def test_equal_inspections_make_equal_pages() -> None:
    assert inspect_page(inspections()) == inspect_page(inspections())
