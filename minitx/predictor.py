"""A trained run, loaded: predict, evaluate, inspect. `minitx.load(RUN)` makes one in a line."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from minitx.analysis.attention_maps import Inspection, inspect_texts
from minitx.analysis.head_effects import without_heads
from minitx.analysis.head_maps import LayerId
from minitx.analysis.head_statistics import ROWS, HeadReport, head_statistics, sample_batches
from minitx.analysis.page import TwoRuns, inspect_page
from minitx.config import Config, DataConfig, DecodeConfig, NetConfig, TransformerConfig, rule
from minitx.config.load import override
from minitx.data import TaskData, load_data
from minitx.decoding.inference import TranslationScore
from minitx.decoding.text import Answer, Candidate, LinearTextModel, TextModel, TextProcessor
from minitx.errors import ConfigError
from minitx.metrics.class_report import N_HARDEST, ClassReport, report_classes
from minitx.metrics.comparison import Comparison, compare_evaluations
from minitx.metrics.evaluate import Evaluation, evaluate, evaluate_linear
from minitx.nn.baselines.linear import TfidfClassifier
from minitx.nn.capture import attentions
from minitx.training.device import resolve_compute
from minitx.training.run_folder import RunFolder
from minitx.training.saver import load_model

N_ANSWERS = 5
"""Likeliest answers that an inspection shows."""


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """A trained model (or an ensemble of several runs) with all that stands between text and it; needs no data source
    but for `evaluate`.

    Its precision is the one that the run was evaluated in, where this machine resolves `auto` alike.
    """

    folder: RunFolder
    config: Config
    text_model: TextModel | LinearTextModel

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
        first, *others = members = [cls._from_one_run(path, device, checkpoint) for path in (run, *ensemble)]
        if not others:
            return first
        for member in members:
            if isinstance(member.text_model, LinearTextModel):
                must = "be a run of a model that is trained by steps, because an ensemble goes by batches of tokens"
                raise rule("--ensemble", member.folder.path, must, "leave model=linear out")
            if member.processor != first.processor:
                must = (
                    f"read and write as {run} does: same task, vocabulary, classes, data.max_length and data.truncate"
                )
                raise rule("--ensemble", member.folder.path, must, "train its runs on the same data, with other seeds")
        models = tuple(model for member in members for model in member.nets().models)
        return replace(first, text_model=replace(first.nets(), models=models))

    @classmethod
    def _from_one_run(cls, run: str | Path, device: str, checkpoint: str) -> Predictor:
        folder = RunFolder(_folder_of(run))
        loaded = load_model(folder, checkpoint)
        config, processor, decode = loaded.config, loaded.processor, loaded.config.decode
        text_model: TextModel | LinearTextModel
        if isinstance(loaded.model, TfidfClassifier):
            text_model = LinearTextModel(model=loaded.model, processor=processor, decode=decode)
        else:
            here = {"device": device, "compile": False, "cuda_graphs": "off"}  # the last two are of training alone
            compute = resolve_compute(config.trainer.model_copy(update=here))
            text_model = TextModel(
                models=(loaded.model.to(compute.device),),
                processor=processor,
                device=compute.device,
                precision=compute.precision,
                decode=decode,
            )
        return cls(folder=folder, config=config, text_model=text_model)

    @property
    def processor(self) -> TextProcessor:
        """Tokenisers, class names and length limit."""
        return self.text_model.processor

    @property
    def decode(self) -> DecodeConfig:
        """How a translator writes."""
        return self.text_model.decode

    @property
    def n_models(self) -> int:
        """Of an ensemble; else 1."""
        return 1 if isinstance(self.text_model, LinearTextModel) else len(self.text_model.models)

    @property
    def device(self) -> torch.device:
        return self.text_model.device

    def nets(self, must: str = "be a run of a net", remedy: str = "use a run of another model") -> TextModel:
        """The models of a run that was trained by steps.

        Raises:
            ConfigError: the run's model is linear. must, remedy: how the error says so.
        """
        if isinstance(self.text_model, LinearTextModel):
            raise rule("RUN", self.folder.path, f"{must} (its model is linear)", remedy)
        return self.text_model

    # ---------------------------------------------------------------------------------------------------------- texts

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The label name, or the best output text, of each text, in the order of `texts`; see `TextModel.predict`."""
        return self.text_model.predict(texts)

    def answers(self, texts: Sequence[str]) -> list[Answer]:
        """`predict`, and of each output whether it was cut off at the limit on its length."""
        return self.text_model.answers(texts)

    def n_cut(self, texts: Sequence[str]) -> int:
        """How many texts are longer than `data.max_length` and are read in part."""
        return self.text_model.n_cut(texts)

    def n_best(self, texts: Sequence[str], n: int) -> list[list[Candidate]]:
        """The `n` best translations of each text, best first; see `TextModel.n_best`."""
        return self.nets().n_best(texts, n)

    def likeliest(self, texts: Sequence[str], n: int) -> list[list[Answer]]:
        """The `n` likeliest labels, or the `n` best translations (see `n_best`), of each text with probabilities."""
        return self.text_model.likeliest(texts, n)

    def score(self, texts: Sequence[str], translations: Sequence[str], first: int = 1) -> list[TranslationScore]:
        """How probable each given translation is; see `TextModel.score`."""
        return self.nets().score(texts, translations, first)

    def with_decoding(self, **changes: float) -> Predictor:
        """The same models with other `decode.*` settings on top of the present ones, e.g. with_decoding(beam=5).

        Raises:
            ConfigError: a setting is unknown or out of its range.
        """
        overrides = [f"decode.{key}={value}" for key, value in changes.items()]
        present = self.config.model_copy(update={"decode": self.decode})
        return replace(self, text_model=replace(self.text_model, decode=override(present, overrides).decode))

    # ----------------------------------------------------------------------------------------------------------- data

    def evaluate(self, split: str = "test", overrides: Sequence[str] = ()) -> Evaluation:
        """Metrics on a split of the run's own data, or of other data that `overrides` (`data.path=...`) name; the
        vocabulary and the classes stay those of the run. Files of your own are evaluated whole: `data.path`, or
        `data.test_path` for the split `test`; training data is not needed.

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
        if config.data.source == "files":
            config = config.model_copy(update={"data": _files_as_they_are(config.data, overrides)})
        return config, load_data(config.data, vocabulary=self.processor)

    def _evaluate(self, config: Config, data: TaskData, split: str) -> Evaluation:
        if isinstance(self.text_model, LinearTextModel):
            return evaluate_linear(self.text_model.model, data.splits[split], data)
        model, *ensemble = self.text_model.models
        return evaluate(
            model,
            data.splits[split],
            data,
            device=self.device,
            precision=self.text_model.precision,
            batch_tokens=config.trainer.batch_tokens,
            decode=self.decode,
            bleu_tokenize=config.data.bleu_tokenize,
            masking=config.masking,
            ensemble=ensemble,
        )

    def compare(
        self, other: Predictor, split: str = "test", overrides: Sequence[str] = ()
    ) -> tuple[Evaluation, Evaluation, dict[str, Comparison]]:
        """Both runs evaluated on this one's data, with a paired comparison (this minus other) of each metric.

        Raises:
            ConfigError: the other run has another task or other classes.
        """
        self._check_same_task(other)
        mine = self.evaluate(split, overrides)
        on_same = replace(other, config=self.config)  # of which only how data is read and evaluated is used
        their = on_same.evaluate(split, overrides)
        return mine, their, compare_evaluations(mine, their)

    def _check_same_task(self, other: Predictor) -> None:
        ours, theirs = (
            processor if processor.task == "masked" else (processor.task, processor.label_names)
            for processor in (self.processor, other.processor)
        )
        if ours != theirs:
            masked = " (of masked runs also vocabulary, data.max_length and data.truncate)"
            also = masked if self.processor.task == "masked" else ""
            must = f"have the task and the classes of {self.folder.path}{also}"
            raise rule("--against", other.folder.path, must, "compare runs on the same data")

    # ------------------------------------------------------------------------------------------------------ attention

    def inspect(self, *texts: str, against: Predictor | None = None) -> str:
        """One self-contained HTML page with every layer and head of each text's attention.

        against: another run of the same task (and classes), whose maps and probabilities stand beside this one's.

        Raises:
            ConfigError: the model makes nothing of a text, or has no attention; the other run has another task.
        """
        self.check_predicts()
        must = "be a run with attention, because inspect draws nothing else"
        net, model = self.nets(must, "use a run of model=transformer").models[0], self.config.model
        if not attentions(net):
            assert isinstance(model, NetConfig)
            must = f"attend to tokens, but model={model.kind} with model.pooling={model.pooling} does not"
            remedy = "train it with model.pooling=additive or attention to see what it reads"
            raise rule("run", self.folder.path, must, remedy)
        title, subtitle = f"Attention of {self.folder.path.name}", self.subtitle()
        if against is None:
            return inspect_page(self.inspections(texts), title=title, subtitle=subtitle)
        self._check_same_task(against)
        ours, theirs = self.folder.path, against.folder.path
        runs = (ours.name, theirs.name) if ours.name != theirs.name else (str(ours), str(theirs))
        pairs = zip(self.inspections(texts), against.inspections(texts), strict=True)
        compared = []
        for mine, their in pairs:
            answers = list(dict.fromkeys(answer.text for answer in (*mine.answers, *their.answers)))
            both = zip(self._probabilities(mine, answers), against._probabilities(their, answers), strict=True)
            probabilities = dict(zip(answers, both, strict=True))
            compared.append(TwoRuns(runs=runs, inspections=(mine, their), probabilities=probabilities))
        title = f"{runs[0]} against {runs[1]}"
        return inspect_page(compared, title=title, subtitle=f"{subtitle}; against {against.subtitle()}")

    def _probabilities(self, found: Inspection, answers: Sequence[str]) -> list[float | None]:
        """Of labels, or of translations as a whole; None of a translation (or of a text) that is longer than this run
        reads, if the run did not write it."""
        known = {answer.text: answer.probability for answer in found.answers}
        others = [answer for answer in answers if answer not in known]
        names = self.processor.label_names
        if names is not None and others:
            [labels] = self.likeliest([found.text], len(names))
            known |= {label.text: label.probability for label in labels if label.text in others}
        elif names is None:
            known |= {answer: self._translation_probability(found.text, answer) for answer in others}
        return [known[answer] for answer in answers]

    def _translation_probability(self, text: str, translation: str) -> float | None:
        try:
            [score] = self.score([text], [translation])
        except ConfigError:  # too long
            return None
        return math.exp(score.log_prob)

    def inspections(
        self, texts: Sequence[str], *, off: Sequence[tuple[LayerId, int]] = (), effects: bool = True
    ) -> list[Inspection]:
        """Each text's output, likeliest answers and attention; of a model without attention the first two.

        off: heads that are switched off meanwhile. effects: also what the output loses without each head.

        Raises:
            ValueError: the model has not the heads of `off`.
        """
        if isinstance(self.text_model, LinearTextModel):
            if off:
                raise ValueError("a linear model has no heads that could be switched off")
            found = self.text_model.likeliest(texts, N_ANSWERS)
            return [Inspection(t, a[0].text, (), tuple(a)) for t, a in zip(texts, found, strict=True)]
        net = self.text_model.models[0]
        with without_heads(net, off):
            return inspect_texts(
                net,
                texts,
                self.processor,
                device=self.device,
                decode=self.decode,
                n_answers=N_ANSWERS,
                effects=effects and not off,
                through_layers=True,
            )

    def head_statistics(self, split: str = "validation", rows: int = ROWS, seed: int = 0) -> HeadReport:
        """Every head of the first model in numbers, and how far its encoder reads, on some rows of a split.

        Raises:
            ConfigError: the data cannot be read, or the model is linear.
        """
        net = self.nets("be a run of a net, because heads and receptive fields are of nets alone").models[0]
        config, data = self._data(())
        batches = sample_batches(
            net, data.splits[split], data, device=self.device, rows=rows, seed=seed, masking=config.masking
        )
        return head_statistics(net, batches, seed)

    def check_predicts(self) -> None:
        """Raise a ConfigError of a run that has no answer to a text."""
        if self.processor.task == "masked":
            must = "be a classifier or a translator, it predicts hidden tokens"
            raise rule("RUN", self.folder.path, must, "minitx evaluate says how well")

    def subtitle(self) -> str:
        """Data and model in a line, for people."""
        model = self.config.model
        if not isinstance(model, NetConfig):
            return f"{self.config.data.name}, {model.kind}"
        depth = f"{model.depth} layer{'s' if model.depth > 1 else ''}" if model.depth else "no layers"
        heads = f" of {model.n_heads} heads" if isinstance(model, TransformerConfig) else ""
        return f"{self.config.data.name}, {model.kind}: {depth}{heads}, width {model.d_model}"


def _folder_of(run: str | Path) -> Path:
    """A run's folder, one that `minitx export` wrote, or one that is fetched from the hub where `user/name` is no
    folder here.

    Raises:
        ConfigError: there is neither.
    """
    path = Path(run)
    if path.exists() or not HUB_NAME.fullmatch(str(run)):
        return path
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        return Path(snapshot_download(str(run)))
    except (HfHubHTTPError, OSError, ValueError) as error:
        line = str(error).splitlines()[0]
        remedy = f"see outputs/runs for yours; nor is it on the hub ({line:.120})"
        raise rule("run", run, "be a run folder with a config.yaml", remedy) from None


HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
"""`user/name`"""


def _files_as_they_are(data: DataConfig, overrides: Sequence[str]) -> DataConfig:
    """Each split the whole file that `overrides` name for it, or for all; nothing is cut, and no file of training is
    read. As it is where they name none."""
    typed = {text.partition("=")[0].removeprefix("data.") for text in overrides}
    named = {key: getattr(data, key) for key in ("path", "validation_path", "test_path") if key in typed}
    if not named:
        return data
    any_of = named.get("path") or named.get("test_path") or named["validation_path"]
    paths = {key: named.get(key) or any_of for key in ("path", "validation_path", "test_path")}
    return data.model_copy(update={**paths, "train_size": None})
