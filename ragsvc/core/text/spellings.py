"""Unifies spellings of the same word, number or date, by the same rules for passages and questions.

The lexical index, the ranking and the built-in answerer compare words after ``unify_signs`` and ``fold``. Text that is
quoted is never changed.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from typing import Final

import msgspec

from ragsvc.core.text.late_patterns import late_pattern

# Each pattern begins with the rarest character it needs and looks behind afterwards: this is up to ten times as fast.
_SIGNS: Final = late_pattern(r"[+#\u2212-]\+?(?=[\s\u2e80-\uffef,;:.!?)\]\"'/\u201d\u2019*|\d]|\Z)")
_SIGNED_NAME: Final = late_pattern(r"[A-Za-z]{1,3}\Z")
_LETTERED_GRADE: Final = late_pattern(r"(?:[A-Z]{1,3}|([a-f])\1{0,2})\Z")
_NAMED_SIGNS: Final = {"+": "plus", "++": "plusplus", "#": "sharp"}
MINUS: Final = "minus"
"""Precedes the digits of a negative number in ``unify_signs``."""

_LETTER: Final = "[A-Za-z0-9\u00c0-\u024f\u0400-\u04ff]"
SIGNED_WORD: Final = (
    rf"(?<!{_LETTER})(?:[A-Za-z]{{1,3}}(?:\+\+|[+#])(?!{_LETTER}|[_+#])"
    r"|(?:[A-Z]{1,3}|[a-f])[-\u2212](?=[\s,;:.!?)\]\"'/]|\Z))"
    r"|(?<!\S)(?<!\d\s)[-\u2212]\d[\d.,]*(?<=\d)"
)
"""A word whose meaning depends on its sign: ``C#``, ``C++``, ``A-``, ``-20``."""

_INVISIBLE: Final = late_pattern("[\u00ad\u200b\u200c\u200d\u2060\ufeff]+")
_SUPERSCRIPT: Final = late_pattern("[\u00b2\u00b3\u00b9\u2070\u2074-\u2079]+")
_UNITS_WITH_EXPONENT: Final = frozenset({"m", "km", "cm", "mm", "dm", "ft", "yd", "in", "mi"})
_SPACED_THOUSANDS: Final = late_pattern(r"[\u00a0\u2009\u202f'\u2019](?=\d{3}(?!\d))(?<=\d.)")
_COMBINING: Final = late_pattern("[\u0300-\u036f]+")
_LETTERS: Final = {"\u00df": "ss", "\u2212": "-", "\u2010": "-", "\u2011": "-"}

_MONTH_NAMES: Final = (
    "january jan januar januari janvier enero gennaio января",
    "february feb februar februari février febrero febbraio февраля",
    "march mar märz maart mars marzo марта",
    "april apr avril abril aprile апреля",
    "may mai mei mayo maggio мая",
    "june jun juni juin junio giugno июня",
    "july jul juli juillet julio luglio июля",
    "august aug augustus août agosto августа",
    "september sep sept septembre septiembre settembre сентября",
    "october oct okt oktober octobre octubre ottobre октября",
    "november nov novembre noviembre ноября",
    "december dec dez dezember décembre diciembre dicembre декабря",
)
_MONTHS: Final = {name: number for number, names in enumerate(_MONTH_NAMES, 1) for name in names.split()}
MONTH_NAMES: Final = frozenset(_MONTHS)
"""Names of months in lower case."""

_YEAR: Final = late_pattern(r"(?:19|20)\d\d(?!\d)")
_LONGEST_BEFORE_YEAR: Final = 24
_NUMERIC_BEFORE: Final = late_pattern(r"(?<![\w.,/-])(\d{1,2})([-/.])(\d{1,2})\2\Z")
_NUMERIC_AFTER: Final = late_pattern(r"([-/.])(\d{1,2})\1(\d{1,2})(?![\w/-])|\u5e74(\d{1,2})\u6708(\d{1,2})\u65e5")
_PIECE: Final = late_pattern(r"\S+")
_DAY: Final = late_pattern(r"(\d{1,2})(?:st|nd|rd|th|er)?[.,]?\Z")
_BETWEEN: Final = frozenset({"of", "de", "del"})
_THOUSANDS: Final = late_pattern(r"[0-9](?<![\d.,][0-9])\d{0,2}(?:(?:,\d{3})+|(?:'\d{3})+|(?:\.\d{3}){2,})(?!\d)")
_WITHOUT_SEPARATORS: Final = str.maketrans("", "", ",.'")
_UNIT: Final = late_pattern(r"([0-9]+)([^\W\d_]{1,4})(?![^\W_])")
_NUMBERED: Final = late_pattern(
    r"[0-9](?<=[^\W\d_]{3}[0-9])(?<!minus[0-9])\d*(?![^\W_])|(?:19|20)(?<=[^\W\d_]\d\d)\d\d(?![^\W_])"
)
_HYPHENATED_LETTER: Final = late_pattern(
    r"-(?<=[^\W\d_]-)(?<![^\W_-][^\W_]-)(?<!-[^\W_]-)(?=[^\W\d_]{2}|\d+(?![^\W_-]))"
)
_DIGIT: Final = late_pattern(r"[0-9]")


class Date(msgspec.Struct, frozen=True):
    """A calendar date written in a text, at ``text[start:end]``."""

    year: int
    month: int
    day: int
    start: int
    end: int


def unify_signs(text: str) -> str:
    """The text with signs that belong to a name or number as letters.

    >>> unify_signs("C#, C++ and A- at -20 degrees")
    'Csharp, Cplusplus and Aminus at minus20 degrees'
    >>> unify_signs("Disney+ is a long-term plan, pre- and post-war")
    'Disney plus is a long-term plan, pre- and post-war'
    """
    return _SIGNS.sub(_spelt_sign, text)


def _spelt_sign(match: re.Match[str]) -> str:
    sign, text, end = match.group(), match.string, match.end()
    before = _word_before(match)
    digit = text[end : end + 1].isdigit()
    if sign in "-\u2212":
        if not digit:
            return MINUS if _LETTERED_GRADE.fullmatch(before) else sign
        begin = match.start()
        free = begin == 0 or text[begin - 1] == "(" or text[begin - 1].isspace()
        return MINUS if free and not text[max(0, begin - 2) : begin - 1].isdigit() else sign
    if not before.isalpha() or (digit and sign != "++"):
        return sign
    if sign in _NAMED_SIGNS and _SIGNED_NAME.fullmatch(before):
        return _NAMED_SIGNS[sign] + (" " if digit else "")
    return " plus" if sign[0] == "+" else sign


def _word_before(match: re.Match[str]) -> str:
    """The letters directly before a sign; more than three are cut off at the front."""
    begin = end = match.start()
    if not begin or not match.string[begin - 1].isalpha():
        return ""
    while begin > max(0, end - 4) and match.string[begin - 1].isalnum():
        begin -= 1
    return match.string[begin:end]


def fold(text: str) -> str:
    """Lower case, without invisible characters, footnote marks and accents that no single character has.

    >>> fold("\u0130STANBUL employees\u00b9 30 m\u00b2")
    'istanbul employees 1 30 m2'
    """
    if text.isascii():
        return text.lower()
    text = _SPACED_THOUSANDS.sub("", _INVISIBLE.sub("", text))
    if _SUPERSCRIPT.search(text):
        text = _SUPERSCRIPT.sub(_separated_mark, text)
    folded = unicodedata.normalize("NFKC", text).lower()
    for letter, plain in _LETTERS.items():
        folded = folded.replace(letter, plain)
    return _COMBINING.sub("", folded)


def _separated_mark(match: re.Match[str]) -> str:
    """A footnote mark apart from its word; an exponent stays with its unit."""
    begin = match.start()
    word = _word_before(match).lower()
    joined = word in _UNITS_WITH_EXPONENT or not (begin and match.string[begin - 1].isalnum())
    return match.group() if joined else f" {match.group()}"


def dates_in(folded: str) -> Iterator[Date]:
    """The dates of a folded text. ``03/04/2026`` and ``03-04-2026`` may mean March or April and give both dates."""
    for year in _YEAR.finditer(folded):
        start, end, readings = _date_around(folded, year.start(), year.end())
        for month, day in readings:
            if 1 <= month <= 12 and 1 <= day <= 31:
                yield Date(int(year.group()), month, day, start, end)


def _date_around(folded: str, begin: int, end: int) -> tuple[int, int, list[tuple[int, int]]]:
    """Start and end of the date with the year ``folded[begin:end]``, and its possible months and days."""
    before = folded[begin - 1 : begin]
    if not before.isalnum() and before not in {"-", "/", "."} and (found := _NUMERIC_AFTER.match(folded, end)):
        _, month, day, chinese_month, chinese_day = found.groups()
        return begin, found.end(), [(int(month or chinese_month), int(day or chinese_day))]
    if folded[end : end + 1] not in {"-", "/"} and before in {"-", "/", "."}:
        if found := _NUMERIC_BEFORE.search(folded, max(0, begin - 6), begin):
            first, second = int(found[1]), int(found[3])
            either = [(second, first)] if found[2] == "." else [(second, first), (first, second)]
            return found.start(), end, list(dict.fromkeys(either))
    elif before.isspace():
        return _worded_date(folded, begin, end)
    return begin, end, []


def _worded_date(folded: str, begin: int, end: int) -> tuple[int, int, list[tuple[int, int]]]:
    offset = max(0, begin - _LONGEST_BEFORE_YEAR)
    pieces = [piece for piece in _PIECE.finditer(folded, offset, begin) if piece.group() not in _BETWEEN][-2:]
    if len(pieces) == 2:
        first, second = pieces
        for day, month in ((first, second), (second, first)):
            number, name = _DAY.match(day.group()), month.group().rstrip(".,")
            if number and name in _MONTHS:
                return first.start(), end, [(_MONTHS[name], int(number[1]))]
    return begin, end, []


def unify_numbers(folded: str) -> str:
    """The folded text with one spelling of dates, thousands, units and letters with a hyphen.

    >>> unify_numbers("on 2026-03-04 and march 4, 2026: 1,500,000 at 250cm by e-mail; 10k, 10-k, fy2023")
    'on 4 march 2026 and 4 march 2026: 1500000 at 250 cm by email; 10 k, 10-k, fy 2023'
    """
    if "-" in folded:
        folded = _HYPHENATED_LETTER.sub("", folded)
    if not _DIGIT.search(folded):
        return folded
    found: dict[tuple[int, int], list[Date]] = {}
    for date in dates_in(folded):
        found.setdefault((date.start, date.end), []).append(date)
    for (start, end), readings in reversed(found.items()):
        if len(readings) == 1:
            date = readings[0]
            name = _MONTH_NAMES[date.month - 1].split(" ", 1)[0]
            folded = f"{folded[:start]}{date.day} {name} {date.year}{folded[end:]}"
    folded = _THOUSANDS.sub(_without_separators, folded)
    folded = _NUMBERED.sub(r" \g<0>", folded)
    return _UNIT.sub(_apart, folded)


def _without_separators(match: re.Match[str]) -> str:
    return match.group().translate(_WITHOUT_SEPARATORS)


def _apart(match: re.Match[str]) -> str:
    begin = match.start()
    inside = begin and match.string[begin - 1].isalnum()
    return match.group() if inside else f"{match[1]} {match[2]}"
