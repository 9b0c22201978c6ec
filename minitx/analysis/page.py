"""The inspect page: one self-contained HTML file that shows every layer and head of a few texts' attention.

`page.html` beside this file is its jinja2 template, `page.css` its style, `page.js` the script that draws, helped by
`arcs.js` for arcs between tokens; here are the values. Text stays text and nothing is loaded from anywhere, so a page
can be mailed, archived or opened from a disk. `minitx serve` adds `live.js`, which asks the server it came from for
other texts.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, StrictUndefined
from markupsafe import Markup

from minitx.analysis.attention_maps import CAPTIONS, NOTHING, SHADES, TITLES, AttentionView, Inspection

DARK_SHADES = ("#18222e", "#1c3a58", "#1f5f97", "#3f8fd6", "#8fc3f3", "#eaf4ff")
"""On a dark screen the same scale runs from dark to bright: the more, the brighter."""
DARK_NOTHING = "#0d1218"

# How the sentence about one cell begins ("Writing F reads p"), and what the map's corner says of its two sides.
_WORDS = {
    "cross": ("Writing ", "writes\u00a0↓ reads\u00a0→"),
    "encoder": ("", "reader\u00a0↓ reads\u00a0→"),
    "decoder": ("Writing ", "writes\u00a0↓ reads\u00a0→"),
    "pooling": ("The ", "reads\u00a0→"),
}


def inspect_page(
    inspections: Sequence[Inspection] | Sequence[TwoRuns],
    *,
    title: str = "Attention",
    subtitle: str = "",
    live: Live | None = None,
) -> str:
    """The whole page as one string of HTML; `title` and `subtitle` are plain text (say, the run and its score).

    live: the page also asks its server for other texts, and shows those without heads that are switched off.
    """
    data = {
        "light": {"shades": SHADES, "nothing": NOTHING},
        "dark": {"shades": DARK_SHADES, "nothing": DARK_NOTHING},
        "texts": [reading for one in inspections for reading in _readings(one)],
        "comparisons": [_comparison_json(one) for one in inspections if isinstance(one, TwoRuns)],
    }
    folder = files(__package__)
    names = {"page_style": "page.css", "arcs_script": "arcs.js", "page_script": "page.js", "live_script": "live.js"}
    parts = {key: Markup(folder.joinpath(name).read_text(encoding="utf-8")) for key, name in names.items()}
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
    template = environment.from_string(folder.joinpath("page.html").read_text(encoding="utf-8"))
    return template.render(title=title, subtitle=subtitle, live=live, data=data, **parts)


@dataclass(frozen=True, kw_only=True)
class TwoRuns:
    """One text as two runs read it."""

    runs: tuple[str, str]
    """Their names."""
    inspections: tuple[Inspection, Inspection]
    probabilities: Mapping[str, tuple[float | None, float | None]]
    """Of each answer that either run has among its likeliest: what each run gives it; None = that is not known."""


def _readings(one: Inspection | TwoRuns) -> list[dict[str, Any]]:
    """What the page draws of it, one beside another: an inspection, or those of both runs, with their names."""
    if isinstance(one, Inspection):
        return [inspection_json(one)]
    return [{**inspection_json(found), "run": run} for run, found in zip(one.runs, one.inspections, strict=True)]


def _comparison_json(of: TwoRuns) -> dict[str, Any]:
    """The answers whose probabilities differ most come first, those that cannot be compared last."""

    def likeness(both: tuple[float | None, float | None]) -> float:
        return 0.0 if both[0] is None or both[1] is None else -abs(both[1] - both[0])

    by_difference = sorted(of.probabilities.items(), key=lambda item: likeness(item[1]))
    return {
        "text": of.inspections[0].text,
        "runs": of.runs,
        "outputs": [inspection.output for inspection in of.inspections],
        "answers": [{"text": answer, "probabilities": both} for answer, both in by_difference],
    }


@dataclass(frozen=True, kw_only=True)
class Live:
    """What a page must know of the server that it asks."""

    example: str
    """A text to begin with; may be empty."""


def inspection_json(inspection: Inspection) -> dict[str, Any]:
    """One text as the page draws it: plain values, and maps as base64 text of bytes (see `to_bytes`)."""
    return {
        "text": inspection.text,
        "output": inspection.output,
        "answers": [{"text": a.text, "probability": a.probability} for a in inspection.answers],
        "views": [_view_json(view) for view in inspection.views],
    }


def _view_json(view: AttentionView) -> dict[str, Any]:
    before, corner = _WORDS[view.kind]
    return {
        "kind": view.kind,
        "title": TITLES[view.kind],
        "caption": CAPTIONS[view.kind],
        "layers": view.n_layers,
        "heads": view.n_heads,
        "queries": view.query_tokens,
        "keys": view.key_tokens,
        "weights": _base64(view.weights),
        "value_weighted": None if view.value_weighted is None else _base64(view.value_weighted),
        "loss_without": view.loss_without,
        "rollout": None if view.rollout is None else _base64(view.rollout),
        "relevance": None if view.relevance is None else _base64(view.relevance),
        "before": before,
        "corner": corner,
    }


def _base64(weights: npt.NDArray[np.float32]) -> str:
    return base64.b64encode(to_bytes(weights).tobytes()).decode("ascii")


def to_bytes(weights: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """255 times the square root, the scale on which they are shaded; only an exact 0 becomes byte 0.

    The square root spends the 256 steps where the eye does: within 0.4 points of any weight, far closer for small ones.
    """
    shaded = np.rint(255 * np.sqrt(np.clip(weights, 0, 1)))
    return np.where(weights > 0, np.maximum(shaded, 1), 0).astype(np.uint8)
