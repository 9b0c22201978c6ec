"""How much faster a layer's training step is on a wide machine than on a narrow one.

Nothing is trained. Narrow is one CPU thread; wide is the GPU where `trainer.device` says so, else `trainer.threads`, or
all usable cores where that is null. A cell has `trainer.batch_rows` texts (null: one) of `data.max_length` tokens; its
seed is the round.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from minitx.config import Config, NetConfig, rule
from minitx.studies.layer_bench import LayerBench, run_timing
from minitx.studies.machine import threads_for
from minitx.training.device import Compute, usable_cores
from minitx.training.process import keep_freed_memory

ROUNDS = 4
"""Each side's turns, which alternate, and by whom they begin too: a drift of the machine's speed hits both alike."""
SECONDS = 0.05
"""A turn goes on for so long, and for one step at least."""


@dataclass
class Side:
    """One of the two machines, and the seconds that its steps have taken."""

    bench: LayerBench
    threads: int
    taken: list[float] = field(default_factory=list)

    def turn(self) -> None:
        """Steps for `SECONDS`, after one that does not count."""
        torch.set_num_threads(self.threads)
        self.bench.train()
        began = len(self.taken)
        while sum(self.taken[began:]) < SECONDS:
            self.taken.append(self.bench.seconds(self.bench.train))


def run_parallel(config: Config, path: Path) -> None:
    """Measure, and write results.json and the measures `parallel.*` into the folder `path`.

    `narrow_seconds`, `wide_seconds`: the median step, forward and backward of the encoder. `speedup`: narrow over wide.
    `log_speedup`: its natural logarithm.

    Raises:
        ConfigError: the wide machine would be the narrow one.
    """
    run_timing(config, path, "parallel", config.trainer.speed, lambda model, compute: _speedup(config, model, compute))


def _speedup(config: Config, model: NetConfig, compute: Compute) -> dict[str, float]:
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
