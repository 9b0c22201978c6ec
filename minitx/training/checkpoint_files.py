"""Checkpoints that are complete or absent, hold no code, and say when they were damaged.

A checkpoint is a folder written beside, synced, and swapped in by renaming a link over the old link:

    checkpoints/
      last -> last-00000400/        model.safetensors  training.safetensors  tokenizer.json  state.json
      best -> best-00000300/        model.safetensors  tokenizer.json  state.json

`state.json` is written last of its folder and carries the SHA-256 of the others, and of itself.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from minitx.errors import RunError


class CheckpointError(RunError):
    """A checkpoint that cannot be used; one line that says which and what to do."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """What one checkpoint holds: named groups of tensors (one file each), named texts, and a JSON state."""

    tensors: Mapping[str, Mapping[str, Tensor]]
    texts: Mapping[str, str]
    state: Mapping[str, Any]


def save_checkpoint(root: Path, link: str, step: int, checkpoint: Checkpoint, keep: int = 1) -> Path:
    """Write `<root>/<link>-<step>/` and point `<root>/<link>` at it; drop all but the newest `keep` of that link."""
    root.mkdir(parents=True, exist_ok=True)
    final = root / f"{link}-{step:08d}"
    building = root / f".building-{link}-{os.getpid()}"
    shutil.rmtree(building, ignore_errors=True)
    building.mkdir()
    try:
        write_checkpoint(building, checkpoint)
        if final.exists():  # the same step again (a resumed run): the link moves off it for the moment of the swap
            final = root / f"{link}-{step:08d}-{os.getpid()}"
            shutil.rmtree(final, ignore_errors=True)
        building.rename(final)
        _point(root / link, final.name)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    _drop_old(root, link, keep)
    return final


def write_checkpoint(folder: Path, checkpoint: Checkpoint) -> None:
    """The files of a checkpoint into an empty folder, `state.json` last."""
    for name, group in checkpoint.tensors.items():
        try:
            save_file({key: tensor.detach().cpu().contiguous() for key, tensor in group.items()}, folder / name)
        except SafetensorError as error:  # how safetensors tells of a full disk
            raise OSError(errno.EIO, str(error)) from error
    for name, text in checkpoint.texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    sums = {p.name: _sha256(p) for p in sorted(folder.iterdir())}
    state = {**checkpoint.state, "sha256": sums}
    state[DIGEST] = digest_of(state)
    (folder / "state.json").write_text(json.dumps(state, indent=1), encoding="utf-8")
    for path in [*folder.iterdir(), folder]:
        _sync(path)


def _point(link: Path, target: str) -> None:
    """Let `link` name `target`, atomically: a new link is renamed over the old one.

    Where a copy without links has put a folder in its place, that folder goes first.
    """
    beside = link.with_name(f".{link.name}-{os.getpid()}")
    beside.unlink(missing_ok=True)
    beside.symlink_to(target)
    if link.is_dir() and not link.is_symlink():
        shutil.rmtree(link)
    os.replace(beside, link)
    _sync(link.parent)


def _drop_old(root: Path, link: str, keep: int) -> None:
    """Remove what the link has left behind, and half-written folders of killed processes."""
    current = (root / link).resolve()
    finished = [p for p in root.glob(f"{link}-*") if p.resolve() != current]
    finished.sort(key=lambda p: p.stat().st_mtime_ns)
    for old in finished[: max(0, len(finished) - (keep - 1))]:
        shutil.rmtree(old, ignore_errors=True)
    for stray in root.glob(f".building-{link}-*"):
        shutil.rmtree(stray, ignore_errors=True)


def checkpoints_of(root: Path, link: str) -> list[Path]:
    """Complete checkpoints: what `link` names first, then the others that were kept, the newest first."""
    kept = sorted(root.glob(f"{link}-*"), key=lambda path: path.name, reverse=True)
    found = {path.resolve(): path for path in reversed((root / link, *kept)) if (path / "state.json").is_file()}
    return [*reversed(found.values())]


def load_newest(root: Path, link: str) -> tuple[Checkpoint, str | None]:
    """What `link` names, or where that is gone or damaged the newest whole one; and a warning that says so.

    Raises:
        CheckpointError: no checkpoint is whole.
    """
    wrong: CheckpointError | None = None
    for place in checkpoints_of(root, link) or [root / link]:
        try:
            checkpoint = load_checkpoint(place)
        except CheckpointError as error:
            wrong = wrong or error
            continue
        if wrong is not None:
            return checkpoint, f"{str(wrong).partition('; ')[0]}; taken instead: {place.name}"
        return checkpoint, None if place == root / link else f"{root / link} is gone; taken instead: {place.name}"
    assert wrong is not None, "a place that does not exist is an error too"
    raise wrong


def load_checkpoint(folder: Path) -> Checkpoint:
    """Read and verify a checkpoint folder (or link).

    Raises:
        CheckpointError: a file is missing, was cut short, or does not match its recorded SHA-256.
    """
    remedy = "start the run anew; trainer.keep=2 would keep an older one"
    try:
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        own = state.pop(DIGEST, None)
        damaged = [] if own == digest_of(state) else ["state.json"]
        sums: dict[str, str] = state.pop("sha256")
        damaged += [name for name, expected in sums.items() if _sha256(folder / name) != expected]
        if damaged:
            raise CheckpointError(
                f"checkpoint {folder} is corrupt: {damaged[0]} has changed since it was written; {remedy}"
            )
        tensors = {n: load_file(folder / n) for n in sums if n.endswith(".safetensors")}
        texts = {n: (folder / n).read_text(encoding="utf-8") for n in sums if not n.endswith(".safetensors")}
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError, SafetensorError) as error:
        raise CheckpointError(f"checkpoint {folder} is corrupt: {error}; {remedy}") from error
    return Checkpoint(tensors=tensors, texts=texts, state=state)


DIGEST = "digest"


def digest_of(value: Mapping[str, Any]) -> str:
    """SHA-256 of a value as JSON, the same before it is written and after it was read."""
    plain = json.loads(json.dumps(value))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Force a file or a folder's entries to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
