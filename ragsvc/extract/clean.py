"""Normalises the characters of extracted text for search and display. Pure.

Keeps letters, case, punctuation and the order of words. Removes control characters, ligatures, presentation forms of
Arabic and Hebrew, mathematical alphabets, repeated spaces, and hyphens that only break a word at a line end.
"""

from __future__ import annotations

import re
import string
import unicodedata
from collections.abc import Callable, Iterable
from functools import reduce

LINE_HYPHEN = "\ufffe"
"""Placeholder of a hyphen at a line end, until the words of the whole document decide whether it is kept."""

_NO_BREAK_SPACES = "\u00a0\u2007\u202f"
_BLANKS = "\t\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2008\u2009\u200a\u205f\u3000"
_INVISIBLE = "\u00ad\u200b\u2060\ufeff\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
_LIGATURES = dict(zip("ﬀﬁﬂﬃﬄﬅﬆ", ("ff", "fi", "fl", "ffi", "ffl", "st", "st"), strict=True))
SYMBOL_MARKS = dict(
    zip(
        "\xb7\xa7\xd8\xfc\xfb\xfe\xfd\xa8lnqruvw\x9f\xe0\xf0",
        "\u2022\u25aa\u27a2\u2713\u2717\u2611\u2612\u25fb\u25cf\u25a0\u2751\u25a1\u25c6\u2756\u25c6\u2022\u2192\u21e8",
        strict=True,
    )
)
"""List marks and ticks by their codes in the fonts Symbol and Wingdings."""
_TABLE: dict[int, str | None] = {
    **{0xF000 + ord(code): mark for code, mark in SYMBOL_MARKS.items()},
    **dict.fromkeys(range(0x20)),
    **dict.fromkeys(range(0x7F, 0xA0)),
    **dict.fromkeys(map(ord, _INVISIBLE)),
    **dict.fromkeys(map(ord, _NO_BREAK_SPACES + _BLANKS), " "),
    **{ord(ligature): letters for ligature, letters in _LIGATURES.items()},
    0xFFFF: None,
    0x02: LINE_HYPHEN,
    0x0A: "\n",
    0x09: " ",
}
_PRESENTATION_FORMS = re.compile("[\ufb1d-\ufdff\ufe70-\ufefc]+")
_ODD = re.compile(
    "["
    + "".join(map(chr, (code for code in _TABLE if code > 0x9F)))
    + "\ufb1d-\ufdff\ufe70-\ufefc\U0001d400-\U0001d7ff]"
)
_MATHEMATICAL = re.compile("[\U0001d400-\U0001d7ff]+")
_BLANK_RUNS = re.compile(r" {2,}")
_UNUSABLE = re.compile("[\x01\x03-\x08\x0b\x0c\x0e-\x1f\ue000-\uf8ff\ufffd\U000f0000-\U0010fffd]")
_VOWELS = b"aeiouyAEIOUY"
_LETTERS = string.ascii_letters.encode()
_GLYPH_NUMBERS_TO_ASCII = bytes((code + 29) % 128 if code < 128 else code for code in range(256))

_WORD = re.compile(r"[^\W\d_]+(?:[-\u2010\u2011][^\W\d_]+)*")
_BROKEN_WORD = re.compile(rf"[^\s{LINE_HYPHEN}]*(?:{LINE_HYPHEN}\s*[^\s{LINE_HYPHEN}]*)+")
_LAST_LETTERS = re.compile(r"[^\W\d_]+$")
_FIRST_LETTERS = re.compile(r"^[^\W\d_]+")
_COMPOUND_STARTS = frozenset(
    (
        *("all", "anti", "cross", "full", "half", "high", "ill", "long", "low", "mid", "multi", "near", "non", "off"),
        *("one", "part", "quasi", "real", "self", "semi", "short", "single", "so", "third", "two", "ultra", "well"),
        "year",
    )
)
_COMPOUND_MIDDLES = frozenset(("a", "and", "at", "by", "in", "of", "on", "or", "the", "to", "up"))


def clean_line(raw: str) -> str:
    r"""Normalise a line of extracted text; keeps ``LINE_HYPHEN``.

    >>> clean_line("e\u0301t\xe9\x00 \ufb01nal  figure")
    'été final figure'
    """
    text = raw
    if not (raw.isprintable() and (raw.isascii() or _is_plain(raw))):
        text = join_surrogates(raw).translate(_TABLE)
        text = _PRESENTATION_FORMS.sub(lambda found: unicodedata.normalize("NFKC", found.group()), text)
        text = _MATHEMATICAL.sub(lambda found: unicodedata.normalize("NFKC", found.group()), text)
        text = unicodedata.normalize("NFC", text)
        if not text.isprintable():
            text = "".join(map(_printable, text))
    if "  " in text:
        text = _BLANK_RUNS.sub(" ", text)
    return text.strip()


def join_surrogates(text: str) -> str:
    r"""Join surrogate pairs to characters; lone surrogates stay.

    >>> join_surrogates("\ud83d\udc4d")
    '\U0001f44d'
    """
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "surrogatepass")


def _is_plain(text: str) -> bool:
    return _ODD.search(text) is None and unicodedata.is_normalized("NFC", text)


def _printable(character: str) -> str:
    """Drop what cannot be displayed, and lone surrogates and unassigned code points, which cannot be stored or sent."""
    category = unicodedata.category(character)
    if character == LINE_HYPHEN or category in ("Co", "Cf"):
        return character
    return "" if category in ("Cs", "Cn", "Cc") else character


def is_garbled(raw: str, *, unmapped: int = 0) -> bool:
    """Whether a page's characters are meaningless (from a font without a usable ToUnicode map).

    ``unmapped`` is the number of glyphs without a character. Indications are private-use and replacement characters,
    and letters with very few vowels, which are glyph numbers taken for letters. Most TrueType fonts number their glyphs
    as ASCII minus 29: text that has a normal share of vowels only after shifting by 29 consists of glyph numbers.
    """
    visible = len(raw) - sum(map(raw.count, " \r\n"))
    if visible + unmapped < 20:
        return False
    if len(_UNUSABLE.findall(raw)) + unmapped > 0.3 * (visible + unmapped):
        return True
    latin = raw.encode("ascii", "ignore")
    letters, vowels = _count_letters(latin)
    if letters > max(200, visible // 2) and vowels < 0.16 * letters:
        return True
    if letters < 30 or vowels > 0.25 * letters:
        return False
    moved = latin.translate(_GLYPH_NUMBERS_TO_ASCII)
    small = len(moved) - len(moved.translate(None, _LETTERS.lower()))
    return small > 0.75 * visible and moved.count(b"e") > 0.07 * small and _count_letters(moved)[1] > 0.3 * small


def _count_letters(latin: bytes) -> tuple[int, int]:
    letters = len(latin) - len(latin.translate(None, _LETTERS))
    return letters, len(latin) - len(latin.translate(None, _VOWELS))


def known_words(texts: Iterable[str]) -> set[str]:
    """The lower-case words of texts, with hyphenated compounds, without words that are broken at a line end."""
    words: set[str] = set()
    for text in texts:
        words.update(_replace_broken_words(text, lambda _: " ").lower().split())
    plain = {word for word in words if word.isalpha()}
    return plain | {found.group() for word in words - plain if (found := _WORD.search(word)) is not None}


def _replace_broken_words(text: str, replacement: Callable[[str], str]) -> str:
    """Replace each word that is broken by a ``LINE_HYPHEN``; looks for hyphens, which are few, and not at each word."""
    parts: list[str] = []
    done = 0
    while (at := text.find(LINE_HYPHEN, done)) >= 0:
        before = text[done:at]
        start = at if not before or before[-1].isspace() else at - len(before.rsplit(None, 1)[-1])
        found = _BROKEN_WORD.match(text, start)
        end = found.end() if found is not None else at + 1
        parts += (text[done:start], replacement(text[start:end]))
        done = end
    parts.append(text[done:])
    return "".join(parts)


def join_hyphens(text: str, words: set[str]) -> str:
    r"""Remove each ``LINE_HYPHEN`` that breaks a word (``exam-ple``); keep it as a hyphen in compounds (``long-term``).

    >>> join_hyphens("an exam\ufffeple of long\ufffeterm debt", {"long-term", "debt"})
    'an example of long-term debt'
    """

    def rejoin(broken: str) -> str:
        first, *others = (part.lstrip() for part in broken.split(LINE_HYPHEN))
        return reduce(lambda before, after: _join(before, after, words), others, first)

    return _replace_broken_words(text, rejoin)


def _join(before: str, after: str, words: set[str]) -> str:
    left, right = _LAST_LETTERS.search(before), _FIRST_LETTERS.search(after)
    if left is None or right is None:
        return f"{before}-{after}"
    first, second = left.group().lower(), right.group().lower()
    start = before[: left.start()]
    compound = f"{first}-{second}" in words
    if first + second in words and not compound:
        return before + after
    keep = (
        compound
        or (start.endswith("-") and first in _COMPOUND_MIDDLES)
        or (right.group()[0].isupper() and not left.group().isupper())
        or first in _COMPOUND_STARTS
        or (len(first) > 3 and len(second) > 3 and first in words and second in words)
    )
    return f"{before}-{after}" if keep else before + after
