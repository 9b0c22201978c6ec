"""What a training process does to itself: it takes effect, it is switchable, and importing minitx does none of it."""

from __future__ import annotations

import gc
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from minitx.config import SpeedConfig
from minitx.nn import layers
from minitx.training import device as process
from minitx.training.device import PRIMITIVES, frozen_garbage, prepare_process

CPU = torch.device("cpu")
PLAIN = SpeedConfig(keep_memory=False, onednn="off", fast_dropout=False, flush_denormals=False, freeze_gc=False)


@pytest.fixture
def as_before() -> Iterator[None]:
    yield
    prepare_process(PLAIN.model_copy(update={"fast_dropout": True}), CPU)


def denormals_survive() -> bool:
    return bool((torch.full((3,), 1e-30) * 1e-10 != 0).all())


def test_switches(as_before: None, monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[bool] = []
    monkeypatch.setattr(process, "keep_freed_memory", lambda: kept.append(True))
    prepare_process(SpeedConfig(onednn="on"), CPU, threads=1)
    assert kept and torch.get_num_threads() == 1 and layers._DropoutSwitch.fast
    assert layers._ProductSwitch.on == torch.backends.mkldnn.is_available() and not denormals_survive()
    prepare_process(PLAIN, CPU)
    assert len(kept) == 1 and torch.get_num_threads() == process._THREADS
    assert not layers._ProductSwitch.on and not layers._DropoutSwitch.fast and denormals_survive()


def test_plain_dropout_is_torchs_own(as_before: None) -> None:
    x = torch.ones(7, 11)
    prepare_process(PLAIN, CPU)
    torch.manual_seed(5)
    ours = layers.Dropout(0.3)(x)
    torch.manual_seed(5)
    assert torch.equal(ours, torch.nn.functional.dropout(x, 0.3))


def test_fp32_is_no_tf32(as_before: None) -> None:
    """A GPU's convolutions in fp32 were 3e-3 away from the CPU's, by TF32."""
    torch.backends.cudnn.allow_tf32 = True
    prepare_process(PLAIN, CPU)
    assert not torch.backends.cudnn.allow_tf32 and not torch.backends.cuda.matmul.allow_tf32


def test_garbage_is_frozen_inside_only() -> None:
    with frozen_garbage(False):
        assert gc.get_freeze_count() == 0
    with pytest.raises(KeyError), frozen_garbage(True):
        assert gc.get_freeze_count() > 1000
        raise KeyError
    assert gc.get_freeze_count() == 0


def test_importing_changes_nothing() -> None:
    code = """
import gc, torch
threads = torch.get_num_threads()
import minitx.training.run, minitx.predictor
from minitx.nn import layers
assert not layers._ProductSwitch.on and gc.get_freeze_count() == 0 and torch.get_num_threads() == threads
assert (torch.full((3,), 1e-30) * 1e-10 != 0).all()
"""
    subprocess.run([sys.executable, "-c", code], check=True)


def test_onednn_keeps_few_compiled_products(as_before: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Unless the user says otherwise; a child process sees what oneDNN would read."""
    monkeypatch.delenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", raising=False)
    for given, kept in ((None, PRIMITIVES), ("7", "7")):
        if given is not None:
            monkeypatch.setenv("ONEDNN_PRIMITIVE_CACHE_CAPACITY", given)
        prepare_process(SpeedConfig(), CPU)
        code = "import os; print(os.environ['ONEDNN_PRIMITIVE_CACHE_CAPACITY'])"
        assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == kept
