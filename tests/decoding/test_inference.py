"""Scores of given translations against a plain loop over tokens, one row at a time."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from minitx.data import TaskData
from minitx.decoding import inference as score
from minitx.decoding.inference import row_scores
from minitx.decoding.text import TextModel, TextProcessor
from minitx.errors import ConfigError
from minitx.metrics.evaluate import evaluate
from minitx.nn.translator import Translator

CPU = torch.device("cpu")
MAX_LENGTH = 29
MakeTranslator = Callable[..., Translator]


def plain_score(models: list[Translator], data: TaskData, row: int) -> tuple[float, int]:
    """(log probability, tokens) of a row's first reference, without batch, padding or index."""
    split = data.splits["test"]
    assert split.tgt is not None
    wanted = [int(i) for i in split.tgt[row]]
    batch, total = split.batch(np.array([row])), 0.0
    assert batch.tgt_in is not None
    with torch.no_grad():
        for position, token in enumerate(wanted):
            p = 0.0
            for model in models:
                memory = model.encode(batch.src, None, batch.sentence)
                hidden = model.decode(batch.tgt_in[:, : position + 1], memory)
                p += float(model.project(hidden[0, -1]).softmax(-1)[token]) / len(models)
            total += math.log(p)
    return total, len(wanted)


@pytest.mark.parametrize("chunk", [1, 97, 1 << 23])
def test_row_scores_equal_a_plain_loop(
    translator: MakeTranslator, spelling: TaskData, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    monkeypatch.setattr(score, "CHUNK", chunk)
    split = spelling.splits["test"]
    for models in ([translator(0)], [translator(0), translator(2, n_layers=1), translator(3, norm="post")]):
        with torch.no_grad():
            found = row_scores(models, split.batch(np.arange(len(split))))
        wanted = [plain_score(models, spelling, row) for row in range(len(split))]
        assert [s.n_tokens for s in found] == [n for _, n in wanted]
        assert [s.log_prob for s in found] == pytest.approx([value for value, _ in wanted], rel=1e-9)


def test_loss_of_an_ensemble_is_its_score(translator: MakeTranslator, spelling: TaskData) -> None:
    models = [translator(0), translator(2), translator(5)]
    split = spelling.splits["test"]
    evaluated = evaluate(models[0], split, spelling, device=CPU, precision="fp32", batch_tokens=53, ensemble=models[1:])
    wanted = [plain_score(models, spelling, row) for row in range(len(split))]
    assert evaluated.loss == pytest.approx(-sum(v for v, _ in wanted) / sum(n for _, n in wanted), rel=1e-9)


def test_texts_are_scored_in_their_order(translator: MakeTranslator, spelling: TaskData) -> None:
    split, model = spelling.splits["test"], translator(2)
    rows = np.random.default_rng(3).permutation(len(split))
    ready = TextModel(models=(model,), processor=TextProcessor.of(spelling, MAX_LENGTH), device=CPU, batch_tokens=31)
    found = ready.score([split.text(r) for r in rows], [split.references(r)[0] for r in rows])
    wanted = [plain_score([model], spelling, int(row))[0] for row in rows]
    assert [s.log_prob for s in found] == pytest.approx(wanted, rel=1e-9)
    assert ready.score([], []) == []


def test_a_translation_that_is_cut_is_not_scored(translator: MakeTranslator, spelling: TaskData) -> None:
    ready = TextModel(models=(translator(),), processor=TextProcessor.of(spelling, MAX_LENGTH), device=CPU)
    with pytest.raises(
        ConfigError, match=r"^data.max_length \(29\) must hold both sides of every pair, but pair 12 has "
    ):
        ready.score(["ab", "cab"], ["A B", "C " * 40], first=11)
    with pytest.raises(ValueError, match="2 texts must match 1 translations"):
        ready.score(["ab", "cab"], ["A B"])
