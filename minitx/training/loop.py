"""The loop: when to step, log, validate, save and stop. It knows no model and no file format.

    stream -> Stepper.step -> window of losses -> log line
                           -> every `eval_every`: validation -> `best`
                           -> every `save_every`: `last`

Everything that the next step depends on is in `Counters` and in the tensors that `_save` writes, so a run that was
killed anywhere and resumed is, on the CPU, bit for bit the run that was not.

Several processes run this loop side by side. Each knows the rows of the whole step, trains on its share of the batches,
and agrees with the others once a step: on the loss, the time, and whether to stop.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from minitx.batch import Batch
from minitx.config import OptimConfig, TrainerConfig
from minitx.data import LENGTH_STEP, TARGET_STEP, Masker, ResidentSplit, Split
from minitx.data.batching import BatchStream
from minitx.data.splits import IntArray
from minitx.distributed import ALONE, World
from minitx.errors import RunError
from minitx.metrics.evaluate import Evaluation
from minitx.nn.build import Model
from minitx.training.console import Reporter, Status
from minitx.training.counters import Counters, Window
from minitx.training.device import Compute
from minitx.training.optim import WeightAverage
from minitx.training.schedule import SETTLED_AT, Schedule
from minitx.training.signals import StopRequest
from minitx.training.step import Stepper, draw_seed

MakeBatch = Callable[[np.ndarray, int], Batch]
"""Row numbers of a split, and the epoch in which they are drawn -> their batch."""


class TrainingError(RunError):
    """Training cannot go on; one line that says where and what to try."""


@dataclass(frozen=True, kw_only=True)
class Hooks:
    """What the loop calls and does not know: evaluate, log, save."""

    validate: Callable[[], Evaluation]
    """Evaluate the model as it is now on the validation split."""
    record: Callable[[dict[str, Any]], None]
    """Take one line for metrics.jsonl and TensorBoard."""
    on_validation: Callable[[Evaluation, bool], None]
    """After each validation, inside the averaged weights; True when it is the best so far."""
    save_last: Callable[[], None]
    after_step: Callable[[], None] = lambda: None


class Loop:
    """Trains until the first limit, `patience`, or a stop request."""

    def __init__(
        self,
        stepper: Stepper,
        split: Split,
        config: TrainerConfig,
        seed: int,
        average: WeightAverage,
        reporter: Reporter,
        make_batch: MakeBatch | None = None,
        length_step: int = 1,
        row_targets: IntArray | None = None,
        world: World = ALONE,
    ) -> None:
        """make_batch: None = split.batch. length_step: batches are planned with lengths rounded up to its multiples.
        row_targets: real targets of each row; None = as the split has them."""
        self.stepper, self.split, self.config, self.average, self.reporter = stepper, split, config, average, reporter
        lengths = -(-split.lengths // length_step) * length_step
        self.stream = BatchStream(lengths, config.batch_tokens, seed, config.batch_rows)
        self.counters = Counters()
        self.schedule = Schedule(stepper.optim, self._step_limit(), _in_seconds(config.max_minutes))
        self._lr = math.nan
        self._pending: list[tuple[int, list[np.ndarray], torch.Tensor, torch.Tensor, int]] = []
        self._shown_loss = math.nan
        self.make_batch: MakeBatch = make_batch or (lambda rows, epoch: split.batch(rows))
        self._counted = (split.tgt or split.src).lengths
        own_targets = np.ones(len(split), np.int64) if split.tgt is None else split.tgt.lengths
        self._row_targets = own_targets if row_targets is None else row_targets
        self.world, self._seed = world, seed
        self._stop, self._agreed_to_stop = StopRequest(), False

    # ------------------------------------------------------------------------------------------------- limits

    @property
    def steps_per_epoch(self) -> float:
        return self.stream.batches_per_epoch / self.config.accumulate

    def _step_limit(self) -> int | None:
        """The first of `max_steps` and `max_epochs`, in steps."""
        limits = [] if self.config.max_steps is None else [self.config.max_steps]
        if self.config.max_epochs is not None:
            limits.append(max(self.config.min_steps or 1, round(self.config.max_epochs * self.steps_per_epoch)))
        return min(limits, default=None)

    @property
    def total_steps(self) -> int:
        """The step at which the run ends, as far as it is known now (exactly, without `max_minutes`)."""
        return self.schedule.total_steps(self.counters)

    @property
    def finished(self) -> bool:
        """Whether the first limit is reached: steps, minutes, or patience."""
        return self.schedule.is_over(self.counters) or self.out_of_patience

    @property
    def out_of_patience(self) -> bool:
        """Whether so many validations in a row have brought nothing better."""
        patience = self.config.patience
        return patience is not None and self.counters.without_better >= patience

    @property
    def _eval_interval(self) -> int:
        every = self.config.eval_every
        return every if isinstance(every, int) else max(1, round(every * self.steps_per_epoch))

    # --------------------------------------------------------------------------------------------------- loop

    def run(self, hooks: Hooks, stop: StopRequest) -> None:
        """Train to the end, or to the end of the step in which a stop was asked for; then save `last`."""
        self._stop, self._agreed_to_stop = stop, False
        validated_at = saved_at = self.counters.step
        while not self.finished and not self._stops:
            self._train_step()
            hooks.after_step()
            step = self.counters.step
            ends = self.finished
            if step % self.config.log_every == 0 or ends:
                self._log(hooks)
            if step % self._eval_interval == 0 or ends:  # also when asked to stop: the resumed run must not miss it
                self._validate(hooks)
                validated_at = step
            due = step % self.config.save_every == 0 if self.config.save_every else validated_at == step
            if due or ends:
                self._save(hooks)
                saved_at = step
        if self.counters.best is None and not self._stops:  # continued with a limit that had been passed already
            self._validate(hooks)
        if self.counters.step > saved_at:
            self._save(hooks)
        self.reporter.end_progress()

    def _train_step(self) -> None:
        started = time.perf_counter()
        counters = self.counters
        self._lr = lr = self.schedule.learning_rate(counters)
        drawn = [(self.stream.next(), self.stream.epoch) for _ in range(self.config.accumulate)]
        rows = [r for r, _ in drawn]
        batches = [self.make_batch(r, epoch) for r, epoch in self.world.share(drawn)]
        n_targets = sum(int(self._row_targets[r].sum()) for r in rows)
        result = self.stepper.step(batches, lr, n_targets, self._draw_seeds())
        counters.step += 1
        counters.epoch, counters.batch = self.stream.epoch, self.stream.batch
        tokens = sum(int(self._counted[r].sum()) for r in rows)
        counters.tokens += tokens
        counters.window.tokens += tokens
        self.average.after_step(counters.step)
        self._pending.append((counters.step, rows, result.loss, result.grad_norm, result.n_targets))
        elapsed = self._agree(started)
        counters.seconds += elapsed
        counters.window.seconds += elapsed
        if counters.step == SETTLED_AT:
            counters.settled = counters.seconds
        self._show(lr)

    def _draw_seeds(self) -> Sequence[int] | None:
        """Of the batches of this process; None = one stream, whose state is saved.

        The draws of a step of several batches follow from the place of each, so that any number of processes draws
        alike. A step of one batch cannot be shared.
        """
        places = range(self.config.accumulate)
        if len(places) == 1:
            return None
        return [draw_seed(self._seed, self.counters.step, place) for place in self.world.share(places)]

    @property
    def _stops(self) -> bool:
        """Whether to stop here. Several processes go by what they last agreed on, or one would wait for another."""
        return bool(self._stop) if self.world.size == 1 else self._agreed_to_stop

    def _agree(self, started: float) -> float:
        """The step's seconds; with one small sum over the processes, also of the losses where they are read.

        All take the first process's time, and a stop that one of them was asked for.
        """
        reads = self.stepper.device.type == "cpu" or self.counters.step % self.config.log_every == 0
        values = self._fetch() if reads else np.zeros(0)
        elapsed = time.perf_counter() - started
        if self.world.size > 1:
            clock = elapsed if self.world.is_first else 0.0
            *losses, elapsed, stopping = self.world.sum(np.array([*values.ravel(), clock, bool(self._stop)])).tolist()
            values = np.array(losses).reshape(values.shape)
            if stopping:
                self._agreed_to_stop, self._stop.signal = True, self._stop.signal or signal.SIGTERM
        if reads:
            self._take(values)
        return elapsed

    def _read_pending(self) -> None:
        """Read the losses of the steps since the last reading, and check them."""
        if self._pending:
            self._take(self.world.sum(self._fetch()))

    def _fetch(self) -> NDArray[np.float64]:
        """(2, steps): losses of this process and, by the first one, gradient norms. The only wait for the device."""
        _, _, losses, norms, _ = zip(*self._pending, strict=True)
        values: NDArray[np.float64] = torch.stack([torch.stack(losses), torch.stack(norms)]).double().cpu().numpy()
        if not self.world.is_first:  # all have the same norms
            values[1] = 0
        return values

    def _take(self, values: NDArray[np.float64]) -> None:
        """Check and add up the pending steps. values: (2, steps) losses of all processes, and gradient norms."""
        pending, self._pending = self._pending, []
        for (step, step_rows, _, _, count), loss, norm in zip(pending, *values.tolist(), strict=True):
            if not (math.isfinite(loss) and math.isfinite(norm)):
                self._stop_non_finite(step, step_rows, loss, norm)
            window = self.counters.window
            window.loss += loss
            window.grad_norm += norm
            window.targets += count
            window.steps += 1
            self._shown_loss = loss / count

    def _stop_non_finite(self, step: int, rows: list[np.ndarray], loss: float, norm: float) -> None:
        shown = ", ".join(str(r) for r in np.concatenate(rows)[:8])
        raise TrainingError(
            f"loss is {loss} (gradient norm {norm}) at step {step}, train rows {shown}, ... ; "
            f"lower optim.lr ({self.stepper.optim.lr}) or optim.clip, or use trainer.precision=fp32"
        )

    def _show(self, lr: float) -> None:
        counters = self.counters
        left = (self.total_steps - counters.step) * counters.seconds / counters.step
        self.reporter.progress(
            Status(
                epoch=self.stream.epochs,
                step=counters.step,
                total_steps=self.total_steps,
                loss=self._shown_loss,
                lr=lr,
                tokens_per_second=counters.tokens / counters.seconds,
                seconds_left=left,
            )
        )

    # -------------------------------------------------------------------------------------------- log, evaluate, save

    def _log(self, hooks: Hooks) -> None:
        self._read_pending()
        counters, window = self.counters, self.counters.window
        hooks.record(
            {
                **self.place("train"),
                "loss": window.loss / window.targets,
                "lr": self._lr,
                "grad_norm": window.grad_norm / window.steps,
                "tokens_per_second": round(window.tokens / window.seconds, 1),
                "seconds": round(counters.seconds, 3),
            }
        )
        counters.window = Window()

    def _validate(self, hooks: Hooks) -> None:
        self._read_pending()
        self.average.at_validation()
        counters = self.counters
        with self.average.applied():
            evaluation = hooks.validate()
            better = self.world.decided(evaluation.improves_on(counters.best, counters.best_loss))
            counters.validations += 1
            counters.without_better = 0 if better else counters.without_better + 1
            if better:
                counters.best, counters.best_loss = evaluation.score, evaluation.loss
                counters.best_step = counters.step
            scores = {name: interval.value for name, interval in evaluation.metrics.items()}
            measured = {"loss": evaluation.loss, **scores, "seconds": round(counters.seconds, 3)}
            hooks.record({**self.place("validation"), **measured})
            shown = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
            where = f"step {counters.step:,}  epoch {self.stream.epochs:.2f}"
            mark = "  (best)" if better else ""
            self.reporter.info(f"{where}  validation loss {evaluation.loss:.4f}  {shown}{mark}")
            hooks.on_validation(evaluation, better)

    def place(self, split: str) -> dict[str, Any]:
        """Where a line of metrics.jsonl belongs."""
        return {"step": self.counters.step, "epoch": round(self.stream.epochs, 6), "split": split}

    def _save(self, hooks: Hooks) -> None:
        self._read_pending()
        hooks.save_last()


def _in_seconds(minutes: float | None) -> float | None:
    return None if minutes is None else 60 * minutes


def build_loop(
    model: Model,
    split: Split,
    optim: OptimConfig,
    trainer: TrainerConfig,
    compute: Compute,
    average: WeightAverage,
    reporter: Reporter,
    *,
    seed: int,
    sentences: bool = False,
    masker: Masker | None = None,
    world: World = ALONE,
) -> Loop:
    """A loop at its beginning. model: on the compute's device already. sentences: it reads sentence numbers.
    masker: it predicts hidden tokens, and this hides them."""
    stepper = Stepper(
        model,
        optim,
        compute.device,
        compute.bf16,
        compute.compiled,
        fused=trainer.speed.fused_optimizer,
        graphs=compute.graphs,
        world=world,
    )
    make_batch = _batch_maker(split, trainer, compute, sentences, masker)
    step = LENGTH_STEP if compute.graphs else 1
    row_targets = None if masker is None else masker.n_hidden
    return Loop(stepper, split, trainer, seed, average, reporter, make_batch, step, row_targets, world)


def _batch_maker(
    split: Split, trainer: TrainerConfig, compute: Compute, sentences: bool, masker: Masker | None
) -> MakeBatch:
    """Batches cut on the host, or on the GPU where the token ids stay."""
    cut: Callable[[np.ndarray], Batch] = partial(split.batch, sentences=sentences)
    if _is_resident(trainer, compute):
        few_shapes = trainer.batch_tokens if compute.graphs else None
        cut = ResidentSplit(split, compute.device, sentences=sentences, few_shapes=few_shapes).batch
    if masker is None:
        return lambda rows, epoch: cut(rows)
    target_step = TARGET_STEP if compute.graphs else None
    return lambda rows, epoch: masker(cut(rows), rows, epoch, target_step)


def _is_resident(trainer: TrainerConfig, compute: Compute) -> bool:
    """Whether the token ids stay on the device."""
    return compute.graphs or (trainer.speed.resident and compute.device.type == "cuda")
