"""Additive attention: the formula, and pieces that give the same as the whole."""

from __future__ import annotations

import pytest
import torch

from minitx.nn.baselines import lstm as additive
from minitx.nn.baselines.lstm import AdditiveAttention, additive_scores


def samples() -> tuple[torch.Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    shapes = (2, 7, 5), (2, 11, 5), (5,)
    return tuple(torch.randn(s, dtype=torch.float64, generator=generator).requires_grad_() for s in shapes)


@pytest.mark.parametrize("piece", [1, 2 * 11 * 5 * 3, 1 << 20], ids=["one-query", "three-queries", "whole"])
def test_scores_equal_a_loop_in_pieces_of_any_size(piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(additive.PIECE, "cpu", piece)
    queries, keys, v = samples()
    scores = additive_scores(queries, keys, v)
    wanted = torch.stack(
        [torch.stack([torch.stack([v @ torch.tanh(q + k) for k in keys[b]]) for q in queries[b]]) for b in range(2)]
    )
    torch.testing.assert_close(scores, wanted, rtol=0, atol=1e-12)
    weight = torch.linspace(-1, 2, scores.numel(), dtype=torch.float64).view(scores.shape)
    ours, theirs = (torch.autograd.grad((s * weight).sum(), (queries, keys, v)) for s in (scores, wanted))
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)


def test_a_large_one_keeps_no_tanh_for_the_backward_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole, the pass keeps the (M, T, S, A) tensor; in pieces nothing as large as a piece."""
    for piece, expected in ((1 << 20, 2 * 7 * 11 * 5), (2 * 11 * 5, 2 * 11 * 5)):
        monkeypatch.setitem(additive.PIECE, "cpu", piece)
        kept: list[int] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t, kept=kept: kept.append(t.numel()) or t, lambda t: t):
            additive_scores(*samples())
        assert max(kept, default=0) == expected


def test_padding_is_never_read_and_a_memory_serves_many_rows() -> None:
    torch.manual_seed(0)
    attention = AdditiveAttention(3, 5).double()
    x, memory = torch.randn(6, 7, 3, dtype=torch.float64), torch.randn(2, 11, 5, dtype=torch.float64)
    mask = torch.arange(11) < torch.tensor([[11], [4]])
    context = attention(x, memory, attention.keys(memory), mask)
    assert context.shape == (6, 7, 5)
    for row in range(6):
        own = memory[row // 3 : row // 3 + 1, : [11, 4][row // 3]]
        alone = attention(x[row : row + 1], own, attention.keys(own))
        torch.testing.assert_close(context[row : row + 1], alone, rtol=0, atol=1e-12)
    nothing = attention(x, memory, attention.keys(memory), torch.zeros_like(mask))
    assert torch.equal(nothing, torch.zeros_like(nothing))
