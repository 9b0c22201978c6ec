"""One run from configuration to results.json: prepare, train (or go on), evaluate, report.

Config -> RunFolder -> TaskData -> model -> Loop -> best weights -> test, once -> results.json
"""

from __future__ import annotations

import signal
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from minitx.config import CnnConfig, Config, ConfigError, DecodeConfig, LinearConfig, NetConfig
from minitx.data import Masker, TaskData, identify_source, load_data
from minitx.decoding.inference import GREEDY
from minitx.decoding.text import TextProcessor
from minitx.errors import RunError, Stopped
from minitx.metrics.evaluate import Evaluation, evaluate
from minitx.nn.build import build_model, check_backend
from minitx.nn.capture import attentions
from minitx.nn.classifier import TextReader
from minitx.nn.sizes import ModelShape, non_embedding, parameter_counts
from minitx.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from minitx.training.console import Reporter
from minitx.training.device import Compute, compute_of, frozen_garbage, prepare_process
from minitx.training.display import ExampleDisplay, next_steps
from minitx.training.linear import run_linear
from minitx.training.loop import Hooks, Progress, build_loop
from minitx.training.optim import WeightAverage
from minitx.training.pretrain import Start, check_pretraining, find_start
from minitx.training.results import TRAIN_EVALUATED, Effort, finish, results_of, show_data
from minitx.training.run_folder import MetricsLog, RunFolder, finished_before
from minitx.training.signals import EXIT_BASE, stop_on_signals
from minitx.training.tensorboard import Board

EVALUATION_BATCHES = 4
"""Training batches that one of evaluation holds: no activations are kept for a backward pass."""


def run(config: Config, path: Path, quiet: bool = False, stage_of: Path | None = None) -> dict[str, Any]:
    """Train in folder `path`, or continue what it holds when `trainer.resume` says so; returns results.json.

    `quiet` leaves the console to the caller, but for the live progress line; train.log has it all. stage_of: the run
    that this one is the pretraining of.

    Raises:
        ConfigError: the configuration or the data cannot be used.
        CheckpointError: the checkpoint to continue from is damaged.
        TrainingError: the loss became non-finite.
        Stopped: SIGINT or SIGTERM came; everything is saved.
    """
    compute = compute_of(config)
    if isinstance(config.model, NetConfig):
        check_backend(config.model, compute.device.type, compute.precision)
    source = identify_source(config.data)
    folder = RunFolder(path)
    if not folder.has_checkpoint():  # later on nothing is read from `pretrain.run`, which may be gone
        check_pretraining(config, source)
    folder.create()
    with folder.locked():
        done = finished_before(config, folder, source, compute.device.type, compute.precision)
        if done is None:
            return _train(config, folder, source, compute, quiet, stage_of)
    if not quiet and stage_of is None:
        longer = "; raise trainer.max_epochs, max_steps or max_minutes to go on"
        print(f"already finished: {path}/results.json{longer if isinstance(config.model, NetConfig) else ''}")
    return done


def _train(
    config: Config, folder: RunFolder, source: str, compute: Compute, quiet: bool, stage_of: Path | None
) -> dict[str, Any]:
    reporter, start = Reporter(folder.log, quiet=quiet), None
    try:
        if isinstance(config.model, LinearConfig):
            return run_linear(config, config.model, folder, source, reporter)
        if config.pretrain.kind != "none" and not folder.has_checkpoint():
            start = find_start(config, folder, reporter, lambda stage, path: run(stage, path, quiet, folder.path))
        return _Session(config, folder, source, compute, reporter, start, stage_of).run()
    except Exception as error:
        if folder.results() is None:  # else it tells of the run that was to be continued, and still stands
            line = (str(error) or repr(error)).splitlines()[0]
            failed = {"status": "failed", "error": line, "data": config.data.name, "model": config.model.kind}
            with suppress(OSError):  # on a full disk this fails too, and the error to tell is the one that came first
                folder.write_results({**failed, "seed": config.seed})
        raise
    finally:
        reporter.close()


class _Session:
    """The parts of one run, built once and used in order."""

    def __init__(
        self,
        config: Config,
        folder: RunFolder,
        source: str,
        compute: Compute,
        reporter: Reporter,
        start: Start | None,
        stage_of: Path | None,
    ) -> None:
        """start: where a new run takes weights from. stage_of: see `run`."""
        self.config, self.folder, self.compute, self.reporter = config, folder, compute, reporter
        self.stage_of = stage_of
        assert isinstance(config.model, NetConfig)
        self.net = config.model
        prepare_process(config.trainer.speed, compute.device, config.trainer.threads)
        if compute.compiled:
            torch.compiler.reset()  # a sweep's earlier cells have used up their number of recompilations
        reporter.info(f"run     {folder.path}")
        self.data = load_data(config.data, fingerprint=source)
        self.shape = model_shape(config, self.data)
        torch.manual_seed(config.seed)
        self.model = build_model(self.net, self.shape).to(compute.device)
        if isinstance(self.model, TextReader) and self.net.word_dropout:
            self.model.noise.learn_words(torch.from_numpy(self.data.src_tokenizer.word_starts()).to(compute.device))
        self._introduce()
        self.pretrained = self._take_over(start)
        self.average = WeightAverage(self.model, config.trainer.average)
        self.loop = build_loop(
            self.model,
            self.data.splits["train"],
            config.optim,
            config.trainer,
            compute,
            self.average,
            reporter,
            seed=config.seed,
            sentences=self.net.reads_sentences,
            packed=self.net.reads_unpadded,
            masker=self._masker(),
        )
        self.log = MetricsLog(folder.path / "metrics.jsonl")
        self._resume()
        self.board = Board(folder.tensorboard, start_step=self.loop.progress.step)
        processor = TextProcessor.of(self.data, config.data.max_length, config.data.truncate)
        self.showcase = ExampleDisplay(
            self.board, self.model, self.data, processor, compute.device, config.trainer, config.masking
        )

    def run(self) -> dict[str, Any]:
        hooks = Hooks(
            validate=self._validate, record=self._record, on_validation=self._on_validation, save_last=self._save_last
        )
        try:
            self.folder.begin(self.config)
            with stop_on_signals() as stop, frozen_garbage(self.config.trainer.speed.freeze_gc):
                self.loop.run(hooks, stop)
            if stop.signal is not None and not self.loop.finished:
                self._stop(stop.signal)
            try:
                evaluations = self._evaluate_best()
            except KeyboardInterrupt:  # training itself is saved
                self._stop(signal.SIGINT)
            return self._finish(evaluations)
        finally:
            self.board.close()

    # ------------------------------------------------------------------------------------------------- beginning

    def _introduce(self) -> None:
        """Say what is about to be trained, on what, and where."""
        info = self.reporter.info
        show_data(self.reporter, self.config, self.data)
        parts = parameter_counts(self.net, self.shape)
        self.n_params = sum(parts.values())
        listed = ", ".join(f"{name} {count:,}" for name, count in parts.items())
        info(f"model   {self.config.model.kind}, {self.n_params:,} parameters ({listed})")
        if isinstance(self.net, CnnConfig):
            info(f"field   each position sees {self.net.receptive_field:,} positions, itself in the middle")
        how = [", compiled"] * self.compute.compiled + [", CUDA graphs"] * self.compute.graphs
        info(f"device  {self.compute.name}, {self.compute.precision}{''.join(how)}")

    def _take_over(self, start: Start | None) -> dict[str, Any] | None:
        """The weights of a masked run, before anything else looks at the model; what results.json says of it."""
        if start is None:
            return None
        start.enter(self.model, self._texts()["tokenizer.json"])
        self.reporter.info(f"start   {start}")
        return start.told

    def _masker(self) -> Masker | None:
        """Hides tokens in training, where they are to be guessed."""
        if self.data.task != "masked":
            return None
        vocab = self.data.src_tokenizer.vocab_size
        return Masker(self.data.splits["train"], self.config.masking, vocab, self.config.seed)

    def _resume(self) -> None:
        """Go on from `last`, or begin; either way forget log lines that no checkpoint covers."""
        if not self.folder.has_checkpoint():
            self.log.cut(0)
            return
        checkpoint = load_checkpoint(self.folder.checkpoints / "last")
        same_source = checkpoint.state["source"] == self.data.source_fingerprint
        if {**self._texts(), **checkpoint.texts} != self._texts() or not same_source:
            raise ConfigError(
                f"trainer.resume ({self.folder.path}) must find the data as it was, but {self.config.data.name} has "
                f"changed since the checkpoint; restore it, or start a new run"
            )
        loop, tensors = self.loop, checkpoint.tensors
        self.model.load_state_dict(dict(tensors["model.safetensors"]))
        groups: dict[str, dict[str, torch.Tensor]] = {"optimizer": {}, "average": {}, "rng": {}}
        for key, tensor in tensors["training.safetensors"].items():
            group, name = key.split("/", 1)
            groups[group][name] = tensor
        loop.stepper.load_state(groups["optimizer"])
        self.average.load_state(groups["average"])
        torch.set_rng_state(groups["rng"]["cpu"])
        if "cuda" in groups["rng"] and self.compute.device.type == "cuda":
            torch.cuda.set_rng_state(groups["rng"]["cuda"])
        loop.progress = Progress.from_json(checkpoint.state["progress"])
        if checkpoint.state["max_minutes"] != self.config.trainer.max_minutes:
            loop.progress.horizon = None
        loop.stream.seek(loop.progress.epoch, loop.progress.batch)
        self.pretrained = checkpoint.state["pretrain"]
        self.log.cut(checkpoint.state["metrics_size"])
        self.reporter.info(f"resume  from step {loop.progress.step:,}")

    # ----------------------------------------------------------------------------------------------------- hooks

    def _validate(self) -> Evaluation:
        return self._evaluate("validation", GREEDY, self._some_rows("validation", self.config.trainer.eval_rows))

    def _some_rows(self, split: str, limit: int | None) -> np.ndarray | None:
        """So many rows of a split, always the same ones; None = all."""
        n_rows = len(self.data.splits[split])
        if limit is None or limit >= n_rows:
            return None
        return np.sort(np.random.default_rng(0).permutation(n_rows)[:limit])

    def _evaluate(self, split: str, decode: DecodeConfig, rows: np.ndarray | None = None) -> Evaluation:
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
        )

    def _record(self, record: dict[str, Any]) -> None:
        self.log.write(record)
        skipped = ("step", "epoch", "split", "seconds")
        self.board.scalars(record["split"], {k: v for k, v in record.items() if k not in skipped}, record["step"])

    def _on_validation(self, evaluation: Evaluation, better: bool) -> None:
        progress = self.loop.progress
        scores = "  ".join(f"{name} {interval.value:.4f}" for name, interval in evaluation.metrics.items())
        mark = "  (best)" if better else ""
        place = f"step {progress.step:,}  epoch {self.loop.stream.epochs:.2f}"
        self.reporter.info(f"{place}  validation loss {evaluation.loss:.4f}  {scores}{mark}")
        self._evaluate_train()
        self.showcase.after_validation(evaluation, progress.validations, progress.step)
        if better:
            self._save("best", {})

    def _evaluate_train(self) -> None:
        """Log what validation would say of training rows, where it is asked for."""
        limit, progress = self.config.trainer.eval_train_rows, self.loop.progress
        if not limit:
            return
        loss = self._evaluate("train", GREEDY, self._some_rows("train", limit)).loss
        place = {"step": progress.step, "epoch": round(self.loop.stream.epochs, 6)}
        self._record({**place, "split": TRAIN_EVALUATED, "loss": loss, "seconds": round(progress.seconds, 3)})

    def _save_last(self) -> None:
        stepper = self.loop.stepper
        rng = {"cpu": torch.get_rng_state()}
        if self.compute.device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state()
        groups = {"optimizer": stepper.state(), "average": self.average.state(), "rng": rng}
        training = {f"{group}/{name}": t for group, tensors in groups.items() for name, t in tensors.items()}
        self._save("last", {"training.safetensors": training}, keep=self.config.trainer.keep)

    def _texts(self) -> dict[str, str]:
        """The tokenisers, as a checkpoint keeps them."""
        texts = {"tokenizer.json": self.data.src_tokenizer.to_json()}
        if self.data.tgt_tokenizer is not None and not self.data.joint:
            texts["tgt_tokenizer.json"] = self.data.tgt_tokenizer.to_json()
        return texts

    def _save(self, link: str, extra: dict[str, dict[str, torch.Tensor]], keep: int = 1) -> None:
        progress = self.loop.progress
        tensors = {"model.safetensors": self.model.state_dict(), **extra}
        state = {
            "step": progress.step,
            "progress": progress.to_json(),
            "max_minutes": self.config.trainer.max_minutes,
            "metrics_size": self.log.size,
            "shape": asdict(self.shape),
            "source": self.data.source_fingerprint,
            "label_names": self.data.label_names,
            "metrics": self.data.metrics,
            "pretrain": self.pretrained,
        }
        checkpoint = Checkpoint(tensors=tensors, texts=self._texts(), state=state)
        try:
            save_checkpoint(self.folder.checkpoints, link, progress.step, checkpoint, keep)
        except OSError as error:
            kept = "the one before is whole" if self.folder.has_checkpoint() else "there is none yet"
            raise RunError(f"checkpoint of step {progress.step} not written ({error.strerror}); {kept}") from error

    # ---------------------------------------------------------------------------------------------------- ending

    def _stop(self, number: int) -> NoReturn:
        self.folder.write_results(self._results("stopped", {}))
        again = f"python train.py trainer.resume={self.stage_of or self.folder.path}"
        line = f"stopped at step {self.loop.progress.step:,}, all saved; continue with: {again}"
        self.reporter.info(line)
        raise Stopped(line, EXIT_BASE + number)

    def _evaluate_best(self) -> dict[str, Evaluation]:
        """The best weights on the whole validation split, and on test, once."""
        best = load_checkpoint(self.folder.checkpoints / "best")
        self.model.load_state_dict(dict(best.tensors["model.safetensors"]))
        return {name: self._evaluate(name, self.config.decode) for name in ("validation", "test")}

    def _finish(self, evaluations: dict[str, Evaluation]) -> dict[str, Any]:
        results = self._results("finished", evaluations)
        finish(self.folder, self.config, self.data, results, evaluations, self.reporter, self.board)
        if self.stage_of is None:
            texts = None if self.data.task == "masked" else self.data.splits["test"]
            next_steps(self.reporter, self.folder, texts, attends=bool(attentions(self.model)))
        self.showcase.maps(self.loop.progress.best_step)  # of the best weights; they take a moment, and results stand
        return results

    def _results(self, status: str, evaluations: dict[str, Evaluation]) -> dict[str, Any]:
        progress = self.loop.progress
        effort = Effort(
            n_params=self.n_params,
            n_params_non_embedding=non_embedding(parameter_counts(self.net, self.shape)),
            steps=progress.step,
            best_step=progress.best_step,
            seconds=progress.seconds,
            device=self.compute.name,
            precision=self.compute.precision,
            tokens_per_second=round(progress.tokens / progress.seconds, 1) if progress.seconds else None,
        )
        return results_of(self.config, self.data, status, effort, evaluations, self.pretrained)


def model_shape(config: Config, data: TaskData) -> ModelShape:
    """What the data tells the model: vocabularies, classes, longest input."""
    return ModelShape(
        task=data.task,
        src_vocab=data.src_tokenizer.vocab_size,
        tgt_vocab=data.tgt_tokenizer.vocab_size if data.tgt_tokenizer is not None else None,
        n_classes=len(data.label_names) if data.label_names is not None else None,
        joint=data.joint,
        max_length=config.data.max_length,
    )
