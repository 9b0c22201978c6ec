"""Tables of files and of the hub to examples that can be trusted: every record is checked."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from minitx.config import DataConfig, rule
from minitx.data.progress import Progress
from minitx.data.sources.columns import Column, Singles
from minitx.data.sources.source import Corpus, Examples
from minitx.data.splits import IntArray

UNLABELLED = "-1"
_SURROGATE = re.compile("[\ud800-\udfff]")


@dataclass(frozen=True)
class Table:
    """One split as read, not yet checked: the two columns of the task."""

    where: str
    """How messages name it: `reviews.csv`, `the train split`."""
    inputs: Sequence[Any]
    targets: Sequence[Any]
    class_names: tuple[str, ...] | None = None
    """Names of integer labels, where the source declares them; -1 then means unlabelled."""
    notes: tuple[str, ...] = ()
    """For the user."""


def read_columns(
    pairs: Iterable[tuple[Any, Any]], config: DataConfig, progress: Progress
) -> tuple[Sequence[Any], Sequence[Any]]:
    """The two columns of all records; texts may be more than fits into memory. pairs: (input, target) of each."""
    inputs = Column(Path(config.cache_dir))
    targets: Column | list[Any] = Column(Path(config.cache_dir)) if config.task == "translation" else []
    known: dict[str, str] = {}  # one string of each label, not one of each row
    for value, target in progress.over(pairs):
        inputs.append(value)
        targets.append(known.setdefault(target, target) if isinstance(target, str) else target)
    return inputs, targets


def column_keys(config: DataConfig) -> tuple[str, str]:
    """The configuration keys that name the two columns."""
    if config.task == "classification":
        return "data.text_column", "data.label_column"
    return "data.src_column", "data.tgt_column"


def check_columns(config: DataConfig, where: str, present: list[str]) -> None:
    """Both columns of the task must be there."""
    for key, column in zip(column_keys(config), config.columns, strict=True):
        if column not in present:
            raise rule(key, column, f"be a column of {where}", f"it has: {', '.join(present)}")


def examples_of(tables: dict[str, Table], config: DataConfig) -> Corpus:
    """The examples of each table; `train` is always there.

    Raises:
        ConfigError: names split or file and record, for a field that is missing, empty or no text, or a label that
            training does not have.
    """
    for table in tables.values():
        _check_texts(table, config)
    return _classification(tables, config) if config.task == "classification" else _translation(tables, config)


def _wrong(config: DataConfig, side: int, must: str, where: str, row: int, has: str) -> Exception:
    """An error about one record. side: 0 = input column, 1 = target column."""
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
                raise _wrong(config, side, "hold text in every record", table.where, row, _shown(text))
            if _SURROGATE.search(text):
                raise _wrong(config, side, "hold valid Unicode", table.where, row, "a lone surrogate")


def _shown(value: Any) -> str:
    return "none" if value is None else f"{value!r:.40}"


# ----------------------------------------------------------------------------------------------------- classification


def _classification(tables: dict[str, Table], config: DataConfig) -> Corpus:
    notes = [note for table in tables.values() for note in (*table.notes, *_space_notes(table))]
    labels = {name: _labels(table, config) for name, table in tables.items()}
    names = tables["train"].class_names or _sorted_names(label for label in labels["train"] if label is not None)
    splits = {}
    for name, table in tables.items():
        if name != "train" and _unlabelled(labels[name], names):
            notes.append(f"{table.where} has no labels and is left out")
            continue
        splits[name] = Examples(table.inputs, labels=_numbers(labels[name], names, table, config))
        notes += _blank_notes(table, config)
    return Corpus(splits, names, tuple(notes))


def check_classes(corpus: Corpus, config: DataConfig) -> None:
    """That there is something to tell apart in training.

    Raises:
        ConfigError: all training rows have one label.
    """
    labels = corpus.splits["train"].labels
    if labels is None or corpus.label_names is None:
        return
    present = np.unique(labels)
    if len(present) < 2:
        key, only = column_keys(config)[1], corpus.label_names[present[0]]
        raise rule(key, config.columns[1], "hold at least two classes in training", f"all its records have {only!r}")


def _labels(table: Table, config: DataConfig) -> list[str | None]:
    """Of each row; equal ones are one string."""
    known: dict[str | None, str | None] = {}
    labels = (_label(value, table, config, row) for row, value in enumerate(table.targets))
    return [known.setdefault(label, label) for label in labels]


def _label(value: Any, table: Table, config: DataConfig, row: int) -> str | None:
    """A label as text, None where there is none."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int) and table.class_names is not None:
        return table.class_names[value] if value >= 0 else None  # -1: `datasets` has no others
    if isinstance(value, int | str):
        if isinstance(value, str) and _SURROGATE.search(value):
            raise _wrong(config, 1, "hold valid Unicode", table.where, row, "a lone surrogate")
        return str(value).strip()
    raise _wrong(config, 1, "hold text, integers or true and false", table.where, row, _shown(value))


def _space_notes(table: Table) -> list[str]:
    """White space around a label is dropped: nobody can see it, and it would make another class."""
    n = sum(isinstance(label, str) and label != label.strip() != "" for label in table.targets)
    return [f"{table.where}: white space around {n:,} labels is dropped"] if n else []


def _sorted_names(labels: Iterable[str]) -> tuple[str, ...]:
    """Distinct labels, numbers in the order of their values ('01' before '1', which has the same value)."""
    distinct = set(labels)
    try:
        return tuple(sorted(distinct, key=lambda label: (int(label), label)))
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
            raise _wrong(config, 1, "hold a label in every record", table.where, row, "none")
        if label not in number:
            raise _wrong(config, 1, "hold labels that training has", table.where, row, repr(label))
    return np.fromiter((number[label] for label in labels if label is not None), np.int64, len(labels))


def _blank_notes(table: Table, config: DataConfig) -> list[str]:
    """Published sets hold some blank texts; in the user's own files one is a mistake."""
    blank = [row for row, text in enumerate(table.inputs) if not text.strip()]
    if blank and config.source == "files":
        raise _wrong(config, 0, "hold text in every record", table.where, blank[0], "an empty one")
    return [f"{table.where} has {len(blank):,} blank texts"] if blank else []


# -------------------------------------------------------------------------------------------------------- translation


def _translation(tables: dict[str, Table], config: DataConfig) -> Corpus:
    notes, splits = [note for table in tables.values() for note in table.notes], {}
    for name, table in tables.items():
        pairs = Examples(table.inputs, references=Singles(table.targets))
        both = zip(table.inputs, table.targets, strict=True)
        full = np.fromiter((bool(src.strip() and tgt.strip()) for src, tgt in both), np.bool_, len(pairs))
        if not full.all():
            if name != "train" or not full.any():
                row = int(np.argmin(full))
                side = 1 if table.inputs[row].strip() else 0
                raise _wrong(config, side, "hold text in every record", table.where, row, "an empty one")
            notes.append(f"{np.sum(~full):,} of {len(pairs):,} training pairs have an empty side and are dropped")
            pairs = pairs.take(np.flatnonzero(full))
        splits[name] = pairs
    return Corpus(splits, notes=tuple(notes))
