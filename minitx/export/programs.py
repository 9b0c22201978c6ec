"""What exported nets share: how they are traced, written as torch or ONNX, run again, and compared with the run.

A program takes any number of rows and tokens. Where the nets choose a cheaper way by the length of a batch, they take
one that suits all while `torch.compiler.is_exporting()`.

Letters in shapes: B rows, S tokens.
"""

from __future__ import annotations

import importlib.util
import io
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from minitx.batch import CLS, EOS, PAD, SPECIAL_TOKENS
from minitx.config import NetConfig, rule
from minitx.data.pipeline.encode import SENTENCE_END
from minitx.errors import RunError
from minitx.nn.classifier import TextReader
from minitx.predictor import Predictor

ProgramForm = Literal["torch", "onnx"]
ENDINGS: Mapping[ProgramForm, str] = {"torch": ".pt2", "onnx": ".onnx"}
Run = Callable[..., list[Tensor]]
"""A program that was read from its file: it takes what its module takes, and gives its tensors one after another."""

LEAST_TOKENS = 8
"""Tokens that a text is padded to at least: programs have no special cases for shorter ones."""
TOLERANCE = 1e-5
"""Largest difference of a probability between an exported program and the run."""
EXAMPLE = (3, 13)
"""(B, S) that programs are traced with."""
CHECKED = ((1, 8), (2, 11), (7, 19), (13, 8))
"""(B, S) at which a program is compared with the run, beside the longest text."""


def check_onnx() -> None:
    """That the optional packages are there.

    Raises:
        ConfigError: names one that is not.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if importlib.util.find_spec(name) is None]
    if missing:
        raise rule("--to", "onnx", f"have {missing[0]} installed", "pip install 'minitx[export]'")


def check_length(predictor: Predictor) -> None:
    """That texts are long enough for a program of any length.

    Raises:
        ConfigError: they are not.
    """
    longest = predictor.processor.max_length
    if longest <= LEAST_TOKENS:
        must = f"read more than {LEAST_TOKENS} tokens (data.max_length is {longest})"
        raise rule("RUN", predictor.folder.path, must, "--to hub takes every run")


def chunk_of(predictor: Predictor) -> int:
    """Whole chunks of so many tokens are what a program reads; 1 = any number of tokens."""
    [model] = predictor.nets().models
    return (model.chunk or 1) if isinstance(model, TextReader) else 1


def filled(length: int, chunk: int) -> int:
    """The next whole number of chunks."""
    return -(-length // chunk) * chunk


def source_axes(predictor: Predictor) -> tuple[Any, Any]:
    """The rows and the source tokens of a program, as torch.export takes them."""
    chunk, longest = chunk_of(predictor), predictor.processor.max_length
    rows = torch.export.Dim("rows", min=1)
    if chunk == 1:
        return rows, torch.export.Dim("tokens", min=LEAST_TOKENS, max=longest)
    least, most = filled(LEAST_TOKENS, chunk) // chunk, filled(longest, chunk) // chunk
    return rows, chunk * torch.export.Dim("chunks", min=least, max=max(most, least + 1))


def trace(module: nn.Module, inputs: tuple[Any, ...], axes: tuple[Any, ...]) -> torch.export.ExportedProgram:
    """A module as a program. axes: of each input the axes that vary, as torch.export takes them."""
    with torch.no_grad(), _quiet():
        return torch.export.export(module.eval(), inputs, dynamic_shapes=axes)


def write_program(program: torch.export.ExportedProgram, folder: Path, name: str, form: ProgramForm) -> Run:
    """Write a program as `name` with the form's ending, and read it again."""
    path = folder / f"{name}{ENDINGS[form]}"
    if form == "torch":
        with _quiet():
            torch.export.save(program, path)
            module = torch.export.load(path).module()
        return lambda *inputs: pytree.tree_leaves(module(*inputs))
    import onnxruntime

    with torch.no_grad(), _quiet():
        made = torch.onnx.export(program, dynamo=True, verbose=False)
    assert made is not None, "an exporter that fails raises"
    made.save(str(path))
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    names = [one.name for one in session.get_inputs()]

    def run(*inputs: Any) -> list[Tensor]:
        arrays = [tensor.numpy() for tensor in pytree.tree_leaves(inputs)]
        return [torch.from_numpy(array) for array in session.run(None, dict(zip(names, arrays, strict=True)))]

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """Exporters warn, log and print what is theirs."""
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(logging.NOTSET)


def reads_sentences(predictor: Predictor) -> bool:
    """Whether programs take the sentence number of each token besides."""
    config = predictor.config.model
    return isinstance(config, NetConfig) and config.reads_sentences


def source_example(predictor: Predictor, n_rows: int, length: int, seed: int = 0) -> tuple[Tensor, ...]:
    """Random ids (B, S) int64 and their mask, with padding in every row but the first; and where the model reads them,
    sentence numbers."""
    rng = np.random.default_rng((seed, n_rows, length))
    length = filled(min(length, predictor.processor.max_length), chunk_of(predictor))
    ids = rng.integers(len(SPECIAL_TOKENS), predictor.processor.src_tokenizer.vocab_size, (n_rows, length))
    lengths = np.array([length, *rng.integers(1, length + 1, n_rows - 1)])
    if predictor.processor.task == "translation":
        ids[np.arange(n_rows), lengths - 1] = EOS
    else:
        ids[:, 0] = CLS
    mask = np.arange(length) < lengths[:, None]
    found = torch.from_numpy(np.where(mask, ids, PAD)), torch.from_numpy(mask)
    if not reads_sentences(predictor):
        return found
    return *found, torch.from_numpy((rng.random((n_rows, length)) < 0.2).cumsum(1))


def source_shapes(predictor: Predictor) -> list[tuple[int, int]]:
    """(B, S) of the batches on which a program is compared with the run."""
    return [*CHECKED, (3, predictor.processor.max_length)]


def check_close(found: Tensor, wanted: Tensor, where: str) -> None:
    """That probabilities are those of the run.

    Raises:
        RunError: they are not. where: on what.
    """
    difference = float((found - wanted).abs().max())
    if not difference <= TOLERANCE:
        raise RunError(f"the exported program differs by {difference:.1e} from the run on {where}; please report it")


def source_signature(predictor: Predictor) -> dict[str, Any]:
    """How a program is called, for people and for the script: what it takes of a source text."""
    processor = predictor.processor
    inputs = {"ids": "int64 (rows, tokens)", "mask": "bool (rows, tokens), true = a real token"}
    signature: dict[str, Any] = {"task": processor.task, "inputs": inputs, "max_length": processor.max_length,
                 "truncate": processor.truncate, "least_tokens": LEAST_TOKENS, "multiple_of": chunk_of(predictor),
                 "pad_id": PAD}  # fmt: skip
    if reads_sentences(predictor):
        inputs["sentence"] = "int64 (rows, tokens): the number of the token's sentence, from 0"
        signature["sentence_end"] = SENTENCE_END.pattern
    return signature
