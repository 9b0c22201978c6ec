"""A whole run of every kind of classifier, and what can be done with it afterwards."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minitx
from minitx.cli import main
from minitx.config import Config, ConfigError
from minitx.config.load import load
from minitx.data import load_data
from minitx.decoding.text import TextProcessor
from minitx.predictor import Predictor
from minitx.training import run as session

KINDS: list[Any] = [
    pytest.param({"kind": "transformer", "n_heads": 2, "chunk": 5, "pooling": "max"}, id="transformer"),
    pytest.param({"kind": "cnn", "channels": 11, "dilation": 2}, id="cnn"),
    pytest.param({"kind": "lstm", "hidden": 7, "pooling": "last"}, id="lstm"),
    pytest.param({"kind": "bag", "ngrams": 2, "buckets": 101}, id="bag"),
]
ALL_AT_ONCE = {"lr": 0.02, "schedule": "constant", "warmup_steps": 0, "label_smoothing": 0.1, "r_drop": 1.0}
NOISE = {"dropout": 0.1, "token_dropout": 0.05, "word_dropout": 0.05}


@pytest.fixture(autouse=True)
def no_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take longer than all the rest, and have tests of their own."""
    monkeypatch.setattr("minitx.training.tensorboard.Board.figure", lambda *_: None)


@pytest.fixture
def configured(tiny_classes: dict[str, Any]) -> Callable[..., Config]:
    """A classifier with every kind of regularisation, averaged; keyword arguments are of the trainer."""
    from tiny import TINY_TRAINER

    def make(model: dict[str, Any], **trainer: Any) -> Config:
        common = {**TINY_TRAINER, "average": {"kind": "ema", "decay": 0.5}, "resume": "auto", **trainer}
        optim = ALL_AT_ONCE
        return load(
            {"data": tiny_classes, "model": {"d_model": 12, **NOISE, **model}, "optim": optim, "trainer": common}
        )

    return make


@pytest.mark.parametrize("model", KINDS)
def test_from_data_to_answers(configured: Callable[..., Config], tmp_path: Path, model: dict[str, Any]) -> None:
    """It learns; what the run found is what its folder gives, from Python and from the command line."""
    config = configured(model, max_steps=60, eval_every=20)
    results = session.run(config, tmp_path / "run", quiet=True)
    accuracy = results["metrics"]["test"]["accuracy"]["value"]
    assert accuracy > 0.6, "a third without learning"
    assert results["model"] == model["kind"]
    loaded = minitx.load(str(tmp_path / "run"))
    evaluated = loaded.evaluate()
    assert evaluated.metrics["accuracy"].value == accuracy
    data = load_data(config.data)
    assert loaded.processor == TextProcessor.of(data, 13, "tail")
    test = data.splits["test"]
    assert test.n_cut > 0
    texts = [test.text(row) for row in range(len(test))]
    assert [loaded.predict([text])[0] for text in texts[:7]] == evaluated.predictions[:7]
    assert loaded.predict(texts) == evaluated.predictions


@pytest.mark.parametrize("model", KINDS)
def test_a_run_that_goes_on_is_the_run_that_was_longer(
    configured: Callable[..., Config], tmp_path: Path, model: dict[str, Any]
) -> None:
    """Bit for bit, on both checkpoints: weights, moments, the average and the random numbers that come next. In 16
    bits, while the test above has 32."""
    short, longer = (configured(model, max_steps=steps, eval_every=5, precision="bf16") for steps in (10, 20))
    session.run(short, tmp_path / "two", quiet=True)
    session.run(longer, tmp_path / "two", quiet=True)
    session.run(longer, tmp_path / "one", quiet=True)
    for file in sorted((tmp_path / "one" / "checkpoints").glob("*/*.safetensors")):
        place = file.relative_to(tmp_path / "one")
        assert (tmp_path / "two" / place).read_bytes() == file.read_bytes(), place
    one, two = (json.loads((tmp_path / name / "results.json").read_text()) for name in ("one", "two"))
    assert one["metrics"] == two["metrics"] and one["best_step"] == two["best_step"]
    assert one["precision"] == "bf16"


def test_the_command_line_answers_and_says_what_it_read(
    configured: Callable[..., Config], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session.run(configured({"kind": "bag", "buckets": 101}, max_steps=60), tmp_path / "run", quiet=True)
    long = "red " + "stone " * 12 + "green"
    main(["predict", str(tmp_path / "run"), long, "river of blue"])
    printed = capsys.readouterr()
    assert printed.out.split() == minitx.load(str(tmp_path / "run")).predict(["stone " * 11 + "green", "river of blue"])
    assert printed.err == (
        "warning: 1 of 2 texts are longer than data.max_length (13 tokens); of them the last tokens were read\n"
    )
    main(["evaluate", str(tmp_path / "run")])
    assert "accuracy" in capsys.readouterr().out


def test_runs_that_read_other_parts_are_no_ensemble(
    configured: Callable[..., Config], tmp_path: Path, tiny_classes: dict[str, Any]
) -> None:
    """Nor is one evaluated on data cut in another way: overrides do not reach what the model was trained to read."""
    config = configured({"kind": "bag", "buckets": 101})
    head = config.model_copy(update={"data": config.data.model_copy(update={"truncate": "head"})})
    for name, one in (("tail", config), ("head", head)):
        session.run(one, tmp_path / name, quiet=True)
    with pytest.raises(ConfigError, match=r"^--ensemble \(.*head\) must read and write as .*data\.truncate; "):
        Predictor.from_run(tmp_path / "tail", ensemble=[tmp_path / "head"])
    tail = Predictor.from_run(tmp_path / "tail")
    assert tail.evaluate(overrides=["data.truncate=head"]).loss == tail.evaluate().loss


def test_calibration_fits_a_temperature_on_validation(
    configured: Callable[..., Config], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Predictions stay; validation rows are as likely as any divisor makes them; whoever loads the run has it too. A
    run that is killed before its results are written, and one that goes on, come to the same."""
    plain = configured({"kind": "cnn", "channels": 11}, max_steps=20, eval_every=10)
    fitted = plain.model_copy(update={"trainer": plain.trainer.model_copy(update={"calibrate": True})})
    before = session.run(plain, tmp_path / "plain", quiet=True)

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(session, "write_results", killed)
        session.run(fitted, tmp_path / "fitted", quiet=True)
    after = session.run(fitted, tmp_path / "fitted", quiet=True)
    assert after["metrics"]["test"]["accuracy"] == before["metrics"]["test"]["accuracy"]
    assert after["loss"]["validation"] < before["loss"]["validation"]
    assert after["temperature"] != pytest.approx(1, abs=0.01)
    assert "temperature" not in before
    raw = minitx.load(str(tmp_path / "plain")).evaluate("validation").log_probs
    loaded = minitx.load(str(tmp_path / "fitted")).evaluate("validation")
    assert raw is not None
    assert loaded.log_probs is not None
    scaled = raw.astype(np.float64) / after["temperature"]
    expected = scaled - np.logaddexp.reduce(scaled, axis=1, keepdims=True)
    np.testing.assert_allclose(loaded.log_probs, expected, atol=1e-4)
    longer = fitted.model_copy(update={"trainer": fitted.trainer.model_copy(update={"max_steps": 30})})
    anew = session.run(longer, tmp_path / "anew", quiet=True)
    on = session.run(longer, tmp_path / "fitted", quiet=True)
    assert on["temperature"] == anew["temperature"]
    assert on["loss"] == anew["loss"]
