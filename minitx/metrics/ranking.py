"""A translator's outputs from the worst to the best, by the share of the nearest reference that had to be edited."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

from minitx.data import Split
from minitx.metrics.evaluate import Evaluation


@dataclass(frozen=True, kw_only=True)
class RankedOutput:
    """What was written for one row."""

    row: int
    """Of the split, counted from 0."""
    text: str
    edits: float
    """From the output to the nearest reference, by the length of the longer of the two: 0 to 1."""


def ranked_outputs(evaluation: Evaluation, split: Split, by_symbol: bool) -> list[RankedOutput]:
    """The most edits first; of equals the shortest reference, so that the last ones are long and right.

    by_symbol: edits of what white space separates (phonemes); else of characters, which suits every script. It is not a
    metric that papers give, and is meant to find rows to look at.
    """

    def parts(text: str) -> Sequence[str]:
        return text.split() if by_symbol else text

    found = []
    for row, output in zip(evaluation.rows.tolist(), evaluation.predictions, strict=True):
        wanted = [parts(reference) for reference in split.references(row)]
        edits = min(Levenshtein.normalized_distance(parts(output), one) for one in wanted)
        found.append((-edits, max(map(len, wanted)), row, RankedOutput(row=row, text=output, edits=edits)))
    return [output for *_, output in sorted(found, key=lambda each: each[:3])]
