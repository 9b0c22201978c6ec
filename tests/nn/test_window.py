"""The blocked window: equal to the masked square, at a cost that grows with the length alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import FlopCounterMode

from minitx.nn.attention.masks import MIN_BLOCK, AttentionSpan, plan_blocks
from minitx.nn.attention.multi_head import MultiHeadAttention


@pytest.mark.parametrize("length", [MIN_BLOCK * 3, 131, 257])
@pytest.mark.parametrize("window", [0, 1, 13, 41])
@pytest.mark.parametrize("causal", [False, True], ids=["open", "causal"])
@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
def test_blocks_equal_the_masked_square(length: int, window: int, causal: bool, padded: bool) -> None:
    torch.manual_seed(0)
    attention = MultiHeadAttention(6, 2, span="window", window=window, causal=causal).double()
    x = torch.randn(3, length, 6, dtype=torch.float64, requires_grad=True)
    key_mask = torch.arange(length) < torch.tensor([[length], [length // 2], [0]]) if padded else None
    square = attention.attention_span.mask(3, length, length, key_mask=key_mask, blocked=False)
    assert square.allowed is not None
    direction = torch.randn_like(x)

    outputs = attention(x, key_mask=key_mask), attention(x, mask=square)
    torch.testing.assert_close(*outputs, rtol=0, atol=1e-12)
    by_blocks, by_square = (torch.autograd.grad((y * direction).sum(), x)[0] for y in outputs)
    torch.testing.assert_close(by_blocks, by_square, rtol=0, atol=1e-12)


def test_short_texts_are_not_cut() -> None:
    # One block of queries would read every key: cutting could only add work.
    assert plan_blocks(1, MIN_BLOCK + 2 * 3, 3, 3, None, None) is None
    assert plan_blocks(1, MIN_BLOCK + 2 * 3 + 1, 3, 3, None, None) is not None


def test_blocks_are_as_wide_as_a_wide_window() -> None:
    # So a query computes at most three windows' worth of products, and the number of blocks stays small.
    blocks = plan_blocks(1, 1000, 100, 100, None, None)
    assert blocks is not None and (blocks.size, blocks.n_blocks) == (100, 10)


class LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes the most elements that any operation returned."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def cost(span: Any, length: int) -> tuple[int, int]:
    """(floating-point operations, largest tensor) of one training step of the naive kernel, which hides nothing."""
    attention = MultiHeadAttention(8, 2, span=span, window=4, backend="naive")
    x = torch.randn(1, length, 8, requires_grad=True)
    with FlopCounterMode(display=False) as flops, LargestTensor() as largest:
        attention(x).sum().backward()
    return flops.get_total_flops(), largest.elements


def test_cost_is_linear_where_the_global_span_is_quadratic() -> None:
    # Lengths are whole numbers of blocks, so "linear" is exact.
    short, long = 8 * MIN_BLOCK, 32 * MIN_BLOCK
    (flops, size), (more_flops, more_size) = cost("window", short), cost("window", long)
    assert more_flops == 4 * flops
    assert more_size <= 4 * size
    (flops, size), (more_flops, more_size) = cost("global", short), cost("global", long)
    assert more_flops > 10 * flops
    assert more_size == 16 * size


def test_each_query_reads_its_window_and_nothing_else() -> None:
    torch.manual_seed(0)
    length, window, at = 3 * MIN_BLOCK + 5, 4, 2 * MIN_BLOCK
    attention = MultiHeadAttention(6, 2, span="window", window=window)
    assert attention.attention_span == AttentionSpan("window", window)
    x = torch.randn(1, length, 6, requires_grad=True)
    (gradient,) = torch.autograd.grad(attention(x)[0, at].sum(), x)
    read = gradient[0].abs().sum(-1).nonzero().flatten().tolist()
    assert read == list(range(at - window, at + window + 1))


def test_a_window_of_nothing_mixes_nothing() -> None:
    """Each position becomes what a linear map makes of it alone: values, then the output projection."""
    torch.manual_seed(0)
    attention = MultiHeadAttention(6, 2, span="window", window=0).double()
    x_BTD = torch.randn(3, 97, 6, dtype=torch.float64)
    expected = attention(x_BTD.flatten(0, 1)[:, None]).reshape(x_BTD.shape)  # 291 texts of one token
    torch.testing.assert_close(attention(x_BTD), expected)
    torch.testing.assert_close(attention(x_BTD[:, :5]), expected[:, :5])
