"""Joins positioned lines to paragraphs and page text. Pure geometry and text.

Coordinates are points on the displayed page (after rotation), y upwards. The file's order is kept where it can be
correct, because most programs write text in reading order.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise

import msgspec

from ragsvc.extract.clean import LINE_HYPHEN

_LIST_ITEM = re.compile(
    "^(?:[\u2022\u25aa\u25e6\u25cf\u25cb\u25a0\u25a1\u2013\u2014*\u00b7\u2023\u27a2\u2713\u2717\u2611\u2612\u25fb\u2751\u25c6\u2756\u2192\u21e8+-]"
    r"|\d{1,3}[.)]|\((?:\d{1,3}|[a-zA-Z]|[ivx]{1,4})\)|[a-z][.)]|[ivx]{1,4}[.)])\s"
)
_LETTER = re.compile(r"[^\W\d_]")
_WINDOW = 5
_MAX_STRAYS = 6
_OVERPRINT_OFFSET = 0.4


class Line(msgspec.Struct):
    """A line of text: ``left``/``top`` of its start, ``right``/``bottom`` of its end, font ``size`` in points.

    ``weight`` is the stroke weight of the font, comparable within a document only. ``row`` marks a row of cells with
    wide gaps, ``fresh`` the first line after a jump (to another column, for example), ``upright`` a vertical line.
    ``spans`` are the characters of the text layer that it consists of; none for recognised text. ``indent`` is the
    indentation of a line of code in characters; ``None`` for other text.
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
    spans: tuple[tuple[int, int], ...] = ()
    indent: int | None = None


def page_text(lines: Sequence[Line]) -> str:
    """The text of a page: joins the lines of a paragraph, keeps rows and headings, separates blocks by blank lines."""
    if not lines:
        return ""
    parts = [_indented(lines[0])]
    for index, (current, following) in enumerate(pairwise(lines)):
        rows = current.row or following.row or current.upright or following.upright or following.indent is not None
        if not rows and _continues(lines, index):
            glue = _glue(current.text, following.text)
        else:
            glue = "\n\n" if _stands_apart(current, following) else "\n"
        if glue == LINE_HYPHEN:
            parts[-1] = parts[-1][:-1]
        parts += (glue, _indented(following))
    return "".join(parts)


def _indented(line: Line) -> str:
    return " " * line.indent + line.text if line.indent else line.text


def _right_margin(lines: Sequence[Line], index: int) -> float:
    """The right margin at a line: the rightmost end of the nearby lines with the same left edge and font size."""
    line = lines[index]
    size, left, margin = line.size or 10.0, line.left, line.right
    for other in lines[max(0, index - _WINDOW) : index + _WINDOW + 1]:
        if other.right > margin and abs(other.left - left) <= 1.6 * size and abs(other.size - size) <= 0.1 * size:
            margin = other.right
    return margin


def _continues(lines: Sequence[Line], index: int) -> bool:
    """Whether a paragraph continues: same font, next line, and the next word would not have fitted on the line."""
    current, following = lines[index], lines[index + 1]
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
    room = _right_margin(lines, index) - current.right
    return room < (first_word + 1) * min(character_width, 0.7 * size) + 0.2 * size


def _runs_over(current: Line, following: Line) -> bool:
    """Whether a sentence continues in the next column."""
    return (
        abs(current.size - following.size) <= 0.1 * (current.size or 10.0)
        and (len(current.text) >= 20 or (" " in current.text and current.text[-1].islower()))
        and current.text[-1] not in ".!?:;”\"'"
        and following.text[:1].islower()
    )


def _glue(text: str, following: str) -> str:
    if text.endswith(("-", "\u2010")) and len(text) > 1 and text[-2].isalpha():
        return LINE_HYPHEN if following[:1].isalpha() else ""
    if is_cjk(text[-1:]) and is_cjk(following[:1]):
        return ""
    return " "


def is_cjk(character: str) -> bool:
    """Whether the script has no spaces between words (Chinese and Japanese)."""
    return "\u3000" <= character <= "\u30ff" or "\u3400" <= character <= "\u9fff" or "\uff00" <= character <= "\uffef"


def _stands_apart(current: Line, following: Line) -> bool:
    size = max(current.size, following.size) or 10.0
    gap = current.bottom - following.top
    if following.fresh or current.upright != following.upright:
        return True
    return gap > 0.75 * size or gap < -1.5 * size or abs(current.size - following.size) > 0.15 * size


def first_prints(lines: Sequence[Line]) -> list[int]:
    """The indexes of the lines that do not repeat an earlier line at almost the same place.

    Programs print text twice with a small offset for a bold face or a shadow; pdfium omits the second print only if it
    follows the first one closely.
    """
    times = Counter([line.text for line in lines])
    printed: dict[str, list[Line]] = {}
    found: list[int] = []
    for index, line in enumerate(lines):
        if times[line.text] > 1:
            earlier = printed.setdefault(line.text, [])
            near_x = min(_OVERPRINT_OFFSET * line.size, 0.5 * abs(line.right - line.left))  # an "l" is narrow
            near_y = min(_OVERPRINT_OFFSET * line.size, 0.5 * abs(line.top - line.bottom))
            if any(abs(line.left - x.left) < near_x and abs(line.bottom - x.bottom) < near_y for x in earlier):
                continue
            earlier.append(line)
        found.append(index)
    return found


def move_headers_and_footers(lines: list[Line]) -> list[Line]:
    """Move footers that the file stores first to the end, and headers that it stores last to the beginning.

    Only the first or last few lines move, and only if they are below or above all other lines of the page. Turned lines
    in the margin do not count, because they cover the height of many lines.
    """
    turned = [(index, line) for index, line in enumerate(lines) if line.upright]
    if turned:
        ordered = move_headers_and_footers([line for line in lines if not line.upright])
        for index, line in turned:
            ordered.insert(index, line)
        return ordered
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
    """The number of leading lines (a few at most) that are beyond all others. A page in order needs one comparison."""
    most = min(_MAX_STRAYS, len(lines) // 2)
    if not most or not beyond(lines[:1], lines[most:]):
        return 0
    return next((count for count in range(most, 0, -1) if beyond(lines[:count], lines[count:])), 0)
