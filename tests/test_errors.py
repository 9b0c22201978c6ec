"""Errors that are told in one line."""

from __future__ import annotations

import errno
import importlib
from pathlib import Path

import pytest
import torch

from minitx.errors import first_line, memory_line
from minitx.sweeps.cells import Cell
from minitx.sweeps.executor import attempt
from minitx.sweeps.hydra_plugin import one_line


def test_memory_that_is_used_up_is_one_line_with_a_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    line, code = one_line(caught.value)
    assert line is not None and "\n" not in line and code == 1
    assert line.startswith(
        "the memory of this machine is used up (4000000000000000 bytes more were asked for); half of"
    )
    entry = importlib.import_module("minitx.cli.main")
    monkeypatch.setattr(entry, "_parse", lambda arguments: _Options())
    with pytest.raises(SystemExit) as ended:
        entry.main([])
    assert ended.value.code == 1 and capsys.readouterr().err.rstrip() == line


class _Options:
    def command(self, options: object) -> None:
        torch.empty(10**15)


def test_memory_of_a_gpu() -> None:
    error = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has a total capacity of ...")
    line = memory_line(error)
    assert line is not None and line.startswith("the memory of the GPU is used up (2.50 GiB more were asked for); half")
    assert memory_line(MemoryError()) is not None
    assert memory_line(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))


def test_another_error_keeps_its_traceback() -> None:
    assert memory_line(RuntimeError("mat1 and mat2 shapes cannot be multiplied (2x3 and 5x7)")) is None
    assert one_line(ValueError("a mistake of ours")) == (None, 1)


def test_what_is_recorded_of_an_error() -> None:
    """One line, also where the error has many, or no words at all."""
    assert first_line(ValueError("first\nsecond")) == "first"
    assert first_line(KeyError()) == "KeyError()"
    assert first_line(MemoryError()) == memory_line(MemoryError())


def test_a_cell_of_a_sweep_records_the_same_line(tmp_path: Path) -> None:
    result = attempt(lambda cell, path: torch.empty(10**15), Cell(values={}), tmp_path)
    assert result.error is not None and result.error.startswith(
        "the memory of this machine is used up (4000000000000000"
    )
    assert result.traceback is not None and "can't allocate memory" in result.traceback


def test_a_full_disk() -> None:
    line, code = one_line(OSError(errno.ENOSPC, "No space left on device"))
    assert line is not None and line.startswith("the disk is full; free some space") and code == 1
