"""Classify or translate texts with onnxruntime and tokenizers alone: python run.py "a text" "another text"."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
from onnxruntime import InferenceSession
from tokenizers import Tokenizer

HERE = Path(__file__).parent


def read(texts: list[str], signature: dict[str, Any]) -> list[Any]:
    """What a program takes: ids and mask (texts, tokens), and sentence numbers where the model reads them."""
    tokenizer = Tokenizer.from_file(str(HERE / "tokenizer.json"))
    tokenizer.encode_special_tokens = True  # names of special tokens are text where they stand in a text
    room, rows, sentences = signature["max_length"] - 1, [], []
    for text, found in zip(texts, tokenizer.encode_batch(texts, add_special_tokens=False), strict=True):
        ids, numbers = found.ids, sentence_numbers(text, found.offsets, signature.get("sentence_end"))
        if len(ids) > room:
            head = {"head": room, "tail": 0, "head_tail": -(-room // 4)}[signature["truncate"]]
            ids, numbers = (kept[:head] + kept[len(kept) - room + head :] for kept in (ids, numbers))
        if signature["task"] == "classification":
            rows.append([signature["cls_id"], *ids])
            sentences.append([*numbers[:1], *numbers] or [0])
        else:
            rows.append([*ids, signature["eos_id"]])
            sentences.append([*numbers, *numbers[-1:]] or [0])
    length = max(signature["least_tokens"], *map(len, rows))
    length += -length % signature["multiple_of"]
    mask = np.array([[place < len(row) for place in range(length)] for row in rows])
    filled = [[row + [signature["pad_id"]] * (length - len(row)) for row in side] for side in (rows, sentences)]
    given = [np.array(filled[0], np.int64), mask, np.array(filled[1], np.int64)]
    return given if "sentence_end" in signature else given[:2]


def sentence_numbers(text: str, offsets: list[tuple[int, int]], end: str | None) -> list[int]:
    """The number of each token's sentence: one more from each token on that holds the first letter of another."""
    begins, last = np.zeros(len(offsets), int), np.maximum.accumulate([0, *(b for _, b in offsets)])[1:]
    for place in [match.end() for match in re.finditer(end, text)] if end else []:
        token = int(np.searchsorted(last, place, side="right"))
        if token < len(offsets) and offsets[token][0] <= place:
            begins[token] = 1
    return [int(number) for number in begins.cumsum()]


def session(name: str) -> InferenceSession:
    return InferenceSession(str(HERE / f"{name}.onnx"), providers=["CPUExecutionProvider"])


def run(program: InferenceSession, values: list[Any]) -> list[Any]:
    names = [one.name for one in program.get_inputs()]
    return list(program.run(None, dict(zip(names, values, strict=True))))


def classify(texts: list[str], signature: dict[str, Any]) -> list[str]:
    answers = run(session("model"), read(texts, signature))[0]
    return [f"{signature['labels'][row.argmax()]}\t{row.max():.4f}" for row in answers]


def translate(texts: list[str], signature: dict[str, Any]) -> list[str]:
    """Greedily: the likeliest next token, again and again, until every row has ended or reached its limit."""
    source, limit, step = read(texts, signature), signature["output_limit"], session("step")
    kept = run(session("encoder"), source)
    memory, cache = kept[: signature["n_memory"]], kept[signature["n_memory"] :]
    limits = [min(limit["most"], limit["per_source_token"] * n + limit["spare"]) for n in source[1].sum(1).tolist()]
    written = np.full((len(texts), 1), signature["bos_id"])
    ended = np.zeros(len(texts), bool)
    while not ended.all() and written.shape[1] <= max(limits):
        logits, *cache = run(step, [written[:, -1:], source[1], *memory, *cache])
        written = np.hstack([written, logits.argmax(-1)[:, None]])
        ended |= written[:, -1] == signature["eos_id"]
    own = HERE / "tgt_tokenizer.json"
    tokenizer = Tokenizer.from_file(str(own if own.exists() else HERE / "tokenizer.json"))
    rows = [row[1 : 1 + most] for row, most in zip(written.tolist(), limits, strict=True)]
    rows = [row[: row.index(signature["eos_id"])] if signature["eos_id"] in row else row for row in rows]
    outputs = [tokenizer.decode([i for i in row if i >= signature["n_special"]]) for row in rows]
    gap = signature["no_space_between"]
    return [re.sub(gap, "", out) if gap else out for out in outputs]


if __name__ == "__main__":
    about = json.loads((HERE / "signature.json").read_text(encoding="utf-8"))
    answer = translate if about["task"] == "translation" else classify
    for given, output in zip(sys.argv[1:], answer(sys.argv[1:], about), strict=True):
        print(f"{output if given.strip() or answer is classify else ''}\t{given}")
