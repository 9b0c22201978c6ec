"""A checkpoint is complete or absent, and says when it was damaged."""

from __future__ import annotations

import errno
import json
import shutil
from pathlib import Path

import pytest
import torch

from minitx.training import checkpoint_files as module
from minitx.training.checkpoint_files import (
    Checkpoint,
    CheckpointError,
    checkpoints_of,
    load_checkpoint,
    load_newest,
    save_checkpoint,
)


def made(value: float) -> Checkpoint:
    return Checkpoint(
        tensors={"model.safetensors": {"w": torch.full((2, 3), value), "n": torch.tensor(7)}},
        texts={"tokenizer.json": '{"ä": 1}'},
        state={"step": int(value), "none": None},
    )


def test_round_trip_through_the_link(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "last", 5, made(5))
    loaded = load_checkpoint(tmp_path / "last")
    assert torch.equal(loaded.tensors["model.safetensors"]["w"], torch.full((2, 3), 5.0))
    assert loaded.texts == {"tokenizer.json": '{"ä": 1}'} and loaded.state == {"step": 5, "none": None}


def test_only_the_newest_are_kept_and_the_link_names_the_newest(tmp_path: Path) -> None:
    for step in (1, 2, 3, 4):
        save_checkpoint(tmp_path, "last", step, made(step), keep=2)
        save_checkpoint(tmp_path, "best", step, made(-step))
    assert sorted(p.name for p in tmp_path.iterdir() if not p.is_symlink()) == [
        "best-00000004", "last-00000003", "last-00000004",
    ]  # fmt: skip
    assert load_checkpoint(tmp_path / "last").state["step"] == 4


def test_the_same_step_again_replaces_itself(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, "last", 5, made(5))
    save_checkpoint(tmp_path, "last", 5, made(6))
    assert load_checkpoint(tmp_path / "last").state["step"] == 6
    assert len([p for p in tmp_path.iterdir() if not p.is_symlink()]) == 1


@pytest.mark.parametrize("function", ["save_file", "_sync", "_point"])
def test_a_full_disk_leaves_the_one_before_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str
) -> None:
    save_checkpoint(tmp_path, "last", 1, made(1))

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(module, function, full)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint(tmp_path, "last", 2, made(2))
    monkeypatch.undo()
    assert load_checkpoint(tmp_path / "last").state["step"] == 1
    save_checkpoint(tmp_path, "last", 3, made(3))
    assert load_checkpoint(tmp_path / "last").state["step"] == 3
    assert not list(tmp_path.glob(".building*"))


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "state.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone"])
def test_damage_is_one_line_that_names_the_checkpoint(tmp_path: Path, name: str, damage: str) -> None:
    save_checkpoint(tmp_path, "last", 1, made(1))
    file = tmp_path / "last" / name
    content = file.read_bytes()
    if damage == "gone":
        file.unlink()
    elif damage == "cut":
        file.write_bytes(content[: len(content) // 2])
    else:
        file.write_bytes(bytes([content[0] ^ 255]) + content[1:])
    with pytest.raises(CheckpointError, match=r"^checkpoint .*last is corrupt: [^\n]+; start the run anew[^\n]+$"):
        load_checkpoint(tmp_path / "last")


def test_a_folder_in_the_place_of_the_link_is_replaced(tmp_path: Path) -> None:
    """As a copy without links leaves it."""
    save_checkpoint(tmp_path / "run", "last", 1, made(1))
    shutil.copytree(tmp_path / "run", tmp_path / "copy")
    copy = tmp_path / "copy"
    assert (copy / "last").is_dir() and not (copy / "last").is_symlink()
    assert load_newest(copy, "last")[1] is None
    save_checkpoint(copy, "last", 2, made(2))
    assert (copy / "last").is_symlink() and load_checkpoint(copy / "last").state["step"] == 2


def test_the_newest_whole_one_is_taken_with_a_warning(tmp_path: Path) -> None:
    for step in (3, 20, 100):
        save_checkpoint(tmp_path, "last", step, made(step), keep=3)
    (tmp_path / "last-00000100" / "tokenizer.json").write_text("{}")
    checkpoint, wrong = load_newest(tmp_path, "last")
    assert checkpoint.state["step"] == 20 and wrong is not None
    assert "tokenizer.json has changed since it was written; taken instead: last-00000020" in wrong
    (tmp_path / "last").unlink()
    shutil.rmtree(tmp_path / "last-00000100")
    checkpoint, wrong = load_newest(tmp_path, "last")
    assert checkpoint.state["step"] == 20 and wrong == f"{tmp_path / 'last'} is gone; taken instead: last-00000020"
    assert [path.name for path in checkpoints_of(tmp_path, "last")] == ["last-00000020", "last-00000003"]


def test_without_a_whole_one_the_first_damage_is_told(tmp_path: Path) -> None:
    for step in (1, 2):
        save_checkpoint(tmp_path, "last", step, made(step), keep=2)
        (tmp_path / f"last-0000000{step}" / "tokenizer.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"last is corrupt: tokenizer\.json has changed"):
        load_newest(tmp_path, "last")
    with pytest.raises(CheckpointError, match="best is corrupt"):
        load_newest(tmp_path, "best")


def test_a_digit_that_changed_in_the_state_is_noticed(tmp_path: Path) -> None:
    """The step would be another, and nothing else would look wrong."""
    save_checkpoint(tmp_path, "last", 5, made(5))
    file = tmp_path / "last" / "state.json"
    text = file.read_text()
    file.write_text(text.replace('"step": 5', '"step": 4'))
    with pytest.raises(CheckpointError, match=r"state\.json has changed since it was written"):
        load_checkpoint(tmp_path / "last")
    file.write_text(json.dumps({key: value for key, value in json.loads(text).items() if key != "digest"}))
    with pytest.raises(CheckpointError, match=r"state\.json has changed since it was written"):
        load_checkpoint(tmp_path / "last")
