"""Texts made up by hypothesis for trained runs, and folders from `minitx export --to hub` with damage to a file.

A text gets one answer of one line, whatever is in it. A damaged folder answers as before, or is refused in one line.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from hypothesis import strategies as st

from minitx.cli.predict import one_line
from minitx.config.load import load
from minitx.export.hub import write_hub
from minitx.predictor import Predictor
from minitx.training import run as session
from tests.faults.fuzz import Tally, harmed, harms, run_examples
from tests.faults.trainings import configuration, write_data

KINDS = ("transformer classification", "lstm translation", "linear classification")
MARKUP = (
    "<script>alert(1)</script>", "</style><b>", "&lt;&amp;", "$x^2$", "|a|b|\n|-|-|", "![](http://127.0.0.1)",
    "[PAD]", "[CLS]", "[UNK][EOS]", "\x00", "\u202e", "\ufeff", "\u200d", "e\u0301", "\U0001f469\u200d\U0001f680",
    "\u0e01\u0e33", "\u6ce8\u610f\u529b", "\u0627\u0644", "\u2028", "\r\n", "\\n", "%s{}", "a" * 3000,
    "\u0301" * 300, "red",
)  # fmt: skip
any_text = st.one_of(
    st.text(max_size=40),  # all of Unicode, unpaired surrogates among it
    st.lists(st.one_of(st.sampled_from(MARKUP), st.text(max_size=5)), max_size=8).map(" ".join),
)


def fuzz_texts(folder: Path, n: int, number: int, seconds: float) -> dict[str, Any]:
    """n texts, in twos, dealt over the kinds of run."""
    tally = Tally(seconds)
    for place, kind in enumerate(KINDS):
        predictor = Predictor.from_run(_trained(folder / kind.replace(" ", "-"), kind), device="cpu")
        known = set(predictor.processor.label_names or ())

        def body(texts: list[str], kind: str = kind, predictor: Predictor = predictor, known: set[str] = known) -> None:
            tally.attempt(kind, repr(texts), partial(_answered, predictor, known, texts))

        run_examples(st.lists(any_text, min_size=2, max_size=2), n // len(KINDS), number + place, tally, body)
    return tally.to_json()


def _answered(predictor: Predictor, known: set[str], texts: Sequence[str]) -> str | None:
    """What is wrong with the answers to texts; each must be what it is for the text alone."""
    together = predictor.predict(texts)
    if len(together) != len(texts):
        return f"{len(together)} answers to {len(texts)} texts"
    if known and not known.issuperset(together):
        return f"answers {together}, which are not among {sorted(known)}"
    if any("\n" in one_line(answer) or "\r" in one_line(answer) for answer in together):
        return "an answer takes several lines"
    alone = predictor.predict(texts[-1:])
    return None if alone == together[-1:] else f"answers {together[-1]!r} beside another text, {alone[0]!r} alone"


def fuzz_folders(folder: Path, n: int, number: int, seconds: float) -> dict[str, Any]:
    """n damages of one file or several of an exported folder, dealt over the kinds of run."""
    tally = Tally(seconds)
    for place, kind in enumerate(KINDS):
        here = folder / kind.replace(" ", "-")
        predictor = Predictor.from_run(_trained(here, kind), device="cpu")
        whole, work, expected = here / "hub", here / "work", predictor.predict(_ASKED)
        whole.mkdir()
        write_hub(predictor, whole)
        names = sorted(path.name for path in whole.iterdir() if path.is_file())

        def body(
            drawn: tuple[str, list[tuple[str, int, bytes]]],
            kind: str = kind,
            whole: Path = whole,
            work: Path = work,
            expected: Sequence[str] = expected,
        ) -> None:
            name, damage = drawn
            shutil.rmtree(work, ignore_errors=True)
            shutil.copytree(whole, work)
            (work / name).write_bytes(harmed((whole / name).read_bytes(), damage))
            tally.attempt(kind, f"{name} {damage}", partial(_as_before, work, expected))

        damages = st.tuples(st.sampled_from(names), harms.filter(bool))
        run_examples(damages, n // len(KINDS), number + place, tally, body)
    return tally.to_json()


_ASKED = ("abcd", "a red stone of a river")


def _as_before(work: Path, expected: Sequence[str]) -> str | None:
    found = Predictor.from_run(work, device="cpu").predict(_ASKED)
    return None if found == expected else f"answers {found}, not {list(expected)}"


def _trained(place: Path, kind: str) -> Path:
    """A tiny run of this kind."""
    write_data(place / "data")
    session.run(load(configuration(kind, place / "data", place / "cache")), place / "run", quiet=True)
    return place / "run"
