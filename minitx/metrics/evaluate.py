"""One pass over a split: the loss, the task's metrics with intervals, and every prediction in the order of the rows.

An evaluation leaves no trace on training: no gradient, no random number drawn, the model's mode restored. So a run that
validates more often trains to the same bits. Several processes take batches in turn and put their outputs together by
row, so that all of them hold the evaluation that one would have made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from minitx.batch import Batch
from minitx.config import DecodeConfig, MaskingConfig
from minitx.data import Masker, Split, TaskData, plan_eval
from minitx.data.splits import IntArray, Ragged, offsets_of
from minitx.decoding.beam import translate
from minitx.decoding.greedy import cut_off
from minitx.decoding.inference import (
    GREEDY,
    Precision,
    inference,
    masked_models,
    mean_log_probs,
    token_log_probs,
    tokens_at_once,
    translators,
)
from minitx.distributed import ALONE, World
from minitx.metrics.intervals import Interval, Ints
from minitx.metrics.masked import FilledTexts, MaskedPredictions, predict_hidden
from minitx.metrics.scores import ClassOutputs, MaskedOutputs, TextOutputs, better, main_metric, scores
from minitx.nn.baselines.linear import TfidfClassifier
from minitx.nn.build import Model
from minitx.nn.masked import MaskedModel
from minitx.nn.translator import Translator

LogProbs = npt.NDArray[np.float32]
Number = TypeVar("Number", bound=np.generic)
MASKING = MaskingConfig()


@dataclass(frozen=True, kw_only=True, eq=False)
class Evaluation:
    """What one pass over (some rows of) a split found."""

    loss: float
    """Cross-entropy per target (row, real target token, or hidden token), never smoothed."""
    metrics: dict[str, Interval]
    main: str
    """Name of the metric that `best`, patience and tables go by."""
    rows: npt.NDArray[np.int64]
    """The rows evaluated, in the order asked for."""
    predictions: Sequence[str] = field(repr=False)
    """Label name or output text of each of `rows`; or the text with its hidden tokens as they were predicted."""
    log_probs: LogProbs | None = field(default=None, repr=False)
    """Classification: (N, C) natural logarithms of each row's probabilities; `class_report` has what follows."""
    labels: Ints | None = field(default=None, repr=False)
    """Classification: (N,) true classes."""
    n_cut_off: int | None = None
    """Translation: outputs that reached the limit on their length before the model had ended them."""
    notes: tuple[str, ...] = ()
    """What a reader of the scores must know."""

    @property
    def score(self) -> float:
        """Value of the main metric."""
        return self.metrics[self.main].value

    def improves_on(self, score: float | None, loss: float | None) -> bool:
        """Whether it is better than the best so far; the loss decides between equal scores. None = there is none."""
        if self.score == score and loss is not None:
            return self.loss < loss
        return score is None or better(self.score, score, self.main)


def evaluate(
    model: nn.Module,
    split: Split,
    data: TaskData,
    *,
    device: torch.device,
    precision: Precision,
    batch_tokens: int,
    rows: npt.NDArray[np.int64] | None = None,
    decode: DecodeConfig = GREEDY,
    bleu_tokenize: str = "13a",
    masking: MaskingConfig = MASKING,
    ensemble: Sequence[Model] = (),
    world: World = ALONE,
) -> Evaluation:
    """Evaluate `rows` of a split (all when None) with a model of the task of `data`, which names the metrics.

    A translator must be the model itself, not a compiled wrapper: it is also decoded, token by token. `bleu_tokenize`
    is sacrebleu's name for how it splits the text (13a, zh, char, ...). masking: which tokens a MaskedModel has to
    predict; they are the same ones whatever model is evaluated. ensemble: further models, of the same
    vocabulary and classes, whose probabilities are averaged with the first one's. world: processes that all call this
    and share the work. No rows are a ValueError.
    """
    rows = np.arange(len(split)) if rows is None else np.asarray(rows, dtype=np.int64)
    if len(rows) == 0:
        raise ValueError("evaluation needs at least one row; the split, or the choice of rows, is empty")
    models = [model, *ensemble]
    plan = plan_eval(split.lengths[rows], tokens_at_once(batch_tokens, decode))
    if len(plan) < world.size:  # too few batches to go round: each process evaluates them all
        world = ALONE
    share = world.share(plan)
    outputs = _Outputs(world, np.concatenate(share), len(rows))
    batches = batches_of(model, split, data, [rows[chosen] for chosen in share], device=device, masking=masking)
    with inference(models, device, precision):
        if isinstance(model, Translator):
            assert data.tgt_tokenizer is not None, "a translation task has a target tokeniser"
            loss, ids, n_cut_off = _translate(translators(models), batches, decode, outputs)
            texts = [data.tgt_tokenizer.decode(ids[i]) for i in range(len(rows))]
            return _evaluate_texts(loss, texts, n_cut_off, rows, split, data, bleu_tokenize)
        if isinstance(model, MaskedModel):
            predicted = outputs.gathered_tokens(predict_hidden(masked_models(models), batches))
            return _evaluate_masked(predicted, rows, split, data)
        return evaluate_classes(outputs.gathered(_classify(models, batches)), rows, split, data)


@dataclass(frozen=True)
class _Outputs:
    """Puts what this process found for its rows, and the others for theirs, into the order of all rows."""

    world: World
    place_R: IntArray
    """(R,) of each row of this process, in the order of its batches, among all."""
    n_rows: int

    def gathered(self, own: npt.NDArray[Number]) -> npt.NDArray[Number]:
        """(R, ...) of this process's rows -> (n_rows, ...)."""
        whole = np.zeros((self.n_rows, *own.shape[1:]), own.dtype)
        whole[self.place_R] = own
        return self.world.sum(whole)

    def gathered_rows(self, own: Ragged) -> Ragged:
        """The same of rows that differ in length."""
        offsets = offsets_of(self.gathered(own.lengths))
        flat = np.zeros(offsets[-1], own.flat.dtype)
        starts = np.repeat(offsets[self.place_R] - own.offsets[:-1], own.lengths)
        flat[starts + np.arange(len(own.flat))] = own.flat
        return Ragged(self.world.sum(flat), offsets)

    def gathered_tokens(self, own: MaskedPredictions) -> MaskedPredictions:
        """The same of predicted tokens."""
        columns = (own.position, own.token, own.truth)
        found = [self.gathered_rows(Ragged(column, own.offsets)) for column in columns]
        offsets, position, token, truth = (
            np.asarray(column, np.int64) for column in (found[0].offsets, *(rows.flat for rows in found))
        )
        (loss,) = self.world.sum(np.array([own.loss])).tolist()
        return MaskedPredictions(loss=loss, offsets=offsets, position=position, token=token, truth=truth)


def batches_of(
    model: nn.Module,
    split: Split,
    data: TaskData,
    plan: Iterable[IntArray],
    *,
    device: torch.device,
    masking: MaskingConfig = MASKING,
) -> Iterator[Batch]:
    """Batches of rows of a split, on the device; for a MaskedModel always the same tokens are hidden."""
    masker = Masker(split, masking, data.src_tokenizer.vocab_size) if isinstance(model, MaskedModel) else None
    for rows in plan:
        batch = split.batch(rows)
        yield (batch if masker is None else masker(batch, rows)).to(device)


def evaluate_classes(
    log_probs_NC: npt.NDArray[np.floating[Any]], rows: npt.NDArray[np.int64], split: Split, data: TaskData
) -> Evaluation:
    """Evaluate any classifier by its log-probabilities (N, C) of the classes of these N `rows` of a split."""
    assert split.labels is not None and data.label_names is not None, "a classification task has labels and their names"
    labels, names = split.labels[rows].astype(np.int64), data.label_names
    if log_probs_NC.shape != (len(rows), len(names)):
        shape = f"{len(rows)} rows and {len(names)} classes"
        raise ValueError(f"log_probs must be of {shape}, but their shape is {log_probs_NC.shape}")
    log_probs_NC = log_probs_NC.astype(np.float32)
    classes = log_probs_NC.argmax(axis=1)
    return Evaluation(
        loss=-float(log_probs_NC[np.arange(len(rows)), labels].mean(dtype=np.float64)),
        metrics=scores("classification", ClassOutputs(log_probs=log_probs_NC, labels=labels)),
        main=main_metric("classification"),
        rows=rows,
        predictions=[names[c] for c in classes],
        log_probs=log_probs_NC,
        labels=labels,
    )


def evaluate_linear(model: TfidfClassifier, split: Split, data: TaskData) -> Evaluation:
    """Evaluate all rows of a split with a model that reads the texts themselves."""
    return evaluate_classes(model.log_probs(list(split.texts)), np.arange(len(split)), split, data)


def _classify(models: Sequence[nn.Module], batches: Iterator[Batch]) -> LogProbs:
    """(N, C) log-probabilities in the order of the batches."""
    return torch.cat([mean_log_probs(models, batch).float() for batch in batches]).cpu().numpy()


def _translate(
    models: Sequence[Translator], batches: Iterator[Batch], decode: DecodeConfig, outputs: _Outputs
) -> tuple[float, Ragged, int]:
    """(loss per real target token of the reference, output ids of each row, how many of them were cut off), of all
    processes."""
    losses, ids, n_targets, n_cut_off = [], list[Ints](), 0, 0
    for batch in batches:
        losses.append(models[0].loss(batch) if len(models) == 1 else -token_log_probs(models, batch).sum())
        n_targets += batch.n_targets
        found = translate(models, batch, decode)
        n_cut_off += int(cut_off(models, batch, found).sum())
        ids += found
    loss, n_all, n_cut_off = outputs.world.sum(np.array([_total(losses), n_targets, n_cut_off])).tolist()
    lengths = np.array([len(row) for row in ids])
    return loss / n_all, outputs.gathered_rows(Ragged(np.concatenate(ids), offsets_of(lengths))), int(n_cut_off)


def _total(losses: list[Tensor]) -> float:
    """The sum, in float64 and with one wait for the device."""
    return float(torch.stack(losses).double().sum())


def _evaluate_masked(predicted: MaskedPredictions, rows: Ints, split: Split, data: TaskData) -> Evaluation:
    return Evaluation(
        loss=predicted.loss / max(1, len(predicted.token)),
        metrics=scores("masked", MaskedOutputs(hits=predicted.hits, hidden=predicted.hidden)),
        main=main_metric("masked"),
        rows=rows,
        predictions=FilledTexts(predicted, np.arange(len(rows)), rows, split, data.src_tokenizer),
    )


def _evaluate_texts(
    loss: float, texts: list[str], n_cut_off: int, rows: Ints, split: Split, data: TaskData, bleu_tokenize: str
) -> Evaluation:
    references = [split.references(int(row)) for row in rows]
    outputs = TextOutputs(hypotheses=texts, references=references, bleu_tokenize=bleu_tokenize)
    return Evaluation(
        loss=loss,
        metrics=scores(data.metrics, outputs),
        main=main_metric(data.metrics),
        rows=rows,
        predictions=texts,
        n_cut_off=n_cut_off,
        notes=(*_on_cut_off(n_cut_off, len(texts)), *notes_on(texts, references, data.metrics, bleu_tokenize)),
    )


def _on_cut_off(n_cut_off: int, n_texts: int) -> tuple[str, ...]:
    """What is said of outputs that never ended."""
    if not n_cut_off:
        return ()
    remedy = "train longer, or raise data.max_length if references are that long"
    return (f"{n_cut_off:,} of {n_texts:,} outputs were cut off at the limit on their length; {remedy}",)


BLEU_WORDS = 4
"""BLEU counts runs of up to so many words; a reference with fewer has none of the longest."""


def notes_on(texts: Sequence[str], references: Sequence[Sequence[str]], metrics: str, tokenize: str) -> Iterator[str]:
    """Where scores are low for another reason than bad outputs."""
    if metrics == "bleu" and tokenize not in ("zh", "ja-mecab", "char"):
        short = sum(len(one[0].split()) < BLEU_WORDS for one in references if one)
        if 2 * short > len(references):
            yield (
                f"{short:,} of {len(references):,} references have fewer than {BLEU_WORDS} words between spaces, for "
                f"which BLEU counts next to nothing; without spaces set data.bleu_tokenize to zh, ja-mecab or char"
            )
    cased = sum(one[0] != one[0].lower() for one in references if one)
    if cased and any(text.strip() for text in texts) and all(text == text.lower() for text in texts):
        yield (
            f"every output is in lower case, and {cased:,} of {len(references):,} references are not (see "
            f"data.tokenizer.lowercase); scores tell the two apart"
        )
