"""Fonts for pictures: every letter is taken from the first installed font that has it; where none has, a box is drawn
and a warning says what to install."""

from __future__ import annotations

import re
import unicodedata
import warnings
from collections.abc import Sequence
from functools import cache
from typing import Any

import matplotlib
from matplotlib.font_manager import FontProperties, findfont, findSystemFonts, fontManager, get_font

LATIN = "DejaVu Sans"
"""Comes with matplotlib, so that a picture in English has the same bytes everywhere."""
CHINESE = (
    "Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "Microsoft YaHei", "PingFang SC",
    "Hiragino Sans GB", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei", "SimHei", "Noto Sans CJK JP", "Droid Sans Fallback",
)  # fmt: skip
"""Fonts with Chinese letters, best first."""
OTHERS = (
    "Noto Sans JP", "Hiragino Sans", "Yu Gothic", "Noto Sans CJK KR", "Noto Sans KR", "Apple SD Gothic Neo",
    "Malgun Gothic", "Noto Sans Arabic", "Noto Naskh Arabic", "Geeza Pro", "Noto Sans Hebrew", "Noto Sans Devanagari",
    "Noto Sans Thai", "Noto Sans Symbols", "Noto Sans Symbols 2", "Noto Emoji", "Symbola", "Segoe UI Emoji",
    "Segoe UI Symbol", "Arial Unicode MS", "Unifont",
)  # fmt: skip
"""Fonts with other letters and signs."""
PACKAGES = {
    "CJK": "fonts-noto-cjk", "HIRAGANA": "fonts-noto-cjk", "KATAKANA": "fonts-noto-cjk", "HANGUL": "fonts-noto-cjk",
    "ARABIC": "fonts-noto-core", "HEBREW": "fonts-noto-core", "DEVANAGARI": "fonts-noto-core",
    "THAI": "fonts-noto-core",
}  # fmt: skip
"""First word of a character's name -> the Debian package of a font for it."""
SIGNS = "fonts-symbola"
"""The package for emoji and other signs."""
BOX = "\u25a1"


@cache
def chinese_font() -> str | None:
    """The name of an installed font with Chinese letters."""
    return next((name for name in CHINESE if name in _installed()), None)


@cache
def _installed() -> frozenset[str]:
    """Names of fonts. matplotlib keeps a list from its first use; fonts that came later are looked for too, where the
    list has none that is wanted."""
    names = {font.name for font in fontManager.ttflist}
    if not names & {*CHINESE, *OTHERS}:
        wanted = "cjk|noto|sourcehan|yahei|pingfang|hiragino|wqy|simhei|fallback|gothic|symbola|emoji|unifont"
        for path in findSystemFonts():
            if re.search(wanted, path, re.IGNORECASE) and "color" not in path.lower():
                fontManager.addfont(path)
        names = {font.name for font in fontManager.ttflist}
    return frozenset(names)


@cache
def families() -> tuple[str, ...]:
    """Every installed font of this file's lists; matplotlib takes a letter from the first that has it."""
    chosen = chinese_font()
    return tuple(name for name in (LATIN, chosen, *OTHERS) if name == LATIN or name in _installed())


def in_any_script() -> Any:
    """A context in which texts of a figure are given all `families`."""
    return matplotlib.rc_context({"font.family": list(families())})


def drawable(text: str, names: Sequence[str] | None = None) -> str:
    """`text` with a box for every character that none of the fonts has; matplotlib would warn at each. names: of fonts;
    None = `families`."""
    fonts = [_glyphs(name) for name in names or families()]
    missing = {char for char in text if not any(font.get_char_index(ord(char)) for font in fonts)}
    if missing and names is None:
        _warn(frozenset(map(package_for, missing)))
    return "".join(BOX if char in missing else char for char in text)


@cache
def _glyphs(name: str) -> Any:
    return get_font(findfont(FontProperties(family=[name])))


@cache
def _warn(packages: frozenset[str]) -> None:
    """Once for each set of packages."""
    listed = ", ".join(sorted(packages))
    warnings.warn(f"no installed font has some letters, which pictures show as boxes; install {listed}", stacklevel=4)


def package_for(char: str) -> str:
    """The Debian package of a font that has a character."""
    return PACKAGES.get(unicodedata.name(char, "").partition(" ")[0], SIGNS)
