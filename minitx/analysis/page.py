"""The inspect page: one self-contained HTML file that shows every layer and head of a few texts' attention.

`page.html` beside this file is its jinja2 template, with the style and the script that draws; here are the values. All
text is escaped and nothing is loaded from anywhere, so a page can be mailed, archived or opened from a disk.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, StrictUndefined

from minitx.analysis.attention_maps import CAPTIONS, NOTHING, SHADES, TITLES, AttentionView, Inspection

# How the sentence about one cell begins ("Writing F reads p"), and what the map's corner says of its two sides.
_WORDS = {
    "cross": ("Writing ", "writes\u00a0↓ reads\u00a0→"),
    "encoder": ("", "reader\u00a0↓ reads\u00a0→"),
    "decoder": ("Writing ", "writes\u00a0↓ reads\u00a0→"),
    "pooling": ("The ", "reads\u00a0→"),
}


def inspect_page(inspections: Sequence[Inspection], *, title: str = "Attention", subtitle: str = "") -> str:
    """The whole page as one string of HTML; `title` and `subtitle` are plain text (say, the run and its score)."""
    views = [view for inspection in inspections for view in inspection.views]
    numbers = iter(range(len(views)))
    texts = [
        {
            "text": inspection.text,
            "output": inspection.output,
            "views": [
                {"number": next(numbers), "title": TITLES[view.kind], "caption": CAPTIONS[view.kind]}
                for view in inspection.views
            ],
        }
        for inspection in inspections
    ]
    data = {"shades": SHADES, "nothing": NOTHING, "views": [_view_json(view) for view in views]}
    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.policies["json.dumps_kwargs"] = {"ensure_ascii": False}
    template = environment.from_string(files(__package__).joinpath("page.html").read_text(encoding="utf-8"))
    return template.render(title=title, subtitle=subtitle, texts=texts, data=data)


def _view_json(view: AttentionView) -> dict[str, Any]:
    before, corner = _WORDS[view.kind]
    return {
        "layers": view.n_layers,
        "heads": view.n_heads,
        "queries": view.query_tokens,
        "keys": view.key_tokens,
        "weights": base64.b64encode(to_bytes(view.weights).tobytes()).decode("ascii"),
        "before": before,
        "corner": corner,
    }


def to_bytes(weights: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """255 times the square root, the scale on which they are shaded; only an exact 0 becomes byte 0.

    The square root spends the 256 steps where the eye does: within 0.4 points of any weight, far closer for small ones.
    """
    shaded = np.rint(255 * np.sqrt(np.clip(weights, 0, 1)))
    return np.where(weights > 0, np.maximum(shaded, 1), 0).astype(np.uint8)
