"""The sections of optimiser, loop and decoding, and the whole run."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from minitx.config.base import Section, rule, setting
from minitx.config.data import DataConfig
from minitx.config.model import CnnConfig, LstmConfig, ModelConfig, NetConfig, TransformerConfig

WIDEST_WITH_GRAPHS = 512
"""A wider net's kernels take longer than their launches, and graphs of many shapes would fill the memory."""


class OptimConfig(Section):
    """AdamW and its schedule, which runs over optimiser steps (over time, where `trainer.max_minutes` ends a run)."""

    lr: float = Field(1e-3, gt=0)
    """Peak learning rate."""
    schedule: Literal["cosine", "inverse_sqrt", "linear", "constant"] = "cosine"
    """Shape after the warm-up; cosine and linear fall to `min_lr_ratio` of the peak at the end."""
    warmup_steps: int | None = Field(None, ge=0)
    """Steps of linear warm-up; null = `warmup_ratio` of the run."""
    warmup_ratio: float = Field(0.05, ge=0, lt=1)
    min_lr_ratio: float = Field(0.0, ge=0, le=1)
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled; on matrices only, the head and an untied output projection among them, not on biases, norms and
    embeddings (token tables, tied ones too, and learned positions)."""
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
    """Weight averaging; validation evaluates the average, and `best` holds it."""

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

    device: Literal["auto", "cpu", "cuda"] = setting("auto", "machine")
    precision: Literal["auto", "fp32", "bf16"] = setting("auto", "machine")
    """bf16 = autocast with float32 weights; auto = bf16 on a GPU and on a CPU with bf16 arithmetic, else fp32."""
    compile: bool = False
    """torch.compile, for shapes that vary: minutes before the first step, less time for each."""
    cuda_graphs: Literal["auto", "on", "off"] = "auto"
    """GPU: a step's launches are recorded once for each batch shape and replayed. Lengths are rounded up to multiples
    of 8, so that shapes come back. auto = on for nets up to width 512 (not for `model.chunk`, sentence spans or
    trainer.compile): on an H200 a step of the default run took 5.6 ms with graphs and 22.6 ms without."""
    threads: int | None = Field(None, ge=1)
    """CPU threads; null = torch's own choice."""
    speed: SpeedConfig = setting(SpeedConfig(), "machine")
    batch_tokens: int = Field(4096, ge=1)
    """Padded tokens of the longer side in one batch."""
    batch_rows: int | None = Field(None, ge=1)
    """Most texts in one batch, besides; null = as many as batch_tokens allows. With it, steps go by the number of texts
    whether they are short or long."""
    accumulate: int = Field(1, ge=1)
    """Batches per optimiser step; several processes (torchrun) share them, so their number divides it."""
    max_epochs: float | None = setting(10.0, "duration", gt=0)
    min_steps: int | None = setting(None, "duration", ge=1)
    """Where `max_epochs` are fewer steps than these, it stands for these: a small set's passes are short."""
    max_steps: int | None = setting(None, "duration", ge=1)
    max_minutes: float | None = setting(None, "duration", gt=0)
    """The first limit reached ends the run. Minutes are of training alone; where they are what ends it, the schedule
    follows the clock and ends with them, however fast the machine is and whether its speed changes."""
    log_every: int = setting(20, "logging", ge=1)
    """Steps between logged training lines."""
    eval_every: int | float = 1.0
    """Validation and `best`: an integer counts steps, a fraction (0.5, 1.0, ...) counts epochs."""
    save_every: int | None = setting(None, "logging", ge=1)
    """Steps between checkpoints of `last`; null = at every validation."""
    keep: int = setting(1, "logging", ge=1)
    """How many of the newest `last` checkpoints to keep; the link always names the newest."""
    patience: int | None = setting(None, "duration", ge=1)
    """Stop after this many validations without a better one; null = never."""
    eval_rows: int | None = Field(2000, ge=1)
    """Rows of the validation split evaluated during training (always the same ones); null = all."""
    eval_train_rows: int = Field(0, ge=0)
    """Training rows that are evaluated at each validation as validation is, without dropout and smoothing, to measure
    over-fitting by; 0 = none."""
    attention_maps: int = setting(3, "logging", ge=0)
    """Validation examples whose attention is drawn in TensorBoard, now and then; 0 = none."""
    head_statistics: int = setting(0, "logging", ge=0)
    """Validation examples on which each head's entropy and distance are measured for TensorBoard, at every validation;
    0 = none."""
    projector: int = setting(1000, "logging", ge=0)
    """Points in TensorBoard's projector at the end of a run: so many tokens, and of a classifier so many validation
    texts; 0 = none. The cells of sweeps and studies have none."""
    profile: bool = setting(False, "logging")
    """Record three early steps with torch.profiler: RUN/tensorboard/steps.pt.trace.json, for ui.perfetto.dev or
    chrome://tracing, and a table of the operations in TensorBoard."""
    average: AverageConfig = AverageConfig()
    calibrate: bool = setting(False, "evaluation")
    """Classification: in the end divide the model's logits by a temperature, the one at which validation rows are
    likeliest (Guo et al. 2017, arXiv 1706.04599, section 4.2). Predictions stay, their probabilities become honest.
    The loss and the calibration error of validation are then fitted; those of test are not."""
    resume: str | None = setting(None, "place")
    """null | auto (continue whatever this hydra.run.dir holds) | a run folder, continued in place."""

    @field_validator("eval_every")
    @classmethod
    def _interval(cls, value: int | float) -> int | float:
        if value <= 0:
            raise rule("trainer.eval_every", value, "be a number of steps >= 1, or a fraction of an epoch > 0")
        return value

    @model_validator(mode="after")
    def _consistent(self) -> TrainerConfig:
        if self.compile and self.cuda_graphs == "on":
            raise rule("trainer.cuda_graphs", "on", "be off where trainer.compile is true", "choose one of the two")
        if self.max_epochs is None and self.max_steps is None and self.max_minutes is None:
            raise rule("trainer.max_epochs", None, "be set, or max_steps or max_minutes", "a run needs an end")
        return self


class DecodeConfig(Section):
    """How a trained translator writes: at the end of a run, in `minitx predict`, `evaluate` and `inspect`.

    Validation during training is greedy. A classifier reads none of this.
    """

    beam: int = setting(1, "evaluation", ge=1)
    """Unfinished translations kept for each text; 1 = greedy."""
    length_penalty: float = setting(1.0, "evaluation", ge=-10, le=10)
    """A beam's finished translations are ranked by log probability / tokens ** length_penalty: 0 prefers short ones,
    1 goes by the mean over tokens, more prefers long ones."""


class MaskingConfig(Section):
    """Which tokens a masked model has to guess, in data.task=masked and in pretrain=masked."""

    rate: float = Field(0.15, gt=0, le=1)
    """Share of each text's tokens, at least one (Devlin et al. 2019; arXiv 2202.08005 has reasons for more)."""
    unknown: float = Field(0.8, ge=0, le=1)
    """Share of those that are read as [UNK];"""
    random: float = Field(0.1, ge=0, le=1)
    """that are read as a random token. The others stay, and are to be guessed like the rest."""

    @model_validator(mode="after")
    def _shares(self) -> MaskingConfig:
        if self.unknown + self.random > 1:
            raise rule("masking.random", self.random, f"be at most 1 - masking.unknown ({self.unknown})", "lower one")
        return self


class PretrainConfig(Section):
    """Training on the task's own texts before the task itself (arXiv 2209.14389): the encoder's first weights."""

    kind: Literal["none", "masked"] = "none"
    """masked: guess hidden tokens of the training texts (see `masking`); the classifier then starts from that encoder
    and those embeddings. It is a run of its own in RUN/pretrain, with all of its files, and as the run itself but for
    the keys below and for what is there for the sake of the classes, which it does without: token and word dropout,
    label smoothing, R-Drop, patience."""
    run: str | None = None
    """Start from this finished run of data.task=masked (or its RUN/pretrain) instead: several runs then share one."""
    max_epochs: float | None = Field(20.0, gt=0)
    max_steps: int | None = Field(None, ge=1)
    max_minutes: float | None = Field(None, gt=0)
    """As in `trainer`: the first limit reached ends the pretraining."""
    batch_tokens: int | None = Field(None, ge=1)
    """null = as trainer.batch_tokens and batch_rows say; a number alone limits a batch."""
    lr: float | None = Field(None, gt=0)
    """null = optim.lr."""
    dropout: float | None = Field(None, ge=0, lt=1)
    """null = model.dropout."""

    @model_validator(mode="after")
    def _consistent(self) -> PretrainConfig:
        if self.run is not None and self.kind == "none":
            raise rule("pretrain.run", self.run, "be null, because pretrain.kind is none", "add pretrain=masked")
        if self.max_epochs is None and self.max_steps is None and self.max_minutes is None:
            raise rule("pretrain.max_epochs", None, "be set, or max_steps or max_minutes", "pretraining needs an end")
        return self


class Config(Section):
    """A whole run."""

    data: DataConfig = DataConfig()
    model: ModelConfig = TransformerConfig()
    optim: OptimConfig = OptimConfig()
    trainer: TrainerConfig = TrainerConfig()
    decode: DecodeConfig = DecodeConfig()
    masking: MaskingConfig = MaskingConfig()
    pretrain: PretrainConfig = PretrainConfig()
    seed: int = setting(0, "seed", ge=0)
    """Initialisation, data order and dropout."""

    @model_validator(mode="after")
    def _meets(self) -> Config:
        self._check_task()
        self._check_masked()
        self._check_noise()
        return self

    def records_graphs(self, on_gpu: bool) -> bool:
        """Whether training replays CUDA graphs: what `trainer.cuda_graphs` comes to on this device."""
        model, chosen = self.model, self.trainer.cuda_graphs
        if chosen != "auto" or not on_gpu or self.trainer.compile or not isinstance(model, NetConfig):
            return on_gpu and chosen == "on"
        unproven = model.chunk is not None or model.reads_sentences
        return model.d_model <= WIDEST_WITH_GRAPHS and not unproven

    def _check_task(self) -> None:
        """That the model does what the task asks."""
        model, kind = self.model, self.model.kind
        if self.data.task != "translation":
            return
        if not isinstance(model, TransformerConfig | LstmConfig):
            must = f"be transformer or lstm, because data={self.data.name} is a translation"
            raise rule("model", kind, must, "the others are classifiers, e.g. for data=cmudict_stress")
        if model.chunk is not None:
            raise rule("model.chunk", model.chunk, f"be null, because data={self.data.name} is a translation")
        for key in ("token_dropout", "word_dropout"):
            if getattr(model, key):
                must = f"be 0, because data={self.data.name} is a translation"
                raise rule(f"model.{key}", getattr(model, key), must, "use model.dropout")
        if model.tie_embeddings and self.data.tokenizer.joint and self.data.tgt_tokenizer is not None:
            raise rule(
                "data.tgt_tokenizer",
                "set",
                "be null, because data.tokenizer.joint is true",
                "a joint vocabulary has one tokeniser; set data.tokenizer.joint=false",
            )

    def _check_masked(self) -> None:
        """That a model that guesses hidden tokens can be had, where one is asked for."""
        pretrains, task = self.pretrain.kind == "masked", self.data.task
        if pretrains and task != "classification":
            must = f"be none, because data.task is {task}"
            raise rule("pretrain.kind", "masked", must, "it is for classifiers")
        if (pretrains or task == "masked") and not isinstance(self.model, TransformerConfig | CnnConfig | LstmConfig):
            why = "pretrain.kind" if pretrains else "data.task"
            must = f"be transformer, cnn or lstm, because {why} is masked"
            raise rule("model", self.model.kind, must, "a token can be guessed only where states know of others")

    def _check_noise(self) -> None:
        """That what draws at random has something to draw."""
        model = self.model
        if not isinstance(model, NetConfig):
            return
        if model.word_dropout and self.data.tokenizer.kind in ("char", "byte"):
            must = f"be 0, because data.tokenizer.kind is {self.data.tokenizer.kind}"
            raise rule("model.word_dropout", model.word_dropout, must, "use model.token_dropout")
        attention = model.attention.dropout if isinstance(model, TransformerConfig) else 0.0
        if self.optim.r_drop and not (model.dropout or model.token_dropout or model.word_dropout or attention):
            must = "be 0, because model.dropout and model.attention.dropout are 0"
            raise rule("optim.r_drop", self.optim.r_drop, must, "both passes would be the same; set model.dropout")
