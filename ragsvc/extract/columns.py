"""Restores the reading order of columns whose lines a file stores row by row. Pure geometry and text.

Tables look similar, and their rows must stay together. ``order_columns`` judges a page by its gutter: only two sides
that both read like prose, with a gutter between them over many lines, count as columns. ``order_blocks`` judges a block
of rows by its sentences, so it finds any number of columns, and short ones: in columns of prose each line continues the
line above it, and in tables all cells of a row begin together. Columns that a file stores one after the other are not
reordered (``alternates`` returns ``False`` for them).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import accumulate, pairwise
from statistics import median

import msgspec

from ragsvc.extract.cells import on_one_baseline
from ragsvc.extract.layout import Line, is_cjk

Row = list[Line]
"""Fragments on one baseline, from left to right."""

_STEP = 3
_MIN_LINES = 6
_MIN_WORDS = 3.5
_DIGITS = re.compile(r"\d")
FIGURE = re.compile(r"\d+(?:[.,]\d+)*")
_LETTERS_PER_FIGURE = 12
_LETTERS = re.compile(r"[^\W\d_]")
_CROSSING_SHARE = 0.15
_LEADING = 1.6
_MIN_GUTTER = 5.0
_MIN_BLOCK_WORDS = 2.5
_FEW_LINES = 6
_MAX_COLUMNS = 6
_SENTENCE_ENDS = ".!?:;\u3002\uff01\uff1f"
_FILLED = 0.88


def order_columns(lines: Sequence[Line]) -> list[Line]:
    """Put line fragments (each within a column, or across all) into reading order; unchanged if there are no columns.

    >>> row = lambda text, left, top: Line(text, left, left + 200, top - 10, top, 10)
    >>> sides = (("left", 50), ("right", 300))
    >>> page = [row(f"{side} line {n} goes on", x, 700 - 12 * n) for n in range(8) for side, x in sides]
    >>> [line.text.split()[0] for line in order_columns(page)] == ["left"] * 8 + ["right"] * 8
    True
    """
    gutter = find_gutter(lines)
    if gutter is None:
        return list(lines)
    left = [line for line in lines if line.right <= gutter]
    right = [line for line in lines if line.left >= gutter]
    if not (_is_column_or_two(left) and _is_column_or_two(right) and alternates(lines, gutter)):
        return list(lines)
    across = sorted((line for line in lines if line.left < gutter < line.right), key=_by_top)
    ordered: list[Line] = []
    for spanning in [*across, None]:
        floor = spanning.top if spanning is not None else float("-inf")
        for side in (left, right):
            above = [line for line in side if _middle(line) > floor]
            side[:] = [line for line in side if _middle(line) <= floor]
            above = order_columns(sorted(above, key=_by_top))
            if above and ordered:
                above[0].fresh = True
            ordered += above
        if spanning is not None:
            ordered.append(spanning)
    return ordered


def find_gutter(lines: Sequence[Line]) -> float | None:
    """The x in the middle half of the page that the fewest lines cross; ``None`` if too many lines cross it."""
    if len(lines) < 2 * _MIN_LINES:
        return None
    start, end = min(line.left for line in lines), max(line.right for line in lines)
    width = end - start
    if width <= 0:
        return None
    first_x = int(start + 0.25 * width)
    count = int(0.5 * width / _STEP) + 1  # over the middle half
    changes = [0] * (count + 1)
    for line in lines:
        enters = max(0, min(count, int((line.left - first_x) // _STEP) + 1))
        leaves = max(enters, min(count, int(-((first_x - line.right) // _STEP))))
        changes[enters] += 1
        changes[leaves] -= 1
    crossings = list(accumulate(changes))[:count]
    if min(crossings) > _CROSSING_SHARE * len(lines):
        return None
    fewest = min(crossings)
    best, run = (0, 0), 0
    for index, crossing in enumerate([*crossings, len(lines) + 1]):
        if crossing == fewest:
            run += 1
            continue
        best, run = max(best, (run, index - run)), 0
    length, first = best
    return float(first_x + _STEP * (first + length // 2))


def alternates(lines: Sequence[Line], gutter: float) -> bool:
    """Whether the file's order jumps across the gutter often, which reading order never does."""
    sides = [line.left >= gutter for line in lines if line.right <= gutter or line.left >= gutter]
    jumps = sum(a != b for a, b in pairwise(sides))
    return jumps >= 4 and jumps >= 0.25 * len(sides)


def _is_column_or_two(lines: Sequence[Line]) -> bool:
    """Whether lines are a column of prose, or two columns of prose that the file interleaves."""
    if _is_prose(lines):
        return True
    gutter = find_gutter(lines)
    if gutter is None or not alternates(lines, gutter):
        return False
    sides = [line for line in lines if line.right <= gutter], [line for line in lines if line.left >= gutter]
    return all(map(_is_prose, sides))


def _is_prose(lines: Sequence[Line]) -> bool:
    if len(lines) < _MIN_LINES:
        return False
    text = "".join(line.text for line in lines)
    width = max(line.right for line in lines) - min(line.left for line in lines)
    return (
        _has_few_figures(text)
        and median(len(line.text.split()) for line in lines) >= _MIN_WORDS
        and median(line.right - line.left for line in lines) >= 0.55 * width
    )


def _has_few_figures(text: str) -> bool:
    letters = len(_LETTERS.findall(text))
    return letters > 5 * len(_DIGITS.findall(text)) or letters > _LETTERS_PER_FIGURE * len(FIGURE.findall(text))


def _by_top(line: Line) -> float:
    return -line.top


def _middle(line: Line) -> float:
    return (line.top + line.bottom) / 2


def order_blocks(fragments: Sequence[Line]) -> list[Line] | None:
    """Read blocks of rows column by column where they are prose; ``None`` if no block is.

    >>> row = lambda text, left, top: Line(text, left, left + 6 * len(text), top - 10, top, 10)
    >>> texts = [("The first column", "The second has"), ("goes on here.", "two lines too.")]
    >>> page = [row(text, x, 700 - 12 * n) for n, pair in enumerate(texts) for text, x in zip(pair, (50, 300))]
    >>> [line.text for line in order_blocks(page)]
    ['The first column', 'goes on here.', 'The second has', 'two lines too.']
    """
    ordered: list[Line] = []
    found = False
    for block in _blocks(_rows(fragments)):
        columns = _prose_columns(block)
        if columns is None:
            ordered += [_row_line(row) for row in block]
            continue
        found = True
        for column in columns:
            column[0].fresh = True
            ordered += column
    return ordered if found else None


def _rows(fragments: Sequence[Line]) -> list[Row]:
    rows: list[Row] = []
    for line in fragments:
        before = rows[-1][-1] if rows else None
        if before is not None and line.left > before.right and on_one_baseline(before, line):
            rows[-1].append(line)
        else:
            rows.append([line])
    return rows


def _row_line(row: Row) -> Line:
    """A row of a table as one line."""
    if len(row) == 1:
        return row[0]
    return msgspec.structs.replace(_merged(row), row=True)


def _merged(row: Row) -> Line:
    return msgspec.structs.replace(
        row[0],
        text=" ".join(line.text for line in row),
        right=row[-1].right,
        bottom=min(line.bottom for line in row),
        top=max(line.top for line in row),
        spans=tuple(span for line in row for span in line.spans),
    )


def _blocks(rows: Sequence[Row]) -> Iterator[list[Row]]:
    """Runs of rows below each other that no line across the gutters interrupts."""
    start = 0
    for index in range(1, len(rows) + 1):
        if index == len(rows) or not _follows(rows[index - 1][0], rows[index][0]):
            run = list(rows[start:index])
            yield from _split_at_crossings(run, _gutters([row for row in run if len(row) > 1]))
            start = index


def _follows(line: Line, below: Line) -> bool:
    size = max(line.size, below.size) or 10.0
    distance = line.top - below.top
    return 0.4 * size < distance < _LEADING * size + 2 and not (line.upright or below.upright)


def _gutters(rows: Sequence[Row]) -> list[tuple[float, float]]:
    """The gaps that no fragment of any row crosses."""
    gutters: list[tuple[float, float]] = []
    reach = None
    for left, right in sorted((line.left, line.right) for row in rows for line in row):
        if reach is not None and left - reach >= _MIN_GUTTER:
            gutters.append((reach, left))
        reach = right if reach is None else max(reach, right)
    return gutters


def _split_at_crossings(run: list[Row], gutters: Sequence[tuple[float, float]]) -> Iterator[list[Row]]:
    block: list[Row] = []
    for row in run:
        crosses = any(line.left < left + 1 and line.right > right - 1 for line in row for left, right in gutters)
        if crosses or not gutters:
            if block:
                yield block
            yield [row]
            block = []
        else:
            block.append(row)
    if block:
        yield block


def _prose_columns(block: Sequence[Row]) -> list[list[Line]] | None:
    """The lines of each column, if all columns are prose."""
    gutters = _gutters([row for row in block if len(row) > 1])
    if len(block) < 2 or not 1 <= len(gutters) < _MAX_COLUMNS:
        return None
    columns: list[dict[int, Line]] = [{} for _ in range(len(gutters) + 1)]
    for number, row in enumerate(block):
        for index, column in enumerate(columns):
            low = gutters[index - 1][0] if index else float("-inf")
            high = gutters[index][1] if index < len(gutters) else float("inf")
            inside = [line for line in row if line.left > low and line.right < high]
            if inside:
                column[number] = _merged(inside)
    goes_on = [_continuing_rows(column) for column in columns]
    if any(found is None for found in goes_on):
        return None
    sets = [found for found in goes_on if found is not None]
    together = sum(
        not any(number in found for found in sets) and sum(number in column for column in columns) > 1
        for number in range(1, len(block))
    )
    if together > len(block) / 5:
        return None
    return [[column[number] for number in sorted(column)] for column in columns]


def _continuing_rows(column: dict[int, Line]) -> set[int] | None:
    """The rows in which a column continues the line above; ``None`` if the column is no prose."""
    numbers = sorted(column)
    if len(numbers) < 2 or len(numbers) < 0.7 * (numbers[-1] - numbers[0] + 1):
        return None
    lines = [column[number] for number in numbers]
    text = "".join(line.text for line in lines)
    if not _has_few_figures(text):
        return None
    if sum(_word_count(line.text) for line in lines) < _MIN_BLOCK_WORDS * len(lines):
        return None
    width = max(line.right for line in lines) - min(line.left for line in lines)
    found = {
        number
        for before, number in pairwise(numbers)
        if _goes_on(column[before], column[number], filled=_FILLED * width)
    }
    share = 0.6 if len(lines) < _FEW_LINES else 0.45
    return found if len(found) >= share * (len(lines) - 1) else None


def _goes_on(line: Line, below: Line, *, filled: float) -> bool:
    """Whether a line continues a sentence: in lower case, or after a full line where the script has no case."""
    first = next((character for character in below.text if character.isalnum()), "")
    if first.islower():
        return True
    caseless = first.lower() == first.upper()
    return caseless and line.right - line.left >= filled and line.text[-1:] not in _SENTENCE_ENDS


def _word_count(text: str) -> float:
    """The number of words; two characters of a script without spaces count as a word."""
    without_spaces = sum(map(is_cjk, text))
    return len(text.split()) + without_spaces / 2
