"""A classifier as a program: token ids to probabilities, the fitted temperature included.

Letters in shapes: B rows, S tokens, C classes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from minitx.batch import CLS, Batch
from minitx.export.programs import (
    EXAMPLE,
    ProgramForm,
    check_close,
    check_length,
    source_axes,
    source_example,
    source_shapes,
    source_signature,
    trace,
    write_program,
)
from minitx.nn.classifier import Classifier
from minitx.predictor import Predictor


class Probabilities(nn.Module):
    """Ids (B, S) int64, their mask (B, S) bool, True = real token, and sentence numbers where they are read ->
    probabilities (B, C) float32."""

    def __init__(self, model: Classifier) -> None:
        super().__init__()
        self.model = model

    def forward(self, ids: Tensor, mask: Tensor, sentence: Tensor | None = None) -> Tensor:
        nothing = ids[:0, 0]
        batch = Batch(rows=nothing, src=ids, src_mask=mask, sentence=sentence, targets=nothing)
        logits: Tensor = self.model(batch)
        return logits.float().softmax(-1)


def export_classifier(model: Classifier, predictor: Predictor, folder: Path, form: ProgramForm) -> dict[str, Any]:
    """Write model.pt2 or model.onnx and compare it with the run; returns how it is called.

    Raises:
        ConfigError: texts are too short for a program of any length.
        RunError: the program does not say what the run says.
    """
    check_length(predictor)
    whole, example = Probabilities(model.float().cpu()), source_example(predictor, *EXAMPLE)
    rows, tokens = source_axes(predictor)
    program = trace(whole, example, tuple({0: rows, 1: tokens} for _ in example))
    run = write_program(program, folder, "model", form)
    for n_rows, length in source_shapes(predictor):
        inputs = source_example(predictor, n_rows, length, seed=1)
        with torch.no_grad():
            check_close(run(*inputs)[0], whole(*inputs), f"{n_rows} rows of {inputs[0].shape[1]} tokens")
    output, labels = "float32 (rows, classes): probabilities", list(predictor.processor.label_names or ())
    return {**source_signature(predictor), "cls_id": CLS, "output": output, "labels": labels}
