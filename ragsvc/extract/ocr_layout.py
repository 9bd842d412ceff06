"""Puts recognised lines into reading order, as ``layout.Line``. Pure geometry and text.

Text recognition returns a box in pixels for each run of words without a wide gap, on a page that may be rotated and
skewed. The boxes are converted to points on the upright page, y upwards, and deskewed. The cells of a row become a
line, and columns of prose follow each other.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise
from math import atan2, cos, sin
from statistics import median

import msgspec

from ragsvc.extract.clean import clean_line
from ragsvc.extract.columns import order_columns
from ragsvc.extract.layout import Line
from ragsvc.extract.ocr import OcrLine

_SIZE_OF_HEIGHT = 0.8
_SAME_SIZE = 1.2
_CELL_GAP = 1.3
_MAX_SKEW = 0.2
_LONG = 5.0
_BLOCK_LINES = 3
_BLOCK_WORDS = 2
_ALIGNED = 0.25
_HIGH = re.compile(r"[^\Wacegm-suvw-z_]|[()\[\]{}/|$€£%&!?]")
_DEEP = re.compile(r"[gjpqyQ,;()\[\]{}/|$]")
_DIGIT = re.compile(r"\d")
_CJK = re.compile("[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]")
_FULL_WIDTH = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | {0x3002: 0x2E, 0x3001: 0x2C}


class Fragment(msgspec.Struct):
    """A recognised run of words with its position in points; ``source`` is the index of the recognised line."""

    line: Line
    source: int


def ocr_lines(recognised: Sequence[OcrLine], *, turns: int, scale: float) -> list[Line]:
    """Lines in reading order; ``scale`` is pixels per point."""
    return [_merge(row) for row in ocr_rows(recognised, turns=turns, scale=scale)]


def ocr_rows(recognised: Sequence[OcrLine], *, turns: int, scale: float) -> list[list[Fragment]]:
    """The rows in reading order, each with its fragments from left to right."""
    fragments = _fragments(recognised, turns=turns, scale=scale)
    rows = _rows(fragments)
    in_columns = _in_columns(rows)
    if in_columns is not None:
        return in_columns
    blocks = text_blocks(fragments)
    if not blocks:
        return rows
    inside = {id(fragment) for block in blocks for fragment in block}
    items = [[row] for row in _rows([fragment for fragment in fragments if id(fragment) not in inside])]
    items += [[[fragment] for fragment in block] for block in blocks]
    items.sort(key=lambda item: -item[0][0].line.top)
    for item in items:
        item[0][0].line.fresh = len(item) > 1
    return [row for item in items for row in item]


def _in_columns(rows: Sequence[list[Fragment]]) -> list[list[Fragment]] | None:
    """The rows in the order of the page's columns of prose; ``None`` if it has no columns."""
    cells: list[Line] = []
    origins: dict[int, tuple[int, Fragment]] = {}
    for number, row in enumerate(rows):
        top = max(fragment.line.top for fragment in row)  # keeps the cells of a row together when sorted
        for fragment in row:
            cells.append(msgspec.structs.replace(fragment.line, top=top))
            origins[id(cells[-1])] = (number, fragment)
    ordered = order_columns(cells)
    if ordered == cells:
        return None
    grouped: list[list[Fragment]] = []
    before = -1
    for line in ordered:
        number, fragment = origins[id(line)]
        fragment.line.fresh = line.fresh
        if number == before and not line.fresh:
            grouped[-1].append(fragment)
        else:
            grouped.append([fragment])
        before = number
    return grouped


def text_blocks(fragments: Sequence[Fragment]) -> list[list[Fragment]]:
    """Find text blocks beside other content, as on slides: lines below each other with a common left edge.

    A table's columns look much the same; there, most cells have others exactly beside them.
    """
    blocks: list[list[Fragment]] = []
    for fragment in sorted(fragments, key=lambda fragment: -fragment.line.top):
        home = next((block for block in blocks if _follows(block[-1].line, fragment.line)), None)
        if home is None:
            blocks.append([fragment])
        else:
            home.append(fragment)
    return [block for block in blocks if len(block) >= _BLOCK_LINES and _stands_alone(block, fragments)]


def _follows(above: Line, below: Line) -> bool:
    size = above.size
    return (
        max(above.size, below.size) < 1.25 * min(above.size, below.size)
        and abs(above.left - below.left) < 0.6 * size
        and -0.4 * size < above.bottom - below.top < 0.9 * size
    )


def _stands_alone(block: Sequence[Fragment], fragments: Sequence[Fragment]) -> bool:
    inside = {id(fragment) for fragment in block}
    others = [fragment.line for fragment in fragments if id(fragment) not in inside]
    aligned = beside = 0
    for fragment in block:
        line = fragment.line
        near = [other for other in others if other.bottom < line.top and other.top > line.bottom]
        exact = [other for other in near if abs(_middle(line) - _middle(other)) < _ALIGNED * min(line.size, other.size)]
        if any(_DIGIT.search(other.text) for other in exact):
            return False
        beside += bool(near)
        aligned += bool(exact)
    words = sum(len(fragment.line.text.split()) for fragment in block)
    return bool(beside) and aligned <= 0.34 * len(block) and words >= _BLOCK_WORDS * len(block)


def _fragments(recognised: Sequence[OcrLine], *, turns: int, scale: float) -> list[Fragment]:
    boxes = [_upright(line, turns, scale) for line in recognised]
    skew = _skew(boxes)
    fragments: list[Fragment] = []
    for source, (line, box) in enumerate(zip(recognised, boxes, strict=True)):
        text = clean_line(plain_punctuation(line.text))
        if not text:
            continue
        left, right, bottom, top = _bounds(box, skew)
        height = top - bottom
        size = _SIZE_OF_HEIGHT * height / _shown_height(text)
        inset = 0.5 * (1 - _SIZE_OF_HEIGHT) * height
        fragments.append(Fragment(Line(text, left, right, bottom + inset, top - inset, size), source))
    _even_sizes([fragment.line for fragment in fragments])
    return fragments


def plain_punctuation(text: str) -> str:
    r"""Replace full-width forms by ASCII, unless the line is Chinese, Japanese or Korean.

    >>> plain_punctuation("Total\uff0cnet\uff08in millions\uff09")
    'Total,net(in millions)'
    """
    return text if _CJK.search(text) else text.translate(_FULL_WIDTH)


Corners = list[tuple[float, float]]


def _upright(line: OcrLine, turns: int, scale: float) -> Corners:
    """Corners in points, y upwards, turned so that text runs from left to right; the first is the start of the line."""
    points = [(float(x) / scale, -float(y) / scale) for x, y in line.corners]
    for _ in range(turns):
        points = [(y, -x) for x, y in points]
    return points[-turns:] + points[:-turns] if turns else points


def _skew(boxes: Sequence[Corners]) -> float:
    """The angle of the text in radians: the median of the upper edges of long lines."""
    angles: list[float] = []
    for (x0, y0), (x1, y1), _, (x3, y3) in boxes:
        length, height = abs(x1 - x0), abs(y0 - y3) + abs(x0 - x3)
        if length > _LONG * height > 0:
            angles.append(atan2(y1 - y0, x1 - x0))
    angle = median(angles) if len(angles) >= 3 else 0.0
    return angle if abs(angle) < _MAX_SKEW else 0.0


def _bounds(box: Corners, skew: float) -> tuple[float, float, float, float]:
    """Left, right, bottom and top of a deskewed box: the mean of the edges, because the corners protrude."""
    c, s = cos(-skew), sin(-skew)
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = [(c * x - s * y, s * x + c * y) for x, y in box]
    return min(x0, x3), max(x1, x2), (y2 + y3) / 2, (y0 + y1) / 2


def _shown_height(text: str) -> float:
    """The share of the font height that a line covers: lower without ascenders or descenders."""
    above, below = _HIGH.search(text) is not None, _DEEP.search(text) is not None
    return 0.72 + 0.15 * above + 0.13 * below


def _even_sizes(lines: list[Line]) -> None:
    """Give lines of similar sizes the same size: the heights of boxes vary with ascenders and descenders."""
    group: list[Line] = []
    for line in [*sorted(lines, key=lambda line: line.size), None]:
        if line is None or (group and line.size > _SAME_SIZE * group[0].size):
            size = round(median(member.size for member in group), 1) if group else 0.0
            for member in group:
                member.size = size
            group = []
        if line is not None:
            group.append(line)


def _rows(fragments: Sequence[Fragment]) -> list[list[Fragment]]:
    """Group fragments into rows, from top to bottom and from left to right."""
    rows: list[list[Fragment]] = []
    for fragment in sorted(fragments, key=lambda fragment: (-_middle(fragment.line), fragment.line.left)):
        if rows and _beside(rows[-1], fragment.line):
            rows[-1].append(fragment)
        else:
            rows.append([fragment])
    for row in rows:
        row.sort(key=lambda fragment: fragment.line.left)
    return rows


def _beside(row: Sequence[Fragment], line: Line) -> bool:
    first = row[0].line
    overlap = min(first.top, line.top) - max(first.bottom, line.bottom)
    if overlap < 0.5 * min(first.top - first.bottom, line.top - line.bottom):
        return False
    return all(
        line.left >= member.line.right - line.size or line.right <= member.line.left + line.size for member in row
    )


def _middle(line: Line) -> float:
    return (line.top + line.bottom) / 2


def _merge(row: Sequence[Fragment]) -> Line:
    """Join the fragments of a row into a line."""
    lines = [fragment.line for fragment in row]
    if len(lines) == 1:
        return lines[0]
    gaps = [after.left - before.right for before, after in pairwise(lines)]
    longest = max(lines, key=lambda line: len(line.text))
    return Line(
        " ".join(line.text for line in lines),
        lines[0].left,
        lines[-1].right,
        min(line.bottom for line in lines),
        max(line.top for line in lines),
        longest.size,
        row=max(gaps) > _CELL_GAP * longest.size,
        fresh=lines[0].fresh,
    )
