"""What TensorBoard gets at the end of a run: curves, the projector, the best and worst outputs; and a profile."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from study_helpers import composer
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.projector.projector_config_pb2 import ProjectorConfig
from tensorboard.util.tensor_util import make_ndarray

import minitx
from minitx.config import Config
from minitx.data.splits import Ragged, Split, Texts, offsets_of
from minitx.metrics.evaluate import Evaluation
from minitx.metrics.intervals import Interval
from minitx.metrics.ranking import ranked_outputs
from minitx.training import run as session
from minitx.training.tensorboard import Board


def read(board: Path) -> EventAccumulator:
    events = EventAccumulator(str(board), {"images": 0, "scalars": 0, "tensors": 0})
    events.Reload()
    return events


def table_of(events: EventAccumulator, tag: str) -> list[list[str]]:
    text = events.Tensors(f"{tag}/text_summary")[0].tensor_proto.string_val[0].decode()
    return [[cell.strip() for cell in line.split(" | ")] for line in text.splitlines()[2:]]


def points(board: Path, tag: str) -> tuple[np.ndarray, list[list[str]]]:
    """The vectors of the projector, and their labels with the header."""
    folder = board / "00000" / tag
    with (folder / "metadata.tsv").open(encoding="utf-8", newline="") as file:
        labels = list(csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE))
    return np.loadtxt(folder / "tensors.tsv", delimiter="\t", ndmin=2), labels


def test_a_precision_recall_curve_is_that_of_its_class(tmp_path: Path) -> None:
    p, wanted = np.array([0.9, 0.8, 0.3, 0.6, 0.1]), np.array([True, False, True, True, False])
    board = Board(tmp_path)
    board.precision_recall("whole_test/b", wanted, p, 3)
    board.close()
    curve = make_ndarray(read(tmp_path).Tensors("whole_test/b")[0].tensor_proto)
    true_positive, false_positive, *_, precision, recall = curve
    at = round(0.5 * (curve.shape[1] - 1))  # of the thresholds, which are even from 0 to 1
    assert (true_positive[at], false_positive[at]) == (2, 1)
    assert (precision[at], recall[at]) == (pytest.approx(2 / 3), pytest.approx(2 / 3))


def test_a_classifier_has_curves_tables_and_points(tiny_classes: dict[str, Any], tmp_path: Path) -> None:
    config = composer(tiny_classes)(["trainer.projector=11", "trainer.max_steps=6"])
    session.run(config, tmp_path / "run", quiet=True)
    board = tmp_path / "run" / "tensorboard"
    events = read(board)
    assert {f"whole_test/{name}" for name in ("red", "green", "blue")} <= set(events.Tags()["tensors"])
    hardest, surest = (table_of(events, f"whole_test/{name}") for name in ("hardest", "surest"))
    assert float(hardest[0][2].split()[0]) < float(hardest[-1][2].split()[0])
    assert float(surest[0][2].split()[0]) > float(surest[-1][2].split()[0])
    predictor = minitx.load(str(tmp_path / "run"))
    [model] = predictor.nets().models
    vectors, labels = points(board, "tokens")
    assert vectors.shape == (11, 16) and labels[:2] == [["token", "id"], ["[PAD]", "0"]]
    np.testing.assert_allclose(vectors, model.src_tokens.weight[:11].detach(), atol=6e-5)
    vectors, labels = points(board, "texts")
    assert vectors.shape == (11, 16) and labels[0] == ["label", "predicted", "text"]
    for (label, predicted, text), vector in zip(labels[1:], vectors, strict=True):
        assert label in text.split() and predictor.predict([text]) == [predicted]
        features = model.features(predictor.processor.encode([text]).batch(np.array([0])))
        np.testing.assert_allclose(vector, features[0].detach(), atol=1e-3)
    told = ProjectorConfig()
    from google.protobuf import text_format

    text_format.Parse((board / "projector_config.pbtxt").read_text(), told)
    assert [one.tensor_name.partition(":")[0] for one in told.embeddings] == ["tokens", "texts"]


def test_a_translator_has_both_vocabularies_and_its_best_and_worst_outputs(
    tiny: Callable[..., Config], tmp_path: Path
) -> None:
    session.run(tiny(trainer={"max_steps": 2, "projector": 7}), tmp_path / "run", quiet=True)
    board = tmp_path / "run" / "tensorboard"
    assert points(board, "tokens")[0].shape == (7, 16) and points(board, "target_tokens")[0].shape == (7, 16)
    events = read(board)
    worst, best = (table_of(events, f"whole_test/{name}") for name in ("worst", "best"))
    shares = [[float(row[-1].split()[0]) for row in table] for table in (worst, best)]
    assert shares[0] == sorted(shares[0], reverse=True) and shares[1] == sorted(shares[1])
    assert worst[0] != best[0]


def test_none_are_written_where_none_are_wanted(tiny: Callable[..., Config], tmp_path: Path) -> None:
    session.run(tiny(trainer={"max_steps": 2, "projector": 0}), tmp_path / "run", quiet=True)
    assert not list((tmp_path / "run" / "tensorboard").rglob("*.tsv"))


def test_labels_of_points_stay_on_their_line(tmp_path: Path) -> None:
    board = Board(tmp_path)
    for n in (5, 3):
        board.embedding("x", np.ones((n, 2)), [["a\tb\nc\u2028d", "語"]] * n, ["one", "two"])
    board.close()
    vectors, labels = points(tmp_path, "x")
    assert len(vectors) == 3, "the later call's"
    assert labels == [["one", "two"]] + [["a b c d", "語"]] * 3


def split_of(references: list[tuple[str, ...]]) -> Split:
    nothing = Ragged.of([[1]] * len(references), np.uint16)
    return Split(
        src=nothing,
        sentences=nothing,
        texts=Texts.of(["x"] * len(references)),
        reference_texts=Texts.of([text for group in references for text in group]),
        reference_groups=offsets_of(np.array([len(group) for group in references])),
    )


def test_outputs_are_ranked_by_edits_to_the_nearest_reference() -> None:
    split = split_of([("A B C D", "X"), ("A B C", "A Z"), ("K",), ("K L M",), ("Q R",)])
    outputs = ["A B C", "A Y", "K", "K L M", ""]
    metrics = {"per": Interval(0.1, 0.1, 0.1)}
    found = Evaluation(loss=1.0, metrics=metrics, main="per", rows=np.arange(5), predictions=outputs)
    ranked = ranked_outputs(found, split, by_symbol=True)
    assert [(o.row, o.edits) for o in ranked] == [(4, 1.0), (1, 0.5), (0, 0.25), (2, 0.0), (3, 0.0)]
    by_character = {o.row: o.edits for o in ranked_outputs(found, split, by_symbol=False)}
    assert by_character[0] == pytest.approx(2 / 7) and by_character[1] == pytest.approx(1 / 3)


@pytest.mark.parametrize("steps", [12, 6])
def test_a_profile_is_of_a_few_steps_and_changes_nothing(
    steps: int, tiny: Callable[..., Config], tmp_path: Path
) -> None:
    """A run that ends before the steps that would be recorded has none."""
    for name, profile in (("with", True), ("without", False)):
        config = tiny(trainer={"max_steps": steps, "profile": profile, "eval_every": 6})
        session.run(config, tmp_path / name, quiet=True)
    weights = [
        (tmp_path / name / "checkpoints" / "last" / "model.safetensors").read_bytes() for name in ("with", "without")
    ]
    assert weights[0] == weights[1]
    board = tmp_path / "with" / "tensorboard"
    assert not list((tmp_path / "without").rglob("*.trace.json"))
    if steps == 6:
        assert not list(board.glob("*.trace.json"))
        return
    trace = json.loads((board / "steps.pt.trace.json").read_text())
    recorded = {event["name"] for event in trace["traceEvents"] if event["name"].startswith("ProfilerStep")}
    assert len(recorded) == 3
    rows = table_of(read(board), "view_profile")
    assert any("aten::" in row[0] for row in rows) and 5 < len(rows) <= 25
    assert not torch.autograd.profiler._is_profiler_enabled
