"""Generated tasks that show what attention, convolution and recurrence can learn.

An example text of each kind is in `minitx/config/probe.py`.

`recall` and `agreement`: two marks, each with a number; the class says whether the two numbers are equal. In recall the
marks are `distance` apart, or anywhere; in agreement one is in the first quarter of the text and one in the last.
A model has to see both marks at once. What a window holds that is too narrow for both, and where it is, has the same
distribution in both classes. So a model that reads such windows, takes the mean over positions and maps it linearly to
class scores never gets a cross-entropy below that of guessing: its mean scores are equal in both classes (Jensen's
inequality). Its accuracy can be higher, up to 3/4, by a threshold on such a sum. Other poolings compare windows by
themselves, and can tell the classes with windows of one token.

`motif`: a text of the second class is one of the first class with every sentence read backwards. Counts of tokens are
therefore equal in both classes; neighbouring tokens differ.

`copy`, `reverse` and `sort` are translations of random symbols.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from minitx.batch import SPECIAL_TOKENS
from minitx.config import DataConfig, ProbeConfig, ProbeKind, rule
from minitx.config.probe import MOTIF, SENTENCE
from minitx.data.progress import Report, silent
from minitx.data.sources.source import SPLITS, Corpus, Examples, Source
from minitx.data.splits import IntArray

VERSION = 1
"""Raise it when other texts are drawn from the same settings."""
CLASSES = {
    "recall": ("different", "same"),
    "agreement": ("different", "same"),
    "motif": ("forwards", "backwards"),
}
MARKS = {"recall": ("key", "ask"), "agreement": ("fact", "claim")}
"""Names of the first mark and the second. They differ, because counts of equal tokens would reveal the class."""
STOP = "."

Ids = NDArray[np.int16]
"""(N, L) numbers of tokens, in the order of `token_names`."""


class Generated(Source):
    """`data.source: probe`."""

    symbols = True
    metrics = "error_rate"

    def check(self, config: DataConfig) -> None:
        """No token may be unknown to the model, as far as that can be known before texts are drawn."""
        n_tokens = len(token_names(config.probe))
        least = len(SPECIAL_TOKENS) + n_tokens
        for key, tokenizer in (("tokenizer", config.tokenizer), ("tgt_tokenizer", config.tgt_tokenizer)):
            if tokenizer is not None and tokenizer.vocab_size < least:
                must = f"be at least {least}, because data.probe has {n_tokens} tokens"
                raise rule(f"data.{key}.vocab_size", tokenizer.vocab_size, must, "leave it out")

    def fingerprint(self, config: DataConfig) -> str:
        return f"probe-{VERSION}"

    def read(self, config: DataConfig, report: Report = silent) -> Corpus:
        return read_probe(config.probe)


def chance(kind: ProbeKind) -> float:
    """The accuracy of guessing: classes are of equal size, to within one text."""
    return 1 / len(CLASSES[kind])


def token_names(config: ProbeConfig) -> list[str]:
    """Symbols, whose order as text is the same; then first marks, second marks, and the full stop."""
    names = _numbered("s", config.n_symbols)
    for mark in MARKS.get(config.kind, ()):
        names += _numbered(mark, config.n_facts)
    return [*names, STOP]


def _numbered(name: str, count: int) -> list[str]:
    width = len(str(count - 1))
    return [f"{name}{i:0{width}}" for i in range(count)]


def read_probe(config: ProbeConfig) -> Corpus:
    """The splits: exact row counts, classes balanced within one row, no text twice in any of them."""
    seen: set[bytes] = set()
    sizes = {"train": config.n_train, "validation": config.n_validation, "test": config.n_test}
    splits: dict[str, Examples] = {}
    for name in reversed(SPLITS):  # the test texts are drawn first, so that the other sizes change none of them
        rng = np.random.default_rng([config.seed, SPLITS.index(name)])
        splits[name] = _examples(config, sizes[name], rng, seen)
    if config.task == "translation":
        return Corpus(splits)
    classes = CLASSES[config.kind]
    note = f"probe {config.kind}: {len(classes)} classes of equal size, chance is {100 * chance(config.kind):g} %"
    return Corpus(splits, label_names=classes, notes=(note,))


def _examples(config: ProbeConfig, n_rows: int, rng: np.random.Generator, seen: set[bytes]) -> Examples:
    if config.task == "translation":
        ids = _distinct(config, np.zeros(n_rows, np.int64), rng, seen)
        targets = {"copy": ids, "reverse": ids[:, ::-1], "sort": np.sort(ids)}[config.kind]
        return Examples(_texts(ids, config), references=[(text,) for text in _texts(targets, config)])
    labels = rng.permutation(np.arange(n_rows, dtype=np.int64) % len(CLASSES[config.kind]))
    return Examples(_texts(_distinct(config, labels, rng, seen), config), labels=labels)


def _texts(ids: Ids, config: ProbeConfig) -> list[str]:
    names = token_names(config)
    return [" ".join([names[token] for token in row]) for row in ids.tolist()]


def _distinct(config: ProbeConfig, labels: IntArray, rng: np.random.Generator, seen: set[bytes]) -> Ids:
    """A text for each label (N), none of which is in `seen`; they are added to it."""
    ids = np.empty((len(labels), config.length), np.int16)
    rows = np.arange(len(labels))
    while len(rows):
        ids[rows] = _draw(config, labels[rows], rng)
        again = []
        for row in rows:
            before = len(seen)
            seen.add(ids[row].tobytes())
            if len(seen) == before:
                again.append(row)
        rows = np.array(again, np.int64)
    return ids


# --------------------------------------------------------------------------------------------------------------- draw


def _draw(config: ProbeConfig, labels: IntArray, rng: np.random.Generator) -> Ids:
    ids = rng.integers(config.n_symbols, size=(len(labels), config.length), dtype=np.int16)
    if config.task == "translation":
        return ids
    ids[:, config.stops] = len(token_names(config)) - 1
    if config.kind == "motif":
        _put_motif(config, ids, labels, rng)
    else:
        _put_marks(config, ids, labels, rng)
    return ids


def _put_marks(config: ProbeConfig, ids: Ids, labels: IntArray, rng: np.random.Generator) -> None:
    """Two marks in each row: with the same symbol (label 1), or with two that differ."""
    n_rows, n_facts = len(labels), config.n_facts
    first_N, second_N = _places(config, n_rows, rng)
    symbol_N = rng.integers(n_facts, size=n_rows)
    other_N = (symbol_N + 1 + rng.integers(n_facts - 1, size=n_rows)) % n_facts
    rows = np.arange(n_rows)
    ids[rows, first_N] = config.n_symbols + symbol_N
    ids[rows, second_N] = config.n_symbols + n_facts + np.where(labels == 1, symbol_N, other_N)


def _places(config: ProbeConfig, n_rows: int, rng: np.random.Generator) -> tuple[IntArray, IntArray]:
    """(N,) positions of both marks, every allowed pair with equal probability."""
    if config.distance is not None:
        first_N = rng.choice(np.array(config.starts(config.distance)), n_rows)
        return first_N, first_N + config.distance
    left, right = (np.array([p for p in area if p not in config.stops]) for area in config.areas)
    if config.kind == "agreement":
        return rng.choice(left, n_rows), rng.choice(right, n_rows)
    one_N = rng.integers(len(left), size=n_rows)
    other_N = (one_N + 1 + rng.integers(len(left) - 1, size=n_rows)) % len(left)
    return left[np.minimum(one_N, other_N)], left[np.maximum(one_N, other_N)]


def _put_motif(config: ProbeConfig, ids: Ids, labels: IntArray, rng: np.random.Generator) -> None:
    """One motif in each row, forwards (label 0) or backwards, and no other."""
    n_rows, rows = len(labels), np.arange(len(labels))
    stops = set(config.stops)
    starts = [s for s in range(config.length - MOTIF + 1) if not stops & set(range(s, s + MOTIF))]
    start_N = rng.choice(np.array(starts), n_rows)
    ids[rows[:, None], start_N[:, None] + np.arange(MOTIF)] = np.arange(MOTIF)
    left, middle, right = ids[:, :-2], ids[:, 1:-1], ids[:, 2:]
    motif = (middle == 1) & (((left == 0) & (right == 2)) | ((left == 2) & (right == 0)))
    motif[rows, start_N] = False
    middle[motif] = rng.integers(MOTIF, config.n_symbols, size=int(motif.sum()))
    for start in (0, *(stop + 1 for stop in config.stops)):
        end = min(start + SENTENCE - 1, config.length)
        ids[labels == 1, start:end] = ids[labels == 1, start:end][:, ::-1]
