"""Scripts that write no spaces between words (Chinese, Japanese, Thai, ...): how they are found and divided.

A tokeniser that looks for words between spaces takes whole clauses of such a text for words: nearly every one is new in
the next text, and a model knows next to nothing of it. So the text is divided into characters before pieces or words
are learned. Texts whose words have been set apart already are left as they are.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

_BLOCKS = (
    "\u0e00-\u0eff"  # Thai, Lao
    "\u1000-\u109f\u1780-\u17ff"  # Myanmar, Khmer
    "\u1950-\u19df\u1a20-\u1aaf\ua980-\ua9df"  # Tai Le, New Tai Lue, Tai Tham, Javanese
    "\u3005-\u3007\u3040-\u312f\u31f0-\u31ff\uff66-\uff9f"  # signs of repetition, kana, Bopomofo
    "\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"  # Han
)
CHARACTER = f"[{_BLOCKS}]"
"""A character of a script without spaces, as a regular expression of Python's and of `tokenizers`."""
_CHARACTER = re.compile(CHARACTER)
_WIDE = f"[{_BLOCKS}\u3000-\u303f\uff00-\uffef]"  # with the punctuation that goes with them
GAP = f"(?<={_WIDE}) (?={_WIDE})"
"""A space between two characters of such scripts, or their punctuation."""
_GAP = re.compile(GAP)

PRESENT = 0.01
"""Share of all characters from which such a script counts; a stray sign changes no vocabulary."""
SET_APART = 0.2
"""Spaces between such characters, per character, from which words have been set apart already: they are of about two
characters in Chinese and Japanese and of four in Thai, where clauses are of ten and more."""


def lacks_spaces(texts: Iterable[str]) -> bool:
    """Whether a good part of the texts is in scripts without spaces, with no spaces between words."""
    n_all = n_found = n_gaps = 0
    for text in texts:
        n_all += len(text)
        if not text.isascii():
            n_found += len(_CHARACTER.findall(text))
            n_gaps += len(_GAP.findall(text))
    return n_found >= max(1, PRESENT * n_all) and n_gaps < SET_APART * n_found


def begins_with_character(text: str) -> bool:
    """Whether a text begins with a character of a script without spaces."""
    return _CHARACTER.match(text) is not None


def close_gaps(text: str) -> str:
    """The text without the spaces between two characters of scripts without spaces, or their punctuation."""
    return _GAP.sub("", text)
