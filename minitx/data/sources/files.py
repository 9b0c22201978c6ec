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
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from minitx.config import DataConfig, rule
from minitx.data.progress import Progress, Report, silent
from minitx.data.sources.digests import Digests, hash_files
from minitx.data.sources.records import Table, check_columns, examples_of, read_columns
from minitx.data.sources.source import Corpus, Source

BATCH = 1000
"""Records of a Parquet file read at a time."""


@dataclass(frozen=True)
class Records:
    """What one file holds, read once from beginning to end."""

    columns: list[str]
    """Those that are there."""
    rows: Iterator[dict[str, Any]]
    """One mapping per record, with at least the columns that were wanted."""
    notes: list[str] = field(default_factory=list)
    """For the user; complete once all rows have been read."""


class Files(Source):
    """`data.source: files`: one training file, and one each for validation and test where they are given."""

    def check(self, config: DataConfig) -> None:
        for key, path in _paths(config).items():
            check_file(key, path)

    def fingerprint(self, config: DataConfig) -> str:
        return hash_files({key: expanded(key, path) for key, path in _paths(config).items()}, Digests.of(config))

    def read(self, config: DataConfig, report: Report = silent) -> Corpus:
        tables = {_PATHS[key]: read_file(key, path, config, report) for key, path in _paths(config).items()}
        return examples_of(tables, config)


_PATHS = {"data.path": "train", "data.validation_path": "validation", "data.test_path": "test"}
"""Configuration key -> split."""


def _paths(config: DataConfig) -> dict[str, str]:
    """Configuration key -> file, of those that are named."""
    named = {key: getattr(config, key.removeprefix("data.")) for key in _PATHS}
    return {key: path for key, path in named.items() if path is not None}


def check_file(key: str, path: str) -> None:
    """Raise a ConfigError unless the file exists, has a known extension and is not empty."""
    file = expanded(key, path)
    if not file.is_file():
        raise rule(key, path, "be an existing file")
    if file.suffix.lower() not in _READERS:
        raise rule(key, path, f"end in one of {', '.join(_READERS)}", "convert or rename the file")
    if file.stat().st_size == 0:
        raise rule(key, path, "hold at least one record", "the file is empty")


def expanded(key: str, path: str) -> Path:
    """The path with `~` and `~user` resolved.

    Raises:
        ConfigError: there is no such user.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise rule(key, path, "begin with the home folder of a user that there is", "name the whole path") from None


def read_file(key: str, path: str, config: DataConfig, report: Report = silent) -> Table:
    """The two columns of one file; `key` is the configuration key that names it in messages."""
    file = expanded(key, path)
    try:
        found = _READERS[file.suffix.lower()](file, config.columns)
        first = next(found.rows, None)
        if first is None:
            raise rule(key, path, "hold at least one record", "there is none below the header")
        check_columns(config, file.name, found.columns)
        pairs = ([record.get(column) for column in config.columns] for record in chain([first], found.rows))
        inputs, targets = read_columns(
            ((one, two) for one, two in pairs), config, Progress(file.name, "records", report)
        )
    except UnicodeDecodeError:
        raise rule(key, path, "be UTF-8 text", f"{_not_utf8(file)} is not; convert the file") from None
    except _Malformed as error:
        raise rule(key, path, *error.args) from None
    return Table(file.name, inputs, targets, notes=tuple(f"{file.name}: {note}" for note in found.notes))


def _not_utf8(file: Path) -> str:
    """`line 3`: the first that UTF-8 cannot spell."""
    with file.open("rb") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                return f"byte {error.start + 1} of line {number:,}"
    return "its text"


class _Malformed(Exception):
    """(rule, remedy) of a file that breaks its format."""


DELIMITERS = {",": "commas", "\t": "tabs"}
"""Of .csv and .tsv."""
OTHER_DELIMITERS = {**DELIMITERS, ";": "semicolons", "|": "bars"}
"""What files have instead."""


def _delimited(file: Path, columns: tuple[str, str], delimiter: str, **dialect: Any) -> Records:
    """A header and one row per record; rows that are wholly empty are skipped."""
    notes: list[str] = []
    rows = _delimited_rows(file, columns, delimiter, notes, **dialect)
    return Records(list(next(rows)), rows, notes)


def _delimited_rows(
    file: Path, columns: tuple[str, str], delimiter: str, notes: list[str], **dialect: Any
) -> Iterator[dict[str, Any]]:
    """The header, as the keys of an empty record, then the records. notes: get what there is to say in the end."""
    widest = csv.field_size_limit(sys.maxsize)  # a process-wide setting of the csv module; put back below
    n, n_spans, longest = 0, 0, (0, 0)
    try:
        with file.open(encoding="utf-8-sig", newline="") as lines:
            rows = csv.reader(lines, strict=True, delimiter=delimiter, **dialect)
            header = [name.strip() for name in next(rows, [])]
            _check_header(header, columns, delimiter)
            yield dict.fromkeys(header)
            line = rows.line_num
            for row in rows:
                if row:
                    n += 1
                    if rows.line_num > line + 1:
                        n_spans += 1
                        longest = max(longest, (line + 1, rows.line_num), key=lambda span: span[1] - span[0])
                    yield _record(header, row, n, delimiter)
                line = rows.line_num
    except csv.Error as error:
        raise _Malformed("be well-formed", f"line {rows.line_num}: {error}") from None
    finally:
        csv.field_size_limit(widest)
    if n_spans:
        notes.append(_span_note(n_spans, *longest))


def _check_header(header: list[str], columns: tuple[str, str], delimiter: str) -> None:
    """That no wanted column is there twice, and that what parts the names is what is expected."""
    for column in columns:
        if header.count(column) > 1:
            raise _Malformed(f"have the column {column} once", f"its header has it {header.count(column)} times")
    for other, name in OTHER_DELIMITERS.items():
        if other != delimiter and len(header) == 1 and other in header[0]:
            remedy = "a file with tabs is .tsv" if other == "\t" else f"save it with {DELIMITERS[delimiter]}"
            raise _Malformed(f"have {DELIMITERS[delimiter]} between its fields", f"its header has {name}; {remedy}")


def _span_note(count: int, begin: int, end: int) -> str:
    """A quotation mark that stands alone takes the records up to the next one into its field, which no parser can
    tell from a field that is meant to hold lines. begin, end: lines of the longest such record."""
    records, hold = ("record", "holds") if count == 1 else ("records", "hold")
    longest = "" if count == 1 else "the longest from "
    return (
        f"{count:,} {records} {hold} line breaks, {longest}line {begin:,} to {end:,}; "
        f"a stray quotation mark would look the same"
    )


def _record(header: list[str], row: list[str], n: int, delimiter: str) -> dict[str, Any]:
    if len(row) != len(header):
        remedy = "quote a CSV field that holds a comma" if delimiter == "," else "no field of a .tsv can hold a tab"
        must = f"have the {len(header)} fields of its header in every record"
        raise _Malformed(must, f"record {n} has {len(row)}; {remedy}")
    return dict(zip(header, row, strict=True))


def _jsonl(file: Path, columns: tuple[str, str]) -> Records:
    return _objects(_parsed(file))


def _parsed(file: Path) -> Iterator[Any]:
    with file.open(encoding="utf-8-sig") as lines:
        for n, line in enumerate((line for line in lines if line.strip()), start=1):
            try:
                yield _loads(line)
            except json.JSONDecodeError as error:
                raise _Malformed("hold one JSON object per line", f"record {n}: {error.msg}") from None
            except _Unreadable as error:
                raise _Malformed("hold one JSON object per line", f"record {n}: {error}") from None


def _json(file: Path, columns: tuple[str, str]) -> Records:
    must = "be a JSON list of objects"
    try:
        values = _loads(file.read_text(encoding="utf-8-sig"))
    except json.JSONDecodeError as error:
        hint = "; one object per line is .jsonl" if error.msg == "Extra data" else ""
        raise _Malformed(must, f"line {error.lineno}: {error.msg}{hint}") from None
    except _Unreadable as error:
        raise _Malformed(must, str(error)) from None
    if not isinstance(values, list):
        raise _Malformed("be a JSON list of objects", "one object per line is .jsonl")
    return _objects(iter(values))


class _Unreadable(Exception):
    """What is wrong with JSON that its grammar allows."""


def _loads(text: str) -> Any:
    """JSON, whatever it holds."""
    try:
        return json.loads(text, object_pairs_hook=_object)
    except RecursionError:
        raise _Unreadable("it is nested too deep") from None
    except ValueError as error:
        if isinstance(error, json.JSONDecodeError):
            raise
        raise _Unreadable("a number has too many digits") from None  # more than Python turns into an integer


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise _Unreadable(f"an object has the key {twice!r:.40} twice")
    return found


def _objects(values: Iterator[Any]) -> Records:
    """JSON objects; the columns are those of the first."""
    rows = _checked(values)
    first = next(rows, None)
    return Records([], rows) if first is None else Records(list(first), chain([first], rows))


def _checked(values: Iterator[Any]) -> Iterator[dict[str, Any]]:
    for n, value in enumerate(values, start=1):
        if not isinstance(value, dict):
            raise _Malformed("hold JSON objects", f"record {n} is not one")
        yield value


def _parquet(file: Path, columns: tuple[str, str]) -> Records:
    rows = _parquet_rows(file, columns)
    return Records(list(next(rows)), rows)


def _parquet_rows(file: Path, columns: tuple[str, str]) -> Iterator[dict[str, Any]]:
    """The names of all columns, as the keys of an empty record, then the records with those that are wanted."""
    # slow to import, and a cached run needs none of it
    import pyarrow  # type: ignore[import-untyped]
    from pyarrow import parquet

    try:
        with parquet.ParquetFile(file) as table:
            present = table.schema_arrow.names
            twice = [column for column in columns if present.count(column) > 1]
            if twice:
                raise _Malformed(f"have the column {twice[0]} once", "drop the others")
            yield dict.fromkeys(present)
            for batch in table.iter_batches(BATCH, columns=[column for column in columns if column in present]):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError):  # damage shows as any of them
        raise _Malformed("be a Parquet file", "it is damaged or another format") from None


_READERS: dict[str, Callable[[Path, tuple[str, str]], Records]] = {
    ".csv": partial(_delimited, delimiter=","),
    ".tsv": partial(_delimited, delimiter="\t", quoting=csv.QUOTE_NONE),
    ".jsonl": _jsonl,
    ".json": _json,
    ".parquet": _parquet,
}
