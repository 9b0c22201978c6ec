"""Points for TensorBoard's projector: a model's token embeddings, and a classifier's states of texts.

Letters in shapes: N rows, D model width.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor, nn

from minitx.data import Tokenizer, plan_eval
from minitx.data.splits import TaskData
from minitx.decoding.inference import inference
from minitx.metrics.class_report import shortened
from minitx.nn.baselines.bag import NgramTable
from minitx.nn.build import Model
from minitx.nn.classifier import Classifier
from minitx.nn.translator import Translator
from minitx.training.device import Compute
from minitx.training.tensorboard import Board


def show_embeddings(board: Board, model: Model, data: TaskData, compute: Compute, batch_tokens: int, most: int) -> None:
    """Write up to `most` tokens of each vocabulary, and of a classifier up to `most` validation texts."""
    _show_tokens(board, "tokens", _token_table(model.src_tokens), data.src_tokenizer, most)
    if isinstance(model, Translator) and data.tgt_tokenizer is not None and not data.joint:
        _show_tokens(board, "target_tokens", model.output_weight, data.tgt_tokenizer, most)
    if isinstance(model, Classifier):
        _show_texts(board, model, data, compute, batch_tokens, most)


def _token_table(tokens: nn.Module) -> Tensor:
    """(V, D)."""
    table = tokens.tokens if isinstance(tokens, NgramTable) else tokens
    assert isinstance(table, nn.Embedding)
    return table.weight


def _show_tokens(board: Board, tag: str, weight_VD: Tensor, tokenizer: Tokenizer, most: int) -> None:
    """The first ones: vocabularies have what they were made from first, and then what was found, by frequency."""
    ids = range(min(most, tokenizer.vocab_size))
    labels = [(token, str(i)) for i, token in zip(ids, tokenizer.tokens(ids), strict=True)]
    board.embedding(tag, weight_VD[: len(ids)].detach().float().cpu().numpy(), labels, ("token", "id"))


def _show_texts(
    board: Board, model: Classifier, data: TaskData, compute: Compute, batch_tokens: int, most: int
) -> None:
    """What the head reads of each text, always the same ones."""
    split, names = data.splits["validation"], data.label_names
    assert split.labels is not None and names is not None, "a classification task has labels and their names"
    rows = np.sort(np.random.default_rng(0).permutation(len(split))[:most])
    plan = plan_eval(split.lengths[rows], batch_tokens)
    states, labels = [], []
    with inference([model], compute.device, compute.precision):
        for chosen in plan:
            features_BD = model.features(split.batch(rows[chosen]).to(compute.device))
            states.append(features_BD.float().cpu().numpy())
            predicted = model.head(features_BD).argmax(-1).tolist()
            labels += [
                (names[int(split.labels[row])], names[guess], shortened(split.text(int(row))))
                for row, guess in zip(rows[chosen], predicted, strict=True)
            ]
    board.embedding("texts", np.concatenate(states), labels, ("label", "predicted", "text"))
