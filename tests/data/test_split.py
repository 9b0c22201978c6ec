"""Encoding and batches against plain loops, sentence numbers, truncation, prediction."""

import math
import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from minitx.batch import BOS, CLS, EOS, PAD, Batch
from minitx.config import TokenizerConfig, Truncation
from minitx.data.pipeline.encode import CHUNK, encode_examples, encode_texts, kept_tokens
from minitx.data.pipeline.tokenizer import Tokenizer
from minitx.data.sources import Examples
from minitx.data.splits import Split

TEXTS = ["ab cd. ef", "b", "abcdefg", "no! yes? a. b", "c c"]
REFERENCES = [("x y", "y x"), ("z",), ("x x x z y",), ("y",), ("z z",)]
MAX_LENGTH = 11
CHAR = Tokenizer.fit(TokenizerConfig(kind="char"), TEXTS)
WORD = Tokenizer.fit(TokenizerConfig(kind="word"), [reference for group in REFERENCES for reference in group])
LABELS = np.array([2, 0, 1, 1, 0])

translation = encode_examples(Examples(TEXTS, references=REFERENCES), CHAR, WORD, MAX_LENGTH)
classification = encode_examples(Examples(TEXTS, labels=LABELS), CHAR, None, MAX_LENGTH)
some_rows = st.lists(st.integers(0, len(TEXTS) - 1), min_size=1, max_size=7)


def padded(rows: list[list[int]]) -> list[list[int]]:
    longest = max(map(len, rows))
    return [row + [PAD] * (longest - len(row)) for row in rows]


def mask_of(batch: Batch) -> list[list[bool]]:
    return (torch.ones_like(batch.src, dtype=torch.bool) if batch.src_mask is None else batch.src_mask).tolist()


@given(some_rows)
def test_translation_batch(rows: list[int]) -> None:
    src = [[*CHAR.encode_batch([TEXTS[row]])[0][: MAX_LENGTH - 1], EOS] for row in rows]
    tgt = [[*WORD.encode_batch([REFERENCES[row][0]])[0], EOS] for row in rows]
    longest = max(map(len, tgt))
    batch = translation.batch(np.array(rows))
    assert batch.rows.tolist() == rows
    assert batch.src.tolist() == padded(src)
    assert mask_of(batch) == [[token != PAD for token in row] for row in padded(src)]
    assert batch.tgt_in is not None
    assert batch.target_index is not None
    assert batch.tgt_in.tolist() == padded([[BOS, *row[:-1]] for row in tgt])
    assert batch.targets.tolist() == [token for row in tgt for token in row]
    assert batch.target_index.tolist() == [b * longest + t for b, row in enumerate(tgt) for t in range(len(row))]
    assert all(t.dtype == torch.int64 for t in (batch.rows, batch.src, batch.tgt_in, batch.targets, batch.target_index))


@given(some_rows)
def test_classification_batch(rows: list[int]) -> None:
    src = [[CLS, *CHAR.encode_batch([TEXTS[row]])[0][: MAX_LENGTH - 1]] for row in rows]
    batch = classification.batch(np.array(rows))
    assert batch.src.tolist() == padded(src)
    assert batch.targets.tolist() == LABELS[rows].tolist()
    assert batch.targets.dtype == torch.int64
    assert batch.tgt_in is None
    assert batch.target_index is None
    assert (batch.src_mask is None) == (len({len(row) for row in src}) == 1)


def test_lengths_are_those_of_the_longer_side() -> None:
    short = encode_examples(Examples(["a", "abc"], references=[("x y z x",), ("z",)]), CHAR, WORD, MAX_LENGTH)
    assert short.lengths.tolist() == [5, 4]
    assert classification.lengths.tolist() == [10, 2, 8, 11, 4]


def test_cut_rows_are_counted() -> None:
    assert classification.n_cut == 1, "the fourth text has 13 characters"
    narrow = encode_examples(Examples(["a", "abc", "b"], references=[("x",), ("z",), ("x y x y",)]), CHAR, WORD, 4)
    assert narrow.n_cut == 1, "three symbols and EOS fit, four do not"
    assert narrow.batch(np.array([2])).targets.tolist()[-1] == EOS
    assert narrow.lengths.max() == 4


def sentences(text: str, kind: str = "char", task: str = "translation", max_length: int = 99) -> list[int]:
    tokenizer = Tokenizer.fit(TokenizerConfig(kind="char"), [text]) if kind == "char" else BYTE
    split = encode_texts([text], tokenizer, "translation" if task == "translation" else "classification", max_length)
    sentence = split.batch(np.array([0])).sentence
    assert sentence is not None
    return sentence[0].tolist()


BYTE = Tokenizer.fit(TokenizerConfig(kind="byte"), [])


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        pytest.param("A. B", [0, 0, 0, 1, 1], id="EOS is in the last sentence"),
        pytest.param("3.5 m", [0] * 6, id="no white space after the mark"),
        pytest.param("A?!  B", [0, 0, 0, 0, 0, 1, 1], id="white space ends the sentence before"),
        pytest.param("A. ", [0, 0, 0, 0], id="nothing after the white space"),
        pytest.param("A.\nB! C", [0, 0, 0, 1, 1, 1, 2, 2], id="three"),
    ],
)
def test_sentence_numbers(text: str, numbers: list[int]) -> None:
    assert sentences(text) == numbers


def test_sentence_numbers_with_cls_cut_and_bytes() -> None:
    assert sentences("A. B", task="classification") == [0, 0, 0, 0, 1]
    assert sentences("A. BCD. E", max_length=5) == [0, 0, 0, 1, 1]
    assert sentences("Ä☃. Ö", kind="byte") == [0] * 7 + [1] * 3


def test_sentence_numbers_of_padding_do_not_fall() -> None:
    batch = translation.batch(np.array([0, 1]))
    assert batch.sentence is not None
    assert batch.sentence.tolist() == [[0] * 7 + [1] * 3, [0] * 10]
    assert translation.batch(np.array([3, 0])).sentence is not None
    assert translation.batch(np.array([0]), sentences=False).sentence is None


def test_texts_and_references_come_back_uncut() -> None:
    for row in range(len(TEXTS)):
        assert translation.text(row) == TEXTS[row]
        assert translation.references(row) == REFERENCES[row]
        assert classification.references(row) == ()


def kept_by_loop(text: str, room: int, truncate: str) -> tuple[str, list[int]]:
    """The characters kept, and the sentence number of each, counted from that of the first and without gaps."""
    numbers, number = [], 0
    for i in range(len(text)):
        number += i >= 2 and text[i - 1] == " " and text[i - 2] in ".!?" and text[i] != " "
        numbers.append(number)
    chosen = list(range(len(text)))
    while len(chosen) > room:
        before_end = room / 4 if truncate == "head_tail" else room if truncate == "head" else 0
        first_left_out = math.ceil(before_end)
        del chosen[first_left_out]
    consecutive = sorted({numbers[i] for i in chosen})
    return "".join(text[i] for i in chosen), [consecutive.index(numbers[i]) for i in chosen]


@given(st.text(alphabet="ab. ?", min_size=1, max_size=31), st.integers(3, 17))
@pytest.mark.parametrize("truncate", ["head", "tail", "head_tail"])
def test_long_texts_keep_what_a_loop_keeps(truncate: Truncation, text: str, room: int) -> None:
    text = re.sub(r" +", " ", text)  # white space of several characters is another test's
    tokenizer = Tokenizer.fit(TokenizerConfig(kind="char"), ["ab. ?"])
    split = encode_texts([text, "b"], tokenizer, "classification", room + 1, truncate)
    kept, numbers = kept_by_loop(text, room, truncate)
    assert split.src[0].tolist() == [CLS, *tokenizer.encode_batch([kept])[0]]
    assert split.sentences[0].tolist() == [0, *numbers]
    assert split.n_cut == (len(text) > room)
    assert split.text(0) == text, "uncut"


def test_head_and_tail_are_shared_out_as_in_the_literature() -> None:
    assert kept_tokens(511, 510, "head_tail") == (128, 382)
    assert kept_tokens(510, 510, "head_tail") == (510, 0)
    for room in range(3, 100):
        head, tail = kept_tokens(100, room, "head_tail")
        assert head + tail == room and 0 <= head - room / 4 < 1


def test_many_texts_keep_their_order() -> None:
    """Tokenising goes in chunks, with and without sentence marks."""
    texts = ["ab"] * CHUNK + ["b. a", "c"] + ["d"] * CHUNK
    split = encode_texts(texts, CHAR, "translation", MAX_LENGTH)
    assert len(split) == len(texts)
    assert [split.src[i][:-1].tolist() for i in (0, CHUNK, CHUNK + 1, 2 * CHUNK)] == CHAR.encode_batch(
        ["ab", "b. a", "c", "d"]
    )
    assert split.sentences[CHUNK].tolist() == [0, 0, 0, 1, 1]


@pytest.mark.parametrize("text", ["", "abc"])
def test_prediction_has_no_targets(text: str) -> None:
    split: Split = encode_texts([text, "b"], CHAR, "translation", MAX_LENGTH)
    batch = split.batch(np.array([1, 0]))
    assert batch.targets.shape == (0,)
    assert batch.tgt_in is None
    assert batch.src.tolist() == padded([[*CHAR.encode_batch([t])[0], EOS] for t in ("b", text)])
    assert split.references(0) == ()


def test_no_texts() -> None:
    assert len(encode_texts([], CHAR, "classification", MAX_LENGTH)) == 0


def test_wide_vocabularies_need_wider_ids() -> None:
    many = Tokenizer.fit(TokenizerConfig(kind="word", vocab_size=70_000), [" ".join(f"w{i}" for i in range(69_000))])
    split = encode_texts(["w68999 w1"], many, "translation", 9)
    assert split.src.flat.dtype == np.uint32
    assert many.decode(split.src[0]) == "w68999 w1"
