"""The typed configuration: every key, its default, its choices and its rules. This file is the manual.

Hydra composes `conf/`, and `parse.load` types the result once, strictly; from there on the objects are frozen.
A default is written here and nowhere else: `train.py` hands these defaults to Hydra, and the YAML files of `conf/`
state only where they differ.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from minitx.errors import ConfigError as ConfigError


class Section(BaseModel):
    """Base of every section: frozen, strict types, no unknown keys."""

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, allow_inf_nan=False, use_attribute_docstrings=True
    )


def rule(key: str, value: object, must: str, remedy: str = "") -> ConfigError:
    """The one shape of a configuration error."""
    shown = "null" if value is None else value
    return ConfigError(f"{key} ({shown}) must {must}" + (f"; {remedy}" if remedy else ""))


# --------------------------------------------------------------------------------------------------------------- data

TokenizerKind = Literal["bpe", "unigram", "word", "char", "byte"]


class TokenizerConfig(Section):
    """How text becomes tokens; fitted on the training rows that are used, never on validation or test."""

    kind: TokenizerKind = "bpe"
    """bpe | unigram | word (split at white space and punctuation) | char | byte."""
    vocab_size: int = Field(8000, ge=8)
    """Largest vocabulary, the five special tokens included; `byte` always has 261."""
    lowercase: bool = False
    """Lower-case (and NFKC-normalise) before splitting."""
    joint: bool = True
    """Translation: one vocabulary for both sides (needed for tied embeddings across sides)."""


class DataConfig(Section):
    """Where examples come from and how they are cut."""

    name: str = "cmudict"
    """Short name, used in folder names and tables."""
    source: Literal["cmudict", "cmudict_stress", "digits", "dataset", "files"] = "cmudict"
    """Embedded set, `dataset` (hub id or local folder, by `datasets.load_dataset`), or `files` (the user's own)."""
    task: Literal["translation", "classification"] = "translation"
    path: str | None = None
    """`dataset`: a hub id or a local folder. `files`: the training file, .csv .tsv .jsonl .json .parquet."""
    subset: str | None = None
    """`dataset`: configuration name on the hub, where the set has several."""
    revision: str | None = None
    """`dataset`: hub revision (branch, tag or commit)."""
    validation_path: str | None = None
    """`files`: validation file; cut from the training file when null."""
    test_path: str | None = None
    """`files`: test file; cut from the training file when null."""
    train_split: str = "train"
    validation_split: str = "validation"
    test_split: str = "test"
    """Names of the splits in the source. A source without one has it cut from train, see the two sizes below."""
    validation_size: float = Field(0.1, gt=0, lt=1)
    """Fraction of the training rows cut for validation where the source has none (stratified, fixed seed)."""
    test_size: float = Field(0.1, gt=0, lt=1)
    """The same for test."""
    text_column: str = "text"
    label_column: str = "label"
    """Classification: column names."""
    src_column: str = "src"
    tgt_column: str = "tgt"
    """Translation: column names; swap the two for the other direction."""
    multi_reference: bool = False
    """Translation: rows that share a source text are one validation or test example with several references."""
    metrics: Literal["auto", "bleu", "error_rate"] = "auto"
    """Translation: bleu (BLEU and chrF) or error_rate (PER and WER over space-separated symbols); auto
    = error_rate for the embedded cmudict, else bleu."""
    bleu_tokenize: Literal["13a", "intl", "zh", "char", "none"] = "13a"
    """Translation: how sacrebleu splits texts for BLEU; none = at spaces alone, for text that is tokenised already."""
    train_size: int | float | None = None
    """null = all; a count or a fraction of the training rows: nested, seeded, stratified subsets."""
    subset_seed: int = 0
    """Which nested family of subsets `train_size` takes."""
    max_length: int = Field(256, ge=4)
    """Tokens per text, special ones included; longer texts are cut, with a warning that counts them."""
    tokenizer: TokenizerConfig = TokenizerConfig()
    tgt_tokenizer: TokenizerConfig | None = None
    """Translation: the target side's own tokeniser; null = like `tokenizer`."""
    cache_dir: str = "data/cache"
    """Where prepared token ids are kept."""

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
        return self

    @property
    def columns(self) -> tuple[str, str]:
        """(input column, target column) of the task."""
        if self.task == "classification":
            return self.text_column, self.label_column
        return self.src_column, self.tgt_column


# -------------------------------------------------------------------------------------------------------------- model


class AttentionConfig(Section):
    """Our multi-head attention. `split` and `grouped` are the same function; their weights convert both ways."""

    heads: Literal["split", "grouped"] = "split"
    """split: one Q, K, V projection cut into heads; grouped: one set of Q, K, V projections per head."""
    span: Literal["global", "window", "sentence"] = "global"
    """What self-attention may read, in every layer: all, +-`window` positions, or its own sentence."""
    window: int = Field(8, ge=1)
    """Positions on each side that `span: window` reads (only earlier ones in a decoder)."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """On the attention weights; fast kernels have none on the CPU, so it is apart from `model.dropout`."""
    backend: Literal["auto", "naive", "sdpa", "varlen"] = "auto"
    """naive: plain matrix products; sdpa: torch's fused kernel; auto picks by device, type and length. varlen: training
    computes no padding, in every layer (a GPU and bf16 only); whatever brings padding is computed as with auto."""


class TransformerConfig(Section):
    """Encoder with a classification head, or encoder-decoder, as the task asks."""

    kind: Literal["transformer"] = "transformer"
    d_model: int = Field(128, ge=1)
    n_layers: int = Field(2, ge=1)
    """Encoder layers."""
    n_decoder_layers: int | None = Field(None, ge=1)
    """Decoder layers of a translator; null = n_layers."""
    n_heads: int = Field(4, ge=1)
    head_dim: int | None = Field(None, ge=1)
    """Width of one head; null = d_model / n_heads, any other value is allowed."""
    d_ff: int | None = Field(None, ge=1)
    """Width of the feed-forward layer; null = 4 d_model."""
    activation: Literal["relu", "gelu"] = "relu"
    dropout: float = Field(0.1, ge=0, lt=1)
    """On embeddings and on every sub-layer's output."""
    position: Literal["sinusoidal", "learned", "rotary", "none"] = "sinusoidal"
    norm: Literal["pre", "post"] = "pre"
    """Layer norm before each sub-layer (with one at the end), or after the residual sum as in the 2017 paper."""
    pooling: Literal["cls", "mean", "attention"] = "mean"
    """Classification: the first token's state, the mean over real tokens, or attention with a learned query."""
    tie_embeddings: bool = True
    """Translation: decoder embedding = output projection, and = encoder embedding when the vocabulary is joint."""
    attention: AttentionConfig = AttentionConfig()

    @property
    def k_dim(self) -> int:
        """Width of one head."""
        return self.head_dim or self.d_model // self.n_heads

    @property
    def ff_dim(self) -> int:
        return self.d_ff or 4 * self.d_model

    @property
    def decoder_layers(self) -> int:
        return self.n_decoder_layers or self.n_layers

    @model_validator(mode="after")
    def _fits(self) -> TransformerConfig:
        if self.head_dim is None and self.d_model % self.n_heads:
            raise ConfigError(
                f"model.d_model ({self.d_model}) must be divisible by model.n_heads ({self.n_heads}); "
                f"change one of them or set model.head_dim (any width is allowed)"
            )
        if self.position == "rotary" and self.k_dim % 2:
            raise rule("model.head_dim", self.k_dim, "be even, because model.position is rotary", "use an even width")
        if self.position == "sinusoidal" and self.d_model % 2:
            raise rule("model.d_model", self.d_model, "be even, because model.position is sinusoidal")
        if self.pooling == "cls" and self.attention.span != "global":
            raise rule(
                "model.pooling",
                "cls",
                f"not be cls, because model.attention.span is {self.attention.span}",
                "the first token would read its neighbourhood alone; use mean or attention",
            )
        return self

    @model_validator(mode="after")
    def _unpadded(self) -> TransformerConfig:
        """What the kernel of `attention.backend: varlen` does not have."""
        asked, why = self.attention, "because model.attention.backend is varlen"
        if asked.backend != "varlen":
            return self
        if asked.dropout:
            raise rule("model.attention.dropout", asked.dropout, f"be 0, {why}", "use model.dropout alone")
        if asked.span == "sentence":
            raise rule("model.attention.span", "sentence", f"be global or window, {why}", "use backend auto")
        if self.k_dim % 8 or self.k_dim > 256:
            raise rule("model.head_dim", self.k_dim, f"be a multiple of 8 up to 256, {why}", "set it, or use auto")
        return self


# ----------------------------------------------------------------------------------------------------- optim, trainer


class OptimConfig(Section):
    """AdamW and its schedule; everything runs over optimiser steps."""

    lr: float = Field(1e-3, gt=0)
    """Peak learning rate."""
    schedule: Literal["cosine", "inverse_sqrt", "linear", "constant"] = "cosine"
    """Shape after the warm-up; cosine and linear fall to `min_lr_ratio` of the peak at the end."""
    warmup_steps: int | None = Field(None, ge=0)
    """Steps of linear warm-up; null = `warmup_ratio` of the run."""
    warmup_ratio: float = Field(0.05, ge=0, lt=1)
    min_lr_ratio: float = Field(0.0, ge=0, le=1)
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled; on matrices only, not on biases, norms and embeddings."""
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = Field(1e-9, gt=0)
    clip: float | None = Field(1.0, gt=0)
    """Largest gradient norm; null = no clipping."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    r_drop: float = Field(0.0, ge=0)
    """R-Drop's alpha (Liang et al. 2021, who took 5 for translation and 1 for classification); 0 = off. Each batch goes
    through the model twice, with other draws of dropout, and alpha / 2 times the mean of the two divergences between
    the predictions is added to the mean cross-entropy. A step takes about twice the time and memory."""

    @field_validator("betas", mode="before")
    @classmethod
    def _pair(cls, value: Any) -> Any:
        pair = tuple(value) if isinstance(value, list) else value
        if isinstance(pair, tuple) and not all(isinstance(b, float) and 0 <= b < 1 for b in pair):
            raise rule("optim.betas", list(pair), "be two numbers in [0, 1)")
        return pair


class AverageConfig(Section):
    """Weight averaging; validation judges the average, and `best` holds it."""

    kind: Literal["none", "ema", "last"] = "none"
    """ema: exponential moving average; last: mean of the last `k` evaluation points."""
    decay: float = Field(0.999, gt=0, lt=1)
    """ema: per step; the first steps use less, (1 + step) / (10 + step)."""
    k: int = Field(5, ge=2)


class SpeedConfig(Section):
    """What makes a step faster, with the same results but for rounding and the draws of dropout.

    `minitx bench --only switches` times each.

    Not in a run's hash. A run that is continued with other settings goes on, but not to the same bits.
    """

    keep_memory: bool = True
    """CPU: reuse freed buffers instead of returning them to the system after each step (glibc only)."""
    onednn: Literal["auto", "on", "off"] = "auto"
    """CPU, float32: matrix products by oneDNN instead of the BLAS; auto = on an AMD processor."""
    fast_dropout: bool = True
    """CPU: one random number decides four elements."""
    resident: bool = True
    """GPU: the training split's token ids stay in its memory, and batches are cut there."""
    fused_optimizer: bool = True
    """One kernel per tensor updates weight and moments together."""
    flush_denormals: bool = True
    """CPU: numbers below 1e-38 count as 0; the moments of rarely seen tokens end there and are slow to compute with."""
    freeze_gc: bool = True
    """Python's garbage collector does not look again and again at what was there before the first step."""


class TrainerConfig(Section):
    """The loop: where, how long, how often."""

    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """bf16 = autocast with float32 weights; auto = bf16 on a GPU and on a CPU with bf16 arithmetic, else fp32."""
    compile: bool = False
    """torch.compile, for shapes that vary: minutes before the first step, less time for each."""
    cuda_graphs: bool = False
    """GPU: a step's launches are recorded once for each batch shape and replayed. Lengths are rounded up to multiples
    of 8, so that shapes come back."""
    threads: int | None = Field(None, ge=1)
    """CPU threads; null = torch's own choice."""
    speed: SpeedConfig = SpeedConfig()
    batch_tokens: int = Field(4096, ge=1)
    """Padded tokens of the longer side in one batch."""
    accumulate: int = Field(1, ge=1)
    """Batches per optimiser step."""
    max_epochs: float | None = Field(10.0, gt=0)
    max_steps: int | None = Field(None, ge=1)
    max_minutes: float | None = Field(None, gt=0)
    """The first limit reached ends the run. Minutes are of training alone and become a number of steps early on."""
    log_every: int = Field(20, ge=1)
    """Steps between logged training lines."""
    eval_every: int | float = 1.0
    """Validation and `best`: an integer counts steps, a fraction (0.5, 1.0, ...) counts epochs."""
    save_every: int | None = Field(None, ge=1)
    """Steps between checkpoints of `last`; null = at every validation."""
    keep: int = Field(1, ge=1)
    """How many of the newest `last` checkpoints to keep; the link always names the newest."""
    patience: int | None = Field(None, ge=1)
    """Stop after this many validations without a better one; null = never."""
    eval_rows: int | None = Field(2000, ge=1)
    """Rows of the validation split judged during training (always the same ones); null = all."""
    attention_maps: int = Field(3, ge=0)
    """Validation examples whose attention is drawn in TensorBoard, now and then; 0 = none."""
    average: AverageConfig = AverageConfig()
    resume: str | None = None
    """null | auto (continue whatever this hydra.run.dir holds) | a run folder, continued in place."""

    @field_validator("eval_every")
    @classmethod
    def _interval(cls, value: int | float) -> int | float:
        if value <= 0:
            raise rule("trainer.eval_every", value, "be a number of steps >= 1, or a fraction of an epoch > 0")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> TrainerConfig:
        if self.compile and self.cuda_graphs:
            raise rule("trainer.cuda_graphs", True, "be false where trainer.compile is true", "choose one of the two")
        if self.max_epochs is None and self.max_steps is None and self.max_minutes is None:
            raise rule("trainer.max_epochs", None, "be set, or max_steps or max_minutes", "a run needs an end")
        return self


class DecodeConfig(Section):
    """How a trained translator writes: at the end of a run, in `minitx predict`, `evaluate` and `inspect`.

    Validation during training is greedy. A classifier reads none of this.
    """

    beam: int = Field(1, ge=1)
    """Unfinished translations kept for each text; 1 = greedy."""
    length_penalty: float = Field(1.0, ge=-10, le=10)
    """A beam's finished translations are ranked by log probability / tokens ** length_penalty: 0 prefers short ones,
    1 goes by the mean over tokens, more prefers long ones."""


class Config(Section):
    """A whole run."""

    data: DataConfig = DataConfig()
    model: TransformerConfig = TransformerConfig()
    optim: OptimConfig = OptimConfig()
    trainer: TrainerConfig = TrainerConfig()
    decode: DecodeConfig = DecodeConfig()
    seed: int = Field(0, ge=0)
    """Initialisation, data order and dropout."""

    @model_validator(mode="after")
    def _meets(self) -> Config:
        tied = self.data.task == "translation" and self.model.tie_embeddings
        if tied and self.data.tokenizer.joint and self.data.tgt_tokenizer is not None:
            raise rule(
                "data.tgt_tokenizer",
                "set",
                "be null, because data.tokenizer.joint is true",
                "a joint vocabulary has one tokeniser; set data.tokenizer.joint=false",
            )
        if self.trainer.cuda_graphs and self.model.attention.backend == "varlen":
            must = "be false, because model.attention.backend is varlen"
            raise rule("trainer.cuda_graphs", True, must, "without padding no shape comes back; choose one of the two")
        if self.optim.r_drop and not (self.model.dropout or self.model.attention.dropout):
            must = "be 0, because model.dropout and model.attention.dropout are 0"
            raise rule("optim.r_drop", self.optim.r_drop, must, "both passes would be the same; set model.dropout")
        return self
