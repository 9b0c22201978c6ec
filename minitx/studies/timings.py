"""Timings: what one layer costs at one length, and how much faster a wide machine is than one CPU thread."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from minitx.config import Config, LstmConfig, NetConfig, SpeedConfig, TransformerConfig, rule
from minitx.nn.encoders import make_decoder, make_encoder
from minitx.nn.transformer import Encoder
from minitx.studies.measures import plain
from minitx.sweeps.cells import measure
from minitx.sweeps.machine import threads_for
from minitx.training.device import (
    Compute,
    keep_freed_memory,
    prepare_process,
    resolve_compute,
    tensor_peak_bytes,
    usable_cores,
)


def _prepare(config: Config, speed: SpeedConfig) -> tuple[NetConfig, Compute]:
    """Set this process up for a timing; the net to be timed, and where.

    Raises:
        ConfigError: the model is no net.
    """
    if not isinstance(config.model, NetConfig):
        raise rule("model", config.model.kind, "be a net, because what is measured is a layer of it")
    compute = resolve_compute(config.trainer)
    prepare_process(speed, compute.device, threads_for(config.trainer))
    torch.manual_seed(config.seed)
    return config.model, compute


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
        """The precision that is asked for. torch has no autocast for `meta`, where operations are counted in fp32."""
        device = "cpu" if self.device.type == "meta" else self.device.type
        return torch.autocast(device, torch.bfloat16, enabled=self._precision == "bf16")

    def in_double(self) -> None:
        """Compute in float64."""
        self._encoder.double()
        self.states = self.states.detach().double().requires_grad_()

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


COST_SECONDS = 0.3
"""A measurement is repeated for this long."""
LEAST, MOST = 3, 100
"""Bounds of the number of repetitions; their median counts."""
MOST_COUNTED = 8192
"""Length up to which operations are counted."""
MEMORY_TOKENS = 7
"""Source tokens that a decoder reads besides its own."""


@measure("cost", version="2", is_timing=True)
def cost(path: Path, config: Config) -> dict[str, float]:
    """Seconds and bytes of one layer at one length.

    `mixing_seconds`: forward and backward of what mixes positions: the attention itself, or all of a convolution or
    recurrence. `training_seconds`: forward and backward of the encoder. `inference_seconds`: its forward pass.
    `peak_bytes`: most memory of tensors in a training step. `decoding_seconds`: one more token after `data.max_length`
    of them, with cached keys and values (or state), and `cache_bytes`: what these take after `data.max_length` tokens.
    `mixing_flops`, `training_flops`: floating-point operations of the same work as the seconds of that name, counted
    with plain attention, up to a length of 8,192; left out where torch's counter knows none of them.
    """
    model, compute = _prepare(config, config.trainer.speed.model_copy(update={"keep_memory": False}))
    length = config.data.max_length
    bench = LayerBench(model, length, compute)
    found = {
        "mixing_seconds": _median(bench, bench.mix),
        "training_seconds": _median(bench, bench.train),
        "inference_seconds": _median(bench, bench.infer),
        "peak_bytes": float(tensor_peak_bytes(bench.device, bench.train)),
    }
    if length <= MOST_COUNTED:
        found |= _operations(model, length, compute)
    if isinstance(model, TransformerConfig | LstmConfig):
        found |= _decoding(bench, model, length)
    return found


def _operations(model: NetConfig, length: int, compute: Compute) -> dict[str, float]:
    """`mixing_flops` and `training_flops`, from kernels that torch counts.

    Tensors on `meta` have shapes alone, so that plain attention keeps no weights. An LSTM is counted on the CPU, in a
    fifth of the time. In float64, because some float32 kernels of a CPU are not counted, an LSTM's among them.
    """
    device = torch.device("cpu" if isinstance(model, LstmConfig) else "meta")
    bench = LayerBench(plain(model), length, replace(compute, device=device, precision="fp32"))
    bench.in_double()
    training = _flops(bench.train)
    mixing = _flops(bench.mix) if isinstance(model, TransformerConfig) else training
    return {"mixing_flops": mixing, "training_flops": training} if training else {}


def _flops(work: Callable[[], object]) -> float:
    with FlopCounterMode(display=False) as counter:
        work()
    return float(counter.get_total_flops())


def _decoding(bench: LayerBench, model: NetConfig, length: int) -> dict[str, float]:
    """`decoding_seconds` of the median token, after a first pass has filled the cache, and `cache_bytes` then."""
    decoder = make_decoder(model, 2 * length + MOST)
    assert isinstance(decoder, nn.Module)
    decoder.to(bench.device).eval()
    memory = torch.randn(1, MEMORY_TOKENS, model.d_model, device=bench.device)
    with torch.no_grad(), bench.autocast():
        cache = decoder.new_cache(memory)
        decoder(bench.states, memory, cache=cache)
        n_bytes, token = float(cache.n_bytes), bench.states[:, :1]
        seconds = _median(bench, lambda: decoder(token, memory, cache=cache))
    return {"decoding_seconds": seconds, "cache_bytes": n_bytes}


def _median(bench: LayerBench, work: Callable[[], object]) -> float:
    """Seconds, after one time that does not count."""
    work()
    taken: list[float] = []
    while len(taken) < LEAST or (sum(taken) < COST_SECONDS and len(taken) < MOST):
        taken.append(bench.seconds(work))
    return statistics.median(taken)


ROUNDS = 4
"""Turns of each side. They alternate, and so does who begins, so that a drift of the machine's speed affects both."""
PARALLEL_SECONDS = 0.05
"""Length of a turn; at least one step."""


@dataclass
class Side:
    """One of the two machines, and the seconds that its steps have taken."""

    bench: LayerBench
    threads: int
    taken: list[float] = field(default_factory=list)

    def turn(self) -> None:
        """Steps for `PARALLEL_SECONDS`, after one that does not count."""
        torch.set_num_threads(self.threads)
        self.bench.train()
        began = len(self.taken)
        while sum(self.taken[began:]) < PARALLEL_SECONDS:
            self.taken.append(self.bench.seconds(self.bench.train))


@measure("parallel", version="1", is_timing=True)
def parallel(path: Path, config: Config) -> dict[str, float]:
    """What a training step gains from a wide machine: all cores, or the GPU, over one CPU thread.

    `narrow_seconds`, `wide_seconds`: the median step, forward and backward of the encoder. `speedup`: narrow over wide.
    `log_speedup`: its natural logarithm.

    Raises:
        ConfigError: the wide machine would be the narrow one.
    """
    model, compute = _prepare(config, config.trainer.speed)
    narrow, wide = _sides(config, model, compute)
    for first, second in _turns(narrow, wide):
        first.turn()
        second.turn()
    slow, fast = statistics.median(narrow.taken), statistics.median(wide.taken)
    return {
        "narrow_seconds": slow, "wide_seconds": fast, "speedup": slow / fast, "log_speedup": math.log(slow / fast),
    }  # fmt: skip


def _sides(config: Config, model: NetConfig, compute: Compute) -> tuple[Side, Side]:
    """Narrow and wide, in the same precision; on a CPU they share the layer."""
    threads, on_gpu = threads_for(config.trainer), compute.device.type == "cuda"
    if threads == 1 and not on_gpu:
        remedy = f"give it more (of {usable_cores()} that are usable here), or use trainer.device=cuda"
        raise rule("trainer.threads", threads, "be above 1, because one thread is what it is compared with", remedy)
    if on_gpu:  # like with like: CPUs of both tiers keep memory, and cuDNN's recurrence is no coarser than products
        keep_freed_memory()
        torch.backends.cudnn.allow_tf32 = False
    size = config.data.max_length, config.trainer.batch_rows or 1
    on_cpu = LayerBench(model, size[0], replace(compute, device=torch.device("cpu")), size[1])
    return Side(on_cpu, 1), Side(LayerBench(model, size[0], compute, size[1]) if on_gpu else on_cpu, threads)


def _turns(narrow: Side, wide: Side) -> Iterator[tuple[Side, Side]]:
    for number in range(ROUNDS):
        yield (wide, narrow) if number % 2 else (narrow, wide)
