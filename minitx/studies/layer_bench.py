"""A layer whose work is timed, and what a timing writes; what is timed, `cost` and `parallel` say."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from minitx.config import Config, NetConfig, SpeedConfig, rule
from minitx.nn.encoders import make_encoder
from minitx.nn.stacks import Encoder
from minitx.studies.kept import keep
from minitx.studies.machine import machine_name, threads_for
from minitx.studies.study import TimingKind
from minitx.studies.work import VERSIONS, is_done
from minitx.training.device import Compute, resolve_compute
from minitx.training.process import prepare_process
from minitx.training.runfolder import RunFolder, versions


def run_timing(
    config: Config,
    path: Path,
    kind: TimingKind,
    speed: SpeedConfig,
    measure: Callable[[NetConfig, Compute], Mapping[str, float]],
) -> None:
    """Measure in this process, and write results.json and the measures `<kind>.*` into the folder `path`.

    Raises:
        ConfigError: the model is no net.
        Busy: another process measures there.
    """
    if not isinstance(config.model, NetConfig):
        raise rule("model", config.model.kind, "be a net, because what is measured is a layer of it")
    compute = resolve_compute(config.trainer)
    prepare_process(speed, compute.device, threads_for(config.trainer))
    torch.manual_seed(config.seed)
    folder = RunFolder(path)
    folder.create()
    with folder.locked():
        if is_done(path, config, kind, ()):  # another process, while this one waited
            return
        folder.begin(config)
        keep(path, kind, VERSIONS[kind], measure(config.model, compute))
        folder.write_results(
            {
                "status": "finished", "kind": kind, "model": config.model.kind, "seed": config.seed,
                "device": machine_name(config.trainer), "precision": compute.precision, "metrics": {},
                "versions": versions(),
            }
        )  # fmt: skip


class LayerBench:
    """An encoder and `rows` texts of random states for it, (rows, length, d_model)."""

    def __init__(self, model: NetConfig, length: int, compute: Compute, rows: int = 1) -> None:
        self._length, self._precision = length, compute.precision
        self.device = compute.device
        self._encoder = make_encoder(model, length).to(self.device)
        self.states = torch.randn(rows, length, model.d_model, device=self.device, requires_grad=True)

    def mix(self) -> None:
        """Forward and backward of the first layer's attention; what convolves or recurs has no smaller part that
        mixes positions, so all of it."""
        if not isinstance(self._encoder, Encoder):
            self.train()
            return
        attention = self._encoder.attentions()[0]
        mask = attention.mask(len(self.states), self._length, self._length, self.states)
        self._forward_backward(attention, lambda: attention(self.states, mask=mask))

    def train(self) -> None:
        """Forward and backward of the encoder."""
        self._forward_backward(self._encoder, lambda: self._encoder(self.states))

    def infer(self) -> None:
        """Forward of the encoder."""
        with torch.no_grad(), self.autocast():
            self._encoder(self.states)

    def autocast(self) -> torch.autocast:
        """The precision that is asked for."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self._precision == "bf16")

    def seconds(self, work: Callable[[], object]) -> float:
        """Of one piece of work, to its end on a GPU too."""
        start = self._now()
        work()
        return self._now() - start

    def _forward_backward(self, module: nn.Module, forward: Callable[[], Tensor]) -> None:
        with self.autocast():
            loss = forward().float().square().mean()
        torch.autograd.backward(loss)
        module.zero_grad(set_to_none=True)
        self.states.grad = None

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()
