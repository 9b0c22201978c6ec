"""The tiny run that tests train, as a configuration and as a user would type it."""

from __future__ import annotations

import json
import os
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
SHARED_DATA = Path(os.environ.get("MINITX_SHARED_DATA", ROOT.parent / "shared" / "data"))

TINY_MODEL = {"d_model": 16, "n_layers": 1, "n_heads": 2, "d_ff": 24, "dropout": 0.1}
TINY_DATA: dict[str, Any] = {
    "name": "spelling",
    "source": "files",
    "metrics": "error_rate",
    "max_length": 64,
    "tokenizer": {"kind": "char", "joint": False},
    "tgt_tokenizer": {"kind": "word"},
}
TINY_CLASSES: dict[str, Any] = {
    "name": "colours", "source": "files", "task": "classification", "tokenizer": {"kind": "word"}, "max_length": 13,
    "truncate": "tail",
}  # fmt: skip
TINY_TRAINER = {
    "max_epochs": None, "max_minutes": None, "max_steps": 12, "batch_tokens": 256, "eval_every": 6, "eval_rows": 40,
    "log_every": 4, "attention_maps": 0, "device": "cpu", "precision": "fp32",
}  # fmt: skip


def write_spelling(path: Path) -> None:
    """Words to spell out, as the user's own file."""
    rng = random.Random(0)
    words = sorted({"".join(rng.choices("abcdefg", k=rng.randint(2, 9))) for _ in range(400)})
    lines = [f"{word},{' '.join(word.upper())}" for word in words]
    path.write_text("\n".join(["src,tgt", *lines]) + "\n")


def write_colours(path: Path) -> None:
    """Texts of up to 19 words whose class is the word that stands in the last eight."""
    rng = random.Random(1)
    lines = []
    for i in range(300):
        name = ("red", "green", "blue")[i % 3]
        words = rng.choices(("lamp", "river", "stone", "a", "of", "quickly"), k=rng.randint(1, 18))
        words.insert(rng.randint(max(0, len(words) - 7), len(words)), name)
        lines.append(f"{' '.join(words)},{name}")
    path.write_text("\n".join(["text,label", *lines]) + "\n")


def tiny_overrides(tiny_data: Mapping[str, Any]) -> list[str]:
    """The tiny run as a user would type it."""
    trainer = {k: "null" if v is None else v for k, v in TINY_TRAINER.items()}
    return [
        "data=files", "data.task=translation", "data.name=spelling", f"data.path={tiny_data['path']}",
        f"data.cache_dir={tiny_data['cache_dir']}", "data.metrics=error_rate", "data.tokenizer.kind=char",
        "data.tokenizer.joint=false", "+data.tgt_tokenizer={kind:word}",
        *(f"model.{k}={v}" for k, v in TINY_MODEL.items()), *(f"trainer.{k}={v}" for k, v in trainer.items()),
    ]  # fmt: skip


@dataclass(frozen=True)
class Output:
    """What a command left: exit code and both streams."""

    code: int
    out: str
    err: str


def fingerprint(folder: Path) -> dict[str, Any]:
    """Everything the promise covers: all bytes of both checkpoints' tensors, the log and results without times."""
    untimed = [
        {k: v for k, v in json.loads(line).items() if k not in ("seconds", "tokens_per_second")}
        for line in (folder / "metrics.jsonl").read_text().splitlines()
    ]
    results = json.loads((folder / "results.json").read_text())
    return {
        "log": untimed,
        "metrics": results["metrics"],
        **{
            f"{link}/{path.name}": path.read_bytes()
            for link in ("last", "best")
            for path in (folder / "checkpoints" / link).glob("*.safetensors")
        },
    }


def lines_of(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    """What the `minitx` command says to `arguments`, line by line."""
    from minitx.cli import main

    main([str(argument) for argument in arguments])
    return capsys.readouterr().out.split("\n")[:-1]
