"""What a step computes, when the loop stops, and that it learns."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from r_drop_reference import r_drop_reference
from torch import nn

from minitx.config import AverageConfig, Config, TrainerConfig
from minitx.data import TaskData, load_data
from minitx.data.batching import BatchStream
from minitx.metrics.evaluate import Evaluation
from minitx.metrics.intervals import Interval
from minitx.nn import losses as cross_entropy
from minitx.nn.build import build_model
from minitx.training import run as session
from minitx.training.console import Reporter
from minitx.training.counters import Counters, Window
from minitx.training.device import resolve_compute
from minitx.training.loop import Hooks, Loop
from minitx.training.optim import WeightAverage
from minitx.training.schedule import WarmUp
from minitx.training.step import Stepper
from minitx.training.trainer import model_shape

CPU = torch.device("cpu")


@pytest.fixture
def data(tiny: Callable[..., Config]) -> TaskData:
    return load_data(tiny().data)


def built(config: Config, data: TaskData) -> nn.Module:
    torch.manual_seed(config.seed)
    return build_model(config.model, model_shape(config, data))


def stepper_of(config: Config, data: TaskData) -> Stepper:
    return Stepper(built(config, data), config.optim, CPU, bf16=False, compiled=False)


def gradients(stepper: Stepper, batches: list[Any], monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """Of one step, before the optimiser throws them away."""
    kept: list[torch.Tensor] = []

    def keep(*_: object, **__: object) -> None:
        kept.extend(p.grad.clone() for p in stepper.parameters if p.grad is not None)

    monkeypatch.setattr(stepper.optimizer, "step", keep)
    stepper.step(batches, lr=0.1)
    return kept


def test_accumulated_uneven_batches_are_one_big_batch(
    tiny: Callable[..., Config], data: TaskData, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Promise 6: summed, divided once by the real targets of the step, whatever the cut. In float64."""
    config = tiny(model={"dropout": 0.0}, optim={"clip": None, "label_smoothing": 0.1})
    torch.set_default_dtype(torch.float64)
    try:
        train = data.splits["train"]
        rows = np.arange(23)
        whole = gradients(stepper_of(config, data), [train.batch(rows)], monkeypatch)
        cut = [train.batch(rows[:3]), train.batch(rows[3:14]), train.batch(rows[14:])]
        parts = gradients(stepper_of(config, data), cut, monkeypatch)
    finally:
        torch.set_default_dtype(torch.float32)
    assert len(whole) == len(parts) > 10
    for one, other in zip(whole, parts, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("chunk", [1 << 23, 300], ids=["at-once", "in-chunks"])
def test_an_r_drop_step_is_two_passes_of_each_batch(
    tiny: Callable[..., Config], data: TaskData, monkeypatch: pytest.MonkeyPatch, chunk: int
) -> None:
    """By hand from the same draws: the sums of two batches over the real targets of both. In float64."""
    monkeypatch.setattr(cross_entropy, "CHUNK", chunk)
    config = tiny(optim={"clip": None, "label_smoothing": 0.1, "r_drop": 5.0})
    batches = [data.splits["train"].batch(rows) for rows in (np.arange(3), np.arange(3, 14))]
    torch.set_default_dtype(torch.float64)
    try:
        stepper = stepper_of(config, data)
        torch.manual_seed(7)
        found = gradients(stepper, batches, monkeypatch)
        torch.manual_seed(7)
        losses = [r_drop_reference(*(stepper.model(b) for _ in range(2)), b.targets, 5.0, 0.1) for b in batches]
    finally:
        torch.set_default_dtype(torch.float32)
    mean = torch.stack(losses).sum() / sum(b.n_targets for b in batches)
    expected = torch.autograd.grad(mean, stepper.parameters)
    assert len(found) == len(expected) > 10
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_clipping_limits_the_norm_and_reports_the_one_before(tiny: Callable[..., Config], data: TaskData) -> None:
    free, clipped = (stepper_of(tiny(optim={"clip": c}), data) for c in (None, 1e-3))
    batch = data.splits["train"].batch(np.arange(5))
    torch.manual_seed(0)
    norm = free.step([batch], 0.0).grad_norm
    torch.manual_seed(0)
    assert torch.equal(clipped.step([batch], 0.0).grad_norm, norm) and norm > 1e-3


def test_optimiser_state_survives_a_round_trip(tiny: Callable[..., Config], data: TaskData) -> None:
    first, second = (stepper_of(tiny(model={"dropout": 0.0}), data) for _ in range(2))
    batches = [data.splits["train"].batch(np.arange(i, i + 5)) for i in range(4)]
    for batch in batches[:2]:
        first.step([batch], 1e-2)
    second.model.load_state_dict(first.model.state_dict())
    second.load_state(first.state())
    for stepper in (first, second):
        for batch in batches[2:]:
            stepper.step([batch], 1e-2)
    assert all(torch.equal(a, b) for a, b in zip(first.parameters, second.parameters, strict=True))


def test_stream_goes_on_from_any_position() -> None:
    lengths = np.random.default_rng(0).integers(2, 13, 97)
    whole = BatchStream(lengths, 64, seed=5)
    seen = [(whole.next(), whole.epoch, whole.batch) for _ in range(3 * whole.batches_per_epoch + 4)]
    for position in (0, 1, whole.batches_per_epoch - 1, whole.batches_per_epoch, 2 * whole.batches_per_epoch + 3):
        resumed = BatchStream(lengths, 64, seed=5)
        resumed.seek(seen[position][1], seen[position][2])
        assert np.array_equal(resumed.next(), seen[position + 1][0])
    assert seen[-1][1] == 3


# ---------------------------------------------------------------------------------------------------------- limits


def make_loop(data: TaskData, stepper: Stepper, **trainer: Any) -> Loop:
    config = TrainerConfig(**{"max_epochs": None, "batch_tokens": 256, **trainer})
    average = WeightAverage(stepper.model, AverageConfig())
    return Loop(stepper, data.splits["train"], config, 0, average, Reporter(quiet=True))


def test_the_first_limit_counts(tiny: Callable[..., Config], data: TaskData) -> None:
    stepper = stepper_of(tiny(), data)
    per_epoch = make_loop(data, stepper, max_steps=1, accumulate=3).steps_per_epoch
    assert per_epoch == BatchStream(data.splits["train"].lengths, 256, 0).batches_per_epoch / 3
    both = make_loop(data, stepper, max_steps=7, max_epochs=2.0, accumulate=3)
    assert both.total_steps == min(7, round(2 * per_epoch))
    assert make_loop(data, stepper, max_epochs=2.5, accumulate=3).total_steps == round(2.5 * per_epoch)
    assert make_loop(data, stepper, max_epochs=2.0, min_steps=10_007, accumulate=3).total_steps == 10_007
    assert make_loop(data, stepper, max_epochs=2.0, min_steps=10_007, max_steps=7, accumulate=3).total_steps == 7
    assert make_loop(data, stepper, max_epochs=2.5, min_steps=1, accumulate=3).total_steps == round(2.5 * per_epoch)


def test_minutes_become_steps_by_the_speed_so_far(tiny: Callable[..., Config], data: TaskData) -> None:
    loop = make_loop(data, stepper_of(tiny(), data), max_minutes=1.0)
    loop.counters = Counters(step=5, seconds=59.0)  # compiling: no estimate yet, or the run would end here
    assert loop.total_steps >= 10_000 and not loop.finished
    for step, seconds in ((30, 5.0), (50, 30.0)):
        loop.counters = Counters(step=step, seconds=seconds, settled=1.0)
        assert loop.total_steps == step + round((60 - seconds) * (step - 10) / (seconds - 1))
    loop.counters.seconds = 60.0
    assert loop.finished  # slower than promised: time is up all the same


def test_progress_survives_json() -> None:
    counters = Counters(step=3, best=0.1 + 0.2, window=Window(loss=1 / 3, targets=7), warm_up=WarmUp(2, 0.7))
    assert Counters.from_json(json.loads(json.dumps(counters.to_json()))) == counters


def test_patience_ends_a_run_that_does_not_get_better(tiny: Callable[..., Config], tmp_path: Path) -> None:
    config = tiny(optim={"lr": 1e-12}, trainer={"patience": 2, "eval_every": 2, "max_steps": 50})
    results = session.run(config, tmp_path / "run", quiet=True)
    assert (results["steps"], results["best_step"]) == (6, 2)


def test_best_holds_what_validation_chose_and_last_the_raw_weights(tiny: Callable[..., Config], tmp_path: Path) -> None:
    from safetensors.torch import load_file

    config = tiny(trainer={"average": {"kind": "ema", "decay": 0.5}, "max_steps": 6})
    session.run(config, tmp_path / "run", quiet=True)
    best, last = (load_file(tmp_path / "run" / "checkpoints" / k / "model.safetensors") for k in ("best", "last"))
    average = load_file(tmp_path / "run" / "checkpoints" / "last" / "training.safetensors")
    for name, tensor in best.items():
        assert torch.equal(tensor, average[f"average/0.{name}"]) and not torch.equal(tensor, last[name])


def test_validating_more_often_does_not_change_training(tiny: Callable[..., Config], tmp_path: Path) -> None:
    for name, every in (("often", 1), ("once", 12)):
        session.run(tiny(trainer={"eval_every": every}), tmp_path / name, quiet=True)
    often, once = (
        (tmp_path / n / "checkpoints" / "last" / "model.safetensors").read_bytes() for n in ("often", "once")
    )
    assert often == once


def test_bf16_on_a_cpu_trains_and_resumes(tiny: Callable[..., Config], tmp_path: Path) -> None:
    config = tiny(trainer={"precision": "bf16", "max_steps": 4})
    assert session.run(config, tmp_path / "run", quiet=True)["precision"] == "bf16"


def test_auto_is_resolved_to_what_is_there() -> None:
    compute = resolve_compute(TrainerConfig(device="cpu"))
    assert (compute.device.type, compute.compiled) == ("cpu", False) and compute.precision in ("fp32", "bf16")
    assert resolve_compute(TrainerConfig(device="cpu", precision="fp32")).precision == "fp32"


@pytest.mark.gpu
def test_a_gpu_run_finishes_resumes_and_is_bf16(tiny: Callable[..., Config], tmp_path: Path) -> None:
    for steps in (6, 12):
        trainer = {"device": "cuda", "precision": "auto", "resume": "auto", "max_steps": steps}
        results = session.run(tiny(trainer=trainer), tmp_path / "run", quiet=True)
    assert (results["steps"], results["precision"]) == (12, "bf16")


def test_a_tiny_task_is_learned(tiny: Callable[..., Config], tmp_path: Path) -> None:
    """Spelling a word out: seconds of training leave chance (6 of 7 letters wrong) far behind."""
    config = tiny(
        model={"dropout": 0.0, "d_model": 32, "d_ff": 64, "position": "rotary", "tie_embeddings": False},
        optim={"lr": 3e-3},
        trainer={"max_steps": 800, "eval_every": 400},
    )
    results = session.run(config, tmp_path / "run", quiet=True)
    assert results["metrics"]["test"]["per"]["value"] < 0.3


def test_a_second_signal_leaves_at_once() -> None:
    script = (
        "import os, signal, time; from minitx.training.signals import stop_on_signals\n"
        "with stop_on_signals() as stop:\n"
        "    os.kill(os.getpid(), signal.SIGINT); assert stop.signal == signal.SIGINT\n"
        "    os.kill(os.getpid(), signal.SIGINT); time.sleep(30)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=20)
    assert done.returncode == 130 and "once more to leave at once" in done.stderr


def test_signal_handlers_are_given_back() -> None:
    from minitx.training.signals import stop_on_signals

    before = signal.getsignal(signal.SIGTERM)
    with stop_on_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
    assert stop and signal.getsignal(signal.SIGTERM) is before


def test_keeping_memory_asks_glibc_or_says_no() -> None:
    script = (
        "from minitx.training.device import keep_freed_memory as k; import platform;"
        "print(k(), platform.libc_ver()[0] or 'other')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    kept, libc = done.stdout.split()
    assert kept == str(libc == "glibc")


def test_a_step_estimate_never_ends_a_run_before_its_first_step(tiny: Callable[..., Config], data: TaskData) -> None:
    loop = make_loop(data, stepper_of(tiny(), data), max_minutes=1e-9)
    assert not loop.finished and loop.total_steps >= 1


def test_equal_scores_are_told_apart_by_the_loss(tiny: Callable[..., Config], data: TaskData) -> None:
    """A BLEU of 0 early on must not keep the very first weights, nor spend the patience."""
    loop = make_loop(data, stepper_of(tiny(), data), max_steps=9)
    found: list[bool] = []
    for score, loss in [(0.5, 3.0), (0.5, 2.0), (0.5, 2.5), (0.6, 1.0), (0.4, 9.0)]:
        metrics = {"per": Interval(score, score, score)}
        evaluated = Evaluation(loss=loss, metrics=metrics, main="per", rows=np.arange(1), predictions=["x"])
        loop._validate(
            Hooks(
                validate=lambda evaluated=evaluated: evaluated,
                record=lambda record: None,
                on_validation=lambda _, better: found.append(better),
                save_last=lambda: None,
            )
        )
    assert found == [True, True, False, False, True]
    assert (loop.counters.best, loop.counters.best_loss) == (0.4, 9.0)
