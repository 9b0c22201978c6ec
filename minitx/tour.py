"""A first tour: trains a small model on handwritten digits, and explains Q, K and V on one of its attention maps.

Everything is shown in characters, without colours, so that any terminal does. What it says is in tour.yaml.

Letters in shapes: H heads, Q queries, K keys, W head width.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import yaml
from torch import Tensor

from minitx.config import Config
from minitx.config.load import load
from minitx.data import load_data
from minitx.nn.attention.multi_head import MultiHeadAttention
from minitx.nn.capture import attentions, capture_attention
from minitx.nn.classifier import Classifier
from minitx.predictor import Predictor
from minitx.training.run import run

Language = Literal["en", "zh"]
SIDE = 8
"""Pixels of a picture's edge."""
BLACK = 16
SHADES = " .:-=+*#%@"
"""From nothing to the most, two characters for each pixel: about a square."""
N_SHOWN = 4
"""Pixels that are named, of those that are looked at."""
Floats = npt.NDArray[np.floating[Any]]


def tour(folder: Path, language: Language, seconds: int, show: Callable[[str], None]) -> None:
    """Train in `folder`, or take the run that has finished there, and tell about it by `show`.

    Raises:
        ConfigError: the folder holds another run.
        Stopped: training was asked to stop.
    """
    say, config = _texts()[language], tour_config(seconds)
    split = load_data(config.data).splits["test"]
    assert split.labels is not None
    text = split.text(0)
    picture = np.array(text.split(), int).reshape(SIDE, SIDE)
    show(_filled(say["task"], label=int(split.labels[0]), picture=shaded(picture / BLACK), seconds=seconds))
    results = run(config, folder, quiet=True)
    predictor = Predictor.from_run(folder, "cpu")
    [[likeliest]] = predictor.likeliest([text], 1)
    assert likeliest.probability is not None
    accuracy, sure = 100 * results["metrics"]["test"]["accuracy"]["value"], 100 * likeliest.probability
    show(_filled(say["trained"], **results, accuracy=accuracy, answer=likeliest.text, probability=sure))
    look = most_telling(head_looks(predictor, text), picture)
    show(_filled(say["attention"], **_told(look, picture, say)))
    show(_filled(say["next"], run=folder, picture=text))


def tour_config(seconds: int) -> Config:
    """One layer of two heads: enough for nine digits in ten, and there is one map to explain."""
    tree: dict[str, Any] = {
        "data": {
            "name": "digits", "source": "digits", "task": "classification", "max_length": SIDE * SIDE + 1,
            "tokenizer": {"kind": "word", "vocab_size": 32},
        },
        "model": {"d_model": 32, "n_layers": 1, "n_heads": 2, "position": "learned", "dropout": 0.1},
        "optim": {"lr": 0.005, "weight_decay": 0.1},
        "trainer": {
            "max_epochs": None, "max_minutes": seconds / 60, "batch_tokens": 2048, "eval_every": 4.0,
            "device": "cpu", "precision": "fp32", "attention_maps": 1, "resume": "auto",
        },
    }  # fmt: skip
    return load(tree)


@cache
def _texts() -> Mapping[Language, Mapping[str, str]]:
    found: Mapping[Language, Mapping[str, str]] = yaml.safe_load(
        files(__package__).joinpath("tour.yaml").read_text(encoding="utf-8")
    )
    return found


def _filled(template: str, **values: object) -> str:
    """A text with its values; a block of lines stands where its name did, indented as it was."""
    lines = []
    for line in template.splitlines():
        indent, name = line[: len(line) - len(line.lstrip())], line.strip()[1:-1]
        if line.strip() == f"{{{name}}}":
            lines.append(textwrap.indent(str(values[name]), indent + "    "))
        else:
            lines.append(line.format(**values))
    return "\n".join(lines) + "\n"


# -------------------------------------------------------------------------------------------------------- what is seen


@dataclass(frozen=True, eq=False)
class Look:
    """What one word of the text looks at, through one head."""

    query: int
    """Its place, 0 = the beginning."""
    scores: Floats
    """(K,) q . k / sqrt(W) with each word."""
    weights: Floats
    """(K,) their softmax."""
    n_heads: int


def head_looks(predictor: Predictor, text: str) -> list[Look]:
    """Of every word and every head of the last layer."""
    [model] = predictor.nets().models
    assert isinstance(model, Classifier)
    *_, attention = attentions(model)["encoder"]
    assert isinstance(attention, MultiHeadAttention)
    read: list[Tensor] = []
    hook = attention.register_forward_pre_hook(lambda _, inputs: read.append(inputs[0]))
    try:
        with torch.no_grad(), capture_attention(model) as maps:
            model(predictor.processor.encode([text]).batch(np.array([0])))
            q, k, _ = attention.project.own(read[0])
    finally:
        hook.remove()
    assert maps.encoder is not None
    scores_HQK = (q @ k.transpose(-1, -2) / math.sqrt(attention.head_dim))[0].numpy()
    weights_HQK = maps.encoder[-1, 0].numpy()
    return [
        Look(query, scores_HQK[head, query], weights_HQK[head, query], attention.n_heads)
        for head in range(attention.n_heads)
        for query in range(weights_HQK.shape[1])
    ]


def most_telling(looks: Sequence[Look], picture: npt.NDArray[np.integer[Any]]) -> Look:
    """Of the pixels with ink, the one that looks at the fewest (by entropy), away from itself."""

    def spread(look: Look) -> float:
        return -float((look.weights * np.log(np.maximum(look.weights, 1e-12))).sum())

    inked = [look for look in looks if look.query and picture.flat[look.query - 1] > BLACK // 2]
    others = [look for look in inked if int(look.weights.argmax()) not in (0, look.query)]
    return min(others or inked or looks[1:], key=spread)


def shaded(values: Floats, marked: int | None = None) -> str:
    """A picture of values from 0 to 1 in characters. marked: the number of a pixel in brackets."""
    rows = []
    for r, row in enumerate(values):
        cells = [2 * SHADES[round(float(value) * (len(SHADES) - 1))] for value in row]
        if marked is not None and r == marked // SIDE:
            cells[marked % SIDE] = "[]"
        rows.append("|" + "".join(cells) + "|")
    edge = "+" + "-" * (2 * SIDE) + "+"
    return "\n".join([edge, *rows, edge])


def _told(look: Look, picture: npt.NDArray[np.integer[Any]], say: Mapping[str, str]) -> dict[str, object]:
    """The values of the part on attention."""
    pixel = look.query - 1
    of_pixels = np.sqrt(look.weights[1:] / look.weights.max()).reshape(SIDE, SIDE)
    sides = (shaded(picture / BLACK, pixel).splitlines(), shaded(of_pixels, pixel).splitlines())
    order = np.argsort(-look.weights, kind="stable")[:N_SHOWN].tolist()
    names = [_place(key, say) for key in order]
    rows = [
        f"{name}   {say['score'].format(score=look.scores[key], share=100 * look.weights[key])}"
        for name, key in zip(_padded(names), order, strict=True)
    ]
    rest = say["rest"].format(n=len(look.weights) - N_SHOWN, share=100 * (1 - look.weights[order].sum()))
    return {
        "row": pixel // SIDE + 1,
        "column": pixel % SIDE + 1,
        "map": "\n".join(f"{left}   {right}" for left, right in zip(*sides, strict=True)),
        "table": "\n".join([*rows, rest]),
        "top": 100 * look.weights[order[0]],
        "second": 100 * look.weights[order[1]],
        "n_words": len(look.weights),
        "n_heads": look.n_heads,
    }


def _place(key: int, say: Mapping[str, str]) -> str:
    pixel = key - 1
    return say["start"] if key == 0 else say["place"].format(row=pixel // SIDE + 1, column=pixel % SIDE + 1)


def _padded(names: Sequence[str]) -> list[str]:
    """To one width on a terminal, where a Chinese letter takes two columns."""
    widths = [sum(1 if char.isascii() else 2 for char in name) for name in names]
    return [name + " " * (max(widths) - width) for name, width in zip(names, widths, strict=True)]
