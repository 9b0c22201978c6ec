"""The page that is served, in headless Chromium: typing a text, switching heads off and on, an error."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browser import found_by, needs_chromium, with_script
from serve_client import Client

import minitx
from minitx.analysis.head_maps import LayerId
from minitx.serve import app

pytestmark = [pytest.mark.slow, needs_chromium]

WAITING = """
const field = document.getElementById("text"), status = document.getElementById("status");
const pause = () => new Promise(done => setTimeout(done, 20));
const answered = async () => { do await pause(); while (status.textContent === "…"); };
const terms = () => [...document.querySelectorAll("dd")].map(element => element.textContent);
const values = () => [...document.querySelectorAll(".answers .value")].map(element => element.textContent);
"""


def served(
    serving: Callable[..., Client], run: Path, script: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> dict[str, Any]:
    """What a script finds at the end of the page that the server gives."""
    page = app.inspect_page
    monkeypatch.setattr(app, "inspect_page", lambda *a, **k: with_script(page(*a, **k), WAITING + script))
    return found_by(f"http://127.0.0.1:{serving(minitx.load(str(run)), attention_tokens=9).port}/", folder)


def test_a_typed_text_and_switched_heads(
    serving: Callable[..., Client], classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
    field.value = "0 3 7";
    field.dispatchEvent(new KeyboardEvent("keydown", {key: "Enter", cancelable: true}));
    await answered();
    const whole = {terms: terms(), values: values(), kinds: page.views.map(view => view.view.kind)};
    for (const head of [0, 1]) {
      document.querySelector(`.heads button[data-at="0/${head}"]`).click();
      document.querySelector(".view .switch").click();
      await answered();
    }
    const count = query => document.querySelectorAll(query).length;
    const off = {terms: terms(), values: values(), listed: count(".off-list button"), marked: count(".off"),
                 button: document.querySelector(".switch").textContent};
    document.querySelector(".off-list button:last-child").click();
    await answered();
    return {whole, off, on: {terms: terms(), values: values()}};
    """
    found = served(serving, classifier, script, tmp_path, monkeypatch)
    run = minitx.load(str(classifier))
    [whole] = run.inspections(["0 3 7"])
    [off] = run.inspections(["0 3 7"], off=[(LayerId("encoder", 0), 0), (LayerId("encoder", 0), 1)])
    shown = [[f"{100 * answer.probability:.1f} %" for answer in one.answers] for one in (whole, off)]
    assert shown[0] != shown[1] and [found["whole"]["values"], found["off"]["values"]] == shown
    assert found["whole"]["terms"] == ["0 3 7", whole.output] and found["whole"]["kinds"] == ["encoder"]
    assert found["off"]["terms"] == ["0 3 7", off.output, whole.output]
    assert (found["off"]["listed"], found["off"]["marked"], found["off"]["button"]) == (3, 2, "Switch this head on")
    assert found["on"] == {key: found["whole"][key] for key in ("terms", "values")}


def test_an_error_is_shown_and_the_page_goes_on(
    serving: Callable[..., Client], translator_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = """
    const show = async text => {
      field.value = text;
      document.querySelector("#ask button").click();
      await answered();
      return [status.textContent, status.className, terms()[0] ?? null];
    };
    return {first: await show("cab"), long: await show("abcdefgab"), last: await show("<b>")};
    """
    found = served(serving, translator_run, script, tmp_path, monkeypatch)
    assert found["first"][0].startswith("4 tokens, ") and found["first"][1:] == ["", "cab"]
    assert found["long"][0].startswith("text must have at most 9 tokens, it has 10") and found["long"][1:] == [
        "wrong",
        "cab",
    ]
    assert found["last"][1:] == ["", "<b>"]
