"""What one layer costs at one length: seconds and bytes of training, inference and cached decoding, batch 1.

Nothing is trained. A cell's `data.max_length` is the length, its seed the round.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from minitx.config import Config, LstmConfig, NetConfig, TransformerConfig
from minitx.nn.decoders import make_decoder
from minitx.studies.layer_bench import LayerBench, run_timing
from minitx.training.device import Compute
from minitx.training.memory import tensor_peak_bytes

SECONDS = 0.3
"""Repetitions go on for so long,"""
LEAST, MOST = 3, 100
"""and are so many; the median counts."""
MEMORY_TOKENS = 7
"""Source tokens that a decoder looks back at, besides its own."""


def run_cost(config: Config, path: Path) -> None:
    """Measure, and write results.json and the measures `cost.*` into the folder `path`.

    `mixing_seconds`: forward and backward of what mixes positions: the attention itself, or all of a convolution or
    recurrence. `training_seconds`: forward and backward of the encoder. `inference_seconds`: its forward pass.
    `peak_bytes`: most memory of tensors in a training step. `decoding_seconds`: one more token after `data.max_length`
    of them, with cached keys and values (or state).
    """
    speed = config.trainer.speed.model_copy(update={"keep_memory": False})
    run_timing(config, path, "cost", speed, lambda model, compute: _costs(model, config.data.max_length, compute))


def _costs(model: NetConfig, length: int, compute: Compute) -> dict[str, float]:
    """Every measure that the model has."""
    bench = LayerBench(model, length, compute)
    found = {
        "mixing_seconds": _median(bench, bench.mix),
        "training_seconds": _median(bench, bench.train),
        "inference_seconds": _median(bench, bench.infer),
        "peak_bytes": float(tensor_peak_bytes(bench.device, bench.train)),
    }
    if isinstance(model, TransformerConfig | LstmConfig):
        found["decoding_seconds"] = _decoding(bench, model, length)
    return found


def _decoding(bench: LayerBench, model: NetConfig, length: int) -> float:
    """Of the median token, after a first pass has filled the cache."""
    decoder = make_decoder(model, 2 * length + MOST)
    assert isinstance(decoder, nn.Module)
    decoder.to(bench.device).eval()
    memory = torch.randn(1, MEMORY_TOKENS, model.d_model, device=bench.device)
    with torch.no_grad(), bench.autocast():
        cache = decoder.new_cache(memory)
        decoder(bench.states, memory, cache=cache)
        token = bench.states[:, :1]
        return _median(bench, lambda: decoder(token, memory, cache=cache))


def _median(bench: LayerBench, work: Callable[[], object]) -> float:
    """Seconds, after one time that does not count."""
    work()
    taken: list[float] = []
    while len(taken) < LEAST or (sum(taken) < SECONDS and len(taken) < MOST):
        taken.append(bench.seconds(work))
    return statistics.median(taken)
