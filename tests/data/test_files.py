"""The user's own files: every format, and every message."""

import csv
import json
import random
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
    return list(read.inputs), list(read.targets)


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
    assert (list(read.inputs), list(read.targets)) == (WANTED[0], [1, 0, None])
    with pytest.raises(ConfigError, match=r"^data\.text_column \(text\) must be a column of g\.parquet; it has: n$"):
        parquet.write_table(pa.table({"n": [1]}), tmp_path / "g.parquet")
        read_file("data.path", str(tmp_path / "g.parquet"), CONFIG)


MALFORMED = [
    ("f.csv", "text,label\na,x\nb,y,z\n", r"have the 2 fields of its header in every record; record 2 has 3"),
    ("f.csv", "text,label\na\n", r"have the 2 fields of its header in every record; record 1 has 1"),
    ("f.csv", 'text,label\n"a"b,x\n', r"be well-formed; line 2: "),
    ("f.csv", b"text,label\n" + b"a,x\n" * 20_000 + b"b\xe4,y\n", r"be UTF-8 text; byte 2 of line 20,002 is not"),
    ("f.tsv", "text\tlabel\na\tb\tx\n", r"have the 2 fields .*; record 1 has 3; no field of a \.tsv can hold a tab"),
    ("f.csv", "text;label\na;x\n", r"have commas between its fields; its header has semicolons; save it with commas"),
    ("f.csv", "text\tlabel\na\tx\n", r"have commas between its fields; its header has tabs; a file with tabs is \.tsv"),
    ("f.tsv", "text,label\na,x\n", r"have tabs between its fields; its header has commas; save it with tabs"),
    ("f.csv", "text,label,text\na,x,b\n", r"have the column text once; its header has it 2 times"),
    ("f.jsonl", '{"text": "a", "label": "x", "text": "b"}', r"hold one JSON object per line; record 1: .*'text' twice"),
    ("f.json", "[" * 100_000, r"be a JSON list of objects; it is nested too deep"),
    ("f.jsonl", '{"text": "a", "label": ' + "1" * 5000 + "}", r"hold one .*; record 1: a number has too many digits"),
    (
        "f.json",
        '{"text": "a", "label": "x"}\n{"text": "b", "label": "y"}',
        r"be a JSON .*; one object per line is \.jsonl",
    ),
    ("f.csv", "text,label\n", r"hold at least one record; there is none below the header"),
    ("f.csv", b"text,label\n\xff,x\n", r"be UTF-8 text; byte 1 of line 2 is not"),
    ("f.jsonl", '{"text": "a", "label": "x"}\n\n{"text": \n', r"hold one JSON object per line; record 2: "),
    ("f.jsonl", "[1]\n", r"hold JSON objects; record 1 is not one"),
    ("f.json", '[{"text": "a", "label": "x"}, 3]', r"hold JSON objects; record 2 is not one"),
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


def test_white_space_around_names_of_columns_is_dropped(tmp_path: Path) -> None:
    assert table(tmp_path, "f.csv", "text , label\na,x\nb,y\n") == (["a", "b"], ["x", "y"])


def test_records_that_span_lines_are_told(tmp_path: Path) -> None:
    """A stray quotation mark takes the records up to the next one into its field."""
    lines = [f"text {n},x" for n in range(2, 42)]
    lines[7] = '"text 9,x'
    lines[30] = 'text 32",x'
    (tmp_path / "f.csv").write_text("\n".join(["text,label", *lines]))
    read = read_file("data.path", str(tmp_path / "f.csv"), CONFIG)
    assert len(read.inputs) == 40 - 23
    assert read.notes == (
        "f.csv: 1 record holds line breaks, line 9 to 32; a stray quotation mark would look the same",
    )
    assert read_file("data.path", str(_written(tmp_path, "text,label\na,x\n")), CONFIG).notes == ()


def _written(folder: Path, content: str) -> Path:
    (folder / "g.csv").write_text(content)
    return folder / "g.csv"


@pytest.mark.parametrize("seed", range(30))
def test_a_damaged_parquet_file_is_one_line(tmp_path: Path, seed: int) -> None:
    """Bytes in the middle changed: an error of ours, or the values as they were."""
    import pyarrow as pa
    from pyarrow import parquet

    rng = random.Random(seed)
    words = [f"{rng.random()} some words" for _ in range(500)]
    parquet.write_table(pa.table({"text": words, "label": [str(n % 2) for n in range(500)]}), tmp_path / "f.parquet")
    content = bytearray((tmp_path / "f.parquet").read_bytes())
    begin = rng.randrange(4, len(content) - 20)
    content[begin : begin + 16] = rng.randbytes(16)
    (tmp_path / "f.parquet").write_bytes(content)
    try:
        read = read_file("data.path", str(tmp_path / "f.parquet"), CONFIG)
    except ConfigError as error:
        assert "must be a Parquet file" in str(error) or "must be a column" in str(error)
    else:
        assert len(read.inputs) == 500


def test_a_home_folder_that_is_none(tmp_path: Path) -> None:
    for read in (check_file, lambda key, path: read_file(key, path, CONFIG)):
        with pytest.raises(ConfigError, match=r"data\.path \(~nobody-of-this-name/f\.csv\) must begin with the home"):
            read("data.path", "~nobody-of-this-name/f.csv")
