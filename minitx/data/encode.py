"""Examples to tokenised splits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from minitx.batch import CLS, EOS
from minitx.data.examples import Examples
from minitx.data.ragged import BoolArray, Ragged, Texts, offsets_of
from minitx.data.task import Split, Task
from minitx.data.tokenizer import Tokenizer

CHUNK = 1000
"""Texts tokenised at a time: the library's result objects are large."""

SENTENCE_END = re.compile(r"[.!?]\s+(?=\S)")
"""A sentence begins after a full stop, exclamation or question mark that white space follows. Abbreviations do not
know that; the rule is here to be simple, stated and the same everywhere."""


@dataclass(frozen=True)
class _Side:
    """One side of some rows, cut to `max_length` with its special token."""

    ids: Ragged
    sentences: Ragged
    cut: BoolArray
    """(rows,) True = something was left out."""


def encode_texts(texts: Sequence[str], src_tokenizer: Tokenizer, task: Task, max_length: int) -> Split:
    """A split without targets, to predict on: its batches have empty `targets` and no `tgt_in`."""
    src = _encode(texts, src_tokenizer, max_length, lead=task == "classification")
    return Split(src=src.ids, sentences=src.sentences, texts=Texts.of(texts), n_cut=int(src.cut.sum()))


def encode_examples(
    examples: Examples, src_tokenizer: Tokenizer, tgt_tokenizer: Tokenizer | None, max_length: int
) -> Split:
    """A split with its targets; each side is cut to `max_length` tokens, special ones included."""
    if examples.references is None or tgt_tokenizer is None:
        split = encode_texts(examples.texts, src_tokenizer, "classification", max_length)
        return replace(split, labels=examples.labels)
    src = _encode(examples.texts, src_tokenizer, max_length, lead=False)
    tgt = _encode([references[0] for references in examples.references], tgt_tokenizer, max_length, lead=False)
    return Split(
        src=src.ids,
        sentences=src.sentences,
        texts=Texts.of(examples.texts),
        tgt=tgt.ids,
        reference_texts=Texts.of([text for references in examples.references for text in references]),
        reference_groups=offsets_of(np.array([len(references) for references in examples.references], np.int64)),
        n_cut=int((src.cut | tgt.cut).sum()),
    )


def _encode(texts: Sequence[str], tokenizer: Tokenizer, max_length: int, *, lead: bool) -> _Side:
    """lead: [CLS] + ids, else ids + [EOS]."""
    starts = range(0, max(1, len(texts)), CHUNK)
    chunks = [_encode_chunk(texts[start : start + CHUNK], tokenizer, max_length, lead) for start in starts]
    return _Side(
        Ragged.joined([chunk.ids for chunk in chunks]),
        Ragged.joined([chunk.sentences for chunk in chunks]),
        np.concatenate([chunk.cut for chunk in chunks]),
    )


def _encode_chunk(texts: Sequence[str], tokenizer: Tokenizer, max_length: int, lead: bool) -> _Side:
    starts = [[end.end() for end in SENTENCE_END.finditer(text)] for text in texts]
    if any(starts):
        encoded, firsts = tokenizer.encode_with_marks(texts, starts)
    else:
        encoded, firsts = tokenizer.encode_batch(texts), starts
    kept = [ids[: max_length - 1] for ids in encoded]
    rows = [[CLS, *ids] if lead else [*ids, EOS] for ids in kept]
    ids = Ragged.of(rows, np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32)
    cut = np.array([len(all_ids) >= max_length for all_ids in encoded], np.bool_)
    return _Side(ids, _sentences(ids, firsts, int(lead)), cut)


def _sentences(ids: Ragged, firsts: Sequence[Sequence[int]], lead: int) -> Ragged:
    """The 0-based sentence number of each token: one more from each sentence's first token on."""
    starts = np.zeros(len(ids.flat), np.int64)
    lengths = ids.lengths.tolist()
    for offset, length, row in zip(ids.offsets.tolist(), lengths, firsts, strict=False):
        starts[[offset + lead + first for first in row if lead + first < length]] = 1
    before = np.concatenate([[0], np.cumsum(starts)])
    numbers = before[1:] - np.repeat(before[ids.offsets[:-1]], lengths)
    return Ragged(numbers.astype(np.uint16), ids.offsets)
