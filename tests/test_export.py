"""`minitx export`: folders, programs and ONNX models say what the run says, also read by other programs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from study_helpers import composer
from tiny import TINY_MODEL, TINY_TRAINER, lines_of

import minitx
from minitx.batch import CLS, EOS, Batch
from minitx.cli import main
from minitx.config.load import load
from minitx.data.pipeline.tokenizer import Tokenizer
from minitx.errors import ConfigError, RunError
from minitx.export import ONNX_MODEL, PROGRAM, export_run, push, with_special_tokens
from minitx.training.run import run

TEXTS = ["red lamp", "a river of stone green", "blue " * 20, "quickly [PAD] of", ""]
KINDS = {
    "sinusoidal": ["model.position=sinusoidal"],
    "learned-cls": ["model.position=learned", "model.pooling=cls"],
    "rotary-window": ["model.position=rotary", "model.attention.span=window", "model.attention.window=2"],
    "grouped-attention-pooling": ["model.attention.heads=grouped", "model.pooling=attention"],
    "shared-keys": ["model.attention.n_kv_heads=1", "model.position=none"],
    "cnn": ["model=cnn", "model.n_layers=2"],
    "bag": ["model=bag"],
}


def trained(classes: dict[str, Any], overrides: list[str], folder: Path) -> Path:
    short = {**TINY_TRAINER, "max_steps": 8, "eval_every": 8}
    linear = load({"data": classes, "model": {"kind": "linear"}, "trainer": short})
    net = composer(classes)([*overrides, "trainer.max_steps=8", "trainer.eval_every=8"]) if overrides else linear
    run(net, folder, quiet=True)
    return folder


@pytest.fixture(scope="module")
def classifier(tiny_classes: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    return trained(tiny_classes, KINDS["rotary-window"], tmp_path_factory.mktemp("classifier") / "run")


@pytest.fixture(scope="module")
def onnx(classifier: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("onnx") / "exported"
    export_run(classifier, folder, "onnx")
    return folder


def by_run(folder: Path, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    [model] = minitx.load(str(folder), device="cpu").nets().models
    with torch.no_grad():
        logits = model(Batch(rows=ids[:, 0], src=ids, src_mask=mask, targets=ids[:, 0]))
    return torch.as_tensor(logits.softmax(-1))


def some_batch(rng: np.random.Generator, vocab: int, longest: int) -> tuple[torch.Tensor, torch.Tensor]:
    n_rows, length = int(rng.integers(1, 20)), int(rng.integers(8, longest + 1))
    ids = torch.from_numpy(rng.integers(5, vocab, (n_rows, length)))
    ids[:, 0] = CLS
    mask = torch.arange(length) < torch.from_numpy(rng.integers(1, length + 1, (n_rows, 1)))
    return ids.masked_fill(~mask, 0), mask


@pytest.mark.parametrize("kind", KINDS)
def test_a_program_says_what_the_run_says_at_any_shape(kind: str, tiny_classes: dict[str, Any], tmp_path: Path) -> None:
    folder = trained(tiny_classes, KINDS[kind], tmp_path / "run")
    export_run(folder, tmp_path / "out", "torch")
    program = torch.export.load(tmp_path / "out" / PROGRAM).module()
    rng, vocab = np.random.default_rng(1), minitx.load(str(folder)).processor.src_tokenizer.vocab_size
    for _ in range(20):
        ids, mask = some_batch(rng, vocab, 13)
        torch.testing.assert_close(program(ids, mask), by_run(folder, ids, mask), rtol=0, atol=1e-5)


def test_an_onnx_model_says_what_the_run_says(classifier: Path, onnx: Path) -> None:
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(onnx / ONNX_MODEL), providers=["CPUExecutionProvider"])
    rng, vocab = np.random.default_rng(2), minitx.load(str(classifier)).processor.src_tokenizer.vocab_size
    for _ in range(100):
        ids, mask = some_batch(rng, vocab, 13)
        [found] = session.run(None, {"ids": ids.numpy(), "mask": mask.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), by_run(classifier, ids, mask), rtol=0, atol=1e-5)


def test_its_script_needs_no_minitx(classifier: Path, onnx: Path) -> None:
    script = (onnx / "run.py").read_text()
    assert "minitx" not in script and "torch" not in script
    called = subprocess.run(
        [sys.executable, str(onnx / "run.py"), *TEXTS], capture_output=True, text=True, check=True, cwd=onnx.parent
    )
    labels = [line.split("\t")[0] for line in called.stdout.splitlines()]
    assert labels == minitx.load(str(classifier)).predict(TEXTS)


def test_a_folder_is_loaded_in_place_of_the_run(classifier: Path, tmp_path: Path) -> None:
    written = export_run(classifier, tmp_path / "hub")
    assert {path.name for path in written} == {
        "README.md", "config.yaml", "model.safetensors", "results.json", "state.json", "tokenizer.json",
        "tokenizer_config.json",
    }  # fmt: skip
    assert minitx.load(str(tmp_path / "hub")).predict(TEXTS) == minitx.load(str(classifier)).predict(TEXTS)
    text = (tmp_path / "hub" / "config.yaml").read_text() + (tmp_path / "hub" / "README.md").read_text()
    assert str(classifier.parent) not in text and "/" not in load_yaml(tmp_path / "hub")["data"]["path"]
    metrics = json.loads((classifier / "results.json").read_text())["metrics"]["test"]
    assert f"| accuracy | {metrics['accuracy']['value']:.4f} |" in (tmp_path / "hub" / "README.md").read_text()
    weights = tmp_path / "hub" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"!")
    with pytest.raises(RunError, match=r"model\.safetensors has changed since it was written"):
        minitx.load(str(tmp_path / "hub"))


def test_an_exported_folder_can_be_exported_again(classifier: Path, tmp_path: Path) -> None:
    export_run(classifier, tmp_path / "one")
    export_run(tmp_path / "one", tmp_path / "two")
    assert minitx.load(str(tmp_path / "two")).predict(TEXTS) == minitx.load(str(classifier)).predict(TEXTS)


def test_without_its_packages_nothing_is_written(
    classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"--to \(onnx\) must have onnx installed; pip install 'minitx\[export\]'"):
        export_run(classifier, tmp_path / "out", "onnx")
    assert not (tmp_path / "out").exists()


def load_yaml(folder: Path) -> Any:
    import yaml

    return yaml.safe_load((folder / "config.yaml").read_text())


@pytest.mark.parametrize("lead", [True, False])
def test_other_programs_read_the_same_ids(classifier: Path, lead: bool) -> None:
    own = minitx.load(str(classifier)).processor.src_tokenizer
    exported = with_special_tokens(own.to_json(), lead)
    theirs = tokenizers.Tokenizer.from_str(exported)
    theirs.encode_special_tokens = True
    for text, ids in zip(TEXTS, own.encode_batch(TEXTS), strict=True):
        assert theirs.encode(text).ids == ([CLS, *ids] if lead else [*ids, EOS])
    assert Tokenizer.from_json(exported).encode_batch(TEXTS) == own.encode_batch(TEXTS), "minitx adds its own"


def test_transformers_reads_the_tokenizer(classifier: Path, tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    export_run(classifier, tmp_path / "hub")
    theirs = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path / "hub")
    own = minitx.load(str(classifier)).processor.src_tokenizer
    assert theirs(TEXTS)["input_ids"] == [[CLS, *ids] for ids in own.encode_batch(TEXTS)]
    assert (theirs.pad_token_id, theirs.cls_token_id, theirs.eos_token_id) == (0, CLS, EOS)


def test_a_translator_leaves_as_a_folder(tiny_data: dict[str, Any], tmp_path: Path) -> None:
    run(load({"data": tiny_data, "model": TINY_MODEL, "trainer": TINY_TRAINER}), tmp_path / "run", quiet=True)
    export_run(tmp_path / "run", tmp_path / "hub")
    words = ["bad", "cabbage"]
    assert minitx.load(str(tmp_path / "hub")).predict(words) == minitx.load(str(tmp_path / "run")).predict(words)
    with pytest.raises(ConfigError, match=r"RUN .* must be a classifier, its task is translation; --to hub takes"):
        export_run(tmp_path / "run", tmp_path / "onnx", "onnx")
    assert not (tmp_path / "onnx").exists()


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (["model=lstm"], "must be a transformer, cnn or bag, it is lstm"),
        (["model.attention.span=sentence"], "must not read sentences"),
        (["model.chunk=5"], "must read texts whole"),
        (["data.max_length=8"], r"must read more than 8 tokens \(data.max_length is 8\)"),
    ],
)
def test_what_has_no_such_form_is_refused(
    overrides: list[str], line: str, tiny_classes: dict[str, Any], tmp_path: Path
) -> None:
    folder = trained(tiny_classes, overrides, tmp_path / "run")
    with pytest.raises(ConfigError, match=line):
        export_run(folder, tmp_path / "out", "torch")
    assert export_run(folder, tmp_path / "out")


def test_a_linear_run_leaves_too(tiny_classes: dict[str, Any], tmp_path: Path) -> None:
    folder = trained(tiny_classes, [], tmp_path / "run")
    export_run(folder, tmp_path / "hub")
    assert minitx.load(str(tmp_path / "hub")).predict(TEXTS[:2]) == minitx.load(str(folder)).predict(TEXTS[:2])
    with pytest.raises(ConfigError, match="must be a run of a net to be exported so"):
        export_run(folder, tmp_path / "out", "onnx")


def test_the_command_writes_only_into_a_new_folder(
    classifier: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = lines_of(capsys, "export", classifier, "-o", tmp_path / "hub")
    assert str(tmp_path / "hub" / "README.md") in out
    with pytest.raises(SystemExit) as stop:
        main(["export", str(classifier), "-o", str(tmp_path / "hub")])
    assert stop.value.code == 2 and "must be a new folder" in capsys.readouterr().err


def test_an_upload_and_one_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[tuple[str, str]] = []

    class Hub:
        def create_repo(self, name: str, exist_ok: bool) -> str:
            return f"https://hub/{name}"

        def upload_folder(self, repo_id: str, folder_path: Path) -> None:
            sent.append((repo_id, str(folder_path)))

    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    assert push(tmp_path, "me/mine") == "https://hub/me/mine" and sent == [("me/mine", str(tmp_path))]

    def fail(*_: object, **__: object) -> None:
        raise OSError("no network\nand more")

    monkeypatch.setattr(Hub, "upload_folder", fail)
    with pytest.raises(RunError, match=r"is written, but not uploaded as me/mine \(no network\)"):
        push(tmp_path, "me/mine")


def test_a_name_on_the_hub_is_fetched(classifier: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    export_run(classifier, tmp_path / "hub")
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda name: str(tmp_path / "hub"))
    assert minitx.load("me/mine").predict(TEXTS) == minitx.load(str(classifier)).predict(TEXTS)

    def fail(name: str) -> str:
        raise OSError("no network")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    with pytest.raises(
        ConfigError, match=r"run \(me/mine\) must be a run folder .*; nor is it on the hub \(no network\)"
    ):
        minitx.load("me/mine")
