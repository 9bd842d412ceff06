"""Reads a page of a PDF with pdfium: all characters at once, and the positions of lines.

Calls for single characters would double the time, so a line has the position of its first and last rectangle, and
only pages that look like interleaved columns are measured completely. Therefore this module uses the raw API of
pypdfium2. Knows nothing of documents (``pdf_document``) and of how lines become text (``layout``, ``columns``).
"""

from __future__ import annotations

import ctypes
import re
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import msgspec
import pypdfium2.raw as pdfium

from ragsvc.extract.clean import clean_line, is_garbled
from ragsvc.extract.columns import alternates, find_gutter, order_columns
from ragsvc.extract.glyph_evidence import is_mostly_unusable, looks_like_codes, mark_unusable
from ragsvc.extract.layout import Line, move_headers_and_footers

_GAP_POINTS = 7.0
_CELL_GAP = 1.3
_FEW_RECTANGLES = 8
_DIGITS = re.compile(r"\d")
_NUMBER_AFTER_BLANK = re.compile(r"\S +[$€£¥(\d\u2013\u2014]")
_SAMPLES = 10
_FIRST_SAMPLES = 3
_UNSHOWN = frozenset("\r\n\x00\ufffe\x02 ")

Rectangle = tuple[float, float, float, float]
"""left, bottom, right, top in points."""


def _bind(name: str, result: Any, *arguments: Any) -> Callable[..., Any]:  # noqa: ANN401 - ctypes types
    """Bind a pdfium function to plain addresses: pypdfium2's prototypes check each pointer and take twice the time."""
    address = ctypes.cast(getattr(pdfium, name), ctypes.c_void_p).value
    return ctypes.CFUNCTYPE(result, *arguments)(address or 0)


_page, _int, _out = ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p
_count_rects = _bind("FPDFText_CountRects", _int, _page, _int, _int)
_get_rect = _bind("FPDFText_GetRect", _int, _page, _int, _out, _out, _out, _out)
_get_char_box = _bind("FPDFText_GetCharBox", _int, _page, _int, _out, _out, _out, _out)
_get_font_size = _bind("FPDFText_GetFontSize", ctypes.c_double, _page, _int)
_get_font_weight = _bind("FPDFText_GetFontWeight", _int, _page, _int)
_get_matrix = _bind("FPDFText_GetMatrix", _int, _page, _int, _out)


class PageLines(msgspec.Struct):
    """The lines of a page in reading order; those of a garbled page are glyph numbers, not text.

    ``characters`` is the number of all characters.
    """

    lines: list[Line]
    characters: int
    garbled: bool


class PageUnreadable(Exception):
    """pdfium cannot load the page."""


class TextPage:
    """The characters of a page. Index ``i`` of ``text`` is character ``i`` of pdfium. ``page`` is the page's handle."""

    def __init__(self, page: Any, text_page: Any, *, max_characters: int) -> None:  # noqa: ANN401 - ctypes handles
        self.page = page
        self._text_page = text_page
        self.count = max(0, pdfium.FPDFText_CountChars(text_page))
        self.truncated = self.count > max_characters
        self.text = self._read_text(min(self.count, max_characters))
        self.turns = pdfium.FPDFPage_GetRotation(page)
        self._address = ctypes.cast(text_page, ctypes.c_void_p).value
        self._box = (ctypes.c_double * 4)()
        left = ctypes.addressof(self._box)
        self._left, self._bottom, self._right, self._top = left, left + 8, left + 16, left + 24
        self._matrix = (ctypes.c_float * 6)()
        self._matrix_address = ctypes.addressof(self._matrix)
        self._fonts: dict[int, tuple[float, int, int]] = {}

    def _read_text(self, count: int) -> str:
        if count == 0:
            return ""
        buffer = (ctypes.c_ushort * (count + 1))()
        written = pdfium.FPDFText_GetText(self._text_page, 0, count, buffer)
        raw = bytes(buffer)[: 2 * max(0, written - 1)].decode("utf-16-le", "surrogatepass")
        if len(raw) == count and not _has_surrogates(raw):
            return mark_unusable(raw, self._unmapped(raw))
        # the call omits some characters and those beyond 16 bits: read each, so that the indexes stay those of pdfium
        codes = [pdfium.FPDFText_GetUnicode(self._text_page, index) for index in range(count)]
        raw = "".join(chr(code) if 0 < code < 0x110000 else "\x00" for code in codes)
        return mark_unusable(raw, [index for index, code in enumerate(codes) if code == 0])

    def _unmapped(self, raw: str) -> list[int]:
        """The glyphs without a character: pdfium's call for all characters returns U+FFFE for them and for hyphens."""
        found: list[int] = []
        index = raw.find("\ufffe")
        while index >= 0:
            if pdfium.FPDFText_GetUnicode(self._text_page, index) == 0:
                found.append(index)
            index = raw.find("\ufffe", index + 1)
        return found

    def text_before(self, line: Line, position: float) -> str | None:
        """The text of an upright line on the left of a position."""
        if self.turns:
            return None
        bounds = (line.left - 1, line.top, position, line.bottom)
        count = pdfium.FPDFText_GetBoundedText(self._text_page, *bounds, None, 0)
        buffer = (ctypes.c_ushort * (count + 1))()
        pdfium.FPDFText_GetBoundedText(self._text_page, *bounds, buffer, count)
        return bytes(buffer)[: 2 * count].decode("utf-16-le", "replace").rstrip("\x00")

    def rectangles(self, start: int, count: int) -> int:
        """Compute the rectangles of a run of characters, for ``rectangle``; returns their number."""
        return max(0, int(_count_rects(self._address, start, count)))

    def rectangle(self, index: int) -> Rectangle:
        """A rectangle of the last ``rectangles`` call, on the unrotated page."""
        _get_rect(self._address, index, self._left, self._top, self._right, self._bottom)
        left, bottom, right, top = self._box
        return (left, bottom, right, top)

    def shown(self, rectangle: Rectangle) -> Rectangle:
        """The rectangle after ``turns`` clockwise quarter turns around the origin: text runs from left to right."""
        if self.turns == 0:
            return rectangle
        x0, y0, x1, y1 = rectangle
        match self.turns:
            case 1:
                return (y0, -x1, y1, -x0)
            case 2:
                return (-x1, -y1, -x0, -y0)
            case 3:
                return (-y1, x0, -y0, x1)
            case _:
                return rectangle

    def character_box(self, index: int) -> Rectangle | None:
        """A character's box; ``None`` for spaces that pdfium inserted."""
        if not _get_char_box(self._address, index, self._left, self._right, self._bottom, self._top):
            return None
        left, bottom, right, top = self._box
        return (left, bottom, right, top)

    def font(self, index: int) -> tuple[float, int, int]:
        """A character's font size (in points, as scaled on the page), stroke weight, and text direction.

        The direction is the number of clockwise quarter turns that make the text run from left to right.
        """
        known = self._fonts.get(index)
        if known is not None:
            return known
        size, turns = _get_font_size(self._address, index), self.turns
        if _get_matrix(self._address, index, self._matrix_address):
            a, b, c, d = self._matrix[:4]
            size *= (c * c + d * d) ** 0.5
            turns = (0 if a >= 0 else 2) if abs(a) >= abs(b) else (1 if b > 0 else 3)
        font = (size, _get_font_weight(self._address, index), turns)
        self._fonts[index] = font
        return font


def _has_surrogates(text: str) -> bool:
    try:
        text.encode("utf-16-le")
    except UnicodeEncodeError:
        return True
    return not text.isascii() and max(text) > "\uffff"


@contextmanager
def open_text_page(document: Any, index: int, *, max_characters: int) -> Generator[TextPage]:  # noqa: ANN401 - ctypes handle
    """Open page ``index`` (from 0) of a pdfium document handle.

    Raises:
        PageUnreadable: pdfium cannot load the page.
    """
    page = pdfium.FPDF_LoadPage(document, index)
    if not page:
        raise PageUnreadable
    try:
        text_page = pdfium.FPDFText_LoadPage(page)
        if not text_page:
            raise PageUnreadable
        try:
            yield TextPage(page, text_page, max_characters=max_characters)
        finally:
            pdfium.FPDFText_ClosePage(text_page)
    finally:
        pdfium.FPDF_ClosePage(page)


def read_lines(page: TextPage) -> PageLines:
    garbled = is_mostly_unusable(page.text) or looks_like_codes(page.text) or is_garbled(page.text)
    spans = list(_line_spans(page.text))
    page.turns = _main_direction(page, spans)
    lines = [_measure(page, start, end) for start, end in spans]
    if _looks_interleaved(page, spans, lines):
        fragments = [fragment for start, end in spans for fragment in _fragments(page, start, end)]
        ordered = order_columns(fragments)
        if ordered != fragments:
            lines = ordered
    return PageLines(move_headers_and_footers([line for line in lines if line.text]), page.count, garbled=garbled)


def _line_spans(text: str) -> Iterator[tuple[int, int]]:
    """The spans of pdfium's lines, without leading and trailing white space."""
    position = 0
    for raw in text.split("\r\n"):
        stripped = raw.strip()
        if stripped:
            start = position + raw.index(stripped[0])
            yield start, start + len(stripped)
        position += len(raw) + 2


def _main_direction(page: TextPage, spans: list[tuple[int, int]]) -> int:
    """The direction of most of the text: pages can be rotated, and tables on them as well."""
    characters = Counter[int]()
    for start, end in spans:
        characters[page.font(start)[2]] += end - start
    return characters.most_common(1)[0][0] if characters else page.turns


def _measure(page: TextPage, start: int, end: int) -> Line:
    raw = page.text[start:end]
    text = clean_line(raw)
    count = page.rectangles(start, end - start)
    if not count:
        return Line(text, 0.0, 0.0, 0.0, 0.0)
    size, weight, turns = page.font(start)
    few = count <= _FEW_RECTANGLES
    boxes = [page.shown(page.rectangle(index)) for index in (range(count) if few else (0, count - 1))]
    first, last = boxes[0], boxes[-1]
    one_line = abs(first[1] - last[1]) < 0.5 * size
    return Line(
        text,
        first[0],
        max(first[2], last[2]) if one_line else last[2],
        min(first[1], last[1]),
        max(first[3], last[3]),
        round(size, 1),
        weight,
        row=_has_wide_gap(boxes, size) if few else one_line and _has_far_number(page, raw, start, size),
        upright=turns != page.turns,
    )


def _has_wide_gap(boxes: list[Rectangle], size: float) -> bool:
    return any(
        after[0] - before[2] > _CELL_GAP * size and abs(after[1] - before[1]) < size
        for before, after in pairwise(boxes)
    )


def _has_far_number(page: TextPage, raw: str, start: int, size: float) -> bool:
    """Whether a wide gap precedes the last number, as in a table row."""
    last = None
    for last in _NUMBER_AFTER_BLANK.finditer(raw):  # noqa: B007 - only the last match is used
        pass
    if last is None:
        return False
    before, after = page.character_box(start + last.start()), page.character_box(start + last.end() - 1)
    return bool(before and after and page.shown(after)[0] - page.shown(before)[2] > _CELL_GAP * size)


def _looks_interleaved(page: TextPage, spans: list[tuple[int, int]], lines: list[Line]) -> bool:
    """Whether rows may cross columns, estimated from a few measurements; a false positive only costs time."""
    if not lines:
        return False
    gutter = find_gutter(lines)
    if gutter is not None:
        return alternates(lines, gutter)
    long_spans = [span for span in spans if span[1] - span[0] > 40]
    left, right = min(line.left for line in lines), max(line.right for line in lines)
    middle = (left + 0.25 * (right - left), left + 0.75 * (right - left))
    measured = found = 0
    for start, end in long_spans[:: max(1, len(long_spans) // (2 * _SAMPLES))]:
        if not _reads_like_prose(page.text[start:end]):
            continue
        found += _has_gap(page, start, end, middle)
        measured += 1
        if measured == _SAMPLES or (measured == _FIRST_SAMPLES and not found):
            break
    return found >= max(_FIRST_SAMPLES, 0.5 * measured)


def _reads_like_prose(text: str) -> bool:
    return text.count(" ") >= 6 and 12 * len(_DIGITS.findall(text)) <= len(text)


def _has_gap(page: TextPage, start: int, end: int, middle: tuple[float, float]) -> bool:
    """Whether a line has a wide gap in the middle of the page, looking at its spaces only."""
    text = page.text
    margin = (end - start) // 4
    position = start + margin
    while (position := text.find(" ", position, end - margin)) >= 0:
        before, after = page.character_box(position - 1), page.character_box(position + 1)
        if before and after:
            reach, left = page.shown(before)[2], page.shown(after)[0]
            if left - reach > _GAP_POINTS and middle[0] < (left + reach) / 2 < middle[1]:
                return True
        position += 1
    return False


def _fragments(page: TextPage, start: int, end: int) -> Iterator[Line]:
    """Split a line at wide gaps, measuring every character."""
    first = start
    previous: Rectangle | None = None
    for index in range(start, end):
        if page.text[index] in _UNSHOWN:
            continue
        box = page.character_box(index)
        if box is None:
            continue
        box = page.shown(box)
        if previous is not None and (box[0] - previous[2] > _GAP_POINTS or box[3] < previous[1] - 2):
            if page.text[index - 1] in "\ufffe\x02":  # the next line of a hyphenated word
                previous = box
                continue
            yield _measure(page, first, _trim(page.text, first, index))
            first = index
        previous = box
    yield _measure(page, first, end)


def _trim(text: str, start: int, end: int) -> int:
    while end > start and text[end - 1] in _UNSHOWN:
        end -= 1
    return end
