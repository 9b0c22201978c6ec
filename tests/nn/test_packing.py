"""Backend varlen: packed texts give what padded ones give; a batch without packing is computed as with auto."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest
import torch
from nn_samples import N_CLASSES, SRC_VOCAB, TGT_VOCAB, classifier, make_batch, packed, pad, texts, tiny, translator
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from varlen_reference import Kernel, varlen_reference

from minitx.batch import Batch
from minitx.config import ConfigError, TransformerConfig
from minitx.nn.attention import kernels
from minitx.nn.attention.kernels import attend_packed
from minitx.nn.attention.masks import AttentionSpan
from minitx.nn.attention.multi_head import MultiHeadAttention
from minitx.nn.attention.packing import Packing, source_packing
from minitx.nn.build import check_backend
from minitx.nn.capture import attentions, capture_attention
from minitx.nn.classifier import Classifier
from minitx.nn.translator import Translator

F64 = torch.float64
BATCHES: list[Any] = [
    pytest.param(([11, 3, 37, 2], [5, 2, 7, 13]), id="all-lengths-differ"),
    pytest.param(([7, 7, 7], [4, 4, 4]), id="nothing-padded"),
    pytest.param(([13], [5]), id="one-text"),
]
VARIANTS: list[Any] = [
    pytest.param({}, id="default"),
    pytest.param({"norm": "post", "activation": "gelu"}, id="post-gelu"),
    pytest.param({"position": "rotary"}, id="rotary"),
    pytest.param({"position": "learned", "norm": "post"}, id="learned-post"),
    pytest.param({"position": "none", "attention": {"heads": "grouped"}}, id="none-grouped"),
    pytest.param({"position": "rotary", "attention": {"heads": "grouped"}}, id="rotary-grouped"),
    pytest.param({"attention": {"span": "window", "window": 2}}, id="window"),
    pytest.param({"position": "rotary", "attention": {"span": "window", "window": 41}}, id="window-beyond-all"),
]


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    """The reference in the place of torch's kernel, which needs a GPU."""
    stand_in = Kernel()
    monkeypatch.setattr(kernels, "varlen_attn", stand_in)
    return stand_in


def varlen(**changes: Any) -> TransformerConfig:
    """Three heads of width 8, backend varlen."""
    return tiny(head_dim=8, **{**changes, "attention": {"backend": "varlen", **changes.get("attention", {})}})


def batch_of(lengths: tuple[list[int], list[int]], translation: bool, extra: int = 0) -> Batch:
    source, target = texts(lengths[0], SRC_VOCAB), texts(lengths[1], TGT_VOCAB, seed=2)
    return make_batch(source, target if translation else None, extra)


def logits_and_gradients(model: nn.Module, batch: Batch) -> list[Tensor]:
    model.zero_grad()
    logits = model(batch)
    (logits * torch.linspace(-1, 2, logits.numel(), dtype=logits.dtype).view(logits.shape)).sum().backward()
    return [logits, *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def assert_same(model: Classifier | Translator, batch: Batch, kernel: Kernel) -> None:
    """Packed equals padded, and was packed indeed: one call of the kernel per attention, no token too many."""
    padded = logits_and_gradients(model, batch)
    assert not kernel.calls
    seen: list[torch.Size] = []
    for part in model.modules():
        if isinstance(part, nn.LayerNorm):
            part.register_forward_hook(lambda _m, args, _y: seen.append(args[0].shape))
    together = logits_and_gradients(model, packed(batch))
    assert len(together) == len(padded)
    for a, b in zip(together, padded, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)
    assert len(kernel.calls) == sum(isinstance(part, MultiHeadAttention) for part in model.modules())
    n_src = batch.src.numel() if batch.src_mask is None else int(batch.src_mask.sum())
    wanted = {(1, n_src, 12)} | ({(1, batch.n_targets, 12)} if batch.tgt_in is not None else {(batch.n_rows, 1, 12)})
    assert {tuple(shape) for shape in seen} <= wanted


@pytest.mark.parametrize("lengths", BATCHES)
@pytest.mark.parametrize("changes", VARIANTS)
@pytest.mark.parametrize("pooling", ["mean", "attention", "cls"])
def test_classifier(changes: dict[str, Any], pooling: str, lengths: Any, kernel: Kernel) -> None:
    if pooling == "cls" and "span" in changes.get("attention", {}):
        pytest.skip("refused by the configuration")
    assert_same(classifier(varlen(**changes, pooling=pooling)), batch_of(lengths, False), kernel)


@pytest.mark.parametrize("lengths", BATCHES)
@pytest.mark.parametrize("changes", VARIANTS)
def test_translator(changes: dict[str, Any], lengths: Any, kernel: Kernel) -> None:
    assert_same(translator(varlen(**changes)), batch_of(lengths, True), kernel)
    window = (changes.get("attention", {}).get("window", -1),) * 2
    assert kernel.windows == [window] * 2 + [(window[0], 0), (-1, -1)] * 2


def test_needless_padding_and_shared_tables_change_nothing(kernel: Kernel) -> None:
    batch = batch_of(([11, 3, 37], [5, 2, 7]), True, extra=9)
    assert_same(translator(varlen(tie_embeddings=False)), batch, kernel)
    kernel.calls.clear()
    assert_same(translator(varlen(), joint=True), batch, kernel)


def test_gates_act_alike(kernel: Kernel) -> None:
    model = translator(varlen())
    for stack in attentions(model).values():
        for attention in stack:
            attention.set_gates(torch.tensor([0.0, 0.5, 2.0], dtype=F64))
    assert_same(model, batch_of(([11, 3, 37], [5, 2, 7]), True), kernel)


def test_dropout_acts_on_packed_texts_in_training_only(kernel: Kernel) -> None:
    model, batch = translator(varlen(dropout=0.3)), batch_of(([11, 3, 37], [5, 2, 7]), True)
    assert not torch.equal(model(packed(batch)), model(packed(batch)))
    model.eval()
    torch.testing.assert_close(model(packed(batch)), model(batch), rtol=0, atol=1e-10)


# ----------------------------------------------------------------------------------------------- where it is not packed


@pytest.mark.parametrize("attention", [{}, {"span": "window", "window": 2}], ids=["global", "window"])
def test_a_batch_without_packing_is_computed_as_with_auto(attention: dict[str, Any], kernel: Kernel) -> None:
    batch = batch_of(([11, 3, 37], [5, 2, 7]), True)
    ours, plain = (translator(tiny(head_dim=8, attention={**attention, "backend": b})) for b in ("varlen", "auto"))
    assert torch.equal(ours(batch), plain(batch))
    assert torch.equal(plain(packed(batch)), plain(batch)), "and other backends do not pack"
    assert not kernel.calls


def test_decoding_with_a_cache_follows_a_packed_training_pass(kernel: Kernel) -> None:
    model, batch = translator(varlen(position="rotary")), batch_of(([11, 3], [6, 6]), True)
    logits = model(packed(batch))
    assert batch.tgt_in is not None
    with torch.no_grad():
        memory = model.encode(batch.src, batch.src_mask)
        cache = model.new_cache(memory)
        steps = [model.decode(batch.tgt_in[:, t : t + 1], memory, batch.src_mask, cache) for t in range(7)]
    torch.testing.assert_close(model.project(torch.cat(steps, 1)).flatten(0, 1), logits, rtol=0, atol=1e-10)


def test_capture_shows_the_padded_square_of_a_packed_batch(kernel: Kernel) -> None:
    model, batch = translator(varlen()), batch_of(([11, 3, 37], [5, 2, 7]), True)
    fast = model(packed(batch))
    kernel.calls.clear()
    with capture_attention(model) as maps:
        torch.testing.assert_close(model(packed(batch)), fast, rtol=0, atol=1e-10)
    assert not kernel.calls
    assert maps.encoder is not None and maps.encoder.shape == (2, 3, 3, 37, 37)
    attentions(model)["cross"][1].recorder = lambda _reading: None
    model(packed(batch))
    assert not kernel.calls, "one that records is enough"


def test_half_a_packing_is_none() -> None:
    batch = packed(batch_of(([11, 3], [5, 2]), True))
    assert source_packing(replace(batch, src_offsets=None)) is None
    assert source_packing(replace(batch, src_index=None)) is None


# --------------------------------------------------------------------------------------------------------------- pieces


def test_pack_unpack_first_and_place() -> None:
    ids, real = pad([[7, 8, 9], [5], [6, 7]], width=5)
    batch = packed(Batch(rows=torch.arange(3), src=ids, src_mask=real, targets=torch.arange(3)))
    packing = source_packing(batch)
    assert packing is not None and packing.n_tokens == 6
    assert packing.pack(ids).tolist() == [[7, 8, 9, 5, 6, 7]]
    assert packing.place.tolist() == [0, 1, 2, 0, 0, 1]
    states = torch.randn(1, 6, 2)
    padded = packing.unpack(states)
    assert padded.shape == (3, 5, 2) and torch.equal(padded[real], states[0]) and not padded[~real].any()
    assert torch.equal(packing.first(states)[:, 0], states[0, [0, 3, 4]])


def test_masks_of_packed_texts() -> None:
    side = Packing(torch.arange(6), torch.tensor([0, 6]), 1, 6)
    windows = {}
    for span, causal in itertools.product(("global", "window"), (False, True)):
        mask = AttentionSpan(span, 3, causal).packed(side, side)  # type: ignore[arg-type]
        assert mask.packed is not None and mask.n_keys == 6
        windows[span, causal] = mask.packed.window
    assert windows == {
        ("global", False): (-1, -1), ("global", True): (-1, 0), ("window", False): (3, 3), ("window", True): (3, 0),
    }  # fmt: skip
    with pytest.raises(ValueError, match="cannot be packed"):
        AttentionSpan("sentence").packed(side, side)


def test_the_reference_is_attention_within_each_text() -> None:
    torch.manual_seed(0)
    ends = torch.tensor([0, 3, 8], dtype=torch.int32)
    q, k, v = torch.randn(3, 8, 2, 5, dtype=F64).unbind(0)
    y = varlen_reference(q, k, v, ends, ends, 5, 5, window_size=(1, 0))
    for i, (lowest, highest) in enumerate([(0, 0), (0, 1), (1, 2), (3, 3), (3, 4), (4, 5), (5, 6), (6, 7)]):
        for head in range(2):
            weights = (k[lowest : highest + 1, head] @ q[i, head] / 5**0.5).softmax(0)
            torch.testing.assert_close(y[i, head], weights @ v[lowest : highest + 1, head])


@pytest.mark.parametrize("changes", VARIANTS)
def test_the_kernel_gets_16_bits_under_autocast(changes: dict[str, Any], kernel: Kernel) -> None:
    model, batch = translator(varlen(**changes)).float(), batch_of(([11, 3, 37], [5, 2, 7]), True)
    exact = model(batch)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = model(packed(batch))
    rounded.float().sum().backward()
    assert {x.dtype for call in kernel.calls for x in call[:3]} == {torch.bfloat16}
    # As in test_models.py: twenty roundings of relative size 2^-9 on logits of order 1.
    assert (rounded.float() - exact).detach().abs().max() < 2 * 20 * 2**-9


@pytest.mark.parametrize("changes", VARIANTS)
def test_nothing_waits_for_the_device_and_torch_takes_our_call(changes: dict[str, Any]) -> None:
    # On "meta" torch's own kernel has shapes and no values: this checks our call, and that nobody asks for a value.
    batch = packed(batch_of(([11, 3, 37], [5, 2, 7]), True)).to(torch.device("meta"))
    model = translator(varlen(**changes)).to("meta")
    logits = model(batch)
    assert logits.shape == (batch.n_targets, TGT_VOCAB)
    logits.sum().backward()
    for pooling in ("mean", "attention"):
        assert classifier(varlen(**changes, pooling=pooling)).to("meta")(batch).shape == (3, N_CLASSES)


@pytest.mark.parametrize("changes", [VARIANTS[2], VARIANTS[3], VARIANTS[6]])
def test_packed_compiles_into_one_graph_for_all_lengths(
    changes: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "varlen_attn", varlen_reference)
    torch.compiler.reset()
    model, counter = translator(varlen(**changes)), CompileCounter()
    compiled = torch.compile(model, backend=counter, fullgraph=True, dynamic=True)
    for lengths in (([11, 3, 37], [5, 2, 7]), ([23, 2, 5, 7], [3, 11, 13, 2]), ([6, 4, 4], [9, 8, 2])):
        batch = packed(batch_of(lengths, True))
        torch.testing.assert_close(compiled(batch), model(batch), rtol=0, atol=1e-10)
    assert counter.frame_count == 1


def test_backend_is_checked_against_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (8, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "Tesla T4")
    check_backend(tiny(), "cpu", "fp32")
    check_backend(varlen(), "cuda", "bf16")
    why = r", because model.attention.backend is varlen; use model.attention.backend=auto$"
    with pytest.raises(ConfigError, match=r"^trainer.device \(cpu\) must be cuda" + why):
        check_backend(varlen(), "cpu", "bf16")
    with pytest.raises(ConfigError, match=r"^trainer.precision \(fp32\) must be bf16" + why):
        check_backend(varlen(), "cuda", "fp32")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    with pytest.raises(
        ConfigError, match=r"^trainer.device \(Tesla T4\) must be of the Ampere generation or newer" + why
    ):
        check_backend(varlen(), "cuda", "bf16")


# ------------------------------------------------------------------------------------------------------------ on a GPU


def side_of(lengths: list[int]) -> Packing:
    ends = torch.tensor([0, *itertools.accumulate(lengths)], dtype=torch.int32, device="cuda")
    return Packing(torch.arange(sum(lengths), device="cuda"), ends, len(lengths), max(lengths))


@pytest.mark.gpu
@pytest.mark.parametrize("head_dim", [8, 64, 256])
@pytest.mark.parametrize(
    "reach",
    [
        AttentionSpan(),
        AttentionSpan(causal=True),
        AttentionSpan("window", 3),
        AttentionSpan("window", 3, causal=True),
        AttentionSpan("window", 999),
    ],
    ids=str,
)
def test_the_kernel_on_a_gpu_is_the_reference(reach: AttentionSpan, head_dim: int) -> None:
    side = side_of([11, 3, 137, 1])
    assert_kernel_is_reference(reach, side, side, head_dim)


@pytest.mark.gpu
def test_cross_attention_on_a_gpu_is_the_reference() -> None:
    assert_kernel_is_reference(AttentionSpan(), side_of([11, 3, 137, 1]), side_of([2, 71, 5, 13]), 64)


def assert_kernel_is_reference(reach: AttentionSpan, queries: Packing, keys: Packing, head_dim: int) -> None:
    """Forward and backward in bf16 against float32 on the same numbers; q, k and v are views, as in the model."""
    torch.manual_seed(0)
    mask = reach.packed(queries, keys).packed
    assert mask is not None
    flat = [torch.randn(1, side.n_tokens, 2, 3 * head_dim, device="cuda") for side in (queries, keys, keys)]
    results = []
    for dtype in (torch.bfloat16, torch.float32):
        leaves = [x.bfloat16().to(dtype).requires_grad_() for x in flat]
        q, k, v = (x.transpose(1, 2)[..., :head_dim] for x in leaves)
        if dtype == torch.bfloat16:
            y = attend_packed(q, k, v, mask)[0].transpose(0, 1)
        else:
            lengths = queries.longest, keys.longest
            heads = [x[0].transpose(0, 1) for x in (q, k, v)]
            y = varlen_reference(*heads, queries.offsets, keys.offsets, *lengths, window_size=mask.window)
        direction = torch.linspace(-1, 1, y.numel(), device="cuda").view(y.shape).bfloat16().to(dtype)
        results.append([y, *torch.autograd.grad((y * direction).sum(), leaves)])
    for ours, exact in zip(*results, strict=True):
        # Weights and products are rounded to 2^-9 each, on values of at most the largest one.
        assert (ours.float() - exact).abs().max() < 2**-6 * exact.abs().max()


@pytest.mark.gpu
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "compiled"])
@pytest.mark.parametrize("changes", VARIANTS)
def test_a_packed_model_on_a_gpu_is_the_padded_one(changes: dict[str, Any], compiled: bool) -> None:
    torch.compiler.reset()
    model = translator(varlen(**changes)).float().cuda()
    run = torch.compile(model, dynamic=True) if compiled else model
    batch = batch_of(([11, 3, 37, 2], [5, 2, 7, 13]), True)
    results = []
    for one, call in ((packed(batch), run), (batch, model)):
        model.zero_grad()
        with torch.autocast("cuda", torch.bfloat16):
            logits = call(one.to(torch.device("cuda")))
        torch.nn.functional.cross_entropy(logits.float(), one.targets.cuda()).backward()
        results.append(
            (logits.float(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]))
        )
    (logits, gradient), (padded, padded_gradient) = results
    assert (logits - padded).detach().abs().max() < 2 * 20 * 2**-9
    assert (gradient - padded_gradient).norm() < 0.05 * padded_gradient.norm()
