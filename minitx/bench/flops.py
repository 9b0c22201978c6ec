"""How many floating-point operations a step needs: one definition, for every contestant.

    training = 3 x forward                                  (the backward pass computes two products per forward one)
    forward  = 2 x (weights of a matrix) x (tokens that pass through it)
             + 4 x layers x sum over rows of T_q x T_k x H K            (scores, and their product with the values)

with real tokens only: what anybody spends on padding is not counted. Token tables cost nothing, the output projection
counts 2 x D x V per target, and norms, softmax, dropout, biases and the optimiser are left out. Causal attention counts
every pair, as is usual. With `first_only` the last encoder layer counts keys and values of all positions, and all else
of the first position alone.

Letters: S source and T target tokens of a row, D model width, H heads, K head width, F feed-forward width, V outputs.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
from numpy.typing import NDArray

from minitx.bench.job import Size

FORMULA = (
    "training = 3 x forward; forward = 2 x matrix weights x real tokens + 4 x layers x sum(T_q x T_k) x H K; "
    "token tables 0, output 2 x D x outputs x targets; cls pooling with first_only: the last encoder layer counts "
    "queries, output and feed-forward of the first position alone"
)
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Flops:
    """Forward operations by part."""

    encoder: float
    decoder: float
    attention: float
    """Scores and weighted sums, of all layers."""
    output: float
    """The output projection, or pooling and head of a classifier."""

    @property
    def forward(self) -> float:
        return self.encoder + self.decoder + self.attention + self.output

    @property
    def training(self) -> float:
        return 3 * self.forward

    def to_json(self) -> dict[str, float]:
        return {**asdict(self), "training": self.training}


def count_flops(
    size: Size, src: Ints, tgt: Ints | None = None, *, first_only: bool = False, pooler: bool = False
) -> Flops:
    """Operations of one forward pass over rows of `src` (R,) and, for a translator, `tgt` (R,) real tokens.

    first_only: the last encoder layer computes the first position alone. pooler: a further D x D matrix before the
    head, as BERT has.
    """
    width, rows = size.d_model, len(src)
    tokens = float(src.sum())
    square, wide = 2.0 * width * width, 4.0 * width * size.d_ff
    full = size.n_layers - first_only
    encoder = full * (4 * square + wide) * tokens
    attention = 4.0 * width * full * float((src**2).sum())
    if first_only:
        encoder += 2 * square * tokens + (2 * square + wide) * rows
        attention += 4.0 * width * tokens
    if tgt is None:
        head = 2.0 * width * size.n_classes * rows + (square * rows if pooler else 0.0)
        return Flops(encoder, 0.0, attention, head)
    targets = float(tgt.sum())
    decoder = size.n_layers * ((6 * square + wide) * targets + 2 * square * tokens)
    attention += 4.0 * width * size.n_layers * float((tgt**2).sum() + (tgt * src).sum())
    return Flops(encoder, decoder, attention, 2.0 * width * size.vocab * targets)
