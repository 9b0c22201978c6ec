"""From configuration to model: the right parts, and as many parameters as predicted."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
from nn_samples import small, tiny, tiny_lstm
from torch import nn

from minitx.nn.attention.positions import Positions
from minitx.nn.build import build_model
from minitx.nn.capture import attentions
from minitx.nn.classifier import Classifier
from minitx.nn.sizes import ModelShape, non_embedding, parameter_counts
from minitx.nn.translator import Translator

CONFIGS: list[dict[str, Any]] = [
    {"norm": norm, "position": position, "head_dim": head_dim, "n_decoder_layers": 3, "attention": {"heads": heads}}
    for norm, position, head_dim, heads in itertools.product(
        ("pre", "post"), ("sinusoidal", "learned", "rotary"), (None, 6), ("split", "grouped")
    )
]


def size(*modules: nn.Module | None) -> int:
    return sum(p.numel() for module in modules if module is not None for p in module.parameters())


@pytest.mark.parametrize("joint", [False, True], ids=["apart", "joint"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_translator_has_the_predicted_parameters(joint: bool, tied: bool) -> None:
    for changes in CONFIGS:
        config = tiny(**changes, tie_embeddings=tied)
        shape = ModelShape("translation", 29, 29 if joint else 23, joint=joint, max_length=31)
        model = build_model(config, shape)
        assert isinstance(model, Translator)
        positions = [
            p.learned.numel() for p in (model.encoder.positions, model.decoder.positions) if p.learned is not None
        ]
        counts = parameter_counts(config, shape)
        assert counts == {
            "embedding": size(model.src_tokens, model.tgt_tokens),
            "position": sum(positions),
            "encoder": size(model.encoder) - sum(positions) // 2,
            "decoder": size(model.decoder) - sum(positions) // 2,
            "output": size(model.output),
        }
        assert sum(counts.values()) == size(model)
        assert non_embedding(counts) == counts["encoder"] + counts["decoder"]


@pytest.mark.parametrize("pooling", ["mean", "attention", "cls"])
def test_classifier_has_the_predicted_parameters(pooling: str) -> None:
    for changes in CONFIGS:
        config = tiny(**changes, pooling=pooling)
        shape = ModelShape("classification", 29, n_classes=5, max_length=31)
        model = build_model(config, shape)
        assert isinstance(model, Classifier)
        learned = model.encoder.positions.learned
        counts = parameter_counts(config, shape)
        assert counts == {
            "embedding": size(model.src_tokens),
            "position": 0 if learned is None else learned.numel(),
            "encoder": size(model.encoder) - counts["position"],
            "head": size(model.pooling, model.head),
        }
        assert sum(counts.values()) == size(model)
        assert non_embedding(counts) == counts["encoder"] + counts["head"]


KINDS: list[Any] = [
    pytest.param("transformer", {"position": "learned"}, id="transformer"),
    pytest.param("transformer", {"position": "learned", "chunk": 13}, id="transformer-chunk"),
    pytest.param("transformer", {"position": "learned", "chunk": 37}, id="transformer-long-chunk"),
    pytest.param("cnn", {"n_layers": 3, "kernel": 5}, id="cnn"),
    pytest.param("cnn", {"channels": None, "n_layers": 1, "chunk": 13}, id="cnn-as-wide"),
    pytest.param("lstm", {"n_layers": 3}, id="lstm"),
    pytest.param("lstm", {"hidden": None, "n_layers": 1}, id="lstm-as-wide"),
    pytest.param("bag", {"ngrams": 1}, id="bag-tokens"),
    pytest.param("bag", {"ngrams": 3}, id="bag"),
]


@pytest.mark.parametrize("pooling", ["mean", "max", "attention", "additive"])
@pytest.mark.parametrize(("kind", "changes"), KINDS)
def test_every_kind_has_the_predicted_parameters(kind: str, changes: dict[str, Any], pooling: str) -> None:
    config = small(kind, pooling=pooling, **changes)
    shape = ModelShape("classification", 29, n_classes=5, max_length=31)
    model = build_model(config, shape)
    assert isinstance(model, Classifier)
    positions = [p.learned for p in model.encoder.modules() if isinstance(p, Positions) and p.learned is not None]
    counts = parameter_counts(config, shape)
    assert counts == {
        "embedding": size(model.src_tokens),
        "position": sum(p.numel() for p in positions),
        "encoder": size(model.encoder) - counts["position"],
        "head": size(model.pooling, model.head),
    }
    assert sum(counts.values()) == size(model)
    if kind == "transformer":
        assert [len(p) for p in positions] == [min(31, changes.get("chunk", 31))]


def test_last_pooling_has_no_parameters() -> None:
    config, shape = small("lstm", pooling="last"), ModelShape("classification", 29, n_classes=5)
    assert parameter_counts(config, shape)["head"] == 5 * (7 + 1)
    assert sum(parameter_counts(config, shape).values()) == size(build_model(config, shape))


@pytest.mark.parametrize("joint", [False, True], ids=["apart", "joint"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize(
    "changes", [{}, {"n_layers": 3, "n_decoder_layers": 1}, {"n_layers": 1, "n_decoder_layers": 3, "hidden": None}]
)
def test_lstm_translator_has_the_predicted_parameters(changes: dict[str, Any], tied: bool, joint: bool) -> None:
    config = tiny_lstm(**changes, tie_embeddings=tied)
    shape = ModelShape("translation", 29, 29 if joint else 23, joint=joint, max_length=31)
    model = build_model(config, shape)
    assert isinstance(model, Translator)
    counts = parameter_counts(config, shape)
    assert counts == {
        "embedding": size(model.src_tokens, model.tgt_tokens),
        "position": 0,
        "encoder": size(model.encoder),
        "decoder": size(model.decoder),
        "output": size(model.output),
    }
    assert sum(counts.values()) == size(model)


def test_configuration_reaches_every_attention() -> None:
    config = tiny(attention={"heads": "grouped", "span": "window", "window": 3, "dropout": 0.2, "backend": "naive"})
    model = build_model(config, ModelShape("translation", 29, 23))
    for role, stack in attentions(model).items():
        for attention in stack:
            assert (attention.heads, attention.dropout, attention.backend) == ("grouped", 0.2, "naive")
            assert attention.attention_span.span == ("global" if role == "cross" else "window")
            assert attention.attention_span.window == 3


def test_one_seed_gives_one_model() -> None:
    states = []
    for _ in range(2):
        torch.manual_seed(7)
        states.append(build_model(tiny(), ModelShape("classification", 29, n_classes=5)).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_incomplete_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="needs n_classes"):
        ModelShape("classification", 29)
    with pytest.raises(ValueError, match="needs tgt_vocab"):
        ModelShape("translation", 29)
    with pytest.raises(ValueError, match="one size, not 29 and 23"):
        ModelShape("translation", 29, 23, joint=True)
