"""Warnings of a vocabulary that fits the training texts and no others: it was learned by heart, not cut into parts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from minitx.batch import UNK
from minitx.config import DataConfig, TokenizerConfig
from minitx.data.splits import Ragged, Split, Texts

MORE_TOKENS = 2.0
"""Times as many tokens per character as in training. A thousand rows of English or German take up to 1.3 times as many
in test, a hundred up to 2; a word of letters alone, or a clause without spaces, where each is a token of its own, takes
3 and more."""
MORE_UNKNOWN = 0.5
"""Share of unknown tokens beyond training's. Of a thousand rows of running text it is up to 0.2, of a hundred 0.4."""


@dataclass(frozen=True)
class _Side:
    """Of one side of a split, its rows that were not cut."""

    tokens: int
    characters: int
    unknown: int

    @classmethod
    def of(cls, ids: Ragged, texts: Texts, max_length: int) -> _Side:
        """texts: one per row."""
        whole = ids.lengths < max_length
        return cls(
            tokens=int((ids.lengths - 1)[whole].sum()),  # each row has one special token
            # in UTF-8 every character has one byte that is no 10xxxxxx
            characters=int(texts.encoded.count(lambda byte: (byte & 0xC0) != 0x80)[whole].sum()),
            unknown=int(ids.count(lambda token: token == UNK)[whole].sum()),
        )


def unlike_training(splits: Mapping[str, Split], config: DataConfig) -> Iterator[str]:
    """A warning for each side of the data whose tokens in validation or test are unlike those in training."""
    own_target = config.tgt_tokenizer is not None
    for side, key in (("src", "tokenizer"), ("tgt", "tgt_tokenizer" if own_target else "tokenizer")):
        parts = {name: part for name, split in splits.items() if (part := _side(split, side, config.max_length))}
        train = parts.pop("train", None)
        found = [line for name, part in parts.items() if train and (line := _compared(part, train, name))]
        if found:
            settings: TokenizerConfig = getattr(config, key)
            finer = "byte" if settings.kind == "char" else "char"
            whose = "" if config.task != "translation" else "of the source " if side == "src" else "of the target "
            yield f"data.{key}.kind ({settings.kind}) {whose}{found[-1]}; set data.{key}.kind={finer}"


def _side(split: Split, side: str, max_length: int) -> _Side | None:
    """None where there is no such side, or no row of it is whole."""
    if side == "src":
        found = _Side.of(split.src, split.texts, max_length)
    elif split.tgt is None or split.reference_texts is None or split.reference_groups is None:
        return None
    else:
        first = split.reference_texts
        if len(first) > len(split):  # in training each row has one, which may be more than fits into memory
            first = Texts(first.encoded.take(split.reference_groups[:-1]))
        found = _Side.of(split.tgt, first, max_length)
    return found if found.tokens and found.characters else None


def _compared(part: _Side, train: _Side, name: str) -> str | None:
    """What is wrong with a split's tokens, if anything is."""
    more = (part.tokens / part.characters) / (train.tokens / train.characters)
    if more >= MORE_TOKENS:
        return f"takes {more:.1f} times as many tokens per character for {name} texts as for training texts"
    unknown, known_of = part.unknown / part.tokens, train.unknown / train.tokens
    if unknown - known_of >= MORE_UNKNOWN:
        return f"knows only {100 * (1 - unknown):.0f} % of the tokens of {name} texts"
    return None
