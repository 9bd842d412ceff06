"""Judges the text layer of a scan against its picture: another program recognised it, perhaps badly.

A few lines of the layer are cut out of the picture and recognised, which takes a tenth of the time of the whole page.
Only a layer that disagrees with them has its page recognised, and is replaced if that reading is sure of itself.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Sequence

import numpy as np

from ragsvc.extract.clean import LINE_HYPHEN
from ragsvc.extract.layout import Line
from ragsvc.extract.ocr import Recognised, Recogniser
from ragsvc.extract.page_image import PixelArray

Pixels = tuple[float, float, float, float]
"""left, top, right, bottom of a line in its image."""

_SAMPLED = 8
_MIN_WORDS = 4
_AGREES = 0.85
_SURE = 0.85
_MARGIN = 0.2
_MIN_SIDE = 5
_MAX_RATIO = 40
_WORD = re.compile(r"[^\W_]*\d[^\W_]*|[^\W\d_]{3,}|[\u3040-\u30ff\u3400-\u9fff]")
_OUTSIDE = re.compile(r"[\W_]+")


def agrees_with_picture(
    lines: Sequence[Line],
    image: PixelArray,
    place: Callable[[Sequence[Line]], list[Pixels]],
    *,
    turns: int,
    recogniser: Recogniser,
) -> bool:
    """Whether the words of sampled lines are in the picture. ``False`` if there are too few words to judge by.

    ``turns`` is the number of clockwise quarter turns until the lines in the picture are upright.
    """
    words = found = 0
    sampled = _sample(lines)
    for line, pixels in zip(sampled, place(sampled), strict=True):
        expected = _words(line.text)
        crop = _crop(image, pixels, turns)
        if not expected or crop is None:
            continue
        seen = _OUTSIDE.sub("", recogniser.read_line(crop)).lower()
        words += len(expected)
        found += sum(word in seen for word in expected)
    return words >= _MIN_WORDS and found >= _AGREES * words


def should_replace(lines: Sequence[Line], recognised: Recognised) -> bool:
    """Whether a page's recognised text differs from its layer, and the recognition is sure of it."""
    characters = sum(len(line.text) for line in recognised.lines)
    if not characters:
        return False
    score = sum(line.score * len(line.text) for line in recognised.lines) / characters
    layer = Counter(word for line in lines for word in _words(line.text))
    seen = Counter(word for line in recognised.lines for word in _words(line.text))
    common = (layer & seen).total()
    return score >= _SURE and common < _AGREES * max(seen.total(), 1)


def _words(text: str) -> list[str]:
    return [word.lower() for word in _WORD.findall(text)]


def _sample(lines: Sequence[Line]) -> list[Line]:
    """Lines from all parts of the page, and more of those with figures; none that continues below a hyphen."""
    usable = [line for line in lines if not line.upright and LINE_HYPHEN not in line.text and _WORD.search(line.text)]
    step = max(1, len(usable) // _SAMPLED)
    with_figures = [line for line in usable if any(map(str.isdigit, line.text))]
    return [*usable[::step][:_SAMPLED], *with_figures[:: max(1, 2 * len(with_figures) // _SAMPLED)][: _SAMPLED // 2]]


def _crop(image: PixelArray, place: Pixels, turns: int) -> PixelArray | None:
    left, top, right, bottom = place
    margin = _MARGIN * min(right - left, bottom - top)
    rows = slice(max(0, int(top - margin)), max(0, int(bottom + margin) + 1))
    columns = slice(max(0, int(left - margin)), max(0, int(right + margin) + 1))
    crop = image[rows, columns]
    if min(crop.shape[:2]) < _MIN_SIDE:
        return None
    crop = np.ascontiguousarray(np.rot90(crop, -turns % 4))
    return crop if crop.shape[1] < _MAX_RATIO * crop.shape[0] else None
