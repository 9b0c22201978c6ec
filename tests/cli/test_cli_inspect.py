"""`minitx inspect`: the page, two runs, heads in numbers, models without attention."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import lines_of

import minitx
from minitx.cli import main
from minitx.config.load import load
from minitx.training.run import run


def test_inspect_writes_one_self_contained_page(
    trained: Path, classifier: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    page = tmp_path / "page.html"
    main(["inspect", str(trained), "<b>word</b>", "-o", str(page)])
    assert capsys.readouterr().out.strip() == str(page)
    text = page.read_text(encoding="utf-8")
    assert "\\u003cb\\u003eword" in text and "<b>word" not in text and "src=" not in text and "url(" not in text
    main(["inspect", str(classifier), "1 2 3"])
    assert (classifier / "inspect.html").is_file()


def test_inspect_against_another_run(
    trained: Path, classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Both runs' readings of each text, and of each answer the probability that each run gives it."""
    raw = yaml.safe_load((classifier / "config.yaml").read_text())
    other = tmp_path / "linear"
    run(load({**raw, "model": {"kind": "linear"}}), other, quiet=True)
    capsys.readouterr()
    [file] = lines_of(capsys, "inspect", classifier, "1 2 3", "9", "--against", other, "-o", tmp_path / "page.html")
    page = Path(file).read_text(encoding="utf-8")
    data = json.loads(page.split('id="data">')[1].split("</script>")[0])
    assert [text["run"] for text in data["texts"]] == [classifier.name, "linear"] * 2
    assert [comparison["text"] for comparison in data["comparisons"]] == ["1 2 3", "9"]
    for comparison in data["comparisons"]:
        for i, folder in enumerate((classifier, other)):
            [best] = minitx.load(str(folder)).likeliest([comparison["text"]], 1)
            [found] = [answer for answer in comparison["answers"] if answer["text"] == best[0].text]
            assert found["probabilities"][i] == pytest.approx(best[0].probability, rel=1e-4)
            assert comparison["outputs"][i] == best[0].text
    with pytest.raises(SystemExit):
        main(["inspect", str(classifier), "1", "--against", str(trained)])
    assert "--against" in (line := capsys.readouterr().err) and "must have the task and the classes of" in line


def test_two_translators_against_each_other(trained: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(trained, copy)
    ours, other = minitx.load(str(trained)), minitx.load(str(copy))
    data = json.loads(ours.inspect("<b>a", against=other).split('id="data">')[1].split("</script>")[0])
    [comparison] = data["comparisons"]
    assert comparison["answers"] and len(data["texts"]) == 2
    for answer in comparison["answers"]:
        first, second = answer["probabilities"]
        assert first == pytest.approx(second, rel=1e-6)
    # What a run did not write itself is scored, unless it is longer than the run reads.
    [found] = ours.inspections(["<b>a"])
    scored, too_long = ours._probabilities(replace(found, answers=()), ["A C", "A " * 999])
    [expected] = ours.score(["<b>a"], ["A C"])
    assert scored == pytest.approx(math.exp(expected.log_prob)) and too_long is None


def test_inspect_shows_heads_in_numbers(
    trained: Path, classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "140")
    out = lines_of(capsys, "inspect", trained, "--heads", "--rows", 7, "-o", tmp_path / "page.html")
    stored = json.loads((tmp_path / "heads.json").read_text())
    assert out[-1] == str(tmp_path / "heads.json") and not (tmp_path / "page.html").exists()
    report = minitx.load(str(trained)).head_statistics(rows=7)
    assert stored == {"split": "validation", **report.to_json()} and stored["n_rows"] == 7
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out]
    shown = {(row[0], row[1]): row[2:] for row in cells if row}
    assert list(shown) == [(f"{role}_L1", str(h)) for role in ("encoder", "decoder", "cross") for h in (1, 2)]
    for layer in report.layers:
        for head in range(2):
            row = shown[str(layer.layer_id), str(head + 1)]
            assert row[0] == f"{layer.stats.entropy[head]:.3f}" and row[4] == f"{layer.effects.loss_without[head]:+.4f}"
            assert row[5] == f"{100 * layer.effects.accuracy_without[head]:+.2f}"
    assert any(
        f"within {report.receptive_field.width} positions; farthest that is read {report.receptive_field.farthest}" in x
        for x in out
    )
    assert f"7 validation rows: loss {report.performance.loss:.4f}" in out[0]
    out = lines_of(capsys, "inspect", classifier, "--heads", "--rows", 3, "--split", "test", "1 2 3", "4")
    assert out[-2:] == [str(classifier / name) for name in ("heads.json", "inspect.html")]
    assert (classifier / "inspect.html").read_text(encoding="utf-8").count('"kind": "encoder"') == 2


def test_inspect_of_other_models(
    classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], tiny_data: dict[str, Any]
) -> None:
    """Pooling weights where there are any; where nothing attends, one line of error."""
    raw = yaml.safe_load((classifier / "config.yaml").read_text())
    for pooling in ("additive", "max"):
        folder = tmp_path / pooling
        run(load({**raw, "model": {"kind": "lstm", "d_model": 8, "pooling": pooling}}), folder, quiet=True)
    main(["inspect", str(tmp_path / "additive"), "1 2 3"])
    page = (tmp_path / "additive" / "inspect.html").read_text(encoding="utf-8")
    assert "digits, lstm: 1 layer, width 8" in page and page.count('"kind": "pooling"') == 1
    capsys.readouterr()
    with pytest.raises(SystemExit):
        main(["inspect", str(tmp_path / "max"), "1 2 3"])
    assert (
        "must attend to tokens, but model=lstm with model.pooling=max does not; train it with"
        in capsys.readouterr().err
    )
    assert not (tmp_path / "max" / "inspect.html").exists()
    out = lines_of(capsys, "inspect", tmp_path / "max", "--heads", "--rows", 3)
    assert len(out) == 2 and out[0].startswith("receptive field: 95 % of the gradient within ")
    assert json.loads((tmp_path / "max" / "heads.json").read_text())["layers"] == []
