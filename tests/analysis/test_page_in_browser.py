"""The inspect page in headless Chromium: what its script shows, and that clicks and keys work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from browser import found_by, needs_chromium, with_script

from minitx.analysis.attention_maps import AttentionView, Inspection
from minitx.analysis.page import inspect_page
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
