"""Over-fitting is read off where training losses are equal; heads rebuilt the other way change nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from study_helpers import composer

from minitx.config import Config, ConfigError
from minitx.studies.measures import FIT_LEVELS, fit, gap_at, updates, updates_to
from minitx.sweeps.cells import MEASURES, Measure, add_measures, read_measures
from minitx.training.run import run
from minitx.training.trainer import TRAIN_EVALUATED


def test_the_gap_is_read_between_two_points_in_proportion() -> None:
    curve = [(2.0, 2.1), (1.0, 1.5), (0.4, 1.4), (0.6, 1.6), (0.2, 1.9)]
    assert gap_at(curve, 1.5) == pytest.approx(np.interp(1.5, [1.0, 2.0], [1.5, 2.1]) - 1.5)
    assert gap_at(curve, 0.5) == pytest.approx(np.interp(0.5, [0.4, 1.0], [1.4, 1.5]) - 0.5)  # the first time
    assert gap_at(curve, 1.0) == pytest.approx(0.5)
    assert gap_at(curve, 0.1) is None and gap_at(curve, 2.0) is None and gap_at([], 1.0) is None


def test_updates_are_read_between_two_evaluations_the_first_time() -> None:
    curve = [(20, 0.5), (40, 0.86), (60, 0.96), (80, 0.7), (100, 1.0)]
    steps = np.interp(0.9, [0.86, 0.96], [40, 60])
    expected = {"log2_last": np.log2(100), "reached_0.9": 1.0, "log2_to_0.9": np.log2(steps)}
    assert updates_to(curve) == pytest.approx(expected)
    assert updates_to([(32, 0.95)]) == {"log2_last": 5.0, "reached_0.9": 1.0, "log2_to_0.9": 5.0}
    assert updates_to(curve[:2]) == {"log2_last": np.log2(40), "reached_0.9": 0.0}, "never reached"


def test_updates_are_read_from_the_validation_lines(tmp_path: Path) -> None:
    """By hand: from 0.7 at step 17 to 0.95 at step 37, four fifths of the way are 16 steps: 33. Training counts not."""
    lines = [
        {"step": 17, "split": "train", "loss": 0.1, "accuracy": 0.99},
        {"step": 17, "split": "validation", "loss": 0.5, "accuracy": 0.7},
        {"step": 37, "split": "validation", "loss": 0.2, "accuracy": 0.95},
        {"step": 41, "split": "train", "loss": 0.1},
    ]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    config = Config.model_validate({"data": {"task": "classification"}})
    found = updates(tmp_path, config)
    assert found == pytest.approx({"log2_to_0.9": np.log2(33), "reached_0.9": 1.0, "log2_last": np.log2(37)})
    with pytest.raises(ConfigError, match=r"data.task \(translation\) must be classification"):
        updates(tmp_path, Config())


def test_the_mean_gap_is_over_training_losses_from_1_to_03(tmp_path: Path) -> None:
    """Validation loss 2 + (1 - training loss) / 2, so that the gap is linear: its mean is that of its middle."""
    lines = []
    for step, loss in enumerate([1.4, 1.1, 0.6, 0.2]):
        lines += [{"step": step, "split": TRAIN_EVALUATED, "loss": loss}]
        lines += [{"step": step, "split": "validation", "loss": 2 + (1 - loss) / 2}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    config = Config.model_validate({"trainer": {"eval_train_rows": 10}})
    assert fit(tmp_path, config)["mean_gap"] == pytest.approx(2.5 - 1.5 * 0.65)
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines[2:6])) + "\n")
    assert "mean_gap" not in fit(tmp_path, config), "it never came below 0.3"


def test_the_mean_gap_is_the_area_under_a_bent_curve(tmp_path: Path) -> None:
    """By hand, where the bend is no level: trapezoids from 1 to 0.53 and from 0.53 to 0.3, over a width of 0.7."""
    lines = []
    for step, (loss, gap) in enumerate([(1.3, 0.2), (1.0, 0.5), (0.53, 0.7), (0.3, 1.7), (0.1, 9.0)]):
        lines += [{"step": step, "split": TRAIN_EVALUATED, "loss": loss}]
        lines += [{"step": step, "split": "validation", "loss": loss + gap}]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")
    area = 0.47 * (0.5 + 0.7) / 2 + 0.23 * (0.7 + 1.7) / 2
    found = fit(tmp_path, Config.model_validate({"trainer": {"eval_train_rows": 10}}))
    assert found["mean_gap"] == pytest.approx(area / 0.7, rel=1e-3)


def test_training_rows_are_evaluated_as_validation_is(tiny_classes: dict[str, Any], tmp_path: Path) -> None:
    """Where all rows are evaluated, the loss is what `evaluate` says of the split; nothing else of the run changes."""
    compose = composer(tiny_classes)
    plain = run(compose([]), tmp_path / "plain", quiet=True)
    evaluated = run(compose(["trainer.eval_train_rows=1000"]), tmp_path / "evaluated", quiet=True)
    assert evaluated["metrics"] == plain["metrics"] and evaluated["loss"] == plain["loss"]
    lines = [json.loads(line) for line in (tmp_path / "evaluated" / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines if line["split"] == TRAIN_EVALUATED] == [6, 12]

    from minitx.predictor import Predictor

    expected = Predictor.from_run(tmp_path / "evaluated", checkpoint="best").evaluate(split="train").loss
    assert [line["loss"] for line in lines if line["split"] == TRAIN_EVALUATED][-1] == pytest.approx(expected, rel=1e-5)

    add_measures(tmp_path / "evaluated", [MEASURES["fit"]])
    found = read_measures(tmp_path / "evaluated")
    assert found["fit.train_loss"] == pytest.approx(expected, rel=1e-5)
    assert {key.partition("_at_")[2] for key in found if "_at_" in key} <= {f"{level:g}" for level in FIT_LEVELS}


@pytest.mark.parametrize("heads", ["split", "grouped"])
def test_heads_rebuilt_the_other_way_are_the_same_function(
    tiny_classes: dict[str, Any], tmp_path: Path, heads: str
) -> None:
    run(composer(tiny_classes)([f"model.attention.heads={heads}", "model.n_heads=2"]), tmp_path, quiet=True)
    add_measures(tmp_path, [MEASURES["builds"]])
    assert read_measures(tmp_path)["builds.difference"] < 1e-12


def test_measures_are_computed_once_by_each_version(tiny_classes: dict[str, Any], tmp_path: Path) -> None:
    calls: list[Path] = []

    def counted(path: Path, config: Config) -> dict[str, float]:
        calls.append(path)
        return {"n": 1.0}

    run(composer(tiny_classes)(["trainer.max_steps=2"]), tmp_path, quiet=True)
    for version in ("1", "1", "2", "2"):
        add_measures(tmp_path, [Measure("builds", version, counted)])
    assert len(calls) == 2 and read_measures(tmp_path) == {"builds.n": 1.0}
