"""Tokenisers: round trips, special tokens that no text can reach, labels, determinism, errors."""

import hashlib
import subprocess
import sys
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import pre_tokenizers

from minitx.batch import BOS, CLS, EOS, PAD, SPECIAL_TOKENS, UNK
from minitx.config import ConfigError, TokenizerConfig
from minitx.config.data import TokenizerKind
from minitx.data.pipeline.tokenizer import (
    BYTE_CHARS,
    LONGEST_WORD,
    RESERVED,
    Tokenizer,
    _with_short_words,
    check_tokenizer,
)

TEXTS = [
    f"Das {word} ist schön, nicht wahr? [PAD] {RESERVED[0]}" for word in ("Haus", "Boot", "Brot", "Übel", "rote")
] * 3
KINDS = ("bpe", "unigram", "word", "char", "byte")
EXACT = {kind: Tokenizer.fit(TokenizerConfig(kind=kind, vocab_size=300), TEXTS) for kind in ("bpe", "unigram", "byte")}


def fit(kind: str, texts: list[str] = TEXTS, **options: object) -> Tokenizer:
    symbols = bool(options.pop("symbols", False))
    return Tokenizer.fit(TokenizerConfig.model_validate({"kind": kind, **options}), texts, symbols=symbols)


@pytest.mark.parametrize("kind", sorted(EXACT))
@given(text=st.text())
def test_byte_based_kinds_give_any_text_back(kind: str, text: str) -> None:
    (ids,) = EXACT[kind].encode_batch([text])
    assert EXACT[kind].decode(ids) == text
    assert UNK not in ids


def test_bytes_are_their_values() -> None:
    text = "a\nß☃"
    assert EXACT["byte"].encode_batch([text]) == [[5 + byte for byte in text.encode()]]
    assert EXACT["byte"].vocab_size == 261


def test_byte_characters_are_those_of_the_library() -> None:
    assert set(BYTE_CHARS.values()) == set(pre_tokenizers.ByteLevel.alphabet())
    level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    for char in map(chr, range(0x7FF)):
        assert level.pre_tokenize_str(char)[0][0] == "".join(BYTE_CHARS[byte] for byte in char.encode())


def test_char_and_word_decoding() -> None:
    char, word = fit("char"), fit("word")
    assert char.decode(char.encode_batch(["Das  Boot"])[0]) == "Das  Boot"
    assert word.decode(word.encode_batch(["Das   Haus, wahr?"])[0]) == "Das Haus , wahr ?"


@pytest.mark.parametrize("kind", ["char", "word"])
def test_unknown_becomes_unk(kind: str) -> None:
    (ids,) = fit(kind).encode_batch(["☃"])
    assert ids == [UNK]


def test_lowercase_normalises() -> None:
    tokenizer = fit("bpe", lowercase=True, vocab_size=300)
    assert tokenizer.decode(tokenizer.encode_batch(["DAS Ｈaus"])[0]) == "das haus"


def test_symbols_are_not_cut() -> None:
    """A mark belongs to its symbol; running text has its punctuation apart."""
    ipa = ["k' ɑː. t͡ʃ"]
    assert len(fit("word", ipa, symbols=True).encode_batch(ipa)[0]) == 3
    assert len(fit("word", ipa).encode_batch(ipa)[0]) > 3


@pytest.mark.parametrize("kind", KINDS)
def test_no_text_becomes_a_special_token(kind: str) -> None:
    """Even fitted on texts full of such spellings, where a trainer could learn one as a piece."""
    evil = [*SPECIAL_TOKENS, *RESERVED, "".join(RESERVED), " ".join(SPECIAL_TOKENS)] * 7
    for symbols in (False, True):
        tokenizer = fit(kind, evil, vocab_size=400, symbols=symbols)
        again = Tokenizer.from_json(tokenizer.to_json())
        for each in (tokenizer, again):
            assert all(i >= len(SPECIAL_TOKENS) for ids in each.encode_batch(evil) for i in ids)


@pytest.mark.parametrize("kind", KINDS)
def test_special_ids_are_the_batch_s(kind: str) -> None:
    tokenizer = fit(kind, vocab_size=300)
    assert tokenizer.tokens([PAD, UNK, BOS, EOS, CLS]) == ["[PAD]", "[UNK]", "[BOS]", "[EOS]", "[CLS]"]
    assert tokenizer.decode([BOS, PAD, EOS, CLS, UNK]) == ""
    assert tokenizer.vocab_size <= 300
    (ids,) = tokenizer.encode_batch(["Das Haus"])
    assert max(ids) < tokenizer.vocab_size
    assert tokenizer.decode([BOS, *ids, EOS, PAD]) == tokenizer.decode(ids) == "Das Haus"


def test_labels_are_readable() -> None:
    assert EXACT["byte"].tokens(EXACT["byte"].encode_batch(["a ß"])[0]) == ["a", "␣", "<C3>", "<9F>"]
    assert fit("char").tokens(fit("char").encode_batch(["s i"])[0]) == ["s", "␣", "i"]
    bpe = fit("bpe", vocab_size=400)
    assert bpe.tokens(bpe.encode_batch(["Das ist schön"])[0]) == ["Das", "␣ist", "␣schön"]


@pytest.mark.parametrize("kind", KINDS)
def test_json_round_trip(kind: str) -> None:
    tokenizer = fit(kind, lowercase=True, vocab_size=300)
    again = Tokenizer.from_json(tokenizer.to_json())
    assert again.encode_batch(TEXTS) == tokenizer.encode_batch(TEXTS)
    assert again.to_json() == tokenizer.to_json()
    (ids,) = again.encode_batch(["Das Haus"])
    assert again.decode(ids) == tokenizer.decode(ids)
    assert again.tokens(ids) == tokenizer.tokens(ids)


def test_marks_find_their_token() -> None:
    text = "Das Haus ist schön, nicht wahr"
    for kind in KINDS:
        tokenizer = fit(kind, vocab_size=300)
        ids, held = tokenizer.encode_with_marks([text], [[text.index("nicht")]])
        assert ids == tokenizer.encode_batch([text])
        assert tokenizer.decode(ids[0][: held[0][0]]).replace(" ,", ",").strip() == "Das Haus ist schön,"


FIT_IN_A_PROCESS = """
import hashlib
from minitx.config import TokenizerConfig
from minitx.data.pipeline.tokenizer import Tokenizer
texts = [f"wort{i % 37} {chr(97 + i % 26)}{chr(97 + i % 7)} {'xyz' * (i % 5)}" for i in range(1000)]
for kind in ("bpe", "word", "char"):
    tokenizer = Tokenizer.fit(TokenizerConfig(kind=kind, vocab_size=290 if kind == "bpe" else 30), texts)
    print(hashlib.sha256(tokenizer.to_json().encode()).hexdigest())
"""


def test_fitting_is_deterministic_across_processes() -> None:
    """Many ties, few places: hash seeds of the processes differ, the vocabularies may not."""
    runs = [subprocess.run([sys.executable, "-c", FIT_IN_A_PROCESS], capture_output=True, check=True) for _ in range(2)]
    assert len({run.stdout for run in runs}) == 1
    assert len(set(runs[0].stdout.split())) == 3
    assert len(runs[0].stdout.split()[0]) == 2 * hashlib.sha256().digest_size


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
def test_byte_based_kinds_need_room(kind: str) -> None:
    with pytest.raises(ConfigError, match=rf"^data\.tokenizer\.vocab_size \(260\) must be at least 261.*{kind}"):
        check_tokenizer("data.tokenizer", TokenizerConfig.model_validate({"kind": kind, "vocab_size": 260}))
    check_tokenizer("data.tokenizer", TokenizerConfig.model_validate({"kind": kind, "vocab_size": 261}))


# ---------------------------------------------------------------------------------------------------------- long texts


@pytest.mark.parametrize("kind", ["bpe", "unigram", "word", "char", "byte"])
@given(
    texts=st.lists(st.text(st.sampled_from("ab .!?\n é漢🙂ﬁİ"), max_size=23), min_size=1, max_size=3), data=st.data()
)
def test_marked_characters_are_found_as_the_library_finds_them(
    kind: TokenizerKind, texts: list[str], data: st.DataObject
) -> None:
    """Also where one character is several tokens, where normalising makes several of one, and where none holds it."""
    tokenizer = FITTED[kind]
    marks = [sorted(data.draw(st.sets(st.integers(0, max(0, len(text) - 1)), max_size=5))) for text in texts]
    _, found = tokenizer.encode_with_marks(texts, marks)
    for text, of_text, tokens in zip(texts, marks, found, strict=True):
        encoding = tokenizer._inner.encode(text, add_special_tokens=False)
        assert tokens == [t for mark in of_text if (t := encoding.char_to_token(mark)) is not None]


FITTED = {
    kind: Tokenizer.fit(
        TokenizerConfig(kind=kind, vocab_size=300, lowercase=True), ["ab ba. aé!", "b 漢 a? ﬁ İ", "🙂 a\n b"]
    )
    for kind in get_args(TokenizerKind)
}


@pytest.mark.parametrize("kind", ["bpe", "unigram"])
@pytest.mark.parametrize("word", ["ab" * 300_000, "-" * 500_001, " " * 500_001, "漢字" * 200_000], ids=len)
def test_a_very_long_word_is_fitted_on_by_its_beginning(kind: TokenizerKind, word: str) -> None:
    """The library takes quadratic time for it, and with some lengths of it ends the process."""
    config = TokenizerConfig(kind=kind, vocab_size=300)
    short = word[:LONGEST_WORD]
    fitted, of_short = (Tokenizer.fit(config, ["some words", f"x {w}y"]) for w in (word, short))
    assert set(fitted._inner.get_vocab()) >= set(of_short._inner.get_vocab()) - {"xy", "Ġx"}
    assert fitted.decode(fitted.encode_batch([f"x {short}y"])[0]) == f"x {short}y"


def test_words_of_ordinary_length_are_fitted_on_whole() -> None:
    texts = ["a" * LONGEST_WORD, "b" * 700 + " " * 700 + "." * 700, f"{'c' * 999}. " * 3, "short"]
    assert list(_with_short_words(texts)) == texts
    assert list(_with_short_words(["a" * 5003 + "!" * 2003 + "c"])) == ["a" * 1000 + "!" * 1000 + "c"]
