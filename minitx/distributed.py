"""Several processes that train one run: which is the first, what each one's share is, and what they tell each other.

torchrun starts the processes and torch.distributed connects them: gloo between CPUs, NCCL for the gradients of GPUs.
The first process alone locks the run folder, saves and logs. What travels is numbers, and JSON as bytes. One process
alone is `ALONE`: the same calls, with nothing to do.
"""

from __future__ import annotations

import hashlib
import inspect
import itertools
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.distributed.distributed_c10d import Store
from torch.distributed.rendezvous import rendezvous
from torch.futures import Future
from torch.nn.parallel import DistributedDataParallel

from minitx.errors import ConfigError, RunError

T = TypeVar("T")
Numbers = TypeVar("Numbers", bound=np.generic)
ENVIRONMENT = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
"""What torchrun, or submitit's torch environment, tells each process (torch's `env://`)."""
PULSE_EVERY, LOST_AFTER = 3.0, 45.0
"""Seconds between signs of life of a process, and without one until the others take it for lost."""
LOST = ("gloo", "nccl", "connection", "process group")
"""Words in an error of torch.distributed; it comes as a plain RuntimeError, also out of a backward pass."""


class ProcessLost(RunError):
    """Another process of the run has ended."""


class World:
    """The processes of one run, seen from one of them."""

    def __init__(self, rank: int = 0, size: int = 1, store: Store | None = None) -> None:
        """rank: of this process, from 0. store: where they meet, None for a process alone."""
        self.rank, self.size, self._store = rank, size, store
        self.started: datetime | None = None
        """When the run began by the clock of the first process; None for a process alone."""
        self.run: Path | None = None
        """The folder of the run that they train, once it is known."""

    @property
    def is_first(self) -> bool:
        """Whether this process locks, saves and logs."""
        return self.rank == 0

    @property
    def command(self) -> str:
        """How these processes are started again."""
        if self.size == 1:
            return "python train.py"
        here = os.environ.get("LOCAL_WORLD_SIZE")
        return f"torchrun {f'--nproc-per-node {here}' if here == str(self.size) else '...'} train.py"

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Every `size`-th item from number `rank` on."""
        return items[self.rank :: self.size]

    def sum(self, values: NDArray[Numbers]) -> NDArray[Numbers]:
        """The sum over the processes of an array of one shape and type.

        Raises:
            ProcessLost: another process has ended.
        """
        if self.size == 1 or values.size == 0:
            return values
        total = torch.from_numpy(values.copy())
        with self.watched():
            dist.all_reduce(total)
        return total.numpy()

    def gather(self, value: Any) -> list[Any]:
        """What each process gives, in their order; as JSON."""
        if self.size == 1:
            return [value]
        text = np.frombuffer(json.dumps(value).encode(), np.uint8)
        lengths = np.zeros(self.size, np.int64)
        lengths[self.rank] = len(text)
        lengths = self.sum(lengths)
        table = np.zeros((self.size, int(lengths.max())), np.uint8)
        table[self.rank, : len(text)] = text
        table = self.sum(table)
        return [json.loads(row[:length].tobytes()) for row, length in zip(table, lengths, strict=True)]

    def decided(self, mine: bool) -> bool:
        """What the first process finds; the others' own finding may differ in the last bit of a number."""
        return bool(self.sum(np.array([mine and self.is_first], np.int64))[0])

    def from_first(self, work: Callable[[], T]) -> T:
        """What `work` gives in the first process, which alone does it. All processes raise its ConfigError or RunError.

        In the others the value has been through JSON.
        """
        if self.size == 1:
            return work()
        outcome: dict[str, Any] = {}
        if self.is_first:
            try:
                outcome["value"] = work()
            except (ConfigError, RunError) as error:
                self.gather({"error": str(error), "code": error.exit_code})
                raise
        found = self.gather(outcome)[0]
        if "error" in found:
            raise (ConfigError if found["code"] == ConfigError.exit_code else RunError)(found["error"])
        value: T = outcome["value"] if self.is_first else found["value"]
        return value

    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Overwrite the tensors with those of the first process."""
        if self.size > 1:
            with self.watched():
                for tensor in tensors:
                    dist.broadcast(tensor, 0)

    def first_to_print(self, line: str) -> bool:
        """Whether no other process has come with this line: what all have to say is said once."""
        if self._store is None:
            return True
        try:
            return int(self._store.add(f"printed/{hashlib.sha256(line.encode()).hexdigest()}", 1)) == 1
        except RuntimeError:  # the store went with the process that kept it: better twice than never
            return True

    @contextmanager
    def watched(self) -> Iterator[None]:
        """Around what talks to the other processes.

        Raises:
            ProcessLost: one of them has ended.
        """
        try:
            yield
        except RuntimeError as error:
            line = str(error).partition("\n")[0]
            if self.size == 1 or isinstance(error, RunError) or not any(word in line.lower() for word in LOST):
                raise
            raise ProcessLost(self.lost_line) from error

    @property
    def lost_line(self) -> str:
        """What to say when another process has ended."""
        again = "" if self.run is None else f"; continue with: {self.command} trainer.resume={self.run}"
        return f"another of the {self.size} processes has ended, and so this one does{again}"

    def parallel(self, module: nn.Module) -> DistributedDataParallel:
        """The module with gradients that are the mean over the processes.

        All weights are used by every batch. DistributedDataParallel begins with one bucket of gradients and continues
        with others, so that from three processes on an all-reduce would round the first step after a resume otherwise
        than the same step of a run that was not interrupted. CPUs, which promise the same bits, sum in the order of
        the processes.
        """
        # Buffers are tables that each process makes alike. torch 2.13 has renamed the key that leaves them alone.
        renamed = "forward_sync_buffers" in inspect.signature(DistributedDataParallel).parameters
        buffers: dict[str, Any] = {"forward_sync_buffers" if renamed else "broadcast_buffers": False}
        parallel = DistributedDataParallel(module, **buffers)
        if next(module.parameters()).device.type == "cpu":
            parallel.register_comm_hook(None, lambda _, bucket: _mean_in_order(bucket.buffer()))
        return parallel


ALONE = World()


class _Joined:
    world = ALONE
    left = threading.Event()


def join() -> World:
    """Meet the other processes that were started with this one, where there are any; `current` gives them from then on.

    Raises:
        RunError: they could not be reached.
    """
    if any(name not in os.environ for name in ENVIRONMENT) or os.environ["WORLD_SIZE"] == "1":
        return ALONE
    on_gpus = torch.cuda.is_available()
    local_rank = int(os.environ.get("LOCAL_RANK", 0))
    if on_gpus and local_rank < torch.cuda.device_count():  # one too many is refused where the run begins
        torch.cuda.set_device(local_rank)
    backend = "cpu:gloo,cuda:nccl" if on_gpus and dist.is_nccl_available() else "gloo"
    try:
        store, rank, size = next(rendezvous("env://"))
        dist.init_process_group(backend, store=store, rank=rank, world_size=size)
    except (RuntimeError, ValueError) as error:
        place = f"{os.environ['MASTER_ADDR']}:{os.environ['MASTER_PORT']}"
        line = str(error).partition("\n")[0]
        raise RunError(f"the processes could not meet at {place} ({line}); start them with torchrun") from error
    world = _Joined.world = World(rank, size, store)
    pulses = store.clone()  # of its own, for another thread
    pulses.set(_pulse_of(rank), "0")
    world.started = datetime.fromisoformat(world.gather(datetime.now().isoformat())[0])
    threading.Thread(target=_watch, args=(world, pulses, _Joined.left), daemon=True).start()
    return world


def leave() -> None:
    """Part from the others, at the end of a run that went well: after an error nobody waits for anybody."""
    if _Joined.world.size > 1:
        _Joined.left.set()
        _Joined.world.gather(None)  # nobody goes while another still watches
        dist.destroy_process_group()
        _Joined.world = ALONE


def current() -> World:
    """The processes that `join` has met."""
    return _Joined.world


def _pulse_of(rank: int) -> str:
    return f"pulse/{rank}"


def _watch(world: World, store: Store, left: threading.Event) -> None:
    """Show that this process lives, and end it when another does not: gloo mostly notices at once, but what waits for a
    process that died just after its last message can wait for half an hour, as can NCCL. Runs in a thread."""
    beats, changed = [b""] * world.size, [time.monotonic()] * world.size
    for beat in itertools.count(1):
        if left.wait(PULSE_EVERY):
            return
        now = time.monotonic()
        try:
            store.set(_pulse_of(world.rank), str(beat))
            found = store.multi_get([_pulse_of(rank) for rank in range(world.size)])
        except RuntimeError:  # the store went with the process that kept it
            break
        changed = [then if a == b else now for a, b, then in zip(beats, found, changed, strict=True)]
        beats = found
        if now - min(changed) > LOST_AFTER:
            break
    if world.first_to_print(world.lost_line):
        print(world.lost_line, file=sys.stderr, flush=True)
    os._exit(ProcessLost.exit_code)  # the main thread is waiting where no exception reaches it


def _mean_in_order(own: Tensor) -> Future[Tensor]:
    """The mean over the processes, each number summed in the order of the processes, wherever it lies."""
    parts = [torch.empty_like(own) for _ in range(dist.get_world_size())]

    def mean(_: object) -> Tensor:
        total = parts[0]
        for part in parts[1:]:
            total += part
        return total.div_(len(parts))

    work = dist.all_gather(parts, own, async_op=True)
    assert work is not None
    future: Future[Tensor] = work.get_future().then(mean)
    return future
