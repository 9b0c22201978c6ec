"""A trained run, loaded: predict, evaluate, inspect. `minitx.load(RUN)` makes one in a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from minitx.analysis.attention_maps import inspect_texts
from minitx.analysis.head_statistics import ROWS, HeadReport, head_statistics, sample_batches
from minitx.analysis.page import inspect_page
from minitx.config import Config, LinearConfig, NetConfig, TransformerConfig, rule
from minitx.config.load import override
from minitx.data import TaskData, Tokenizer, load_data
from minitx.decoding.text import TextModel, TextProcessor
from minitx.errors import ConfigError
from minitx.metrics.class_report import N_HARDEST, ClassReport, report_classes
from minitx.metrics.comparison import Comparison, compare_evaluations
from minitx.metrics.evaluate import Evaluation, evaluate, evaluate_linear
from minitx.nn.baselines.linear import TfidfClassifier
from minitx.nn.build import Model, build_model
from minitx.nn.capture import attentions
from minitx.nn.sizes import ModelShape
from minitx.training.checkpoint import Checkpoint, load_checkpoint
from minitx.training.device import resolve_compute
from minitx.training.run_folder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Predictor(TextModel):
    """Weights of one checkpoint (or of several runs) and all that stands between text and them: `predict`, `n_best`
    and `score` of `TextModel`; needs no data source but for `evaluate`.

    Its precision is the one that the run was evaluated in, where this machine resolves `auto` alike.
    """

    folder: RunFolder
    config: Config

    @classmethod
    def from_run(
        cls, run: str | Path, device: str = "auto", checkpoint: str = "best", ensemble: Sequence[str | Path] = ()
    ) -> Predictor:
        """Load `best` (the weights that validation chose) or `last` of a run folder, and of those in `ensemble`.

        An ensemble goes by the mean of all models' probabilities; its runs must share vocabulary and classes.

        Raises:
            ConfigError: a folder is no run, a run has not reached that checkpoint, or runs do not go together.
            CheckpointError: the checkpoint is damaged.
        """
        first, *others = [cls._one(path, device, checkpoint) for path in (run, *ensemble)]
        for member in (first, *others) if others else ():
            if isinstance(member, LinearPredictor):
                must = "be a run of a model that is trained by steps, because an ensemble goes by batches of tokens"
                raise rule("--ensemble", member.folder.path, must, "leave model=linear out")
        for other in others:
            if other.processor != first.processor:
                must = (
                    f"read and write as {run} does: same task, vocabulary, classes, data.max_length and data.truncate"
                )
                raise rule("--ensemble", other.folder.path, must, "train its runs on the same data, with other seeds")
        return replace(first, models=first.models + tuple(model for other in others for model in other.models))

    @classmethod
    def _one(cls, run: str | Path, device: str, checkpoint: str) -> Predictor:
        folder = RunFolder(Path(run))
        config = folder.read_config()
        place = folder.checkpoints / checkpoint
        if not place.exists():
            raise ConfigError(f"run ({run}) must have a checkpoint '{checkpoint}'; it has not been trained that far")
        if isinstance(config.model, LinearConfig):
            return LinearPredictor.of_checkpoint(folder, config, config.model, load_checkpoint(place))
        here = {"device": device, "compile": False, "cuda_graphs": "off"}  # the last two are of training alone
        compute = resolve_compute(config.trainer.model_copy(update=here))
        where = compute.device
        loaded = load_checkpoint(place)
        model = build_model(config.model, ModelShape(**loaded.state["shape"]))
        model.load_state_dict(dict(loaded.tensors["model.safetensors"]))
        return cls(
            folder=folder,
            config=config,
            models=(model.to(where).eval(),),
            processor=_processor(config, loaded),
            device=where,
            precision=compute.precision,
            decode=config.decode,
        )

    @property
    def model(self) -> Model:
        """The first run's, in eval mode, on `device`."""
        return self.models[0]

    def with_decoding(self, **changes: float) -> Predictor:
        """The same models with other `decode.*` settings on top of the present ones, e.g. with_decoding(beam=5).

        Raises:
            ConfigError: a setting is unknown or out of its range.
        """
        overrides = [f"decode.{key}={value}" for key, value in changes.items()]
        present = self.config.model_copy(update={"decode": self.decode})
        return replace(self, decode=override(present, overrides).decode)

    def evaluate(self, split: str = "test", overrides: Sequence[str] = ()) -> Evaluation:
        """Metrics on a split of the run's own data, or of other data that `overrides` (`data.path=...`) name; the
        vocabulary and the classes stay those of the run.

        Raises:
            ConfigError: the data cannot be read, or has a class that this run does not know.
        """
        config, data = self._data(overrides)
        return self._evaluate(config, data, split)

    def report(self, split: str = "test", overrides: Sequence[str] = (), n_hardest: int = N_HARDEST) -> ClassReport:
        """`evaluate` of a classifier in detail: each class, confusion, calibration, the hardest examples.

        Raises:
            ConfigError: as of `evaluate`.
            ValueError: the run is a translator.
        """
        if self.processor.label_names is None:
            raise ValueError("a translator has no classes; only `evaluate` is for it")
        config, data = self._data(overrides)
        found = self._evaluate(config, data, split)
        return report_classes(found, data.splits[split], self.processor.label_names, n_hardest)

    def _data(self, overrides: Sequence[str]) -> tuple[Config, TaskData]:
        """The run's own data, or other data, in the vocabulary and the classes of the run."""
        fixed = [o for o in overrides if not o.startswith("data.")]
        if fixed:
            raise ConfigError(
                f"{fixed[0]} must be a data.* key, because the run's model is fixed; e.g. data.path=FOLDER "
                "(for decode.* see --beam and --length-penalty)"
            )
        reads = [f"data.max_length={self.processor.max_length}", f"data.truncate={self.processor.truncate}"]
        config = override(self.config, [*overrides, *reads])
        return config, load_data(config.data, vocabulary=self.processor)

    def _evaluate(self, config: Config, data: TaskData, split: str) -> Evaluation:
        return evaluate(
            self.model,
            data.splits[split],
            data,
            device=self.device,
            precision=self.precision,
            batch_tokens=config.trainer.batch_tokens,
            decode=self.decode,
            bleu_tokenize=config.data.bleu_tokenize,
            masking=config.masking,
            ensemble=self.models[1:],
        )

    def compare(
        self, other: Predictor, split: str = "test", overrides: Sequence[str] = ()
    ) -> tuple[Evaluation, Evaluation, dict[str, Comparison]]:
        """Both runs evaluated on this one's data, with a paired comparison (this minus other) of each metric.

        Raises:
            ConfigError: the other run has another task or other classes.
        """
        ours, theirs = (
            processor if processor.task == "masked" else (processor.task, processor.label_names)
            for processor in (self.processor, other.processor)
        )
        if ours != theirs:
            masked = " (of masked runs also vocabulary, data.max_length and data.truncate)"
            also = masked if self.processor.task == "masked" else ""
            must = f"have the task and the classes of {self.folder.path}{also}"
            raise rule("--against", other.folder.path, must, "compare runs on the same data")
        mine = self.evaluate(split, overrides)
        on_same = replace(other, config=self.config)  # of which only how data is read and evaluated is used
        their = on_same.evaluate(split, overrides)
        return mine, their, compare_evaluations(mine, their)

    def inspect(self, *texts: str) -> str:
        """One self-contained HTML page with every layer and head of each text's attention.

        Raises:
            ConfigError: the model makes nothing of a text, or has no attention.
        """
        self.check_predicts()
        model = self.config.model
        if not attentions(self.model):
            assert isinstance(model, NetConfig)
            must = f"attend to tokens, but model={model.kind} with model.pooling={model.pooling} does not"
            remedy = "train it with model.pooling=additive or attention to see what it reads"
            raise rule("run", self.folder.path, must, remedy)
        inspections = inspect_texts(self.model, texts, self.processor, device=self.device, decode=self.decode)
        return inspect_page(inspections, title=f"Attention of {self.folder.path.name}", subtitle=self._subtitle())

    def head_statistics(self, split: str = "validation", rows: int = ROWS, seed: int = 0) -> HeadReport:
        """Every head of the first model in numbers, and how far its encoder reads, on some rows of a split.

        Raises:
            ConfigError: the data cannot be read, or the model is linear.
        """
        config, data = self._data(())
        batches = sample_batches(
            self.model, data.splits[split], data, device=self.device, rows=rows, seed=seed, masking=config.masking
        )
        return head_statistics(self.model, batches, seed)

    def check_predicts(self) -> None:
        """Raise a ConfigError of a run that has no answer to a text."""
        if self.processor.task == "masked":
            must = "be a classifier or a translator, it predicts hidden tokens"
            raise rule("RUN", self.folder.path, must, "minitx evaluate says how well")

    def _subtitle(self) -> str:
        model = self.config.model
        assert isinstance(model, NetConfig)
        depth = f"{model.depth} layer{'s' if model.depth > 1 else ''}" if model.depth else "no layers"
        heads = f" of {model.n_heads} heads" if isinstance(model, TransformerConfig) else ""
        return f"{self.config.data.name}, {model.kind}: {depth}{heads}, width {model.d_model}"


@dataclass(frozen=True, kw_only=True)
class LinearPredictor(Predictor):
    """A run of model=linear, which reads the texts themselves: whole, on the CPU, without a torch model."""

    linear: TfidfClassifier

    @classmethod
    def of_checkpoint(
        cls, folder: RunFolder, config: Config, settings: LinearConfig, loaded: Checkpoint
    ) -> LinearPredictor:
        processor, tensors = _processor(config, loaded), loaded.tensors["model.safetensors"]
        assert processor.label_names is not None, "a linear model is a classifier"
        vocabulary = loaded.texts["vocabulary.json"]
        return cls(
            folder=folder,
            config=config,
            models=(),
            linear=TfidfClassifier.of_saved(settings, len(processor.label_names), tensors, vocabulary),
            processor=processor,
            device=torch.device("cpu"),
            decode=config.decode,
        )

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The label name of each text, in the order of `texts`; [] for none."""
        if not texts:
            return []
        return [self.processor.label(index) for index in self.linear.log_probs(texts).argmax(-1).tolist()]

    def n_cut(self, texts: Sequence[str]) -> int:
        """None: texts are read whole."""
        return 0

    def inspect(self, *texts: str) -> str:
        """Always a ConfigError: there is nothing to draw."""
        must = "be a run with attention, because inspect draws nothing else"
        raise rule("RUN", self.folder.path, f"{must} (its model is linear)", "use a run of model=transformer")

    def head_statistics(self, split: str = "validation", rows: int = ROWS, seed: int = 0) -> HeadReport:
        """Always a ConfigError: there is nothing to measure."""
        must = "be a run of a net, because heads and receptive fields are of nets alone"
        raise rule("RUN", self.folder.path, f"{must} (its model is linear)", "use a run of another model")

    def _evaluate(self, config: Config, data: TaskData, split: str) -> Evaluation:
        return evaluate_linear(self.linear, data.splits[split], data)


def _processor(config: Config, checkpoint: Checkpoint) -> TextProcessor:
    state: Any = checkpoint.state
    src = Tokenizer.from_json(checkpoint.texts["tokenizer.json"])
    own = checkpoint.texts.get("tgt_tokenizer.json")
    names = state["label_names"]
    return TextProcessor(
        task=state["shape"]["task"],
        src_tokenizer=src,
        tgt_tokenizer=Tokenizer.from_json(own) if own else (src if state["shape"]["task"] == "translation" else None),
        label_names=tuple(names) if names is not None else None,
        max_length=config.data.max_length,
        truncate=config.data.truncate,
    )
