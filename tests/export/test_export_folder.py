"""`minitx export`: folders that minitx, other programs and the hub read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from export_helpers import TEXTS, train_classifier
from tiny import TINY_MODEL, TINY_TRAINER, lines_of

import minitx
from minitx.batch import CLS, EOS
from minitx.cli import main
from minitx.config.load import load
from minitx.data.pipeline.tokenizer import Tokenizer
from minitx.errors import ConfigError, RunError
from minitx.export.hub import push, with_special_tokens
from minitx.export.write import Form, export_run
from minitx.training.run import run


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


@pytest.mark.parametrize("form", ["torch", "onnx"])
def test_programs_need_texts_of_some_length(form: Form, tiny_classes: dict[str, Any], tmp_path: Path) -> None:
    folder = train_classifier(tiny_classes, ["data.max_length=8"], tmp_path / "run")
    with pytest.raises(ConfigError, match=r"must read more than 8 tokens \(data.max_length is 8\); --to hub takes"):
        export_run(folder, tmp_path / "out", form)
    assert [path.name for path in tmp_path.iterdir()] == ["run"], "nothing is left of it"
    assert export_run(folder, tmp_path / "out")


def test_a_masked_model_leaves_as_a_folder_alone(tiny_classes: dict[str, Any], tmp_path: Path) -> None:
    folder = train_classifier(tiny_classes, ["data.task=masked"], tmp_path / "run")
    with pytest.raises(ConfigError, match=r"must be a classifier or a translator, its task is masked; --to hub takes"):
        export_run(folder, tmp_path / "out", "torch")
    assert export_run(folder, tmp_path / "out")


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
