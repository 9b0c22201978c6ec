"""What is measured: the `Job` that a worker process gets as one line of JSON, and the plan of a suite."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

from pydantic import Field

from minitx.config import Section, SpeedConfig, rule

Task = Literal["classification", "translation"]
Contestant = Literal["minitx", "torch", "transformers"]
CONTESTANTS: tuple[Contestant, ...] = ("minitx", "torch", "transformers")
Backend = Literal["sdpa", "naive", "window"]
BACKENDS: tuple[Backend, ...] = ("sdpa", "naive", "window")
How = Literal["eager", "compiled", "graphs"]


class Size(Section):
    """A model's size, the same for every contestant."""

    task: Task = "classification"
    d_model: int = 256
    n_layers: int = 4
    """Encoder layers, and as many in the decoder of a translator."""
    n_heads: int = 8
    d_ff: int = 1024
    activation: Literal["relu", "gelu"] = "gelu"
    dropout: float = 0.1
    vocab: int = 16_000
    max_length: int = 256
    n_classes: int = 2
    label_smoothing: float = 0.0


class Ids(Section):
    """Which token ids: everybody rebuilds the same ones from this."""

    source: Literal["generated", "full", "dataset"] = "generated"
    """generated: lengths like real ones; full: every row has `Size.max_length`; dataset: a real set."""
    rows: int = 20_000
    """Rows to generate; of a real set, the first this many of its training rows."""
    path: str | None = None
    """dataset: a hub id or a local folder."""
    cache_dir: str = "data/cache"
    seed: int = 0


class Job(Section):
    """One measurement."""

    work: Literal["machine", "peak", "data", "train", "infer", "split", "memory", "cost", "parallel", "recipe"]
    contestant: Contestant = "minitx"
    size: Size = Size()
    ids: Ids = Ids()
    rows: int = Field(32, ge=1)
    """Rows per batch of who counts rows; for inference the others' batch too."""
    batch_tokens: int | None = None
    """Padded tokens per batch of who has a budget; None = as many real tokens as `rows` rows have on average."""
    steps: int = 20
    warmup: int = 5
    device: Literal["cpu", "cuda"] = "cpu"
    precision: Literal["fp32", "bf16"] = "fp32"
    how: How = "eager"
    """Ours, training: eager, trainer.compile or trainer.cuda_graphs."""
    threads: int | None = None
    speed: SpeedConfig = SpeedConfig()
    """Ours: the switches that training has for speed."""
    seed: int = 0
    config: str | None = None
    """recipe: the config.yaml of a run, whose training is measured."""
    overrides: tuple[str, ...] = Field((), strict=False)
    """recipe: dotted overrides on top of it."""
    beam: int = 1
    """infer, translation, ours: hypotheses kept for each text."""
    infer_rows: int = 512
    """infer: rows that go through the model once."""
    written: int = 32
    """infer, translation: tokens that every row writes."""
    backend: Backend = "sdpa"
    lengths: tuple[int, ...] = Field((512,), strict=False)
    """memory, cost: row lengths, one after another."""
    window: int = 64
    edge: int = 2048
    """peak: rows and columns of the square matrices."""
    seconds: float = 1.0
    """peak, cost: repeat a measurement for about this long."""


Suite = Literal["cpu", "gpu"]
CPU_PARTS = ("peak", "classification", "translation", "inference", "split", "memory", "cost", "scaling", "switches")
GPU_SHARES = {
    "tests": 60, "recipe": 100, "classification": 85, "large": 100, "padding": 40, "cost": 35, "parallel": 20,
    "inference": 40,
}  # fmt: skip
"""Parts of the gpu suite, in the order of what would be learnt, and how the minutes are shared among them."""
GPU_PARTS = tuple(GPU_SHARES)
CPU_SECONDS = 7200
"""The same for any part of the cpu suite: only there so that a hanging process is noticed."""

CLASSIFICATION = Size(d_model=256, n_layers=4, n_heads=8, d_ff=1024, activation="gelu", vocab=16_000, max_length=256)
TRANSLATION = Size(
    task="translation", d_model=128, n_layers=4, n_heads=4, d_ff=256, activation="relu", vocab=10_000, max_length=100,
    label_smoothing=0.1,
)  # fmt: skip
GROWTH = Size(d_model=128, n_layers=2, n_heads=2, d_ff=512, activation="relu", dropout=0.0)
LARGE = Size(d_model=1024, n_layers=12, n_heads=16, d_ff=4096, activation="gelu", vocab=16_000, max_length=512)
GENERATED_REVIEWS, GENERATED_CAPTIONS = Ids(rows=20_000), Ids(rows=29_000)
DRY_ROWS, ALL_ROWS = 200, 10**9
HEAD_WIDTH = 32
"""Scaling: every width has heads this wide."""


@dataclass(frozen=True)
class Options:
    """What the user asked for."""

    suite: Suite = "cpu"
    only: tuple[str, ...] = ()
    rounds: int | None = None
    steps: int | None = None
    minutes: float = 8.0
    """gpu: all parts together."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    imdb: str | None = None
    multi30k: str | None = None
    output: Path | None = None
    dry_run: bool = False

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts to run, in the order in which they make sense.

        Raises:
            ConfigError: --only names what this suite does not have.
        """
        usual = GPU_PARTS if self.suite == "gpu" else CPU_PARTS
        known = tuple(dict.fromkeys((*usual, *CPU_PARTS)))  # those of the CPU can be had on a GPU, by name
        for name in self.only:
            if name not in known:
                remedy = f"parts of the {self.suite} suite: {', '.join(known)}"
                raise rule("--only", name, "be a part of the suite", remedy)
        return tuple(name for name in known if name in (self.only or usual))


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Sizes and counts of one run of the suite."""

    device: Literal["cpu", "cuda"]
    rounds: int = 3
    base: Job
    """Steps, warm-up, precision and device of every training measurement."""
    classification: Size = CLASSIFICATION
    translation: Size = TRANSLATION
    growth: Size = GROWTH
    large: Size = LARGE
    rows: int = 32
    batch_tokens: int = 4096
    """Translation: padded tokens of the longer side."""
    classification_ids: Ids = GENERATED_REVIEWS
    translation_ids: Ids = GENERATED_CAPTIONS
    peak: Job
    infer_rows: Mapping[str, int] = field(default_factory=lambda: {"classification": 512, "translation": 256})
    written: int = 32
    lengths: tuple[int, ...] = (512, 1024, 2048, 4096, 8192)
    """Memory and cost."""
    cost_seconds: float = 1.0
    scaling_steps: int = 8
    scaling: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Values of each factor; `SCALING_BASE` is what the others stay at."""
    scaling_base: Mapping[str, int] = field(
        default_factory=lambda: {"width": 256, "batch tokens": 8192, "length": 256, "layers": 2}
    )
    part_seconds: Mapping[str, float] = field(default_factory=dict)
    recipe: tuple[str, ...] = ()
    """Overrides of the default run, for a dry run."""
    recipe_steps: int = 300
    parallel_lengths: tuple[int, ...] = (64, 256, 1024)
    dry: bool = False

    def seconds(self, part: str) -> float:
        return self.part_seconds.get(part, CPU_SECONDS)


def make_plan(options: Options, device: Literal["cpu", "cuda"], cores: int) -> Plan:
    """The plan that fits the device, with the user's counts, or shrunk for a dry run."""
    on_gpu = device == "cuda"
    precision: Literal["fp32", "bf16"] = "bf16" if on_gpu else "fp32"
    base = Job(work="train", device=device, precision=precision)
    if on_gpu:  # short steps, and a compiled one meets its shapes during the first
        base = base.model_copy(update={"steps": 100, "warmup": 40})
    plan = Plan(
        device=device,
        base=base,
        peak=Job(work="peak", device=device, edge=8192 if on_gpu else 2048),
        scaling={
            "width": (64, 128, 256, 512),
            "batch tokens": (1024, 2048, 4096, 8192, 16384),
            "length": (64, 128, 256, 512, 1024),
            **({} if on_gpu else {"threads": tuple(range(1, cores + 1)) if cores <= 4 else _doublings(cores)}),
        },
        part_seconds=_shared_out(options.minutes) if options.suite == "gpu" else {},
    )
    if on_gpu:
        plan = replace(
            plan, infer_rows={"classification": 8192, "translation": 2048}, scaling_steps=30, rounds=2,
            cost_seconds=0.3, lengths=(1024, 2048, 4096, 8192, 16384, 32768),
        )  # fmt: skip
    if options.dry_run:
        plan = _dry(plan)
    return _asked(plan, options)


def _shared_out(minutes: float) -> dict[str, float]:
    """Seconds of each part of the gpu suite."""
    return {part: 60 * minutes * share / sum(GPU_SHARES.values()) for part, share in GPU_SHARES.items()}


def _doublings(cores: int) -> tuple[int, ...]:
    """1, 2, 4, ... and all cores."""
    powers = [2**k for k in range(cores.bit_length()) if 2**k < cores]
    return (*powers, cores)


def _asked(plan: Plan, options: Options) -> Plan:
    """The user's numbers and data sets."""
    if options.steps is not None:
        plan = replace(plan, base=plan.base.model_copy(update={"steps": options.steps}))
    if options.rounds is not None:
        plan = replace(plan, rounds=options.rounds)
    rows = DRY_ROWS if options.dry_run else ALL_ROWS
    if options.imdb is not None:
        plan = replace(plan, classification_ids=Ids(source="dataset", path=options.imdb, rows=rows))
    if options.multi30k is not None:
        plan = replace(plan, translation_ids=Ids(source="dataset", path=options.multi30k, rows=rows))
    return plan


def _dry(plan: Plan) -> Plan:
    """Everything tiny, one round: it shows that all parts run, and its numbers mean nothing."""
    small = {"d_model": 16, "n_layers": 2, "n_heads": 2, "d_ff": 32, "max_length": 32}
    vocab = {"vocab": 400}
    return replace(
        plan,
        dry=True,
        rounds=1,
        base=plan.base.model_copy(update={"steps": 2, "warmup": 1}),
        classification=CLASSIFICATION.model_copy(update={**small, **vocab}),
        translation=TRANSLATION.model_copy(update={**small, **vocab}),
        growth=GROWTH.model_copy(update=small),
        large=LARGE.model_copy(update={**small, **vocab}),
        rows=4,
        batch_tokens=128,
        classification_ids=Ids(rows=DRY_ROWS),
        translation_ids=Ids(rows=DRY_ROWS),
        peak=plan.peak.model_copy(update={"edge": 128, "seconds": 0.01}),
        infer_rows={"classification": 8, "translation": 8},
        written=3,
        lengths=(64, 128, 256),
        cost_seconds=0.01,
        scaling_steps=2,
        scaling={"width": (32, 64), "batch tokens": (64, 128), "length": (16, 32), "threads": (1,)},
        scaling_base={"width": 32, "batch tokens": 64, "length": 16, "layers": 2},
        recipe=("data=digits", "model.d_model=16", "model.n_layers=1", "trainer.batch_tokens=256"),
        recipe_steps=2,
        parallel_lengths=(8, 16),
    )
