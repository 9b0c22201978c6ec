"""Attention maps of single texts: the weights of every head of every layer while a model reads a text.

Beside the weights: what they weigh (`value_weighted`), what each head does for the output (`loss_without`), and what
reaches a token through all layers so far (`rollout`, `relevance`).

Letters in shapes: B rows, L layers, H heads, Q queries, K keys, W head width, D model width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from minitx.analysis.head_effects import losses_without
from minitx.analysis.head_maps import LayerId, PerHead
from minitx.analysis.relevance import arrived, relevance
from minitx.batch import BOS, EOS, Batch
from minitx.config import DecodeConfig
from minitx.decoding.beam import beam_search, translate
from minitx.decoding.inference import GREEDY, inference
from minitx.decoding.text import Answer, Candidate, TextProcessor, likeliest_labels, likeliest_translations
from minitx.nn.attention.multi_head import MultiHeadAttention
from minitx.nn.attention.record import AttentionRecord
from minitx.nn.build import Model
from minitx.nn.capture import AttentionMaps, Role, attentions, capture_attention
from minitx.nn.classifier import Classifier
from minitx.nn.translator import Translator

Kind = Role
Labels = tuple[Sequence[str], Sequence[str]]
"""Of queries and of keys."""

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
    value_weighted: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    """(L, H, Q, K) shares, see `value_weighted`; None of attention without heads."""
    loss_without: tuple[PerHead, ...] | None = None
    """Of each layer, how much the loss per target of the model's own output rises without a head, in nats; None where
    it was not asked for, or there are no heads."""
    rollout: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    """(L, Q, K) attention rollout after each layer; rows sum to 1. None where it was not asked for, and of what is not
    self-attention."""
    relevance: npt.NDArray[np.float32] | None = field(default=None, repr=False)
    """(L, Q, K) gradient-weighted relevance that has arrived after each layer, as shares of the row; a row is 0 where
    none has. None as of `rollout`."""

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
    answers: tuple[Answer, ...] = ()
    """The likeliest labels, or the best translations of a beam, best first; () where they were not asked for."""


def value_weighted(attention: MultiHeadAttention, record: AttentionRecord) -> Tensor:
    """(B, H, Q, K): how much each key adds to a query through a head, |weight * value W_O| by Kobayashi et al. (2020,
    arXiv 2004.10102, section 3), as a share of the sum over keys. A key with a large weight and a small value counts
    little, as the first or last token of a text often does. Rows that may read nothing are 0."""
    assert record.values is not None, "attention with heads records its values"
    output_HDW = torch.unflatten(attention.output.weight, 1, (attention.n_heads, attention.head_dim)).transpose(0, 1)
    length_BHK = torch.einsum("bhkw,hdw->bhkd", record.values.float(), output_HDW.float()).norm(dim=-1)
    added_BHQK = record.weights.float() * length_BHK[:, :, None]
    shares: Tensor = added_BHQK / added_BHQK.sum(-1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny)
    return shares


def inspect_texts(
    model: Model,
    texts: Sequence[str],
    processor: TextProcessor,
    *,
    device: torch.device,
    decode: DecodeConfig = GREEDY,
    n_answers: int = 0,
    effects: bool = False,
    through_layers: bool = False,
) -> list[Inspection]:
    """The model's output for each text, and its attention on the way.

    A translator first writes its output as `decode` says; then one captured pass over the source and that output shows
    every step at once, because each position sees exactly what it saw while it was written. In float32, one text at a
    time: nothing is padded, and a picture needs no speed.

    n_answers: how many of the likeliest outputs to give; of a translator by a beam at least so wide. effects: also what
    the output loses without each head, one pass for each. through_layers: also rollout and gradient-weighted relevance,
    of the label that the model chose, or of the text that it wrote; one pass forth and back.
    """
    split = processor.encode(texts)
    inspections = []
    with inference([model], device, "fp32"):
        for row, text in enumerate(texts):
            batch = split.batch(np.array([row])).to(device)
            if isinstance(model, Translator):
                inspections.append(
                    _inspect_translation(model, batch, text, processor, decode, n_answers, effects, through_layers)
                )
            else:
                assert isinstance(model, Classifier), "a masked model has no output for a text"
                inspections.append(_inspect_class(model, batch, text, processor, n_answers, effects, through_layers))
    return inspections


def _inspect_class(
    model: Classifier,
    batch: Batch,
    text: str,
    processor: TextProcessor,
    n_answers: int,
    effects: bool,
    through_layers: bool,
) -> Inspection:
    with capture_attention(model) as maps:
        logits = model(batch)
    answered = replace(batch, targets=logits.argmax(-1))
    src = processor.src_tokenizer.tokens(batch.src[0].tolist())
    views = _views(model, maps, answered, {"encoder": (src, src), "pooling": (["text"], src)}, effects, through_layers)
    assert processor.label_names is not None, "a classification processor names its labels"
    [answers] = likeliest_labels(logits.float().softmax(-1).cpu().numpy(), processor.label_names, n_answers)
    return Inspection(text, processor.label(int(answered.targets)), views, tuple(answers))


def _inspect_translation(
    model: Translator,
    batch: Batch,
    text: str,
    processor: TextProcessor,
    decode: DecodeConfig,
    n_answers: int,
    effects: bool,
    through_layers: bool,
) -> Inspection:
    [ids] = translate([model], batch, decode)
    # An output that reached the limit has no EOS: then its last token is the last that was written.
    ended = len(ids) < model.output_limit(batch.src.shape[1])
    written = [*ids.tolist(), EOS] if ended else ids.tolist()
    targets = torch.tensor(written, device=batch.src.device)
    fed = torch.tensor([[BOS, *written[:-1]]], device=batch.src.device)
    with capture_attention(model) as maps:
        model.decode(fed, model.encode(batch.src, batch.src_mask, batch.sentence), batch.src_mask)
    src = processor.src_tokenizer.tokens(batch.src[0].tolist())
    queries, keys = (processor.output_tokenizer.tokens(tokens) for tokens in (written, fed[0].tolist()))
    answered = replace(batch, targets=targets, tgt_in=fed, target_index=torch.arange(len(written), device=fed.device))
    tokens: dict[Kind, Labels] = {"cross": (queries, src), "encoder": (src, src), "decoder": (queries, keys)}
    views = _views(model, maps, answered, tokens, effects, through_layers)
    answers = _best_translations(model, batch, processor, decode, n_answers) if n_answers and text.strip() else []
    return Inspection(text, processor.text(ids), views, tuple(answers))


def _best_translations(
    model: Translator, batch: Batch, processor: TextProcessor, decode: DecodeConfig, n: int
) -> list[Answer]:
    [found] = beam_search([model], batch, max(n, decode.beam), length_penalty=decode.length_penalty, n_best=n)
    return likeliest_translations(
        Candidate(text=processor.text(h.ids), score=h.score, log_prob=h.log_prob) for h in found
    )


def _views(
    model: Model,
    maps: AttentionMaps,
    answered: Batch,
    tokens: Mapping[Kind, Labels],
    effects: bool,
    through_layers: bool,
) -> tuple[AttentionView, ...]:
    """What a pass over one text recorded, by kind in the order of `tokens` (the labels of queries and keys).

    answered: the same text with the model's own output as targets.
    """
    losses = losses_without(model, [answered]) if effects else {}
    through = relevance(model, answered) if through_layers else {}
    views = []
    for kind, (queries, keys) in tokens.items():
        if kind not in maps.layers:
            continue
        records = [maps.layers[kind][i] for i in sorted(maps.layers[kind])]
        layers = list(zip(attentions(model)[kind], records, strict=True))
        shares = [value_weighted(a, record) for a, record in layers if isinstance(a, MultiHeadAttention)]
        without = [losses[layer_id] for i in range(len(layers)) if (layer_id := LayerId(kind, i)) in losses]
        length = len(keys) if kind == "encoder" else None
        reached = through.get(kind)
        views.append(
            AttentionView(
                kind,
                _whole([record.weights.float() for record in records], length),
                tuple(queries),
                tuple(keys),
                _whole(shares, length) if shares else None,
                tuple(without) or None,
                None if reached is None else _whole_layers(reached.rollout, length),
                None if reached is None else _whole_layers([arrived(r) for r in reached.gradient_weighted], length),
            )
        )
    return tuple(views)


def _whole(layers: Sequence[Tensor], length: int | None) -> npt.NDArray[np.float32]:
    """(L, H, Q, K) from the maps of one text, each (1, H, Q, K). With model.chunk its chunks were rows
    (chunks, H, K, K), each read by itself; then length, that of the text, says what of the last is filling."""
    captured: Tensor = torch.stack(list(layers))
    if length is None or captured.shape[3] >= length:
        return captured[:, 0].cpu().numpy()
    n_layers, n_chunks, n_heads, size, _ = captured.shape
    whole = captured.new_zeros(n_layers, n_heads, n_chunks * size, n_chunks * size)
    for chunk in range(n_chunks):
        part = slice(chunk * size, (chunk + 1) * size)
        whole[:, :, part, part] = captured[:, chunk]
    return whole[..., :length, :length].cpu().numpy()


def _whole_layers(layers: Sequence[Tensor], length: int | None) -> npt.NDArray[np.float32]:
    """(L, Q, K), the same of maps (1, Q, K) of whole layers."""
    return _whole([layer[:, None].float() for layer in layers], length)[:, 0]
