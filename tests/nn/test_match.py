"""Matched models have the size they are said to have, counted in the built model itself."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minitx.config import BagConfig, CnnConfig, ConfigError, LstmConfig, NetConfig, TransformerConfig
from minitx.nn.build import build_model
from minitx.nn.sizes import TOLERANCE, ModelShape, match, size_of

SHAPE = ModelShape(task="classification", src_vocab=53, n_classes=7, max_length=31)
TRANSLATION = ModelShape(task="translation", src_vocab=53, tgt_vocab=59, max_length=31)
KINDS: list[type[NetConfig]] = [TransformerConfig, CnnConfig, LstmConfig]


def config_of(kind: type[NetConfig], **keys: Any) -> NetConfig:
    more = {"n_heads": 2, "position": "learned"} if kind is TransformerConfig else {}
    return kind(**{"d_model": 22, **more, **keys})


def built_size(config: NetConfig, shape: ModelShape) -> int:
    """Every trainable number but those of token tables, learned positions and output projection."""
    outside = ("src_tokens.", "tgt_tokens.", "output.", "encoder.position", "decoder.position")
    named = build_model(config, shape).named_parameters()
    return sum(p.numel() for name, p in named if not name.startswith(outside))


@settings(max_examples=20, deadline=None)
@given(
    kind=st.sampled_from(KINDS),
    other=st.sampled_from(KINDS),
    width=st.integers(3, 71),
    layers=st.integers(1, 3),
    other_layers=st.integers(1, 3),
)
def test_a_found_width_is_the_nearest_there_is(
    kind: type[NetConfig], other: type[NetConfig], width: int, layers: int, other_layers: int
) -> None:
    target = built_size(config_of(other, n_layers=other_layers, **{str(other.INNER): width}), SHAPE)
    wanted = config_of(kind, n_layers=layers)

    def built(inner: int) -> int:
        return built_size(wanted.model_copy(update={str(kind.INNER): inner}), SHAPE)

    try:
        found = match(wanted, SHAPE, target)
    except ConfigError:
        inner = 1  # there is none: neither the last width below the target nor the next one comes near
        while built(inner) < target:
            inner += 1
        assert min(abs(built(i) - target) for i in (inner, max(1, inner - 1))) > TOLERANCE * target
        return
    inner = found.inner_width
    assert inner is not None
    off = abs(built_size(found, SHAPE) - target)
    assert off <= TOLERANCE * target
    assert off <= abs(built(inner + 1) - target) and (inner == 1 or off <= abs(built(inner - 1) - target))
    assert found == wanted.model_copy(update={str(kind.INNER): inner})  # nothing else has changed
    if kind is other and layers == other_layers:
        assert off == 0


def test_a_translator_is_matched_with_its_decoder() -> None:
    target = built_size(config_of(TransformerConfig, n_layers=3, n_decoder_layers=1, d_ff=61), TRANSLATION)
    found = match(config_of(TransformerConfig, n_layers=1, n_decoder_layers=1), TRANSLATION, target)
    assert abs(built_size(found, TRANSLATION) - target) <= TOLERANCE * target
    assert size_of(found, TRANSLATION) == built_size(found, TRANSLATION)


@pytest.mark.parametrize(
    ("config", "says"),
    [
        (config_of(CnnConfig, n_layers=8), r"model.channels \(1\) must .*; change model.n_layers or model.kernel$"),
        (config_of(LstmConfig, n_layers=9), r"model.hidden \(1\) must .*; change model.n_layers$"),
        (BagConfig(), r"model \(bag\) must not be matched in size, because .*; transformer, cnn and lstm can be$"),
    ],
)  # fmt: skip
def test_what_cannot_be_matched_says_why(config: NetConfig, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        match(config, SHAPE, 500)
