"""Which rows train, validate and test: splits that a source lacks are cut from train, and a part of train is taken.

Rows that share text are cut together. A set like SST-2 holds sentences and the phrases of each: cut at random, it
leaves phrases of nearly every held-out text in training, and scores measure how well those are remembered.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from minitx.config import DataConfig, KeepTogether, rule
from minitx.data.progress import Progress, Report, silent
from minitx.data.sources.source import SPLITS, Corpus, Examples, stratified_order
from minitx.data.splits import BoolArray, IntArray

CUT_SEEDS = {"test": 1, "validation": 2}
"""Fixed, so that a set is cut the same way whatever the run's seeds are."""
MIN_SHARED_WORDS = 4
"""Words of a phrase that ties together all the texts that hold it. Shorter ones occur in texts that have nothing else
in common: those of two words tie 42,063 of the 67,349 rows of SST-2 together, those of four at most 195."""
LONGEST_PHRASE = 100
"""Words. Longer texts are searched for phrases, but not looked for in other texts, which takes too long."""


def cut_missing_splits(corpus: Corpus, config: DataConfig, report: Report = silent) -> Corpus:
    """All three splits; those that the source lacks are cut from train, each its fraction of the rows that train had
    at first. Raises ConfigError where train is too small."""
    splits, notes, n_rows = dict(corpus.splits), list(corpus.notes), len(corpus.splits["train"])
    cut = [name for name in ("test", "validation") if name not in splits]
    keys = {"train": RowKeys.of(splits["train"], report)} if cut else {}
    for name in cut:
        size, train = getattr(config, f"{name}_size"), splits["train"]
        count = round(size * n_rows)
        rows, dropped = _draw_rows(train, keys["train"], config.keep_together, count, CUT_SEEDS[name])
        left = np.setdiff1d(np.arange(len(train)), np.concatenate((rows, dropped)))
        if not (len(rows) and len(left)):
            remedy = "data.keep_together=text ties fewer of them together" if config.keep_together != "text" else ""
            must = f"cut at least one of {n_rows:,} training rows and leave one"
            raise rule(f"data.{name}_size", size, must, remedy)
        splits[name], splits["train"] = train.take(rows), train.take(left)
        keys[name], keys["train"] = keys["train"].take(rows), keys["train"].take(left)
        null = config.source == "dataset" and getattr(config, f"{name}_split") is None
        why = f"data.{name}_split is null" if null else "the source has none"
        notes.append(f"{name}: {len(rows):,} rows cut from train (data.{name}_size {size}), because {why}")
        if len(dropped):
            what = "phrases of them" if config.keep_together == "phrases" else "pairs with a target of theirs"
            notes[-1] += f"; {len(dropped):,} {what} are in no split (data.keep_together)"
    if cut:
        notes += _target_notes(keys, cut)
    return replace(corpus, splits={name: splits[name] for name in SPLITS}, notes=tuple(notes))


@dataclass(frozen=True, eq=False)
class RowKeys:
    """By which rows are alike, computed once, for the texts of a large set do not fit into memory: (rows,) hashes. Two
    of 20 million texts have one hash with probability 1e-5: they would then be kept together, which harms nothing."""

    text: NDArray[np.uint64]
    folded: NDArray[np.uint64]
    """Of `text_key`: the same for texts that differ in case or white space alone."""
    target: NDArray[np.uint64] | None
    """Translation: likewise of each row's first reference."""

    @classmethod
    def of(cls, examples: Examples, report: Report = silent) -> RowKeys:
        """Of all rows, read once."""
        n = len(examples)
        texts = Progress("cut", "texts compared", report, n).over(examples.texts)
        pairs = ((_hash(text), _hash(text_key(text))) for text in texts)
        both = np.fromiter(pairs, [("text", np.uint64), ("folded", np.uint64)], n)
        targets = None
        if examples.references is not None:
            references = Progress("cut", "targets compared", report, n).over(examples.references)
            targets = _hashes(text_key(accepted[0]) for accepted in references)
        return cls(both["text"].copy(), both["folded"].copy(), targets)

    def take(self, rows: IntArray) -> RowKeys:
        """Of these rows."""
        return RowKeys(self.text[rows], self.folded[rows], None if self.target is None else self.target[rows])


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


def _hashes(texts: Iterable[str]) -> NDArray[np.uint64]:
    return np.fromiter(map(_hash, texts), np.uint64)


def text_key(text: str) -> str:
    """The same for texts that differ in case or white space alone; blank ones tell nothing of each other."""
    return " ".join(text.casefold().split()) or text


def _target_notes(keys: Mapping[str, RowKeys], cut: Sequence[str]) -> list[str]:
    """Translation: how many targets of a split that was cut from train occur in training as well."""
    known = keys["train"].target
    if known is None:
        return []
    targets = {name: keys[name].target for name in cut}
    shared = {name: int(np.isin(target, known).sum()) for name, target in targets.items() if target is not None}
    return [
        f"{name}: {n:,} of {len(keys[name].text):,} targets occur in training too, with other sources; "
        "data.keep_together=both keeps them apart"
        for name, n in shared.items()
        if n
    ]


def merge_references(examples: Examples) -> Examples:
    """Translation: rows that share a source text become one, with their distinct references in order."""
    references: dict[str, dict[str, None]] = {}
    for text, accepted in zip(examples.texts, examples.references or [], strict=True):
        references.setdefault(text, {}).update(dict.fromkeys(accepted))
    return Examples(list(references), references=[tuple(accepted) for accepted in references.values()])


def take_subset(train: Examples, config: DataConfig) -> tuple[Examples, list[str]]:
    """The nested, stratified subset of the training rows that `data.train_size` asks for, and a note on it."""
    size, n_rows = config.train_size, len(train)
    if size is None:
        return train, []
    count = max(1, round(size * n_rows)) if isinstance(size, float) else size
    if count > n_rows:
        raise rule("data.train_size", size, f"be at most the {n_rows:,} training rows of {config.name}", "null = all")
    note = f"training uses {count:,} of {n_rows:,} rows (data.train_size, data.subset_seed {config.subset_seed})"
    return train.take(subset_rows(n_rows, train.labels, count, config.subset_seed)), [note]


def subset_rows(n_rows: int, labels: IntArray | None, count: int, seed: int) -> IntArray:
    """The first `count` rows of the stratified order, sorted back into the set's own order."""
    return np.sort(stratified_order(n_rows, labels, seed)[:count])


def _draw_rows(
    examples: Examples, keys: RowKeys, keep_together: KeepTogether, count: int, seed: int
) -> tuple[IntArray, IntArray]:
    """`count` rows, and the rest of the last one's group: (rows to evaluate on, rows for no split), no group divided.

    Groups are drawn at random, stratified by the class of their head: heads have each class in its share to within
    about one group. The other rows, which may be of other classes, have it by chance. In no split are phrases of what
    is drawn, and with `both` the pairs left that share a target with it.
    """
    groups = _phrase_groups(examples.texts) if keep_together == "phrases" else _equal_texts(keys.text)
    group: IntArray
    heads, group = np.unique(groups.head, return_inverse=True)
    labels = None if examples.labels is None else examples.labels[heads]
    place = np.argsort(stratified_order(len(heads), labels, seed))[group]
    if keep_together != "phrases":  # texts that differ in case or white space alone come with the first of them
        group = np.unique(keys.folded, return_inverse=True)[1]
        first = np.full(len(place), len(place))
        np.minimum.at(first, group, place)
        place = first[group]
    drawn = np.isin(group, group[np.argsort(place, kind="stable")[:count]])
    dropped = drawn & ~groups.whole
    if keep_together == "both" and keys.target is not None:
        dropped = np.isin(keys.target, keys.target[drawn]) & ~drawn
    return np.flatnonzero(drawn & groups.whole), np.flatnonzero(dropped)


# -------------------------------------------------------------------------------------------------------- text groups


@dataclass(frozen=True)
class TextGroups:
    """Rows that a cut must not divide, by row number."""

    head: IntArray
    """(rows,) int64: one row of the group, the same for all of it: the longest in words, the first of several."""
    whole: BoolArray
    """(rows,) False where another row holds all the row's words, in order and adjacent, and more."""


def group_texts(texts: Sequence[str], keep_together: KeepTogether) -> TextGroups:
    """text, both: the rows of one text are a group, its head the first; all rows are whole.

    phrases: a group is the texts that share a phrase of at least `MIN_SHARED_WORDS` words, directly or by way of other
    texts, with all their phrases; a shorter phrase goes with the longest text that holds it, of several the first. A
    phrase is a row of at most `LONGEST_PHRASE` words that occurs in another. Words end at white space, however much.
    This holds all texts in memory.
    """
    return _phrase_groups(texts) if keep_together == "phrases" else _equal_texts(_hashes(texts))


def _equal_texts(hashes: NDArray[np.uint64]) -> TextGroups:
    _, first, group = np.unique(hashes, return_index=True, return_inverse=True)
    return TextGroups(first[group], np.ones(len(hashes), np.bool_))


def _phrase_groups(texts: Sequence[str]) -> TextGroups:
    words = [tuple(text.split()) for text in texts]
    number = {text: i for i, text in enumerate(sorted(dict.fromkeys(words), key=len, reverse=True))}
    longest, whole = _tie_phrases(list(number))
    number_of_row = np.array([number[text] for text in words], np.int64)
    first_row = np.unique(number_of_row, return_index=True)[1]
    return TextGroups(first_row[longest[number_of_row]], whole[number_of_row])


def _tie_phrases(texts: list[tuple[str, ...]]) -> tuple[IntArray, BoolArray]:
    """Of distinct texts in words, from long to short: the number of the longest of each one's group, and whether no
    other text holds it. What a phrase holds, the text around it holds too: only whole texts are searched."""
    whole = np.ones(len(texts), np.bool_)
    ties = []
    find = _phrase_finder(texts)
    for number, text in enumerate(texts):
        if whole[number]:
            for phrase in find(text):
                if whole[phrase] or len(texts[phrase]) >= MIN_SHARED_WORDS:
                    ties.append((number, phrase))
                whole[phrase] = False
    # imported here, because it takes a sixth of a second and few sets need it
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    one, other = np.array(ties, np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(one), np.bool_), (one, other)), shape=(len(texts), len(texts)))
    group = connected_components(graph, directed=False)[1]
    return np.unique(group, return_index=True)[1][group], whole


def _phrase_finder(texts: list[tuple[str, ...]]) -> Callable[[tuple[str, ...]], Iterator[int]]:
    """A function that finds, in a text, all other texts that it holds: their numbers, once for each occurrence."""
    number_of: dict[tuple[str, ...], int] = {}
    lengths: dict[str, set[int]] = defaultdict(set)
    for number, text in enumerate(texts):
        if 0 < len(text) <= LONGEST_PHRASE:
            number_of[text] = number
            lengths[text[0]].add(len(text))

    def find(text: tuple[str, ...]) -> Iterator[int]:
        for start, word in enumerate(text):
            for length in lengths.get(word, ()):
                phrase = text[start : start + length]
                if length < len(text) and len(phrase) == length and phrase in number_of:
                    yield number_of[phrase]

    return find
