"""LSTM encoder and translator: torch's own bidirectional LSTM row by row, and what must not change a result."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from nn_samples import (
    N_CLASSES,
    SRC_VOCAB,
    TGT_VOCAB,
    classifier,
    make_batch,
    pad,
    texts,
    tiny_lstm,
    translator,
)
from torch import Tensor, nn

from minitx.batch import Batch
from minitx.nn.baselines.lstm import LstmEncoder, mirror, mirrored, run_lstm

LENGTHS, TARGET_LENGTHS = [11, 3, 17], [5, 2, 7]
SOURCES, TARGETS = texts(LENGTHS, SRC_VOCAB), texts(TARGET_LENGTHS, TGT_VOCAB, seed=2)
VARIANTS: list[Any] = [
    pytest.param({}, id="default"),
    pytest.param({"n_layers": 1, "n_decoder_layers": 3}, id="deep-decoder"),
    pytest.param({"hidden": None, "tie_embeddings": False}, id="untied"),
]


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


def torch_lstm(encoder: LstmEncoder) -> nn.LSTM:
    """torch's module of both directions, with the same weights."""
    first = encoder.layers[0].ahead
    n_layers = len(encoder.layers)
    lstm = nn.LSTM(first.input_size, first.hidden_size, n_layers, batch_first=True, bidirectional=True).double()
    for i, layer in enumerate(encoder.layers):
        for half, suffix in ((layer.ahead, ""), (layer.back, "_reverse")):
            for name, weight in half.named_parameters():
                getattr(lstm, name.replace("_l0", f"_l{i}{suffix}")).data.copy_(weight)
    return lstm


@pytest.mark.parametrize("n_layers", [1, 3])
@pytest.mark.parametrize("first_only", [False, True])
def test_encoder_equals_torch_row_by_row(n_layers: int, first_only: bool) -> None:
    """Outputs and gradients; with first_only h_n, the last states of both directions."""
    torch.manual_seed(0)
    encoder = LstmEncoder(tiny_lstm(n_layers=n_layers)).double()
    lstm = torch_lstm(encoder)
    _, mask = pad(SOURCES, 19)
    tokens = torch.randn(3, 19, 12, dtype=torch.float64)
    ours = encoder(tokens, mask, first_only=first_only)
    assert ours.shape == (3, 1 if first_only else 19, 12)
    for row, n in enumerate(LENGTHS):
        states, (h_n, _) = lstm(tokens[row : row + 1, :n] * math.sqrt(12))
        wanted = encoder.output(torch.cat([h_n[-2], h_n[-1]], dim=-1)[:, None] if first_only else states)
        close(ours[row, : wanted.shape[1]], wanted[0])
        close(encoder(tokens[row : row + 1, :n], first_only=first_only), wanted)  # nothing padded, and no mask
        close(gradient(encoder.layers[0].back, ours[row, : wanted.shape[1]]), gradient_of_first_back(lstm, wanted[0]))


def gradient(half: nn.LSTM, states: Tensor) -> Tensor:
    return torch.autograd.grad(weighed(states), half.weight_ih_l0, retain_graph=True)[0]


def gradient_of_first_back(lstm: nn.LSTM, states: Tensor) -> Tensor:
    weight = lstm.weight_ih_l0_reverse
    assert isinstance(weight, Tensor)
    return torch.autograd.grad(weighed(states), weight)[0]


def weighed(states: Tensor) -> Tensor:
    return (states * torch.linspace(-1, 2, states.numel(), dtype=states.dtype).view(states.shape)).sum()


def test_a_mirrored_text_ends_where_it_began() -> None:
    _, mask = pad([[5] * 4, [5], [], [5] * 3], 5)
    assert mirror(mask).tolist() == [[3, 2, 1, 0, 4], [0, 1, 2, 3, 4], [0, 1, 2, 3, 4], [2, 1, 0, 3, 4]]
    x = torch.randn(4, 5, 3)
    once = mirrored(x, mirror(mask))
    assert torch.equal(once[0], x[0, [3, 2, 1, 0, 4]]) and torch.equal(once[3], x[3, [2, 1, 0, 3, 4]])
    assert torch.equal(mirrored(once, mirror(mask)), x) and torch.equal(mirrored(x, None)[1], x[1, [4, 3, 2, 1, 0]])


@pytest.mark.parametrize("pooling", ["last", "mean", "max", "attention", "additive"])
def test_classifier_ignores_padding_batching_and_order(pooling: str) -> None:
    model = classifier(tiny_lstm(pooling=pooling))
    together = model(make_batch(SOURCES))
    assert together.shape == (3, N_CLASSES)
    close(model(make_batch(SOURCES, extra=7)), together)
    close(model(make_batch(SOURCES[::-1])), together.flip(0))
    close(torch.cat([model(make_batch([source])) for source in SOURCES]), together)


@pytest.mark.parametrize("pooling", ["last", "max", "additive"])
def test_a_row_without_a_real_token_stays_finite(pooling: str) -> None:
    model = classifier(tiny_lstm(pooling=pooling))
    logits = model(make_batch([SOURCES[0], []]))
    close(logits[0], model(make_batch(SOURCES[:1]))[0])
    logits.square().sum().backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("changes", VARIANTS)
def test_translator_ignores_padding_batching_and_order(changes: dict[str, Any]) -> None:
    model = translator(tiny_lstm(**changes))
    together = model(make_batch(SOURCES, TARGETS))
    assert together.shape == (sum(TARGET_LENGTHS) + 3, TGT_VOCAB)
    close(model(make_batch(SOURCES, TARGETS, extra=7)), together)
    alone = [model(make_batch([source], [target])) for source, target in zip(SOURCES, TARGETS, strict=True)]
    close(torch.cat(alone), together)
    close(model(make_batch(SOURCES[::-1], TARGETS[::-1])), torch.cat(alone[::-1]))


def test_decoder_equals_a_loop_of_torch_cells() -> None:
    """By the formulas: LSTM cells, v . tanh(W h + b + U m), softmax over real tokens, tanh(W [h; context])."""
    model = translator(tiny_lstm(n_decoder_layers=2))
    batch = make_batch(SOURCES, TARGETS)
    assert batch.tgt_in is not None
    decoder: Any = model.decoder
    memory = model.encode(batch.src, batch.src_mask)
    ours = model.decode(batch.tgt_in, memory, batch.src_mask)
    for row, n in enumerate(LENGTHS):
        real = memory[row, :n]
        first = torch.tanh(decoder.first(real.mean(0)))
        states = [(first[:7], torch.zeros(7, dtype=torch.float64)), (first[7:], torch.zeros(7, dtype=torch.float64))]
        for t, token in enumerate(batch.tgt_in[row].tolist()[: TARGET_LENGTHS[row] + 1]):
            assert model.tgt_tokens is not None
            x = model.tgt_tokens.weight[token] * math.sqrt(12)
            for i, layer in enumerate(decoder.layers):
                states[i] = cell(layer, x, *states[i])
                x = states[i][0]
            attention = decoder.attention
            asked = attention.query.weight @ x + attention.query.bias
            scores = torch.stack([attention.v @ torch.tanh(asked + attention.key.weight @ m) for m in real])
            context = scores.softmax(0) @ real
            close(ours[row, t], torch.tanh(decoder.output(torch.cat([x, context]))))


def cell(layer: nn.LSTM, x: Tensor, h: Tensor, c: Tensor) -> tuple[Tensor, Tensor]:
    """One step of Hochreiter & Schmidhuber's cell with a forget gate, gates in torch's order: in, forget, new, out."""
    gates = layer.weight_ih_l0 @ x + layer.bias_ih_l0 + layer.weight_hh_l0 @ h + layer.bias_hh_l0
    i, f, g, o = gates.chunk(4)
    c = f.sigmoid() * c + i.sigmoid() * g.tanh()
    return o.sigmoid() * c.tanh(), c


def test_gradients_of_a_batch_are_the_sum_of_its_rows() -> None:
    model = translator(tiny_lstm())

    def gradients(batch: Batch) -> list[Tensor]:
        loss = torch.nn.functional.cross_entropy(model(batch), batch.targets, reduction="sum")
        return list(torch.autograd.grad(loss, list(model.parameters())))

    together = gradients(make_batch(SOURCES, TARGETS, extra=5))
    rows = [gradients(make_batch([s], [t])) for s, t in zip(SOURCES, TARGETS, strict=True)]
    for whole, *parts in zip(together, *rows, strict=True):
        torch.testing.assert_close(whole, torch.stack(parts).sum(0), rtol=0, atol=1e-9)


def test_the_future_never_leaks() -> None:
    model = translator(tiny_lstm())
    batch = make_batch(SOURCES[:1], texts([13], TGT_VOCAB))
    assert batch.tgt_in is not None
    memory = model.encode(batch.src)
    changed = batch.tgt_in.clone()
    changed[:, 8] = 7 + (changed[:, 8] == 7)
    before, after = model.decode(batch.tgt_in, memory), model.decode(changed, memory)
    assert torch.equal(after[:, :8], before[:, :8])
    assert not torch.equal(after[:, 8], before[:, 8])


@pytest.mark.parametrize("changes", VARIANTS)
@pytest.mark.parametrize("beams", [1, 3])
def test_decoding_with_a_cache_equals_the_full_pass_while_rows_leave(changes: dict[str, Any], beams: int) -> None:
    """Also with a memory that has one row for all beams of a source, and with beams that change places."""
    model = translator(tiny_lstm(**changes))
    batch = make_batch(SOURCES, texts([11, 11, 11], TGT_VOCAB))
    mask = batch.src_mask
    assert batch.tgt_in is not None and mask is not None
    fed = torch.cat([batch.tgt_in.roll(k, 1) for k in range(beams)], dim=1).view(3 * beams, 12)
    sources, rows = torch.arange(3), torch.arange(3 * beams)
    with torch.no_grad():
        memory = model.encode(batch.src, mask)
        full = model.decode(fed, memory.repeat_interleave(beams, 0), mask.repeat_interleave(beams, 0))
        close(model.decode(fed, memory, mask), full)
        cache = model.new_cache(memory)
        for start, end in ((0, 1), (1, 2), (2, 5), (5, 6), (6, 12)):
            if start == 1:  # the last beam of each source becomes its first
                rows = rows.view(3, beams).roll(1, 1).flatten()
                cache.reorder(rows)
            if start == 5:
                sources, kept = torch.tensor([2, 0]), rows.view(3, beams)[[2, 0]].flatten()
                cache.select(torch.arange(3 * beams).view(3, beams)[[2, 0]].flatten(), sources)
                rows = kept
            step = model.decode(fed[rows, start:end], memory[sources], mask[sources], cache)
            close(step, full[rows, start:end])
            assert cache.length == end


def test_dropout_acts_in_training_only() -> None:
    model, batch = translator(tiny_lstm(dropout=0.3)), make_batch(SOURCES, TARGETS)
    assert not torch.equal(model(batch), model(batch))
    model.eval()
    assert torch.equal(model(batch), model(batch))


def test_nothing_waits_for_the_device() -> None:
    # Tensors on "meta" have no values: whatever asked for one (.item(), .cpu(), nonzero) would raise.
    meta = torch.device("meta")
    batch = make_batch(SOURCES, TARGETS).to(meta)
    assert translator(tiny_lstm()).to(meta)(batch).shape == (batch.n_targets, TGT_VOCAB)
    for pooling in ("last", "additive"):
        assert classifier(tiny_lstm(pooling=pooling)).to(meta)(make_batch(SOURCES).to(meta)).shape == (3, N_CLASSES)


def test_bfloat16_autocast_stays_near_float32() -> None:
    """And float32, which oneDNN computes, near float64, which it does not."""
    model, batch = translator(tiny_lstm()), make_batch(SOURCES, TARGETS)
    precise = model(batch)
    model = model.float()
    exact = model(batch)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(batch)
    rounded.float().sum().backward()
    assert (exact - precise).detach().abs().max() < 1e-5
    # Logits are of order 1; a state passes some twenty steps, each with a rounding of relative size 2^-9.
    assert (rounded.float() - exact).detach().abs().max() < 20 * 2**-9


@pytest.mark.gpu
def test_autocast_on_a_gpu_is_no_half_precision() -> None:
    """Outputs and gradients under bf16 autocast are those of float32: small gradients must not be lost in float16."""
    torch.manual_seed(0)
    layer, x = nn.LSTM(11, 7, batch_first=True).cuda(), torch.randn(3, 13, 11, device="cuda")
    found = []
    for enabled in (False, True):
        layer.zero_grad()
        with torch.autocast("cuda", torch.bfloat16, enabled=enabled):
            y, _ = run_lstm(layer, x)
        (1e-8 * y.sum()).backward()
        assert y.dtype == torch.float32
        found.append([parameter.grad.clone() for parameter in layer.parameters() if parameter.grad is not None])
    for plain, cast in zip(*found, strict=True):
        assert plain.abs().max() > 0
        torch.testing.assert_close(cast, plain)
