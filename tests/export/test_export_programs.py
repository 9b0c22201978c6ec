"""Exported classifiers say what the run says, at any shape, as programs of torch, as ONNX and as arrays."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from export_helpers import TEXTS, answers_of_script, train_classifier
from torch import Tensor

import minitx
from minitx.batch import CLS, Batch
from minitx.config import NetConfig
from minitx.errors import ConfigError, RunError
from minitx.export.write import export_run
from minitx.nn.classifier import Classifier
from minitx.training.checkpoint_files import load_checkpoint, write_checkpoint
from minitx.training.saver import WEIGHTS

KINDS = {
    "sinusoidal-wide-window": ["model.attention.span=window", "model.attention.window=8"],
    "learned-cls": ["model.position=learned", "model.pooling=cls"],
    "rotary-window": ["model.position=rotary", "model.attention.span=window", "model.attention.window=2"],
    "grouped-attention-pooling": ["model.attention.heads=grouped", "model.pooling=attention"],
    "shared-keys": ["model.attention.n_kv_heads=1", "model.position=none"],
    "sentences": ["model.attention.span=sentence"],
    "chunks": ["model.chunk=5"],
    "chunks-of-sentences": ["model.chunk=3", "model.attention.span=sentence", "model.position=learned"],
    "one-chunk": ["model.chunk=13", "model.position=learned"],
    "cnn": ["model=cnn", "model.n_layers=2"],
    "lstm": ["model=lstm", "model.pooling=additive"],
    "lstm-last": ["model=lstm", "model.n_layers=2", "model.pooling=last"],
    "bag": ["model=bag", "model.ngrams=3"],
}
"""What texts of up to 13 tokens are read by."""
BY_ONNX = ("sinusoidal-wide-window", "chunks-of-sentences", "lstm-last", "bag")
Program = Callable[..., Tensor]


def onnx_program(file: Path) -> Program:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def run(*inputs: Tensor) -> Tensor:
        arrays = [tensor.numpy() for tensor in inputs]
        return torch.from_numpy(session.run(None, dict(zip(names, arrays, strict=True)))[0])

    return run


def check_says_what_the_run_says(program: Program, folder: Path, n_batches: int) -> None:
    """On batches of random shapes, with the filling that the signature asks for."""
    predictor = minitx.load(str(folder), device="cpu")
    [model] = predictor.nets().models
    assert isinstance(model, Classifier)
    rng = np.random.default_rng(1)
    for _ in range(n_batches):
        n_rows, length = int(rng.integers(1, 20)), int(rng.integers(8, 14))
        filled = length + -length % (model.chunk or 1)
        ids = torch.from_numpy(rng.integers(5, predictor.processor.src_tokenizer.vocab_size, (n_rows, filled)))
        ids[:, 0] = CLS
        mask = torch.arange(filled) < torch.from_numpy(rng.integers(1, length + 1, (n_rows, 1)))
        ids = ids.masked_fill(~mask, 0)
        sentence = torch.from_numpy((rng.random((n_rows, filled)) < 0.3).cumsum(1))
        net = predictor.config.model
        inputs = (ids, mask, sentence) if isinstance(net, NetConfig) and net.reads_sentences else (ids, mask)
        batch = Batch(rows=ids[:, 0], src=ids, src_mask=mask, sentence=sentence, targets=ids[:, 0])
        with torch.no_grad():
            wanted = model(batch).softmax(-1)
        torch.testing.assert_close(program(*inputs), wanted, rtol=0, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_a_program_says_what_the_run_says_at_any_shape(kind: str, tiny_classes: dict[str, Any], tmp_path: Path) -> None:
    folder = train_classifier(tiny_classes, KINDS[kind], tmp_path / "run")
    export_run(folder, tmp_path / "out", "torch")
    check_says_what_the_run_says(torch.export.load(tmp_path / "out" / "model.pt2").module(), folder, 20)


@pytest.mark.slow
@pytest.mark.parametrize("kind", BY_ONNX)
def test_an_onnx_model_and_its_script_say_what_the_run_says(
    kind: str, tiny_classes: dict[str, Any], tmp_path: Path
) -> None:
    folder = train_classifier(tiny_classes, KINDS[kind], tmp_path / "run")
    export_run(folder, tmp_path / "out", "onnx")
    check_says_what_the_run_says(onnx_program(tmp_path / "out" / "model.onnx"), folder, 30)
    for likeliest, (label, probability, text) in zip(
        minitx.load(str(folder)).likeliest(TEXTS, 1), answers_of_script(tmp_path / "out", TEXTS), strict=True
    ):
        assert (label, text) == (likeliest[0].text, text)
        assert float(probability) == pytest.approx(likeliest[0].probability, abs=1e-4)


def test_the_temperature_is_part_of_the_program(classifier: Path, tmp_path: Path) -> None:
    """Of a calibrated run: the same weights at temperature 3 give the tempered probabilities."""
    export_run(classifier, tmp_path / "hub")
    checkpoint = load_checkpoint(tmp_path / "hub")
    ids, mask = torch.tensor([[CLS, 7, 6, 5, 8, 9, 6, 7]]), torch.ones(1, 8, dtype=torch.bool)
    found = []
    for temperature in (1.0, 3.0):
        folder, weights = tmp_path / f"at_{temperature:g}", dict(checkpoint.tensors[WEIGHTS])
        folder.mkdir()
        weights["temperature"] = torch.tensor(temperature)
        write_checkpoint(folder, replace(checkpoint, tensors={WEIGHTS: weights}))
        shutil.copy(tmp_path / "hub" / "config.yaml", folder)
        export_run(folder, folder / "out", "torch")
        found.append(torch.export.load(folder / "out" / "model.pt2").module()(ids, mask).double())
    torch.testing.assert_close(found[1], (found[0].log() / 3).softmax(-1), rtol=0, atol=1e-6)
    assert (found[1] - found[0]).abs().max() > 1e-3


def test_arrays_and_their_script_say_what_a_linear_run_says(tiny_classes: dict[str, Any], tmp_path: Path) -> None:
    folder = train_classifier(tiny_classes, ["model=linear"], tmp_path / "run")
    export_run(folder, tmp_path / "out", "numpy")
    model = minitx.load(str(folder))
    for likeliest, (label, probability, _) in zip(
        model.likeliest(TEXTS, 1), answers_of_script(tmp_path / "out", TEXTS), strict=True
    ):
        assert label == likeliest[0].text
        assert float(probability) == pytest.approx(likeliest[0].probability, abs=1e-4)
    assert minitx.load(str(tmp_path / "out")).predict(TEXTS) == model.predict(TEXTS)
    with pytest.raises(ConfigError, match=r"must be a run of a net .*; --to numpy is for model=linear"):
        export_run(folder, tmp_path / "onnx", "onnx")


def test_a_net_has_no_arrays(classifier: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"must be of model=linear; --to torch and --to onnx are for nets"):
        export_run(classifier, tmp_path / "out", "numpy")


def test_a_program_that_says_otherwise_is_refused(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from minitx.export import classifier as module

    right = module.write_program

    def wrong(*arguments: Any) -> Any:
        run = right(*arguments)
        return lambda *inputs: [tensor + 2e-5 for tensor in run(*inputs)]

    monkeypatch.setattr(module, "write_program", wrong)
    with pytest.raises(RunError, match=r"the exported program differs by 2.0e-05 from the run on 1 rows of 8 tokens"):
        export_run(classifier, tmp_path / "out", "torch")
    assert not list(tmp_path.iterdir())
