"""Checksums of files: large ones are remembered by size and time."""

import hashlib
import os
import time
from pathlib import Path

import pytest

from minitx.data.sources import digests
from minitx.data.sources.digests import Digests


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that counts as large and was written an hour ago."""
    monkeypatch.setattr(digests, "LARGE", 11)
    path = tmp_path / "large.csv"
    write(path, b"first content")
    return path


def write(path: Path, content: bytes, age: float = 3600.0) -> None:
    path.write_bytes(content)
    then = int(time.time() - age)
    os.utime(path, (then, then))


def sha(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_a_large_file_is_hashed_once(large: Path, tmp_path: Path) -> None:
    quick = Digests(tmp_path / "cache")
    stat = large.stat()
    assert quick[large] == sha(b"first content")
    large.write_bytes(b"other content")
    os.utime(large, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert quick[large] == sha(b"first content"), "by size and time it is the same"
    assert Digests(tmp_path / "cache", full=True)[large] == sha(b"other content")


@pytest.mark.parametrize(
    ("content", "age"), [(b"other content", 1800.0), (b"another content", 3600.0)], ids=["time", "size"]
)
def test_a_change_of_time_or_size_is_seen(large: Path, tmp_path: Path, content: bytes, age: float) -> None:
    quick = Digests(tmp_path / "cache")
    assert quick[large] == sha(b"first content")
    write(large, content, age)
    assert quick[large] == sha(content)


def test_a_young_file_is_not_remembered(large: Path, tmp_path: Path) -> None:
    """It could change again within what its time can tell apart."""
    write(large, b"first content", age=0.0)
    assert Digests(tmp_path / "cache")[large] == sha(b"first content")
    assert not (tmp_path / "cache").exists()


def test_small_files_are_not_remembered(tmp_path: Path) -> None:
    small = tmp_path / "small"
    write(small, b"0123456789")
    assert Digests(tmp_path / "cache")[small] == sha(b"0123456789")
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("damaged", ["", "[]", '{"a": 3}', '{"LARGE": null}', "\ud7ff{"])
def test_what_is_remembered_may_be_damaged(large: Path, tmp_path: Path, damaged: str) -> None:
    quick = Digests(tmp_path / "cache")
    assert quick[large] == sha(b"first content")
    (tmp_path / "cache" / digests.MEMORY).write_text(damaged.replace("LARGE", str(large)), encoding="utf-8")
    assert quick[large] == sha(b"first content")


def test_files_that_are_gone_are_forgotten(large: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.csv"
    write(other, b"second content")
    quick = Digests(tmp_path / "cache")
    assert quick[other] == sha(b"second content")
    other.unlink()
    assert quick[large] == sha(b"first content")
    text = (tmp_path / "cache" / digests.MEMORY).read_text()
    assert "large.csv" in text and "other.csv" not in text
