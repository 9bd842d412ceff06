"""Lines with their places on the page, put into reading order and joined to paragraphs. Pure geometry and text.

Coordinates are points on the page as it is shown (after rotation), y upwards. A parser's own order is kept wherever
it can be right: authors' programs mostly write text in the order it is read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import pairwise

import msgspec

from ragsvc.extract.clean import LINE_HYPHEN

_LIST_ITEM = re.compile(
    "^(?:[\u2022\u25aa\u25e6\u25cf\u25cb\u25a0\u25a1\u2013\u2014*\u00b7\u2023\u27a2\u2713-]"
    r"|\d{1,3}[.)]|\((?:\d{1,3}|[a-zA-Z]|[ivx]{1,4})\)|[a-z][.)]|[ivx]{1,4}[.)])\s"
)
_LETTER = re.compile(r"[^\W\d_]")
_WINDOW = 5
_MAX_STRAYS = 6


class Line(msgspec.Struct):
    """A line of text: ``left``/``top`` of its beginning, ``right``/``bottom`` of its end, font ``size`` in points.

    ``weight`` is the font's stroke weight, comparable within one document only. ``row`` marks cells with wide
    gaps between them, ``fresh`` the first line after a jump
    (another column); ``upright`` a line that runs up or down the page.
    """

    text: str
    left: float
    right: float
    bottom: float
    top: float
    size: float = 0.0
    weight: int = 0
    row: bool = False
    upright: bool = False
    fresh: bool = False


def page_text(lines: Sequence[Line]) -> str:
    """Join lines to a page's text: paragraphs flow, rows and headings stay lines, blank lines part the rest."""
    if not lines:
        return ""
    margins = _right_margins(lines)
    parts = [lines[0].text]
    for index, (current, following) in enumerate(pairwise(lines)):
        rows = current.row or following.row or current.upright or following.upright
        if not rows and _continues(current, following, margin=margins[index]):
            glue = _glue(current.text, following.text)
        else:
            glue = "\n\n" if _stands_apart(current, following) else "\n"
        if glue == LINE_HYPHEN:
            parts[-1] = parts[-1][:-1]
        parts += (glue, following.text)
    return "".join(parts)


def _right_margins(lines: Sequence[Line]) -> list[float]:
    """For each line, how far right the lines around it that share its left edge (or the next one's) reach."""
    margins: list[float] = []
    for index, line in enumerate(lines):
        size, left, margin = line.size or 10.0, line.left, line.right
        for other in lines[max(0, index - _WINDOW) : index + _WINDOW + 1]:
            if other.right > margin and abs(other.left - left) <= 1.6 * size and abs(other.size - size) <= 0.1 * size:
                margin = other.right
        margins.append(margin)
    return margins


def _continues(current: Line, following: Line, *, margin: float) -> bool:
    """Tell whether a paragraph runs on: same type, close below, and the next word had no room on the line."""
    size = current.size or 10.0
    text = current.text
    if following.fresh:
        return _runs_over(current, following)
    if abs(current.size - following.size) > 0.1 * size or following.weight - current.weight > 150:
        return False
    gap = current.bottom - following.top
    if not -0.6 * size < gap <= size or _LIST_ITEM.match(following.text):
        return False
    indent = following.left - current.left
    if not -6 * size < indent < (6 if _LIST_ITEM.match(text) else 0.7) * size:
        return False
    if len(text) < 20 or not _LETTER.search(text):
        return False
    character_width = (current.right - current.left) / max(1, len(text.rpartition(LINE_HYPHEN)[2]))
    first_word = len(following.text.split(" ", 1)[0])
    room = margin - current.right
    return room < (first_word + 1) * min(character_width, 0.7 * size) + 0.2 * size


def _runs_over(current: Line, following: Line) -> bool:
    """Tell whether a sentence goes on in the next column."""
    return (
        abs(current.size - following.size) <= 0.1 * (current.size or 10.0)
        and len(current.text) >= 20
        and current.text[-1] not in ".!?:;”\"'"
        and following.text[:1].islower()
    )


def _glue(text: str, following: str) -> str:
    if text.endswith(("-", "\u2010")) and len(text) > 1 and text[-2].isalpha():
        return LINE_HYPHEN if following[:1].isalpha() else ""
    if _is_cjk(text[-1:]) and _is_cjk(following[:1]):
        return ""
    return " "


def _is_cjk(character: str) -> bool:
    """Tell scripts that write without spaces between words (Chinese and Japanese)."""
    return "\u3000" <= character <= "\u30ff" or "\u3400" <= character <= "\u9fff" or "\uff00" <= character <= "\uffef"


def _stands_apart(current: Line, following: Line) -> bool:
    size = max(current.size, following.size) or 10.0
    gap = current.bottom - following.top
    if following.fresh or current.upright != following.upright:
        return True
    return gap > 0.75 * size or gap < -1.5 * size or abs(current.size - following.size) > 0.15 * size


def move_strays(lines: list[Line]) -> list[Line]:
    """Put headers and footers that were written out of turn where they stand: at the page's top or bottom.

    Only the first or last few lines of the text move, and only when they lie beyond all others.
    """
    footers = _leading(lines, lambda few, rest: max(x.top for x in few) <= min(x.bottom for x in rest) + 1)
    rest = lines[footers:]
    headers = _leading(rest[::-1], lambda few, rest: min(x.bottom for x in few) >= max(x.top for x in rest) - 1)
    if not footers and not headers:
        return lines
    body = rest[: len(rest) - headers]
    for run in (body, lines[:footers]):
        if run:
            run[0].fresh = True
    return rest[len(rest) - headers :] + body + lines[:footers]


def _leading(lines: Sequence[Line], beyond: Callable[[Sequence[Line], Sequence[Line]], bool]) -> int:
    """Count the first lines that lie beyond all others, at most a few; one look decides for a page in order."""
    most = min(_MAX_STRAYS, len(lines) // 2)
    if not most or not beyond(lines[:1], lines[most:]):
        return 0
    return next((count for count in range(most, 0, -1) if beyond(lines[:count], lines[count:])), 0)
