"""`minitx match`: what it prints can be pasted, and builds a model of that size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny import TINY_MODEL, TINY_TRAINER

from minitx.cli import main
from minitx.cli.match import match_run
from minitx.config import ConfigError, NetConfig
from minitx.config.load import load, override_tree
from minitx.nn.build import build_model
from minitx.nn.sizes import ModelShape
from minitx.training.run import run

MODEL = {**TINY_MODEL, "pooling": "attention", "d_ff": 71}


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory, tiny_data: dict[str, Any]) -> Path:
    data = {"source": "digits", "task": "classification", "name": "digits", "cache_dir": tiny_data["cache_dir"]}
    raw = {"data": {**data, "tokenizer": {"kind": "word"}}, "model": MODEL, "trainer": {**TINY_TRAINER, "max_steps": 1}}
    folder = tmp_path_factory.mktemp("digits") / "run"
    run(load(raw), folder, quiet=True)
    return folder


def size(config: NetConfig) -> int:
    shape = ModelShape(task="classification", src_vocab=23, n_classes=10, max_length=256)
    named = build_model(config, shape).named_parameters()
    return sum(p.numel() for name, p in named if not name.startswith("src_tokens."))


@pytest.mark.parametrize(
    ("kind", "overrides"),
    [
        ("cnn", ["model.n_layers=2", "model.kernel=5", "model.dropout=0.3"]),
        ("lstm", []),
        ("transformer", ["model.norm=post"]),
    ],
)
def test_the_printed_line_builds_a_model_of_that_size(
    digits: Path, kind: str, overrides: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    raw = yaml.safe_load((digits / "config.yaml").read_text())
    target = size(load(raw).model)  # type: ignore[arg-type]
    main(["match", kind, "--like", str(digits), *overrides])
    line, comment = capsys.readouterr().out.splitlines()
    first, *rest = line.split(" ")
    assert first == f"model={kind}" and set(overrides) <= set(rest) and "model.d_model=16" in rest
    typed = override_tree({**raw, "model": {"kind": kind}}, rest).model
    assert isinstance(typed, NetConfig)
    assert abs(size(typed) - target) <= 0.05 * target
    shown = f"# {size(typed):,} non-embedding parameters, {target:,} in {digits}: "
    assert comment == f"{shown}{100 * (size(typed) - target) / target:+.2f} %"


def test_a_configuration_does_as_well_as_its_run(digits: Path) -> None:
    assert match_run("cnn", digits / "config.yaml") == match_run("cnn", digits)


@pytest.mark.parametrize(
    ("kind", "overrides", "message"),
    [
        ("bag", [], r"model \(bag\) must not be matched in size"),
        ("linear", [], r"model \(linear\) must not be matched in size"),
        ("cn", [], r"MODEL \(cn\) must be one of transformer, cnn, lstm, bag, linear"),
        ("cnn", ["model.channels=3"], r"model.channels=3 must be a key of the model other than model.d_model \("),
        ("cnn", ["seed=3"], r"seed=3 must be a key of the model"),
        ("cnn", ["model.n_heads=3"], r"unknown key 'model.n_heads' of model=cnn"),
        ("cnn", ["model.n_layers=99"], r"model.channels \(1\) must bring .* within 5 % .*; change model.n_layers"),
    ],
)  # fmt: skip
def test_mistakes_name_the_remedy(digits: Path, kind: str, overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        match_run(kind, digits, overrides)


def test_like_must_be_a_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^--like \(.*\) must be a run folder with a config.yaml"):
        match_run("cnn", tmp_path)
    file = tmp_path / "list.yaml"
    file.write_text("- 1\n")
    with pytest.raises(ConfigError, match=r"--like \(.*list.yaml\) must be a run folder or the config.yaml of one"):
        match_run("cnn", file)
