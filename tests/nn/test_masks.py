"""What may be read: every span against the rule in words, and the cheapest form that says it."""

from __future__ import annotations

import itertools

import pytest
import torch
from attention_reference import may_read

from minitx.nn.attention import masks
from minitx.nn.attention.masks import AttentionSpan, Mask


def dense(mask: Mask, n_rows: int, n_queries: int) -> torch.Tensor:
    """(B, T, S), whatever the form; blocks apart."""
    if mask.is_causal:
        return torch.ones(n_queries, mask.n_keys).tril().bool().expand(n_rows, -1, -1)
    if mask.allowed is None:
        return torch.ones(n_rows, n_queries, mask.n_keys, dtype=torch.bool)
    return mask.allowed[:, 0].expand(n_rows, n_queries, -1)


SPANS = ("global", "window", "sentence")


@pytest.mark.parametrize(("n_queries", "n_keys"), [(1, 1), (7, 7), (1, 7), (3, 7)])
@pytest.mark.parametrize("padded", [False, True], ids=["full", "padded"])
def test_mask_is_the_rule_in_words(n_queries: int, n_keys: int, padded: bool) -> None:
    torch.manual_seed(0)
    real = torch.rand(2, n_keys) < 0.7 if padded else None
    sentence = torch.randint(0, 2, (2, n_keys)).cumsum(1)
    for span, window, causal in itertools.product(SPANS, (0, 1, 2, 6), (False, True)):
        reach = AttentionSpan(span, window, causal)  # type: ignore[arg-type]
        mask = reach.mask(2, n_queries, n_keys, key_mask=real, sentence=sentence)
        rule = may_read(
            span, window, causal, n_queries, n_keys, None if real is None else real.tolist(), sentence.tolist()
        )
        expected = torch.tensor([[[rule(b, i, j) for j in range(n_keys)] for i in range(n_queries)] for b in range(2)])
        assert not expected[:, :, : n_keys - mask.n_keys].any(), "only unread keys may be dropped"
        assert torch.equal(dense(mask, 2, n_queries), expected[:, :, n_keys - mask.n_keys :]), (span, window, causal)


def test_every_form_is_the_cheapest() -> None:
    plain = AttentionSpan().mask(2, 7, 7)
    assert (plain.is_causal, plain.allowed, plain.blocks) == (False, None, None)
    assert AttentionSpan(causal=True).mask(2, 7, 7).is_causal
    assert AttentionSpan("window", 6).mask(2, 7, 7).allowed is None, "a window over the whole text is no mask"
    assert AttentionSpan("window", 6, causal=True).mask(2, 7, 7).is_causal
    last = AttentionSpan("window", 3, causal=True).mask(2, 1, 100)
    assert (last.n_keys, last.allowed) == (4, None), "a decoding step reads the end of its cache, without a mask"
    assert AttentionSpan(causal=True).mask(2, 1, 100).allowed is None
    padding = AttentionSpan().mask(2, 7, 7, key_mask=torch.ones(2, 7, dtype=torch.bool)).allowed
    assert padding is not None and padding.shape == (2, 1, 1, 7)
    assert AttentionSpan("window", 2).mask(2, 500, 500).blocks is not None
    assert AttentionSpan("window", 2).mask(2, 500, 500, blocked=False).blocks is None


def test_drawings_in_the_docstring() -> None:
    lines = [line for line in (masks.__doc__ or "").splitlines() if line.startswith("    ")]
    assert lines[0].split("  ")[0] == ""
    columns = [[line[start : start + 7] for line in lines[1:]] for start in (4, 24, 44, 64)]
    sentence = torch.tensor([[0, 0, 1, 1]])
    reaches = [
        AttentionSpan(causal=True),
        AttentionSpan("window", 1),
        AttentionSpan("window", 1, causal=True),
        AttentionSpan("sentence"),
    ]
    for drawn, reach in zip(columns, reaches, strict=True):
        allowed = dense(reach.mask(1, 4, 4, sentence=sentence), 1, 4)[0]
        assert drawn == [" ".join("x" if may else "." for may in row) for row in allowed.tolist()]
