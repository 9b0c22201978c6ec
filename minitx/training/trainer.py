"""A net in training: model, loop, logs and checkpoints put together, begun or resumed, fitted and evaluated.

Of several processes all train and evaluate; the first one alone shows, logs and saves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import torch

from minitx.config import CnnConfig, Config, DecodeConfig, NetConfig, rule
from minitx.data import Masker, Split, TaskData
from minitx.decoding.inference import GREEDY
from minitx.decoding.text import TextProcessor
from minitx.distributed import World
from minitx.metrics.calibration import fit_temperature
from minitx.metrics.evaluate import Evaluation, evaluate
from minitx.nn.build import Model, build_model
from minitx.nn.capture import attentions
from minitx.nn.classifier import Classifier, TextReader
from minitx.nn.sizes import ModelShape, non_embedding, parameter_counts
from minitx.nn.translator import LEAST_EXPANSION, SPARE_TOKENS
from minitx.training.console import Reporter
from minitx.training.device import Compute, frozen_garbage
from minitx.training.display import ExampleDisplay
from minitx.training.loop import Hooks, build_loop
from minitx.training.optim import WeightAverage
from minitx.training.pretrain import Start
from minitx.training.profile import profiled
from minitx.training.projector import show_embeddings
from minitx.training.run_folder import RunFolder
from minitx.training.saver import Saver, tokenizer_texts
from minitx.training.signals import stop_on_signals
from minitx.training.tensorboard import Board, RunLog

TRAIN_EVALUATED = "train_evaluated"
"""Split of the lines of metrics.jsonl, and of the curves, of training rows that are evaluated as validation is."""
EVALUATION_BATCHES = 4
"""Training batches that one of evaluation holds: no activations are kept for a backward pass."""


class Trainer:
    """Trains a net from wherever its run folder is, and evaluates the best weights."""

    def __init__(
        self,
        config: Config,
        net: NetConfig,
        folder: RunFolder,
        data: TaskData,
        compute: Compute,
        reporter: Reporter,
        world: World,
        start: Start | None = None,
    ) -> None:
        """start: where a new run takes weights from.

        Raises:
            ConfigError: the run's data has changed since its checkpoint, or has other tokens than `start`.
            CheckpointError: the checkpoint to go on from is damaged.
        """
        self.config, self.folder, self.data, self.compute, self.reporter = config, folder, data, compute, reporter
        self.world = world
        shape = model_shape(config, data)
        self.parts = parameter_counts(net, shape)
        self.model = new_model(net, shape, data, config.seed, compute.device)
        self._introduce(net)
        if start is not None:
            start.enter(self.model, tokenizer_texts(data)["tokenizer.json"])
            reporter.info(f"start   {start}")
        masked = data.task == "masked"
        self.loop = build_loop(
            self.model,
            data.splits["train"],
            config.optim,
            config.trainer,
            compute,
            WeightAverage(self.model, config.trainer.average),
            reporter,
            seed=config.seed,
            sentences=net.reads_sentences,
            masker=_masker(config, data) if masked else None,
            world=world,
        )
        self.temperature: float | None = None
        """Fitted on validation, once the run has ended and where `trainer.calibrate` asks for it."""
        self.saver = Saver(folder, config, data, shape, self.loop, start.summary if start is not None else None)
        size = self._resume()
        self.log = RunLog(folder, self.loop.counters.step, size) if world.is_first else None
        self.examples = self._examples(self.log.board) if self.log is not None else None

    def _resume(self) -> int:
        """Go on from the run's checkpoint; the bytes of its metrics.jsonl that stay.

        Raises:
            ConfigError: the processes do not see the same checkpoint.
        """
        size, step = self.saver.resume(self.reporter), self.loop.counters.step
        steps = self.world.gather(step)
        if len(set(steps)) > 1:
            must = f"be one folder for all processes, but they would go on from steps {steps}"
            raise rule("hydra.run.dir", self.folder.path, must, "name one on a file system that they share")
        if step:
            self.reporter.info(f"resume  from step {step:,}")
        return size

    def _examples(self, board: Board) -> ExampleDisplay:
        config, data = self.config, self.data
        processor = TextProcessor.of(data, config.data.max_length, config.data.truncate)
        return ExampleDisplay(
            board, self.model, data, processor, self.compute.device, config.trainer, config.masking
        )  # fmt: skip

    def _introduce(self, net: NetConfig) -> None:
        """Log what is about to be trained, and where."""
        listed = ", ".join(f"{name} {count:,}" for name, count in self.parts.items())
        self.reporter.info(f"model   {self.config.model.kind}, {sum(self.parts.values()):,} parameters ({listed})")
        if isinstance(net, CnnConfig):
            self.reporter.info(f"field   each position sees {net.receptive_field:,} positions, itself in the middle")
        how = [", compiled"] * self.compute.compiled + [", CUDA graphs"] * self.compute.graphs
        self.reporter.info(f"device  {self._device}, {self.compute.precision}{''.join(how)}")

    @property
    def _device(self) -> str:
        """For people."""
        return self.compute.name if self.world.size == 1 else f"{self.world.size} x {self.compute.name}"

    # ------------------------------------------------------------------------------------------------------- training

    def fit(self) -> int | None:
        """Train to the end; or to the end of the step in which a signal came, which is returned. All is saved then."""
        if self.world.is_first:
            self.folder.begin(self.config)
        if self.loop.out_of_patience:
            was = (
                f"trainer.patience ({self.config.trainer.patience}) ended this run at step {self.loop.counters.step:,}"
            )
            self.reporter.warning(f"{was}; raise it, or set it to null, to train longer")
        freeze, quiet = self.config.trainer.speed.freeze_gc, self.world.size > 1
        with stop_on_signals(quiet=quiet) as stop, frozen_garbage(freeze), self._profiled() as after_step:
            self.loop.run(self._hooks(after_step), stop)
        return None if self.loop.finished else stop.signal

    def _profiled(self) -> AbstractContextManager[Callable[[], None]]:
        """What is called after each step, to record some where that is asked for."""
        if self.log is None or not self.config.trainer.profile:
            return nullcontext(lambda: None)
        return profiled(self.folder.tensorboard, self.log.board)

    def _hooks(self, after_step: Callable[[], None]) -> Hooks:
        return Hooks(
            validate=lambda: self.evaluate("validation", GREEDY, self.config.trainer.eval_rows),
            record=self._record,
            on_validation=self._on_validation,
            save_last=self._save_last,
            after_step=after_step,
        )

    def _on_validation(self, evaluation: Evaluation, better: bool) -> None:
        """Evaluate training rows too, where that is asked for; show examples; save what is the best so far."""
        counters, n_rows = self.loop.counters, self.config.trainer.eval_train_rows
        if n_rows:
            loss = self.evaluate("train", GREEDY, n_rows).loss
            self._record({**self.loop.place(TRAIN_EVALUATED), "loss": loss, "seconds": round(counters.seconds, 3)})
        if self.examples is not None:
            self.examples.after_validation(evaluation, counters.validations, counters.step)
        if better and self.world.is_first:
            self.saver.save_best()

    def _record(self, record: Mapping[str, Any]) -> None:
        if self.log is not None:
            self.log.record(record)

    def _save_last(self) -> None:
        if self.world.is_first:
            self.saver.save_last()

    def evaluate(self, split: str, decode: DecodeConfig, n_rows: int | None = None) -> Evaluation:
        """Loss and scores of the model as it is now, on so many rows of a split (always the same ones); None = all."""
        there, rows = len(self.data.splits[split]), None
        if n_rows is not None and n_rows < there:
            rows = np.sort(np.random.default_rng(0).permutation(there)[:n_rows])
        return evaluate(
            self.model,
            self.data.splits[split],
            self.data,
            device=self.compute.device,
            precision=self.compute.precision,
            batch_tokens=EVALUATION_BATCHES * self.config.trainer.batch_tokens,
            rows=rows,
            decode=decode,
            bleu_tokenize=self.config.data.bleu_tokenize,
            masking=self.config.masking,
            world=self.world,
        )

    # --------------------------------------------------------------------------------------------------------- ending

    def evaluate_best(self) -> dict[str, Evaluation]:
        """The best weights on the whole validation split, and on test, once."""
        self.world.from_first(self.saver.load_best)
        self.world.copy_from_first(self.model.state_dict().values())
        if self.config.trainer.calibrate and isinstance(self.model, Classifier):
            self._calibrate(self.model)
        return {split: self.evaluate(split, self.config.decode) for split in ("validation", "test")}

    def _calibrate(self, model: Classifier) -> None:
        """Fit the temperature on validation, from 1 however often, and give it to checkpoint `best`."""
        model.temperature.fill_(1.0)
        found = self.evaluate("validation", self.config.decode)
        assert found.log_probs is not None and found.labels is not None, "a classifier's evaluation has both"
        self.temperature = fit_temperature(found.log_probs, found.labels)
        model.temperature.fill_(self.temperature)
        self.world.from_first(self.saver.replace_best)
        self.reporter.info(f"calibrated: logits divided by {self.temperature:.3f}, fitted on validation")

    def summary(self) -> dict[str, Any]:
        """What results.json holds of the model and its training."""
        counters = self.loop.counters
        pretrained = {} if self.saver.pretrained is None else {"pretrain": self.saver.pretrained}
        calibrated = {} if self.temperature is None else {"temperature": self.temperature}
        return {
            "n_params": sum(self.parts.values()),
            "n_params_non_embedding": non_embedding(self.parts),
            "n_train": len(self.data.splits["train"]),
            "steps": counters.step,
            "best_step": counters.best_step,
            "seconds": round(counters.seconds, 3),
            "device": self._device,
            "precision": self.compute.precision,
            "tokens_per_second": round(counters.tokens / counters.seconds, 1) if counters.seconds else None,
            **pretrained,
            **calibrated,
        }

    def stopped(self, run: object) -> str:
        """How a run that was asked to stop can be continued. run: the folder to name."""
        again = f"{self.world.command} trainer.resume={run}"
        return f"stopped at step {self.loop.counters.step:,}, all saved; continue with: {again}"

    @property
    def attends(self) -> bool:
        """Whether there are attention maps to look at."""
        return bool(attentions(self.model))

    def show_weights(self) -> None:
        """Attention maps and embeddings of the model as it is now; they take a moment."""
        trainer = self.config.trainer
        if self.examples is not None:
            self.examples.maps(self.loop.counters.best_step)
        if self.log is not None and trainer.projector:
            tokens = EVALUATION_BATCHES * trainer.batch_tokens
            show_embeddings(self.log.board, self.model, self.data, self.compute, tokens, trainer.projector)

    def close(self) -> None:
        """Write out what TensorBoard still holds."""
        if self.log is not None:
            self.log.board.close()


def new_model(net: NetConfig, shape: ModelShape, data: TaskData, seed: int, device: torch.device) -> Model:
    """The model at its first step; its weights follow from the seed, whatever the device."""
    torch.manual_seed(seed)
    model = build_model(net, shape).to(device)
    if isinstance(model, TextReader) and net.word_dropout:
        model.noise.learn_words(torch.from_numpy(data.src_tokenizer.word_starts()).to(device))
    return model


def _masker(config: Config, data: TaskData) -> Masker:
    """Hides the tokens that are to be predicted."""
    return Masker(data.splits["train"], config.masking, data.src_tokenizer.vocab_size, config.seed)


def model_shape(config: Config, data: TaskData) -> ModelShape:
    """What the data tells the model: vocabularies, classes, longest input."""
    return ModelShape(
        task=data.task,
        src_vocab=data.src_tokenizer.vocab_size,
        tgt_vocab=data.tgt_tokenizer.vocab_size if data.tgt_tokenizer is not None else None,
        n_classes=len(data.label_names) if data.label_names is not None else None,
        joint=data.joint,
        max_length=config.data.max_length,
        expansion=expansion(data.splits["train"]),
    )


def expansion(split: Split) -> int:
    """Tokens that outputs need per source token (see `Translator.output_limit`): as many as the targets of a split do
    and a quarter more, for those of other texts."""
    if split.tgt is None:
        return LEAST_EXPANSION
    needed = float(((split.tgt.lengths - SPARE_TOKENS) / split.src.lengths).max())
    return max(LEAST_EXPANSION, math.ceil(1.25 * needed))
