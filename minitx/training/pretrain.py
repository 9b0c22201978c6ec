"""Self-pretraining: a masked run on the task's own texts, and what a classifier takes over from it.

    RUN/pretrain (a whole run of data.task=masked) -> Start -> RUN: token table and encoder; pooling and head are new

Both stages are ordinary runs that resume by themselves. Once the second one has a checkpoint, the first is not looked
at again; until then its best checkpoint gives the start, so that a kill between the two changes nothing either.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from minitx.config import Config, DecodeConfig, NetConfig, rule
from minitx.config.base import keys_with_role
from minitx.config.load import flat
from minitx.distributed import current
from minitx.errors import Stopped
from minitx.nn.classifier import READER
from minitx.training.console import Reporter
from minitx.training.run_folder import RunFolder
from minitx.training.saver import load_model

_FREE = frozenset(keys_with_role(Config, "place", "noise", "head")) | {
    "data.task", "data.name", "model.n_decoder_layers", "model.attention.backend",
}  # fmt: skip
"""What a classifier may have otherwise than the masked run that it starts from: none of it is in the weights that it
takes over."""


@dataclass(frozen=True, kw_only=True)
class Start:
    """What a classifier takes over from a masked run."""

    run: Path
    weights: Mapping[str, Tensor]
    tokenizer: str
    summary: dict[str, Any]
    """For results.json: which run it was, its metrics, steps and seconds."""

    def enter(self, model: nn.Module, tokenizer: str) -> None:
        """Give a new model the token table and the encoder.

        Raises:
            ConfigError: the ids of the two runs do not mean the same tokens.
        """
        if tokenizer != self.tokenizer:
            must = "have the vocabulary of this run"
            raise rule("pretrain.run", self.run, must, "fit both on the same training texts, or pretrain anew")
        taken = {name: tensor for name, tensor in self.weights.items() if name.startswith(READER)}
        missing, unexpected = model.load_state_dict(taken, strict=False)
        assert not unexpected and not [name for name in missing if name.startswith(READER)]

    def __str__(self) -> str:
        shown = ", ".join(
            f"{100 * m['masked_accuracy']['value']:.1f} % on {s}" for s, m in self.summary["metrics"].items()
        )
        return f"token table and encoder of {self.run}, masked accuracy {shown}"


def check_pretraining(config: Config, source: str) -> None:
    """What can be known to be wrong with `pretrain.run` before data is read. source: the data's fingerprint.

    Raises:
        ConfigError: it is no finished run of data.task=masked, or one on other data or of another model.
    """
    if config.pretrain.run is None:
        return
    folder = RunFolder(Path(config.pretrain.run))
    other, results = folder.read_config("pretrain.run"), folder.results()
    if other.data.task != "masked":
        remedy = "if it has pretrained itself, name its RUN/pretrain"
        raise rule("pretrain.run", folder.path, f"be a run of data.task=masked, not {other.data.task}", remedy)
    if results is None or results["status"] != "finished":
        remedy = f"finish it first: python train.py trainer.resume={folder.path}"
        raise rule("pretrain.run", folder.path, "be a run that has finished", remedy)
    mine, theirs = _to_agree(config), _to_agree(other)
    found = [f"{key} {theirs.get(key)}, not {value}" for key, value in mine.items() if theirs.get(key) != value]
    if results["source"] != source:
        found.append("other data")
    if found:
        must = "agree with this run in data, tokeniser and model"
        raise rule("pretrain.run", folder.path, must, f"it has {'; '.join(found[:3])}")


def _to_agree(config: Config) -> dict[str, Any]:
    """Dotted keys of data and model that must be the same, with their values."""
    tree = flat(config.model_dump(mode="json", include={"data", "model"}))
    return {key: value for key, value in tree.items() if key not in _FREE}


def find_start(config: Config, folder: RunFolder, reporter: Reporter, train: Callable[[Config, Path], Any]) -> Start:
    """Where the classifier begins: from `pretrain.run`, or after the first stage, which `train` begins or goes on with.

    Raises:
        Stopped: the first stage was asked to stop, and has saved.
    """
    if config.pretrain.run is not None:
        return _read(RunFolder(Path(config.pretrain.run)), config.pretrain.run)
    stage = folder.pretraining
    if current().is_first:
        folder.begin(config)
    reporter.info(f"stage 1 of 2: guess hidden tokens of the training texts, in {stage.path}")
    try:
        train(masked_stage(config), stage.path)
    except Stopped:
        brief = {"data": config.data.name, "model": config.model.kind, "seed": config.seed}
        if current().is_first:
            folder.write_results({"status": "stopped", "stage": "pretrain", **brief})
        raise
    reporter.info(f"\nstage 2 of 2: {config.data.task}")
    return _read(stage, stage.path.name)


def _read(folder: RunFolder, name: str) -> Start:
    results, best = folder.results(), load_model(folder)
    assert results is not None, "a finished run has results"
    summary = {"run": name, **{key: results[key] for key in ("metrics", "loss", "steps", "best_step", "seconds")}}
    tokenizer = best.processor.src_tokenizer.to_json()
    return Start(run=folder.path, weights=best.net.state_dict(), tokenizer=tokenizer, summary=summary)


def masked_stage(config: Config) -> Config:
    """The configuration of RUN/pretrain; no key that a run may be continued with is in it."""
    own, model, optim = config.pretrain, config.model, config.optim
    assert isinstance(model, NetConfig), "Config has checked that the model can guess"
    dropout = model.dropout if own.dropout is None else own.dropout
    quiet = {"dropout": dropout, "token_dropout": 0.0, "word_dropout": 0.0}
    limits = {key: getattr(own, key) for key in ("max_epochs", "max_steps", "max_minutes")} | {"min_steps": None}
    batches = {} if own.batch_tokens is None else {"batch_tokens": own.batch_tokens, "batch_rows": None}
    sections = {
        "data": config.data.model_copy(update={"task": "masked"}),
        "model": model.model_copy(update=quiet),
        "optim": optim.model_copy(update={"lr": own.lr or optim.lr, "label_smoothing": 0.0, "r_drop": 0.0}),
        "trainer": config.trainer.model_copy(update={**limits, **batches, "patience": None, "resume": "auto"}),
        "decode": DecodeConfig(),
        "pretrain": type(own)(),
    }
    return config.model_copy(update=sections)
