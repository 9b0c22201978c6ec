"""Plain lines without a terminal, one live line with one, and everything in the log."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from minitx.config import Config, DataConfig
from minitx.config.load import load
from minitx.data import load_data
from minitx.training import console
from minitx.training import run as session
from minitx.training.console import Reporter, Status
from minitx.training.results import show_next_steps
from minitx.training.run_folder import RunFolder
from minitx.training.tensorboard import Board

STATUS = Status(
    epoch=1.5, step=1234, total_steps=5000, loss=0.5, lr=1e-3, tokens_per_second=9876.5, seconds_left=125.9
)  # fmt: skip


def test_the_progress_line_says_it_all() -> None:
    assert str(STATUS) == ("epoch 1.50  step 1,234/5,000  loss 0.5000  lr 1.00e-03  9,876 tokens/s  2:05 left")


def test_a_pipe_gets_plain_lines_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter([100.0, 101.0, 109.0, 111.0])
    monkeypatch.setattr(console.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    reporter = Reporter(tmp_path / "train.log", stream=stream)
    for _ in range(4):
        reporter.progress(STATUS)
    reporter.close()
    assert stream.getvalue().splitlines() == [str(STATUS)] * 2
    assert (tmp_path / "train.log").read_text().splitlines() == [str(STATUS)] * 2


def test_text_from_data_is_no_markup_and_tables_reach_the_log(tmp_path: Path) -> None:
    stream = io.StringIO()
    reporter = Reporter(tmp_path / "train.log", stream=stream)
    reporter.info("[red]not red[/red] [PAD]")
    reporter.table("a table", ["name", "value"], [["per", "1.0 %"]])
    reporter.close()
    for text in (stream.getvalue(), (tmp_path / "train.log").read_text()):
        assert "[red]not red[/red] [PAD]" in text and "per" in text and "1.0 %" in text and "\x1b" not in text


def test_quiet_speaks_to_the_log_alone(tmp_path: Path) -> None:
    stream = io.StringIO()
    reporter = Reporter(tmp_path / "train.log", stream=stream, quiet=True)
    reporter.info("a line")
    reporter.close()
    assert stream.getvalue() == "" and (tmp_path / "train.log").read_text() == "a line\n"


def test_tensorboard_holds_scalars_samples_maps_and_hparams_in_one_run(
    tiny: Callable[..., Config], tmp_path: Path
) -> None:
    session.run(tiny(trainer={"attention_maps": 1}), tmp_path / "run", quiet=True)
    board = tmp_path / "run" / "tensorboard"
    assert {p.parent for p in board.rglob("events.*")} == {board}  # no stray second run
    events = EventAccumulator(str(board), {"images": 0, "scalars": 0, "tensors": 0})
    events.Reload()
    tags = events.Tags()
    assert {
        "train/loss", "train/lr", "train/grad_norm", "train/tokens_per_second", "validation/loss", "validation/per",
        "whole_test/per",
    } <= set(tags["scalars"])  # fmt: skip
    assert {f"view_{kind}/example_1" for kind in ("cross", "encoder", "decoder")} <= set(tags["images"])
    assert "samples/text_summary" in tags["tensors"]
    shown = [tag for tag in sorted({*tags["scalars"], *tags["images"]}) if tag.partition("/")[0] != "samples"]
    assert shown[0].startswith("train/"), "numbers come first"
    layout = events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0]
    assert b"train/loss" in layout and b"validation/loss" in layout and b"learning rate" in layout
    assert [s.step for s in events.Scalars("train/loss")] == [4, 8, 12]
    assert "hparams" in events.summary_metadata["_hparams_/session_start_info"].plugin_data.plugin_name


@pytest.mark.parametrize(
    ("task", "model", "kinds"),
    [
        ("translation", {"kind": "lstm"}, ["cross"]),
        ("classification", {"kind": "lstm", "pooling": "additive"}, ["pooling"]),
        ("classification", {"kind": "cnn", "pooling": "max"}, []),
    ],
    ids=["lstm-translator", "lstm-classifier", "nothing-attends"],
)
def test_tensorboard_shows_what_attends(
    tiny: Callable[..., Config], tmp_path: Path, task: str, model: dict[str, Any], kinds: list[str]
) -> None:
    config = tiny(trainer={"attention_maps": 1, "max_steps": 2})
    raw: dict[str, Any] = {**config.model_dump(), "model": {"d_model": 8, **model}}
    if task == "classification":
        common = {"cache_dir": config.data.cache_dir, "tokenizer": {"kind": "word"}}
        raw["data"] = {"source": "digits", "task": task, "name": "digits", **common}
    session.run(load(raw), tmp_path / "run", quiet=True)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"), {"images": 0})
    events.Reload()
    images = [tag for tag in events.Tags()["images"] if tag.startswith("view_")]
    assert images == [f"view_{kind}/example_1" for kind in kinds]


def test_a_resumed_run_has_each_step_once(tiny: Callable[..., Config], tmp_path: Path) -> None:
    for steps in (6, 12):
        session.run(tiny(trainer={"max_steps": steps, "resume": "auto"}), tmp_path / "run", quiet=True)
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    steps_seen = [s.step for s in events.Scalars("train/loss")]
    assert steps_seen == sorted(set(steps_seen)) and steps_seen[-1] == 12


def test_samples_escape_markdown(tmp_path: Path) -> None:
    board = Board(tmp_path)
    board.table("samples", [("a|b <script> *x*", "y", "z")], ("text", "wanted", "predicted"), 1)
    board.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    text = events.Tensors("samples/text_summary")[0].tensor_proto.string_val[0].decode()
    assert "a\\|b \\<script\\> \\*x\\*" in text


def test_what_to_type_next_is_a_line_each_whatever_the_texts_hold(tmp_path: Path) -> None:
    file = tmp_path / "mine.jsonl"
    file.write_text("".join(f'{{"text": "Number {i}\\nand\\t\\u2028 more", "label": "{i % 2}"}}\n' for i in range(60)))
    config = DataConfig(source="files", task="classification", path=str(file), cache_dir=str(tmp_path / "cache"))
    stream = io.StringIO()
    show_next_steps(Reporter(stream=stream), RunFolder(tmp_path / "run"), load_data(config), attends=True)
    lines = stream.getvalue().splitlines()
    assert len(lines) == 5 and lines[3].startswith(f"  minitx predict {tmp_path / 'run'} 'Number ")
    assert lines[3].endswith(" and more'") and lines[4].endswith(" and more'")
