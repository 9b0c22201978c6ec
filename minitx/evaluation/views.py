"""What attention looked like on one text: plain values that the figures and the inspect page draw."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

Kind = Literal["cross", "encoder", "decoder", "pooling"]

TITLES: dict[Kind, str] = {
    "cross": "Cross-attention: the output reads the source",
    "encoder": "Encoder self-attention: the text reads itself",
    "decoder": "Decoder self-attention: the output reads what is already written",
    "pooling": "Pooling: how much of each token is in the vector that the class is read from",
}
CAPTIONS: dict[Kind, str] = {
    "cross": "Rows: the token being written. Columns: the source token it reads.",
    "encoder": "Rows: the token that reads. Columns: the token it reads.",
    "decoder": "Rows: the token being written. Columns: the tokens before it, [BOS] first.",
    "pooling": "One row. Columns: the token whose state is weighed.",
}

SHADES = ("#f4f8fd", "#c9ddf2", "#82b1dd", "#3a7abd", "#123f7a", "#06224a")
"""One hue from weight 0 to weight 1, over the square root of the weight: in a long text most weights are a few per
cent, and would all look white on a linear scale. Lightness alone carries the value, so no colour vision is needed."""
NOTHING = "#ffffff"
"""A weight of exactly 0: what the mask forbids, told apart from what is merely ignored."""


@dataclass(frozen=True, eq=False)
class AttentionView:
    """Every layer and head of one kind of attention, for one text without padding."""

    kind: Kind
    weights: npt.NDArray[np.float32] = field(repr=False)
    """(L, H, Q, K): layers, heads, queries, keys; each row over the keys sums to 1, or is 0 where all is masked."""
    query_tokens: tuple[str, ...]
    """Q labels. In a decoder, query t is labelled with the token that it writes, not with the one it was fed."""
    key_tokens: tuple[str, ...]
    """K labels."""

    def __post_init__(self) -> None:
        labelled = (len(self.query_tokens), len(self.key_tokens))
        if self.weights.ndim != 4 or self.weights.shape[2:] != labelled:
            raise ValueError(f"weights of shape {self.weights.shape} must be (L, H, {labelled[0]}, {labelled[1]})")

    @property
    def n_layers(self) -> int:
        return int(self.weights.shape[0])

    @property
    def n_heads(self) -> int:
        return int(self.weights.shape[1])


@dataclass(frozen=True)
class Inspection:
    """A text, what the model made of it, and where it looked."""

    text: str
    output: str
    """The label, or the output text."""
    views: tuple[AttentionView, ...]
    """Those that the model has. For a translator: cross, encoder, decoder; for a classifier: encoder, pooling."""
