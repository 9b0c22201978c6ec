"""`minitx doctor`: what a report of a bug needs to say of this machine, and a self-test of a few seconds."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from minitx.cli.shared import Commands, add_command, print_lines
from minitx.errors import RunError

STEPS = 30
"""Of the self-test's training."""


def add_parser(commands: Commands) -> None:
    """Register the command and its options."""
    summary = "versions, device, threads, caches, and a self-test of a few seconds"
    parser = add_command(commands, "doctor", run, summary, "minitx doctor")
    parser.add_argument("--json", action="store_true", help="the same as one JSON object")


def run(options: argparse.Namespace) -> None:
    """A line each of what there is and of what was tested.

    Raises:
        RunError: a self-test has failed; it is named, after all lines.
    """
    facts, tested = machine_facts(), self_tests()
    if options.json:
        print(json.dumps({"machine": facts, "self_tests": tested}, indent=1, ensure_ascii=False))
    else:
        width = max(map(len, (*facts, *tested)))
        print_lines([f"{name:<{width}}  {value}" for name, value in (*facts.items(), *tested.items())])
    failed = [name for name, value in tested.items() if not value.startswith("ok")]
    if failed:
        raise RunError(f"the self-{failed[0].replace(': ', ' of ')} has failed; please report it with the lines above")


def machine_facts() -> dict[str, str]:
    """Software, hardware, and where things are kept."""
    import os
    import platform
    import shutil

    import torch

    from minitx.config import Config
    from minitx.training.device import cpu_name, resolve_compute, usable_cores, why_no_cuda
    from minitx.training.run_folder import versions

    compute, here = resolve_compute(Config().trainer), Path.cwd()
    cache = Path(Config().data.cache_dir)
    cached = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file()) if cache.is_dir() else 0
    gpus = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    load = ", ".join(f"{one:.1f}" for one in os.getloadavg()) if hasattr(os, "getloadavg") else "unknown"
    set_here = {name: os.environ[name] for name in ENVIRONMENT if name in os.environ}
    return {
        "python": f"{platform.python_version()}, {sys.executable}",
        **versions(),
        "system": platform.platform(),
        "cpu": f"{cpu_name()}, {usable_cores()} usable cores, {torch.backends.cpu.get_cpu_capability()}",
        "threads": f"{torch.get_num_threads()} of torch",
        "load": f"{load} (1, 5 and 15 minutes)",
        "gpu": ", ".join(gpus) or f"none ({why_no_cuda()})",
        "auto": f"trainer.device=auto and trainer.precision=auto come to {compute.name}, {compute.precision}",
        "environment": ", ".join(f"{name}={value}" for name, value in set_here.items())
        or "nothing that matters is set",
        "cache": f"{cache.resolve()}: {_megabytes(cached)}",
        "disk": f"{_megabytes(shutil.disk_usage(here).free)} free at {here}",
    }


ENVIRONMENT = (
    "OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES", "LD_PRELOAD", "PYTORCH_CUDA_ALLOC_CONF",
    "PYTORCH_ALLOC_CONF", "HF_HOME", "HF_HUB_OFFLINE", "HYDRA_FULL_ERROR",
)  # fmt: skip
"""Variables that change what a run does, or where it looks."""


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.0f} MB"


def self_tests() -> dict[str, str]:
    """Name -> `ok` with what was seen, or what went wrong."""
    tests: Mapping[str, Callable[[], str]] = {
        "attention": _attention,
        "training": _training,
        "checkpoint": _checkpoint,
    }
    found = {}
    for name, test in tests.items():
        began = time.perf_counter()
        try:
            seen = test()
        except Exception as error:  # whatever it is, it is what this command is for
            found[f"test: {name}"] = f"FAILED: {type(error).__name__}: {error}"
        else:
            found[f"test: {name}"] = f"ok, {seen} ({time.perf_counter() - began:.1f} s)"
    return found


def _expect(holds: bool, otherwise: str) -> None:
    if not holds:  # an assert would go with `python -O`
        raise RunError(otherwise)


def _attention() -> str:
    """The fused kernel against the written-out one, in float64."""
    import torch

    from minitx.nn.attention.kernels import attend, naive_attention

    torch.manual_seed(0)
    q, k, v = torch.randn(3, 2, 3, 7, 5, dtype=torch.float64).unbind(0)
    difference = (attend(q, k, v, None, True, 0.0, "sdpa") - naive_attention(q, k, v, None, True, 0.0)[0]).abs().max()
    _expect(bool(difference < 1e-12), f"kernels differ by {difference:.1e}")
    return f"kernels differ by {difference:.0e}"


def _training() -> str:
    """A tiny Transformer learns a batch on the device that `auto` means, twice to the same loss."""
    import torch

    from minitx.batch import Batch
    from minitx.config import Config, TransformerConfig
    from minitx.nn.build import build_model
    from minitx.nn.sizes import ModelShape
    from minitx.training.device import resolve_compute

    device = resolve_compute(Config().trainer).device
    shape = ModelShape(task="classification", src_vocab=17, n_classes=3, max_length=11)

    def losses() -> tuple[float, float]:
        torch.manual_seed(0)
        model = build_model(TransformerConfig(d_model=24, n_heads=3, n_layers=2, dropout=0.0), shape).to(device)
        ids = torch.randint(5, 17, (13, 11), device=device)
        batch = Batch(rows=torch.arange(13, device=device), src=ids, src_mask=None, targets=ids[:, 0] % 3)
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        seen = []
        for _ in range(STEPS):
            optimizer.zero_grad()
            loss = model.loss(batch) / 13
            torch.autograd.backward(loss)
            optimizer.step()
            seen.append(float(loss.detach()))
        return seen[0], seen[-1]

    (first, last), again = losses(), losses()[1]
    _expect(last < first / 2, f"the loss went from {first:.3f} to {last:.3f} only")
    _expect(last == again or device.type != "cpu", f"the same seed gave {last!r} and {again!r}")
    return f"loss {first:.3f} to {last:.3f} in {STEPS} steps on {device}"


def _checkpoint() -> str:
    """Written and read, and damage is seen."""
    import tempfile

    import torch

    from minitx.training.checkpoint_files import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint

    made = Checkpoint(tensors={"a.safetensors": {"x": torch.arange(5.0)}}, texts={"t.json": "{}"}, state={"step": 1})
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint(Path(folder), "last", 1, made)
        place = Path(folder) / "last"
        read = load_checkpoint(place).tensors["a.safetensors"]["x"]
        _expect(torch.equal(read, torch.arange(5.0)), "other numbers were read than were written")
        (place / "t.json").write_text("[]")
        try:
            load_checkpoint(place)
        except CheckpointError:
            return "written, read, and damage seen"
    raise RunError("damage was not seen")
