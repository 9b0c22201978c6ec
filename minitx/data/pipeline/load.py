"""Configuration to data: check, read, take the subset, fit the tokeniser, tokenise, cache."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minitx.config import DataConfig, TokenizerConfig, rule
from minitx.data.masking import ordinary_tokens
from minitx.data.pipeline.cache import Entry, Meta, fetch
from minitx.data.pipeline.encode import KEPT, encode_examples
from minitx.data.pipeline.subset import subset_rows
from minitx.data.pipeline.tokenizer import Tokenizer
from minitx.data.sources.examples import SPLITS, Corpus, Examples
from minitx.data.sources.files import column_keys
from minitx.data.sources.source import identify_source, loaded_as, read_source
from minitx.data.splits import Metrics, Ragged, Split, TaskData, Texts, Vocabulary

FORMAT = 2
"""Raise it when the meaning of a cache entry changes."""


def load_data(config: DataConfig, fitted: Vocabulary | None = None, source: str | None = None) -> TaskData:
    """The data of a run, from the cache where it was prepared before.

    fitted: use its tokenisers and class numbers instead of fitting new ones, to evaluate a trained model on other
    data, or to hold the vocabulary fixed while `train_size` varies.
    source: the fingerprint that `identify_source` made, where the caller has made it already.

    Raises ConfigError where the configuration does not fit the data (see `identify_source` and `prepare`), or the data
    has a class that `fitted` does not know.
    """
    if config.task == "masked":
        return _for_guessing(load_data(loaded_as(config), fitted, source))
    source = identify_source(config) if source is None else source
    name = re.sub(r"[^\w.-]", "_", config.name)
    folder = Path(config.cache_dir) / f"{name}-{_key(config, source, fitted)[:16]}"
    return _task_data(config, source, fetch(folder, lambda: _prepare(config, fitted)))


def _key(config: DataConfig, source: str, fitted: Vocabulary | None) -> str:
    """Names all that the entry is made from: the source's content, every other setting, our format, the libraries."""
    places = {"name", "path", "validation_path", "test_path", "revision", "cache_dir"}
    unread = set() if config.source == "probe" else {"probe"}
    settings = config.model_dump(exclude={*places, *unread, "bleu_tokenize"})
    versions = {library: version(library) for library in ("tokenizers", "datasets", "numpy")}
    given = fitted and [*_jsons(fitted.src_tokenizer, fitted.tgt_tokenizer), fitted.label_names]
    key = [FORMAT, source, settings, versions, given]
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


def _for_guessing(data: TaskData) -> TaskData:
    """The same texts without labels; in training without those that hold no token to hide."""
    splits, notes = {}, []
    for name, split in data.splits.items():
        full = np.flatnonzero(ordinary_tokens(split))
        if not len(full):
            raise rule("data.task", "masked", "have tokens to hide", f"the {name} texts hold none that training knows")
        if name == "train" and len(full) < len(split):
            notes.append(f"{len(split) - len(full):,} of {len(split):,} training texts hold no token and are left out")
            split = split.take(full)
        splits[name] = replace(split, labels=None)
    return replace(data, task="masked", splits=splits, label_names=None, metrics="masked", notes=(*data.notes, *notes))


# ------------------------------------------------------------------------------------------------------------ prepare


def _prepare(config: DataConfig, fitted: Vocabulary | None) -> tuple[Meta, dict[str, NDArray[Any]]]:
    corpus = read_source(config)
    if fitted is not None:
        corpus = _renumbered(corpus, fitted, config)
    train, subset_notes = _subset(corpus.splits["train"], config)
    examples = {**corpus.splits, "train": train}
    fit_on = {"used": train, "train": corpus.splits["train"]}[config.tokenizer.fit_on]
    tokenizers = _fit(fit_on, config) if fitted is None else (fitted.src_tokenizer, fitted.tgt_tokenizer)
    splits = {
        name: encode_examples(part, *tokenizers, config.max_length, config.truncate) for name, part in examples.items()
    }
    meta = {
        "tokenizers": _jsons(*tokenizers),
        "joint": tokenizers[0] is tokenizers[1],
        "label_names": corpus.label_names,
        "n_cut": {name: split.n_cut for name, split in splits.items()},
        "notes": [*corpus.notes, *subset_notes, *_cut_notes(splits, config)],
    }
    return meta, {f"{name}.{key}": a for name, split in splits.items() for key, a in _arrays(split).items()}


def _renumbered(corpus: Corpus, fitted: Vocabulary, config: DataConfig) -> Corpus:
    """The same examples with the class numbers of `fitted`, found by name."""
    known = fitted.label_names
    if corpus.label_names is None or known is None or corpus.label_names == known:
        return corpus
    strange = [name for name in corpus.label_names if name not in known]
    if strange:
        key, column = column_keys(config)[1], config.columns[1]
        raise rule(key, column, "hold labels that the model knows", f"it has {strange[0]!r}, not {', '.join(known)}")
    number = np.array([known.index(name) for name in corpus.label_names])
    splits = {name: replace(part, labels=number[part.labels]) for name, part in corpus.splits.items()}
    return replace(corpus, splits=splits, label_names=known)


def _subset(train: Examples, config: DataConfig) -> tuple[Examples, list[str]]:
    """The nested, stratified subset of the training rows that `train_size` asks for."""
    size, n_rows = config.train_size, len(train)
    if size is None:
        return train, []
    count = max(1, round(size * n_rows)) if isinstance(size, float) else size
    if count > n_rows:
        raise rule("data.train_size", size, f"be at most the {n_rows:,} training rows of {config.name}", "null = all")
    note = f"training uses {count:,} of {n_rows:,} rows (data.train_size, data.subset_seed {config.subset_seed})"
    return train.take(subset_rows(n_rows, train.labels, count, config.subset_seed)), [note]


def _fit(train: Examples, config: DataConfig) -> tuple[Tokenizer, Tokenizer | None]:
    """(source, target) tokenisers from training rows; one object for both where the vocabulary is joint."""
    symbols = config.source in ("digits", "probe") or _metrics(config) == "error_rate"

    def fit(settings: TokenizerConfig, texts: list[str]) -> Tokenizer:
        return Tokenizer.fit(settings, texts, symbols=symbols)

    if train.references is None:
        return fit(config.tokenizer, train.texts), None
    targets = [references[0] for references in train.references]
    if config.tokenizer.joint and config.tgt_tokenizer is None:
        both = fit(config.tokenizer, train.texts + targets)
        return both, both
    return fit(config.tokenizer, train.texts), fit(config.tgt_tokenizer or config.tokenizer, targets)


def _cut_notes(splits: dict[str, Split], config: DataConfig) -> list[str]:
    """One warning that counts the texts that were cut."""
    counts = [
        f"{split.n_cut:,} of {len(split):,} {name} texts ({100 * split.n_cut / len(split):.1f} %)"
        for name, split in splits.items()
        if split.n_cut
    ]
    if not counts:
        return []
    kept = f"the {KEPT[config.truncate]} tokens are kept (data.truncate {config.truncate})"
    return [f"data.max_length ({config.max_length}) cuts {', '.join(counts)}; {kept}; raise it to read them whole"]


def _metrics(config: DataConfig) -> Metrics:
    if config.task == "classification":
        return "classification"
    if config.metrics == "auto":
        return "error_rate" if config.source in ("cmudict", "probe") else "bleu"
    return config.metrics


# --------------------------------------------------------------------------------------------------- to and from arrays


def _arrays(split: Split) -> dict[str, NDArray[Any]]:
    """A split as named arrays; sentence numbers share the offsets of the source."""
    arrays = {
        "src": split.src.flat,
        "src_offsets": split.src.offsets,
        "sentences": split.sentences.flat,
        "texts": split.texts.encoded.flat,
        "text_offsets": split.texts.encoded.offsets,
    }
    if split.labels is not None:
        arrays["labels"] = split.labels
    if split.tgt is not None and split.reference_texts is not None and split.reference_groups is not None:
        arrays |= {
            "tgt": split.tgt.flat,
            "tgt_offsets": split.tgt.offsets,
            "references": split.reference_texts.encoded.flat,
            "reference_offsets": split.reference_texts.encoded.offsets,
            "reference_groups": split.reference_groups,
        }
    return arrays


def _split(arrays: dict[str, NDArray[Any]], n_cut: int) -> Split:
    """The inverse of `_arrays`."""
    src = Ragged(arrays["src"], arrays["src_offsets"])
    translated = "tgt" in arrays
    return Split(
        src=src,
        sentences=Ragged(arrays["sentences"], src.offsets),
        texts=Texts(Ragged(arrays["texts"], arrays["text_offsets"])),
        labels=arrays.get("labels"),
        tgt=Ragged(arrays["tgt"], arrays["tgt_offsets"]) if translated else None,
        reference_texts=Texts(Ragged(arrays["references"], arrays["reference_offsets"])) if translated else None,
        reference_groups=arrays.get("reference_groups"),
        n_cut=n_cut,
    )


def _jsons(src: Tokenizer, tgt: Tokenizer | None) -> list[str | None]:
    """Both tokenisers as JSON; None for a target side that has none of its own."""
    return [src.to_json(), None if tgt is None or tgt is src else tgt.to_json()]


def _task_data(config: DataConfig, source: str, entry: Entry) -> TaskData:
    meta = entry.meta
    names = meta["label_names"]
    src_tokenizer, tgt_tokenizer = (Tokenizer.from_json(text) if text else None for text in meta["tokenizers"])
    assert src_tokenizer is not None
    return TaskData(
        task=config.task,
        splits={name: _split(_of(name, entry), meta["n_cut"][name]) for name in SPLITS},
        src_tokenizer=src_tokenizer,
        tgt_tokenizer=src_tokenizer if meta["joint"] else tgt_tokenizer,
        joint=meta["joint"],
        label_names=None if names is None else tuple(names),
        metrics=_metrics(config),
        source_fingerprint=source,
        notes=tuple(meta["notes"]),
    )


def _of(split: str, entry: Entry) -> dict[str, NDArray[Any]]:
    prefix = f"{split}."
    return {key.removeprefix(prefix): array for key, array in entry.arrays.items() if key.startswith(prefix)}
