"""The attention lens: run a model on a text and keep what every head of every layer read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from minitx.batch import BOS, EOS, Batch
from minitx.config import DecodeConfig
from minitx.evaluation.beam import translate
from minitx.evaluation.decode import output_limit
from minitx.evaluation.evaluate import GREEDY, judging
from minitx.evaluation.predict import Codec
from minitx.evaluation.views import AttentionView, Inspection, Kind
from minitx.nn.build import Model
from minitx.nn.capture import capture_attention
from minitx.nn.models import Classifier, Translator


def inspect_texts(
    model: Model,
    texts: Sequence[str],
    codec: Codec,
    *,
    device: torch.device,
    decode: DecodeConfig = GREEDY,
) -> list[Inspection]:
    """What the model makes of each text, and its attention while it does so.

    A translator first writes its output as `decode` says; then one captured pass over the source and that output shows
    every step at once, because each position sees exactly what it saw while it was written. In float32, one text at a
    time: nothing is padded, and a picture needs no speed.
    """
    split = codec.encode(texts)
    inspections = []
    with judging([model], device, "fp32"):
        for row, text in enumerate(texts):
            batch = split.batch(np.array([row])).to(device)
            if isinstance(model, Translator):
                inspections.append(_inspect_translation(model, batch, text, codec, decode))
            else:
                assert isinstance(model, Classifier), "a masked model makes nothing of a text"
                inspections.append(_inspect_class(model, batch, text, codec))
    return inspections


def _inspect_class(model: Classifier, batch: Batch, text: str, codec: Codec) -> Inspection:
    with capture_attention(model) as maps:
        logits = model(batch)
    src = codec.src_tokenizer.tokens(batch.src[0].tolist())
    views = [_view("encoder", _whole(maps.encoder, len(src)), src, src), _view("pooling", maps.pooling, ["text"], src)]
    return Inspection(text, codec.label(int(logits.argmax())), tuple(view for view in views if view is not None))


def _inspect_translation(model: Translator, batch: Batch, text: str, codec: Codec, decode: DecodeConfig) -> Inspection:
    [ids] = translate([model], batch, decode)
    # An output that reached the limit has no EOS: then its last token is the last that was written.
    ended = len(ids) < output_limit(model, batch.src.shape[1])
    written = [*ids.tolist(), EOS] if ended else ids.tolist()
    fed = torch.tensor([[BOS, *written[:-1]]], device=batch.src.device)
    with capture_attention(model) as maps:
        model.decode(fed, model.encode(batch.src, batch.src_mask, batch.sentence), batch.src_mask)
    src = codec.src_tokenizer.tokens(batch.src[0].tolist())
    queries, keys = (codec.output_tokenizer.tokens(tokens) for tokens in (written, fed[0].tolist()))
    views = [
        _view("cross", maps.cross, queries, src),
        _view("encoder", maps.encoder, src, src),
        _view("decoder", maps.decoder, queries, keys),
    ]
    return Inspection(text, codec.text(ids), tuple(view for view in views if view is not None))


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
