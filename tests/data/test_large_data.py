"""Data larger than memory: texts in a file, shards, kills; the same entry, byte for byte, as of small data at once."""

import gc
import json
import os
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minitx.config import DataConfig
from minitx.data import TaskData, load_data
from minitx.data.pipeline import cache, load
from minitx.data.progress import Progress
from minitx.data.sources import columns
from minitx.data.sources.columns import Column, Picked, Singles
from minitx.errors import ConfigError

VALUES = ["a", "", "zwei Wörter", None, 3, "\ud800", "日本", "a" * 101]


@pytest.mark.parametrize("in_memory", [1, 7, 10_000])
def test_a_column_holds_any_values(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, in_memory: int) -> None:
    """Text in a file without a name or in memory, and what is no text as it is."""
    monkeypatch.setattr(columns, "IN_MEMORY", in_memory)
    column = Column(tmp_path / "cache")
    for value in VALUES:
        column.append(value)
    assert len(column) == len(VALUES)
    assert list(column) == VALUES and column[-2] == "日本" and column[1:7:2] == VALUES[1:7:2]
    assert list(Picked(column, np.array([6, 0, 6]))) == ["日本", "a", "日本"]
    assert list(Singles(column))[:2] == [("a",), ("",)]
    with pytest.raises(IndexError):
        column[len(VALUES)]
    assert (tmp_path / "cache").exists() == (in_memory < 10_000)
    assert not list(tmp_path.rglob("*.*")), "the file has no name"


def test_an_empty_column(tmp_path: Path) -> None:
    assert list(Column(tmp_path)) == []


def test_a_column_without_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(columns, "IN_MEMORY", 2)
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"^data\.cache_dir \(.*file\) must be a folder with room for a copy of"):
        Column(tmp_path / "file").append("abc")


def classification(folder: Path) -> dict[str, Any]:
    """131 rows, some of one text, some with several sentences, in two formats."""
    texts = [f"row {i % 97} is long. It has {'many ' * (i % 11)}words. Ünd {i % 5}." for i in range(131)]
    with (folder / "train.jsonl").open("w") as file:
        file.writelines(json.dumps({"text": text, "label": "xyz"[i % 3]}) + "\n" for i, text in enumerate(texts))
    (folder / "test.csv").write_text("text,label\n" + "".join(f"{text},y\n" for text in texts[::7]))
    return {"task": "classification", "path": str(folder / "train.jsonl"), "test_path": str(folder / "test.csv")}


def translation(folder: Path) -> dict[str, Any]:
    """137 rows in Parquet, of which some share a source and some a target; a row has an empty side."""
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow import parquet

    src = [f"source {i % 101} {'a ' * (i % 13)}" for i in range(137)]
    tgt = [f"ziel {i % 89} {'b ' * (i % 7)}" for i in range(137)]
    tgt[5] = " "
    parquet.write_table(pa.table({"src": src, "tgt": tgt}), folder / "train.parquet")
    both = {"keep_together": "both", "multi_reference": True}
    return {"task": "translation", "path": str(folder / "train.parquet"), **both}


def hub_folder(folder: Path) -> dict[str, Any]:
    (folder / "set").mkdir()
    (folder / "set" / "train.csv").write_text(
        "text,label\n" + "".join(f"word{i % 31} and {i % 17},{i % 4}\n" for i in range(149))
    )
    return {"source": "dataset", "task": "classification", "path": str(folder / "set"), "train_size": 0.7}


SETS = [classification, translation, hub_folder]
Made = Callable[[Path], dict[str, Any]]


def config_of(made: Made, folder: Path, name: str, **more: Any) -> DataConfig:
    tokenizer = {"kind": "bpe", "vocab_size": 300}
    base = {"name": "large", "source": "files", "cache_dir": str(folder / name), "tokenizer": tokenizer}
    return DataConfig.model_validate({**base, "max_length": 19, **made(folder), **more})


def entry_of(config: DataConfig) -> tuple[str, dict[str, str]]:
    """Name and checksums of the only entry, which nothing lies beside."""
    [entry] = Path(config.cache_dir).iterdir()
    return entry.name, json.loads((entry / cache.SUMS).read_text())


def make_everything_small(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that little data is like data larger than memory."""
    monkeypatch.setattr(columns, "IN_MEMORY", 61)
    monkeypatch.setattr(load, "CHUNK", 7)
    monkeypatch.setattr(load, "SHARD", 500)
    monkeypatch.setattr("minitx.data.splits.BLOCK", 5)
    monkeypatch.setattr("minitx.data.sources.files.BATCH", 11)
    monkeypatch.setattr("minitx.data.sources.hub.BATCH", 13)


@pytest.mark.parametrize("made", SETS, ids=lambda made: made.__name__)
def test_shards_give_the_same_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Made) -> None:
    at_once = config_of(made, tmp_path, "at-once")
    whole = load_data(at_once)
    make_everything_small(monkeypatch)
    in_shards = at_once.model_copy(update={"cache_dir": str(tmp_path / "shards")})
    parts = load_data(in_shards)
    assert entry_of(in_shards) == entry_of(at_once)
    assert len(entry_of(at_once)[1]) >= 3 * 6
    assert parts.notes == whole.notes
    assert rows_of(parts) == rows_of(whole)


def rows_of(data: TaskData) -> list[Any]:
    splits = data.splits.values()
    return [(part.text(i), part.references(i), part.src[i].tolist()) for part in splits for i in range(len(part))]


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("made", [classification, translation], ids=lambda made: made.__name__)
def test_a_killed_preparation_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, made: Made, kind: str) -> None:
    """With the tokeniser that was fitted (`unigram` would not be fitted the same), after the last shard."""
    make_everything_small(monkeypatch)
    config = config_of(made, tmp_path, "cache", tokenizer={"kind": kind, "vocab_size": 300})
    encode, rows = load.encode_examples, []

    def killed(examples: Any, *args: Any) -> Any:
        if len(rows) == 12:
            raise KeyboardInterrupt
        rows.append(len(examples))
        return encode(examples, *args)

    monkeypatch.setattr(load, "encode_examples", killed)
    with pytest.raises(KeyboardInterrupt):
        load_data(config)
    [left] = [path for path in Path(config.cache_dir).iterdir() if path.suffix == ".partial"]
    state = json.loads((left / cache.PROGRESS).read_text())["state"]
    done = sum(state["rows"].values())
    assert 0 < done <= sum(rows)
    again: list[int] = []
    monkeypatch.setattr(load, "encode_examples", lambda part, *args: again.append(len(part)) or encode(part, *args))
    monkeypatch.setattr(load, "_fit", lambda *_: pytest.fail("fitted twice"))
    resumed = load_data(config)
    assert sum(again) == sum(map(len, resumed.splits.values())) - done, "what was done is not done again"
    straight = load_data(config.model_copy(update={"cache_dir": str(tmp_path / "straight")}), vocabulary=resumed)
    assert rows_of(resumed) == rows_of(straight)
    assert entry_of(config)[1].keys() == {cache.META, *(f"{key}.npy" for key in resumed_arrays(config))}


def resumed_arrays(config: DataConfig) -> set[str]:
    entry = cache.read(next(Path(config.cache_dir).iterdir()))
    assert entry is not None
    return set(entry.arrays)


def test_memory_does_not_grow_with_the_texts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Python's and numpy's own at its peak, beside four times as much text: 16 MB, of which none is kept."""
    monkeypatch.setattr(columns, "IN_MEMORY", 2**18)
    monkeypatch.setattr(load, "CHUNK", 20)
    monkeypatch.setattr(load, "SHARD", 2**20)
    monkeypatch.setattr("minitx.data.splits.BLOCK", 2**14)
    peaks = []
    for copies in (1, 4):
        with (tmp_path / f"{copies}.csv").open("w") as file:
            file.write("text,label\n")
            file.writelines(f"{i} {'word and ' * 1100},{i % 2}\n" for i in range(400 * copies))
        config = DataConfig.model_validate(
            {
                "source": "files",
                "task": "classification",
                "path": str(tmp_path / f"{copies}.csv"),
                "cache_dir": str(tmp_path / "cache"),
                "tokenizer": {"kind": "word", "vocab_size": 300},
                "validation_size": 0.02,
                "test_size": 0.02,
            }
        )
        gc.collect()
        tracemalloc.start()
        load_data(config)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert os.path.getsize(tmp_path / "4.csv") > 15e6
    assert peaks[1] < peaks[0] + 1e6 < 6e6, peaks


def test_progress_is_told_every_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    now, lines = [100.0], list[str]()
    monkeypatch.setattr("minitx.data.progress.time.monotonic", lambda: now[0])
    known = Progress("train", "texts", lines.append, total=5000, done=1000)
    for _ in known.over(range(21)):
        now[0] += 1.0
        known.add(99)
    assert lines == ["train: 1,999 of 5,000 texts, 0:30 left", "train: 2,999 of 5,000 texts, 0:20 left"]
    lines.clear()
    unknown = Progress("train.csv", "records", lines.append)
    now[0] += 11
    unknown.add(7)
    assert lines == ["train.csv: 7 records"]
