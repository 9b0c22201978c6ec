"""The `data` section: where examples come from, how they are cut, how text becomes tokens."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from minitx.config.base import Section, rule, setting
from minitx.config.probe import ProbeConfig

TokenizerKind = Literal["bpe", "unigram", "word", "char", "byte"]
Truncation = Literal["head", "tail", "head_tail"]
KeepTogether = Literal["text", "phrases", "both"]


class TokenizerConfig(Section):
    """How text becomes tokens; fitted on training rows, never on validation or test."""

    kind: TokenizerKind = "bpe"
    """bpe | unigram | word (split at white space and punctuation) | char | byte."""
    vocab_size: int = Field(8000, ge=8)
    """Largest vocabulary, the five special tokens included; `byte` always has 261."""
    lowercase: bool = False
    """Lower-case (and NFKC-normalise) before splitting."""
    fit_on: Literal["used", "train"] = "used"
    """The training rows that are used, or the whole training split, where `data.train_size` takes a part of it: the
    vocabulary then stays as it is while the size varies."""
    joint: bool = True
    """Translation: one vocabulary for both sides (needed for tied embeddings across sides)."""


class DataConfig(Section):
    """Where examples come from and how they are cut."""

    name: str = "cmudict"
    """Short name, used in folder names and tables."""
    source: Literal["cmudict", "cmudict_stress", "digits", "probe", "dataset", "files"] = setting("cmudict", "source")
    """Embedded set, generated `probe`, `dataset` (hub id or local folder, by `datasets.load_dataset`), or `files` (the
    user's own)."""
    probe: ProbeConfig = ProbeConfig()
    """`probe`: what is generated."""
    task: Literal["translation", "classification", "masked"] = "translation"
    """masked: guess hidden tokens of the texts of a classification set (see `masking`); its labels are not used.
    auto, with `probe` alone: the task of its kind."""
    path: str | None = setting(None, "place")
    """`dataset`: a hub id or a local folder. `files`: the training file, .csv .tsv .jsonl .json .parquet."""
    subset: str | None = setting(None, "source")
    """`dataset`: configuration name on the hub, where the set has several."""
    revision: str | None = setting(None, "place")
    """`dataset`: hub revision (branch, tag or commit)."""
    validation_path: str | None = setting(None, "place")
    """`files`: validation file; cut from the training file when null."""
    test_path: str | None = setting(None, "place")
    """`files`: test file; cut from the training file when null."""
    train_split: str = setting("train", "source")
    validation_split: str | None = setting("validation", "source")
    test_split: str | None = setting("test", "source")
    """`dataset`: names of the splits in the source. One that is null, or that the source does not have, is cut from
    train, see the two sizes below."""
    validation_size: float = setting(0.1, "source", gt=0, lt=1)
    """Fraction of the training rows cut for validation where there is no such split (stratified, fixed seed; see
    `keep_together`)."""
    test_size: float = setting(0.1, "source", gt=0, lt=1)
    """The same for test."""
    keep_together: KeepTogether = setting("text", "source")
    """Which rows a cut does not divide: text = those of one text, whatever its case and white space; phrases = in a set
    of sentences and their phrases, also the phrases with their sentence (only sentences are kept of what is cut then;
    its phrases are in no split); both = in translation, neither those of one source nor those of one target (pairs of
    training that share a target with what is cut are in no split)."""
    text_column: str = setting("text", "source")
    label_column: str = setting("label", "source")
    """Classification: column names."""
    src_column: str = setting("src", "source")
    tgt_column: str = setting("tgt", "source")
    """Translation: column names; swap the two for the other direction."""
    multi_reference: bool = setting(False, "source")
    """Translation: rows that share a source text are one validation or test example with several references."""
    metrics: Literal["auto", "bleu", "error_rate"] = "auto"
    """Translation: bleu (BLEU and chrF) or error_rate (PER and WER over space-separated symbols); auto
    = error_rate for cmudict and probe, else bleu."""
    bleu_tokenize: Literal["13a", "intl", "zh", "ja-mecab", "char", "none"] = "13a"
    """Translation: how sacrebleu splits texts for BLEU; none = at spaces alone, for tokenised text. ja-mecab needs
    `pip install 'sacrebleu[ja]'`."""
    train_size: int | float | None = None
    """null = all; a count or a fraction of the training rows: nested, seeded, stratified subsets."""
    subset_seed: int = setting(0, "seed")
    """Seed of the subsets that `train_size` takes; those of one seed are nested."""
    max_length: int = Field(256, ge=4)
    """Tokens per text, special ones included; longer texts are cut, with a warning that counts them. auto, with
    `probe` alone: as many as its texts have."""
    truncate: Truncation = "head"
    """Classification: which tokens of a longer text are kept. The first, the last, or both: a quarter from the
    beginning (rounded up) and the rest from the end, as 128 and 382 of 510 in Sun et al. (2019, arXiv 1905.05583)."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    tgt_tokenizer: TokenizerConfig | None = None
    """Translation: the target side's own tokeniser; null = like `tokenizer`."""
    cache_dir: str = setting("data/cache", "place")
    """Where prepared token ids are kept."""
    verify: Literal["quick", "full"] = setting("quick", "place")
    """How files of the source and the cache are known to be unchanged at a start: quick = those below 64 MB by their
    content, larger ones by size and time of the last change; full = all by their content (about a second per GB)."""

    @field_validator("task", "max_length", mode="before")
    @classmethod
    def _of_probe(cls, value: Any, info: ValidationInfo) -> Any:
        """What `auto` stands for."""
        probe = info.data.get("probe")
        if value != "auto" or probe is None:  # a wrong probe has an error of its own
            return value
        if info.data.get("source") != "probe":
            remedy = "only data=probe determines it"
            raise rule(f"data.{info.field_name}", "auto", "be given, because data.source is not probe", remedy)
        return probe.task if info.field_name == "task" else probe.length + 1

    @field_validator("train_size", mode="before")
    @classmethod
    def _positive(cls, value: Any) -> Any:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if value is not None and (not number or value <= 0 or (isinstance(value, float) and value > 1)):
            raise rule("data.train_size", value, "be null, a count >= 1 or a fraction in (0, 1]")
        return value

    @model_validator(mode="after")
    def _complete(self) -> DataConfig:
        if self.source in ("dataset", "files") and not self.path:
            what = "a hub id or a local folder" if self.source == "dataset" else "your training file"
            raise rule("data.path", self.path, f"name {what}", "data=cmudict needs no path and no network")
        embedded = self.source not in ("dataset", "files")
        for key in ("path", "validation_path", "test_path"):
            if embedded and getattr(self, key) is not None:
                remedy = "add data=files for a file of your own, or name the set, e.g. data=imdb"
                raise rule(f"data.{key}", getattr(self, key), f"be null, because data={self.name} is embedded", remedy)
        if self.task == "translation" and self.src_column == self.tgt_column and self.source in ("dataset", "files"):
            raise rule("data.tgt_column", self.tgt_column, "differ from data.src_column", "name the two columns")
        if self.task == "translation" and self.truncate != "head":
            must = "be head, because data.task is translation"
            raise rule("data.truncate", self.truncate, must, "both sides of a pair are cut at the end alone")
        if self.keep_together == "both" and self.task != "translation":
            must = f"be text or phrases, because data.task is {self.task}"
            raise rule("data.keep_together", "both", must, "it keeps sources and targets apart")
        if self.source == "probe":
            self._check_probe()
        return self

    def _check_probe(self) -> None:
        """Generated texts are read whole, word by word, for the task of their kind."""
        kind, least = self.probe.kind, self.probe.length + 1
        if self.probe.task != ("classification" if self.task == "masked" else self.task):
            must = f"be {self.probe.task}, because data.probe.kind is {kind}"
            raise rule("data.task", self.task, must, "data.task=auto goes by the kind")
        if self.max_length < least:
            must = f"be at least {least}, because data.probe.length is {self.probe.length}"
            raise rule("data.max_length", self.max_length, must, "data.max_length=auto goes by the length")
        for key in ("tokenizer", "tgt_tokenizer"):
            tokenizer: TokenizerConfig | None = getattr(self, key)
            if tokenizer is not None and tokenizer.kind != "word":
                must = "be word, because data.source is probe"
                raise rule(f"data.{key}.kind", tokenizer.kind, must, "a symbol is a word of its texts")

    @property
    def columns(self) -> tuple[str, str]:
        """(input column, target column) of the task."""
        if self.task != "translation":
            return self.text_column, self.label_column
        return self.src_column, self.tgt_column
