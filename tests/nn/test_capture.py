"""Captured attention weights: what the fast path used without showing it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from attention_reference import may_read
from nn_samples import SRC_VOCAB, TGT_VOCAB, classifier, make_batch, texts, tiny, tiny_lstm, translator
from torch import Tensor

from minitx.nn.attention.multi_head import MultiHeadAttention
from minitx.nn.capture import attentions, capture_attention

SOURCES, TARGETS = texts([41, 13], SRC_VOCAB), texts([7, 39], TGT_VOCAB, seed=2)
SPANS: list[Any] = [{"span": "global"}, {"span": "window", "window": 2}, {"span": "sentence"}]


@pytest.mark.parametrize("attention", SPANS, ids=lambda a: a["span"])
@pytest.mark.parametrize("heads", ["split", "grouped"])
def test_capture_changes_no_result_and_rows_sum_to_one(attention: dict[str, Any], heads: str) -> None:
    model = translator(tiny(attention={**attention, "heads": heads}))
    batch = make_batch(SOURCES, TARGETS)
    fast = model(batch)
    with capture_attention(model) as maps:
        torch.testing.assert_close(model(batch), fast, rtol=0, atol=1e-11)
    assert maps.encoder is not None and maps.decoder is not None and maps.cross is not None
    assert maps.encoder.shape == (2, 2, 3, 41, 41)
    assert maps.decoder.shape == (2, 2, 3, 40, 40)
    assert maps.cross.shape == (2, 2, 3, 40, 41)
    assert batch.src_mask is not None
    for weights in (maps.cross, maps.decoder, maps.encoder[:, 0], maps.encoder[:, 1, :, :13]):
        torch.testing.assert_close(weights.sum(-1), torch.ones(weights.shape[:-1]))
    for weights in (maps.encoder, maps.cross):
        assert not weights[:, 1, ..., 13:].any(), "padding is never read"


@pytest.mark.parametrize("attention", SPANS, ids=lambda a: a["span"])
def test_maps_are_zero_exactly_where_nothing_may_be_read(attention: dict[str, Any]) -> None:
    model = translator(tiny(attention=attention))
    batch = make_batch(SOURCES, TARGETS)
    with capture_attention(model) as maps:
        model(batch)
    assert maps.encoder is not None and maps.decoder is not None
    assert batch.src_mask is not None and batch.sentence is not None
    span, window = attention["span"], attention.get("window", 0)
    rule = may_read(span, window, False, 41, 41, batch.src_mask.tolist(), batch.sentence.tolist())
    causal = may_read(span if span == "window" else "global", window, True, 40, 40)
    for weights, allowed in ((maps.encoder, rule), (maps.decoder, causal)):
        n = weights.shape[-1]
        expected = torch.tensor([[[allowed(b, i, j) for j in range(n)] for i in range(n)] for b in range(2)])
        assert torch.equal(weights > 0, expected[None, :, None].expand_as(weights))


def test_weights_are_the_softmax_of_the_products() -> None:
    torch.manual_seed(0)
    model = classifier(tiny(n_layers=1))
    batch = make_batch(SOURCES[:1])
    with capture_attention(model) as maps:
        model(batch)
    layer = model.encoder._layers()[0]
    x = layer.around_attention.norm(model.encoder.positions.embed(model.src_tokens(batch.src)))
    q, k, _ = layer.attention.project.own(x)
    expected = (torch.einsum("bhik,bhjk->bhij", q, k) / 4**0.5).softmax(-1)
    assert maps.encoder is not None and maps.decoder is None and maps.cross is None
    torch.testing.assert_close(maps.encoder[0], expected.float())


@pytest.mark.parametrize("attention", SPANS, ids=lambda a: a["span"])
def test_outputs_and_readable_keys_are_recorded_too(attention: dict[str, Any]) -> None:
    """What heads write is what the output projection reads, whatever their gates; keys are counted by the rule."""
    model = translator(tiny(attention=attention))
    batch = make_batch(SOURCES, TARGETS)
    read: dict[int, Tensor] = {}
    by_role = attentions(model)
    for stack in by_role.values():
        for module in stack:
            assert isinstance(module, MultiHeadAttention)
            module.output.register_forward_pre_hook(lambda own, args: read.__setitem__(id(own), args[0]))
            module.set_gates(torch.full((3,), 2.0).double())
    with capture_attention(model) as maps:
        model(batch)
    assert batch.src_mask is not None and batch.sentence is not None
    span, window = attention["span"], attention.get("window", 0)
    real = batch.src_mask.tolist()
    rules = {
        "encoder": may_read(span, window, False, 41, 41, real, batch.sentence.tolist()),
        "decoder": may_read(span if span == "window" else "global", window, True, 40, 40),
        "cross": may_read("global", 0, False, 40, 41, real),
    }
    for role, stack in by_role.items():
        for i, module in enumerate(stack):
            reading = maps.layers[role][i]
            assert reading.outputs is not None and reading.n_readable is not None and not reading.outputs.requires_grad
            written = read[id(module.output)].unflatten(-1, (3, 4)).transpose(1, 2)  # type: ignore[union-attr]
            assert torch.equal(2 * reading.outputs, written)
            _, _, n_queries, n_keys = reading.weights.shape
            counts = [[sum(rules[role](b, q, k) for k in range(n_keys)) for q in range(n_queries)] for b in range(2)]
            assert reading.n_readable.expand(2, n_queries).tolist() == counts


def test_a_row_without_a_real_token_has_an_empty_map() -> None:
    model = classifier(tiny())
    with capture_attention(model) as maps:
        model(make_batch([SOURCES[0], []]))
    assert maps.encoder is not None
    assert not maps.encoder[:, 1].any()


def test_capture_ends_even_after_an_error_and_detaches() -> None:
    model = classifier(tiny())
    with pytest.raises(RuntimeError, match="interrupted"), capture_attention(model) as maps:
        model(make_batch(SOURCES))
        raise RuntimeError("interrupted")
    assert maps.encoder is not None and not maps.encoder.requires_grad
    assert all(m.recorder is None for m in model.modules() if isinstance(m, MultiHeadAttention))


def test_cached_window_step_is_captured_over_every_key() -> None:
    model = translator(tiny(attention={"span": "window", "window": 2}))
    batch = make_batch(SOURCES[:1], TARGETS[:1])
    assert batch.tgt_in is not None
    with torch.no_grad(), capture_attention(model) as maps:
        memory = model.encode(batch.src)
        cache = model.new_cache(memory)
        for t in range(6):
            model.decode(batch.tgt_in[:, t : t + 1], memory, cache=cache)
    assert maps.decoder is not None
    assert maps.decoder.shape == (2, 1, 3, 1, 6)
    assert (maps.decoder[0, 0, 0, 0] > 0).tolist() == [False, False, False, True, True, True]


def test_additive_attention_is_one_head() -> None:
    model, batch = translator(tiny_lstm()), make_batch(SOURCES, TARGETS)
    plain = model(batch)
    with capture_attention(model) as maps:
        assert torch.equal(model(batch), plain)
    assert maps.cross is not None and maps.encoder is None and maps.decoder is None and maps.pooling is None
    assert maps.cross.shape == (1, 2, 1, 40, 41)
    torch.testing.assert_close(maps.cross.sum(-1), torch.ones(1, 2, 1, 40))
    assert not maps.cross[:, 1, ..., 13:].any(), "padding is never read"
    model.decoder.attention.v.data.zero_()
    with capture_attention(model) as maps:
        model(batch)
    torch.testing.assert_close(maps.cross[0, 1, 0, :, :13], torch.full((40, 13), 1 / 13))


@pytest.mark.parametrize("pooling", ["attention", "additive"])
@pytest.mark.parametrize("config", [tiny, tiny_lstm], ids=["transformer", "lstm"])
def test_a_pooling_that_weighs_is_one_query(config: Any, pooling: Any) -> None:
    model, batch = classifier(config(pooling=pooling)), make_batch(SOURCES)
    with capture_attention(model) as maps:
        model(batch)
        states = model.states(batch)
    assert maps.pooling is not None and maps.pooling.shape == (1, 2, 1, 1, 41)
    weights = model.pooling.weights(states, batch.src_mask)
    assert weights is not None
    torch.testing.assert_close(maps.pooling[0, :, 0, 0], weights.float())
    assert (maps.encoder is None) == (config is tiny_lstm)
    assert model.pooling.recorder is None


@pytest.mark.parametrize("pooling", ["last", "mean", "max"])
def test_a_model_without_attention_has_no_role(pooling: Any) -> None:
    model = classifier(tiny_lstm(pooling=pooling))
    assert attentions(model) == {}
    with capture_attention(model) as maps:
        model(make_batch(SOURCES))
    assert maps.layers == {}


def test_attentions_lists_every_attention_once_by_role() -> None:
    model = translator(tiny(n_layers=3, n_decoder_layers=2))
    by_role = attentions(model)
    assert {role: len(stack) for role, stack in by_role.items()} == {"encoder": 3, "decoder": 2, "cross": 2}
    listed = {id(m) for stack in by_role.values() for m in stack}
    assert listed == {id(m) for m in model.modules() if isinstance(m, MultiHeadAttention)}
    assert all(m.attention_span.causal == (role == "decoder") for role, stack in by_role.items() for m in stack)
