"""Beam search against greedy decoding, exhaustive search, a plain search without batch and cache, and rows alone."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from minitx.batch import BOS, EOS, Batch
from minitx.data import Split, TaskData
from minitx.decoding.beam import Hypothesis, beam_search
from minitx.decoding.greedy import greedy
from minitx.nn.translator import Translator

MakeTranslator = Callable[..., Translator]
LIMIT = 11
SETTINGS = [
    pytest.param({}, id="sinusoidal"),
    pytest.param({"position": "learned", "norm": "post"}, id="learned-post-norm"),
    pytest.param({"position": "rotary", "head_dim": 6, "n_decoder_layers": 3}, id="rotary-three-layers"),
    pytest.param({"span": "window"}, id="window"),
    pytest.param({"span": "sentence"}, id="sentence"),
    pytest.param({"kind": "lstm", "n_decoder_layers": 3}, id="lstm"),
]


@torch.no_grad()
def log_probs(models: Sequence[Translator], batch: Batch, prefix: Sequence[int]) -> Tensor:
    """(V,) of the token after `prefix`, read anew without a cache; the mean probability of all models."""
    found = []
    for model in models:
        memory = model.encode(batch.src, None, batch.sentence)
        hidden = model.decode(torch.tensor([[BOS, *prefix]]), memory)
        found.append(model.project(hidden[0, -1]).softmax(-1))
    return torch.stack(found).mean(0).log()


def slow_beam(
    models: Sequence[Translator], split: Split, row: int, beam: int, alpha: float, limit: int
) -> list[tuple[list[int], float, float]]:
    """The search of the module's first lines, in lists: (ids, log probability, score), best first."""
    batch = split.batch(np.array([row]))
    going: list[tuple[list[int], float]] = [([], 0.0)]
    ended: list[tuple[list[int], float, float]] = []
    for step in range(limit):
        extended = [
            ([*ids, token], before + value)
            for ids, before in going
            for token, value in enumerate(log_probs(models, batch, ids).tolist())
        ]
        candidates = sorted(extended, key=lambda pair: -pair[1])[: 2 * beam]
        for ids, value in candidates[:beam]:
            if ids[-1] == EOS or step + 1 == limit:
                ended.append((ids[:-1] if ids[-1] == EOS else ids, value, value / (step + 1) ** alpha))
        if len(ended) >= beam:
            break
        going = [pair for pair in candidates if pair[0][-1] != EOS][:beam]
    return sorted(ended, key=lambda found: -found[2])[:beam]


def shown(found: Sequence[Hypothesis]) -> list[list[int]]:
    return [hypothesis.ids.tolist() for hypothesis in found]


@pytest.mark.parametrize("settings", SETTINGS)
def test_beam_of_one_is_greedy(translator: MakeTranslator, spelling: TaskData, settings: dict[str, object]) -> None:
    split = spelling.splits["test"]
    batch = split.batch(np.arange(len(split)))
    for seed in (0, 2):
        model = translator(seed, **settings)
        for limit in (None, 7):
            wanted = [ids.tolist() for ids in greedy(model, batch, limit)]
            assert [shown(found) for found in beam_search([model], batch, 1, max_length=limit)] == [[w] for w in wanted]


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize(("beam", "alpha"), [(2, 0.0), (3, 1.0), (5, 0.6)])
def test_cached_batch_equals_a_plain_search(
    translator: MakeTranslator, spelling: TaskData, settings: dict[str, object], beam: int, alpha: float
) -> None:
    split, model = spelling.splits["test"], translator(2, **settings)
    found = beam_search(
        [model], split.batch(np.arange(len(split))), beam, length_penalty=alpha, n_best=beam, max_length=LIMIT
    )
    for row, hypotheses in enumerate(found):
        wanted = slow_beam([model], split, row, beam, alpha, LIMIT)
        assert shown(hypotheses) == [ids for ids, _, _ in wanted]
        assert [h.log_prob for h in hypotheses] == pytest.approx([value for _, value, _ in wanted], abs=1e-9)
        assert [h.score for h in hypotheses] == pytest.approx([score for _, _, score in wanted], abs=1e-9)


@pytest.mark.parametrize("alpha", [0.0, 0.7, 1.0])
def test_wide_beam_finds_what_exhaustive_search_finds(
    translator: MakeTranslator, spelling: TaskData, monkeypatch: pytest.MonkeyPatch, alpha: float
) -> None:
    """All sequences of up to three of five tokens: with a beam as wide as that nothing is cut off."""
    split, limit, tokens = spelling.splits["test"], 3, 5
    model = translator(4)
    project = model.project
    monkeypatch.setattr(model, "project", lambda hidden: project(hidden)[..., :tokens] * 0.3)
    others = [token for token in range(tokens) if token != EOS]
    for row in (0, 3):
        batch = split.batch(np.array([row]))
        every: list[tuple[float, list[int]]] = []
        for n in range(limit + 1):
            for ids in itertools.product(others, repeat=n):
                written = [*ids, EOS] if n < limit else [*ids]
                values = [float(log_probs([model], batch, ids[:i])[token]) for i, token in enumerate(written)]
                every.append((math.fsum(values) / len(written) ** alpha, list(ids)))
        assert math.fsum(math.exp(s * max(1, min(len(i) + 1, limit)) ** alpha) for s, i in every) == pytest.approx(1)
        wanted = sorted(every, key=lambda pair: -pair[0])[:6]
        found = beam_search([model], batch, 150, length_penalty=alpha, n_best=6, max_length=limit)[0]
        assert shown(found) == [ids for _, ids in wanted]
        assert [h.score for h in found] == pytest.approx([score for score, _ in wanted], abs=1e-9)


def test_many_rows_equal_rows_alone(translator: MakeTranslator, spelling: TaskData) -> None:
    """Without `max_length`: limits, padding and the rows that leave early change nothing."""
    split, model = spelling.splits["test"], translator(2)
    model.decoder.max_length = 400  # rows reach their own limits, at different steps
    together = beam_search([model], split.batch(np.arange(len(split))), 3, n_best=2)
    alone = [beam_search([model], split.batch(np.array([row])), 3, n_best=2)[0] for row in range(len(split))]
    assert [shown(found) for found in together] == [shown(found) for found in alone]
    assert len({len(found[0].ids) for found in together}) > 2, "all ended together: the leaving of rows was not tried"
    for a, b in zip(together, alone, strict=True):
        assert [h.score for h in a] == pytest.approx([h.score for h in b], abs=1e-9)


def test_ensemble_is_the_mean_of_probabilities(translator: MakeTranslator, spelling: TaskData) -> None:
    split = spelling.splits["test"]
    models = [translator(0), translator(2, n_layers=1), translator(5, position="rotary", head_dim=4)]
    found = beam_search(models, split.batch(np.arange(len(split))), 3, n_best=3, max_length=LIMIT)
    wanted = [slow_beam(models, split, row, 3, 1.0, LIMIT) for row in range(len(split))]
    assert [shown(hypotheses) for hypotheses in found] == [[ids for ids, _, _ in best] for best in wanted]
    alone = beam_search(models[:1], split.batch(np.arange(len(split))), 3, max_length=LIMIT)
    twice = beam_search([models[0]] * 2, split.batch(np.arange(len(split))), 3, max_length=LIMIT)
    assert [shown(h) for h in alone] == [shown(h) for h in twice]


def test_a_wider_beam_finds_no_worse_a_best(translator: MakeTranslator, spelling: TaskData) -> None:
    """Not a law for every row, so over all of them: the summed log probability of the best grows with the beam."""
    split, model = spelling.splits["test"], translator(2)
    batch = split.batch(np.arange(len(split)))
    totals = [
        sum(found[0].log_prob for found in beam_search([model], batch, beam, length_penalty=0.0, max_length=LIMIT))
        for beam in (1, 4, 16)
    ]
    assert totals == sorted(totals) and totals[0] < totals[-1]


def test_scores_are_sorted_and_distinct(translator: MakeTranslator, spelling: TaskData) -> None:
    split = spelling.splits["test"]
    for found in beam_search([translator(2)], split.batch(np.arange(5)), 4, n_best=4, max_length=LIMIT):
        assert len(found) == 4
        scores = [h.score for h in found]
        assert scores == sorted(scores, reverse=True)
        assert len({tuple(ids) for ids in shown(found)}) == 4


def test_cross_keys_are_held_once_per_source(
    translator: MakeTranslator, spelling: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, batch = translator(2), spelling.splits["test"].batch(np.arange(5))
    decode, seen = model.decode, []

    def watched(tokens: Tensor, memory: Tensor, *rest: object) -> Tensor:
        seen.append((len(tokens), len(memory)))
        return decode(tokens, memory, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(model, "decode", watched)
    beam_search([model], batch, 3, max_length=LIMIT)
    assert seen[0] == (15, 5) and all(rows == 3 * sources for rows, sources in seen)


@pytest.mark.parametrize(("n_models", "beam", "n_best"), [(0, 2, 1), (1, 0, 1), (1, 2, 3), (1, 2, 0)])
def test_wrong_arguments(translator: MakeTranslator, spelling: TaskData, n_models: int, beam: int, n_best: int) -> None:
    with pytest.raises(ValueError, match=r"beam search needs|n_best"):
        beam_search([translator()] * n_models, spelling.splits["test"].batch(np.arange(2)), beam, n_best=n_best)
