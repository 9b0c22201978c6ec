"""Weights move between the forms of attention and come back as they were."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attention_reference import from_torch, to_torch
from nn_samples import SRC_VOCAB, TGT_VOCAB, classifier, make_batch, texts, tiny, translator
from torch import nn

from minitx.nn.attention.convert import grouped_to_split, split_to_grouped
from minitx.nn.attention.multi_head import MultiHeadAttention
from minitx.nn.attention.projections import Reduction

SOURCES, TARGETS = texts([11, 3], SRC_VOCAB), texts([5, 7], TGT_VOCAB)


@pytest.mark.parametrize("head_dim", [None, 5])
def test_whole_model_converts_both_ways(head_dim: int | None) -> None:
    split = translator(tiny(head_dim=head_dim, attention={"heads": "split"}), seed=1)
    grouped = translator(tiny(head_dim=head_dim, attention={"heads": "grouped"}), seed=2)
    batch = make_batch(SOURCES, TARGETS)
    assert not torch.allclose(split(batch), grouped(batch))

    state = split_to_grouped(split.state_dict(), n_heads=3)
    grouped.load_state_dict(state)
    torch.testing.assert_close(grouped(batch), split(batch), rtol=0, atol=1e-12)
    back = grouped_to_split(grouped.state_dict())
    assert back.keys() == split.state_dict().keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in split.state_dict().items())


def test_conversion_passes_the_other_form_unchanged_and_shares_no_memory() -> None:
    state = classifier(tiny()).state_dict()
    same = grouped_to_split(state)
    assert same.keys() == state.keys()
    for converted in (same, split_to_grouped(state, 3)):
        pointers = {tensor.data_ptr() for tensor in converted.values()}
        assert len(pointers) == len(converted)
        assert not pointers & {tensor.data_ptr() for tensor in state.values()}


def test_wrong_head_count_is_refused() -> None:
    with pytest.raises(ValueError, match="which 3 projections of 5 heads cannot share"):
        split_to_grouped(MultiHeadAttention(12, 3).state_dict(), n_heads=5)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("heads", ["split", "grouped"])
def test_torch_and_back(bias: bool, heads: Any) -> None:
    ours = MultiHeadAttention(12, 3, heads=heads, bias=bias).double().eval()
    for parameter in ours.parameters():
        nn.init.normal_(parameter)
    theirs = to_torch(ours)
    assert not theirs.training
    back = from_torch(theirs)
    x = torch.randn(2, 7, 12, dtype=torch.float64)
    torch.testing.assert_close(theirs(x, x, x)[0], ours(x), rtol=0, atol=1e-11)
    torch.testing.assert_close(back(x), ours(x), rtol=0, atol=1e-12)
    nn.init.zeros_(theirs.in_proj_weight)
    assert ours(x).abs().max() > 0.1 and torch.equal(back(x), from_torch(to_torch(back))(x))


def test_options_without_a_counterpart_are_refused() -> None:
    with pytest.raises(ValueError, match=r"needs head_dim \(5\) to be d_model / n_heads \(12 / 3\)"):
        to_torch(MultiHeadAttention(12, 3, 5))
    with pytest.raises(ValueError, match=r"and Reduction\(n_kv_heads=1.*\) leaves some out"):
        to_torch(MultiHeadAttention(12, 3, reduction=Reduction(n_kv_heads=1)))
    for options in ({"kdim": 5}, {"add_bias_kv": True}, {"add_zero_attn": True}):
        with pytest.raises(ValueError, match="only a MultiheadAttention without"):
            from_torch(nn.MultiheadAttention(12, 3, **options))
