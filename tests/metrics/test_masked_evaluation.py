"""Hidden tokens predicted: the same ones for every model and batching, counted by text, shown in their places."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from minitx.config import MaskingConfig, TokenizerConfig, TransformerConfig
from minitx.data import Masker, TaskData, Tokenizer
from minitx.data.pipeline.encode import encode_examples
from minitx.data.sources import Examples
from minitx.metrics import scores as metrics
from minitx.metrics.comparison import compare_evaluations
from minitx.metrics.evaluate import Evaluation, evaluate
from minitx.metrics.masked import FilledTexts, MaskedPredictions
from minitx.nn.build import build_model
from minitx.nn.masked import MaskedModel
from minitx.nn.sizes import ModelShape

CPU = torch.device("cpu")
MASKING = MaskingConfig(rate=0.4)


@pytest.fixture
def masked_data(beginning: TaskData) -> TaskData:
    splits = {name: replace(split, labels=None) for name, split in beginning.splits.items()}
    return replace(beginning, task="masked", metrics="masked", label_names=None, splits=splits)


def build(data: TaskData, seed: int = 0) -> MaskedModel:
    torch.manual_seed(seed)
    config = TransformerConfig(d_model=12, n_heads=3, d_ff=17)
    model = build_model(config, ModelShape("masked", data.src_tokenizer.vocab_size, max_length=29))
    assert isinstance(model, MaskedModel)
    split, rows = data.splits["test"], np.arange(len(data.splits["test"]))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for epoch in range(12):  # so that it predicted something
        optimizer.zero_grad()
        batch = Masker(split, MASKING, data.src_tokenizer.vocab_size, seed)(split.batch(rows), rows, epoch)
        torch.autograd.backward(model.loss(batch))
        optimizer.step()
    return model.eval()


def evaluated(
    model: MaskedModel,
    data: TaskData,
    *,
    batch_tokens: int = 53,
    rows: np.ndarray | None = None,
    ensemble: Sequence[MaskedModel] = (),
) -> Evaluation:
    return evaluate(
        model, data.splits["test"], data, device=CPU, precision="fp32", batch_tokens=batch_tokens, rows=rows,
        masking=MASKING, ensemble=ensemble,
    )  # fmt: skip


def by_hand(models: Sequence[nn.Module], data: TaskData) -> tuple[list[int], list[int], float]:
    """(hits, hidden tokens) of each row and the whole loss, one row at a time."""
    split, hits, hidden, loss = data.splits["test"], [], [], 0.0
    masker = Masker(split, MASKING, data.src_tokenizer.vocab_size)
    for row in range(len(split)):
        batch = masker(split.batch(np.array([row])), np.array([row]))
        chances = torch.stack([model(batch).softmax(-1) for model in models]).mean(0)
        hits.append(int((chances.argmax(-1) == batch.targets).sum()))
        hidden.append(len(batch.targets))
        loss -= float(chances.gather(1, batch.targets[:, None]).log().sum())
    return hits, hidden, loss


@pytest.mark.parametrize("n_models", [1, 3])
@pytest.mark.parametrize("batch_tokens", [1, 53, 10_000])
def test_counts_every_hidden_token(masked_data: TaskData, batch_tokens: int, n_models: int) -> None:
    first, *others = [build(masked_data, seed) for seed in range(n_models)]
    found = evaluated(first, masked_data, batch_tokens=batch_tokens, ensemble=others)
    with torch.no_grad():
        hits, hidden, loss = by_hand([first, *others], masked_data)
    assert 0 < sum(hits) < sum(hidden)
    assert found.score == sum(hits) / sum(hidden) and found.main == "masked_accuracy"
    assert found.metrics == {"masked_accuracy": metrics.masked_accuracy(hits, hidden)}
    assert found.loss == pytest.approx(loss / sum(hidden), rel=1e-9)


def test_interval_is_that_of_texts_drawn_anew() -> None:
    rng = np.random.default_rng(1)
    hidden = rng.integers(1, 40, 200)
    hits = rng.binomial(hidden, rng.beta(2, 3, 200))  # texts differ in how hard they are
    found = metrics.masked_accuracy(hits, hidden)
    drawn = rng.integers(0, 200, (4000, 200))
    low, high = np.percentile(hits[drawn].sum(1) / hidden[drawn].sum(1), (2.5, 97.5))
    assert found.value == hits.sum() / hidden.sum()
    # The ends of 1,000 resamples are known to about a tenth of the width.
    assert (found.low, found.high) == pytest.approx((low, high), abs=0.15 * (high - low))


def test_some_rows_in_the_order_asked_and_the_same_text_twice(masked_data: TaskData) -> None:
    model, rows = build(masked_data), np.array([7, 2, 11, 3])
    whole, some = evaluated(model, masked_data), evaluated(model, masked_data, rows=rows)
    assert list(some.predictions) == [whole.predictions[row] for row in rows]
    assert evaluated(model, masked_data).loss == whole.loss


def test_two_models_are_compared_text_by_text(masked_data: TaskData) -> None:
    a, b = evaluated(build(masked_data, 0), masked_data), evaluated(build(masked_data, 3), masked_data)
    found = compare_evaluations(a, b)["masked_accuracy"]
    assert found.difference == a.score - b.score and found.n_examples == len(masked_data.splits["test"])


def filled(kind: str, text: str, at: dict[int, int | None]) -> str:
    """`text` with these tokens hidden, predicted as the token at another place; None = rightly."""
    tokenizer = Tokenizer.fit(TokenizerConfig(kind=kind, vocab_size=300), [text] * 9)  # type: ignore[arg-type]
    split = encode_examples(Examples(["other", text]), tokenizer, None, 64)
    ids = split.src[1].astype(np.int64)
    token = np.array([ids[p if other is None else other] for p, other in at.items()])
    predicted = MaskedPredictions(
        loss=0.0, offsets=np.array([0, 0, len(at)]), position=np.array(list(at)), token=token, truth=ids[list(at)]
    )
    shown = FilledTexts(predicted, np.array([1, 0]), np.array([1, 0]), split, tokenizer)
    assert len(shown) == 2 and shown[-2] == shown[0] == shown[0:1][0]
    with pytest.raises(IndexError):
        shown[2]
    return shown[0]


def test_predictions_are_shown_in_brackets() -> None:
    text = "the cat saw the dog"
    assert filled("word", text, {}) == text
    assert filled("word", text, {2: None}) == "the [cat] saw the dog"
    assert filled("bpe", text, {2: None, 5: None}) == "the [cat] saw the [dog]"
    assert filled("bpe", text, {2: 5, 3: 4}) == "the [dog → cat] [the → saw] the dog"
    assert filled("char", "abc", {1: 3}) == "[c → a]bc"
    assert filled("word", text, {1: 0}) == "[[CLS] → the] cat saw the dog"
