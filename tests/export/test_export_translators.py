"""Exported translators write what the run writes, token for token: encoder and cached step, and the folder's script."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from export_helpers import answers_of_script
from tiny import TINY_MODEL, TINY_TRAINER

import minitx
from minitx.batch import BOS, EOS
from minitx.config.load import load
from minitx.errors import RunError
from minitx.export import translator as module
from minitx.export.write import Form, export_run
from minitx.nn.translator import Translator
from minitx.training.run import run

MODELS: dict[str, dict[str, Any]] = {
    "sinusoidal": TINY_MODEL,
    "rotary-window": {**TINY_MODEL, "position": "rotary", "attention": {"span": "window", "window": 3}},
    "learned-sentence": {**TINY_MODEL, "n_decoder_layers": 2, "position": "learned", "attention": {"span": "sentence"}},
    "shared-keys": {**TINY_MODEL, "position": "none", "attention": {"n_kv_heads": 1}},
    "lstm": {"kind": "lstm", "d_model": 14, "n_layers": 2, "hidden": 11, "pooling": "mean"},
}


def train(data: dict[str, Any], model: dict[str, Any], folder: Path) -> Path:
    trainer = {**TINY_TRAINER, "max_steps": 40, "eval_every": 40}
    run(load({"data": data, "model": model, "trainer": trainer}), folder, quiet=True)
    return folder


def some_words(n: int) -> list[str]:
    rng = random.Random(7)
    words = ["".join(rng.choices("abcdefg", k=rng.randint(1, 11))) for _ in range(n - 3)]
    return [*words, "", "bad. cab", "[EOS] zz"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "form"), [*((kind, "torch") for kind in MODELS), ("learned-sentence", "onnx"), ("lstm", "onnx")]
)
def test_it_writes_what_the_run_writes(kind: str, form: Form, tiny_data: dict[str, Any], tmp_path: Path) -> None:
    """The export compares at several shapes; the script is called with texts."""
    folder = train(tiny_data, MODELS[kind], tmp_path / "run")
    written = {path.name for path in export_run(folder, tmp_path / "out", form)}
    ending = {"torch": ".pt2", "onnx": ".onnx"}[form]
    assert {f"encoder{ending}", f"step{ending}", "signature.json"} <= written
    if form == "onnx":
        pytest.importorskip("onnxruntime")
        words = some_words(43)
        outputs = [output for output, _ in answers_of_script(tmp_path / "out", words)]
        assert outputs == minitx.load(str(folder)).predict(words)
        assert len(set(outputs)) > 3, "they differ, so that they can be mixed up"


@pytest.mark.slow
def test_decoding_by_torch_programs_needs_no_minitx(tiny_data: dict[str, Any], tmp_path: Path) -> None:
    """As a reader of signature.json would write it, up to the limit on the output of an untrained model."""
    folder = train(tiny_data, MODELS["rotary-window"], tmp_path / "run")
    export_run(folder, tmp_path / "out", "torch")
    encoder, step = (torch.export.load(tmp_path / "out" / f"{name}.pt2").module() for name in ("encoder", "step"))
    predictor = minitx.load(str(folder), device="cpu")
    [model] = predictor.nets().models
    assert isinstance(model, Translator)
    [ids] = predictor.processor.src_tokenizer.encode_batch(["abcdefg"])
    row = [*ids, EOS]
    mask = torch.arange(11)[None] < len(row)
    memory, cache = encoder(torch.tensor([row + [0] * (11 - len(row))]), mask)
    assert all(tensor.shape[2] == 0 for tensor in cache), "it starts empty"
    token, written = torch.tensor([[BOS]]), list[int]()
    while token.item() != EOS and len(written) < model.output_limit(len(row)):
        logits, cache = step(token, mask, memory, cache)
        token = logits.argmax(-1, keepdim=True)
        written.append(int(token))
    assert predictor.processor.text(written) == predictor.predict(["abcdefg"])[0]


def test_programs_that_write_otherwise_are_refused(
    tiny_data: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = train(tiny_data, TINY_MODEL, tmp_path / "run")
    right = module.write_program

    def wrong(program: Any, place: Path, name: str, form: Any) -> Any:
        made = right(program, place, name, form)

        def run(*inputs: Any) -> Any:
            found = made(*inputs)
            return found if name == "encoder" else [found[0].roll(1, -1), *found[1:]]

        return run

    monkeypatch.setattr(module, "write_program", wrong)
    with pytest.raises(RunError, match=r"differs by .* from the run on token 1 of 1 rows of 8 tokens"):
        export_run(folder, tmp_path / "out", "torch")
    assert not (tmp_path / "out").exists()
