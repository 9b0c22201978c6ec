"""What a run shows beside numbers: text samples, attention maps, HParams, and the report at its end."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from minitx.config import Config, DecodeConfig, MaskingConfig, TrainerConfig
from minitx.data.task import Split, TaskData
from minitx.evaluation.attention_maps import inspect_texts
from minitx.evaluation.class_report import ClassReport
from minitx.evaluation.compare import Comparison
from minitx.evaluation.evaluate import Evaluation
from minitx.evaluation.figures import attention_figure
from minitx.evaluation.lens import lens_batches, looks_of
from minitx.evaluation.predict import Codec
from minitx.nn.build import Model
from minitx.nn.capture import attentions, head_attentions
from minitx.nn.masked import MaskedModel
from minitx.parse import flat
from minitx.training.board import Board
from minitx.training.console import Reporter
from minitx.training.runfolder import EVALUATION, RunFolder
from minitx.training.show_classes import say_classes, show_on_board
from minitx.training.show_heads import look_scalars

N_SAMPLES = 8
COMPARED_DATA_KEYS = ("name", "train_size", "subset_seed", "max_length", "truncate")
COMPARED_TRAINER_KEYS = ("batch_tokens", "batch_rows", "accumulate", "max_epochs", "max_steps", "max_minutes")
LONGEST_MAP = 48
"""Tokens a mapped example may have, so that its labels can be read."""
WORST_CLASSES, HARDEST = 5, 3
"""Of a classifier, on the console at the end of a run."""


class Showcase:
    """The same few validation examples from beginning to end, so that one can watch them change."""

    def __init__(
        self,
        board: Board,
        model: Model,
        data: TaskData,
        codec: Codec,
        device: torch.device,
        trainer: TrainerConfig,
        masking: MaskingConfig,
    ) -> None:
        """trainer: how much is shown."""
        self.board, self.model, self.data, self.codec, self.device = board, model, data, codec, device
        split = data.splits["validation"]
        order = np.random.default_rng(0).permutation(len(split))
        self.sample_rows = order[:N_SAMPLES]
        short = [int(row) for row in order if split.lengths[row] <= LONGEST_MAP]
        n_maps = trainer.attention_maps if attentions(model) else 0
        looked_at = trainer.lens and head_attentions(model)
        self.lens_batches = (
            lens_batches(model, split, data, device=device, rows=trainer.lens, masking=masking) if looked_at else []
        )
        self.map_texts = [split.text(row) for row in (short or [int(order[0])])[:n_maps]]

    def after_validation(self, evaluation: Evaluation, number: int, step: int) -> None:
        """Samples and what heads look at, at every validation; maps at validations 1, 2, 4, 8, ...: they change most
        early on."""
        split = self.data.splits["validation"]
        place = {int(row): i for i, row in enumerate(evaluation.rows)}
        rows = [int(row) for row in self.sample_rows if int(row) in place]
        cells = [(split.text(r), " / ".join(split.references(r)), evaluation.predictions[place[r]]) for r in rows]
        self.board.table("samples", cells, ("text", "wanted", "predicted"), step)
        if self.lens_batches:
            self.board.scalars("lens", look_scalars(looks_of(self.model, self.lens_batches)), step)
        if number & (number - 1) == 0:
            self.maps(step)

    def maps(self, step: int) -> None:
        """Images with layers down and heads across: each example's most telling kind (cross-attention, or a
        classifier's own), and every kind of the first example. None of a masked model: it makes nothing of a text."""
        if isinstance(self.model, MaskedModel):
            return
        for number, shown in enumerate(inspect_texts(self.model, self.map_texts, self.codec, device=self.device)):
            for view in shown.views if number == 0 else shown.views[:1]:
                title = f"{shown.text}  →  {shown.output}"
                self.board.figure(f"attention_{view.kind}/example_{number + 1}", attention_figure(view, title), step)


def show_at_end(
    board: Board, config: Config, judged: Mapping[str, Evaluation], report: ClassReport | None, step: int
) -> None:
    """A classifier's report and the HParams row of this run."""
    if report is not None:
        show_on_board(board, report, step)
    metrics = {f"{split}/{name}": i.value for split, e in judged.items() for name, i in e.metrics.items()}
    board.hparams(_hparams(config), {f"final_{k}": v for k, v in metrics.items()})
    board.flush()


def _hparams(config: Config) -> dict[str, Any]:
    """What one compares runs by, as dotted keys; names, paths and logging left out."""
    data = {key: value for key, value in config.data.model_dump().items() if key in COMPARED_DATA_KEYS}
    trainer = {key: value for key, value in config.trainer.model_dump().items() if key in COMPARED_TRAINER_KEYS}
    tree = {"data": data, "model": config.model.model_dump(), "optim": config.optim.model_dump(), "trainer": trainer}
    return {"seed": config.seed, "pretrain.kind": config.pretrain.kind, **flat(tree)}


def final_report(
    reporter: Reporter,
    folder: RunFolder,
    results: Mapping[str, Any],
    judged: Mapping[str, Evaluation],
    report: ClassReport | None,
) -> None:
    """One table (metrics with intervals, size, speed, place), a classifier's classes and hardest examples on test."""
    names = list(judged["test"].metrics)
    rows = [[name, *(shown_metric(judged[split], name) for split in ("validation", "test"))] for name in names]
    how = f", {shown_decoding(DecodeConfig(**results['decode']))}" if "decode" in results else ""
    reporter.table(f"best checkpoint{how}, 95 % bootstrap intervals", ["", "validation", "test"], rows)
    if report is not None:
        place = f"{folder.path}/{EVALUATION}"
        say_classes(reporter, report, "test", most=WORST_CLASSES, n_hardest=HARDEST, all_of_them=place)
    reporter.say(f"{results['n_params']:,} parameters, {_shown_effort(results)}")
    reporter.say(f"results {folder.path}/results.json")


def _shown_effort(results: Mapping[str, Any]) -> str:
    """Steps, time and speed in words; a linear model has tries in place of steps."""
    took, speed = f"in {results['seconds']:.0f} s", results["tokens_per_second"]
    if "c" in results:
        return f"best of {results['steps']} by model.c={results['c']:g}, {took}"
    of_speed = f", {speed:,.0f} tokens/s" if speed else ""
    return f"{results['steps']:,} steps {took}{of_speed}, best at step {results['best_step']:,}"


def next_steps(reporter: Reporter, folder: RunFolder, texts: Split | None, *, attends: bool) -> None:
    """What to type next. texts: of which one is to try the run on; None of a run that only guesses hidden tokens.
    attends: there is something to inspect."""
    reporter.say("\nnext:")
    reporter.say(f"  tensorboard --logdir {folder.path.parent}")
    run = shlex.quote(str(folder.path))
    if texts is None:
        reporter.say(f"  minitx evaluate {run}")
        reporter.say(f"  python train.py data=... pretrain=masked pretrain.run={run}")
        return
    example = shlex.quote(_example(texts))
    reporter.say(f"  minitx predict {run} {example}")
    if attends:
        reporter.say(f"  minitx inspect {run} {example}")


def _example(split: Split) -> str:
    """A text to try the run on: the longest of the first few that fits on a command line."""
    texts = [split.text(row) for row in range(min(50, len(split)))]
    return max((t for t in texts if len(t) <= 60 and '"' not in t), key=len, default=texts[0][:60])


def shown_metric(evaluation: Evaluation, name: str) -> str:
    """Value and interval for people: rates in per cent, BLEU and chrF in points."""
    interval = evaluation.metrics[name]
    if interval.signature is not None:
        return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"
    return f"{100 * interval.value:.2f} % [{100 * interval.low:.2f}, {100 * interval.high:.2f}]"


def shown_difference(evaluation: Evaluation, name: str, difference: Comparison) -> tuple[str, str]:
    """A difference in the unit of `shown_metric` (percentage points, or points), and its p-value."""
    scale = 1 if evaluation.metrics[name].signature is not None else 100
    value, low, high = (f"{scale * x + 0.0:+.2f}" for x in (difference.difference, difference.low, difference.high))
    return f"{value} [{low}, {high}]", f"{difference.p_value:.4f}"


def shown_decoding(decode: DecodeConfig) -> str:
    """How a translator writes, in words."""
    return "greedy" if decode.beam == 1 else f"beam {decode.beam}, length penalty {decode.length_penalty:g}"
