"""What every test shares: tiny configurations, and the local copies of public data where there are any."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

if "PYTEST_XDIST_WORKER" in os.environ:  # workers divide the cores
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch  # reads the number of threads
from tiny import (
    SHARED_DATA,
    TINY_CLASSES,
    TINY_DATA,
    TINY_MODEL,
    TINY_TRAINER,
    Output,
    tiny_overrides,
    write_colours,
    write_spelling,
)

import train
from minitx.config import Config
from minitx.config.load import load


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """gpu tests skip themselves where there is no GPU."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):  # not its keywords: a folder called gpu is among those
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture
def shared_data() -> Path:
    """The folder of local copies of public data sets."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no local copies of the public data sets at {SHARED_DATA} (set MINITX_SHARED_DATA)")
    return SHARED_DATA


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Words to spell out, in the user's own format, and one cache of prepared data for all tests."""
    folder = tmp_path_factory.mktemp("data")
    write_spelling(folder / "spelling.csv")
    return {**TINY_DATA, "path": str(folder / "spelling.csv"), "cache_dir": str(folder / "cache")}


@pytest.fixture(scope="session")
def tiny_classes(tiny_data: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Of texts some of which are longer than is read."""
    path = tmp_path_factory.mktemp("classes") / "colours.csv"
    write_colours(path)
    return {**TINY_CLASSES, "path": str(path), "cache_dir": tiny_data["cache_dir"]}


@pytest.fixture
def tiny(tiny_data: dict[str, Any]) -> Callable[..., Config]:
    """A run of a second; keyword sections go on top: tiny(trainer={"max_steps": 3})."""

    def make(**sections: Mapping[str, Any] | int) -> Config:
        raw: dict[str, Any] = {
            "data": tiny_data,
            "model": TINY_MODEL,
            "optim": {"lr": 3e-3},
            "trainer": TINY_TRAINER,
            "seed": 0,
        }
        for name, value in sections.items():
            raw[name] = {**raw.get(name, {}), **value} if isinstance(value, Mapping) else value
        return load(raw)

    return make


@pytest.fixture(scope="session")
def classifier(tmp_path_factory: pytest.TempPathFactory, tiny_data: dict[str, Any]) -> Path:
    """A run of digits."""
    folder = tmp_path_factory.mktemp("classifier") / "run"
    data = {"source": "digits", "task": "classification", "name": "digits", "cache_dir": tiny_data["cache_dir"]}
    raw = {"data": {**data, "tokenizer": {"kind": "word"}}, "model": TINY_MODEL, "trainer": TINY_TRAINER}
    from minitx.training.run import run

    run(load(raw), folder, quiet=True)
    return folder


@pytest.fixture
def train_py(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str], tiny_data: dict[str, Any]
) -> Callable[..., Output]:
    """`python train.py ...` in this process, in an empty folder, on the tiny configuration."""
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")
    monkeypatch.chdir(tmp_path)
    small = tiny_overrides(tiny_data)

    def command(*arguments: str, bare: bool = False) -> Output:
        flags = [a for a in arguments if a.startswith("-")]
        typed = [a for a in arguments if not a.startswith("-")]
        monkeypatch.setattr(sys, "argv", ["train.py", *flags, *([] if bare else small), *typed])
        code = 0
        try:
            train.entry()
        except SystemExit as left:
            code = left.code if isinstance(left.code, int) else 1
        printed = capfd.readouterr()
        return Output(code, printed.out, printed.err)

    return command
