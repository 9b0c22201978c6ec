"""Examples to tokenised splits: token ids cut to `max_length`, their sentence numbers and targets."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from minitx.batch import CLS, EOS
from minitx.config import Truncation
from minitx.data.pipeline.tokenizer import Tokenizer
from minitx.data.sources import Examples
from minitx.data.splits import BoolArray, Ragged, Split, Task, Texts, offsets_of

CHUNK = 1000
"""Texts tokenised at a time: the library's result objects are large."""

SENTENCE_END = re.compile(r"[.!?]\s+(?=\S)")
"""A sentence begins after a full stop, exclamation or question mark that white space follows. That is wrong after an
abbreviation; the rule is meant to be simple and the same everywhere."""

KEPT: dict[Truncation, str] = {"head": "first", "tail": "last", "head_tail": "first and last"}
"""Which tokens of a text that is too long are kept, as messages name them."""


@dataclass(frozen=True)
class _Side:
    """One side of some rows, cut to `max_length` with its special token."""

    ids: Ragged
    sentences: Ragged
    cut: BoolArray
    """(rows,) True = something was left out."""


def encode_texts(
    texts: Sequence[str], src_tokenizer: Tokenizer, task: Task, max_length: int, truncate: Truncation = "head"
) -> Split:
    """A split without targets, to predict on: its batches have empty `targets` and no `tgt_in`.

    max_length: tokens that are kept of a text, special ones included. truncate: which ones are kept of a longer text.
    """
    src = _encode(texts, src_tokenizer, max_length, truncate, lead=task != "translation")
    return Split(src=src.ids, sentences=src.sentences, texts=Texts.of(texts), n_cut=int(src.cut.sum()))


def encode_examples(
    examples: Examples,
    src_tokenizer: Tokenizer,
    tgt_tokenizer: Tokenizer | None,
    max_length: int,
    truncate: Truncation = "head",
) -> Split:
    """A split with its targets; each side is cut as by `encode_texts`."""
    if examples.references is None or tgt_tokenizer is None:
        split = encode_texts(examples.texts, src_tokenizer, "classification", max_length, truncate)
        return replace(split, labels=examples.labels)
    src = _encode(examples.texts, src_tokenizer, max_length, truncate, lead=False)
    targets = [references[0] for references in examples.references]
    tgt = _encode(targets, tgt_tokenizer, max_length, truncate, lead=False)
    return Split(
        src=src.ids,
        sentences=src.sentences,
        texts=Texts.of(examples.texts),
        tgt=tgt.ids,
        reference_texts=Texts.of([text for references in examples.references for text in references]),
        reference_groups=offsets_of(np.array([len(references) for references in examples.references], np.int64)),
        n_cut=int((src.cut | tgt.cut).sum()),
    )


def _encode(texts: Sequence[str], tokenizer: Tokenizer, max_length: int, truncate: Truncation, *, lead: bool) -> _Side:
    """Tokenise in chunks. lead: rows are [CLS] + ids, else ids + [EOS]."""
    starts = range(0, max(1, len(texts)), CHUNK)
    chunks = [
        _encode_chunk(texts[start : start + CHUNK], tokenizer, max_length - 1, truncate, lead) for start in starts
    ]
    return _Side(
        Ragged.joined([chunk.ids for chunk in chunks]),
        Ragged.joined([chunk.sentences for chunk in chunks]),
        np.concatenate([chunk.cut for chunk in chunks]),
    )


def _encode_chunk(texts: Sequence[str], tokenizer: Tokenizer, room: int, truncate: Truncation, lead: bool) -> _Side:
    marks = [[end.end() for end in SENTENCE_END.finditer(text)] for text in texts]
    if any(marks):
        encoded, firsts = tokenizer.encode_with_marks(texts, marks)
    else:
        encoded, firsts = tokenizer.encode_batch(texts), marks
    rows, starts = [], []
    for ids, first in zip(encoded, firsts, strict=True):
        head, tail = kept_tokens(len(ids), room, truncate)
        kept = ids[:head] + ids[len(ids) - tail :]
        rows.append([CLS, *kept] if lead else [*kept, EOS])
        starts.append([int(lead) + place for place in _places(first, len(ids), head, tail)])
    encoded_rows = Ragged.of(rows, np.uint16 if tokenizer.vocab_size <= 2**16 else np.uint32)
    cut = np.array([len(ids) > room for ids in encoded], np.bool_)
    return _Side(encoded_rows, _sentences(encoded_rows, starts), cut)


def kept_tokens(n_tokens: int, room: int, truncate: Truncation) -> tuple[int, int]:
    """How many of a text's tokens are kept from its beginning, and how many from its end, where `room` are."""
    if n_tokens <= room:
        return n_tokens, 0
    head = {"head": room, "tail": 0, "head_tail": -(-room // 4)}[truncate]
    return head, room - head


def _places(firsts: Sequence[int], n_tokens: int, head: int, tail: int) -> list[int]:
    """Where sentences begin among the tokens kept; where what is left out begins one, the tail does.

    firsts: the first token of every sentence of the text but its first.
    """
    left_out = n_tokens - head - tail
    places = (first if first < head else max(head, first - left_out) for first in firsts)
    return [place for place in places if 0 < place < head + tail]


def _sentences(ids: Ragged, starts: Sequence[Sequence[int]]) -> Ragged:
    """The 0-based sentence number of each token: one more from each start on, consecutive among the tokens kept."""
    begins = np.zeros(len(ids.flat), np.int64)
    for offset, row in zip(ids.offsets.tolist(), starts, strict=False):
        begins[[offset + start for start in row]] = 1
    before = np.concatenate([[0], np.cumsum(begins)])
    numbers = before[1:] - np.repeat(before[ids.offsets[:-1]], ids.lengths)
    return Ragged(numbers.astype(np.uint16), ids.offsets)
