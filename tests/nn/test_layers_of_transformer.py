"""Layers against torch's own, and the table of initialisations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attention_reference import to_torch
from nn_samples import classifier, tiny, translator
from torch import Tensor, nn

from minitx.config import TransformerConfig
from minitx.nn import transformer as blocks
from minitx.nn.transformer import Decoder, DecoderLayer, Encoder, EncoderLayer, FeedForward, Residual

F64 = torch.float64


def copy_feed_forward(ours: FeedForward, theirs: Any) -> None:
    theirs.linear1.load_state_dict(ours.widen.state_dict())
    theirs.linear2.load_state_dict(ours.output.state_dict())


def options(norm: str, activation: str) -> dict[str, Any]:
    return {"dropout": 0.0, "activation": activation, "batch_first": True, "norm_first": norm == "pre", "dtype": F64}


def shake(module: nn.Module) -> None:
    """Random biases and norms, so that none of them can be forgotten."""
    for parameter in module.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter)


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
def test_encoder_layer_equals_torchs(norm: str, activation: str) -> None:
    torch.manual_seed(0)
    config = tiny(norm=norm, activation=activation)
    ours = EncoderLayer(config).double()
    shake(ours)
    theirs = nn.TransformerEncoderLayer(12, 3, 17, **options(norm, activation))
    theirs.self_attn = to_torch(ours.attention)
    copy_feed_forward(ours.feed_forward, theirs)
    theirs.norm1.load_state_dict(ours.around_attention.norm.state_dict())
    theirs.norm2.load_state_dict(ours.around_feed_forward.norm.state_dict())
    x = torch.randn(2, 7, 12, dtype=F64)
    key_mask = torch.arange(7) < torch.tensor([[7], [4]])
    y = ours(x, ours.attention.mask(2, 7, 7, x, key_mask))
    torch.testing.assert_close(y, theirs(x, src_key_padding_mask=~key_mask), rtol=0, atol=1e-12)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_decoder_layer_equals_torchs(norm: str) -> None:
    torch.manual_seed(0)
    ours = DecoderLayer(tiny(norm=norm)).double()
    shake(ours)
    theirs = nn.TransformerDecoderLayer(12, 3, 17, **options(norm, "relu"))
    theirs.self_attn, theirs.multihead_attn = to_torch(ours.attention), to_torch(ours.cross_attention)
    copy_feed_forward(ours.feed_forward, theirs)
    norms = ours.around_attention, ours.around_cross_attention, ours.around_feed_forward
    for mine, other in zip(norms, (theirs.norm1, theirs.norm2, theirs.norm3), strict=True):
        other.load_state_dict(mine.norm.state_dict())
    x, memory = torch.randn(2, 7, 12, dtype=F64), torch.randn(2, 5, 12, dtype=F64)
    key_mask = torch.arange(5) < torch.tensor([[5], [3]])
    y = ours(x, memory, ours.attention.mask(2, 7, 7, x), ours.cross_attention.mask(2, 7, 5, x, key_mask))
    future = torch.ones(7, 7).triu(1).bool()
    expected = theirs(x, memory, tgt_mask=future, memory_key_padding_mask=~key_mask)
    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)


def test_residual_drops_the_sublayers_output_alone() -> None:
    torch.manual_seed(0)
    residual = Residual(64, "pre", dropout=0.5)
    x = torch.randn(3, 64)
    change = residual(x, torch.ones_like) - x
    assert set(change.round(decimals=4).unique().tolist()) == {0.0, 2.0}


WIDE = TransformerConfig(d_model=64, n_heads=4, d_ff=256, n_layers=3, position="learned")


def deviation(tensor: Tensor) -> float:
    return float(tensor.detach().std())


@pytest.mark.parametrize("norm", ["pre", "post"])
@pytest.mark.parametrize("heads", ["split", "grouped"])
def test_initialisation_is_the_table(norm: Any, heads: Any) -> None:
    assert "Xavier uniform" in (blocks.__doc__ or "")
    torch.manual_seed(0)
    config = WIDE.model_copy(update={"norm": norm, "attention": WIDE.attention.model_copy(update={"heads": heads})})
    encoder, decoder = Encoder(config, 200), Decoder(config, 200)
    for stack, n_sublayers in ((encoder, 6), (decoder, 9)):
        shrink = n_sublayers**-0.5 if norm == "pre" else 1
        for name, parameter in stack.named_parameters():
            if name.endswith("bias"):
                assert not parameter.any(), name
            elif "norm" in name:
                assert (parameter == 1).all(), name
            elif "feed_forward" in name:
                expected = (2 / (64 + 256)) ** 0.5 * (shrink if "output" in name else 1)
                assert deviation(parameter) == pytest.approx(expected, rel=0.05), name
            elif "project" in name or "output" in name:
                expected = (2 / (64 + 64)) ** 0.5 * (shrink if "output" in name else 1)
                assert deviation(parameter) == pytest.approx(expected, rel=0.06), name
            else:
                assert name == "positions.learned"
                assert deviation(parameter) == pytest.approx(0.5**0.5, rel=0.05)


def test_token_tables_and_first_logits_have_their_scale() -> None:
    model = translator(tiny(d_model=48, tie_embeddings=False))
    for table in (model.src_tokens, model.tgt_tokens, model.output):
        assert table is not None and deviation(table.weight) == pytest.approx(48**-0.5, rel=0.1)
    # Normed states of unit scale times a table of deviation D^-1/2: logits of deviation 1.
    logits = model.project(torch.randn(500, 48, dtype=F64))
    assert deviation(logits) == pytest.approx(1, rel=0.1)


def test_sinusoids_are_as_loud_as_learned_positions() -> None:
    loudness = [
        float(classifier(tiny(d_model=48, position=kind)).encoder.positions._rows(40, 0).detach().square().mean())
        for kind in ("sinusoidal", "learned")
    ]
    assert loudness[0] == pytest.approx(0.5, rel=1e-6)
    assert loudness[1] == pytest.approx(0.5, rel=0.15)
