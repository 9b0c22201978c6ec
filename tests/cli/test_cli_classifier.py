"""The `minitx` command on a classifier: its full evaluation, and two of them compared."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from scipy.stats import binomtest
from tiny import lines_of

import minitx
from minitx.cli import main
from minitx.config.load import load, override
from minitx.training.run import run
from minitx.training.run_folder import RunFolder


@pytest.fixture(scope="module")
def other_classifier(tmp_path_factory: pytest.TempPathFactory, classifier: Path) -> Path:
    """The same, trained from another seed."""
    folder = tmp_path_factory.mktemp("other_classifier") / "run"
    raw = yaml.safe_load((classifier / "config.yaml").read_text())
    run(load({**raw, "seed": 1}), folder, quiet=True)
    return folder


def test_evaluate_on_other_data_keeps_vocabulary_and_classes(classifier: Path, tmp_path: Path) -> None:
    """The user's own file with the classes in another order: matched by name."""
    predictor = minitx.load(str(classifier))
    texts = ["0 " * 63 + "1", "16 " * 63 + "2", "3 5 " * 32, "9 0 " * 32] * 5
    labels = predictor.predict(texts)
    file = tmp_path / "own.csv"
    file.write_text("text,label\n" + "".join(f"{t.strip()},{n}\n" for t, n in zip(texts, labels, strict=True)))
    overrides = [
        "data.source=files", f"data.path={file}", f"data.test_path={file}", f"data.validation_path={file}",
        f"data.cache_dir={tmp_path}",
    ]  # fmt: skip
    assert predictor.evaluate("test", overrides).score == 1.0


@pytest.mark.parametrize("labels", [[3, 5, 3, 9], [7, 7, 7, 7]], ids=["several", "one"])
@pytest.mark.parametrize("key", ["path", "test_path"])
def test_a_file_is_evaluated_whole_and_without_training_data(
    classifier: Path, tmp_path: Path, key: str, labels: list[int]
) -> None:
    file = tmp_path / "new.csv"
    file.write_text("text,label\n" + "".join(f"{' '.join(['0'] * 63 + [str(n)])},{n}\n" for n in labels))
    predictor = minitx.load(str(classifier))
    of_files = override(predictor.config, ["data.source=files", "data.path=gone.csv", f"data.cache_dir={tmp_path}"])
    found = replace(predictor, config=of_files).evaluate("test", [f"data.{key}={file}"])
    assert len(found.rows) == 4 and found.labels is not None and list(found.labels) == labels


def test_evaluate_shows_a_classifier_in_full(
    classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    stored = json.loads((classifier / "evaluation.json").read_text())
    out = lines_of(capsys, "evaluate", classifier, "--hardest", 2, "-o", tmp_path / "new" / "folder")
    assert max(map(len, out[1:-1])) <= 80 and out[-1] == str(tmp_path / "new" / "folder")
    classes, hardest = out.index("test rows by class"), out.index("hardest test rows")
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in out]
    shown = [row for row in cells[classes:hardest] if row]
    assert [(row[0], row[1]) for row in shown] == [(c["name"], str(c["n"])) for c in stored["classes"]]
    assert [row[3] for row in shown] == [f"{100 * c['recall']:.1f} %" for c in stored["classes"]]
    assert [row[0] for row in cells[hardest:] if row] == [str(e["row"]) for e in stored["hardest"][:2]]
    calibration = stored["calibration"]
    assert f"calibration: says {100 * calibration['confidence']:.1f} %, right in " in out[hardest - 1]
    written = tmp_path / "new" / "folder"
    assert sorted(p.name for p in written.iterdir()) == ["confusion.png", "evaluation.json", "reliability.png"]
    assert json.loads((written / "evaluation.json").read_text()) == stored
    assert all((written / f"{name}.png").read_bytes()[1:4] == b"PNG" for name in ("confusion", "reliability"))


def test_evaluate_names_the_split_it_evaluated(classifier: Path, tmp_path: Path) -> None:
    main(["evaluate", str(classifier), "--split", "validation", "--hardest", "61", "-o", str(tmp_path)])
    written = json.loads((tmp_path / "evaluation.json").read_text())
    assert written["split"] == "validation" and len(written["hardest"]) == 61


def test_of_many_classes_evaluate_shows_the_worst(
    classifier: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("minitx.training.display.FEW_CLASSES", 4)
    monkeypatch.setattr("minitx.cli.evaluate.WORST_CLASSES", 3)
    out = lines_of(capsys, "evaluate", classifier)
    assert "test rows: the 3 worst of 10 classes, by F1" in out and "7 more classes: see --per-class" in out
    assert "test rows by class" in lines_of(capsys, "evaluate", classifier, "--per-class")


@pytest.mark.parametrize("n_rows", [1, 5])
def test_evaluate_on_rows_that_lack_classes(
    classifier: Path, tmp_path: Path, n_rows: int, capsys: pytest.CaptureFixture[str]
) -> None:
    """Warnings are errors here; two of ten classes at most occur."""
    lines = ["0 " * 63 + "1,7", *(f"{i} " * 63 + "1,3" for i in range(4))]
    for name, rows in (("all", lines), ("few", lines[:n_rows])):
        (tmp_path / f"{name}.csv").write_text("\n".join(["text,label", *rows]) + "\n")
    both, few = tmp_path / "all.csv", tmp_path / "few.csv"
    overrides = [
        "data.source=files", f"data.path={both}", f"data.test_path={few}", f"data.validation_path={both}",
        f"data.cache_dir={tmp_path}",
    ]  # fmt: skip
    out = lines_of(capsys, "evaluate", classifier, *overrides, "-o", tmp_path / "out")
    assert any(line.startswith("│ 9 ") and line.count("–") >= 1 for line in out)
    shown = json.loads((tmp_path / "out" / "evaluation.json").read_text())
    assert [c["n"] for c in shown["classes"]] == [0, 0, 0, n_rows - 1, 0, 0, 0, 1, 0, 0] and shown["n"] == n_rows


def test_classifiers_are_compared_by_mcnemar_too(
    classifier: Path, other_classifier: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    [line] = [x for x in lines_of(capsys, "evaluate", classifier, "--against", other_classifier) if "McNemar" in x]
    truth = minitx.load(str(classifier)).evaluate().labels
    assert truth is not None
    a, b = (
        [int(name) == t for name, t in zip(minitx.load(str(r)).evaluate().predictions, truth, strict=True)]
        for r in (classifier, other_classifier)
    )
    only_a, only_b = (sum(x > y for x, y in zip(*pair, strict=True)) for pair in ((a, b), (b, a)))
    p = binomtest(only_a, only_a + only_b).pvalue
    assert only_a + only_b > 0
    assert line == (
        f"A alone right: {only_a:,} rows, B alone right: {only_b:,} rows; McNemar's exact test, two-sided: p {p:.4f}"
    )


def test_runs_are_compared_whose_settings_could_not_be_one_run(classifier: Path, tmp_path: Path) -> None:
    """The data of one and the model of the other never were one configuration: word dropout on single characters."""
    for name, section, changes in (
        ("a", "data", {"tokenizer": {"kind": "char"}}),
        ("b", "model", {"word_dropout": 0.1}),
    ):
        shutil.copytree(classifier, tmp_path / name, symlinks=True)
        raw = yaml.safe_load((tmp_path / name / "config.yaml").read_text())
        raw[section] |= changes
        RunFolder(tmp_path / name).write_config(load(raw))
    _, _, differences = minitx.load(str(tmp_path / "a")).compare(minitx.load(str(tmp_path / "b")))
    assert differences["accuracy"].difference == 0 and len(differences) == 3


def test_a_classifier_has_no_translations(classifier: Path) -> None:
    predictor = minitx.load(str(classifier))
    for wrong in (lambda: predictor.n_best(["1"], 2), lambda: predictor.score(["1"], ["2"])):
        with pytest.raises(ValueError, match="a model of classification has no translations"):
            wrong()
