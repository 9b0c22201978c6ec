"""Overrides on the three paths that take them, and files of the five formats, made up by hypothesis.

Each input must be taken, or refused in one line, within ten seconds. Rows of a file that is well-formed must come out
as they went in, whatever characters are in them.
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

import train
from minitx.config import Config, DataConfig
from minitx.config.base import dotted_keys
from minitx.config.load import load, override
from minitx.data.sources import SOURCES
from minitx.errors import ConfigError, RunError
from minitx.sweeps import hydra_plugin
from minitx.sweeps.recipes import with_recipe
from minitx.training.run_folder import RunFolder, continued_config
from tests.faults.trainings import configuration, write_data

SILENCE = 10.0
"""Seconds after which an input that has brought no answer counts as silence."""

GROUPS = ("data", "model", "optim", "experiment", "study", "hydra.run.dir", "", "x.y")
keys = st.sampled_from([*dotted_keys(Config), *GROUPS])
numbers = st.one_of(
    st.integers(),
    st.floats(allow_subnormal=False),
    st.integers(1, 9).map(lambda n: "9" * 10**3 * n),
    st.just("1e999"),
    st.just("0x1F"),
).map(str)
marks = st.text(st.sampled_from("[]{}():,'\"#=&*!%@`|>~+-\\$ \t\n01ae."), max_size=12)
words = st.sampled_from(
    ["null", "true", "no", "auto", "~", "[1,2]", "{a: 1}", "${oc.env:HOME}", "${a}", "<b>&amp;</b>", "_target_"]
)
values = st.one_of(numbers, marks, words, st.text(max_size=9))
lines = st.builds(
    lambda sign, key, equals, value: f"{sign}{key}{equals}{value}",
    st.sampled_from(["", "", "", "+", "++", "~", "-"]),
    st.one_of(keys, keys, marks),
    st.sampled_from(["=", "=", "=", "", "=="]),
    values,
)


class Tally:
    """What came of many inputs."""

    def __init__(self, seconds: float) -> None:
        self.ends = time.monotonic() + seconds
        self.n, self.taken, self.refused, self.slowest = Counter[str](), 0, 0, 0.0
        self.wrong: list[str] = []

    def attempt(self, kind: str, shown: str, do: Callable[[], str | None]) -> None:
        """One input. do: returns what is wrong with what was taken."""
        if time.monotonic() > self.ends:
            return
        began = time.monotonic()
        try:
            wrong = do()
        except (ConfigError, RunError) as error:
            wrong = "is refused in several lines" if "\n" in str(error) else None
            self.refused += 1
        except Exception as error:
            wrong = f"ends in {type(error).__name__}: {error}"[:200]
        else:
            self.taken += 1
        took = time.monotonic() - began
        self.n[kind] += 1
        self.slowest = max(self.slowest, took)
        if wrong is None and took > SILENCE:
            wrong = f"took {took:.0f} s"
        if wrong is not None:
            self.wrong.append(f"{kind}: {shown!r:.200}: {wrong}")

    def to_json(self) -> dict[str, Any]:
        return {
            "inputs": dict(self.n), "taken": self.taken, "refused": self.refused,
            "slowest_seconds": round(self.slowest, 2), "wrong": self.wrong,
        }  # fmt: skip


CHUNK = 250
"""Examples drawn at a time, between which the clock is looked at."""


def run_examples(
    strategy: st.SearchStrategy[Any], n: int, number: int, tally: Tally, body: Callable[[Any], None]
) -> None:
    """`body`, which never fails, on n examples of a strategy, as far as time allows."""

    def each(value: Any) -> None:
        body(value)

    for start in range(0, n, CHUNK):
        if time.monotonic() > tally.ends:
            return
        wanted = settings(
            max_examples=min(CHUNK, n - start),
            database=None,
            deadline=None,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate],
        )
        seed(1000 * number + start // CHUNK)(wanted(given(strategy)(each)))()


# ------------------------------------------------------------------------------------------------------------ overrides


def fuzz_overrides(folder: Path, n: int, number: int, seconds: float) -> dict[str, Any]:
    """n lines on top of a typed configuration, as many on top of a finished run, and a tenth of it through Hydra, which
    takes a hundred times as long."""
    tally, config, run = Tally(seconds), load({}), _finished(folder)
    paths: dict[str, Callable[[str], Config]] = {
        "typed": lambda line: override(config, [line]),
        "resume": lambda line: continued_config(run, [line]),
    }
    for place, (name, path) in enumerate(paths.items()):
        run_examples(lines, n, number + place, tally, partial(_try, tally, name, path))
    train.register()
    with initialize_config_dir(str(train.CONF), version_base="1.3"):
        run_examples(
            lines, n // 10, number + 2, tally, lambda line: tally.attempt("hydra", line, lambda: _composed(line))
        )
    return tally.to_json()


def _try(tally: Tally, name: str, path: Callable[[str], Config], line: str) -> None:
    tally.attempt(name, line, lambda: _taken(path(line)))


def _finished(folder: Path) -> Path:
    write_data(folder / "data")
    run = RunFolder(folder / "run")
    run.create()
    run.write_config(load(configuration("transformer classification", folder / "data", folder / "cache")))
    return run.path


def _taken(config: Config) -> str | None:
    return None if load(config.model_dump(mode="json")) == config else "is not what it was after it was written down"


def _composed(line: str) -> str | None:
    """As train.py takes it from the command line."""
    if line.startswith("-"):
        return None  # an option, which argparse answers
    try:
        hydra_plugin.check_overrides([line], train.CONF)
        raw = compose("config", with_recipe([line], train.CONF))
        load(hydra_plugin.plain(raw))
    except Exception as error:
        message, _ = hydra_plugin.one_line(error)
        if message is None:
            raise
        raise ConfigError(message) from None
    return None


# ---------------------------------------------------------------------------------------------------------------- files

characters = st.characters(exclude_categories=["Cs"])
texts = st.text(characters, min_size=1, max_size=20).filter(lambda text: bool(text.strip()))
tables = st.lists(st.tuples(texts, texts), min_size=1, max_size=8)
kinds_of_harm = st.sampled_from(["flip", "cut", "insert", "double"])
harms = st.lists(st.tuples(kinds_of_harm, st.integers(0, 2**30), st.binary(max_size=4)), max_size=3)
formats = st.sampled_from([".csv", ".tsv", ".json", ".jsonl", ".parquet"])


def fuzz_files(folder: Path, n: int, number: int, seconds: float) -> dict[str, Any]:
    """n files over the five formats: whole ones, whose rows are compared, and damaged ones."""
    tally = Tally(seconds)

    def body(drawn: tuple[str, list[tuple[str, str]], list[tuple[str, int, bytes]]]) -> None:
        suffix, table, damage = drawn
        if suffix == ".tsv":
            table = [(_plain(text), _plain(label)) for text, label in table]
        if any(not text.strip() or not label.strip() for text, label in table):
            return
        file = folder / f"data{suffix}"
        file.write_bytes(harmed(_written(suffix, table), damage))
        shown = f"{suffix} {table} {damage}"
        tally.attempt(suffix, shown, lambda: _read(file, None if damage else table))

    run_examples(st.tuples(formats, tables, st.one_of(st.just([]), harms)), n, number, tally, body)
    return tally.to_json()


def _plain(text: str) -> str:
    """No field of a .tsv can hold what ends a field or a line."""
    return " ".join(text.replace("\t", " ").splitlines()).replace("\n", " ").replace("\r", " ")


def _written(suffix: str, table: list[tuple[str, str]]) -> bytes:
    if suffix == ".parquet":
        import pyarrow as pa
        from pyarrow import parquet

        sink = io.BytesIO()
        parquet.write_table(pa.table({"text": [one for one, _ in table], "label": [two for _, two in table]}), sink)
        return sink.getvalue()
    if suffix == ".tsv":
        return "".join(f"{text}\t{label}\n" for text, label in [("text", "label"), *table]).encode()
    if suffix == ".csv":
        out = io.StringIO(newline="")
        csv.writer(out).writerows([("text", "label"), *table])
        return out.getvalue().encode()
    objects = [{"text": text, "label": label} for text, label in table]
    if suffix == ".json":
        return json.dumps(objects, ensure_ascii=False).encode()
    return "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in objects).encode()


def harmed(content: bytes, damage: list[tuple[str, int, bytes]]) -> bytes:
    changed = bytearray(content)
    for how, place, more in damage:
        at = place % (len(changed) + 1)
        if how == "flip" and at < len(changed):
            changed[at] ^= 1 << place % 8
        elif how == "cut":
            del changed[at:]
        elif how == "insert":
            changed[at:at] = more
        else:
            changed[at:at] = changed[at : at + 40]
    return bytes(changed)


def _read(file: Path, table: list[tuple[str, str]] | None) -> str | None:
    """What is wrong with the rows of a file. table: what it was written from; None of a damaged one."""
    config = DataConfig(name="fuzz", source="files", task="classification", path=str(file))
    source = SOURCES["files"]
    source.check(config)
    source.fingerprint(config)
    corpus = source.read(config)
    part, names = corpus.splits["train"], corpus.label_names or ()
    if table is None:
        return None
    assert part.labels is not None
    found = list(zip(part.texts, (names[label] for label in part.labels.tolist()), strict=True))
    wanted = [(text, label.strip()) for text, label in table]
    return None if found == wanted else f"rows are {found}, not {wanted}"
