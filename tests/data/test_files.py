"""The user's own files: every format, and every message."""

import csv
import json
from pathlib import Path

import pytest

from minitx.config import DataConfig
from minitx.data.sources.files import check_file, read_file
from minitx.errors import ConfigError

CONFIG = DataConfig(source="files", task="classification", path="unused")
WANTED = (["a, b", 'c "d"\ne', "NA"], ["x", "y", "x"])


def table(tmp_path: Path, name: str, content: str | bytes) -> tuple[list[object], list[object]]:
    path = tmp_path / name
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    read = read_file("data.path", str(path), CONFIG)
    assert read.where == name
    assert read.class_names is None
    return read.inputs, read.targets


def test_csv(tmp_path: Path) -> None:
    content = 'id,label,text\r\n1,x,"a, b"\r\n\r\n2,y,"c ""d""\ne"\r\n3,x,NA\r\n'
    assert table(tmp_path, "f.csv", content) == WANTED
    assert table(tmp_path, "F.CSV", b"\xef\xbb\xbf" + content.encode()) == WANTED, "with a byte-order mark"


def test_csv_with_a_long_field(tmp_path: Path) -> None:
    """The csv module refuses fields over 128 KiB unless told otherwise; its setting is put back."""
    before = csv.field_size_limit()
    assert table(tmp_path, "f.csv", f"text,label\n{'a' * 200_000},x\n") == (["a" * 200_000], ["x"])
    assert csv.field_size_limit() == before


def test_tsv_has_no_quotes(tmp_path: Path) -> None:
    assert table(tmp_path, "f.tsv", 'text\tlabel\n"a\tx\nb "c"\ty\n') == (['"a', 'b "c"'], ["x", "y"])


def test_json_and_jsonl(tmp_path: Path) -> None:
    records = [{"text": text, "label": label} for text, label in zip(*WANTED, strict=True)]
    assert table(tmp_path, "f.json", json.dumps(records, indent=1)) == WANTED
    assert table(tmp_path, "f.jsonl", "\n\n".join(map(json.dumps, records)) + "\n") == WANTED
    assert table(tmp_path, "g.jsonl", '{"text": "a", "label": 1}\n{"label": true}') == (["a", None], [1, True])


def test_parquet(tmp_path: Path) -> None:
    import pyarrow as pa  # type: ignore[import-untyped]
    from pyarrow import parquet

    parquet.write_table(pa.table({"n": [1, 2, 3], "text": WANTED[0], "label": [1, 0, None]}), tmp_path / "f.parquet")
    read = read_file("data.path", str(tmp_path / "f.parquet"), CONFIG)
    assert (read.inputs, read.targets) == (WANTED[0], [1, 0, None])
    with pytest.raises(ConfigError, match=r"^data\.text_column \(text\) must be a column of g\.parquet; it has: n$"):
        parquet.write_table(pa.table({"n": [1]}), tmp_path / "g.parquet")
        read_file("data.path", str(tmp_path / "g.parquet"), CONFIG)


MALFORMED = [
    ("f.csv", "text,label\na,x\nb,y,z\n", r"have the 2 fields of its header in every record; record 2 has 3"),
    ("f.csv", "text,label\na\n", r"have the 2 fields of its header in every record; record 1 has 1"),
    ("f.csv", 'text,label\n"a"b,x\n', r"be well-formed; line 2: "),
    ("f.csv", "text,label\n", r"hold at least one record; there is none below the header"),
    ("f.csv", b"text,label\n\xff,x\n", r"be UTF-8 text; byte 12 is not"),
    ("f.jsonl", '{"text": "a"}\n\n{"text": \n', r"hold one JSON object per line; record 2: "),
    ("f.jsonl", "[1]\n", r"hold JSON objects; record 1 is not one"),
    ("f.json", '[{"text": "a"}, 3]', r"hold JSON objects; record 2 is not one"),
    ("f.json", "[]", r"hold at least one record"),
    ("f.json", '{"text": "a"}', r"be a JSON list of objects; one object per line is \.jsonl"),
    ("f.json", "[\n{]", r"be a JSON list of objects; line 2: "),
    ("f.parquet", "not parquet", r"be a Parquet file; it is damaged or another format"),
]


@pytest.mark.parametrize(("name", "content", "message"), MALFORMED)
def test_malformed_files(tmp_path: Path, name: str, content: str | bytes, message: str) -> None:
    with pytest.raises(ConfigError, match=rf"^data\.path \(.*{name}\) must {message}") as caught:
        table(tmp_path, name, content)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("text,mood\na,x\n", r"^data\.label_column \(label\) must be a column of f\.csv; it has: text, mood$"),
        ("txt,label\na,x\n", r"^data\.text_column \(text\) must be a column of f\.csv; it has: txt, label$"),
    ],
)
def test_missing_columns(tmp_path: Path, content: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        table(tmp_path, "f.csv", content)


def test_what_is_checked_before_reading(tmp_path: Path) -> None:
    (tmp_path / "f.txt").write_text("a")
    (tmp_path / "f.csv").write_text("")
    for name, message in (
        ("none.csv", "be an existing file$"),
        ("f.txt", r"end in one of \.csv, \.tsv, \.jsonl, \.json, \.parquet; convert or rename the file$"),
        ("f.csv", "hold at least one record; the file is empty$"),
    ):
        with pytest.raises(ConfigError, match=rf"^data\.test_path \(.*{name}\) must {message}"):
            check_file("data.test_path", str(tmp_path / name))
