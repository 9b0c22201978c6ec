"""`minitx report`, as typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import synthetic_studies

from minitx.cli import main


def test_it_writes_and_tells(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "studies"
    synthetic_studies.distance(folder)
    main(["report", str(folder)])
    output = capsys.readouterr().out
    assert (
        "1 of 13 claims" in output
        and "undecided" in output
        and "not tested here: python train.py -m study=cost" in output
    )
    written = [folder / "report" / name for name in ("index.html", "report.md", "claims.json")]
    assert output.splitlines()[-3:] == [str(path) for path in written]
    assert all(path.is_file() for path in written)
    figures = {path.name.removeprefix("C4-distance-full-") for path in (folder / "report" / "figures").iterdir()}
    assert figures == {"test.accuracy.svg", "effects.svg"}
    main(["report", str(folder), "-o", str(tmp_path / "elsewhere")])
    first, second = ((where / "claims.json").read_text() for where in (folder / "report", tmp_path / "elsewhere"))
    assert json.loads(first) == json.loads(second)
    page = (tmp_path / "elsewhere" / "index.html").read_text()
    assert 'href="../studies/distance/000"' in page


def test_mistakes_are_one_line(studies: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(["report", str(tmp_path)])
    assert stop.value.code == 2
    assert "run a study first: python train.py -m study=" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as stop:
        main(["report", str(studies), "-o", str(tmp_path / "file")])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and error.startswith("--output (") and error.count("\n") == 1


def test_a_study_that_has_just_begun_has_a_report(tmp_path: Path) -> None:
    record = synthetic_studies.cost(tmp_path)
    for cell in json.loads(record.read_text())["cells"]:
        (tmp_path / cell["folder"] / "results.json").unlink()
    main(["report", str(tmp_path)])
    claims = {one["id"]: one for one in json.loads((tmp_path / "report" / "claims.json").read_text())}
    assert claims["C5"]["verdict"] is None and claims["C5"]["command"] == "python train.py -m study=cost"
    assert "Not tested here: not every cell has finished" in (tmp_path / "report" / "index.html").read_text()
