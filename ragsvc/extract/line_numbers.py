"""Finds the line numbers in the margin of pleadings, transcripts and drafts. Pure geometry and text.

The numbers of lists and tables look similar; but only margin numbers count lines that begin inside a sentence.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median

import msgspec

from ragsvc.extract.turned import Rectangle

_FEWEST = {1: 8, 2: 6, 5: 3, 10: 3}
_MIN_WORDS = 4
_INSIDE_SENTENCE = 0.4


class MarginNumber(msgspec.Struct, frozen=True):
    """A number at the beginning or the end of line ``index``, with its box and the text beside it."""

    index: int
    number: int
    box: Rectangle
    text: str


def line_numbers(numbers: Sequence[MarginNumber], lines: Sequence[tuple[float, float, str]]) -> list[MarginNumber]:
    """Those of ``numbers`` that number lines; empty if they number something else.

    ``lines`` are the left end, the right end and the text of all lines, without the numbers.

    >>> texts = ["The court hears three witnesses", *["on the state of the harbour"] * 8]
    >>> numbers = [MarginNumber(n, n + 1, (50, 700 - 12 * n, 56, 708 - 12 * n), text) for n, text in enumerate(texts)]
    >>> len(line_numbers(numbers, [(80, 300, text) for text in texts]))
    9
    >>> line_numbers(numbers, [(80, 300, "A list item begins here")] * 9)
    []
    """
    run = _progression(sorted(numbers, key=lambda number: -number.box[3]))
    texts = [text for _, _, text in lines if text]
    if not run or not texts or median(len(text.split()) for text in texts) < _MIN_WORDS:
        return []
    inside = sum(text[0].islower() for text in texts)
    if inside < _INSIDE_SENTENCE * (len(texts) - 1) or not _in_margin(run, lines):
        return []
    return run


def _progression(numbers: Sequence[MarginNumber]) -> list[MarginNumber]:
    """The longest run of numbers that rise by one step from line to line."""
    best: list[MarginNumber] = []
    for step, fewest in _FEWEST.items():
        run = list(numbers[:1])
        for before, after in pairwise(numbers):
            if after.number - before.number != step:
                run = []
            run.append(after)
            if len(run) > max(len(best), fewest - 1):
                best = list(run)
    return best


def _in_margin(run: Sequence[MarginNumber], lines: Sequence[tuple[float, float, str]]) -> bool:
    """Whether almost all text is on one side of the numbers, which are aligned."""
    left, right = min(number.box[0] for number in run), max(number.box[2] for number in run)
    widest = max(number.box[2] - number.box[0] for number in run)
    if right - left > 1.5 * widest + 1:
        return False
    ends = [(start, end) for start, end, text in lines if text]
    few = 0.1 * len(ends)
    return sum(start < right for start, _ in ends) <= few or sum(end > left for _, end in ends) <= few
