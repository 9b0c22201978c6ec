"""The inspect page: one self-contained HTML file that shows every layer and head of a few texts' attention.

`page.html` beside this file holds the looks and the drawing; here the values are put into it. Nothing is loaded from
anywhere, and all text goes in escaped, so a page can be mailed, archived or opened from a disk.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Sequence
from html import escape
from importlib.resources import files
from typing import Any

import numpy as np
import numpy.typing as npt

from minitx.analysis.attention_maps import CAPTIONS, NOTHING, SHADES, TITLES, AttentionView, Inspection

# How the sentence that tells one cell begins ("Writing F reads p"), and what the map's corner says of its two sides.
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
    parts = {
        "title": escape(title),
        "subtitle": escape(subtitle),
        "contents": _contents(inspections) if len(inspections) > 1 else "",
        "body": "\n".join(_article(i, inspection, numbers) for i, inspection in enumerate(inspections)),
        "data": _script_json({"shades": SHADES, "nothing": NOTHING, "views": [_view_json(view) for view in views]}),
    }
    template = files(__package__).joinpath("page.html").read_text(encoding="utf-8")
    # One pass, so that a text which happens to spell a placeholder stays as it is.
    return re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)


def _contents(inspections: Sequence[Inspection]) -> str:
    links = (f'<a href="#text-{i}">{escape(shown.text)}</a>' for i, shown in enumerate(inspections))
    return f'<nav aria-label="Texts">{"".join(links)}</nav>'


def _article(number: int, inspection: Inspection, numbers: Iterator[int]) -> str:
    """One text: what went in, what came out, and a section per kind of attention for the script to fill."""
    sections = "\n".join(_section(next(numbers), view) for view in inspection.views)
    return f"""<article id="text-{number}">
<dl><dt>Text</dt><dd>{escape(inspection.text)}</dd><dt>Output</dt><dd>{escape(inspection.output)}</dd></dl>
{sections}
</article>"""


def _section(number: int, view: AttentionView) -> str:
    return f"""<section class="view" id="view-{number}">
<h2>{escape(TITLES[view.kind])}</h2>
<p class="quiet">{escape(CAPTIONS[view.kind])}</p>
<div class="parts">
<div class="small">
<h3>Heads <span class="quiet hint">(choose one to enlarge it)</span></h3><div class="heads"></div>
</div>
<div class="large"><h3></h3><div class="frame"></div></div>
<div class="told"><p class="read" aria-live="polite"></p><div class="strip"></div></div>
</div>
</section>"""


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


def _script_json(value: Any) -> str:
    """JSON that cannot end the script element it stands in, whatever the tokens spell."""
    return json.dumps(value, ensure_ascii=False).replace("<", "\\u003c").replace("&", "\\u0026")
