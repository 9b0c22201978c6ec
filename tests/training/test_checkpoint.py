"""A checkpoint is complete or absent, and says when it was damaged."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch

from minitx.training import checkpoint as module
from minitx.training.checkpoint import Checkpoint, CheckpointError, load_checkpoint, save_checkpoint


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
