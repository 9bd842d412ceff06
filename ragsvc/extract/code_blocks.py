"""Finds lines of code: consecutive lines in a monospaced font, whose indentation has a meaning.

Monospaced is decided by the distances between the characters. They are measured only for lines whose width fits their
number of characters, which proportional text rarely does for two lines of different length.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

from ragsvc.extract.layout import Line
from ragsvc.extract.line_spans import UNSHOWN

if TYPE_CHECKING:
    from ragsvc.extract.pdf_text import TextPage

_NARROWEST, _WIDEST = 0.45, 0.68
_NARROW_PROSE = 0.53
_VERY_SHORT = 4
_BEARING = 0.3
_OFF = 0.75
_LONG = 8
_SAMPLE = 24
_LARGEST_STEP = 3.2
_DEEPEST = 40
_FEWEST = 3
_OFF_STEP = 0.25
_STEPS_SHARE = 0.8


def mark_code(page: TextPage, lines: Sequence[Line]) -> None:
    """Set the indentation of lines of code, in characters."""
    for run, advance in _monospaced_runs(page, lines):
        left = min(line.left for line in run)
        code = [line for line in run if _fits(page, line, advance)]
        steps = [(line.left - left) / advance for line in code]
        in_steps = sum(abs(step - round(step)) < _OFF_STEP for step in steps)
        if len(code) < _FEWEST or in_steps < _STEPS_SHARE * len(code):
            continue  # centred, for example
        for line, step in zip(code, steps, strict=True):
            line.indent = min(_DEEPEST, round(step))


def _monospaced_runs(page: TextPage, lines: Sequence[Line]) -> Iterator[tuple[Sequence[Line], float]]:
    """Runs of lines in a monospaced font with the width of a character, whole or between lines in another font."""
    for run in _runs(lines):
        if not _is_indented(run):
            continue
        advance = _advance(page, run)
        if advance:
            yield run, advance
            continue
        for part in _wide_parts(run):
            advance = _advance(page, part) if _is_indented(part) else 0.0
            if advance:
                yield part, advance


def _is_indented(run: Sequence[Line]) -> bool:
    left = min(line.left for line in run)
    return any(line.left - left >= _NARROWEST * line.size for line in run)


def _wide_parts(run: Sequence[Line]) -> Iterator[list[Line]]:
    """The parts of a run whose characters are as wide as those of monospaced fonts, which few other texts are."""
    part: list[Line] = []
    for line in run:
        width = (line.right - line.left) / max(0.5, len(line.text) - _BEARING)
        if len(line.text) < _VERY_SHORT or _NARROW_PROSE * line.size < width < _WIDEST * line.size:
            part.append(line)
            continue
        if len(part) >= _FEWEST:
            yield part
        part = []
    if len(part) >= _FEWEST:
        yield part


def _runs(lines: Sequence[Line]) -> Iterator[list[Line]]:
    """Runs of at least three lines of one font size below each other."""
    run: list[Line] = []
    for before, line in pairwise([None, *lines]):
        if line is None:
            continue
        if before is not None and run and _is_below(before, line):
            run.append(line)
            continue
        if len(run) >= _FEWEST:
            yield run
        run = [] if line.upright or not line.size or len(line.spans) != 1 else [line]
    if len(run) >= _FEWEST:
        yield run


def _is_below(before: Line, line: Line) -> bool:
    return (
        line.size == before.size
        and len(line.spans) == 1
        and not (line.upright or line.fresh)
        and 0.5 * line.size < before.bottom - line.bottom < _LARGEST_STEP * line.size
    )


def _advance(page: TextPage, run: Sequence[Line]) -> float:
    """The width of each character; 0 if the font is not monospaced, by the two longest lines."""
    longest = sorted(run, key=lambda line: len(line.text))[-2:]
    widths = [(line.right - line.left) / (len(line.text) - _BEARING) for line in longest if len(line.text) >= _LONG]
    size = longest[-1].size
    if not widths or not _NARROWEST * size < min(widths) <= max(widths) < 2 * _WIDEST * size:
        return 0.0
    low = high = 0.0
    for line in longest:
        if len(line.text) >= _LONG:
            advance = _measured_advance(page, line)
            if not advance > 0:
                return 0.0
            low, high = min(low or advance, advance), max(high, advance)
    return high if high - low < 0.02 * size and _NARROWEST * size < high < _WIDEST * size else 0.0


def _measured_advance(page: TextPage, line: Line) -> float:
    """The distance between the characters of a line; 0 if they differ."""
    start, end = line.spans[0]
    end = min(end, start + _SAMPLE)
    text, limit = page.text, 0.02 * line.size
    low, high, count = math.inf, -math.inf, 0
    for index in range(start, end - 1):
        if text[index] not in UNSHOWN and text[index + 1] not in UNSHOWN:
            distance = page.offset(index + 1) - page.offset(index)
            low, high, count = min(low, distance), max(high, distance), count + 1
            if high - low >= limit:
                return 0.0
    return high if count > 1 and len(set(text[start:end])) > 3 else 0.0


def _fits(page: TextPage, line: Line, advance: float) -> bool:
    """Whether a line is as wide as its characters; it may be wider where a file has several spaces."""
    difference = (line.right - line.left) / advance - (len(line.text) - _BEARING)
    if abs(difference) < _OFF:
        return True
    return difference > 0 and abs(_measured_advance(page, line) - advance) < 0.02 * line.size
