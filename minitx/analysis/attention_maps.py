"""Attention maps of single texts: the weights of every head of every layer while a model reads a text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from minitx.batch import BOS, EOS, Batch
from minitx.config import DecodeConfig
from minitx.decoding.beam import translate
from minitx.decoding.inference import GREEDY, inference
from minitx.decoding.text import TextProcessor
from minitx.nn.build import Model
from minitx.nn.capture import capture_attention
from minitx.nn.classifier import Classifier
from minitx.nn.translator import Translator

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
"""A weight of exactly 0: what the mask forbids, distinct from what is merely ignored."""


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
        """L."""
        return int(self.weights.shape[0])

    @property
    def n_heads(self) -> int:
        """H."""
        return int(self.weights.shape[1])


@dataclass(frozen=True)
class Inspection:
    """A text, the model's output, and its attention."""

    text: str
    output: str
    """The label, or the output text."""
    views: tuple[AttentionView, ...]
    """Those that the model has. For a translator: cross, encoder, decoder; for a classifier: encoder, pooling."""


def inspect_texts(
    model: Model,
    texts: Sequence[str],
    processor: TextProcessor,
    *,
    device: torch.device,
    decode: DecodeConfig = GREEDY,
) -> list[Inspection]:
    """The model's output for each text, and its attention on the way.

    A translator first writes its output as `decode` says; then one captured pass over the source and that output shows
    every step at once, because each position sees exactly what it saw while it was written. In float32, one text at a
    time: nothing is padded, and a picture needs no speed.
    """
    split = processor.encode(texts)
    inspections = []
    with inference([model], device, "fp32"):
        for row, text in enumerate(texts):
            batch = split.batch(np.array([row])).to(device)
            if isinstance(model, Translator):
                inspections.append(_inspect_translation(model, batch, text, processor, decode))
            else:
                assert isinstance(model, Classifier), "a masked model has no output for a text"
                inspections.append(_inspect_class(model, batch, text, processor))
    return inspections


def _inspect_class(model: Classifier, batch: Batch, text: str, processor: TextProcessor) -> Inspection:
    with capture_attention(model) as maps:
        logits = model(batch)
    src = processor.src_tokenizer.tokens(batch.src[0].tolist())
    views = [_view("encoder", _whole(maps.encoder, len(src)), src, src), _view("pooling", maps.pooling, ["text"], src)]
    return Inspection(text, processor.label(int(logits.argmax())), tuple(view for view in views if view is not None))


def _inspect_translation(
    model: Translator, batch: Batch, text: str, processor: TextProcessor, decode: DecodeConfig
) -> Inspection:
    [ids] = translate([model], batch, decode)
    # An output that reached the limit has no EOS: then its last token is the last that was written.
    ended = len(ids) < model.output_limit(batch.src.shape[1])
    written = [*ids.tolist(), EOS] if ended else ids.tolist()
    fed = torch.tensor([[BOS, *written[:-1]]], device=batch.src.device)
    with capture_attention(model) as maps:
        model.decode(fed, model.encode(batch.src, batch.src_mask, batch.sentence), batch.src_mask)
    src = processor.src_tokenizer.tokens(batch.src[0].tolist())
    queries, keys = (processor.output_tokenizer.tokens(tokens) for tokens in (written, fed[0].tolist()))
    views = [
        _view("cross", maps.cross, queries, src),
        _view("encoder", maps.encoder, src, src),
        _view("decoder", maps.decoder, queries, keys),
    ]
    return Inspection(text, processor.text(ids), tuple(view for view in views if view is not None))


def _view(kind: Kind, captured: Tensor | None, queries: Sequence[str], keys: Sequence[str]) -> AttentionView | None:
    """captured: (L, 1, H, Q, K), the maps of a batch of one; None where the model has no such attention."""
    if captured is None:
        return None
    return AttentionView(kind, captured[:, 0].float().cpu().numpy(), tuple(queries), tuple(keys))


def _whole(captured: Tensor | None, length: int) -> Tensor | None:
    """(L, 1, H, S, S) of one text: with model.chunk its chunks were rows (L, chunks, H, K, K), each read by itself."""
    if captured is None or captured.shape[3] >= length:
        return captured
    n_layers, n_chunks, n_heads, size, _ = captured.shape
    whole = captured.new_zeros(n_layers, 1, n_heads, n_chunks * size, n_chunks * size)
    for chunk in range(n_chunks):
        part = slice(chunk * size, (chunk + 1) * size)
        whole[:, 0, :, part, part] = captured[:, chunk]
    return whole[..., :length, :length]
