"""A linear model in training: features, one fit for each value of `model.c`, the best on validation.

It leaves the same run folder as a net. There is nothing to go on from in the middle: a run that was stopped before it
had a model starts anew, and comes to the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from minitx.config import Config, LinearConfig
from minitx.data import Split, TaskData
from minitx.errors import RunError
from minitx.metrics.calibration import fit_temperature
from minitx.metrics.evaluate import Evaluation, evaluate_linear
from minitx.nn.baselines.linear import Ngrams, TfidfClassifier
from minitx.training.checkpoint_files import Checkpoint, save_checkpoint
from minitx.training.console import Reporter
from minitx.training.run_folder import RunFolder
from minitx.training.saver import TOKENIZER, VOCABULARY, WEIGHTS
from minitx.training.signals import StopRequest, stop_on_signals
from minitx.training.tensorboard import RunLog

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


class LinearTrainer:
    """Fits a linear model from scratch, and evaluates the best try."""

    def __init__(
        self, config: Config, model: LinearConfig, folder: RunFolder, data: TaskData, reporter: Reporter
    ) -> None:
        self.config, self.model, self.folder, self.data, self.reporter = config, model, folder, data, reporter
        self.log = RunLog(folder)
        self.seconds = 0.0
        self.n_tries = 0
        self.best: _Try | None = None
        self.temperature: float | None = None
        """Fitted on validation, where `trainer.calibrate` asks for it."""

    # ------------------------------------------------------------------------------------------------------- training

    def fit(self) -> int | None:
        """Try every value of `model.c` and save the best model; returns the signal that asked to stop before, if any.

        Raises:
            ConfigError: the texts have no n-grams to go by, or one class alone.
        """
        self.folder.begin(self.config)
        with stop_on_signals() as stop:
            self._try_all(stop)
        if stop.signal is not None:
            return stop.signal
        assert self.best is not None, "a run that was not stopped has tried a value"
        if self.config.trainer.calibrate:
            self.best = self._calibrate(self.best)
        if self.model.refit:
            self.best = self._refit(self.best)
        self._save(self.best)
        return None

    def _try_all(self, stop: StopRequest) -> None:
        """Every value of `model.c`, until a stop is asked for."""
        split = self.data.splits["train"]
        began = time.perf_counter()
        ngrams, features = Ngrams.fit(self.model, list(split.texts))
        self.seconds += time.perf_counter() - began
        sizes = f"{len(ngrams.vocabulary):,} n-grams, {self._n_classes:,} classes"
        self.reporter.info(f"model   linear, {sizes}")
        self.reporter.info(f"device  {DEVICE}, {PRECISION}")
        for c in C_GRID if self.model.c is None else (self.model.c,):
            if stop:
                return
            began = time.perf_counter()
            model = TfidfClassifier.fit(ngrams, features, _labels(split), self._n_classes, c)
            self.seconds += time.perf_counter() - began
            self._evaluate_try(c, model)

    def _evaluate_try(self, c: float, model: TfidfClassifier) -> None:
        """Evaluate on validation, log, and keep the better one: by accuracy, by loss where that is equal."""
        self.n_tries += 1
        found = self._evaluate(model, "validation")
        best = self.best.evaluation if self.best else None
        better = best is None or found.improves_on(best.score, best.loss)
        if better:
            self.best = _Try(self.n_tries, c, model, found)
        scores = {name: interval.value for name, interval in found.metrics.items()}
        place = {"step": self.n_tries, "epoch": 0.0, "split": "validation"}
        self.log.record({**place, "c": c, "loss": found.loss, **scores, "seconds": round(self.seconds, 3)})
        shown = "  ".join(f"{name} {value:.4f}" for name, value in scores.items())
        self.reporter.info(f"c {c:<6g} validation loss {found.loss:.4f}  {shown}{'  (best)' if better else ''}")
        if not model.converged:
            self.reporter.warning(f"the solver has not come to rest with c {c:g}")

    def _calibrate(self, best: _Try) -> _Try:
        """The best try at the temperature that fits validation best."""
        found = best.evaluation
        assert found.log_probs is not None and found.labels is not None, "a classifier's evaluation has both"
        self.temperature = fit_temperature(found.log_probs, found.labels)
        model = best.model.at_temperature(self.temperature)
        self.reporter.info(f"calibrated: scores divided by {self.temperature:.3f}, fitted on validation")
        return replace(best, model=model, evaluation=self._evaluate(model, "validation"))

    def _refit(self, best: _Try) -> _Try:
        """The best try fitted again on validation texts too; its validation scores and its temperature stay those of
        the fit without."""
        splits: Sequence[Split] = [self.data.splits[name] for name in ("train", "validation")]
        began = time.perf_counter()
        ngrams, features = Ngrams.fit(self.model, [text for split in splits for text in split.texts])
        labels = np.concatenate([_labels(split) for split in splits])
        model = TfidfClassifier.fit(ngrams, features, labels, self._n_classes, best.c)
        self.seconds += time.perf_counter() - began
        self.reporter.info(f"refit   on {len(labels):,} training and validation rows with c {best.c:g}")
        return replace(best, model=model.at_temperature(self.temperature or 1.0))

    def _save(self, best: _Try) -> None:
        """`best` and `last` are the same model."""
        state = {
            "step": best.number,
            "c": best.c,
            "shape": {"task": self.data.task},
            "source": self.data.source_fingerprint,
            "label_names": self.data.label_names,
        }
        texts = {TOKENIZER: self.data.src_tokenizer.to_json(), VOCABULARY: best.model.vocabulary_json()}
        checkpoint = Checkpoint(tensors={WEIGHTS: best.model.tensors()}, texts=texts, state=state)
        try:
            for link in ("best", "last"):
                save_checkpoint(self.folder.checkpoints, link, best.number, checkpoint)
        except OSError as error:
            raise RunError(f"checkpoint not written ({error.strerror}); start the run anew") from error
        self.folder.forget_results(self.config)

    @property
    def _n_classes(self) -> int:
        assert self.data.label_names is not None, "a classification task has labels"
        return len(self.data.label_names)

    def _evaluate(self, model: TfidfClassifier, split: str) -> Evaluation:
        return evaluate_linear(model, self.data.splits[split], self.data)

    # --------------------------------------------------------------------------------------------------------- ending

    def evaluate_best(self) -> dict[str, Evaluation]:
        """The best model on the validation split, and on test, once."""
        assert self.best is not None, "evaluated after `fit`"
        return {"validation": self.best.evaluation, "test": self._evaluate(self.best.model, "test")}

    def summary(self) -> dict[str, Any]:
        """What results.json holds of the model and its training. Its steps are the tries; there is no token table, so
        all of its parameters count."""
        n_params = self.best.model.n_params if self.best else 0
        fitted = ("train", "validation") if self.model.refit else ("train",)
        return {
            "n_params": n_params,
            "n_params_non_embedding": n_params,
            "n_train": sum(len(self.data.splits[name]) for name in fitted),
            "steps": self.n_tries,
            "best_step": self.best.number if self.best else 0,
            "seconds": round(self.seconds, 3),
            "device": DEVICE,
            "precision": PRECISION,
            "tokens_per_second": None,
            "c": self.best.c if self.best else None,
            **({} if self.temperature is None else {"temperature": self.temperature}),
        }

    def stopped(self, run: object) -> str:
        """How a run that was asked to stop can be done. run: the folder to name."""
        return f"stopped; start anew with: python train.py trainer.resume={run}"

    attends = False

    def show_weights(self) -> None:
        """None: nothing attends, and n-grams have no vectors."""

    def close(self) -> None:
        """Write out what TensorBoard still holds."""
        self.log.board.close()


def _labels(split: Split) -> npt.NDArray[np.integer]:
    assert split.labels is not None, "a classification task has labels"
    return split.labels
