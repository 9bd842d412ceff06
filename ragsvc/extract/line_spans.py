"""Finds the lines in the characters of a page: their spans, rows that pdfium joined, and line numbers in the margin.

Knows nothing of how a line is measured (``pdf_text``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from ragsvc.extract.clean import LINE_HYPHEN
from ragsvc.extract.layout import Line
from ragsvc.extract.line_numbers import MarginNumber, line_numbers
from ragsvc.extract.turned import Rectangle

if TYPE_CHECKING:
    from ragsvc.extract.pdf_text import TextPage

Span = tuple[int, int]
"""Start and end of a run of characters."""

UNSHOWN = frozenset("\r\n\x00\ufffe\x02 ")
"""Characters without a glyph."""

_FIRST_NUMBER = re.compile(r"^([1-9]\d{0,3})(?=\s|$)")
_LAST_NUMBER = re.compile(r"(?:^|(?<=\s))([1-9]\d{0,3})$")
_FEWEST_STEPS = 2
_INSIDE_SENTENCE = 0.4


def line_spans(text: str) -> Iterator[Span]:
    """The spans of pdfium's lines, without leading and trailing white space."""
    position = 0
    for raw in text.split("\r\n"):
        stripped = raw.strip()
        if stripped:
            start = position + raw.index(stripped[0])
            yield start, start + len(stripped)
        position += len(raw) + 2


def trim(text: str, start: int, end: int) -> int:
    """The end of a span without the white space at its end."""
    while end > start and text[end - 1] in UNSHOWN:
        end -= 1
    return end


def covers_rows(line: Line) -> bool:
    """Whether pdfium joined the rows of a table, as it does where rows begin with a single character."""
    return line.top - line.bottom > 2 * line.size and not line.upright and LINE_HYPHEN not in line.text


def row_spans(page: TextPage, start: int, end: int) -> Iterator[Span]:
    """The rows of a line, and its parts of one direction."""
    first, turns = start, page.turns
    row: Rectangle | None = None
    for index in range(start, end):
        box = None if page.text[index] in UNSHOWN else page.character_box(index)
        if box is None:
            continue
        size, _, own_turns = page.font(index)
        box = page.shown(box)
        apart = row is not None and (box[3] < row[1] or box[1] > row[3] + size)
        if index > start and (own_turns != turns or (apart and turns == page.turns)):
            yield first, trim(page.text, first, index)
            first, row = index, None
        row = box if row is None else (row[0], min(row[1], box[1]), box[2], max(row[3], box[3]))
        turns = own_turns
    yield first, end


def margin_numbers(page: TextPage, spans: Sequence[Span], lines: Sequence[Line]) -> list[MarginNumber]:
    """The line numbers in the left or the right margin."""
    candidates = (
        (_FIRST_NUMBER, [index for index, line in enumerate(lines) if line.text[:1].isdigit()]),
        (_LAST_NUMBER, [index for index, line in enumerate(lines) if line.text[-1:].isdigit()]),
    )
    if all(len(indexes) <= _FEWEST_STEPS for _, indexes in candidates):
        return []
    starts = [line.text[:1] for line in lines]
    if sum(start.islower() or start.isdigit() for start in starts) < _INSIDE_SENTENCE * len(starts):
        return []
    for pattern, indexes in candidates:
        found = [(index, match) for index in indexes if (match := pattern.search(lines[index].text))]
        steps = Counter(int(after[1][1]) - int(before[1][1]) for before, after in pairwise(found))
        if max(steps[1], steps[2], steps[5], steps[10]) < _FEWEST_STEPS:
            continue
        numbers: list[MarginNumber] = []
        texts = {index: (line.left, line.right, line.text) for index, line in enumerate(lines)}
        for index, match in found:
            box, rest = _number_box(page, spans[index], match[1], first=pattern is _FIRST_NUMBER)
            if box is None:
                continue
            text = (lines[index].text[: match.start()] + lines[index].text[match.end() :]).strip()
            numbers.append(MarginNumber(index, int(match[1]), box, text))
            texts[index] = (*rest, text)
        if run := line_numbers(numbers, list(texts.values())):
            return run
    return []


def _number_box(
    page: TextPage, span: Span, digits: str, *, first: bool
) -> tuple[Rectangle | None, tuple[float, float]]:
    """The box of the first or last number of a line, and the left and right end of the rest."""
    start, end = span
    edge = start + len(digits) if first else end - len(digits)
    number = (start, edge) if first else (edge, end)
    rest = (edge, end) if first else (start, edge)
    begin, close = (page.character_box(index) for index in (number[0], number[1] - 1))
    if begin is None or close is None or not page.text[number[0] : number[1]].isdigit():
        return None, (0.0, 0.0)
    left, bottom, _, top = page.shown(begin)
    box = (left, bottom, page.shown(close)[2], top)
    shown = [index for index in range(*rest) if page.text[index] not in UNSHOWN]
    ends = [page.character_box(index) for index in (shown[0], shown[-1])] if shown else []
    boxes = [page.shown(found) for found in ends if found]
    return box, (boxes[0][0], boxes[-1][2]) if boxes else (box[0], box[2])


def without_number(text: str, span: Span, number: MarginNumber) -> Span:
    """The span of a line's text beside its number."""
    start, end = span
    digits = str(number.number)
    if not text.startswith(digits, start):
        return start, trim(text, start, end - len(digits))
    start += len(digits)
    while text[start] in UNSHOWN:
        start += 1
    return start, end
