"""Multi-head attention against loops, against torch's module, and against itself in its other form."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal
from unittest import mock

import pytest
import torch
from attention_reference import attend_by_loops, may_read, to_torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from minitx.nn.attention import kernels
from minitx.nn.attention import masks as window
from minitx.nn.attention.convert import grouped_to_split, split_to_grouped
from minitx.nn.attention.kernels import attend
from minitx.nn.attention.masks import Span
from minitx.nn.attention.multi_head import MultiHeadAttention
from minitx.nn.attention.positions import Positions

D, H, K = 7, 3, 5
F64 = torch.float64


@pytest.fixture(scope="module", autouse=True)
def plain_kernel_in_float64() -> Iterator[None]:
    """So that backend "auto" is the kernel with the written-out gradient here too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(kernels.LONGEST_PLAIN, F64, 64)
        yield


@dataclass(frozen=True)
class Case:
    """One drawn situation."""

    heads: Literal["split", "grouped"]
    backend: Literal["naive", "sdpa", "auto"]
    span: Literal["global", "window", "sentence"]
    window: int
    causal: bool
    cross: bool
    padded: bool
    gated: bool
    bias: bool
    n_rows: int
    n_queries: int
    n_keys: int
    min_block: int
    seed: int


cases = st.builds(
    Case,
    heads=st.sampled_from(["split", "grouped"]),
    backend=st.sampled_from(["naive", "sdpa", "auto"]),
    span=st.sampled_from(["global", "window", "sentence"]),
    window=st.integers(1, 3),
    causal=st.booleans(),
    cross=st.booleans(),
    padded=st.booleans(),
    gated=st.booleans(),
    bias=st.booleans(),
    n_rows=st.integers(1, 2),
    n_queries=st.integers(1, 7),
    n_keys=st.integers(1, 5),
    min_block=st.integers(1, 3),
    seed=st.integers(0, 99),
)


def make(case: Case) -> MultiHeadAttention:
    """The case's attention; cross-attention reads everything, as in a decoder."""
    span: Span = "global" if case.cross else case.span
    causal = case.causal and not case.cross
    attention = MultiHeadAttention(
        D, H, K, heads=case.heads, span=span, window=case.window, causal=causal, backend=case.backend, bias=case.bias
    )  # fmt: skip
    for name, parameter in attention.named_parameters():
        if name.endswith("bias"):
            nn.init.normal_(parameter)
    return attention.double()


@given(cases)
@settings(max_examples=60, deadline=None)
def test_outputs_and_gradients_equal_the_loops(case: Case) -> None:
    torch.manual_seed(case.seed)
    attention = make(case)
    x = torch.randn(case.n_rows, case.n_queries, D, dtype=F64, requires_grad=True)
    memory = torch.randn(case.n_rows, case.n_keys, D, dtype=F64, requires_grad=True) if case.cross else x
    n_keys = memory.shape[1]
    key_mask = torch.rand(case.n_rows, n_keys) < 0.6 if case.padded else None  # some rows lose every key
    sentence = torch.randint(0, 2, (case.n_rows, n_keys)).cumsum(1)
    gates = torch.randn(H, dtype=F64, requires_grad=True) if case.gated else None
    attention.set_gates(gates)

    with mock.patch.object(window, "MIN_BLOCK", case.min_block):
        actual = attention(x, memory if case.cross else None, key_mask, sentence)
    rule = may_read(
        attention.attention_span.span, case.window, attention.attention_span.causal, case.n_queries, n_keys,
        None if key_mask is None else key_mask.tolist(), sentence.tolist(),
    )  # fmt: skip
    expected = attend_by_loops(attention, x, memory, rule, None if gates is None else list(gates))

    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-10)
    leaves = [x, *attention.parameters(), *([memory] if case.cross else []), *([] if gates is None else [gates])]
    direction = torch.randn_like(actual)
    ours, theirs = (gradients((y * direction).sum(), leaves) for y in (actual, expected))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-10)


def gradients(loss: Tensor, leaves: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(loss, leaves, allow_unused=True, materialize_grads=True))


@pytest.mark.parametrize("heads", ["split", "grouped"])
@pytest.mark.parametrize("backend", ["naive", "sdpa", "auto"])
@pytest.mark.parametrize("cross", [False, True], ids=["self", "cross"])
@pytest.mark.parametrize("causal", [False, True], ids=["open", "causal"])
def test_equals_torch_module(heads: Any, backend: Any, cross: bool, causal: bool) -> None:
    torch.manual_seed(1)
    ours = MultiHeadAttention(15, 3, heads=heads, backend=backend, causal=causal and not cross).double()
    theirs = to_torch(ours)
    x = torch.randn(2, 7, 15, dtype=F64, requires_grad=True)
    memory = torch.randn(2, 11, 15, dtype=F64, requires_grad=True) if cross else x
    key_mask = torch.arange(memory.shape[1]) < torch.tensor([[4], [memory.shape[1]]])
    future = torch.ones(7, 7).triu(1).bool() if ours.attention_span.causal else None

    y = ours(x, memory if cross else None, key_mask)
    expected, _ = theirs(x, memory, memory, key_padding_mask=~key_mask, attn_mask=future, need_weights=False)

    torch.testing.assert_close(y, expected, rtol=0, atol=1e-12)
    direction = torch.randn_like(y)
    for leaf in {x, memory}:
        a, b = (torch.autograd.grad((out * direction).sum(), leaf, retain_graph=True)[0] for out in (y, expected))
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    y.backward(direction)
    expected.backward(direction)
    mine = grouped_to_split({name: p.grad for name, p in ours.named_parameters() if p.grad is not None})
    assert theirs.in_proj_weight.grad is not None
    torch.testing.assert_close(mine["project.weight"], theirs.in_proj_weight.grad, rtol=0, atol=1e-11)
    torch.testing.assert_close(mine["output.weight"], theirs.out_proj.weight.grad, rtol=0, atol=1e-11)


def test_both_forms_agree_in_outputs_and_gradients() -> None:
    torch.manual_seed(2)
    split = MultiHeadAttention(D, H, K, heads="split").double()
    grouped = MultiHeadAttention(D, H, K, heads="grouped").double()
    grouped.load_state_dict(split_to_grouped(split.state_dict(), H))
    x = torch.randn(2, 11, D, dtype=F64)

    a, b = split(x), grouped(x)
    torch.testing.assert_close(a, b, rtol=0, atol=1e-13)
    direction = torch.randn_like(a)
    a.backward(direction)
    b.backward(direction)
    by_name = {name: p.grad for name, p in split.named_parameters() if p.grad is not None}
    converted = grouped_to_split({name: p.grad for name, p in grouped.named_parameters() if p.grad is not None})
    assert by_name.keys() == converted.keys()
    for name, gradient in by_name.items():
        torch.testing.assert_close(converted[name], gradient, rtol=0, atol=1e-12)


def test_one_seed_starts_both_forms_as_one_function() -> None:
    states = []
    for heads in ("split", "grouped"):
        torch.manual_seed(3)
        attention = MultiHeadAttention(D, H, K, heads=heads)
        states.append(grouped_to_split(attention.state_dict()))
        states[-1]["next draw"] = torch.rand(1)
    for name, tensor in states[0].items():
        assert torch.equal(tensor, states[1][name])


def test_rotation_turns_queries_and_keys_but_not_values() -> None:
    torch.manual_seed(9)
    attention = MultiHeadAttention(D, H, 6).double()
    rotation = Positions("rotary", D, 6, max_length=5).double().rotation(5)
    assert rotation is not None
    x = torch.randn(2, 5, D, dtype=F64)

    def turn(vector: Tensor, position: int) -> Tensor:
        angle = position / 10000 ** (torch.arange(0, 6, 2, dtype=F64) / 6)
        turned = torch.complex(vector[:3], vector[3:]) * torch.polar(torch.ones(3, dtype=F64), angle)
        return torch.cat([turned.real, turned.imag])

    expected = attend_by_loops(attention, x, x, lambda b, i, j: True, turn=turn)
    torch.testing.assert_close(attention(x, rotation=rotation), expected, rtol=0, atol=1e-6)  # float32 table


@pytest.mark.parametrize("backend", ["naive", "sdpa", "auto"])
def test_fully_masked_row_gives_zeros_and_finite_gradients(backend: Any) -> None:
    torch.manual_seed(4)
    attention = MultiHeadAttention(D, H, K, backend=backend, bias=False)
    x = torch.randn(3, 7, D, requires_grad=True)
    key_mask = torch.ones(3, 7, dtype=torch.bool)
    key_mask[1] = False
    y = attention(x, key_mask=key_mask)
    assert torch.equal(y[1], torch.zeros_like(y[1]))
    assert y[0].abs().min() > 0
    y.square().sum().backward()
    for tensor in (x, *attention.parameters()):
        assert tensor.grad is not None and tensor.grad.isfinite().all()


def test_gates_of_one_change_no_bit_and_gradient_is_the_effect_of_the_head() -> None:
    torch.manual_seed(5)
    attention = MultiHeadAttention(D, H, K).double()
    x = torch.randn(2, 7, D, dtype=F64)
    plain = attention(x)
    gate = torch.ones(H, dtype=F64, requires_grad=True)
    attention.set_gates(gate)
    gated = attention(x)
    assert torch.equal(gated, plain)
    (gradient,) = torch.autograd.grad(gated.sum(), gate)
    for head in range(H):  # the output is linear in each gate, so closing it is the exact finite difference
        closed = torch.ones(H, dtype=F64)
        closed[head] = 0
        attention.set_gates(closed)
        torch.testing.assert_close(plain.sum() - attention(x).sum(), gradient[head], rtol=0, atol=1e-12)
    assert "gate_H" not in attention.state_dict()
    attention.set_gates(None)
    assert torch.equal(attention(x), plain)


def test_rows_can_have_gates_of_their_own() -> None:
    torch.manual_seed(0)
    attention, x = MultiHeadAttention(D, H, K).double(), torch.randn(5, 7, D, dtype=F64)
    gates = torch.randn(5, H, dtype=F64)
    attention.set_gates(gates)
    together = attention(x)
    for row in range(5):
        attention.set_gates(gates[row])
        torch.testing.assert_close(together[row : row + 1], attention(x[row : row + 1]))
    for wrong in (torch.ones(5, H + 1), torch.ones(5, H, 1), torch.ones(())):
        with pytest.raises(ValueError, match=rf"must be \({H},\), one per head, or \(rows, {H}\)"):
            attention.set_gates(wrong)


def test_gates_stay_no_parameter_of_the_model() -> None:
    attention = MultiHeadAttention(D, H, K)
    n_parameters = len(list(attention.parameters()))
    attention.set_gates(nn.Parameter(torch.ones(H)))
    assert len(list(attention.parameters())) == n_parameters


@pytest.mark.parametrize("backend", ["naive", "sdpa", "auto"])
def test_dropout_thins_the_weights_in_training_only(backend: Any) -> None:
    torch.manual_seed(6)
    attention = MultiHeadAttention(D, 1, K, dropout=0.5, backend=backend).double()
    x = torch.randn(1, 3, D, dtype=F64)
    attention.eval()
    still = attention(x)
    assert torch.equal(attention(x), still)
    attention.train()
    draws = attention(x.expand(20_000, -1, -1))
    assert draws.std(dim=0).min() > 0.01
    # Inverted dropout is unbiased: the mean of n draws lies within five standard errors.
    error = (draws.mean(dim=0) - still[0]).abs() / (draws.std(dim=0) / 20_000**0.5)
    assert error.max() < 5


def test_user_mistakes_are_worded() -> None:
    with pytest.raises(ValueError, match=r"d_model \(7\) must be divisible by n_heads \(3\)"):
        MultiHeadAttention(7, 3)
    with pytest.raises(ValueError, match=r"gates of shape \(2,\) must be \(3,\)"):
        MultiHeadAttention(D, H, K).set_gates(torch.ones(2))
    with pytest.raises(ValueError, match="needs the sentence number"):
        MultiHeadAttention(D, H, K, span="sentence")(torch.randn(1, 2, D))
    with pytest.raises(ValueError, match="cross-attention reads the whole memory"):
        MultiHeadAttention(D, H, K, causal=True)(torch.randn(1, 2, D), torch.randn(1, 3, D))


@pytest.mark.parametrize("span", ["global", "window", "sentence"])
@pytest.mark.parametrize("backend", ["naive", "sdpa", "auto"])
def test_bfloat16_autocast_stays_near_float32(span: Any, backend: Any) -> None:
    torch.manual_seed(7)
    attention = MultiHeadAttention(16, 2, span=span, window=3, backend=backend)
    x, sentence = torch.randn(2, 67, 16), torch.arange(67).expand(2, -1) // 9
    exact = attention(x, sentence=sentence)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = attention(x, sentence=sentence)
    assert rounded.dtype == torch.bfloat16
    # Three rounded products in a row, each of relative precision 2^-8; outputs go up to 3.
    torch.testing.assert_close(rounded.float(), exact, rtol=0, atol=9 * 2**-8)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_fully_masked_row_on_a_gpu(dtype: torch.dtype) -> None:
    torch.manual_seed(8)
    attention = MultiHeadAttention(64, 2, bias=False).to("cuda", dtype)
    x = torch.randn(3, 64, 64, device="cuda", dtype=dtype, requires_grad=True)
    key_mask = torch.ones(3, 64, dtype=torch.bool, device="cuda")
    key_mask[1], key_mask[2, 5:] = False, False
    y = attention(x, key_mask=key_mask)
    assert torch.equal(y[1], torch.zeros_like(y[1]))
    y.float().square().sum().backward()
    assert x.grad is not None and x.grad.isfinite().all()


@pytest.mark.parametrize("n_keys", [7, 67, 131])
@pytest.mark.parametrize("grad", [True, False])
def test_bfloat16_scores_are_not_rounded(n_keys: int, grad: bool) -> None:
    """Scores of up to 100: rounded to bf16, they change weights by a quarter, and the output by a tenth."""
    torch.manual_seed(9)
    q, k, v = (scale * torch.randn(2, 3, n_keys, 17) for scale in (6, 6, 1))
    q, k, v = (x.bfloat16().requires_grad_(grad) for x in (q, k, v))
    exact = torch.nn.functional.scaled_dot_product_attention(q.double(), k.double(), v.double())
    for backend in ("auto", "naive", "sdpa"):
        with torch.set_grad_enabled(grad):
            y = attend(q, k, v, None, False, 0.0, backend)
        assert y.dtype == torch.bfloat16
        torch.testing.assert_close(y.double(), exact, rtol=0, atol=0.02)
