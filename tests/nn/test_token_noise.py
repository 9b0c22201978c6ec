"""Token and word dropout: who may be dropped, how often, and that words go as a whole."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import Tensor

from minitx.batch import CLS, EOS, PAD, SPECIAL_TOKENS, UNK
from minitx.config import TokenizerConfig
from minitx.data.pipeline.tokenizer import Tokenizer
from minitx.nn.classifier import TokenNoise

V, B, S = 29, 997, 31
STARTS = torch.tensor([i >= len(SPECIAL_TOKENS) and i % 3 == 0 for i in range(V)])


def noise(token_rate: float, word_rate: float, starts: Tensor = STARTS) -> TokenNoise:
    made = TokenNoise(token_rate, word_rate)
    made.learn_words(starts)
    return made


def ids(rows: int = B, length: int = S) -> Tensor:
    """[CLS], ordinary tokens, now and then [EOS], and padding of any length."""
    generator = torch.Generator().manual_seed(1)
    ids_BS = torch.randint(5, V, (rows, length), generator=generator)
    ids_BS[:, 0] = CLS
    ids_BS[::7, length // 2] = EOS
    lengths = torch.randint(2, length + 1, (rows, 1), generator=generator)
    return ids_BS.masked_fill(torch.arange(length) >= lengths, PAD)


@pytest.mark.parametrize("rates", [(0.3, 0.0), (0.0, 0.3), (0.3, 0.3), (0.99, 0.99)])
def test_tokens_stay_or_become_unknown_and_special_ones_stay(rates: tuple[float, float]) -> None:
    torch.manual_seed(0)
    before = ids()
    after = noise(*rates)(before)
    special = before < len(SPECIAL_TOKENS)
    assert torch.equal(after[special], before[special])
    changed = after != before
    assert changed.any() and bool((after[changed] == UNK).all())


@pytest.mark.parametrize(("token_rate", "word_rate"), [(0.1, 0.0), (0.0, 0.1), (0.1, 0.2)])
def test_rates_are_those_asked_for(token_rate: float, word_rate: float) -> None:
    """Within five standard deviations; words of up to 30 tokens fall as one, so the words are what is counted."""
    torch.manual_seed(0)
    before = ids()
    ordinary = before >= len(SPECIAL_TOKENS)
    dropped = (noise(token_rate, word_rate)(before) == UNK)[ordinary].double().mean()
    expected = 1 - (1 - token_rate) * (1 - word_rate)
    weights = torch.tensor([len(word) for row in words(before) for word in row], dtype=torch.float64)
    variance = expected * (1 - expected) * (weights.square().sum() if word_rate else weights.sum()) / weights.sum() ** 2
    assert abs(dropped - expected) < 5 * variance.sqrt()
    assert variance.sqrt() < 0.01, "or nothing is tested"


def words(ids_BS: Tensor, starts: Tensor = STARTS) -> list[list[list[int]]]:
    """The positions of each word's ordinary tokens, by row; a word ends where the next one begins."""
    found = []
    for row in ids_BS.tolist():
        of_row: list[list[int]] = [[]]
        for i, token in enumerate(row):
            if starts[token]:
                of_row.append([])
            if token >= len(SPECIAL_TOKENS):
                of_row[-1].append(i)
        found.append([word for word in of_row if word])
    return found


@pytest.mark.parametrize("starts", [STARTS, torch.ones(V, dtype=torch.bool)], ids=["pieces", "whole words"])
def test_a_word_goes_with_all_its_tokens_and_no_other(starts: Tensor) -> None:
    torch.manual_seed(0)
    before = ids()
    after = noise(0.0, 0.4, starts)(before)
    dropped, alike, pairs = [], 0, 0
    for row, of_row in zip((after == UNK).tolist(), words(before, starts), strict=True):
        of_words = [{row[i] for i in word} for word in of_row]
        assert all(len(states) == 1 for states in of_words)
        flags = [states.pop() for states in of_words]
        dropped += flags
        alike += sum(a == b for a, b in itertools.pairwise(flags))
        pairs += len(flags) - 1
    share, n = sum(dropped) / len(dropped), len(dropped)
    assert abs(share - 0.4) < 5 * (0.24 / n) ** 0.5
    # neighbours are independent: alike with chance 0.4^2 + 0.6^2; pairs overlap, which at most doubles the variance
    assert abs(alike / pairs - 0.52) < 5 * (2 * 0.25 / pairs) ** 0.5


def test_the_last_two_words_of_a_full_row_are_two() -> None:
    """Each token a word, the first included: the row needs a draw more than there are gaps between its tokens."""
    torch.manual_seed(0)
    before = torch.full((B, 5), 7)
    dropped = noise(0.0, 0.5, torch.ones(V, dtype=torch.bool))(before) == UNK
    for i in range(4):
        alike = (dropped[:, i] == dropped[:, i + 1]).double().mean()
        assert abs(alike - 0.5) < 5 * (0.25 / B) ** 0.5


def test_evaluation_and_rates_of_zero_read_everything() -> None:
    before = ids()
    assert noise(0.0, 0.0)(before) is before
    assert noise(0.5, 0.5).eval()(before) is before
    untold = TokenNoise(0.0, 0.5).eval()
    assert untold(before) is before, "only training needs to know words"
    with pytest.raises(AssertionError, match="where words begin"):
        untold.train()(before)


def test_one_seed_draws_one_noise_and_the_input_stays() -> None:
    before = ids()
    kept = before.clone()
    drawn = []
    for _ in range(2):
        torch.manual_seed(3)
        drawn.append(noise(0.2, 0.2)(before))
    assert torch.equal(drawn[0], drawn[1]) and torch.equal(before, kept)
    assert not torch.equal(noise(0.2, 0.2)(before), drawn[0])
    assert not noise(0.2, 0.2).state_dict(), "nothing of it is in a checkpoint"


TEXTS = ["The film isn't bad, it's à la carte… not Ålesund!", "un  deux\n\ttrois", "unbelievable believers believe 123"]


@pytest.mark.parametrize("kind", ["bpe", "unigram", "word"])
@pytest.mark.parametrize("vocab_size", [270, 400])
def test_words_of_real_text(kind: str, vocab_size: int) -> None:
    """Tokens joined from start to start spell the text's words; with `word` every token is one."""
    config = TokenizerConfig.model_validate({"kind": kind, "vocab_size": vocab_size})
    tokenizer = Tokenizer.fit(config, TEXTS * 3)
    starts = torch.from_numpy(tokenizer.word_starts())
    assert starts.shape == (tokenizer.vocab_size,)
    for text, encoded in zip(TEXTS, tokenizer.encode_batch(TEXTS), strict=True):
        (found,) = words(torch.tensor([[CLS, *encoded]]), starts)
        spelled = [tokenizer.decode([encoded[i - 1] for i in word]) for word in found]
        if kind == "word":
            assert [len(word) for word in found] == [1] * len(encoded)
        else:
            assert "".join(spelled) == text
            assert [word.strip() for word in spelled if word.strip()] == text.split()
