"""The masked model in all its encoders: what it is trained on, and what may not change it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from nn_samples import MAX_LENGTH, SRC_VOCAB, make_batch, texts, tiny
from torch import Tensor

from minitx.batch import IGNORED, UNK, Batch
from minitx.config import CnnConfig, LstmConfig, NetConfig
from minitx.nn.build import build_model
from minitx.nn.classifier import READER
from minitx.nn.masked import MaskedModel
from minitx.nn.sizes import ModelShape, parameter_counts

LENGTHS = [11, 3, 37]
SOURCES = texts(LENGTHS, SRC_VOCAB)
HIDDEN = [[2, 7], [0], [1, 13, 31, 36]]
SMALL = {"d_model": 12, "dropout": 0.0}
CONFIGS: list[Any] = [
    pytest.param(tiny(), id="transformer"),
    pytest.param(tiny(position="learned", pooling="cls", norm="post"), id="transformer-cls"),
    pytest.param(tiny(attention={"span": "sentence"}), id="sentence"),
    pytest.param(tiny(attention={"span": "window", "window": 2}), id="window"),
    pytest.param(tiny(chunk=7), id="chunks"),
    pytest.param(CnnConfig.model_validate({**SMALL, "channels": 17}), id="cnn"),
    pytest.param(LstmConfig.model_validate({**SMALL, "hidden": 7}), id="lstm"),
]


def build(config: NetConfig) -> MaskedModel:
    torch.manual_seed(0)
    model = build_model(config, ModelShape("masked", SRC_VOCAB, max_length=MAX_LENGTH))
    assert isinstance(model, MaskedModel)
    return model.double()


def hide(order: list[int], extra: int = 0) -> Batch:
    """These sources, with the tokens at HIDDEN read as [UNK]."""
    batch = make_batch([SOURCES[i] for i in order], extra=extra)
    length = batch.src.shape[1]
    index = torch.tensor([place * length + p for place, i in enumerate(order) for p in HIDDEN[i]])
    targets = batch.src.flatten()[index]
    src = batch.src.flatten().index_fill(0, index, UNK).view_as(batch.src)
    return replace(batch, src=src, targets=targets, target_index=index)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize("config", CONFIGS)
def test_loss_is_torchs_on_the_logits_of_the_hidden_places(config: NetConfig) -> None:
    model, batch = build(config), hide([0, 1, 2])
    assert batch.target_index is not None
    states = model.states(batch).flatten(0, 1)
    logits = F.linear(model.transform(states), model.src_tokens.weight)[batch.target_index]
    close(model(batch), logits)
    for smoothing in (0.0, 0.2):
        wanted = F.cross_entropy(logits, batch.targets, reduction="sum", label_smoothing=smoothing)
        close(model.loss(batch, smoothing), wanted)


@pytest.mark.parametrize("config", CONFIGS)
def test_padding_batching_and_order_change_nothing(config: NetConfig) -> None:
    model = build(config)
    together = model(hide([0, 1, 2])).split([2, 1, 4])
    close(model(hide([0, 1, 2], extra=5)), torch.cat(together))
    close(model(hide([2, 1, 0])), torch.cat(together[::-1]))
    for i in range(3):
        close(model(hide([i])), together[i])


@pytest.mark.parametrize("config", CONFIGS)
def test_has_the_predicted_parameters(config: NetConfig) -> None:
    model, shape = build(config), ModelShape("masked", SRC_VOCAB, max_length=MAX_LENGTH)
    counts = parameter_counts(config, shape)
    assert counts["head"] == sum(p.numel() for p in model.transform.parameters())
    assert counts["embedding"] == model.src_tokens.weight.numel()
    assert sum(counts.values()) == sum(p.numel() for p in model.parameters())


@pytest.mark.parametrize("config", CONFIGS)
def test_a_classifier_has_the_same_reader(config: NetConfig) -> None:
    """Names and shapes, so that its weights can be taken over; nothing else of the two goes by one name."""
    other = build_model(config, ModelShape("classification", SRC_VOCAB, n_classes=5, max_length=MAX_LENGTH))
    mine, theirs = ({k: v.shape for k, v in m.state_dict().items()} for m in (build(config), other))
    shared = {name: shape for name, shape in mine.items() if name.startswith(READER)}
    assert shared and shared == {name: shape for name, shape in theirs.items() if name.startswith(READER)}
    assert set(mine) & set(theirs) == set(shared)


def test_every_weight_learns() -> None:
    model = build(tiny())
    torch.autograd.backward(model.loss(hide([0, 1, 2])))
    assert all(p.grad is not None and bool(p.grad.any()) for p in model.parameters())


def test_filled_up_targets_count_nothing() -> None:
    model, batch = build(tiny()), hide([0, 1, 2])
    assert batch.target_index is not None
    filled = replace(
        batch,
        targets=F.pad(batch.targets, (0, 4), value=IGNORED),
        target_index=F.pad(batch.target_index, (0, 4)),
        n_real=batch.n_targets,
    )
    close(model.loss(filled), model.loss(batch))
    assert filled.n_targets == batch.n_targets


def test_r_drop_of_two_equal_passes_adds_nothing() -> None:
    model, batch = build(tiny()), hide([0, 1, 2])
    close(model.loss(batch, 0.1, 5.0), model.loss(batch, 0.1))
