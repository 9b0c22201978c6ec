"""What one would write with torch's own layers, and the plain loops around it."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from minitx.batch import BOS, EOS, PAD
from minitx.bench.jobs import Job, Size
from minitx.bench.measure import StepClock, now, training_result
from minitx.bench.workloads import load_split
from minitx.data import Split
from minitx.data.splits import IntArray, Ragged

POOL = 4000
"""Rows sorted by length together, where batches have a token budget."""


class TorchClassifier(nn.Module):
    """nn.TransformerEncoder, learned positions, the first token's state into a linear head."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.tokens = nn.Embedding(size.vocab, size.d_model, padding_idx=PAD)
        self.positions = nn.Embedding(size.max_length, size.d_model)
        self.dropout = nn.Dropout(size.dropout)
        layer = nn.TransformerEncoderLayer(
            size.d_model, size.n_heads, size.d_ff, size.dropout, size.activation, batch_first=True, norm_first=True
        )
        norm = nn.LayerNorm(size.d_model)
        self.encoder = nn.TransformerEncoder(layer, size.n_layers, norm, enable_nested_tensor=False)
        self.head = nn.Linear(size.d_model, size.n_classes)

    def forward(self, src: Tensor) -> Tensor:
        """(B, S) ids -> (B, C) logits."""
        x = self.dropout(self.tokens(src) + self.positions.weight[: src.shape[1]])
        logits: Tensor = self.head(self.encoder(x, src_key_padding_mask=src == PAD)[:, 0])
        return logits


class TorchTranslator(nn.Module):
    """nn.Transformer with sinusoids and one table for both sides and the output."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.width = size.d_model
        self.tokens = nn.Embedding(size.vocab, size.d_model, padding_idx=PAD)
        nn.init.normal_(self.tokens.weight, std=size.d_model**-0.5)
        self.dropout = nn.Dropout(size.dropout)
        self.transformer = nn.Transformer(
            size.d_model, size.n_heads, size.n_layers, size.n_layers, size.d_ff, size.dropout, size.activation,
            batch_first=True, norm_first=True,
        )  # fmt: skip
        angle = torch.arange(size.max_length + 1)[:, None] * torch.exp(
            torch.arange(0, size.d_model, 2) * (-math.log(10000.0) / size.d_model)
        )
        self.register_buffer("sinusoids", torch.stack([angle.sin(), angle.cos()], -1).flatten(1))

    def embed(self, ids: Tensor) -> Tensor:
        table = self.get_buffer("sinusoids")
        x: Tensor = self.dropout(self.tokens(ids) * math.sqrt(self.width) + table[: ids.shape[1]])
        return x

    def forward(self, src: Tensor, tgt_in: Tensor) -> Tensor:
        """(B, S) and (B, T) ids -> (B, T, V) logits."""
        return self.decode(tgt_in, self.encode(src), src == PAD)

    def encode(self, src: Tensor) -> Tensor:
        memory: Tensor = self.transformer.encoder(self.embed(src), src_key_padding_mask=src == PAD)
        return memory

    def decode(self, tgt_in: Tensor, memory: Tensor, padding: Tensor) -> Tensor:
        causal = nn.Transformer.generate_square_subsequent_mask(tgt_in.shape[1], device=tgt_in.device)
        hidden = self.transformer.decoder(
            self.embed(tgt_in), memory, tgt_mask=causal, tgt_is_causal=True, memory_key_padding_mask=padding
        )
        return F.linear(hidden, self.tokens.weight)


def train(job: Job) -> dict[str, Any]:
    """Pad, forward, loss, backward, clip, AdamW: the loop of every tutorial."""
    model, split, device = _begin(job)
    batches = _random_batches(job, split) if split.tgt is None else _sorted_batches(job, split)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    clock = StepClock(job.warmup, job.steps, device)
    model.train()
    step = 0
    while clock.before_step(step):
        with torch.autocast(device.type, torch.bfloat16, enabled=job.precision == "bf16"):
            loss = _loss(model, split, batches[step], device, job.size.label_smoothing)
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
    return training_result(job, clock, split, batches[job.warmup : job.warmup + job.steps], model)


def _begin(job: Job) -> tuple[nn.Module, Split, torch.device]:
    if job.threads is not None:
        torch.set_num_threads(job.threads)
    torch.manual_seed(job.seed)
    device = torch.device(job.device)
    model = TorchClassifier(job.size) if job.size.task == "classification" else TorchTranslator(job.size)
    return model.to(device), load_split(job.size, job.ids), device


def _random_batches(job: Job, split: Split) -> list[IntArray]:
    """`rows` rows each, in random order."""
    wanted = job.rows * (job.warmup + job.steps)
    order = np.random.default_rng(job.seed).permutation(max(len(split), wanted)) % len(split)
    return [order[start : start + job.rows] for start in range(0, wanted, job.rows)]


def _sorted_batches(job: Job, split: Split) -> list[IntArray]:
    """At most `batch_tokens` padded tokens of the longer side each, sorted within pools, shuffled."""
    assert split.tgt is not None and job.batch_tokens is not None
    shuffle = random.Random(job.seed)
    src, tgt, longer = split.src.lengths, split.tgt.lengths, split.lengths
    order, batches = list(range(len(split))), []
    shuffle.shuffle(order)
    for start in range(0, len(order), POOL):
        batch: list[int] = []
        longest = 0
        for row in sorted(order[start : start + POOL], key=lambda r: (tgt[r], src[r])):
            longest = max(longest, int(longer[row]))
            if batch and longest * (len(batch) + 1) > job.batch_tokens:
                batches.append(np.array(batch))
                batch, longest = [], int(longer[row])
            batch.append(row)
        batches.append(np.array(batch))
    shuffle.shuffle(batches)
    wanted = job.warmup + job.steps
    return (batches * -(-wanted // len(batches)))[:wanted]


def padded(side: Ragged, rows: IntArray | Sequence[int]) -> Tensor:
    """(B, L) int64 ids, PAD on the right."""
    ids = [torch.from_numpy(side[int(row)].astype(np.int64)) for row in rows]
    return pad_sequence(ids, batch_first=True, padding_value=PAD)


def _loss(model: nn.Module, split: Split, rows: IntArray, device: torch.device, smoothing: float) -> Tensor:
    src = padded(split.src, rows).to(device)
    if split.tgt is None:
        assert split.labels is not None
        return F.cross_entropy(model(src), torch.from_numpy(split.labels[rows]).to(device))
    tgt = padded(split.tgt, rows).to(device)
    start = torch.full((len(rows), 1), BOS, device=device)
    logits = model(src, torch.cat([start, tgt[:, :-1]], 1))
    return F.cross_entropy(logits.flatten(0, 1), tgt.flatten(), ignore_index=PAD, label_smoothing=smoothing)


# ---------------------------------------------------------------------------------------------------------- inference


@torch.no_grad()
def infer(job: Job) -> dict[str, Any]:
    """Batches of `rows` rows in the order given; translation is decoded greedily without a cache."""
    model, split, device = _begin(job)
    model.eval()
    if isinstance(model, TorchTranslator):
        model.tokens.weight[EOS] = 0.0  # nobody ends by chance
    with torch.autocast(device.type, torch.bfloat16, enabled=job.precision == "bf16"):
        for src in _sources(job, split, min(job.rows, job.infer_rows), device):
            _answer(model, src, job)
        start, count = now(device), 0
        for src in _sources(job, split, job.infer_rows, device):
            count += _answer(model, src, job)
        seconds = now(device) - start
    return {"seconds": seconds, "count": count, "per_second": count / seconds}


def _sources(job: Job, split: Split, rows: int, device: torch.device) -> Iterator[Tensor]:
    for start in range(0, rows, job.rows):
        yield padded(split.src, range(start, min(start + job.rows, rows))).to(device)


def _answer(model: nn.Module, src: Tensor, job: Job) -> int:
    """Rows classified, or tokens written until every row has ended."""
    if not isinstance(model, TorchTranslator):
        return len(model(src).argmax(-1).tolist())
    memory, padding = model.encode(src), src == PAD
    written = torch.full((len(src), 1), BOS, device=src.device)
    for _ in range(job.written):
        token = model.decode(written, memory, padding)[:, -1].argmax(-1)
        written = torch.cat([written, token[:, None]], 1)
        if bool((written == EOS).any(1).all()):
            break
    return int(written[:, 1:].ne(EOS).sum())
