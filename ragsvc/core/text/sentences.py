"""Finds the boundaries of sentences, table rows and list items in a page's text, in any language.

Rules only: no model and no language detection. Independent of passages and tokens.
"""

# ruff: noqa: RUF001 - punctuation and abbreviations of many scripts are the subject here

from __future__ import annotations

import re
from itertools import pairwise
from typing import Final

from ragsvc.core.text.late_patterns import late_pattern

Span = tuple[int, int]
"""Character offsets ``[start, end)``."""

_REFERENCE: Final = (
    r"(?:\[(?:\d{1,3}(?:[ ]?[,;–-][ ]?\d{1,3}){0,8}|[a-z]|(?:note|nb|n)[ ]?\d{1,3}|citation needed)\](?::\d{1,4}\b)?"
    r"|[⁰¹²³⁴-⁹]{1,3})"
)
"""A mark that refers to a source or a note, such as ``[3]``, ``[1, 4]``, ``[a]`` or ``²``."""
_MARKED: Final = rf"(?:[ \t\xa0]*{_REFERENCE}){{1,8}}"
_ENDERS: Final = late_pattern(
    rf"(?:(?<![.!?…؟۔।])([.!?…؟۔।]++)[\"'”’»›)\]]*(?:{_MARKED})?(?=\s|\Z)|([。！？｡]+)[”’」』）】\"]*(?:{_MARKED})?)"
)
"""A run of punctuation is tried from its beginning only: ten thousand full stops before a letter would take minutes."""

_TRAILING_MARKS: Final = late_pattern(rf"(?<=[.!?…؟۔।。！？｡\"'”’»›)\]」』）】]){_MARKED}\Z")
_LONGEST_MARKS: Final = 200
_LAST_WORD: Final = late_pattern(r"[^\s(\[\"“„«]+\Z")
_NEXT_WORD: Final = late_pattern(r"\s*[\"'“„«‘(\[]*(\S[^\s.,;:!?]{0,99})")
_LIST_MARKER: Final = late_pattern(
    r"[ \t]*(?:[•●▪◦‣■□○–—*·➢✓✗☑☒◻❑◆❖→⇨-][ \t]|\(?(?:\d{1,3}|[a-zA-Z]|[ivxIVX]{1,5})[.)][ \t]|#{1,6} )"
)
_NUMERIC_CELL: Final = late_pattern(r"[-–—$€£¥(]*(?:\d[\d.,:/]*)?[%)x]*\Z")
_HYPHENATED: Final = late_pattern(r"\w[-\u00ad\u2010]\Z")
_SHARE_IN_BRACKETS: Final = late_pattern(r"\(\d[\d.,]* ?%")
"""Belongs to the words before it: "those who say so" on a short line, and "(39%)." on the next."""

_CUT_WORD: Final = late_pattern(r"[^\W\d_]{2}[-\u00ad\u2010]\Z")
_DOUBLE_SPACED_LINES: Final = 6
_FULL_LINE: Final = 45
"""Minimum length in characters of a line that is continued by the next line of its paragraph."""
_LONGEST_LINE: Final = 130
"""A page with longer lines has a paragraph in each line."""
_LINE: Final = late_pattern(r"[^\r\n\f\v\u2028\u2029]+")


def _words(listed: str) -> frozenset[str]:
    return frozenset(listed.split())


# Titles and references: the full stop never ends the sentence.
_NEVER_LAST: Final = _words(
    """mr mrs ms mx dr prof sr jr st gen col sgt capt lt hon rev messrs mme mlle vs viz cf eg e.g i.e ie al fig figs
    eq eqs sec secs ch chap vol vols pp ed eds approx dept est e.v z.b zb d.h u.a bzw ca evtl ggf inkl nr abs art bd
    str hr fr vgl sog geb т.е т.к т.н г гг ул им рис стр см тыс млн млрд др проф"""
)
# The full stop after these ends a sentence only if the next word is one of _STARTERS.
_SOMETIMES_LAST: Final = _words(
    """inc corp ltd co llc plc gmbh etc usw u.s u.k u.n e.u a.m p.m jan feb mar apr jun jul aug sep sept oct nov dec
    ph.d b.a m.a т.д т.п д.р"""
)
# Words that often begin a sentence. Not a stop-word list: it has conjunctions, and lacks words that rarely come first.
_STARTERS: Final = _words(
    """the a an in on at for from with as by to we our it its this that these those they he she you i if when while
    however although there here such after before during since under no not and but der die das ein eine im in es wir
    sie er und в на это он она они мы и но"""
)
_ORDINAL_FOLLOWERS: Final = _words(
    """januar februar märz april mai juni juli august september oktober november dezember jahrhundert jahrhunderts
    bundesliga weltkrieg weltkriegs auflage platz"""
)


def sentence_spans(text: str) -> list[Span]:
    """Spans of sentences, table rows, headings and list items of ``text``, in order, without surrounding white space.

    The spans cover every non-blank character. A line break inside a sentence does not end it; a blank line, a list
    marker, a table row, and a short line followed by a capital do.

    >>> text = "Dr. Roe paid 3.5 million. Why? See Fig. 2."
    >>> [text[start:end] for start, end in sentence_spans(text)]
    ['Dr. Roe paid 3.5 million.', 'Why?', 'See Fig. 2.']
    """
    borders = _line_borders(text)
    borders.extend(match.end() for match in _ENDERS.finditer(text) if _ends_sentence(text, match))
    borders.append(len(text))
    borders.sort()
    spans: list[Span] = []
    start = 0
    for border in borders:
        span = strip_span(text, start, border)
        if span is not None:
            spans.append(span)
        start = max(start, border)
    return spans


def quotable_spans(text: str) -> list[Span]:
    """The spans of ``sentence_spans`` without the reference marks that follow a sentence's final punctuation.

    >>> text = "The lake is 1,642 m deep.[1] It freezes. [2, 3]"
    >>> [text[start:end] for start, end in quotable_spans(text)]
    ['The lake is 1,642 m deep.', 'It freezes.']
    """
    return [(start, start + _unmarked_length(text[start:end])) for start, end in sentence_spans(text)]


def _unmarked_length(sentence: str) -> int:
    if sentence[-1] != "]" and not sentence[-1].isdigit():
        return len(sentence)
    marks = _TRAILING_MARKS.search(sentence, max(0, len(sentence) - _LONGEST_MARKS))
    return len(sentence) if marks is None else marks.start()


def strip_span(text: str, start: int, end: int) -> Span | None:
    """The span without leading and trailing white space, or ``None`` if it is blank."""
    piece = text[start:end]
    left = len(piece) - len(piece.lstrip())
    if left == len(piece):
        return None
    return start + left, start + len(piece.rstrip())


def _ends_sentence(text: str, match: re.Match[str]) -> bool:
    """Whether this run of sentence-final punctuation, closing quotes and reference marks ends a sentence."""
    mark = _TRAILING_MARKS.sub("", match.group())
    if mark[0] in "。！？｡" or (following := _NEXT_WORD.match(text, match.end())) is None:
        return True
    next_word = following.group(1)
    if next_word[0].islower() and len(mark) < len(match.group()):
        next_word = "1"  # a reference mark separates sentences whose first words are in lower case
    if next_word[0].islower() or mark != ".":
        return not next_word[0].islower()
    return _ends_with_full_stop(text, match.start(), next_word)


def _ends_with_full_stop(text: str, stop: int, next_word: str) -> bool:
    """Whether the full stop at ``stop`` ends a sentence, rather than an abbreviation, an initial or an ordinal."""
    before = _LAST_WORD.search(text, max(0, stop - 24), stop)
    word = before.group() if before else ""
    lowered = word.lower()
    if lowered in {"no", "nos"}:
        return not next_word[0].isdigit()
    if lowered in _SOMETIMES_LAST:
        return next_word.lower() in _STARTERS
    if word.isdigit() and len(word) <= 3:
        # A number after a line break or at the start of a sentence is a list marker and ends nothing.
        ahead = text[max(0, before.start() - 8) : before.start()].rstrip(" ") if before else ""
        marker = ahead[-1:] in {"", "\n", "\r", ".", "!", "?", ":", ";"}
        return not marker and next_word.lower() not in _ORDINAL_FOLLOWERS
    initial = len(word) == 1 and word.isalpha() and word != "I"
    return not initial and lowered not in _NEVER_LAST


def _line_borders(text: str) -> list[int]:
    """The line ends at which a sentence, table row, heading or list item ends."""
    lines = [match.span() for match in _LINE.finditer(text) if not match.group().isspace()]
    contents = [text[start:end].strip() for start, end in lines]
    rows = [is_table_row(content) for content in contents]
    double_spaced = _is_double_spaced(text, lines)
    borders: list[int] = []
    for index in range(len(lines) - 1):
        end, begin = lines[index][1], lines[index + 1][0]
        if _is_line_border(
            contents[index],
            contents[index + 1],
            between="\n" if double_spaced and len(contents[index]) >= _FULL_LINE else text[end:begin],
            row=rows[index] or rows[index + 1],
            width=max(len(contents[index + 1]), len(contents[index - 1]) if index else 0),
        ):
            borders.append(end)
    return borders


def _is_double_spaced(text: str, lines: list[Span]) -> bool:
    """Whether a blank line follows nearly every line, so that blank lines do not separate paragraphs."""
    if len(lines) < _DOUBLE_SPACED_LINES:
        return False
    blank = sum(text.count("\n", end, begin) > 1 for (_, end), (begin, _) in pairwise(lines))
    if blank < 0.8 * (len(lines) - 1) or max(end - begin for begin, end in lines) > _LONGEST_LINE:
        return False
    continued = sum(end - begin >= _FULL_LINE and text[end - 1] not in ".!?:;" for begin, end in lines)
    return continued >= 0.5 * len(lines)


def _is_line_border(line: str, following: str, *, between: str, row: bool, width: int) -> bool:
    if between.replace("\r\n", "\n").count("\n") > 1 or "\f" in between:
        return "\f" in between or not (_CUT_WORD.search(line) and (following[0].islower() or following[0].isdigit()))
    if _HYPHENATED.search(line):
        return False
    if row or _LIST_MARKER.match(following) or line.startswith("#"):
        return True
    if _SHARE_IN_BRACKETS.match(following):
        return False
    # A line much shorter than its neighbours, followed by a capital, is a heading or the last line of a paragraph.
    return len(line) < 0.6 * width and not following[0].islower() and line[-1] not in ",;"


def is_table_row(line: str) -> bool:
    """Whether at least two cells and 40 % of all are numbers, or the line has cell separators (``|``, tab)."""
    if line.count("|") >= 2 or line.count("\t") >= 2:
        return True
    cells = line.split()
    # most words begin with a letter; testing that first is five times as fast
    numeric = sum(1 for cell in cells if (not cell[0].isalpha() or cell[0] == "x") and _NUMERIC_CELL.match(cell))
    return numeric >= 2 and numeric >= 0.4 * len(cells)
