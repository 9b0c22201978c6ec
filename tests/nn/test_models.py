"""Whole models: what must not change a result does not, in every variant that matters."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from nn_samples import N_CLASSES, SRC_VOCAB, TGT_VOCAB, classifier, make_batch, pad, texts, tiny, translator
from torch import Tensor

from minitx.batch import Batch
from minitx.config import TransformerConfig

VARIANTS: list[Any] = [
    pytest.param({}, id="default"),
    pytest.param({"norm": "post", "activation": "gelu"}, id="post-gelu"),
    pytest.param({"position": "rotary"}, id="rotary"),
    pytest.param({"position": "learned", "head_dim": 5}, id="learned-odd-width"),
    pytest.param({"position": "none", "attention": {"heads": "grouped", "backend": "naive"}}, id="grouped-naive"),
    pytest.param({"attention": {"span": "window", "window": 2}}, id="window"),
    pytest.param({"attention": {"span": "sentence"}}, id="sentence"),
]
LENGTHS, TARGET_LENGTHS = [11, 3, 37], [5, 2, 7]
SOURCES, TARGETS = texts(LENGTHS, SRC_VOCAB), texts(TARGET_LENGTHS, TGT_VOCAB, seed=2)


def close(a: Tensor, b: Tensor) -> None:
    torch.testing.assert_close(a, b, rtol=0, atol=1e-11)


@pytest.mark.parametrize("changes", VARIANTS)
@pytest.mark.parametrize("pooling", ["mean", "attention"])
def test_classifier_ignores_padding_batching_and_order(changes: dict[str, Any], pooling: str) -> None:
    check_classifier(tiny(**changes, pooling=pooling))


def test_classifier_reads_its_first_token() -> None:
    check_classifier(tiny(pooling="cls"))


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, id="default"),
        pytest.param({"norm": "post", "activation": "gelu"}, id="post-gelu"),
        pytest.param({"position": "rotary", "n_layers": 1}, id="rotary-one-layer"),
        pytest.param({"position": "learned", "attention": {"heads": "grouped"}}, id="learned-grouped"),
    ],
)
def test_the_first_position_alone_is_what_the_whole_gives(changes: dict[str, Any]) -> None:
    """The last layer's short cut under cls pooling: output, gradients, and fewer positions computed."""
    encoder = classifier(tiny(**changes)).encoder
    ids, mask = pad(SOURCES)
    tokens = torch.randn(*ids.shape, 12, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    seen: list[int] = []
    last = encoder._layers()[-1].feed_forward
    last.register_forward_hook(lambda _m, args, _y: seen.append(args[0].shape[1]))
    results = []
    for first_only in (True, False):
        encoder.zero_grad()
        y = encoder(tokens, mask, first_only=first_only)[:, :1]
        (y * torch.linspace(-1, 2, y.numel(), dtype=y.dtype).view(y.shape)).sum().backward()
        results.append([y, *(p.grad.clone() for p in encoder.parameters() if p.grad is not None)])
    for a, b in zip(*results, strict=True):
        close(a, b)
    assert seen == [1, ids.shape[1]]


def check_classifier(config: TransformerConfig) -> None:
    model = classifier(config)
    together = model(make_batch(SOURCES))
    assert together.shape == (3, N_CLASSES)
    close(model(make_batch(SOURCES, extra=7)), together)
    close(model(make_batch(SOURCES[::-1])), together.flip(0))
    close(torch.cat([model(make_batch([source])) for source in SOURCES]), together)


@pytest.mark.parametrize("changes", VARIANTS)
def test_translator_ignores_padding_batching_and_order(changes: dict[str, Any]) -> None:
    model = translator(tiny(**changes))
    together = model(make_batch(SOURCES, TARGETS))
    assert together.shape == (sum(TARGET_LENGTHS) + 3, TGT_VOCAB)
    close(model(make_batch(SOURCES, TARGETS, extra=7)), together)
    alone = [model(make_batch([source], [target])) for source, target in zip(SOURCES, TARGETS, strict=True)]
    close(torch.cat(alone), together)
    close(model(make_batch(SOURCES[::-1], TARGETS[::-1])), torch.cat(alone[::-1]))


def test_gradients_of_a_batch_are_the_sum_of_its_rows() -> None:
    model = translator(tiny())

    def gradient(batch: Batch) -> list[Tensor]:
        loss = torch.nn.functional.cross_entropy(model(batch), batch.targets, reduction="sum")
        return list(torch.autograd.grad(loss, list(model.parameters())))

    together = gradient(make_batch(SOURCES, TARGETS, extra=5))
    rows = [gradient(make_batch([s], [t])) for s, t in zip(SOURCES, TARGETS, strict=True)]
    for whole, *parts in zip(together, *rows, strict=True):
        torch.testing.assert_close(whole, torch.stack(parts).sum(0), rtol=0, atol=1e-9)


@pytest.mark.parametrize("changes", VARIANTS)
def test_the_future_never_leaks(changes: dict[str, Any]) -> None:
    model = translator(tiny(**changes))
    batch = make_batch(SOURCES[:1], [texts([37], TGT_VOCAB)[0]])
    assert batch.tgt_in is not None
    memory = model.encode(batch.src, sentence=batch.sentence)
    before = model.decode(batch.tgt_in, memory)
    changed = batch.tgt_in.clone()
    changed[:, 20] = 7 + (changed[:, 20] == 7)
    after = model.decode(changed, memory)
    assert torch.equal(after[:, :20], before[:, :20])
    assert not torch.equal(after[:, 20], before[:, 20])


@pytest.mark.parametrize("changes", VARIANTS)
def test_decoding_with_a_cache_equals_the_full_pass_while_rows_leave(changes: dict[str, Any]) -> None:
    model = translator(tiny(**changes))
    batch = make_batch(SOURCES, texts([19, 19, 19], TGT_VOCAB))
    assert batch.tgt_in is not None and batch.src_mask is not None
    with torch.no_grad():
        memory = model.encode(batch.src, batch.src_mask, batch.sentence)
        full = model.decode(batch.tgt_in, memory, batch.src_mask)
        cache, rows = model.new_cache(memory), torch.arange(3)
        for t in range(20):
            if t == 9:
                rows = torch.tensor([2, 0])
                cache.select(rows)
            step = model.decode(batch.tgt_in[rows, t : t + 1], memory[rows], batch.src_mask[rows], cache)
            close(step[:, 0], full[rows, t])
            assert cache.length == t + 1


def test_cache_never_reads_the_memory_again() -> None:
    model = translator(tiny())
    batch = make_batch(SOURCES[:1], TARGETS[:1])
    assert batch.tgt_in is not None
    with torch.no_grad():
        memory = model.encode(batch.src)
        cache = model.new_cache(memory)
        first = model.decode(batch.tgt_in, torch.full_like(memory, torch.nan), cache=cache)
        close(first, model.decode(batch.tgt_in, memory))


@pytest.mark.parametrize("span", ["global", "window", "sentence"])
def test_a_row_without_a_real_token_stays_finite(span: str) -> None:
    for pooling in ("mean", "attention"):
        model = classifier(tiny(pooling=pooling, attention={"span": span, "window": 2}))
        batch = make_batch([SOURCES[0], []])
        logits = model(batch)
        close(logits[0], model(make_batch(SOURCES[:1]))[0])
        close(logits[1], model.head.bias)
        logits.square().sum().backward()
        assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


def test_sentences_stay_apart_in_every_layer() -> None:
    model = translator(tiny(attention={"span": "sentence"}))
    batch = make_batch(SOURCES[:1], TARGETS[:1])  # sentences of three tokens
    tokens = model.src_tokens(batch.src).detach().requires_grad_()
    states = model.encoder(tokens, sentence=batch.sentence)
    (gradient,) = torch.autograd.grad(states[0, 4, 0], tokens)  # not the sum, which a norm makes constant
    assert gradient[0].abs().sum(-1).nonzero().flatten().tolist() == [3, 4, 5]


@pytest.mark.parametrize("joint", [False, True], ids=["apart", "joint"])
@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
def test_tied_tables_are_one(joint: bool, tied: bool) -> None:
    model = translator(tiny(tie_embeddings=tied), joint=joint)
    assert (model.output is None) == tied
    assert (model.tgt_tokens is None) == (tied and joint)
    hidden = torch.randn(2, 12, dtype=torch.float64)
    table = model.output or model.tgt_tokens or model.src_tokens
    close(model.project(hidden), hidden @ table.weight.T)
    pointers = [tensor.data_ptr() for tensor in model.state_dict().values()]
    assert len(set(pointers)) == len(pointers), "no weight has two names, so safetensors can store it"


@pytest.mark.parametrize("changes", VARIANTS)
def test_nothing_waits_for_the_device(changes: dict[str, Any]) -> None:
    # Tensors on "meta" have no values: whatever asked for one (.item(), bool(), nonzero) would raise.
    meta = torch.device("meta")
    batch = make_batch(SOURCES, TARGETS).to(meta)
    logits = translator(tiny(**changes)).to(meta)(batch)
    assert logits.shape == (batch.n_targets, TGT_VOCAB)
    assert classifier(tiny(**changes)).to(meta)(make_batch(SOURCES).to(meta)).shape == (3, N_CLASSES)


@pytest.mark.parametrize("changes", [VARIANTS[2], VARIANTS[5]])
def test_compiles_into_one_graph(changes: dict[str, Any]) -> None:
    model = translator(tiny(**changes, dropout=0.1)).eval()
    batch = make_batch(SOURCES, TARGETS)
    compiled = torch.compile(model, backend="eager", fullgraph=True)
    close(compiled(batch), model(batch))
    model.train()
    assert compiled(batch).shape == (batch.n_targets, TGT_VOCAB)


def test_dropout_acts_in_training_only() -> None:
    model = classifier(tiny(dropout=0.3))
    batch = make_batch(SOURCES)
    assert not torch.equal(model(batch), model(batch))
    model.eval()
    assert torch.equal(model(batch), model(batch))


@pytest.mark.parametrize("changes", VARIANTS)
def test_bfloat16_autocast_stays_near_float32(changes: dict[str, Any]) -> None:
    model, batch = translator(tiny(**changes)).float(), make_batch(SOURCES, TARGETS)
    exact = model(batch)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(batch)
    rounded.float().sum().backward()
    # Logits are of order 1 and pass some twenty roundings of relative size 2^-9, which add up like a random walk.
    assert (rounded.float() - exact).detach().abs().max() < 2 * 20 * 2**-9
