"""The cache: round trip, any damage is rebuilt, kills and races leave a complete entry or none."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from minitx.data.pipeline import cache
from minitx.errors import ConfigError

META = {"notes": ["ü"], "n": 3}
ARRAYS: cache.Arrays = {
    "train.src": np.arange(1009, dtype=np.uint16),
    "train.src_offsets": np.arange(7, dtype=np.int64),
    "empty": np.zeros(0, np.uint16),
}


def same(entry: cache.Entry | None) -> bool:
    return (
        entry is not None
        and entry.meta == META
        and entry.arrays.keys() == ARRAYS.keys()
        and all(np.array_equal(entry.arrays[k], v) and entry.arrays[k].dtype == v.dtype for k, v in ARRAYS.items())
    )


def test_round_trip_makes_once(tmp_path: Path) -> None:
    made = []

    def make() -> tuple[cache.Meta, cache.Arrays]:
        made.append(1)
        return META, ARRAYS

    first, second = (cache.fetch(tmp_path / "deep" / "entry", make) for _ in range(2))
    assert same(first)
    assert same(second)
    assert made == [1]
    assert not first.arrays["train.src"].flags.writeable
    assert [path.name for path in (tmp_path / "deep").iterdir()] == ["entry"], "nothing partial is left"


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
    cache.write(folder, META, ARRAYS)
    DAMAGES[damage](folder / name)
    assert cache.read(folder) is None
    assert same(cache.fetch(folder, lambda: (META, ARRAYS)))
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]


def test_a_file_in_the_place_of_the_entry(tmp_path: Path) -> None:
    (tmp_path / "entry").write_text("what is this?")
    assert same(cache.fetch(tmp_path / "entry", lambda: (META, ARRAYS)))


def test_a_good_entry_is_never_replaced(tmp_path: Path) -> None:
    """The slower of two processes keeps what the faster one has put there, which others may be reading."""
    folder = tmp_path / "entry"
    cache.write(folder, META, ARRAYS)
    before = (folder / cache.META).stat().st_ino
    cache.write(folder, META, ARRAYS)
    assert (folder / cache.META).stat().st_ino == before
    assert [path.name for path in tmp_path.iterdir()] == ["entry"]


KILLED = """
import os, sys, numpy as np
from pathlib import Path
from minitx.data.pipeline import cache
os.fsync = lambda fd, calls=[]: calls.append(fd) or (len(calls) > 2 and os._exit(9))
cache.write(Path(sys.argv[1]), {}, {f"a{i}": np.arange(i) for i in range(5)})
"""


def test_a_kill_in_the_middle(tmp_path: Path) -> None:
    folder = tmp_path / "entry"
    killed = subprocess.run([sys.executable, "-c", KILLED, str(folder)], check=False)
    assert killed.returncode == 9
    (left,) = tmp_path.iterdir()
    assert left.suffix == ".partial"
    assert cache.read(folder) is None
    assert same(cache.fetch(folder, lambda: (META, ARRAYS)))
    assert left.exists(), "it could belong to a process that is still at work"
    old = time.time() - cache.STALE_SECONDS - 60
    os.utime(left, (old, old))
    cache.write(tmp_path / "other", META, ARRAYS)
    assert not left.exists()


RACING = """
import sys, numpy as np
from pathlib import Path
from minitx.data.pipeline import cache
folder = Path(sys.argv[1])
for i in range(8):
    entry = cache.fetch(folder / str(i), lambda: ({}, {"a": np.arange(10_007)}))
    assert np.array_equal(entry.arrays["a"], np.arange(10_007))
"""


def test_processes_that_race(tmp_path: Path) -> None:
    """Two at once, over absent and over damaged entries."""
    for i in range(0, 8, 2):
        cache.write(tmp_path / str(i), {}, {"a": np.arange(10_007)})
        flip(tmp_path / str(i) / "a.npy")
    racers = [subprocess.Popen([sys.executable, "-c", RACING, str(tmp_path)]) for _ in range(2)]
    assert [racer.wait() for racer in racers] == [0, 0]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(map(str, range(8)))


def test_a_folder_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match=r"^data\.cache_dir \(.*file\) must be a folder that can be written; "):
        cache.write(tmp_path / "file" / "entry", META, ARRAYS)


def test_a_full_disk_is_told_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """numpy's own error of a short write has no number and names no file."""

    def full(*_: object, **__: object) -> None:
        raise OSError("13148 requested and 5872 written")

    monkeypatch.setattr(np, "save", full)
    with pytest.raises(ConfigError, match=r"data.cache_dir .* must have room for the prepared data; 13148 requested"):
        cache.write(tmp_path / "entry", META, ARRAYS)
    assert not list(tmp_path.iterdir())
