"""The token ids that all contestants train on, as a `Split`: generated from a seed, or a real set from its cache.

Letters in shapes: R rows.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minitx.batch import CLS, EOS, SPECIAL_TOKENS
from minitx.bench.jobs import Ids, Job, Size
from minitx.config import DataConfig, TokenizerConfig
from minitx.data import Split, load_data, plan_epoch
from minitx.data.splits import Ragged, Texts, offsets_of

# Quantiles of the lengths in tokens: the deciles, and the tails, where rare pairs of unequal length decide how much a
# batch must pad. IMDb reviews: BPE of 16,000, cut at 256 tokens, which four in ten reach. Multi30k captions: joint BPE
# of 10,000, EOS included; the German length is drawn as a ratio to the English one, which keeps the two correlated.
QUANTILES = (0, 0.01, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99, 1)
REVIEW_LENGTHS = (12, 53, 81, 117, 151, 169, 192, 222, 256, 256, 256, 256, 256, 256, 256)
CAPTION_LENGTHS = (4, 7, 8, 9, 11, 12, 12, 14, 15, 16, 18, 20, 23, 28, 46)
CAPTION_RATIOS = (0.25, 0.67, 0.77, 0.82, 0.89, 0.92, 1.0, 1.0, 1.06, 1.1, 1.17, 1.25, 1.35, 1.56, 2.47)
REVIEW_LIMIT, CAPTION_LIMIT = 256, 100
"""`max_length` that the quantiles were taken at; a smaller model's lengths shrink in proportion."""
ZIPF_EXPONENT = 1.0
BUDGET_TOLERANCE = 0.005
Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def load_split(size: Size, ids: Ids) -> Split:
    """The training rows of a job: labels for classification, targets for translation."""
    if ids.source == "dataset":
        return _head(load_data(dataset_config(size, ids)).splits["train"], ids.rows)
    rng = np.random.default_rng(ids.seed)
    if size.task == "classification":
        return _reviews(size, ids, rng)
    return _captions(size, ids, rng)


def dataset_config(size: Size, ids: Ids) -> DataConfig:
    """The real set of a task: IMDb or Multi30k."""
    reviews = size.task == "classification"
    return DataConfig(
        name="imdb" if reviews else "multi30k",
        source="dataset",
        task=size.task,
        path=ids.path,
        src_column="en",
        tgt_column="de",
        max_length=size.max_length,
        tokenizer=TokenizerConfig(vocab_size=size.vocab, lowercase=reviews),
        cache_dir=ids.cache_dir,
    )


def _head(split: Split, rows: int) -> Split:
    """The first rows, as the caller asked; the lengths of a shuffled set do not depend on the order."""
    if rows >= len(split):
        return split
    return Split(
        src=_first(split.src, rows),
        sentences=_first(split.sentences, rows),
        texts=Texts.of([""] * rows),
        tgt=None if split.tgt is None else _first(split.tgt, rows),
        labels=None if split.labels is None else split.labels[:rows],
    )


def _first(ragged: Ragged, rows: int) -> Ragged:
    return Ragged(ragged.flat[: ragged.offsets[rows]], ragged.offsets[: rows + 1])


def _reviews(size: Size, ids: Ids, rng: np.random.Generator) -> Split:
    if ids.source == "full":
        lengths = np.full(ids.rows, size.max_length)
    else:
        lengths = _lengths(REVIEW_LENGTHS, size.max_length / REVIEW_LIMIT, ids.rows, rng)
    src = _rows(lengths, size.vocab, rng)
    src.flat[src.offsets[:-1]] = CLS
    return _split(src, labels=rng.integers(size.n_classes, size=ids.rows))


def _captions(size: Size, ids: Ids, rng: np.random.Generator) -> Split:
    if ids.source == "full":
        lengths = tgt_lengths = np.full(ids.rows, size.max_length)
    else:
        scale = size.max_length / CAPTION_LIMIT
        lengths = _lengths(CAPTION_LENGTHS, scale, ids.rows, rng)
        ratios = drawn(CAPTION_RATIOS, ids.rows, rng)
        tgt_lengths = np.clip(np.rint(lengths * ratios), 2, size.max_length).astype(np.int64)
    src, tgt = _rows(lengths, size.vocab, rng), _rows(tgt_lengths, size.vocab, rng)
    for side in (src, tgt):
        side.flat[side.offsets[1:] - 1] = EOS
    return _split(src, tgt=tgt)


def drawn(values: tuple[float, ...], n: int, rng: np.random.Generator) -> Floats:
    """(n,) numbers whose `QUANTILES` are `values`, straight in between."""
    return np.interp(rng.random(n), QUANTILES, values)


def _lengths(values: tuple[float, ...], scale: float, n: int, rng: np.random.Generator) -> Ints:
    return np.maximum(2, np.rint(drawn(values, n, rng) * scale)).astype(np.int64)


def _rows(lengths: Ints, vocab: int, rng: np.random.Generator) -> Ragged:
    """Ids of ordinary tokens, the k-th most frequent with probability in proportion to 1 / k."""
    first = len(SPECIAL_TOKENS)
    weights = np.cumsum(np.arange(1, vocab - first + 1) ** -ZIPF_EXPONENT)
    tokens = first + np.searchsorted(weights / weights[-1], rng.random(int(lengths.sum())))
    return Ragged(np.minimum(tokens, vocab - 1).astype(np.int32), offsets_of(lengths))


def _split(src: Ragged, tgt: Ragged | None = None, labels: Ints | None = None) -> Split:
    """The sentence numbers are zero and the texts empty: nobody here reads them."""
    sentences = Ragged(np.zeros(len(src.flat), np.int32), src.offsets)
    return Split(src=src, sentences=sentences, texts=Texts.of([""] * len(src)), tgt=tgt, labels=labels)


def budget_for(lengths: Ints, tokens_per_step: float, seed: int = 0) -> int:
    """The token budget whose batches hold this many real tokens each on average over an epoch.

    Batches are cut at whole rows, so the real tokens are fewer than the budget by a share that must be tried out.
    """
    budget, total = tokens_per_step, float(lengths.sum())
    for _ in range(20):
        real = total / len(plan_epoch(lengths, max(1, round(budget)), seed, 0))
        if abs(real / tokens_per_step - 1) <= BUDGET_TOLERANCE:
            break
        budget *= tokens_per_step / real
    return max(1, round(budget))


def batch_budget(job: Job, split: Split) -> int:
    """The budget given, or the one that holds as many real tokens per step as `rows` rows of average length."""
    if job.batch_tokens is not None:
        return job.batch_tokens
    lengths = split.lengths.astype(np.int64)
    return budget_for(lengths, job.rows * float(lengths.mean()), job.seed)


def data(job: Job) -> dict[str, Any]:
    """Rows, deciles of the lengths, the token budget of who has one, and a digest: contestants rebuild these ids."""
    split = load_split(job.size, job.ids)
    sides = {"src": split.src} if split.tgt is None else {"src": split.src, "tgt": split.tgt}
    deciles = np.linspace(0, 1, 11)
    digest = hashlib.sha256()
    for side in sides.values():
        digest.update(np.ascontiguousarray(side.flat).tobytes())
    return {
        "source": job.ids.source,
        "rows": len(split),
        "mean_length": {name: float(side.lengths.mean()) for name, side in sides.items()},
        "deciles": {name: np.quantile(side.lengths, deciles).tolist() for name, side in sides.items()},
        "batch_tokens": batch_budget(job, split),
        "sha256": digest.hexdigest()[:16],
    }
