"""Combines the lines of a page's text layer with recognised lines. Pure geometry and text.

The text layer is exact where it is usable, so recognised text only fills its gaps: lines with unusable glyphs, and
pictures. All lines have coordinates in points, y upwards, in the orientation of the text layer.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from enum import Enum, auto

import msgspec

from ragsvc.extract.annotation_lines import PlacedText, place_texts
from ragsvc.extract.glyph_evidence import UNUSABLE
from ragsvc.extract.layout import Line
from ragsvc.extract.turned import turned

_INSIDE = 0.5
_MIN_ADDED = 20
_SAME_WORDS = 0.5
_WORDS = re.compile(r"\w{3,}")
_UNUSABLE_RUN = re.compile(f"({UNUSABLE}(?:\\s*{UNUSABLE})*)")


class Reason(Enum):
    """Why a page with a text layer is recognised."""

    GARBLED = auto()
    """The characters of the page are unusable as a whole."""
    GLYPHS = auto()
    """Some lines have unusable glyphs."""
    PICTURE = auto()
    """A picture covers the page, with little text over it."""
    LAYER = auto()
    """The text is the layer of a scan: another program recognised it, perhaps badly."""


class KeptLines(msgspec.Struct):
    """The lines of a text layer until the page is recognised. ``turns`` are clockwise quarter turns from the page.

    ``placed`` are the texts on top of the page, in the coordinates of the page; they are not among the lines.
    """

    reason: Reason
    lines: list[Line]
    turns: int
    placed: list[PlacedText] = []


def combine(kept: KeptLines, recognised: Sequence[Line], fragments: Sequence[Line]) -> tuple[list[Line], bool]:
    """The lines of the page, and whether recognised text is among them.

    ``recognised`` are whole lines in reading order, ``fragments`` their parts without wide gaps.
    """
    lines, changed = _combine(kept, recognised, fragments)
    return place_texts(lines, turned_texts(kept.placed, kept.turns)), changed


def turned_texts(texts: Sequence[PlacedText], turns: int) -> list[PlacedText]:
    """The texts with their rectangles turned around the origin, ``turns`` quarter turns clockwise."""
    return [msgspec.structs.replace(placed, rectangle=turned(placed.rectangle, turns % 4)) for placed in texts]


def _combine(kept: KeptLines, recognised: Sequence[Line], fragments: Sequence[Line]) -> tuple[list[Line], bool]:
    match kept.reason:
        case Reason.GARBLED:
            agrees = _agree(kept.lines, recognised)
            return _fill_gaps(kept.lines, fragments) if agrees else (list(recognised), bool(recognised))
        case Reason.GLYPHS:
            return _fill_gaps(kept.lines, fragments)
        case Reason.PICTURE:
            return _add_picture(kept.lines, recognised, fragments)
        case Reason.LAYER:
            return list(recognised), bool(recognised)


def _agree(lines: Sequence[Line], recognised: Sequence[Line]) -> bool:
    """Whether the text layer has most words that were recognised, and is therefore text."""
    here, there = (Counter(word for line in some for word in _WORDS.findall(line.text)) for some in (lines, recognised))
    return bool(there) and (here & there).total() >= _SAME_WORDS * there.total()


def _fill_gaps(lines: Sequence[Line], fragments: Sequence[Line]) -> tuple[list[Line], bool]:
    """Replace each line with unusable glyphs by the recognised text at its position."""
    filled: list[Line] = []
    changed = False
    for line in lines:
        text = line.text
        if UNUSABLE in text:
            here = sorted((part for part in fragments if _covers(line, part)), key=lambda part: part.left)
            text = _fill(text, " ".join(part.text for part in here))
            changed |= text != line.text
        filled.append(msgspec.structs.replace(line, text=text))
    return filled, changed


def _covers(line: Line, part: Line) -> bool:
    height = min(line.top, part.top) - max(line.bottom, part.bottom)
    width = min(line.right, part.right) - max(line.left, part.left)
    return height > _INSIDE * min(line.top - line.bottom, part.top - part.bottom) and (
        width > _INSIDE * (part.right - part.left)
    )


def _fill(text: str, recognised: str) -> str:
    """Take only the unusable glyphs from the recognised text if the others agree, else all of it.

    >>> _fill("Total due: \ufffd\ufffd\ufffd euros", "Tota1 due:412 euros")
    'Total due: 412 euros'
    """
    if not recognised:
        return text
    parts = _UNUSABLE_RUN.split(text)
    pattern = "".join(
        f"(.{{1,{2 * len(part)}}}?)" if index % 2 else r"\s*".join(map(_like, part.replace(" ", "")))
        for index, part in enumerate(parts)
    )
    found = re.fullmatch(r"\s*".join(("", pattern, "")), recognised, re.IGNORECASE)
    if found is None:
        return recognised
    groups = iter(found.groups())
    return "".join(next(groups).strip() if index % 2 else part for index, part in enumerate(parts))


def _like(character: str) -> str:
    """A pattern of what a character may be recognised as."""
    if character in "1lI|":
        return "[1lI|]"
    return "[0Oo]" if character in "0Oo" else re.escape(character) if character.isalnum() else "."


def _add_picture(
    lines: Sequence[Line], recognised: Sequence[Line], fragments: Sequence[Line]
) -> tuple[list[Line], bool]:
    """Add the recognised lines, or parts of lines, that the text layer does not contain."""
    if not lines:
        return list(recognised), bool(recognised)
    added = [new for line in recognised if (new := _without_known(line, fragments, lines)) is not None]
    if sum(sum(map(str.isalnum, line.text)) for line in added) < _MIN_ADDED:
        return list(lines), False
    merged = list(added)
    for block in _blocks(lines):
        merged[_position(block[0], merged) : 0] = block
    return merged, True


def _without_known(line: Line, fragments: Sequence[Line], known: Sequence[Line]) -> Line | None:
    """A recognised line without the parts that the text layer contains; ``None`` if nothing is left."""
    parts = [part for part in fragments if _holds(line, part)] or [line]
    new = [part for part in parts if _overlap(part, known) < _INSIDE * _area(part)]
    if len(new) in (0, len(parts)):
        return line if new else None
    text, left, right = " ".join(part.text for part in new), min(part.left for part in new), new[-1].right
    return msgspec.structs.replace(line, text=text, left=left, right=right)


def _holds(line: Line, part: Line) -> bool:
    middle = (part.bottom + part.top) / 2
    return line.bottom <= middle <= line.top and line.left <= (part.left + part.right) / 2 <= line.right


def _blocks(lines: Sequence[Line]) -> list[list[Line]]:
    """Runs of lines that follow each other closely, so that they stay together. The last comes first."""
    blocks: list[list[Line]] = []
    for line in lines:
        if blocks and -line.size < blocks[-1][-1].bottom - line.top < 2 * max(line.size, 1):
            blocks[-1].append(line)
        else:
            blocks.append([msgspec.structs.replace(line, fresh=True)])
    return blocks[::-1]


def _position(line: Line, others: Sequence[Line]) -> int:
    """The index at which a line is inserted: after the nearest line above it, else before all others."""
    above = [
        (other.bottom - line.top, -index)
        for index, other in enumerate(others)
        if other.bottom >= line.top - 0.5 * (line.top - line.bottom)
    ]
    return 1 - min(above)[1] if above else 0


def _overlap(line: Line, others: Sequence[Line]) -> float:
    return sum(
        max(0.0, min(line.right, other.right) - max(line.left, other.left))
        * max(0.0, min(line.top, other.top) - max(line.bottom, other.bottom))
        for other in others
    )


def _area(line: Line) -> float:
    return max(0.1, (line.right - line.left) * (line.top - line.bottom))
