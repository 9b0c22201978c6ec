"""The cache: round trip, any damage is rebuilt, kills lose one shard, races leave a complete entry or none."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock

from minitx.data.pipeline import cache
from minitx.errors import ConfigError

META = {"notes": ["ü"], "n": 3}
ARRAYS: cache.Arrays = {
    "train.src": np.arange(1009, dtype=np.uint16),
    "train.src_offsets": np.arange(7, dtype=np.int64),
    "empty": np.zeros(0, np.uint16),
}


def make(builder: cache.Builder) -> cache.Meta:
    builder.append(ARRAYS)
    return META


def same(entry: cache.Entry | None) -> bool:
    return (
        entry is not None
        and entry.meta == META
        and entry.arrays.keys() == ARRAYS.keys()
        and all(np.array_equal(entry.arrays[k], v) and entry.arrays[k].dtype == v.dtype for k, v in ARRAYS.items())
    )


def test_round_trip_makes_once(tmp_path: Path) -> None:
    made = []

    def counted(builder: cache.Builder) -> cache.Meta:
        made.append(1)
        return make(builder)

    first, second = (cache.fetch(tmp_path / "deep" / "entry", counted) for _ in range(2))
    assert same(first)
    assert same(second)
    assert made == [1]
    assert not first.arrays["train.src"].flags.writeable
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["entry"], "nothing partial is left, and no lock"


def test_arrays_are_numpys_files(tmp_path: Path) -> None:
    """Byte for byte what np.save writes, in however many parts they come."""

    def in_parts(builder: cache.Builder) -> cache.Meta:
        for part in np.array_split(ARRAYS["train.src"], 5):
            builder.append({"a": part})
            builder.commit({})
        return {}

    cache.fetch(tmp_path / "entry", in_parts)
    np.save(tmp_path / "whole.npy", ARRAYS["train.src"])
    assert (tmp_path / "entry" / "a.npy").read_bytes() == (tmp_path / "whole.npy").read_bytes()


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "removed": lambda path: path.unlink(),
    "emptied": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-5]),
    "one bit": flip,
    "other JSON": lambda path: path.write_text("[]"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("name", [cache.SUMS, cache.META, "train.src.npy", "empty.npy"])
def test_a_damaged_entry_is_rebuilt(tmp_path: Path, name: str, damage: str) -> None:
    folder = tmp_path / "entry"
    cache.fetch(folder, make)
    DAMAGES[damage](folder / name)
    assert cache.read(folder) is None
    assert same(cache.fetch(folder, make))
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]


def test_a_file_in_the_place_of_the_entry(tmp_path: Path) -> None:
    (tmp_path / "entry").write_text("what is this?")
    assert same(cache.fetch(tmp_path / "entry", make))
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]


def test_a_good_entry_is_never_replaced(tmp_path: Path) -> None:
    """The slower of two machines keeps what the faster one has put there, which others may be reading."""
    folder, found = tmp_path / "entry", []

    def overtaken(builder: cache.Builder) -> cache.Meta:
        (tmp_path / "faster").mkdir()
        cache.fetch(tmp_path / "faster" / "entry", make)
        (tmp_path / "faster" / "entry").rename(folder)
        found.append((folder / cache.META).stat().st_ino)
        return make(builder)

    assert same(cache.fetch(folder, overtaken))
    assert (folder / cache.META).stat().st_ino == found[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["entry", "faster"]


KILLED = """
import os, sys, numpy as np
from pathlib import Path
from minitx.data.pipeline import cache

def make(builder):
    began.append(builder.state.get("row", 0))
    for row in range(builder.state.get("row", 0), 5):
        builder.append({"a": np.arange(11 * row, 11 * row + 11), "b": np.full(row, 3, np.uint8)})
        builder.commit({"row": row + 1})
    return {"done": 5}

began, calls = [], []
sync = os.fsync
for kill in range(1, int(sys.argv[2]) + 1):
    if os.fork() == 0:
        def killing(handle):
            calls.append(sync(handle))
            if len(calls) == kill:
                os._exit(9)
        os.fsync = killing
        cache.fetch(Path(sys.argv[1]) / str(kill), make)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.wait()[1]) == 9
    entry = cache.fetch(Path(sys.argv[1]) / str(kill), make)
    assert np.array_equal(entry.arrays["a"], np.arange(55)) and entry.arrays["b"].tolist() == [3] * 10
    assert entry.meta == {"done": 5}
print(began)
"""


def test_a_kill_at_any_write_loses_one_shard(tmp_path: Path) -> None:
    """Three writes a shard (two arrays and what is done), then four that make an entry of them."""
    kills = 5 * 3 + 4
    command = [sys.executable, "-c", KILLED, str(tmp_path), str(kills)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    # a shard is done once its last file has been renamed, after the third write
    assert json.loads(done.stdout) == [min(5, (kill - 1) // 3) for kill in range(1, kills + 1)]
    assert sorted(int(path.name) for path in tmp_path.iterdir()) == list(range(1, kills + 1)), "nothing partial is left"


def test_what_a_kill_leaves_is_removed_after_a_day(tmp_path: Path) -> None:
    young, old = tmp_path / ".one.partial", tmp_path / ".other.partial"
    young.mkdir()
    old.mkdir()
    then = time.time() - cache.STALE_SECONDS - 60
    os.utime(old, (then, then))
    cache.fetch(tmp_path / "entry", make)
    assert young.exists(), "it could belong to a process that is still at work"
    assert not old.exists()


@pytest.mark.parametrize("damage", ["progress", "array"])
def test_shards_that_are_damaged_are_made_again(tmp_path: Path, damage: str) -> None:
    def stopped(builder: cache.Builder) -> cache.Meta:
        builder.append({"a": np.arange(7)})
        builder.commit({"row": 7})
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cache.fetch(tmp_path / "entry", stopped)
    [left] = [path for path in tmp_path.iterdir() if path.suffix == ".partial"]
    if damage == "progress":
        (left / cache.PROGRESS).write_text('{"state"')
    else:
        (left / "a.npy").write_bytes((left / "a.npy").read_bytes()[:-8])

    def again(builder: cache.Builder) -> cache.Meta:
        assert builder.state == {}
        return make(builder)

    assert same(cache.fetch(tmp_path / "entry", again))


def test_one_type_an_array(tmp_path: Path) -> None:
    def mixed(builder: cache.Builder) -> cache.Meta:
        builder.append({"a": np.zeros(3, np.uint16)})
        builder.append({"a": np.zeros(3, np.uint32)})
        return {}

    with pytest.raises(TypeError, match="a: uint32 after uint16"):
        cache.fetch(tmp_path / "entry", mixed)


RACING = """
import sys, numpy as np
from pathlib import Path
from minitx.data.pipeline import cache
def make(builder):
    builder.append({"a": np.arange(10_007)})
    return {}
for i in range(8):
    entry = cache.fetch(Path(sys.argv[1]) / str(i), make)
    assert np.array_equal(entry.arrays["a"], np.arange(10_007))
"""


def test_processes_that_race(tmp_path: Path) -> None:
    """Two at once, over absent and over damaged entries."""

    def long(builder: cache.Builder) -> cache.Meta:
        builder.append({"a": np.arange(10_007)})
        return {}

    for i in range(0, 8, 2):
        cache.fetch(tmp_path / str(i), long)
        flip(tmp_path / str(i) / "a.npy")
    racers = [subprocess.Popen([sys.executable, "-c", RACING, str(tmp_path)]) for _ in range(2)]
    assert [racer.wait() for racer in racers] == [0, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(map(str, range(8)))


def test_one_process_prepares_and_the_other_waits(tmp_path: Path) -> None:
    """While one is at it, another says so and finds the entry; it makes nothing."""
    lines: list[str] = []
    found: list[cache.Entry] = []

    def refuse(builder: cache.Builder) -> cache.Meta:
        raise AssertionError("made twice")

    def slow(builder: cache.Builder) -> cache.Meta:
        waiter.start()
        while not lines and waiter.is_alive():
            time.sleep(0.01)
        return make(builder)

    waiter = threading.Thread(target=lambda: found.append(cache.fetch(tmp_path / "entry", refuse, lines.append)))
    assert same(cache.fetch(tmp_path / "entry", slow))
    waiter.join()
    assert lines == ["waiting for another process, which prepares entry"]
    assert same(found[0])


def test_the_lock_is_let_go_after_an_error(tmp_path: Path) -> None:
    def wrong(builder: cache.Builder) -> cache.Meta:
        raise ConfigError("data.label_column (x) must be there")

    with pytest.raises(ConfigError, match="must be there"):
        cache.fetch(tmp_path / "entry", wrong)
    assert not list(tmp_path.iterdir())
    assert same(cache.fetch(tmp_path / "entry", make))


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"^data\.cache_dir \(.*file\) must be a folder that can be written; "):
        cache.fetch(tmp_path / "file" / "entry", make)


def test_a_file_system_without_locks_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object, **__: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(FileLock, "acquire", unsupported)
    with pytest.raises(ConfigError, match=r"^data\.cache_dir .*; Operation not supported$"):
        cache.fetch(tmp_path / "entry", make)


def test_a_full_disk_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ConfigError, match=r"data.cache_dir .* must have room for the prepared data; .*No space left"):
        cache.fetch(tmp_path / "entry", make)
    assert not list(tmp_path.iterdir())
