"""One run of model=linear, from data to results.json: features, a fit for each value of `model.c`, the best evaluated.

It leaves the same run folder as any other. There is nothing to go on from in the middle: a run that was stopped before
it had a model starts anew, and comes to the same bits.
"""

from __future__ import annotations

import signal
import time
from dataclasses import dataclass, replace
from typing import Any, NoReturn

import numpy as np

from minitx.config import Config, LinearConfig
from minitx.data import TaskData, load_data
from minitx.errors import RunError, Stopped
from minitx.metrics.evaluate import Evaluation, evaluate_linear
from minitx.metrics.scores import better as is_better
from minitx.nn.baselines.linear import Ngrams, TfidfClassifier
from minitx.training.checkpoint import Checkpoint, save_checkpoint
from minitx.training.console import Reporter
from minitx.training.display import next_steps
from minitx.training.results import Effort, finish, results_of, show_data
from minitx.training.run_folder import MetricsLog, RunFolder
from minitx.training.signals import EXIT_BASE, StopRequest, stop_on_signals
from minitx.training.tensorboard import Board

DEVICE, PRECISION = "cpu", "fp64"
C_GRID = (1.0, 3.0, 10.0, 30.0, 100.0)
"""Tried in this order where `model.c` is null."""


@dataclass(frozen=True)
class _Try:
    number: int
    c: float
    model: TfidfClassifier
    evaluation: Evaluation
    """Of the whole validation split."""


def run_linear(
    config: Config, model: LinearConfig, folder: RunFolder, source: str, reporter: Reporter
) -> dict[str, Any]:
    """Fit and evaluate in an existing, locked folder; returns results.json.

    Raises:
        ConfigError: the texts have no n-grams to go by, or one class alone.
        Stopped: SIGINT or SIGTERM came.
    """
    reporter.info(f"run     {folder.path}")
    folder.begin(config)
    data = load_data(config.data, fingerprint=source)
    show_data(reporter, config, data, cut=False)
    board = Board(folder.tensorboard)
    try:
        return _LinearRun(config, model, folder, data, reporter, board).run()
    finally:
        board.close()


class _LinearRun:
    """What one run holds, used in order."""

    def __init__(
        self,
        config: Config,
        model: LinearConfig,
        folder: RunFolder,
        data: TaskData,
        reporter: Reporter,
        board: Board,
    ) -> None:
        self.config, self.model, self.folder = config, model, folder
        self.data, self.reporter, self.board = data, reporter, board
        self.log = MetricsLog(folder.path / "metrics.jsonl")
        self.log.cut(0)
        self.seconds = 0.0
        self.n_tries = 0
        self.best: _Try | None = None

    def run(self) -> dict[str, Any]:
        with stop_on_signals() as stop:
            self._fit(stop)
        if stop.signal is not None:
            self._stop(stop.signal)
        assert self.best is not None, "a run that was not stopped has tried a value"
        if self.model.refit:
            self.best = self._refit(self.best)
        self._save(self.best)
        try:
            evaluations = {"validation": self.best.evaluation, "test": self._evaluate(self.best.model, "test")}
        except KeyboardInterrupt:
            self._stop(signal.SIGINT)
        results = {**self._results("finished", evaluations), "c": self.best.c, "n_train": self._n_fitted()}
        finish(self.folder, self.config, self.data, results, evaluations, self.reporter, self.board)
        next_steps(self.reporter, self.folder, self.data.splits["test"], attends=False)
        return results

    def _fit(self, stop: StopRequest) -> None:
        """Every value of `model.c`, until a stop is asked for."""
        split = self.data.splits["train"]
        began = time.perf_counter()
        ngrams, features = Ngrams.fit(self.model, list(split.texts))
        self.seconds += time.perf_counter() - began
        assert split.labels is not None and self.data.label_names is not None, "a classification task has labels"
        self.reporter.info(
            f"model   linear, {len(ngrams.vocabulary):,} n-grams, {len(self.data.label_names):,} classes"
        )
        self.reporter.info(f"device  {DEVICE}, {PRECISION}")
        for c in C_GRID if self.model.c is None else (self.model.c,):
            if stop:
                return
            began = time.perf_counter()
            model = TfidfClassifier.fit(ngrams, features, split.labels, len(self.data.label_names), c)
            self.seconds += time.perf_counter() - began
            self._tried(c, model)

    def _refit(self, best: _Try) -> _Try:
        """The best try fitted again on validation texts too; its validation scores stay those of the fit without."""
        train, validation = self.data.splits["train"], self.data.splits["validation"]
        assert train.labels is not None and validation.labels is not None and self.data.label_names is not None
        began = time.perf_counter()
        ngrams, features = Ngrams.fit(self.model, [*train.texts, *validation.texts])
        labels = np.concatenate([train.labels, validation.labels])
        model = TfidfClassifier.fit(ngrams, features, labels, len(self.data.label_names), best.c)
        self.seconds += time.perf_counter() - began
        self.reporter.info(f"refit   on {len(labels):,} training and validation rows with c {best.c:g}")
        return replace(best, model=model)

    def _n_fitted(self) -> int:
        return len(self.data.splits["train"]) + (len(self.data.splits["validation"]) if self.model.refit else 0)

    def _tried(self, c: float, model: TfidfClassifier) -> None:
        """Evaluate on validation, log, and keep the better one: by accuracy, by loss where that is equal."""
        self.n_tries += 1
        found = self._evaluate(model, "validation")
        best = self.best.evaluation if self.best else None
        better = best is None or is_better(found.score, best.score, found.main)
        if best is not None and found.score == best.score:
            better = found.loss < best.loss
        if better:
            self.best = _Try(self.n_tries, c, model, found)
        scores = {name: interval.value for name, interval in found.metrics.items()}
        record = {"step": self.n_tries, "epoch": 0.0, "split": "validation", "c": c, "loss": found.loss, **scores}
        self.log.write({**record, "seconds": round(self.seconds, 3)})
        self.board.scalars("validation", {"c": c, "loss": found.loss, **scores}, self.n_tries)
        shown = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
        self.reporter.info(f"c {c:<6g} validation loss {found.loss:.4f}  {shown}{'  (best)' if better else ''}")
        if not model.converged:
            self.reporter.warning(f"the solver has not come to rest with c {c:g}")

    def _evaluate(self, model: TfidfClassifier, split: str) -> Evaluation:
        return evaluate_linear(model, self.data.splits[split], self.data)

    def _save(self, best: _Try) -> None:
        """`best` and `last` are the same model."""
        state = {
            "step": best.number,
            "c": best.c,
            "shape": {"task": self.data.task},
            "source": self.data.source_fingerprint,
            "label_names": self.data.label_names,
            "metrics": self.data.metrics,
        }
        texts = {"tokenizer.json": self.data.src_tokenizer.to_json(), "vocabulary.json": best.model.vocabulary_json()}
        checkpoint = Checkpoint(tensors={"model.safetensors": best.model.tensors()}, texts=texts, state=state)
        try:
            for link in ("best", "last"):
                save_checkpoint(self.folder.checkpoints, link, best.number, checkpoint)
        except OSError as error:
            raise RunError(f"checkpoint not written ({error.strerror}); start the run anew") from error

    def _stop(self, number: int) -> NoReturn:
        self.folder.write_results(self._results("stopped", {}))
        line = f"stopped; start anew with: python train.py trainer.resume={self.folder.path}"
        self.reporter.info(line)
        raise Stopped(line, EXIT_BASE + number)

    def _results(self, status: str, evaluations: dict[str, Evaluation]) -> dict[str, Any]:
        """Its steps are the tries; there is no token table, so all of its parameters count."""
        n_params = self.best.model.n_params if self.best else 0
        effort = Effort(
            n_params=n_params,
            n_params_non_embedding=n_params,
            steps=self.n_tries,
            best_step=self.best.number if self.best else 0,
            seconds=self.seconds,
            device=DEVICE,
            precision=PRECISION,
            tokens_per_second=None,
        )
        return results_of(self.config, self.data, status, effort, evaluations)
