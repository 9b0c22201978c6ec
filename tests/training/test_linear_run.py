"""A run of model=linear is a run like any other: its folder, its commands, its mistakes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from tiny import TINY_MODEL, TINY_TRAINER

import minitx
from minitx.cli import main
from minitx.config import Config, ConfigError, LinearConfig
from minitx.config.load import load
from minitx.decoding.text import LinearTextModel
from minitx.errors import Stopped
from minitx.metrics.evaluate import Evaluation
from minitx.training import linear as linear_run
from minitx.training.linear import C_GRID
from minitx.training.run import run
from minitx.training.run_folder import RunFolder


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Three classes of invented sentences, of which validation has two."""
    folder, rng = tmp_path_factory.mktemp("classes"), random.Random(0)
    words = ["".join(rng.choices("abcdefgh", k=rng.randint(2, 5))) for _ in range(53)]
    sizes, paths = {"train": 151, "validation": 43, "test": 47}, {}
    for name, size in sizes.items():
        lines = ["text,label"]
        for i in range(size):
            c = i % (2 if name == "validation" else 3)
            chosen = (rng.choice(words[c::3] if rng.random() < 0.5 else words) for _ in range(7))
            lines.append(f"{' '.join(chosen)} *ünï*,c{c}")
        paths[name] = folder / f"{name}.csv"
        paths[name].write_text("\n".join(lines) + "\n", encoding="utf-8")
    return {
        "name": "invented", "source": "files", "task": "classification", "path": str(paths["train"]), "max_length": 4,
        "validation_path": str(paths["validation"]), "test_path": str(paths["test"]),
        "cache_dir": str(folder / "cache"), "tokenizer": {"kind": "word"},
    }  # fmt: skip


def config_of(data: dict[str, Any], resume: str | None = None, seed: int = 0, **model: Any) -> Config:
    trainer = {**TINY_TRAINER, "resume": resume}
    return load({"data": data, "model": {"kind": "linear", **model}, "trainer": trainer, "seed": seed})


@pytest.fixture(scope="module")
def linear(tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any]) -> Path:
    folder = tmp_path_factory.mktemp("linear") / "run"
    run(config_of(data), folder, quiet=True)
    return folder


@pytest.fixture(scope="module")
def transformer(tmp_path_factory: pytest.TempPathFactory, data: dict[str, Any]) -> Path:
    folder = tmp_path_factory.mktemp("transformer") / "run"
    run(load({"data": data, "model": TINY_MODEL, "trainer": TINY_TRAINER}), folder, quiet=True)
    return folder


def lines_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    main([str(argument) for argument in arguments])
    return capsys.readouterr().out.split("\n")[:-1]


def test_the_folder_holds_what_every_run_has(linear: Path, transformer: Path) -> None:
    names = {
        "config.yaml",
        "metrics.jsonl",
        "results.json",
        "evaluation.json",
        "checkpoints",
        "tensorboard",
        "train.log",
    }
    assert {path.name for path in linear.iterdir()} == names
    results, others = (json.loads((path / "results.json").read_text()) for path in (linear, transformer))
    assert set(results) == {*others, "c"} and set(results["metrics"]["test"]) == set(others["metrics"]["test"])
    tries = [json.loads(line) for line in (linear / "metrics.jsonl").read_text().splitlines()]
    assert [line["c"] for line in tries] == list(C_GRID) and {line["split"] for line in tries} == {"validation"}
    best = max(tries, key=lambda line: (line["accuracy"], -line["loss"]))
    assert (results["c"], results["best_step"], results["steps"]) == (best["c"], best["step"], len(C_GRID))
    assert results["metrics"]["validation"]["accuracy"]["value"] == best["accuracy"]
    n_grams = len(minitx.load(str(linear)).text_model.model.ngrams.vocabulary)  # type: ignore[union-attr]
    assert results["n_params"] == results["n_params_non_embedding"] == 3 * (n_grams + 1)
    assert (results["device"], results["precision"], results["tokens_per_second"]) == ("cpu", "fp64", None)
    log = (linear / "train.log").read_text(encoding="utf-8")
    assert "c 30 " in log and "minitx inspect" not in log and "data.max_length" not in log


def test_a_saved_run_evaluates_and_predicts_as_it_did(linear: Path, capsys: pytest.CaptureFixture[str]) -> None:
    results = json.loads((linear / "results.json").read_text())
    predictor = minitx.load(str(linear))
    assert isinstance(predictor.text_model, LinearTextModel)
    for split in ("test", "validation"):
        found = predictor.evaluate(split)
        assert {n: i.to_json() for n, i in found.metrics.items()} == results["metrics"][split]
        assert found.loss == results["loss"][split]
    test = predictor.evaluate("test")
    assert any(f"{100 * test.score:.2f} %" in line for line in lines_of(capsys, "evaluate", linear))
    texts = [predictor._data(())[1].splits["test"].text(row) for row in range(len(test.rows))]
    assert predictor.predict(texts) == test.predictions == lines_of(capsys, "predict", linear, *texts)
    assert predictor.predict([]) == []
    main(["predict", str(linear), "word " * 99])
    assert "cut" not in capsys.readouterr().err  # it is read whole


def test_runs_of_both_kinds_are_compared_either_way(
    linear: Path, transformer: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    a, b = minitx.load(str(linear)), minitx.load(str(transformer))
    mine, theirs, one = a.compare(b)
    other = b.compare(a)[2]
    assert mine.metrics == a.evaluate().metrics and theirs.metrics == b.evaluate().metrics
    for name, difference in one.items():
        assert difference.difference == -other[name].difference and difference.p_value == other[name].p_value
    assert any("McNemar" in line for line in lines_of(capsys, "evaluate", linear, "--against", transformer))
    assert any("McNemar" in line for line in lines_of(capsys, "evaluate", transformer, "--against", linear))


def weights(folder: Path) -> bytes:
    return (folder / "checkpoints" / "best" / "model.safetensors").read_bytes()


def test_equal_runs_have_equal_bits_whatever_the_seed(linear: Path, tmp_path: Path, data: dict[str, Any]) -> None:
    c = json.loads((linear / "results.json").read_text())["c"]
    run(config_of(data, seed=5, c=c), tmp_path / "run", quiet=True)
    assert weights(tmp_path / "run") == weights(linear)


def test_validation_alone_chooses_c(tmp_path: Path, data: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """By accuracy, by loss where that is equal; the test split is evaluated once."""
    scores = dict(zip(C_GRID, [(0.5, 1.0), (0.75, 3.0), (0.75, 2.0), (0.25, 0.1), (0.75, 2.5)], strict=True))
    evaluated: list[str] = []
    evaluate = linear_run.LinearTrainer._evaluate

    def arranged(self: Any, model: Any, split: str) -> Evaluation:
        evaluated.append(split)
        found = evaluate(self, model, split)
        if split == "test":
            return found
        accuracy, loss = scores[C_GRID[len(evaluated) - 1]]
        interval = found.metrics["accuracy"]
        object.__setattr__(interval, "value", accuracy)
        object.__setattr__(found, "loss", loss)
        return found

    monkeypatch.setattr(linear_run.LinearTrainer, "_evaluate", arranged)
    assert run(config_of(data), tmp_path / "run", quiet=True)["c"] == 10.0
    assert evaluated == ["validation"] * len(C_GRID) + ["test"]


def test_the_manual_names_the_values_tried() -> None:
    description = LinearConfig.model_fields["c"].description
    assert description is not None and f"of {', '.join(f'{c:g}' for c in C_GRID)}." in description


def test_a_given_c_is_the_only_one(tmp_path: Path, data: dict[str, Any]) -> None:
    results = run(config_of(data, c=2.5, ngrams=1), tmp_path / "run", quiet=True)
    assert (results["c"], results["steps"], results["best_step"]) == (2.5, 1, 1)


def test_refit_takes_validation_texts_in_with_the_c_that_was_chosen(
    tmp_path: Path, data: dict[str, Any], linear: Path
) -> None:
    """Against scikit-learn's own pipeline on training and validation texts; the validation scores stay honest."""
    results = run(config_of(data, refit=True), tmp_path / "run", quiet=True)
    before = json.loads((linear / "results.json").read_text())
    assert (results["c"], results["n_train"]) == (before["c"], 151 + 43)
    assert results["metrics"]["validation"] == before["metrics"]["validation"]
    texts, labels = [], []
    for key in ("path", "validation_path"):
        for line in Path(data[key]).read_text(encoding="utf-8").splitlines()[1:]:
            text, _, label = line.rpartition(",")
            texts.append(text)
            labels.append(label)
    model = make_pipeline(
        TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True),
        LogisticRegression(C=results["c"], max_iter=10_000, tol=1e-8),
    ).fit(texts, labels)
    loaded = minitx.load(tmp_path / "run")
    assert isinstance(loaded.text_model, LinearTextModel)
    asked = texts[::7]
    np.testing.assert_allclose(np.exp(loaded.text_model.model.log_probs(asked)), model.predict_proba(asked), atol=0.01)


def test_calibration_divides_its_scores(tmp_path: Path, data: dict[str, Any]) -> None:
    """Predictions stay, the validation rows are likelier, and whoever loads the run has it too; refit or not."""
    whole = {**data, "validation_path": data["test_path"]}  # of all three classes
    plain, config = run(config_of(whole), tmp_path / "plain", quiet=True), config_of(whole)
    config = config.model_copy(update={"trainer": config.trainer.model_copy(update={"calibrate": True})})
    fitted = run(config, tmp_path / "fitted", quiet=True)
    assert "temperature" not in plain and fitted["temperature"] != pytest.approx(1, abs=0.01)
    assert fitted["metrics"]["test"]["accuracy"] == plain["metrics"]["test"]["accuracy"]
    assert fitted["loss"]["validation"] < plain["loss"]["validation"]
    raw = minitx.load(str(tmp_path / "plain")).evaluate("validation").log_probs
    loaded = minitx.load(str(tmp_path / "fitted")).evaluate("validation").log_probs
    assert raw is not None and loaded is not None
    scaled = raw.astype(np.float64) / fitted["temperature"]
    np.testing.assert_allclose(loaded, scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True), atol=1e-5)
    model = config.model.model_copy(update={"refit": True})
    refit = run(config.model_copy(update={"model": model}), tmp_path / "refit", quiet=True)
    assert refit["temperature"] == fitted["temperature"]
    assert refit["metrics"]["validation"] == fitted["metrics"]["validation"]


def test_a_finished_run_is_not_fitted_again(
    linear: Path, tmp_path: Path, data: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "run"
    shutil.copytree(linear, copy, symlinks=True)
    before = (copy / "results.json").read_bytes()
    assert run(config_of(data, resume="auto"), copy) == RunFolder(copy).results()
    assert (copy / "results.json").read_bytes() == before
    assert capsys.readouterr().out == f"already finished: {copy}/results.json\n"
    with pytest.raises(ConfigError, match=r"must be empty, it holds a run; add trainer.resume=auto"):
        run(config_of(data), copy)
    with pytest.raises(ConfigError, match=r"it holds another \(model.ngrams 2, not 3\)"):
        run(config_of(data, resume="auto", ngrams=3), copy)


def test_a_stopped_run_says_so_and_starts_anew(
    linear: Path, tmp_path: Path, data: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = linear_run.LinearTrainer._evaluate_try

    def stop(self: Any, *arguments: Any) -> None:
        tried(self, *arguments)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(linear_run.LinearTrainer, "_evaluate_try", stop)
    with pytest.raises(Stopped) as stopped:
        run(config_of(data), tmp_path / "run", quiet=True)
    assert stopped.value.exit_code == 143
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert (results["status"], results["steps"], results["metrics"]) == ("stopped", 1, {})
    assert not (tmp_path / "run" / "checkpoints").exists()
    monkeypatch.undo()
    assert run(config_of(data, resume="auto"), tmp_path / "run", quiet=True)["status"] == "finished"
    assert weights(tmp_path / "run") == weights(linear)
    assert len((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()) == len(C_GRID)


def test_a_class_that_the_training_subset_lacks(tmp_path: Path, data: dict[str, Any]) -> None:
    results = run(config_of({**data, "train_size": 2}, c=1.0), tmp_path / "run", quiet=True)
    assert np.isfinite(results["loss"]["test"]) and results["status"] == "finished"
    with pytest.raises(ConfigError, match=r"data.train_size \(1\) must leave training texts of two or more classes"):
        run(config_of({**data, "train_size": 1}), tmp_path / "one", quiet=True)
    assert json.loads((tmp_path / "one" / "results.json").read_text())["status"] == "failed"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["inspect", "RUN", "x"], "RUN ("),
        (["score", "RUN", "a", "b"], "RUN ("),
        (["predict", "RUN", "a", "--ensemble", "OTHER"], "--ensemble ("),
        (["predict", "OTHER", "a", "--ensemble", "RUN"], "--ensemble ("),
        (["match", "cnn", "--like", "RUN"], "--like ("),
    ],
)
def test_what_a_linear_run_cannot_do_is_one_line(
    linear: Path, transformer: Path, arguments: list[str], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        main([str({"RUN": linear, "OTHER": transformer}.get(a, a)) for a in arguments])
    err = capsys.readouterr().err
    assert left.value.code == 2 and err.startswith(line) and str(linear) in err and err.count("\n") == 1
