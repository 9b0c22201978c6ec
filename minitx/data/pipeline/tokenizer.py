"""Text to token ids and back: a thin class over the `tokenizers` library.

`bpe`, `unigram` and `byte` work on UTF-8 bytes, so no text is unknown to them and decoding is exact (up to `lowercase`,
where it is asked for). `char` and `word` map what training texts lack to UNK, and `word` joins with single spaces.

The special tokens hold ids 0..4 under names that no text can produce: they contain a space, which never survives
splitting. A text that spells "[PAD]" is therefore tokenised as five ordinary characters.

Where training texts are in scripts without spaces (see `scripts.py`), `bpe` and `word` take each of their characters
for a word, and `bpe` learns no piece that occurs once: both would take whole clauses for tokens. `unigram` chooses its
pieces by likelihood and does without (on Japanese sentences 0.50 tokens per character in training, 0.62 in test).

Fitting is deterministic (ties are broken by the text itself), but for `unigram`: the library sums its likelihoods in
the order of a randomly seeded hash map, so that two fits agree in nearly all pieces, not in every score. The cache and
the checkpoint keep the fit that was used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import tokenizers
from numpy.typing import NDArray
from tokenizers import Regex, decoders, models, normalizers, pre_tokenizers, trainers

from minitx.batch import SPECIAL_TOKENS, UNK
from minitx.config import TokenizerConfig, rule
from minitx.data.pipeline.scripts import CHARACTER, GAP, begins_with_character, close_gaps, lacks_spaces

RESERVED = [f"{token} (special)" for token in SPECIAL_TOKENS]
N_BYTES = 256
LONGEST_WORD = 1000
"""Characters of a word (or of a run of marks, or of white space) on which `bpe` and `unigram` are fitted. For a longer
one the library takes time that grows with the square of its length, and at some length it ends the process."""
_LONG_WORD = re.compile("|".join(rf"({kind}{{{LONGEST_WORD}}}){kind}+" for kind in (r"\w", r"[^\w\s]", r"\s")))

# Byte-level vocabularies spell each byte as one visible character: itself where it has one, else the next from 256 on.
_VISIBLE = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
_HIDDEN = [byte for byte in range(N_BYTES) if byte not in _VISIBLE]
BYTE_CHARS = {b: chr(b) for b in _VISIBLE} | {b: chr(N_BYTES + i) for i, b in enumerate(_HIDDEN)}
_CHAR_BYTES = {char: byte for byte, char in BYTE_CHARS.items()}


class Tokenizer:
    """A fitted vocabulary. Its whole state is its JSON, which other tools that use `tokenizers` can read."""

    def __init__(self, text: str) -> None:
        self._json = text  # stored, because writing it anew may change the last digit of a unigram score
        self._inner = tokenizers.Tokenizer.from_str(text)
        self._inner.encode_special_tokens = True  # reserved names must not be found in text
        self._bytes = isinstance(self._inner.decoder, decoders.ByteLevel)
        self._divides = isinstance(self._inner.pre_tokenizer, pre_tokenizers.Sequence)

    def __eq__(self, other: object) -> bool:
        """True of the same vocabulary and rules."""
        return isinstance(other, Tokenizer) and self._json == other._json

    def __hash__(self) -> int:
        return hash(self._json)

    @classmethod
    def fit(cls, config: TokenizerConfig, *columns: Iterable[str], symbols: bool = False) -> Tokenizer:
        """Fit on training texts; the same texts give the same vocabulary (`unigram`: nearly, see above).

        columns: of texts, which are read twice and not kept: memory grows with distinct words, not with texts.
        symbols: `word` splits at white space alone, for texts that are sequences of symbols (phonemes, IPA, numbers),
        whose marks must not be cut off. Otherwise punctuation is split off.
        """
        inner = _untrained(config, symbols)
        divides = config.kind in ("bpe", "word") and not symbols and lacks_spaces(chain(*columns))
        if divides:
            inner.pre_tokenizer = pre_tokenizers.Sequence([_EACH_CHARACTER, inner.pre_tokenizer])
        if config.lowercase:
            inner.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.Lowercase()])
        trainer = _trainer(config, least_frequency=2 if divides else 0)
        if trainer is not None:
            texts, whole_words = chain(*columns), config.kind in ("char", "word")
            inner.train_from_iterator(texts if whole_words else _with_short_words(texts), trainer)
        return cls(inner.to_str())

    @property
    def vocab_size(self) -> int:
        """Number of ids, the five special ones included."""
        return int(self._inner.get_vocab_size())

    @property
    def joiner(self) -> str:
        """What `decode` puts between two tokens."""
        return " " if self._inner.decoder is None else ""

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens (but UNK where a text needs it)."""
        return [encoding.ids for encoding in self._inner.encode_batch_fast(list(texts), add_special_tokens=False)]

    def encode_with_marks(
        self, texts: Sequence[str], marks: Sequence[Sequence[int]]
    ) -> tuple[list[list[int]], list[list[int]]]:
        """Token ids of each text, and the position of the token that holds each marked character.

        marks: positions of characters in each text.
        """
        encodings = self._inner.encode_batch(list(texts), add_special_tokens=False)
        positions = [
            _tokens_at(encoding.offsets, of_text) if of_text else []
            for encoding, of_text in zip(encodings, marks, strict=True)
        ]
        return [encoding.ids for encoding in encodings], positions

    def word_starts(self) -> NDArray[np.bool_]:
        """(V,) True = a token that begins a word, or the white space before one (the first word of a text has none).

        Words are what white space separates, and the characters of a script without spaces; with `word` every token is
        one. Not for `char` and `byte`.
        """
        if not self._bytes:
            return np.ones(self.vocab_size, np.bool_)
        pieces = (str(self._inner.id_to_token(i)) for i in range(len(RESERVED), self.vocab_size))
        starts = [self._starts_word(bytes(_CHAR_BYTES[char] for char in piece)) for piece in pieces]
        return np.array([False] * len(RESERVED) + starts)

    def _starts_word(self, piece: bytes) -> bool:
        return piece[:1].isspace() or (self._divides and begins_with_character(piece.decode(errors="ignore")))

    def decode(self, ids: Iterable[int]) -> str:
        """The text that `ids` stand for; special tokens are left out."""
        text = str(self._inner.decode([int(i) for i in ids if i >= len(RESERVED)]))
        return close_gaps(text) if self.no_space_between else text

    @property
    def no_space_between(self) -> str | None:
        """A regular expression of the spaces that `decode` takes out of what the library writes; None = none."""
        return GAP if self._divides and not self._bytes else None

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """One readable label per id: special tokens in brackets, a space as `␣`, a broken character as `<E2>`."""
        return [self._label(int(i)) for i in ids]

    def _label(self, token_id: int) -> str:
        if token_id < len(SPECIAL_TOKENS):
            return SPECIAL_TOKENS[token_id]
        piece = str(self._inner.id_to_token(token_id))
        if self._bytes:
            raw = bytes(_CHAR_BYTES[char] for char in piece)
            try:
                piece = raw.decode()
            except UnicodeDecodeError:
                piece = "".join(f"<{byte:02X}>" for byte in raw)
        return piece.replace(" ", "␣").replace("\n", "⏎").replace("\t", "⇥")

    def to_json(self) -> str:
        """All that `from_json` needs, to the last digit."""
        return self._json

    @classmethod
    def from_json(cls, text: str) -> Tokenizer:
        return cls(text)


def _tokens_at(offsets: Sequence[tuple[int, int]], marks: Sequence[int]) -> list[int]:
    """The first token that holds each marked character, where there is one: the library's `char_to_token`, which looks
    through all tokens for each mark, in one pass. offsets: (first character, one past the last) of each token."""
    starts, ends = np.array(offsets, np.int64).reshape(-1, 2).T
    tokens = np.searchsorted(np.maximum.accumulate(ends), marks, side="right")
    return [
        token
        for token, mark in zip(tokens.tolist(), marks, strict=True)
        if token < len(starts) and starts[token] <= mark
    ]


def _with_short_words(texts: Iterable[str]) -> Iterator[str]:
    """The texts, of each word that is longer than `LONGEST_WORD` its beginning alone."""
    return (_LONG_WORD.sub(r"\1\2\3", text) if len(text) > LONGEST_WORD else text for text in texts)


def check_tokenizer(key: str, config: TokenizerConfig) -> None:
    """Raise a ConfigError where a byte-based kind has no room for every byte. key: names the section in messages."""
    least = len(RESERVED) + N_BYTES
    if config.kind in ("bpe", "unigram") and config.vocab_size < least:
        raise rule(
            f"{key}.vocab_size", config.vocab_size, f"be at least {least}, because {key}.kind is {config.kind}",
            "five special tokens and 256 bytes come first; kind=char suits small vocabularies",
        )  # fmt: skip


def _untrained(config: TokenizerConfig, symbols: bool) -> tokenizers.Tokenizer:
    if config.kind in ("word", "char"):
        inner = tokenizers.Tokenizer(models.WordLevel(unk_token=RESERVED[UNK]))
        if config.kind == "char":
            inner.pre_tokenizer = pre_tokenizers.Split(Regex(r"[\s\S]"), "isolated")
            inner.decoder = decoders.Fuse()
        else:
            inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit() if symbols else pre_tokenizers.Whitespace()
        return inner
    if config.kind == "byte":
        vocabulary = [*RESERVED, *(BYTE_CHARS[byte] for byte in range(N_BYTES))]
        inner = tokenizers.Tokenizer(models.BPE({token: i for i, token in enumerate(vocabulary)}, []))
    else:
        inner = tokenizers.Tokenizer(models.BPE() if config.kind == "bpe" else models.Unigram())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return inner


_EACH_CHARACTER = pre_tokenizers.Split(Regex(rf"{CHARACTER}\p{{M}}*"), "isolated")
"""Takes a character of a script without spaces, with its marks, for a word."""


def _trainer(config: TokenizerConfig, least_frequency: int) -> trainers.Trainer | None:
    """None for `byte`, which has nothing to learn. least_frequency: of a piece of `bpe`."""
    common: dict[str, Any] = {"vocab_size": config.vocab_size, "special_tokens": RESERVED, "show_progress": False}
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    if config.kind == "bpe":
        return trainers.BpeTrainer(initial_alphabet=alphabet, min_frequency=least_frequency, **common)
    if config.kind == "unigram":
        return trainers.UnigramTrainer(initial_alphabet=alphabet, unk_token=RESERVED[UNK], **common)
    return None if config.kind == "byte" else trainers.WordLevelTrainer(**common)
