"""Classify texts with numpy alone: python run.py "a text" "another text"."""

import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
ABOUT = json.loads((HERE / "signature.json").read_text(encoding="utf-8"))
PLACE = {term: i for i, term in enumerate(json.loads((HERE / "vocabulary.json").read_text(encoding="utf-8")))}
with np.load(HERE / "model.npz") as arrays:
    MODEL = dict(arrays)
COEFFICIENTS, IDF = MODEL["coefficients"], MODEL["idf"]


def scores(text: str) -> Any:
    """Of each class that training had: weighted counts of words and n-grams, scaled to length 1, times coefficients."""
    words = re.findall(r"\b\w\w+\b", text.lower())
    grams = [" ".join(words[i : i + n]) for n in range(1, ABOUT["ngrams"] + 1) for i in range(len(words) - n + 1)]
    found = Counter(PLACE[gram] for gram in grams if gram in PLACE)
    places, counts = list(found), np.array(list(found.values()), float)
    values = (1 + np.log(counts) if ABOUT["sublinear"] else counts) * IDF[places]
    row = COEFFICIENTS[:, places] @ (values / (np.linalg.norm(values) or 1)) + MODEL["intercepts"]
    return row if len(row) > 1 else np.array([0, row[0]])


def classify(texts: list[str]) -> Any:
    """(texts, classes) probabilities. A class that training did not have gets 1 / (training texts + classes)."""
    logits = np.array([scores(text) for text in texts])
    shares = np.exp(logits - logits.max(1, keepdims=True))
    shares /= shares.sum(1, keepdims=True)
    n_classes, seen = len(ABOUT["labels"]), MODEL["seen"]
    least = 1 / (MODEL["n_train"] + n_classes)
    found = np.full((len(texts), n_classes), least)
    found[:, seen] = shares * (1 - least * (n_classes - len(seen)))
    return found


if __name__ == "__main__":
    for given, row in zip(sys.argv[1:], classify(sys.argv[1:]), strict=True):
        print(f"{ABOUT['labels'][row.argmax()]}\t{row.max():.4f}\t{given}")
