"""What a study computes of trained cells, beside results: over-fitting at equal training loss, equal builds, heads,
operations.

Each measure gives numbers under its own prefix, `fit.gap_at_0.3`; they are written into the cell's measures.json.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from minitx.config import Config, NetConfig, TransformerConfig, rule
from minitx.data import load_data
from minitx.metrics.evaluate import evaluate
from minitx.nn.attention.convert import grouped_to_split, split_to_grouped
from minitx.nn.build import Model, build_model
from minitx.nn.sizes import ModelShape
from minitx.studies.head_measures import across, field, heads
from minitx.studies.operations import at_level, compute, losses_of
from minitx.studies.study import Measure
from minitx.sweeps.executor import VERSIONS
from minitx.sweeps.measures_file import is_kept, keep
from minitx.training.checkpoint import load_checkpoint
from minitx.training.run_folder import RunFolder

FIT_LEVELS = (2.0, 1.5, 1.0, 0.7, 0.5, 0.3, 0.2, 0.1, 0.05)
"""Training losses, nats a target, at which over-fitting is read off."""


def add_measures(path: Path, names: Sequence[Measure]) -> None:
    """Compute what is not there yet of a finished run, and keep it beside results.json.

    Raises:
        ConfigError: a measure does not go with the run.
    """
    config = RunFolder(path).read_config()
    with RunFolder(path).locked():  # two studies may share the cell
        for name in names:
            if isinstance(config.model, NetConfig) and not is_kept(path, name, VERSIONS[name]):
                keep(path, name, VERSIONS[name], _MEASURES[name](path, config))


def add_across(paths: Sequence[Path]) -> None:
    """Compare each run of one arm and value with the next seed's, the last with the first, where that is not there yet.

    Each run is in two comparisons, so their numbers hang together a little, and an interval over them is somewhat too
    narrow.
    """
    for path, other in zip(paths, [*paths[1:], *paths[:1]], strict=True):
        if path != other and not is_kept(path, "across", other.name):
            with RunFolder(path).locked():
                keep(path, "across", other.name, across(path, other))


# ------------------------------------------------------------------------------------------------------- over-fitting


def _fit(path: Path, config: Config) -> dict[str, float]:
    """`gap_at_L`: validation loss minus training loss, both evaluated alike, where training loss first reached L."""
    if not config.trainer.eval_train_rows:
        raise rule("trainer.eval_train_rows", 0, "be set, because the study measures over-fitting", "e.g. 500")
    train, validation = losses_of(path, "train"), losses_of(path, "validation")
    steps = sorted(train.keys() & validation.keys())
    curve = [(train[step], validation[step]) for step in steps]
    found = {"train_loss": curve[-1][0], "gap": curve[-1][1] - curve[-1][0]}
    return found | {f"gap_at_{level:g}": gap for level in FIT_LEVELS if (gap := gap_at(curve, level)) is not None}


def gap_at(curve: Sequence[tuple[float, float]], level: float) -> float | None:
    """Validation minus training loss where training loss first falls to `level`; see `at_level`.

    curve: (training loss, validation loss) along training.
    """
    validation = at_level(curve, level)
    return None if validation is None else validation - level


# ------------------------------------------------------------------------------------------------------------- builds


def _builds(path: Path, config: Config) -> dict[str, float]:
    """`difference`: by how much the loss of 100 test rows changes when trained heads are rebuilt, in float64."""
    if not isinstance(config.model, TransformerConfig):
        raise rule("model", config.model.kind, "be transformer, because heads are built in two ways there alone")
    best = load_checkpoint(path / "checkpoints" / "best")
    shape = ModelShape(**best.state["shape"])
    state = dict(best.tensors["model.safetensors"])
    other_way = "grouped" if config.model.attention.heads == "split" else "split"
    other_state = split_to_grouped(state, config.model.n_heads) if other_way == "grouped" else grouped_to_split(state)
    attention = config.model.attention.model_copy(update={"heads": other_way})
    losses = [
        _test_loss(config, _loaded(model, shape, weights))
        for model, weights in (
            (config.model, state),
            (config.model.model_copy(update={"attention": attention}), other_state),
        )
    ]
    return {"difference": abs(losses[0] - losses[1])}


def _loaded(config: NetConfig, shape: ModelShape, state: Mapping[str, torch.Tensor]) -> Model:
    model = build_model(config, shape)
    model.load_state_dict(dict(state))
    return model.double().eval()


def _test_loss(config: Config, model: Model) -> float:
    data = load_data(config.data)
    rows = np.arange(min(100, len(data.splits["test"])))
    return evaluate(
        model, data.splits["test"], data, device=torch.device("cpu"), precision="fp32",
        batch_tokens=config.trainer.batch_tokens, rows=rows,
    ).loss  # fmt: skip


_MEASURES: dict[Measure, Callable[[Path, Config], dict[str, float]]] = {
    "fit": _fit,
    "builds": _builds,
    "heads": heads,
    "field": field,
    "compute": compute,
}
