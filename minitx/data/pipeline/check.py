"""Tables as read to examples that can be trusted: every record checked, missing splits cut, references grouped."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from minitx.config import DataConfig, KeepTogether, rule
from minitx.data.pipeline.groups import families
from minitx.data.pipeline.subset import subset_order
from minitx.data.sources.examples import SPLITS, Corpus, Examples
from minitx.data.sources.files import Table, column_keys
from minitx.data.splits import IntArray

CUT_SEEDS = {"test": 1, "validation": 2}
"""Fixed, so that a set is cut the same way whatever the run's seeds are."""
UNLABELLED = "-1"


def prepare(tables: dict[str, Table], config: DataConfig) -> Corpus:
    """Examples of all three splits.

    Raises ConfigError, naming split or file and record, for a field that is missing, empty or no text, a label that
    training does not have, a label column with one class, and a set too small to cut a missing split from.
    """
    for table in tables.values():
        _check_texts(table, config)
    if config.task == "classification":
        return _classification(tables, config)
    return _translation(tables, config)


def _fault(config: DataConfig, side: int, must: str, where: str, row: int, has: str) -> Exception:
    key, column = column_keys(config)[side], config.columns[side]
    return rule(key, column, must, f"record {row + 1} of {where} has {has}")


def _check_texts(table: Table, config: DataConfig) -> None:
    """Texts must be text that UTF-8 can spell (JSON can hold half a surrogate pair)."""
    if not table.inputs:
        raise rule("data.path", config.path, "hold at least one record in each split", f"{table.where} has none")
    sides = [(0, table.inputs)] + ([(1, table.targets)] if config.task == "translation" else [])
    for side, texts in sides:
        for row, text in enumerate(texts):
            if not isinstance(text, str):
                raise _fault(config, side, "hold text in every record", table.where, row, _shown(text))
            if not text.isascii() and not _spellable(text):
                raise _fault(config, side, "hold valid Unicode", table.where, row, "a lone surrogate")


def _shown(value: Any) -> str:
    return "none" if value is None else f"{value!r:.40}"


def _spellable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


# ----------------------------------------------------------------------------------------------------- classification


def _classification(tables: dict[str, Table], config: DataConfig) -> Corpus:
    notes = []
    labels = {
        name: [_label(value, table, config, row) for row, value in enumerate(table.targets)]
        for name, table in tables.items()
    }
    names = tables["train"].class_names or _sorted_names(label for label in labels["train"] if label is not None)
    splits = {}
    for name, table in tables.items():
        if name != "train" and _unlabelled(labels[name], names):
            notes.append(f"{table.where} has no labels and is left out")
            continue
        splits[name] = Examples(table.inputs, labels=_numbers(labels[name], names, table, config))
        notes += _blank_notes(table, config)
    present = _sorted_names(label for label in labels["train"] if label is not None)
    if len(present) < 2:
        key, column = column_keys(config)[1], config.columns[1]
        raise rule(key, column, "hold at least two classes in training", f"all its records have {present[0]!r}")
    return _complete(splits, config, notes, names)


def _label(value: Any, table: Table, config: DataConfig, row: int) -> str | None:
    """A label as text, None where there is none."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and table.class_names is not None:
        return table.class_names[value] if value >= 0 else None  # -1: `datasets` has no others
    if isinstance(value, int | str):
        return str(value)
    raise _fault(config, 1, "hold text, integers or true and false", table.where, row, _shown(value))


def _sorted_names(labels: Iterable[str]) -> tuple[str, ...]:
    """Distinct labels, numbers in the order of their values."""
    distinct = set(labels)
    try:
        return tuple(sorted(distinct, key=int))
    except ValueError:
        return tuple(sorted(distinct))


def _unlabelled(labels: list[str | None], names: tuple[str, ...]) -> bool:
    """A published test split without its labels: all of them are missing, or -1 where -1 is no class."""
    return all(label is None or (label == UNLABELLED and label not in names) for label in labels)


def _numbers(labels: list[str | None], names: tuple[str, ...], table: Table, config: DataConfig) -> IntArray:
    """(rows,) int64 class numbers."""
    number = {name: i for i, name in enumerate(names)}
    for row, label in enumerate(labels):
        if label is None:
            raise _fault(config, 1, "hold a label in every record", table.where, row, "none")
        if label not in number:
            raise _fault(config, 1, "hold labels that training has", table.where, row, repr(label))
    return np.array([number[label] for label in labels if label is not None], np.int64)


def _blank_notes(table: Table, config: DataConfig) -> list[str]:
    """Published sets hold some blank texts; in the user's own files one is a mistake."""
    blank = [row for row, text in enumerate(table.inputs) if not text.strip()]
    if blank and config.source == "files":
        raise _fault(config, 0, "hold text in every record", table.where, blank[0], "an empty one")
    return [f"{table.where} has {len(blank):,} blank texts"] if blank else []


# -------------------------------------------------------------------------------------------------------- translation


def _translation(tables: dict[str, Table], config: DataConfig) -> Corpus:
    notes, splits = [], {}
    for name, table in tables.items():
        pairs = list(zip(table.inputs, table.targets, strict=True))
        full = [pair for pair in pairs if pair[0].strip() and pair[1].strip()]
        if len(full) < len(pairs):
            if name != "train" or not full:
                row = next(i for i, (src, tgt) in enumerate(pairs) if not (src.strip() and tgt.strip()))
                side = 1 if pairs[row][0].strip() else 0
                raise _fault(config, side, "hold text in every record", table.where, row, "an empty one")
            notes.append(
                f"{len(pairs) - len(full):,} of {len(pairs):,} training pairs have an empty side and are dropped"
            )
        splits[name] = Examples([src for src, _ in full], references=[(tgt,) for _, tgt in full])
    corpus = _complete(splits, config, notes, None)
    if not config.multi_reference:
        return corpus
    grouped = {name: part if name == "train" else _grouped(part) for name, part in corpus.splits.items()}
    return Corpus(grouped, None, corpus.notes)


def _grouped(examples: Examples) -> Examples:
    """Rows that share a source text become one, with their distinct references in order."""
    references: dict[str, dict[str, None]] = {}
    for text, accepted in zip(examples.texts, examples.references or [], strict=True):
        references.setdefault(text, {}).update(dict.fromkeys(accepted))
    return Examples(list(references), references=[tuple(accepted) for accepted in references.values()])


# ------------------------------------------------------------------------------------------------------ missing splits


def _complete(
    splits: dict[str, Examples], config: DataConfig, notes: list[str], names: tuple[str, ...] | None
) -> Corpus:
    """Cut the splits that the source lacks from train, each its fraction of the rows that train had at first."""
    n_rows = len(splits["train"])
    for name, size in (("test", config.test_size), ("validation", config.validation_size)):
        if name in splits:
            continue
        train = splits["train"]
        rows, phrases = _cut_rows(train, config.keep_together, round(size * n_rows), CUT_SEEDS[name])
        left = np.setdiff1d(np.arange(len(train)), np.concatenate((rows, phrases)))
        if not 0 < len(left) < len(train):
            remedy = "data.keep_together=text ties fewer of them together" if config.keep_together != "text" else ""
            must = f"cut at least one of {n_rows:,} training rows and leave one"
            raise rule(f"data.{name}_size", size, must, remedy)
        splits[name], splits["train"] = train.take(rows), train.take(left)
        null = config.source == "dataset" and getattr(config, f"{name}_split") is None
        why = f"data.{name}_split is null" if null else "the source has none"
        notes.append(f"{name}: {len(rows):,} rows cut from train (data.{name}_size {size}), because {why}")
        if len(phrases):
            notes[-1] += f"; {len(phrases):,} phrases of them are in no split (data.keep_together)"
    return Corpus({name: splits[name] for name in SPLITS}, names, tuple(notes))


def _cut_rows(examples: Examples, keep_together: KeepTogether, count: int, seed: int) -> tuple[IntArray, IntArray]:
    """`count` rows, and the rest of the last one's family: (whole texts, phrases of them), no family divided.

    Families are drawn at random, stratified by the class of their head: heads have each class in its share to within
    about one family. The other rows, which may be of other classes, have it as chance has it.
    """
    found = families(examples.texts, keep_together)
    heads, unit = np.unique(found.head, return_inverse=True)
    labels = None if examples.labels is None else examples.labels[heads]
    place = np.argsort(subset_order(len(heads), labels, seed))
    drawn = np.isin(unit, unit[np.argsort(place[unit], kind="stable")[:count]])
    return np.flatnonzero(drawn & found.whole), np.flatnonzero(drawn & ~found.whole)
