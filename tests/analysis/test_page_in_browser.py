"""The inspect page in headless Chromium: what its script shows, and that clicks and keys work."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import found_by, needs_chromium, with_script

from minitx.analysis.attention_maps import AttentionView, Inspection
from minitx.analysis.page import TwoRuns, inspect_page
from minitx.decoding.text import Answer

pytestmark = [pytest.mark.slow, needs_chromium]
TOKENS = ("[CLS]", "很", "好", "看", "<b>")


def shown() -> Inspection:
    """Two layers of three heads; head 2 of layer 2 reads the second token, but its value-weighted map the fourth."""
    weights = np.full((2, 3, 5, 5), 0.2, np.float32)
    weights[1, 1], weights[1, 1, :, 1] = 0.05, 0.8
    weighted = weights.copy()
    weighted[1, 1], weighted[1, 1, :, 3] = 0.025, 0.9
    view = AttentionView("encoder", weights, TOKENS, TOKENS, weighted, ((0.5, 0.25, -0.125), (0.0, 0.375, 0.0)))
    answers = (Answer(text="好评", probability=0.7512), Answer(text="<i>差评", probability=0.0004))
    return Inspection("很好看<b>", "好评", (view,), answers)


def in_browser(page: str, script: str, folder: Path, width: int = 1280) -> dict[str, Any]:
    """What `script` returns, which is run at the end of the page."""
    file = folder / "page.html"
    file.write_text(with_script(page, script), encoding="utf-8")
    return found_by(file.as_uri(), folder, width)


def test_what_it_shows(tmp_path: Path) -> None:
    found = in_browser(
        inspect_page([shown()]),
        """
        const all = (query, of = "textContent") => [...document.querySelectorAll(query)].map(element => element[of]);
        return {terms: all("dd"), names: all(".answers .name"), values: all(".answers .value"), read: all(".read")[0],
                title: all(".headline h3"), labels: all(".heads button", "ariaLabel"),
                live: document.querySelector("form") !== null, wider: document.documentElement.scrollWidth > innerWidth,
                switches: [...document.querySelectorAll(".switch")].filter(b => !b.hidden).length};
        """,
        tmp_path,
    )
    assert found["terms"] == ["很好看<b>", "好评"]
    assert found["names"] == ["好评", "<i>差评"] and found["values"] == ["75.1 %", "under 0.1 %"]
    assert found["title"] == ["Layer 2, mean of all heads"] and found["read"] == "[CLS] reads mostly 很: 40 %"
    assert found["labels"][:4] == [
        "Layer 1, mean of all heads", "Layer 1, head 1, loss +0.50 without it",
        "Layer 1, head 2, loss +0.25 without it", "Layer 1, head 3, loss −0.13 without it",
    ]  # fmt: skip
    assert not found["live"] and found["switches"] == 0 and not found["wider"]


def test_clicks_keys_and_measures(tmp_path: Path) -> None:
    found = in_browser(
        inspect_page([shown()]),
        """
        const read = () => document.querySelector(".read").textContent, steps = [];
        document.querySelector(".heads button[data-at='1/1']").click();
        steps.push(document.querySelector(".headline h3").textContent, read());
        const press = key => document.querySelector(".map").dispatchEvent(new KeyboardEvent("keydown", {key}));
        press("ArrowDown"); press("ArrowRight"); press("ArrowRight");
        steps.push(read());
        document.querySelector("input[value=value_weighted]").click();
        press("ArrowRight");
        steps.push(read());
        return {steps, effect: document.querySelector(".headline span").textContent,
                pressed: document.querySelectorAll(".heads button[aria-pressed=true]").length,
                note: document.getElementById("measure-note").textContent};
        """,
        tmp_path,
    )
    assert found["steps"] == ["Layer 2, head 2", "[CLS] reads mostly 很: 80 %", "很 reads 好: 5 %", "很 reads 看: 90 %"]
    assert found["effect"] == "without it the loss changes by +0.38" and found["pressed"] == 1
    assert "Kobayashi et al. 2020" in found["note"]


@pytest.mark.parametrize("width", [500, 1280])
def test_a_long_text_fits_and_answers_quickly(tmp_path: Path, width: int) -> None:
    """500 tokens: the page is no wider than the screen. (Headless Chromium makes no window narrower than 500.)"""
    weights = np.full((2, 4, 499, 499), 1 / 499, np.float32)
    tokens = tuple(f"token{i}" for i in range(499))
    long = Inspection("x " * 499, "y", (AttentionView("encoder", weights, tokens, tokens, weights),))
    found = in_browser(
        inspect_page([long]),
        "const [view] = page.views;"
        "return {wider: document.documentElement.scrollWidth > innerWidth, n: view.Q, cell: view.cell};",
        tmp_path,
        width,
    )
    assert found == {"wider": False, "n": 499, "cell": 18}


def with_paths(text: str = "很好看<b>") -> Inspection:
    """The same with rollout and relevance: after layer 2, [CLS] has received from 看 alone, and 很 nothing relevant."""
    [view] = shown().views
    through = np.full((2, 5, 5), 0.2, np.float32)
    through[1, 0], through[1, 1] = (0, 0, 0, 1, 0), 0
    return replace(shown(), text=text, views=(replace(view, rollout=np.stack([np.eye(5)] * 2), relevance=through),))


ARCS = """
const read = () => document.querySelector(".read").textContent;
const count = query => document.querySelectorAll(query).length;
const choose = at => document.querySelector(`.heads button[data-at='${at}']`).click();
document.querySelector("input[value=arcs]").click();
const press = key => document.querySelector(".arcs").dispatchEvent(new KeyboardEvent("keydown", {key}));
"""


def test_arcs_of_a_token_and_of_all(tmp_path: Path) -> None:
    found = in_browser(
        inspect_page([with_paths()]),
        ARCS
        + """
        const steps = [], note = () => steps.push([read(), count(".arcs path")]);
        choose("1/1");
        note();
        document.querySelectorAll(".tokens.query span")[2].click();
        note();
        press("ArrowDown"); press("ArrowRight");
        note();
        press("ArrowUp"); press("ArrowUp");
        note();
        press("Escape");
        note();
        document.querySelectorAll(".tokens.key span")[4].click();
        document.querySelectorAll(".tokens.key span")[4].click();
        note();
        const map = document.querySelector(".map").hidden;
        document.querySelector("input[value=map]").click();
        const after = [read(), ...[".map", ".arcs"].map(query => document.querySelector(query).hidden)];
        return {steps, map, after,
                opacities: new Set([...document.querySelectorAll(".arcs path")].map(p => p.style.strokeOpacity)).size,
                wider: document.documentElement.scrollWidth > innerWidth};
        """,
        tmp_path,
        width=500,
    )
    # All: at most three a token, here the five of 80 %; then 好, then 看 on the other side, then 很 on that side.
    all_of_them = ["The 5 strongest of 25 arcs; choose a token to see its own alone", 5]
    assert found["steps"] == [
        all_of_them, ["好 reads mostly 很: 80 %", 5], ["看 is read mostly by [CLS]: 5 %", 5],
        ["很 is read mostly by [CLS]: 80 %", 5], all_of_them, all_of_them,
    ]  # fmt: skip
    assert found["map"] and found["after"] == ["看 reads mostly 很: 80 %", False, True]
    assert found["opacities"] == 1 and not found["wider"]


def test_rollout_and_relevance_beside_the_mean(tmp_path: Path) -> None:
    found = in_browser(
        inspect_page([with_paths()]),
        """
        const look = () => [".headline h3", ".read", ".note"].map(query => document.querySelector(query).textContent);
        const labels = [...document.querySelectorAll(".heads > span")].slice(1, 4).map(e => e.textContent), steps = [];
        for (const name of ["rollout", "relevance"]) {
          document.querySelector(`.heads button[data-at='1/${name}']`).click();
          steps.push(look());
        }
        document.querySelector(".map").dispatchEvent(new KeyboardEvent("keydown", {key: "ArrowDown"}));
        page.views[0].point(1, null);
        return {labels, steps, nothing: look()[1], switches: !document.querySelector(".switch").hidden};
        """,
        tmp_path,
    )
    assert found["labels"] == ["mean", "rollout", "relevance"] and not found["switches"]
    [rollout, relevance] = found["steps"]
    assert rollout[:2] == ["Rollout through layers 1 to 2", "[CLS] receives mostly from [CLS]: 100 %"]
    assert relevance[:2] == ["Relevance through layers 1 to 2", "[CLS] receives mostly from 看: 100 %"]
    assert "Abnar & Zuidema 2020" in rollout[2] and "Chefer et al. 2021" in relevance[2]
    assert found["nothing"] == "很 receives nothing"


def test_a_long_text_as_arcs(tmp_path: Path) -> None:
    weights = np.random.default_rng(7).dirichlet(np.full(499, 0.1), (1, 2, 499)).astype(np.float32)
    tokens = tuple(f"token{i}" for i in range(499))
    found = in_browser(
        inspect_page([Inspection("x " * 499, "y", (AttentionView("encoder", weights, tokens, tokens),))]),
        ARCS
        + """
        const all = count(".arcs path");
        press("ArrowDown");
        return {all, one: count(".arcs path"), wider: document.documentElement.scrollWidth > innerWidth};
        """,
        tmp_path,
        width=500,
    )
    assert 200 < found["all"] <= 300 and 0 < found["one"] <= 300 and not found["wider"]


BESIDE = """
const places = () => [...document.querySelectorAll("article")].map(one => Math.round(one.getBoundingClientRect().left));
const titles = () => [...document.querySelectorAll(".headline h3")].map(element => element.textContent);
"""


def test_two_texts_side_by_side(tmp_path: Path) -> None:
    found = in_browser(
        inspect_page([with_paths(), with_paths("好看")]),
        BESIDE
        + """
        const choose = at => document.querySelector(`.heads button[data-at='${at}']`).click(), steps = [];
        steps.push([new Set(places()).size, document.querySelector("#layout").hidden]);
        choose("0/2");
        steps.push(titles());
        document.querySelector("input[value=beside]").click();
        choose("1/relevance");
        steps.push([new Set(places()).size, ...titles()]);
        return {steps, wider: document.documentElement.scrollWidth > innerWidth};
        """,
        tmp_path,
    )
    assert found["steps"] == [
        [1, False], ["Layer 1, head 3", "Layer 2, mean of all heads"],
        [2, "Relevance through layers 1 to 2", "Relevance through layers 1 to 2"],
    ]  # fmt: skip
    assert not found["wider"]


@pytest.mark.parametrize(("width", "columns"), [(500, 1), (1280, 2)])
def test_two_runs_and_the_difference_of_their_probabilities(tmp_path: Path, width: int, columns: int) -> None:
    probabilities = {"好评": (0.75, 0.5), "<i>差评": (0.125, 0.5), "中评": (None, 0.0004)}
    pair = with_paths(), replace(with_paths(), output="<i>差评")
    found = in_browser(
        inspect_page([TwoRuns(runs=("<b>", "two"), inspections=pair, probabilities=probabilities)]),
        BESIDE
        + """
        const rows = [...document.querySelectorAll("tr")].map(row => [...row.children].map(cell => cell.textContent));
        const all = query => [...document.querySelectorAll(query)].map(element => element.textContent);
        return {rows, columns: new Set(places()).size, runs: all("dd"), answers: all("td.output"),
                said: all(".comparison p")[0], wider: document.documentElement.scrollWidth > innerWidth};
        """,
        tmp_path,
        width,
    )
    assert found["rows"] == [
        ["Answer", "<b>", "two", "Difference"], ["<i>差评", "12.5 %", "50.0 %", "+37.5"],
        ["好评", "75.0 %", "50.0 %", "−25.0"], ["中评", "not known", "under 0.1 %", "–"],
    ]  # fmt: skip
    assert found["columns"] == columns and not found["wider"] and found["said"] == "The runs answer differently."
    assert found["runs"] == ["<b>", "很好看<b>", "好评", "two", "很好看<b>", "<i>差评"]
    assert found["answers"] == ["50.0 %", "75.0 %"]
