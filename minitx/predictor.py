"""A trained run, loaded: predict, evaluate, inspect. `minitx.load(RUN)` makes one in a line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from minitx.config import Config
from minitx.data import Tokenizer, load_data
from minitx.errors import ConfigError
from minitx.evaluation.attention_maps import inspect_texts
from minitx.evaluation.evaluate import Evaluation, evaluate
from minitx.evaluation.page import inspect_page
from minitx.evaluation.predict import Codec, predict_texts
from minitx.nn.build import ModelShape, build_model
from minitx.nn.models import Classifier, Translator
from minitx.override import override
from minitx.training.checkpoint import Checkpoint, load_checkpoint
from minitx.training.device import Precision, resolve_compute
from minitx.training.runfolder import RunFolder


@dataclass(frozen=True, kw_only=True)
class Predictor:
    """Weights of one checkpoint and all that stands between text and them; needs no data source but for `evaluate`."""

    folder: RunFolder
    config: Config
    model: Classifier | Translator
    """In eval mode, on `device`."""
    codec: Codec
    device: torch.device
    precision: Precision
    """As the run was judged in, where this machine resolves `auto` alike."""

    @classmethod
    def from_run(cls, run: str | Path, device: str = "auto", checkpoint: str = "best") -> Predictor:
        """Load `best` (the weights that validation judged) or `last` of a run folder.

        Raises:
            ConfigError: the folder is no run, or the run has not reached that checkpoint.
            CheckpointError: the checkpoint is damaged.
        """
        folder = RunFolder(Path(run))
        config = folder.read_config()
        place = folder.checkpoints / checkpoint
        if not place.exists():
            raise ConfigError(f"run ({run}) must have a checkpoint '{checkpoint}'; it has not been trained that far")
        here = {"device": device, "compile": False, "cuda_graphs": False}  # the last two are of training alone
        compute = resolve_compute(config.trainer.model_copy(update=here))
        where = compute.device
        loaded = load_checkpoint(place)
        model = build_model(config.model, ModelShape(**loaded.state["shape"]))
        model.load_state_dict(dict(loaded.tensors["model.safetensors"]))
        return cls(
            folder=folder,
            config=config,
            model=model.to(where).eval(),
            codec=_codec(config, loaded),
            device=where,
            precision=compute.precision,
        )

    def predict(self, texts: Sequence[str]) -> list[str]:
        """The label, or the greedy output, of each text, in their order."""
        return predict_texts(self.model, texts, self.codec, device=self.device, precision=self.precision)

    def evaluate(self, split: str = "test", overrides: Sequence[str] = ()) -> Evaluation:
        """Metrics on a split of the run's own data, or of other data that `overrides` (`data.path=...`) name; the
        vocabulary and the classes stay those of the run.

        Raises:
            ConfigError: the data cannot be read, or has a class that this run does not know.
        """
        fixed = [o for o in overrides if not o.startswith("data.")]
        if fixed:
            raise ConfigError(
                f"{fixed[0]} must be a data.* key, because the run's model is fixed; e.g. data.path=FOLDER"
            )
        config = override(self.config, [*overrides, f"data.max_length={self.codec.max_length}"])
        data = load_data(config.data, fitted=self.codec)
        return evaluate(
            self.model,
            data.splits[split],
            data,
            device=self.device,
            precision=self.precision,
            batch_tokens=config.trainer.batch_tokens,
        )

    def inspect(self, *texts: str) -> str:
        """One self-contained HTML page with every layer and head of each text's attention."""
        inspections = inspect_texts(self.model, texts, self.codec, device=self.device)
        return inspect_page(inspections, title=f"Attention of {self.folder.path.name}", subtitle=self._subtitle())

    def _subtitle(self) -> str:
        model = self.config.model
        return f"{self.config.data.name}, {model.n_layers} layers of {model.n_heads} heads, width {model.d_model}"


def _codec(config: Config, checkpoint: Checkpoint) -> Codec:
    state: Any = checkpoint.state
    src = Tokenizer.from_json(checkpoint.texts["tokenizer.json"])
    own = checkpoint.texts.get("tgt_tokenizer.json")
    names = state["label_names"]
    return Codec(
        task=state["shape"]["task"],
        src_tokenizer=src,
        tgt_tokenizer=Tokenizer.from_json(own) if own else (src if state["shape"]["task"] == "translation" else None),
        label_names=tuple(names) if names is not None else None,
        max_length=config.data.max_length,
    )
