"""Outputs many times longer than their source: the room they have comes from the targets seen in training."""

from __future__ import annotations

import io
import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from tiny import TINY_DATA

from minitx.cli import main
from minitx.config import Config
from minitx.data.splits import Ragged, Split, Texts
from minitx.nn.translator import Translator
from minitx.predictor import Predictor
from minitx.training.run import run
from minitx.training.trainer import expansion


def pairs(src: list[int], tgt: list[int] | None) -> Split:
    """Rows of these lengths."""
    rows, targets = ([[7] * n for n in lengths] for lengths in (src, tgt or []))
    ids = Ragged.of(rows, np.uint16)
    return Split(
        src=ids, sentences=ids, texts=Texts.of(["x"] * len(src)), tgt=Ragged.of(targets, np.uint16) if tgt else None
    )


def test_room_per_source_token_is_what_training_targets_needed() -> None:
    """A quarter more than the neediest pair: (237 - 32) / 2 = 102.5."""
    assert expansion(pairs([2, 3, 50], [237, 11, 101])) == 129
    assert expansion(pairs([2, 3, 50], [47, 11, 101])) == 10
    assert expansion(pairs([5, 3, 50], [43, 17, 53])) == 8
    assert expansion(pairs([5, 3], None)) == 8


@pytest.fixture(scope="module")
def long_outputs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five sources of one letter, whose targets have up to 73 tokens."""
    folder, rng = tmp_path_factory.mktemp("long"), random.Random(3)
    lengths = {"a": 41, "b": 53, "c": 59, "d": 67, "e": 73}
    rows = [f"{name},{' '.join(rng.choices('ABCDEFG', k=length))}" for name, length in lengths.items()]
    (folder / "long.csv").write_text("\n".join(["src,tgt", *rows]) + "\n")
    return folder / "long.csv"


@pytest.fixture
def trained(tiny: Callable[..., Config], long_outputs: Path) -> Path:
    """A run that knows these five by heart, trained once."""
    folder = long_outputs.parent / "run"
    if not folder.exists():
        same = dict.fromkeys(("path", "validation_path", "test_path"), str(long_outputs))
        config = tiny(
            data={
                **TINY_DATA,
                **same,
                "name": "long",
                "max_length": 97,
                "cache_dir": str(long_outputs.parent / "cache"),
            },
            model={"dropout": 0.0, "d_model": 48, "n_heads": 4, "d_ff": 96, "tie_embeddings": False},
            optim={"lr": 5e-3},
            trainer={"max_steps": 300, "eval_every": 100, "batch_tokens": 512},
        )
        run(config, folder, quiet=True)
    return folder


def test_targets_many_times_longer_than_their_source_are_written_right(trained: Path, long_outputs: Path) -> None:
    rows = [line.split(",") for line in long_outputs.read_text().splitlines()[1:]]
    results = json.loads((trained / "results.json").read_text())
    assert results["metrics"]["test"]["wer"]["value"] == 0.0
    assert results["cut_off"] == {"validation": 0, "test": 0}
    for beam in (1, 3):
        predictor = Predictor.from_run(trained, "cpu").with_decoding(beam=beam)
        assert predictor.predict([src for src, _ in rows]) == [tgt for _, tgt in rows]
        assert [best.text for [best] in predictor.n_best([src for src, _ in rows], 1)] == [tgt for _, tgt in rows]


def test_outputs_that_do_not_fit_are_counted(
    trained: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the room that a source of two tokens had whatever was seen in training: 8 * 2 + 32 = 48."""
    limit = Translator.output_limit

    def of_old(model: Translator, src_length: int) -> int:
        model.expansion = 8
        return limit(model, src_length)

    monkeypatch.setattr(Translator, "output_limit", of_old)
    predictor = Predictor.from_run(trained, "cpu")
    answers = predictor.answers(["a", "b", "c", "d", "e"])
    assert [answer.cut_off for answer in answers] == [False, True, True, True, True]
    assert [len(answer.text.split()) for answer in answers] == [41, 48, 48, 48, 48]
    assert [best.cut_off for [best] in predictor.n_best(["e", "a"], 1)] == [True, False]
    evaluation = predictor.evaluate()
    assert evaluation.n_cut_off == 4
    assert evaluation.notes[0].startswith("4 of 5 outputs were cut off at the limit on their length; train longer, or")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a\nb\n\nc\n")))
    for more, n_cut in (([], 2), (["--n-best", "2"], 2)):
        sys.stdin.seek(0)
        main(["predict", str(trained), "--device", "cpu", *more])
        assert f"warning: {n_cut} of 4 outputs were cut off at the limit" in capsys.readouterr().err
