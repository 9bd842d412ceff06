"""Finds characters and lines of a text layer that do not stand for what the page shows. Pure.

A font without a usable map to Unicode yields glyph numbers, control characters, private-use characters or nothing. Such
glyphs become U+FFFD, so that a line with one is known as unusable. Mathematical fonts yield a few control characters
for the parts of brackets, and bullets are often private-use characters; neither makes a line unusable.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import islice, pairwise

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
_LATIN_WORD = re.compile(r"(?<![^\W\d_])[a-z]{3,}(?![^\W\d_])")
_COMMON_WORDS = (
    *(" the ", " and ", " for ", " with ", " der ", " die ", " und ", " das ", " von ", " den ", " nicht ", " les "),
    *(" des ", " une ", " dans ", " pour ", " las ", " los ", " que ", " por ", " con ", " para ", " che ", " per "),
    *(" del ", " della ", " een ", " het ", " van ", " och ", " att ", " som ", " det ", " til ", " nie ", " jest "),
    *(" oraz ", " egy ", " bir ", " uma ", " nem ", " eli ", " oli ", " care ", " pentru ", " kaj "),
)
_VOWELS = frozenset("aeiouy")
_MIN_WORDS, _MOST_WORDS = 30, 500
_MIN_LETTERS = 150
_WORDS_WITHOUT_VOWEL = 0.1
_INNER_PRIVATE = re.compile(
    "(?<=[^\r\n])(?:[\ue000-\uefff\U000f0000-\U0010fffd]+|[\uf030-\uf039]{2,}"
    "|(?:[\udb80-\udbff][\udc00-\udfff])+)(?=[^\r\n])"
)
_MIN_INNER_RUNS = 3
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
    if _has_private_figures(marked):
        marked = _INNER_PRIVATE.sub(lambda found: UNUSABLE * len(found.group()), marked)
    if len(_CONTROL.findall(marked)) <= _PAGE_SHARE * _visible(marked) and _RUN.search(marked) is None:
        return marked
    return "\r\n".join(map(_mark_line, marked.split("\r\n")))


def _mark_line(line: str) -> str:
    suspect = len(_SUSPECT.findall(line))
    visible = _visible(line)
    if (visible >= _LINE_CHARACTERS and suspect > _LINE_SHARE * visible) or _RUN.search(line) is not None:
        return _SUSPECT.sub(UNUSABLE, line)
    return line


def _has_private_figures(text: str) -> bool:
    """Whether private-use characters stand for the figures of a text: different ones inside lines, also adjacent."""
    runs = _INNER_PRIVATE.findall(text)
    width = 2 if any("\udb80" <= run[0] <= "\udbff" for run in runs) else 1
    return (
        len(runs) >= _MIN_INNER_RUNS
        and sum(len(set(run)) > width for run in runs) > 1
        and len(set("".join(runs))) > _MIN_INNER_RUNS
    )


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


def has_foreign_letters(text: str) -> bool:
    """Whether the small Latin letters of a text are in no language's order: each stands for another letter.

    Sukhotin's algorithm finds the vowels of a text by their exchange with consonants, without knowing the language. If
    they are consonants, many words have no vowel, and common words of no language occur, the text is a cipher. On 1,978
    pages of 180 public documents: none of those that can be read, two layers of bad recognition; of the same pages with
    letters exchanged at random, moved in the alphabet, or numbered as they first occur, about 73 %.
    Source: B. V. Sukhotin, Problems of Structural Linguistics (1962); J. B. M. Guy, Cryptologia 15 (1991).
    """
    if len(list(islice((word for word in _COMMON_WORDS if word in text), 2))) == 2:
        return False
    words = list(dict.fromkeys(_LATIN_WORD.findall(text)))[:_MOST_WORDS]
    if len(words) < _MIN_WORDS or sum(map(len, words)) < _MIN_LETTERS:
        return False
    if sum(_VOWELS.isdisjoint(word) for word in words) <= _WORDS_WITHOUT_VOWEL * len(words):
        return False
    return sum(letter in _VOWELS for letter in _find_vowels(words, 3)) <= 1


def _find_vowels(words: Sequence[str], count: int) -> list[str]:
    pairs = Counter(frozenset(pair) for word in words for pair in pairwise(word) if pair[0] != pair[1])
    sums: Counter[str] = Counter()
    for pair, number in pairs.items():
        for letter in pair:
            sums[letter] += number
    vowels: list[str] = []
    while len(vowels) < count and sums:
        vowel = max(sums, key=lambda letter: (sums[letter], letter))
        if sums.pop(vowel) <= 0:
            break
        vowels.append(vowel)
        for letter in sums:
            sums[letter] -= 2 * pairs[frozenset((letter, vowel))]
    return vowels


def has_glyph_names(text: str) -> bool:
    """Whether text has names of glyphs without a meaning (``/g41/g52``) in place of characters."""
    return sum(len(name) for name in _GLYPH_NAME.findall(text)) > 0.3 * max(1, _visible(text))


def _visible(text: str) -> int:
    return len(text) - sum(map(text.count, " \r\n"))
