"""From configuration to data: check and identify the source, read it, split, fit the tokeniser, tokenise, cache."""

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
from minitx.config.base import keys_with_role
from minitx.data.masking import ordinary_tokens
from minitx.data.pipeline.cache import Entry, Meta, fetch
from minitx.data.pipeline.encode import KEPT, encode_examples
from minitx.data.pipeline.splitting import cut_missing_splits, merge_references, take_subset
from minitx.data.pipeline.tokenizer import Tokenizer, check_tokenizer
from minitx.data.sources import SOURCES, SPLITS, Corpus, Examples
from minitx.data.sources.records import check_classes
from minitx.data.splits import Metrics, Ragged, Split, TaskData, Texts, Vocabulary

FORMAT = 3
"""Raise it when the meaning of a cache entry changes."""


def identify_source(config: DataConfig) -> str:
    """The fingerprint of what data is read from: a hash of local files or package data, `id@revision` of a hub id, or
    the version of the generator.

    Raises:
        ConfigError: the source is absent, or cannot serve the task; all that can be known before data is read.
    """
    source, task = SOURCES[config.source], _unmasked(config).task
    if source.task not in (None, task):
        raise rule("data.task", config.task, f"be {source.task}, because data.source is {config.source}")
    check_tokenizer("data.tokenizer", config.tokenizer)
    if config.tgt_tokenizer is not None:
        check_tokenizer("data.tgt_tokenizer", config.tgt_tokenizer)
    source.check(config)
    return source.fingerprint(config)


def load_data(config: DataConfig, vocabulary: Vocabulary | None = None, fingerprint: str | None = None) -> TaskData:
    """The data of a run, from the cache where it was prepared before.

    vocabulary: use its tokenisers and class numbers instead of fitting new ones, to evaluate a trained model on other
    data, or to hold the vocabulary fixed while `train_size` varies.
    fingerprint: what `identify_source` returned, where it was called already.

    Raises:
        ConfigError: the configuration does not fit the data (see `identify_source`, `examples_of` and
            `cut_missing_splits`), or the data has a class that `vocabulary` does not know.
    """
    if config.task == "masked":
        return _without_labels(load_data(_unmasked(config), vocabulary, fingerprint))
    fingerprint = fingerprint or identify_source(config)
    name = re.sub(r"[^\w.-]", "_", config.name)
    folder = Path(config.cache_dir) / f"{name}-{_key(config, fingerprint, vocabulary)[:16]}"
    return _task_data(config, fingerprint, fetch(folder, lambda: _prepare(config, vocabulary)))


def _unmasked(config: DataConfig) -> DataConfig:
    """How data is read and prepared: hidden tokens are hidden later, in the texts of a classification set."""
    return config.model_copy(update={"task": "classification"}) if config.task == "masked" else config


def _without_labels(data: TaskData) -> TaskData:
    """Data for `data.task: masked`: the same texts, in training without those that hold no token to hide."""
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


def _key(config: DataConfig, fingerprint: str, vocabulary: Vocabulary | None) -> str:
    """Names all that the entry is made from: the source's content, every other setting, our format, the libraries."""
    unread = {"name", "bleu_tokenize", *keys_with_role(DataConfig, "place")}
    settings = config.model_dump(exclude=unread if config.source == "probe" else {*unread, "probe"})
    versions = {library: version(library) for library in ("tokenizers", "datasets", "numpy")}
    given = vocabulary and [*_jsons(vocabulary.src_tokenizer, vocabulary.tgt_tokenizer), vocabulary.label_names]
    key = [FORMAT, fingerprint, settings, versions, given]
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


# ------------------------------------------------------------------------------------------------------------ prepare


def _prepare(config: DataConfig, vocabulary: Vocabulary | None) -> tuple[Meta, dict[str, NDArray[Any]]]:
    """A new cache entry: examples read, split and tokenised."""
    corpus = SOURCES[config.source].read(config)
    if vocabulary is None:
        check_classes(corpus, config)
    corpus = cut_missing_splits(corpus, config)
    if vocabulary is not None:
        corpus = _renumbered(corpus, vocabulary, config)
    train, subset_notes = take_subset(corpus.splits["train"], config)
    examples = {**corpus.splits, "train": train}
    if config.multi_reference and config.task == "translation":
        examples |= {name: merge_references(examples[name]) for name in ("validation", "test")}
    fit_on = {"used": train, "train": corpus.splits["train"]}[config.tokenizer.fit_on]
    tokenizers = _fit(fit_on, config) if vocabulary is None else (vocabulary.src_tokenizer, vocabulary.tgt_tokenizer)
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


def _renumbered(corpus: Corpus, vocabulary: Vocabulary, config: DataConfig) -> Corpus:
    """The same examples with the class numbers of `vocabulary`, found by name."""
    known = vocabulary.label_names
    if corpus.label_names is None or known is None or corpus.label_names == known:
        return corpus
    strange = [name for name in corpus.label_names if name not in known]
    if strange:
        remedy = f"it has {strange[0]!r}, not {', '.join(known)}"
        raise rule("data.label_column", config.label_column, "hold labels that the model knows", remedy)
    number = np.array([known.index(name) for name in corpus.label_names])
    splits = {name: replace(part, labels=number[part.labels]) for name, part in corpus.splits.items()}
    return replace(corpus, splits=splits, label_names=known)


def _fit(train: Examples, config: DataConfig) -> tuple[Tokenizer, Tokenizer | None]:
    """(source, target) tokenisers from training rows; one object for both where the vocabulary is joint."""
    symbols = SOURCES[config.source].symbols or _metrics(config) == "error_rate"

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
    """A warning that counts the texts that were cut, if there are any."""
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
    """How a model of this data is scored."""
    if config.task == "classification":
        return "classification"
    if config.metrics == "auto":
        return SOURCES[config.source].metrics
    return config.metrics


# --------------------------------------------------------------------------------------------------- to and from arrays


def _arrays(split: Split) -> dict[str, NDArray[Any]]:
    """A split as named arrays, for the cache. Sentence numbers share the offsets of the source."""
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
    """Both tokenisers as JSON; None for a target side without one of its own."""
    return [src.to_json(), None if tgt is None or tgt is src else tgt.to_json()]


def _task_data(config: DataConfig, fingerprint: str, entry: Entry) -> TaskData:
    """A cache entry as data."""
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
        source_fingerprint=fingerprint,
        notes=tuple(meta["notes"]),
    )


def _of(split: str, entry: Entry) -> dict[str, NDArray[Any]]:
    """The arrays of one split."""
    prefix = f"{split}."
    return {key.removeprefix(prefix): array for key, array in entry.arrays.items() if key.startswith(prefix)}
