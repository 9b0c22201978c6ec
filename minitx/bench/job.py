"""What a worker process is asked to measure; travels as one line of JSON."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from minitx.config import Section, SpeedConfig

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

    work: Literal["machine", "peak", "data", "train", "infer", "split", "memory", "cost"]
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
    """Ours, training: eager, trainer.compile, or trainer.cuda_graphs."""
    threads: int | None = None
    speed: SpeedConfig = SpeedConfig()
    """Ours: the switches that training has for speed."""
    seed: int = 0
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
