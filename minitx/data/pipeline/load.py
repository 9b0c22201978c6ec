"""From configuration to data: check and identify the source, read it, split, fit the tokeniser, tokenise, cache."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from minitx.config import DataConfig, TokenizerConfig, rule
from minitx.config.base import keys_with_role
from minitx.data.masking import ordinary_tokens
from minitx.data.pipeline.cache import Arrays, Builder, Entry, Meta, fetch
from minitx.data.pipeline.encode import CHUNK, KEPT, encode_examples
from minitx.data.pipeline.fit_notes import unlike_training
from minitx.data.pipeline.splitting import cut_missing_splits, merge_references, take_subset
from minitx.data.pipeline.tokenizer import Tokenizer, check_tokenizer
from minitx.data.progress import Progress, Report, silent
from minitx.data.sources import SOURCES, SPLITS, Corpus, Examples
from minitx.data.sources.records import check_classes
from minitx.data.splits import Metrics, Ragged, Split, TaskData, Texts, Vocabulary

FORMAT = 3
"""Raise it when the meaning of a cache entry changes."""
SHARD = 64 * 2**20
"""Bytes of text from one commit to the next: what a kill loses of tokenising."""
OFFSETS = frozenset({"src_offsets", "text_offsets", "tgt_offsets", "reference_offsets", "reference_groups"})
"""Arrays of a split that say where rows begin in others."""


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
    if config.bleu_tokenize == "ja-mecab" and not all(find_spec(package) for package in ("MeCab", "ipadic")):
        remedy = "pip install 'sacrebleu[ja]', or set data.bleu_tokenize=char"
        raise rule("data.bleu_tokenize", "ja-mecab", "find its dictionary, which is not installed", remedy)
    source.check(config)
    return source.fingerprint(config)


def load_data(
    config: DataConfig,
    vocabulary: Vocabulary | None = None,
    fingerprint: str | None = None,
    report: Report = silent,
) -> TaskData:
    """The data of a run, from the cache where it was prepared before.

    vocabulary: use its tokenisers and class numbers instead of fitting new ones, to evaluate a trained model on other
    data, or to hold the vocabulary fixed while `train_size` varies.
    fingerprint: what `identify_source` returned, where it was called already.
    report: hears every few seconds how far a long preparation is.

    Raises:
        ConfigError: the configuration does not fit the data (see `identify_source`, `examples_of` and
            `cut_missing_splits`), or the data has a class that `vocabulary` does not know.
    """
    if config.task == "masked":
        return _without_labels(load_data(_unmasked(config), vocabulary, fingerprint, report))
    fingerprint = fingerprint or identify_source(config)
    name = re.sub(r"[^\w.-]", "_", config.name)
    folder = Path(config.cache_dir) / f"{name}-{_key(config, fingerprint, vocabulary)[:16]}"
    entry = fetch(
        folder, lambda builder: _prepare(config, vocabulary, builder, report), report, full=config.verify == "full"
    )
    return _task_data(config, fingerprint, entry)


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


def _prepare(config: DataConfig, vocabulary: Vocabulary | None, builder: Builder, report: Report) -> Meta:
    """Fill a new cache entry: examples read, split and tokenised. What a kill has left is gone on with; examples are
    then read and split again, which takes little of the time."""
    corpus = SOURCES[config.source].read(config, report)
    if vocabulary is None:
        check_classes(corpus, config)
    corpus = cut_missing_splits(corpus, config, report)
    if vocabulary is not None:
        corpus = _renumbered(corpus, vocabulary, config)
    train, subset_notes = take_subset(corpus.splits["train"], config)
    examples = {**corpus.splits, "train": train}
    if config.multi_reference and config.task == "translation":
        examples |= {name: merge_references(examples[name]) for name in ("validation", "test")}
    if "tokenizers" in builder.state:
        tokenizers = _from_jsons(builder.state["tokenizers"], builder.state["joint"])
    else:
        fit_on = {"used": train, "train": corpus.splits["train"]}[config.tokenizer.fit_on]
        given = vocabulary and (vocabulary.src_tokenizer, vocabulary.tgt_tokenizer)
        tokenizers = given or _fit(fit_on, config, report)
    n_cut = _encode(examples, tokenizers, config, builder, report)
    arrays = builder.arrays()
    splits = {name: _split(_of(name, arrays), n_cut[name]) for name in examples}
    return {
        "tokenizers": _jsons(*tokenizers),
        "joint": tokenizers[0] is tokenizers[1],
        "label_names": corpus.label_names,
        "n_cut": {name: split.n_cut for name, split in splits.items()},
        "notes": [*corpus.notes, *subset_notes, *_cut_notes(splits, config), *unlike_training(splits, config)],
    }


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


Tokenizers = tuple[Tokenizer, Tokenizer | None]
"""Of source and target; one object for both where the vocabulary is joint."""


def _fit(train: Examples, config: DataConfig, report: Report) -> Tokenizers:
    """Tokenisers from training rows."""
    symbols = SOURCES[config.source].symbols or _metrics(config) == "error_rate"

    def fit(settings: TokenizerConfig, *columns: Iterable[str]) -> Tokenizer:
        progress = Progress("tokeniser", "texts read", report)
        return Tokenizer.fit(settings, *(_Watched(column, progress) for column in columns), symbols=symbols)

    if train.references is None:
        return fit(config.tokenizer, train.texts), None
    targets = _First(train.references)
    if config.tokenizer.joint and config.tgt_tokenizer is None:
        both = fit(config.tokenizer, train.texts, targets)
        return both, both
    return fit(config.tokenizer, train.texts), fit(config.tgt_tokenizer or config.tokenizer, targets)


@dataclass(frozen=True)
class _Watched(Iterable[str]):
    """Texts that can be read more than once, with progress."""

    texts: Iterable[str]
    progress: Progress

    def __iter__(self) -> Iterator[str]:
        return self.progress.over(self.texts)


@dataclass(frozen=True)
class _First(Iterable[str]):
    """The first reference of each row, which can be read more than once."""

    references: Sequence[tuple[str, ...]]

    def __iter__(self) -> Iterator[str]:
        return (references[0] for references in self.references)


def _encode(
    examples: Mapping[str, Examples], tokenizers: Tokenizers, config: DataConfig, builder: Builder, report: Report
) -> dict[str, int]:
    """Append the token ids of all splits to the entry, from where its last commit ends; returns how many rows of each
    were cut."""
    state = builder.state or {
        "tokenizers": _jsons(*tokenizers),
        "joint": tokenizers[0] is tokenizers[1],
        "rows": dict.fromkeys(examples, 0),
        "n_cut": dict.fromkeys(examples, 0),
        "ends": {},
    }
    size = 0
    for name, part in examples.items():
        done: int = state["rows"][name]
        progress = Progress(f"{name} to tokens", "texts", report, len(part), done)
        for start in range(done, len(part), CHUNK):
            split = encode_examples(part.read(start, start + CHUNK), *tokenizers, config.max_length, config.truncate)
            builder.append({f"{name}.{key}": a for key, a in _continued(_arrays(split), state["ends"], name).items()})
            state["rows"][name] += len(split)
            state["n_cut"][name] += split.n_cut
            progress.add(len(split))
            size += len(split.texts.encoded.flat)
            if size >= SHARD:
                builder.commit(state)
                size = 0
    n_cut: dict[str, int] = state["n_cut"]
    return n_cut


def _continued(arrays: dict[str, NDArray[Any]], ends: dict[str, int], name: str) -> dict[str, NDArray[Any]]:
    """The arrays of some more rows with offsets that go on where those of the rows before end. ends: the last offsets,
    by split and array; brought up to date."""
    for key in OFFSETS & arrays.keys():
        before = ends.get(f"{name}.{key}")
        own = arrays[key]
        arrays[key] = own if before is None else own[1:] + before
        ends[f"{name}.{key}"] = int(arrays[key][-1])
    return arrays


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


def _from_jsons(jsons: Sequence[str | None], joint: bool) -> Tokenizers:
    """The inverse of `_jsons`."""
    src, tgt = (Tokenizer.from_json(text) if text else None for text in jsons)
    assert src is not None
    return src, src if joint else tgt


def _jsons(src: Tokenizer, tgt: Tokenizer | None) -> list[str | None]:
    """Both tokenisers as JSON; None for a target side without one of its own."""
    return [src.to_json(), None if tgt is None or tgt is src else tgt.to_json()]


def _task_data(config: DataConfig, fingerprint: str, entry: Entry) -> TaskData:
    """A cache entry as data."""
    meta = entry.meta
    names = meta["label_names"]
    src_tokenizer, tgt_tokenizer = _from_jsons(meta["tokenizers"], meta["joint"])
    return TaskData(
        task=config.task,
        splits={name: _split(_of(name, entry.arrays), meta["n_cut"][name]) for name in SPLITS},
        src_tokenizer=src_tokenizer,
        tgt_tokenizer=tgt_tokenizer,
        joint=meta["joint"],
        label_names=None if names is None else tuple(names),
        metrics=_metrics(config),
        source_fingerprint=fingerprint,
        notes=tuple(meta["notes"]),
    )


def _of(split: str, arrays: Arrays) -> dict[str, NDArray[Any]]:
    """The arrays of one split."""
    prefix = f"{split}."
    return {key.removeprefix(prefix): array for key, array in arrays.items() if key.startswith(prefix)}
