"""The user's own files: CSV, TSV, JSONL, JSON and Parquet, read strictly and without guessing types.

.csv is RFC 4180 with a header (fields that hold commas, quotes or newlines are quoted); .tsv has a header and no
quoting at all; .jsonl is one object per line; .json is a list of objects. Text is UTF-8. Values stay as they are in
the file: a CSV field "NA" is the text NA. Records are counted from 1, the header apart.
"""

from __future__ import annotations

import csv
import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any

from minitx.config import DataConfig, rule
from minitx.data.sources.records import Table, check_columns, examples_of
from minitx.data.sources.source import Corpus, Source, hash_files

Records = tuple[list[str], list[dict[str, Any]]]
"""The columns that are there, and one mapping per record with at least those of them that were wanted."""


class Files(Source):
    """`data.source: files`: one training file, and one each for validation and test where they are given."""

    def check(self, config: DataConfig) -> None:
        for key, path in _paths(config).items():
            check_file(key, path)

    def fingerprint(self, config: DataConfig) -> str:
        return hash_files({key: Path(path).expanduser() for key, path in _paths(config).items()})

    def read(self, config: DataConfig) -> Corpus:
        tables = {_PATHS[key]: read_file(key, path, config) for key, path in _paths(config).items()}
        return examples_of(tables, config)


_PATHS = {"data.path": "train", "data.validation_path": "validation", "data.test_path": "test"}
"""Configuration key -> split."""


def _paths(config: DataConfig) -> dict[str, str]:
    """Configuration key -> file, of those that are named."""
    named = {key: getattr(config, key.removeprefix("data.")) for key in _PATHS}
    return {key: path for key, path in named.items() if path is not None}


def check_file(key: str, path: str) -> None:
    """Raise a ConfigError unless the file exists, has a known extension and is not empty."""
    file = Path(path).expanduser()
    if not file.is_file():
        raise rule(key, path, "be an existing file")
    if file.suffix.lower() not in _READERS:
        raise rule(key, path, f"end in one of {', '.join(_READERS)}", "convert or rename the file")
    if file.stat().st_size == 0:
        raise rule(key, path, "hold at least one record", "the file is empty")


def read_file(key: str, path: str, config: DataConfig) -> Table:
    """The two columns of one file; `key` is the configuration key that names it in messages."""
    file = Path(path).expanduser()
    try:
        present, records = _READERS[file.suffix.lower()](file, config.columns)
    except UnicodeDecodeError as error:
        raise rule(key, path, "be UTF-8 text", f"byte {error.start + 1} is not; convert the file") from None
    except _Malformed as error:
        raise rule(key, path, *error.args) from None
    if not records:
        raise rule(key, path, "hold at least one record", "there is none below the header")
    check_columns(config, file.name, present)
    inputs, targets = ([record.get(column) for record in records] for column in config.columns)
    return Table(file.name, inputs, targets)


class _Malformed(Exception):
    """(rule, remedy) of a file that breaks its format."""


def _delimited(file: Path, columns: tuple[str, str], **dialect: Any) -> Records:
    """A header and one row per record; rows that are wholly empty are skipped."""
    widest = csv.field_size_limit(sys.maxsize)  # a process-wide setting of the csv module; put back below
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = csv.reader(lines, strict=True, **dialect)
            header = next(rows, [])
            records = [_record(header, row, n) for n, row in enumerate((r for r in rows if r), start=1)]
    except csv.Error as error:
        raise _Malformed("be well-formed", f"line {rows.line_num}: {error}") from None
    finally:
        csv.field_size_limit(widest)
    return header, records


def _record(header: list[str], row: list[str], n: int) -> dict[str, Any]:
    if len(row) != len(header):
        raise _Malformed(
            f"have the {len(header)} fields of its header in every record",
            f"record {n} has {len(row)}; quote a CSV field that holds a comma",
        )
    return dict(zip(header, row, strict=True))


def _jsonl(file: Path, columns: tuple[str, str]) -> Records:
    with file.open(encoding="utf-8-sig") as lines:
        return _objects(_parsed(lines))


def _parsed(lines: IO[str]) -> Iterator[Any]:
    for n, line in enumerate((line for line in lines if line.strip()), start=1):
        try:
            yield json.loads(line)
        except json.JSONDecodeError as error:
            raise _Malformed("hold one JSON object per line", f"record {n}: {error.msg}") from None


def _json(file: Path, columns: tuple[str, str]) -> Records:
    try:
        values = json.loads(file.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        raise _Malformed("be a JSON list of objects", f"line {error.lineno}: {error.msg}") from None
    if not isinstance(values, list):
        raise _Malformed("be a JSON list of objects", "one object per line is .jsonl")
    return _objects(iter(values))


def _objects(values: Iterator[Any]) -> Records:
    """JSON objects; the columns are those of the first."""
    records = []
    for n, value in enumerate(values, start=1):
        if not isinstance(value, dict):
            raise _Malformed("hold JSON objects", f"record {n} is not one")
        records.append(value)
    return list(records[0]) if records else [], records


def _parquet(file: Path, columns: tuple[str, str]) -> Records:
    # slow to import, and a cached run needs none of it
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file) as table:
            present = table.schema_arrow.names
            wanted = [column for column in columns if column in present]
            return present, table.read(columns=wanted).to_pylist() if wanted else [{}]
    except pyarrow.ArrowInvalid:
        raise _Malformed("be a Parquet file", "it is damaged or another format") from None


_READERS: dict[str, Callable[[Path, tuple[str, str]], Records]] = {
    ".csv": partial(_delimited, delimiter=","),
    ".tsv": partial(_delimited, delimiter="\t", quoting=csv.QUOTE_NONE),
    ".jsonl": _jsonl,
    ".json": _json,
    ".parquet": _parquet,
}
