from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from minitx.batch import BOS, EOS, Batch
from minitx.data import Split, TaskData
from minitx.decoding.greedy import SHRINK_EVERY, greedy
from minitx.decoding.inference import full_logits
from minitx.nn.attention.cache import DecoderCache
from minitx.nn.translator import Translator

MakeTranslator = Callable[..., Translator]

LIMIT = 23


def slow_greedy(model: Translator, split: Split, row: int, limit: int) -> list[int]:
    """One row alone, without padding and without a cache: the whole prefix is read again for every token."""
    batch = split.batch(np.array([row]))
    written: list[int] = []
    while len(written) < limit:
        memory = model.encode(batch.src, None, batch.sentence)
        hidden = model.decode(torch.tensor([[BOS, *written]]), memory)
        token = int(model.project(hidden[0, -1]).argmax())
        if token == EOS:
            break
        written.append(token)
    return written


@pytest.mark.parametrize(
    "settings",
    [
        pytest.param({}, id="sinusoidal"),
        pytest.param({"position": "learned", "norm": "post"}, id="learned-post-norm"),
        pytest.param({"position": "rotary", "head_dim": 6, "n_decoder_layers": 3}, id="rotary-three-layers"),
        pytest.param({"position": "none", "tie_embeddings": True}, id="no-positions-tied"),
        pytest.param({"span": "window"}, id="window"),
        pytest.param({"span": "sentence"}, id="sentence"),
        pytest.param({"kind": "lstm", "n_decoder_layers": 3}, id="lstm"),
    ],
)
def test_cached_batch_equals_rows_alone_without_cache(
    translator: MakeTranslator, spelling: TaskData, settings: dict[str, object]
) -> None:
    split, left_early = spelling.splits["test"], 0
    rows = np.arange(len(split))
    for seed in (0, 2):
        model = translator(seed, **settings)
        outputs = greedy(model, split.batch(rows), LIMIT)
        assert [ids.tolist() for ids in outputs] == [slow_greedy(model, split, int(row), LIMIT) for row in rows]
        checks = {len(ids) // SHRINK_EVERY for ids in outputs}
        left_early += len(checks) > 1
    assert left_early, "no row left before another: the shrinking of batch and cache was not tried"


def test_limit_counts_the_end(translator: MakeTranslator, spelling: TaskData) -> None:
    split = spelling.splits["test"]
    batch, model = split.batch(np.arange(len(split))), translator(2)
    whole = greedy(model, batch, LIMIT)
    for limit in (1, 2, 7):
        assert [ids.tolist() for ids in greedy(model, batch, limit)] == [ids[:limit].tolist() for ids in whole]
    assert max(len(ids) for ids in whole) > 7


def test_stops_when_every_row_has_ended(
    translator: MakeTranslator, spelling: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = translator(), spelling.splits["test"].batch(np.arange(5))
    steps = []
    decode = model.decode

    def counted(tgt_in: Tensor, memory: Tensor, src_mask: Tensor | None, cache: DecoderCache) -> Tensor:
        steps.append(1)
        return decode(tgt_in, memory, src_mask, cache)

    def always_end(hidden: Tensor) -> Tensor:
        return torch.eye(9)[EOS].expand(len(hidden), 9)

    monkeypatch.setattr(model, "decode", counted)
    monkeypatch.setattr(model, "project", always_end)
    assert [len(ids) for ids in greedy(model, batch, LIMIT)] == [0] * 5
    assert len(steps) == SHRINK_EVERY


def test_ended_rows_leave_the_batch(
    translator: MakeTranslator, spelling: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = translator(2), spelling.splits["test"].batch(np.arange(len(spelling.splits["test"])))
    sizes = []
    decode = model.decode

    def watched(tgt_in: Tensor, memory: Tensor, src_mask: Tensor | None, cache: DecoderCache) -> Tensor:
        assert tgt_in.shape[1] == 1 and len(tgt_in) == len(memory)
        sizes.append(len(tgt_in))
        return decode(tgt_in, memory, src_mask, cache)

    monkeypatch.setattr(model, "decode", watched)
    lengths = np.array([len(ids) for ids in greedy(model, batch, LIMIT)])
    # At step s (0-based) the rows are those that had not ended before the last look.
    checked = np.arange(len(sizes)) // SHRINK_EVERY * SHRINK_EVERY
    assert sizes == [int((lengths >= seen).sum()) for seen in checked]
    assert sizes[-1] < sizes[0]


def test_a_row_that_never_ends_stops_at_the_limit_of_the_model(
    translator: MakeTranslator, spelling: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Learned positions end at max_length; one token more would be an error of theirs."""
    model, batch = translator(position="learned"), spelling.splits["test"].batch(np.arange(3))
    assert model.output is not None
    project, no_end = model.project, one_hot(torch.tensor(EOS), model.output.out_features)
    monkeypatch.setattr(model, "project", lambda hidden: project(hidden) - 1e9 * no_end)
    most = model.decoder.max_length
    assert model.output_limit(1000) == most
    assert [len(ids) for ids in greedy(model, batch)] == [most] * 3
    with pytest.raises(ValueError, match="learned positions"):
        greedy(model, batch, most + 1)


def test_a_short_source_has_a_lower_limit(translator: MakeTranslator) -> None:
    model = translator()
    model.decoder.max_length = 1000
    assert [model.output_limit(length) for length in (1, 7, 121, 1000)] == [40, 88, 1000, 1000]


def test_the_limit_of_a_row_is_its_own_in_any_batch(
    translator: MakeTranslator, spelling: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, split = translator(2), spelling.splits["test"]
    model.decoder.max_length = 1000
    monkeypatch.setattr(model, "project", lambda hidden: hidden)
    monkeypatch.setattr(model, "decode", lambda tokens, *_: torch.eye(12)[7].expand(*tokens.shape, 12))  # never EOS
    rows = np.arange(len(split))
    lengths = [len(ids) for ids in greedy(model, split.batch(rows))]
    assert lengths == [8 * int(length) + 32 for length in split.src.lengths]
    assert lengths == [len(greedy(model, split.batch(rows[i : i + 1]))[0]) for i in rows]


def test_leaves_no_gradient_graph_and_no_inference_tensors(translator: MakeTranslator, spelling: TaskData) -> None:
    """Rotary tables made while decoding must serve a training step afterwards."""
    model, batch = translator(position="rotary", head_dim=4), spelling.splits["test"].batch(np.arange(3))
    greedy(model, batch, 5)
    model(batch).sum().backward()
    assert all(weight.grad is not None for weight in model.parameters())


def test_one_row_batch(translator: MakeTranslator, spelling: TaskData) -> None:
    split = spelling.splits["test"]
    batch: Batch = split.batch(np.array([2]))
    assert batch.src_mask is None
    [ids] = greedy(translator(2), batch, LIMIT)
    assert ids.tolist() == slow_greedy(translator(2), split, 2, LIMIT)


def test_logits_are_in_full_precision_under_autocast(translator: MakeTranslator, spelling: TaskData) -> None:
    """Two tokens whose logits bfloat16 cannot distinguish."""
    model = translator(0).float()
    hidden = torch.randn(
        7, model.output_weight.shape[1], generator=torch.Generator().manual_seed(0), dtype=torch.float32
    )
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        logits = full_logits(model, hidden.bfloat16())
        assert model.project(hidden).dtype == torch.bfloat16
    wanted = hidden.bfloat16().float() @ model.output_weight.T
    assert logits.dtype == torch.float32 and torch.allclose(logits, wanted, atol=1e-5)
