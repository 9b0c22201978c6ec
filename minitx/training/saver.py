"""What of a run is in its checkpoints: written while it trains, read to resume it, and loaded by every other reader.

Saver.save -> checkpoints/last, checkpoints/best -> Saver.resume   goes on, bit for bit
                                                 -> load_model     model and text processing: predict, measures
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from minitx.config import Config, ConfigError, LinearConfig
from minitx.data import TaskData, Tokenizer
from minitx.decoding.text import TextProcessor
from minitx.errors import RunError
from minitx.nn.baselines.linear import TfidfClassifier
from minitx.nn.build import Model, build_model
from minitx.nn.sizes import ModelShape
from minitx.training.checkpoint_files import Checkpoint, checkpoints_of, load_checkpoint, load_newest, save_checkpoint
from minitx.training.console import Reporter
from minitx.training.counters import Counters
from minitx.training.loop import Loop
from minitx.training.run_folder import RunFolder

WEIGHTS, TRAINING_STATE = "model.safetensors", "training.safetensors"
TOKENIZER, TARGET_TOKENIZER, VOCABULARY = "tokenizer.json", "tgt_tokenizer.json", "vocabulary.json"


def tokenizer_texts(data: TaskData) -> dict[str, str]:
    """The tokenisers, as a checkpoint holds them; the target side has one of its own where they are not joint."""
    texts = {TOKENIZER: data.src_tokenizer.to_json()}
    if data.tgt_tokenizer is not None and not data.joint:
        texts[TARGET_TOKENIZER] = data.tgt_tokenizer.to_json()
    return texts


class Saver:
    """Saves what a run is at a step, and goes on from there."""

    def __init__(
        self,
        folder: RunFolder,
        config: Config,
        data: TaskData,
        shape: ModelShape,
        loop: Loop,
        pretrained: Mapping[str, Any] | None,
    ) -> None:
        """pretrained: what results.json holds of an earlier stage."""
        self.folder, self.config, self.data, self.shape, self.loop = folder, config, data, shape, loop
        self.pretrained = pretrained
        self._model, self._device = loop.stepper.model, loop.stepper.device
        self._texts = tokenizer_texts(data)

    def save_best(self) -> None:
        """The weights as they are now, for evaluation and prediction."""
        self._save("best", {})

    def save_last(self) -> None:
        """All that the next step depends on."""
        rng = {"cpu": torch.get_rng_state()}
        if self._device.type == "cuda":
            rng["cuda"] = torch.cuda.get_rng_state()
        groups = {"optimizer": self.loop.stepper.state(), "average": self.loop.average.state(), "rng": rng}
        training = {f"{group}/{name}": t for group, tensors in groups.items() for name, t in tensors.items()}
        self._save("last", {TRAINING_STATE: training}, keep=self.config.trainer.keep)

    def _save(self, link: str, more: Mapping[str, Mapping[str, Tensor]], keep: int = 1) -> None:
        counters = self.loop.counters
        state = {
            "step": counters.step,
            "counters": counters.to_json(),
            "metrics_size": self.folder.metrics_file.stat().st_size,
            "shape": asdict(self.shape),
            "source": self.data.source_fingerprint,
            "label_names": self.data.label_names,
            "pretrain": self.pretrained,
        }
        tensors = {WEIGHTS: self._model.state_dict(), **more}
        self._write(link, counters.step, Checkpoint(tensors=tensors, texts=self._texts, state=state), keep)
        self.folder.forget_results(self.config)

    def _write(self, link: str, step: int, checkpoint: Checkpoint, keep: int = 1) -> None:
        try:
            save_checkpoint(self.folder.checkpoints, link, step, checkpoint, keep)
        except OSError as error:
            kept = "the one before is whole" if self.folder.has_checkpoint() else "there is none yet"
            raise RunError(f"checkpoint of step {step} not written ({error.strerror}); {kept}") from error

    def resume(self, reporter: Reporter) -> int:
        """Go on from `last`, where there is one; returns the bytes of metrics.jsonl that were written by then.

        Where `last` is damaged, from the newest whole checkpoint that was kept.

        Raises:
            ConfigError: the data has changed since.
            CheckpointError: the checkpoint is damaged.
        """
        if not self.folder.has_checkpoint():
            return 0
        checkpoint, wrong = load_newest(self.folder.checkpoints, "last")
        if wrong is not None:
            reporter.warning(wrong)
        same_source = checkpoint.state["source"] == self.data.source_fingerprint
        same_classes = checkpoint.state["label_names"] in (None, [*(self.data.label_names or ())])
        if {**self._texts, **checkpoint.texts} != self._texts or not same_source or not same_classes:
            raise ConfigError(
                f"trainer.resume ({self.folder.path}) must find the data as it was, but {self.config.data.name} has "
                f"changed since the checkpoint; restore it, or start a new run"
            )
        loop, state = self.loop, checkpoint.state
        self._model.load_state_dict(dict(checkpoint.tensors[WEIGHTS]))
        self._load_training_state(checkpoint.tensors[TRAINING_STATE])
        loop.counters = Counters.from_json(state["counters"])
        loop.stream.seek(loop.counters.epoch, loop.counters.batch)
        self.pretrained = state["pretrain"]
        return int(state["metrics_size"])

    def _load_training_state(self, tensors: Mapping[str, Tensor]) -> None:
        groups: dict[str, dict[str, Tensor]] = {"optimizer": {}, "average": {}, "rng": {}}
        for key, tensor in tensors.items():
            group, name = key.split("/", 1)
            groups[group][name] = tensor
        self.loop.stepper.load_state(groups["optimizer"])
        self.loop.average.load_state(groups["average"])
        torch.set_rng_state(groups["rng"]["cpu"])
        if "cuda" in groups["rng"] and self._device.type == "cuda":
            torch.cuda.set_rng_state(groups["rng"]["cuda"])

    def replace_best(self) -> None:
        """The same checkpoint with the model's weights and buffers as they are now."""
        best, _ = load_newest(self.folder.checkpoints, "best")
        changed = Checkpoint(tensors={WEIGHTS: self._model.state_dict()}, texts=best.texts, state=best.state)
        self._write("best", int(best.state["step"]), changed)

    def load_best(self) -> None:
        """Give the model the weights that validation chose."""
        best, _ = load_newest(self.folder.checkpoints, "best")
        self._model.load_state_dict(dict(best.tensors[WEIGHTS]))


@dataclass(frozen=True, kw_only=True)
class LoadedModel:
    """A trained model and all that stands between texts and it."""

    config: Config
    model: Model | TfidfClassifier
    """A net is in eval mode."""
    shape: ModelShape | None
    """What the data fixed of a net; a linear model has its vocabulary instead."""
    processor: TextProcessor

    @property
    def net(self) -> Model:
        """The model of a run that was trained by steps."""
        assert not isinstance(self.model, TfidfClassifier)
        return self.model


def read_checkpoint(folder: RunFolder, link: str = "best") -> Checkpoint:
    """What a run folder has under `best` or `last`, or what a folder that `minitx export` wrote has.

    Raises:
        ConfigError: the run has not reached that checkpoint.
        CheckpointError: the checkpoint is damaged.
    """
    if (folder.path / "state.json").is_file():
        return load_checkpoint(folder.path)
    if not checkpoints_of(folder.checkpoints, link) and not (folder.checkpoints / link).exists():
        raise ConfigError(f"run ({folder.path}) must have a checkpoint '{link}'; it has not been trained that far")
    checkpoint, wrong = load_newest(folder.checkpoints, link)
    if wrong is not None:
        warnings.warn(wrong, stacklevel=3)
    return checkpoint


def load_model(folder: RunFolder, link: str = "best", device: torch.device | str = "cpu") -> LoadedModel:
    """The model in checkpoint `best` (what validation chose) or `last` of a run folder.

    Raises:
        ConfigError: the folder holds no run, or the run has not reached that checkpoint.
        CheckpointError: the checkpoint is damaged.
    """
    config, checkpoint = folder.read_config(), read_checkpoint(folder, link)
    processor, weights = _processor(config, checkpoint), dict(checkpoint.tensors[WEIGHTS])
    if isinstance(config.model, LinearConfig):
        assert processor.label_names is not None, "a linear model is a classifier"
        n_classes, vocabulary = len(processor.label_names), checkpoint.texts[VOCABULARY]
        linear = TfidfClassifier.of_saved(config.model, n_classes, weights, vocabulary)
        return LoadedModel(config=config, model=linear, shape=None, processor=processor)
    shape = ModelShape(**checkpoint.state["shape"])
    model = build_model(config.model, shape)
    model.load_state_dict(weights)
    return LoadedModel(config=config, model=model.to(device).eval(), shape=shape, processor=processor)


def _processor(config: Config, checkpoint: Checkpoint) -> TextProcessor:
    task, names = checkpoint.state["shape"]["task"], checkpoint.state["label_names"]
    src, own = Tokenizer.from_json(checkpoint.texts[TOKENIZER]), checkpoint.texts.get(TARGET_TOKENIZER)
    return TextProcessor(
        task=task,
        src_tokenizer=src,
        tgt_tokenizer=Tokenizer.from_json(own) if own else (src if task == "translation" else None),
        label_names=tuple(names) if names is not None else None,
        max_length=config.data.max_length,
        truncate=config.data.truncate,
    )
