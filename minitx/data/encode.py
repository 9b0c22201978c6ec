"""Examples to tokenised splits."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from minitx.batch import CLS, EOS
from minitx.data.examples import Examples
from minitx.data.ragged import BoolArray, IntArray, Ragged, Texts, offsets_of
from minitx.data.task import Split, Task
from minitx.data.tokenizer import Tokenizer

CHUNK = 1000
"""Texts tokenised at a time: the library's result objects are large."""

SENTENCE_END = re.compile(r"[.!?]\s+(?=\S)")
"""A sentence begins after a full stop, exclamation or question mark that white space follows. Abbreviations do not
know that; the rule is here to be simple, stated and the same everywhere."""


@dataclass(frozen=True)
class _Side:
    """One side of all rows, cut to `max_length` with its special token."""

    ids: Ragged
    cut: BoolArray
    """(rows,) True = something was left out."""
    sentences: Ragged | None = None


def encode_texts(texts: Sequence[str], src_tokenizer: Tokenizer, task: Task, max_length: int) -> Split:
    """A split without targets, to predict on: its batches have empty `targets` and no `tgt_in`."""
    src = _encode(texts, src_tokenizer, max_length, lead=task == "classification", sentences=True)
    return _split(src, texts=Texts.of(texts), n_cut=int(src.cut.sum()))


def encode_examples(
    examples: Examples, src_tokenizer: Tokenizer, tgt_tokenizer: Tokenizer | None, max_length: int
) -> Split:
    """A split with its targets; each side is cut to `max_length` tokens, special ones included."""
    texts = Texts.of(examples.texts)
    lead = examples.references is None
    src = _encode(examples.texts, src_tokenizer, max_length, lead=lead, sentences=True)
    if examples.references is None or tgt_tokenizer is None:
        return _split(src, texts=texts, labels=examples.labels, n_cut=int(src.cut.sum()))
    first = [references[0] for references in examples.references]
    tgt = _encode(first, tgt_tokenizer, max_length, lead=False, sentences=False)
    return _split(
        src,
        texts=texts,
        tgt=tgt.ids,
        reference_texts=Texts.of([text for references in examples.references for text in references]),
        reference_groups=offsets_of(np.array([len(references) for references in examples.references], np.int64)),
        n_cut=int((src.cut | tgt.cut).sum()),
    )


def _split(src: _Side, **rest: Any) -> Split:
    assert src.sentences is not None
    return Split(src=src.ids, sentences=src.sentences, **rest)


def _encode(texts: Sequence[str], tokenizer: Tokenizer, max_length: int, *, lead: bool, sentences: bool) -> _Side:
    """lead: [CLS] + ids, else ids + [EOS]. sentences: number the sentences of the tokens as well."""
    dtype = _smallest_dtype(tokenizer.vocab_size)
    rows, numbers, cut = [], [], []
    for start in range(0, len(texts), CHUNK):
        chunk = texts[start : start + CHUNK]
        marks = [[m.end() for m in SENTENCE_END.finditer(text)] for text in chunk] if sentences else []
        if any(marks):
            encoded, first_tokens = tokenizer.encode_with_marks(chunk, marks)
        else:
            encoded, first_tokens = tokenizer.encode_batch(chunk), [[]] * len(chunk)
        for ids, firsts in zip(encoded, first_tokens, strict=True):
            kept = ids[: max_length - 1]
            rows.append(np.array([CLS, *kept] if lead else [*kept, EOS], dtype))
            cut.append(len(kept) < len(ids))
            if sentences:
                numbers.append(_sentence_numbers(len(kept) + 1, [first + lead for first in firsts]))
    return _Side(
        Ragged.of(rows, dtype), np.array(cut, np.bool_), Ragged.of(numbers, np.uint16) if sentences else None
    )


def _sentence_numbers(length: int, firsts: Sequence[int]) -> IntArray:
    """(length,) 0-based numbers, one more from each sentence's first token on."""
    starts = np.zeros(length, np.uint16)
    starts[[first for first in firsts if first < length]] = 1
    return np.cumsum(starts, dtype=np.uint16)


def _smallest_dtype(vocab_size: int) -> type[np.uint16] | type[np.uint32]:
    return np.uint16 if vocab_size <= 2**16 else np.uint32
