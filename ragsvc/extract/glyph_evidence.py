"""Finds characters and lines of a text layer that do not stand for what the page shows. Pure.

A font without a usable map to Unicode yields glyph numbers, control characters, private-use characters or nothing. Such
glyphs become U+FFFD, so that a line with one is known as unusable. Mathematical fonts yield a few control characters
for the parts of brackets, and bullets are often private-use characters; neither makes a line unusable.
"""

from __future__ import annotations

import re
from collections.abc import Collection

UNUSABLE = "\ufffd"
_SUSPECTS = "[\x00\x01\x03-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\ue000-\uf8e4\uf8ff\ufffd\U000f0000-\U0010fffd\udb80-\udbff]"
_FIRST_SUSPECT = re.compile(_SUSPECTS)
"""An eighth of the time of ``_SUSPECT`` for a page without such characters."""
_SUSPECT = re.compile(f"{_SUSPECTS}|(?<=[\udb80-\udbff])[\udc00-\udfff]")
"""The private use of planes 15 and 16 is a surrogate pair in pdfium's text."""
_CONTROL = re.compile("[\x01\x03-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]")
_RUN = re.compile(
    "[\x01\x03-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f]{3,}|[\ue000-\uf8e4]{4,}|\ufffd{2,}"
    "|[\U000f0000-\U0010fffd]{4,}|(?:[\udb80-\udbff][\udc00-\udfff]){4,}"
)
_PAGE_SHARE = 0.02
_LINE_SHARE = 0.05
_LINE_CHARACTERS = 10
_SIGNS = re.compile(r"[!\"#$%&'()*+;<=>?@\[\\\]^`{|}~]")
_REPEATED = re.compile(r"([^\w\s])\1{2,}")
_WORD = re.compile(r"[^\W\d_]{3,}")
_SIGN_SHARE = 0.2
_WORD_SHARE = 0.2
_MIN_CODES = 40
_GLYPH_NAME = re.compile(r"/[A-Za-z]{0,8}\d{1,5}")


def mark_unusable(text: str, unmapped: Collection[int]) -> str:
    """Replace unusable characters by U+FFFD; the length stays. ``unmapped`` are indexes of glyphs without a character.

    A glyph without a character that begins a line is a bullet in a symbol font: it becomes NUL, which is dropped.
    """
    if not unmapped and _FIRST_SUSPECT.search(text) is None:
        return text
    characters = list(text)
    for index in unmapped:
        alone = text[index + 1 : index + 2] not in text[index] + "\x00"
        starts = index == 0 or text[index - 1] == "\n"
        characters[index] = "\x00" if starts and alone else UNUSABLE
    marked = "".join(characters)
    if len(_CONTROL.findall(marked)) <= _PAGE_SHARE * _visible(marked) and _RUN.search(marked) is None:
        return marked
    return "\r\n".join(map(_mark_line, marked.split("\r\n")))


def _mark_line(line: str) -> str:
    suspect = len(_SUSPECT.findall(line))
    visible = _visible(line)
    if (visible >= _LINE_CHARACTERS and suspect > _LINE_SHARE * visible) or _RUN.search(line) is not None:
        return _SUSPECT.sub(UNUSABLE, line)
    return line


def needs_recognition(text: str) -> bool:
    """Whether the unusable glyphs of a marked text matter: adjacent ones (a word or number), or more than 2 %."""
    return UNUSABLE * 2 in text or text.count(UNUSABLE) > _PAGE_SHARE * _visible(text)


def is_mostly_unusable(text: str) -> bool:
    """Whether lines with unusable glyphs hold most characters of a marked text."""
    if UNUSABLE not in text:
        return False
    unusable = sum(_visible(line) for line in text.split("\r\n") if line.count(UNUSABLE) > _LINE_SHARE * _visible(line))
    return 2 * unusable > _visible(text)


def looks_like_codes(text: str) -> bool:
    """Whether text consists of character codes instead of characters: signs and digits in place of words."""
    if len(_SIGNS.findall(text)) < _SIGN_SHARE * _visible(text):
        return False
    plain = _REPEATED.sub("", text)
    visible = _visible(plain)
    if visible < _MIN_CODES or len(_SIGNS.findall(plain)) < _SIGN_SHARE * visible:
        return False
    return sum(len(word) for word in _WORD.findall(plain)) < _WORD_SHARE * visible


def has_glyph_names(text: str) -> bool:
    """Whether text has names of glyphs without a meaning (``/g41/g52``) in place of characters."""
    return sum(len(name) for name in _GLYPH_NAME.findall(text)) > 0.3 * max(1, _visible(text))


def _visible(text: str) -> int:
    return len(text) - sum(map(text.count, " \r\n"))
