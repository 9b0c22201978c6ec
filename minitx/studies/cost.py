"""What one layer costs at one length: seconds and bytes of training, inference and cached decoding, batch 1.

Nothing is trained. A cell's `data.max_length` is the length, its seed the round.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

from minitx.config import Config, LstmConfig, NetConfig, TransformerConfig, rule
from minitx.nn.decoders import make_decoder
from minitx.nn.encoders import make_encoder
from minitx.nn.stacks import Encoder
from minitx.studies.kept import keep
from minitx.studies.work import VERSIONS
from minitx.training.device import Compute, resolve_compute
from minitx.training.memory import tensor_peak_bytes
from minitx.training.process import prepare_process
from minitx.training.runfolder import RunFolder, versions

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
    if not isinstance(config.model, NetConfig):
        raise rule("model", config.model.kind, "be a net, because what is measured is a layer of it")
    compute = resolve_compute(config.trainer)
    prepare_process(
        config.trainer.speed.model_copy(update={"keep_memory": False}), compute.device, config.trainer.threads
    )
    torch.manual_seed(config.seed)
    folder = RunFolder(path)
    folder.create()
    with folder.locked():
        folder.begin(config)
        keep(path, "cost", VERSIONS["cost"], _Bench(config.model, config.data.max_length, compute).all())
        folder.write_results(
            {
                "status": "finished", "kind": "cost", "model": config.model.kind, "seed": config.seed,
                "device": compute.name, "precision": compute.precision, "metrics": {}, "versions": versions(),
            }
        )  # fmt: skip


class _Bench:
    def __init__(self, model: NetConfig, length: int, compute: Compute) -> None:
        self.model, self.length, self.compute = model, length, compute
        self.device = compute.device
        self.encoder = make_encoder(model, length).to(self.device)
        self.states = torch.randn(1, length, model.d_model, device=self.device, requires_grad=True)

    def all(self) -> dict[str, float]:
        """Every measure that the model has."""
        found = {
            "mixing_seconds": self._median(self._mix),
            "training_seconds": self._median(self._train),
            "inference_seconds": self._median(self._infer),
            "peak_bytes": float(tensor_peak_bytes(self.device, self._train)),
        }
        if isinstance(self.model, TransformerConfig | LstmConfig):
            found["decoding_seconds"] = self._decoding()
        return found

    def _mix(self) -> None:
        """The attention of the first layer; what convolves or recurs has no smaller part that mixes."""
        if not isinstance(self.encoder, Encoder):
            self._train()
            return
        attention = self.encoder.attentions()[0]
        mask = attention.mask(1, self.length, self.length, self.states)
        self._forward_backward(attention, lambda: attention(self.states, mask=mask))

    def _train(self) -> None:
        self._forward_backward(self.encoder, lambda: self.encoder(self.states))

    def _infer(self) -> None:
        with torch.no_grad(), self._autocast():
            self.encoder(self.states)

    def _decoding(self) -> float:
        """Of the median token, after a first pass has filled the cache."""
        decoder = make_decoder(self.model, 2 * self.length + MOST)
        assert isinstance(decoder, nn.Module)
        decoder.to(self.device).eval()
        memory = torch.randn(1, MEMORY_TOKENS, self.model.d_model, device=self.device)
        with torch.no_grad(), self._autocast():
            cache = decoder.new_cache(memory)
            decoder(self.states, memory, cache=cache)
            token = self.states[:, :1]
            return self._median(lambda: decoder(token, memory, cache=cache))

    def _forward_backward(self, module: nn.Module, forward: Callable[[], Tensor]) -> None:
        with self._autocast():
            loss = forward().float().square().mean()
        torch.autograd.backward(loss)
        module.zero_grad(set_to_none=True)
        self.states.grad = None

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.compute.precision == "bf16")

    def _median(self, work: Callable[[], object]) -> float:
        """Seconds, after one time that does not count."""
        work()
        taken: list[float] = []
        while len(taken) < LEAST or (sum(taken) < SECONDS and len(taken) < MOST):
            start = self._now()
            work()
            taken.append(self._now() - start)
        return statistics.median(taken)

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
