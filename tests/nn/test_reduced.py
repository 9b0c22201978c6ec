"""Attention with weights left out: against loops, against ordinary attention with copied weights, cached, predicted."""

from __future__ import annotations

from typing import Any
from unittest import mock

import pytest
import torch
from attention_reference import attend_by_loops, may_read
from hypothesis import given, settings
from hypothesis import strategies as st
from nn_samples import SRC_VOCAB, TGT_VOCAB, classifier, make_batch, texts, tiny, translator
from torch import Tensor, nn

from minitx.nn.attention import kernels
from minitx.nn.attention import masks as window
from minitx.nn.attention.cache import KeyValueCache
from minitx.nn.attention.convert import split_to_grouped
from minitx.nn.attention.multi_head import MultiHeadAttention
from minitx.nn.attention.projections import ReducedProjection, Reduction, spread
from minitx.nn.capture import attentions, capture_attention
from minitx.nn.sizes import ModelShape, parameter_counts

D, H, K = 7, 6, 5
F64 = torch.float64
PROJECTED = [
    pytest.param(Reduction(n_kv_heads=1), id="multi-query"),
    pytest.param(Reduction(n_kv_heads=2), id="grouped-query"),
    pytest.param(Reduction(n_kv_heads=6), id="nothing-shared"),
    pytest.param(Reduction(kv_rank=3), id="low-rank"),
    pytest.param(Reduction(n_kv_heads=3, kv_rank=11), id="shared-of-rank"),
    pytest.param(Reduction(tie_query_key=True), id="tied"),
]
UNVALUED = [
    pytest.param(Reduction(project_values=False), id="unvalued"),
    pytest.param(Reduction(tie_query_key=True, project_values=False), id="tied-unvalued"),
]
ALL = PROJECTED + UNVALUED
REDUCTIONS: list[Reduction] = [param.values[0] for param in ALL]  # type: ignore[misc]
OF_MODELS: list[dict[str, Any]] = [
    {"n_kv_heads": 1}, {"n_kv_heads": 3}, {"kv_rank": 5}, {"n_kv_heads": 1, "kv_rank": 5}, {"tie_query_key": True},
    {"project_values": False}, {"tie_query_key": True, "project_values": False},
]  # fmt: skip
SOURCES, TARGETS = texts([41, 13], SRC_VOCAB), texts([7, 39], TGT_VOCAB, seed=2)


def make(reduction: Reduction, **options: Any) -> MultiHeadAttention:
    """In float64 with biases that are not 0; width 7, or that of the heads together where values are the states."""
    width = D if reduction.project_values else H * K
    attention = MultiHeadAttention(width, H, K, reduction=reduction, **options)
    for name, parameter in attention.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    return attention.double()


@given(
    reduction=st.sampled_from(REDUCTIONS), backend=st.sampled_from(["naive", "sdpa", "auto"]),
    span=st.sampled_from(["global", "window", "sentence"]), reach=st.integers(1, 3), causal=st.booleans(),
    cross=st.booleans(), padded=st.booleans(), gated=st.booleans(), bias=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=80, deadline=None)
def test_outputs_and_gradients_equal_the_loops(
    reduction: Reduction, backend: Any, span: Any, reach: int, causal: bool, cross: bool, padded: bool, gated: bool,
    bias: bool, seed: int,
) -> None:  # fmt: skip
    torch.manual_seed(seed)
    span, causal = ("global", False) if cross else (span, causal)
    attention = make(reduction, backend=backend, span=span, window=reach, causal=causal, bias=bias)
    x = torch.randn(2, 7, attention.d_model, dtype=F64, requires_grad=True)
    memory = torch.randn(2, 3, attention.d_model, dtype=F64, requires_grad=True) if cross else x
    n_keys = memory.shape[1]
    key_mask = torch.rand(2, n_keys) < 0.6 if padded else None
    sentence = torch.randint(0, 2, (2, n_keys)).cumsum(1)
    gates = torch.randn(H, dtype=F64, requires_grad=True) if gated else None
    attention.set_gates(gates)

    with mock.patch.object(window, "MIN_BLOCK", 2), mock.patch.dict(kernels.LONGEST_PLAIN, {F64: 64}):
        actual = attention(x, memory if cross else None, key_mask, sentence)
    real = None if key_mask is None else key_mask.tolist()
    rule = may_read(span, reach, causal, 7, n_keys, real, sentence.tolist())
    expected = attend_by_loops(attention, x, memory, rule, None if gates is None else list(gates))

    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)
    leaves = [x, *attention.parameters(), *([memory] if cross else []), *([] if gates is None else [gates])]
    direction = torch.randn_like(actual)
    ours, theirs = (
        torch.autograd.grad((y * direction).sum(), leaves, allow_unused=True, materialize_grads=True)
        for y in (actual, expected)
    )
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9)


# ------------------------------------------------------------------------------------ against ordinary attention


def ordinary(attention: MultiHeadAttention) -> MultiHeadAttention:
    """With all weights, copied and repeated by hand so that it is the same function."""
    project = attention.project
    assert isinstance(project, ReducedProjection)
    key, value = project.key or project.query, project.value
    assert value is not None
    narrow = torch.eye(attention.d_model, dtype=F64) if project.narrow is None else project.narrow.weight

    def repeated(rows: Tensor) -> Tensor:
        heads = rows.unflatten(0, (-1, K))  # type: ignore[no-untyped-call]
        return torch.stack([heads[h // (H // len(heads))] for h in range(H)]).flatten(0, 1)

    keys = repeated(key.weight @ narrow if project.key is not None else key.weight)
    full = MultiHeadAttention(attention.d_model, H, K).double()
    state = {
        "project.weight": torch.cat([project.query.weight, keys, repeated(value.weight @ narrow)]),
        "project.bias": torch.cat([project.query.bias, repeated(key.bias), repeated(value.bias)]),
        "output.weight": attention.output.weight,
        "output.bias": attention.output.bias,
    }
    full.load_state_dict(state)
    return full


@pytest.mark.parametrize("cross", [False, True], ids=["self", "cross"])
@pytest.mark.parametrize("reduction", PROJECTED)
def test_it_is_the_ordinary_attention_whose_weights_are_repeated(reduction: Reduction, cross: bool) -> None:
    torch.manual_seed(1)
    attention = make(reduction)
    x = torch.randn(2, 11, D, dtype=F64)
    memory = torch.randn(2, 13, D, dtype=F64) if cross else None
    torch.testing.assert_close(attention(x, memory), ordinary(attention)(x, memory), rtol=0, atol=1e-12)


@pytest.mark.parametrize("rank", [D, D + 4])
def test_a_rank_as_large_as_the_width_loses_nothing(rank: int) -> None:
    """Any ordinary attention is one of full rank: the states pass the narrow matrix as they are."""
    torch.manual_seed(2)
    full = MultiHeadAttention(D, H, K).double()
    attention = make(Reduction(kv_rank=rank))
    query, key, value = full.state_dict()["project.weight"].chunk(3)
    zeros = torch.zeros(H * K, rank - D, dtype=F64)
    state = {f"project.{part}.bias": torch.zeros(H * K) for part in ("query", "key", "value")}
    state |= {"project.query.weight": query, "project.narrow.weight": torch.eye(rank, D)}
    state |= {"project.key.weight": torch.cat([key, zeros], 1), "project.value.weight": torch.cat([value, zeros], 1)}
    attention.load_state_dict(state | {f"output.{what}": getattr(full.output, what) for what in ("weight", "bias")})
    x = torch.randn(2, 11, D, dtype=F64)
    torch.testing.assert_close(attention(x), full(x), rtol=0, atol=1e-13)


def test_values_that_are_not_projected_are_those_of_the_identity() -> None:
    torch.manual_seed(3)
    attention, full = make(Reduction(project_values=False)), MultiHeadAttention(H * K, H, K).double()
    state = {f"output.{what}": getattr(attention.output, what) for what in ("weight", "bias")}
    of = attention.state_dict()
    for what, last in (("weight", torch.eye(H * K)), ("bias", torch.zeros(H * K))):
        state[f"project.{what}"] = torch.cat([of[f"project.query.{what}"], of[f"project.key.{what}"], last.double()])
    full.load_state_dict(state)
    x, memory = torch.randn(2, 7, H * K, dtype=F64), torch.randn(2, 11, H * K, dtype=F64)
    torch.testing.assert_close(attention(x), full(x), rtol=0, atol=1e-12)
    torch.testing.assert_close(attention(x, memory), full(x, memory), rtol=0, atol=1e-12)


def test_tied_queries_and_keys_compare_alike_both_ways() -> None:
    project = make(Reduction(tie_query_key=True)).project
    q, k, _ = project.own(torch.randn(2, 11, D, dtype=F64))
    scores = q @ k.transpose(-1, -2)
    torch.testing.assert_close(scores, scores.transpose(-1, -2), rtol=0, atol=1e-12)


def test_heads_are_spread_one_after_another() -> None:
    k = torch.arange(2.0).view(1, 2, 1, 1).expand(3, 2, 5, 7)
    assert spread(k, 6)[0, :, 0, 0].tolist() == [0, 0, 0, 1, 1, 1]
    assert spread(k, 2) is k


# ------------------------------------------------------------------------------------------- cached, in whole models


@pytest.mark.parametrize("span", ["global", "window"])
@pytest.mark.parametrize("reduction", ALL)
def test_cached_steps_equal_the_full_pass_and_keep_the_shared_heads_alone(reduction: Reduction, span: Any) -> None:
    torch.manual_seed(4)
    attention = make(reduction, span=span, window=2, causal=True)
    x = torch.randn(2, 17, attention.d_model, dtype=F64)
    cache, steps, start = KeyValueCache(), [], 0
    with torch.no_grad():
        for n in (1, 3, 12, 1):
            steps.append(attention(x[:, start : start + n], cache=cache))
            start += n
        torch.testing.assert_close(torch.cat(steps, dim=1), attention(x), rtol=0, atol=1e-12)
    keys, values = cache.read()
    assert keys.shape == values.shape == (2, reduction.n_kv_heads or H, 17, K)


@pytest.mark.parametrize("asked", OF_MODELS, ids=str)
def test_decoding_step_by_step_equals_the_whole_target(asked: dict[str, Any]) -> None:
    """Rotary: queries and keys are turned, however they are made."""
    model, batch = translator(tiny(position="rotary", attention=asked)), make_batch(SOURCES, TARGETS)
    assert batch.tgt_in is not None
    with torch.no_grad():
        memory = model.encode(batch.src, batch.src_mask)
        full = model.decode(batch.tgt_in, memory, batch.src_mask)
        cache = model.new_cache(memory)
        steps = [model.decode(batch.tgt_in[:, t : t + 1], memory, batch.src_mask, cache=cache) for t in range(40)]
    torch.testing.assert_close(torch.cat(steps, 1), full, rtol=0, atol=1e-11)


@pytest.mark.parametrize("asked", OF_MODELS, ids=str)
def test_padding_and_the_future_change_nothing(asked: dict[str, Any]) -> None:
    model = translator(tiny(position="rotary", attention=asked))
    batch, wider = make_batch(SOURCES, TARGETS), make_batch(SOURCES, TARGETS, extra=5)
    torch.testing.assert_close(model(wider), model(batch), rtol=0, atol=1e-11)
    later = [[*target[:5], *(5 + (t - 4) % (TGT_VOCAB - 5) for t in target[5:])] for target in TARGETS]
    changed = make_batch(SOURCES, later)
    n_first = 5 + 1  # each position was shown the tokens before it
    torch.testing.assert_close(model(changed)[:n_first], model(batch)[:n_first], rtol=0, atol=1e-11)
    assert not torch.allclose(model(changed)[:8], model(batch)[:8])


@pytest.mark.parametrize("asked", OF_MODELS, ids=str)
def test_captured_maps_have_every_head_of_queries(asked: dict[str, Any]) -> None:
    model, batch = translator(tiny(attention={**asked, "span": "window", "window": 2})), make_batch(SOURCES, TARGETS)
    plain = model(batch)
    with capture_attention(model) as maps:
        torch.testing.assert_close(model(batch), plain, rtol=0, atol=1e-11)
    assert maps.encoder is not None and maps.encoder.shape == (2, 2, 3, 41, 41)
    assert maps.cross is not None and maps.cross.shape == (2, 2, 3, 40, 41)


@pytest.mark.parametrize("asked", OF_MODELS, ids=str)
def test_the_first_position_alone_is_that_of_all(asked: dict[str, Any]) -> None:
    encoder = classifier(tiny(position="rotary", pooling="cls", attention=asked)).encoder
    x = torch.randn(2, 11, 12, dtype=F64)
    torch.testing.assert_close(encoder(x, first_only=True), encoder(x)[:, :1], rtol=0, atol=1e-12)


@pytest.mark.parametrize("asked", OF_MODELS, ids=str)
@pytest.mark.parametrize("head_dim", [None, 4])
def test_models_have_the_predicted_parameters(asked: dict[str, Any], head_dim: int | None) -> None:
    config = tiny(attention=asked, head_dim=head_dim, n_decoder_layers=3)
    shape = ModelShape("translation", SRC_VOCAB, TGT_VOCAB, max_length=31)
    model = translator(config)
    counts = parameter_counts(config, shape)
    for part, module in (("encoder", model.encoder), ("decoder", model.decoder)):
        assert counts[part] == sum(p.numel() for p in module.parameters())
    plain = parameter_counts(tiny(head_dim=head_dim, n_decoder_layers=3), shape)
    assert counts["encoder"] < plain["encoder"] or asked == {"n_kv_heads": 3}
    for stack in attentions(model).values():
        for attention in stack:
            assert isinstance(attention, MultiHeadAttention) and attention.reduction == Reduction(**asked)


@pytest.mark.parametrize("span", ["global", "window"])
@pytest.mark.parametrize("backend", ["naive", "sdpa", "auto"])
@pytest.mark.parametrize("reduction", ALL)
def test_bfloat16_autocast_stays_near_float32(reduction: Reduction, backend: Any, span: Any) -> None:
    torch.manual_seed(7)
    attention = make(reduction, backend=backend, span=span, window=3).float()
    x = torch.randn(2, 67, attention.d_model, requires_grad=True)
    exact = attention(x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = attention(x)
    assert rounded.dtype == torch.bfloat16
    rounded.float().sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()
    # As of ordinary attention, and one product more, of low rank; outputs go up to 8.
    torch.testing.assert_close(rounded.float(), exact, rtol=0, atol=24 * 2**-8)


def test_mistakes_are_worded() -> None:
    with pytest.raises(ValueError, match=r"n_kv_heads \(4\) must divide n_heads \(6\)"):
        make(Reduction(n_kv_heads=4))
    with pytest.raises(ValueError, match=r"need n_heads x head_dim \(6 x 5\) = d_model \(7\)"):
        MultiHeadAttention(D, H, K, reduction=Reduction(project_values=False))
    with pytest.raises(ValueError, match=r"needs heads \(grouped\) to be split"):
        MultiHeadAttention(D, H, K, heads="grouped", reduction=Reduction(kv_rank=3))


def test_conversion_by_name_leaves_other_projections_alone() -> None:
    state = make(Reduction(n_kv_heads=1, kv_rank=3)).state_dict()
    assert split_to_grouped(state, H).keys() == state.keys()
