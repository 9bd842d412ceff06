"""Fast search for words in text by their prefixes, without a tokenizer or an index."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from functools import lru_cache
from typing import Final

import msgspec

from ragsvc.core.text.late_patterns import late_pattern
from ragsvc.core.text.spellings import fold, unify_numbers, unify_signs

_WORD: Final = late_pattern(r"[^\W_]+")
_ASCII_WORDS: Final = {code: " " for code in range(128) if not chr(code).isalnum()}
FIRST_UNSPACED: Final = "\u2e80"
"""From this code point on (Chinese, Japanese, Korean), scripts are written without spaces between words."""

_SCRIPT_BORDER: Final = late_pattern(r"(?<=[a-z0-9])(?=[\u2e80-\uffef])|(?<=[\u2e80-\uffef])(?=[a-z0-9])")
"""Between a number or Latin word and an unspaced script: the year of ``2023年`` is a word."""

_BEGINNING: Final = 3
"""Length in characters of ``WordText.beginnings``. Shorter word starts are whole words."""

_ENDINGS: Final = "ations ation ings ing ions ion ied ed es ly al er y e i s".split()
_SHORTEST_STEM: Final = 4


def plain_text(text: str) -> str:
    """The words in lower case, each preceded by one space, so that searching for `` word`` finds starts of words.

    Spellings are unified by ``core.text.spellings``.

    >>> plain_text("Apple Inc. (AAPL)")
    ' apple inc aapl '
    >>> plain_text("C# e-mails: 1,500 of 250cm")
    ' csharp emails 1500 of 250 cm '
    """
    lower = unify_numbers(fold(unify_signs(text)))
    if not lower.isascii() and max(lower) >= FIRST_UNSPACED:
        lower = _SCRIPT_BORDER.sub(" ", lower)
    words = lower.translate(_ASCII_WORDS).split() if lower.isascii() else _WORD.findall(lower)  # five times as fast
    return f" {' '.join(words)} "


@lru_cache(maxsize=4096)
def word_start(word: str) -> str:
    """The string to search for in ``plain_text`` to find a word: its start, without an English plural ending.

    >>> plain_text("The sale of a policy").count(word_start("sales"))
    1
    >>> plain_text("in 2022 or 20221").count(word_start("2022"))
    1
    """
    plain = plain_text(word).strip()
    if not plain or plain[0] >= FIRST_UNSPACED:
        return plain
    if len(plain) > 4 and plain.isascii() and plain.isalpha():
        return f" {plain.removesuffix('s').removesuffix('e')}"
    whole = len(plain) <= 2 or plain[-1].isdigit()
    return f" {plain} " if whole else f" {plain}"


@lru_cache(maxsize=4096)
def word_stem(word: str) -> str:
    """As ``word_start``, but also without common English endings, so that "conducting" finds "conducted".

    It finds more words than are meant ("general" for "generation"): for estimates, not for quotations.

    >>> word_stem("conducting"), word_stem("policies"), word_stem("2022")
    (' conduct', ' polic', ' 2022 ')
    """
    start = word_start(word)
    stem = start.strip()
    if start.endswith(" ") or not start.startswith(" ") or not (stem.isascii() and stem.isalpha()):
        return start
    for ending in _ENDINGS:
        if stem.endswith(ending) and len(stem) - len(ending) >= _SHORTEST_STEM:
            return f" {stem.removesuffix(ending)}"
    return start


class WordText(msgspec.Struct, frozen=True):
    """Plain text and the set of its words' first characters, which rules out most absent words.

    Counting an absent word without the set scans the whole text, which takes twenty times as long.
    """

    text: str
    beginnings: frozenset[str]

    @classmethod
    def of(cls, text: str) -> WordText:
        plain = plain_text(text)
        return cls(plain, frozenset(sys.intern(word[:_BEGINNING]) for word in plain.split()) | {""})


def count_starts(starts: Sequence[str], texts: Sequence[WordText]) -> list[list[int]]:
    """How often each text contains each of the ``starts`` (see ``word_start``); one row per text.

    >>> count_starts([word_start("sales"), word_start("policy")], [WordText.of("Sale of policies; sales")])
    [[2, 0]]
    """
    sought = [(start, _beginning(start)) for start in starts]
    return [[text.text.count(start) if begin in text.beginnings else 0 for start, begin in sought] for text in texts]


def _beginning(start: str) -> str:
    """The member of ``WordText.beginnings`` that a word requires; "" for a word that may occur inside another."""
    return start[1 : 1 + _BEGINNING].split(" ", 1)[0] if start.startswith(" ") else ""
