"""Reads a page of a PDF with pdfium: all characters at once, and the positions of lines.

Calls for single characters would double the time, so a line has the position of its first and last rectangle, and
only pages that look like interleaved columns are measured completely. Therefore this module uses the raw API of
pypdfium2. Knows nothing of documents (``pdf_document``) and of how lines become text (``layout``, ``columns``).
"""

from __future__ import annotations

import ctypes
import math
import re
from collections import Counter
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain, groupby, islice, pairwise

import msgspec
import pypdfium2.raw as pdfium
from msgspec.structs import replace

from ragsvc.extract.cells import join_cells, join_table_columns, may_be_cell
from ragsvc.extract.clean import SYMBOL_MARKS, clean_line, is_garbled
from ragsvc.extract.code_blocks import mark_code
from ragsvc.extract.columns import FIGURE, alternates, find_gutter, order_blocks, order_columns
from ragsvc.extract.glyph_evidence import has_foreign_letters, is_mostly_unusable, looks_like_codes, mark_unusable
from ragsvc.extract.layout import Line, first_prints, move_headers_and_footers
from ragsvc.extract.line_spans import (
    UNSHOWN,
    Span,
    covers_rows,
    line_spans,
    margin_numbers,
    row_spans,
    trim,
    without_number,
)
from ragsvc.extract.pdfium_calls import DOUBLE, INT, PdfiumHandle, bind, places_of, reference_to
from ragsvc.extract.raised_marks import Glyph, continues_row, find_runs, mark_edits
from ragsvc.extract.right_to_left import has_right_to_left, order_prefixes
from ragsvc.extract.struck_out import struck_out
from ragsvc.extract.turned import FIRST_CJK, Rectangle, join_turned, turned
from ragsvc.extract.visibility import PageVisibility

STRUCK_MARK = "~~"
_FONT_NAME = 64
_GAP_POINTS = 7.0
_JUMP_BACK = 60.0
_CELL_GAP = 1.3
_FEW_RECTANGLES = 8
_DIGITS = re.compile(r"\d")
_NUMBER_AFTER_BLANK = re.compile(r"  *[$€£¥(\d\u2013\u2014]")
"""Begins with a literal character, so that ``re`` skips to it: 3.1 instead of 5.2 µs a line."""

_DOUBLED = re.compile(r"(?:(\S)\1|\s)+")
"""A line of which each character stands twice in succession."""

_SHADOW = 0.2
_WORD_WITH_DIGIT = re.compile(r"(?<![^\s\x00\ufffe\x02])[^\s\x00\ufffe\x02]+(?:\d[a-z]\b|\d)")
_WORD_BEFORE_MARK = re.compile(
    r"(?<![\w.,])(?!(?:19|20)\d\d\b(?![.,]?\d)|\d{1,3}(?:[,.]\d{3})+\b(?![.,]?\d))[^\W_][^\s\x00\ufffe\x02]*\d(?!\w)"
)
_SUSPECTED_MARK = re.compile(r"\d(?!\w)(?:(?<=[^\W\d_]\d)|(?<=[.,]\d{4})|(?<=[.,]\d{5})|(?<=19\d{3})|(?<=20\d{3}))")
_SUSPECTS = 12
_RAISED_RISE, _RAISED_HEIGHT, _RAISED_SIZE = 0.2, 0.56, 0.6
_SMALL_BOX = 0.75
_MARK_CONTEXT = 24
_SAMPLE_STEP = 25
_WORD_GAP = 0.2
_DROP_CAP = 1.8
_DROP_CAP_LINE = re.compile(r"(?:[^\W\d_A-Z]+|[^\W\d_a-z]+)[,;]? \S+ \S+")
_OPENING_QUOTES = "\"'\u201c\u201e\u00ab\u2018"
_LINE_END = "\r\n"
_AFTER_MARK = ("", " ")
_SAMPLES = 10
_FIRST_SAMPLES = 3
_VERTICAL_SAMPLE = 3
_LAYER_SHARE = 0.5


_count_rects = bind("FPDFText_CountRects", INT)
_get_rect = bind("FPDFText_GetRect", INT)
_get_char_box = bind("FPDFText_GetCharBox", INT)
_get_font_size = bind("FPDFText_GetFontSize", DOUBLE)
_get_font_weight = bind("FPDFText_GetFontWeight", INT)
_get_matrix = bind("FPDFText_GetMatrix", INT)
_get_origin = bind("FPDFText_GetCharOrigin", INT)


class PageLines(msgspec.Struct):
    """The lines of a page in reading order; those of a garbled page are glyph numbers, not text.

    ``characters`` is the number of all characters. ``hidden`` is the number of characters that were left out because a
    reader cannot see them. ``layer`` is whether the text is the layer of a scan: the reader sees a picture of it.
    """

    lines: list[Line]
    characters: int
    garbled: bool
    hidden: int = 0
    layer: bool = False


class PageUnreadable(Exception):
    """pdfium cannot load the page."""


class TextPage:
    """The characters of a page. Index ``i`` of ``text`` is character ``i`` of pdfium. ``page`` is the page's handle.

    Characters above U+FFFF are two surrogates in ``text``, as pdfium counts them.
    """

    def __init__(
        self, page: PdfiumHandle, text_page: PdfiumHandle, *, max_characters: int, layers: bool = False
    ) -> None:
        self.page = page
        self._max_characters = max_characters
        self._layers = layers
        self.turns = pdfium.FPDFPage_GetRotation(page)
        self._box = (ctypes.c_double * 4)()
        self._left, self._bottom, self._right, self._top = places_of(self._box)
        self._matrix = (ctypes.c_float * 6)()
        self._matrix_place = ctypes.byref(self._matrix)
        self._use(text_page)

    def _use(self, text_page: PdfiumHandle) -> None:
        self._text_page = text_page
        self._reference = reference_to(text_page)
        self._fonts: dict[int, tuple[float, int, int]] = {}
        self._edits: dict[int, str] = {}
        self._struck: Sequence[Span] = ()
        self._bases: dict[int, int] = {}
        self._slanted: set[int] = set()
        self._has_raised_glyphs: bool | None = None
        self.count = max(0, pdfium.FPDFText_CountChars(text_page))
        self.truncated = self.count > self._max_characters
        self._hidden = False
        self._centres: list[tuple[float, float]] | None = None
        self.text = self._read_text(min(self.count, self._max_characters))
        self.spans = list(line_spans(self.text))
        self.visibility = PageVisibility(self.page, self._text_page, layers=self._layers)
        self.right_to_left = not self.text.isascii() and has_right_to_left(self.text)

    def close(self) -> None:
        pdfium.FPDFText_ClosePage(self._text_page)

    def turn(self, turns: int) -> None:
        """Read the page as if it were displayed with ``turns`` clockwise quarter turns.

        pdfium sorts what starts at one height of the displayed page by its distance from the left edge. If the text
        runs downwards, that reverses the order of the lines.
        """
        self.turns = turns
        rotation = pdfium.FPDFPage_GetRotation(self.page)
        if turns == rotation:
            return
        pdfium.FPDFPage_SetRotation(self.page, turns)
        text_page = pdfium.FPDFText_LoadPage(self.page)
        pdfium.FPDFPage_SetRotation(self.page, rotation)  # the document keeps it: the page is rendered later
        if text_page:
            self.close()
            self._use(text_page)

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
        """The text of an upright line on the left of a position, without hidden characters."""
        if self.turns:
            return None
        left, bottom, right, top = line.left - 1, line.bottom, position, line.top
        if self._hidden:  # pdfium's call returns hidden characters as well
            return "".join(
                character
                for character, (x, y) in zip(self.text, self._middles(), strict=True)
                if left < x < right and bottom < y < top
            )
        count = pdfium.FPDFText_GetBoundedText(self._text_page, left, top, right, bottom, None, 0)
        buffer = (ctypes.c_ushort * (count + 1))()
        pdfium.FPDFText_GetBoundedText(self._text_page, left, top, right, bottom, buffer, count)
        return bytes(buffer)[: 2 * count].decode("utf-16-le", "replace").rstrip("\x00")

    def _middles(self) -> list[tuple[float, float]]:
        """The middle of each character, far away for those without a glyph."""
        if self._centres is None:
            boxes = (None if character in UNSHOWN else self.character_box(i) for i, character in enumerate(self.text))
            self._centres = [
                ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2) if box else (math.inf, math.inf) for box in boxes
            ]
        return self._centres

    def leave_out_hidden(self) -> int:
        """Replace hidden characters of a suspicious page by spaces; returns their number."""
        if not self.visibility.needs_examination:
            return 0
        hidden = self.visibility.hidden(self.text, lambda index: self.font(index)[0])
        if hidden:
            characters = list(self.text)
            for index in hidden:
                characters[index] = " "
            self.text = "".join(characters)
            self._hidden = True
        return len(hidden)

    def rectangles(self, start: int, count: int) -> int:
        """Compute the rectangles of a run of characters, for ``rectangle``; returns their number."""
        return max(0, int(_count_rects(self._reference, start, count)))

    def rectangle(self, index: int) -> Rectangle:
        """A rectangle of the last ``rectangles`` call, on the unrotated page."""
        _get_rect(self._reference, index, self._left, self._top, self._right, self._bottom)
        left, bottom, right, top = self._box
        return (left, bottom, right, top)

    def shown(self, rectangle: Rectangle) -> Rectangle:
        """The rectangle after ``turns`` clockwise quarter turns around the origin: text runs from left to right."""
        return rectangle if self.turns == 0 else turned(rectangle, self.turns)

    def character_box(self, index: int) -> Rectangle | None:
        """A character's box; ``None`` for spaces that pdfium inserted."""
        if not _get_char_box(self._reference, index, self._left, self._right, self._bottom, self._top):
            return None
        left, bottom, right, top = self._box
        return (left, bottom, right, top)

    def runs(self, words: Iterable[Span], *, gap: float, step: float) -> list[tuple[int, int, Rectangle]]:
        """Runs of words without a wider gap than ``gap`` and a higher step than ``step``, with their boxes.

        A box is as high as the run's first character. Two calls of pdfium for a word, one if it is a single character.
        """
        text_page, left, bottom, right, top, box = (
            self._reference, self._left, self._bottom, self._right, self._top, self._box,
        )  # fmt: skip
        found: list[tuple[int, int, Rectangle]] = []
        first = last = -1
        x0 = y0 = x1 = y1 = middle = 0.0
        turns = self.turns
        for start, end in words:
            _get_char_box(text_page, start, left, right, bottom, top)
            x, y, reach, height = self.shown((box[0], box[1], box[2], box[3])) if turns else box
            if end - start > 1:
                _get_char_box(text_page, end - 1, left, right, bottom, top)
                reach = self.shown((box[0], box[1], box[2], box[3]))[2] if turns else box[2]
            if first < 0 or not -2 * gap < x - x1 < gap or abs(y + height - middle) > step:
                if first >= 0:
                    found.append((first, last, (x0, y0, x1, y1)))
                first, x0, y0, y1 = start, x, y, height
            last, x1, middle = end, reach, y + height
        if first >= 0:
            found.append((first, last, (x0, y0, x1, y1)))
        return found

    def baseline(self, index: int) -> float:
        """The height of a character's baseline; as ``shown`` turns it."""
        if not _get_origin(self._reference, index, self._left, self._bottom):
            return 0.0
        if self.turns == 0:
            return self._box[1]
        x, y = self._box[0], self._box[1]
        return self.shown((x, y, x, y))[1]

    def drop_second_prints(self, start: int, end: int) -> None:
        """Leave out each character of a line that is printed over the one before, as for a shadow or a bold face.

        Each line that is printed twice as a whole is found later.
        """
        characters = [index for index in range(start, end) if self.text[index] not in UNSHOWN]
        boxes = [self.character_box(index) for index in characters]
        second = [
            after
            for after, box, over in zip(characters[1::2], boxes[::2], boxes[1::2], strict=False)
            if box is not None and over is not None and _is_over(box, over)
        ]
        if 2 * len(second) == len(characters):
            self._edits.update(dict.fromkeys(second, ""))

    def has_shifted_digit(self, raw: str, start: int) -> bool:
        """Whether a word's last digit (or a letter after it) is above or below its first character.

        Most words are compared with the start of the line only, which takes one call.
        """
        if _DIGITS.search(raw) is None:  # most lines: 2.5 instead of 8.8 µs on average
            return False
        words = _WORD_WITH_DIGIT.finditer(raw)
        first = next(words, None)
        if first is None:
            return False
        text_page, x, y, box, axis = self._reference, self._left, self._bottom, self._box, 1 - self.turns % 2
        _get_origin(text_page, start, x, y)
        usual, limit = box[axis], 0.04 * self.font(start)[0]
        for word in chain((first,), words):
            _get_origin(text_page, start + word.end() - 1, x, y)
            shifted = box[axis]
            if abs(shifted - usual) > limit:
                _get_origin(text_page, start + word.start(), x, y)
                if abs(shifted - box[axis]) > limit:
                    return True
        return False

    def glyphs(self, start: int, end: int) -> list[Glyph]:
        """The visible characters of a span with size and position; none if it does not run from left to right."""
        found: list[Glyph] = []
        if self.font(start)[2] != self.turns or start in self._slanted:
            return found
        for index in range(start, end):
            character = self.text[index]
            if character in UNSHOWN or character.isspace():
                continue
            box = self.character_box(index)
            if "\ud800" <= character <= "\udbff":
                character = clean_line(self.text[index : index + 2])[:1]
            size, _, turns = self.font(index)
            if box is not None and turns == self.turns and character and not "\udc00" <= character <= "\udfff":
                left, bottom, right, top = self.shown(box)
                baseline = self.baseline(index)
                if character.isascii() and _is_raised_glyph(character, bottom - baseline, top - bottom, size):
                    size, baseline = _RAISED_SIZE * size, bottom
                found.append(Glyph(index, character, size, baseline, left, right))
        return found

    def has_raised_glyph(self, raw: str, start: int) -> bool:
        """Whether the last digit of a word is a small raised glyph of the same font (OpenType feature ``sups``).

        Well-formed numbers and years need no look. A few digits that look like marks (``Note2``, ``1,4823``, ``20252``)
        decide whether any line of the page is looked at.
        """
        if self._has_raised_glyphs is None:
            suspects = islice(_SUSPECTED_MARK.finditer(self.text), _SUSPECTS)
            self._has_raised_glyphs = any(self._is_raised(found.start()) for found in suspects)
        if not self._has_raised_glyphs:
            return False
        return any(self._is_raised(start + word.end() - 1) for word in _WORD_BEFORE_MARK.finditer(raw))

    def _is_raised(self, index: int) -> bool:
        box = self.character_box(index)
        if box is None:
            return False
        _, bottom, _, top = self.shown(box)
        return _is_raised_glyph(self.text[index], bottom - self.baseline(index), top - bottom, self.font(index)[0])

    def separate_marks(self, start: int, end: int) -> None:
        """Keep the raised and lowered characters of a span apart in ``edited``."""
        if self._has_one_baseline(start, end):
            return
        runs = find_runs(self.glyphs(start, end))
        self._edits.update(mark_edits(runs))
        base = next((run.glyphs[0].position for run in runs if not run.shift), start)
        self._bases[start] = base

    def _has_one_baseline(self, start: int, end: int) -> bool:
        usual, limit = self.baseline(start), 0.03 * self.font(start)[0]
        return all(
            self.text[index] in UNSHOWN or abs(self.baseline(index) - usual) < limit for index in range(start, end)
        ) and not self.has_raised_glyph(self.text[start:end], start)

    def join_lines(self, end: int, start: int) -> None:
        """Make the text between two parts of a row a space, or nothing where their characters touch."""
        blank = " " in self.text[end:start] or self._has_gap(end - 1, start)
        self._edits.update(dict.fromkeys(range(end, start), ""))
        self._edits[end] = " " if blank else ""

    def _has_gap(self, before: int, after: int) -> bool:
        left, right = self.character_box(before), self.character_box(after)
        if left is None or right is None:
            return True
        size = max(self.font(before)[0], self.font(after)[0])
        return self.shown(right)[0] - self.shown(left)[2] > _WORD_GAP * size

    def offset(self, index: int) -> float:
        """The position of a character in the direction of the text."""
        if not _get_origin(self._reference, index, self._left, self._bottom):
            return 0.0
        x, y = self._box[0], self._box[1]
        return x if self.turns == 0 else self.shown((x, y, x, y))[0]

    def first_of_base(self, start: int) -> int:
        """The first character of a line that is not a mark."""
        return self._bases.get(start, start)

    def edited(self, start: int, end: int) -> str:
        """The text of a span, with marks kept apart."""
        raw = self.text[start:end]
        if not self._edits and not self._struck:
            return raw
        edits = self._edits
        parts = [edits.get(index, character) for index, character in enumerate(raw, start=start)]
        for first, last in self._struck:
            if first < end and last > start:
                parts[max(first, start) - start] = f"{STRUCK_MARK}{parts[max(first, start) - start]}"
                parts[min(last, end) - start - 1] += STRUCK_MARK
        return "".join(parts)

    def read_symbol(self, index: int) -> None:
        """Make a letter in a symbol font without a map to Unicode, such as Wingdings, the list mark that it draws."""
        name, flags = ctypes.create_string_buffer(_FONT_NAME), ctypes.c_int()
        pdfium.FPDFText_GetFontInfo(self._text_page, index, name, _FONT_NAME, flags)
        if b"wingdings" in name.value.lower():
            self._edits[index] = SYMBOL_MARKS[self.text[index]]

    def mark_struck(self, spans: Sequence[Span]) -> None:
        """Mark characters as struck out in ``edited``."""
        self._struck = spans

    def font(self, index: int) -> tuple[float, int, int]:
        """A character's font size (in points, as scaled on the page), stroke weight, and text direction.

        The direction is the number of clockwise quarter turns that make the text run from left to right.
        """
        known = self._fonts.get(index)
        if known is not None:
            return known
        size, turns = _get_font_size(self._reference, index), self.turns
        if _get_matrix(self._reference, index, self._matrix_place):
            a, b, c, d = self._matrix[:4]
            size *= (c * c + d * d) ** 0.5
            turns = (0 if a >= 0 else 2) if abs(a) >= abs(b) else (1 if b > 0 else 3)
            if 0.05 * max(abs(a), abs(b)) < min(abs(a), abs(b)):
                self._slanted.add(index)
        font = (size, _get_font_weight(self._reference, index), turns)
        self._fonts[index] = font
        return font


def _has_surrogates(text: str) -> bool:
    try:
        text.encode("utf-16-le")
    except UnicodeEncodeError:
        return True
    return not text.isascii() and max(text) > "\uffff"


@contextmanager
def open_text_page(
    document: PdfiumHandle,
    index: int,
    *,
    max_characters: int,
    layers: bool = False,
) -> Generator[TextPage]:
    """Open page ``index`` (from 0) of a pdfium document handle; ``layers`` if parts of the pages may be switched off.

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
        reader = TextPage(page, text_page, max_characters=max_characters, layers=layers)
        try:
            reader.turn(_main_direction(reader))
            yield reader
        finally:
            reader.close()
    finally:
        pdfium.FPDF_ClosePage(page)


def read_lines(page: TextPage) -> PageLines:
    spans, lines = _measured_lines(page)
    page.visibility.check_covers()
    hidden = page.leave_out_hidden()
    if hidden:
        page.spans = list(line_spans(page.text))
        spans, lines = _measured_lines(page)
    if struck := struck_out(page, spans, lines):
        page.mark_struck(struck)
        touched = [any(first < end and last > start for first, last in struck) for start, end in spans]
        lines = [
            _measure(page, *span) if again else line for span, line, again in zip(spans, lines, touched, strict=True)
        ]
    garbled = (
        is_mostly_unusable(page.text)
        or looks_like_codes(page.text)
        or is_garbled(page.text)
        or has_foreign_letters(page.text)
    )
    spans, lines = _join_rows(page, spans, lines)
    if _looks_interleaved(page, spans, lines):
        fragments = [fragment for start, end in spans for fragment in _fragments(page, start, end)]
        ordered = order_columns(fragments)
        blocks = order_blocks(fragments) if ordered == fragments else ordered
    else:
        blocks = _order_rows(page, spans, lines)
    lines = _join_fragments(page, spans, lines) if blocks is None else join_cells(blocks)
    lines = join_table_columns([line for line in lines if line.text])
    mark_code(page, lines)
    layer = page.visibility.layer_share > _LAYER_SHARE
    return PageLines(move_headers_and_footers(lines), page.count, garbled=garbled, hidden=hidden, layer=layer)


def _measured_lines(page: TextPage) -> tuple[list[Span], list[Line]]:
    """The lines of the page as the file stores them, without line numbers and second prints."""
    spans = page.spans
    lines = [_measure(page, start, end) for start, end in spans]
    if any(covers_rows(line) for line in lines):
        spans = [
            row
            for span, line in zip(spans, lines, strict=True)
            for row in (row_spans(page, *span) if covers_rows(line) else (span,))
        ]
        lines = [_measure(page, start, end) for start, end in spans]
    if numbers := {number.index: number for number in margin_numbers(page, spans, lines)}:
        spans = [
            without_number(page.text, span, numbers[index]) if index in numbers else span
            for index, span in enumerate(spans)
            if index not in numbers or numbers[index].text
        ]
        lines = [_measure(page, start, end) for start, end in spans]
    if len({line.text for line in lines}) < len(lines):
        printed_once = first_prints(lines)
        spans, lines = [spans[number] for number in printed_once], [lines[number] for number in printed_once]
    return spans, lines


def _order_rows(page: TextPage, spans: list[Span], lines: list[Line]) -> list[Line] | None:
    """Order blocks of rows that read like prose; ``None`` if the page has none."""
    wide: set[int] = set()
    for row, run in groupby(range(len(lines)), key=lambda number: lines[number].row):
        numbers = list(run)
        if row and _may_be_columns([lines[number].text for number in numbers]):
            wide.update(numbers)
    if not wide:
        return None
    return order_blocks(
        [
            fragment
            for number, (line, span) in enumerate(zip(lines, spans, strict=True))
            for fragment in (_fragments(page, *span) if number in wide else (line,))
        ]
    )


def _may_be_columns(rows: list[str]) -> bool:
    """Whether rows can be lines of columns of prose: few digits, and many rows begin inside a sentence."""
    text = "".join(rows)
    begins = [row for row in rows[1:] if not row[0].isdigit()]
    inside = sum(row[0].isalpha() and not row[0].isupper() for row in begins)
    return inside >= max(1, 0.4 * len(begins)) and _has_few_figures(text)


def _join_fragments(page: TextPage, spans: list[Span], lines: list[Line]) -> list[Line]:
    """Join turned lines to blocks, and cells to rows."""
    shown = [(span, line) for span, line in zip(spans, lines, strict=True) if line.text]
    if not any(line.upright or may_be_cell(line) for _, line in shown):
        return lines
    turns = [(_direction(page, *span) - page.turns) % 4 for span, _ in shown]
    return join_cells(join_turned([line for _, line in shown], turns))


def _main_direction(page: TextPage) -> int:
    """The direction of most of the text: pages can be rotated, tables on them as well, and text can be vertical."""
    characters = Counter[int]()
    for start, end in page.spans:
        characters[_direction(page, start, end)] += end - start
    return characters.most_common(1)[0][0] if characters else page.turns


def _direction(page: TextPage, start: int, end: int) -> int:
    """The clockwise quarter turns that make a line run from left to right, also of vertical Chinese and Japanese."""
    turns = page.font(start)[2]
    if page.text[start] < FIRST_CJK or end - start < _VERTICAL_SAMPLE:
        return turns
    boxes = [page.character_box(index) for index in (start, start + 1, end - 1)]
    first, second, last = (box and turned(box, turns) for box in boxes)
    if not first or not second or not last:
        return turns
    down = first[3] > second[3] > last[3] and max(first[1], second[1]) > last[3]
    return (turns + 3) % 4 if down and last[0] < first[2] and last[2] > first[0] else turns


def _measure(page: TextPage, start: int, end: int) -> Line:
    raw = page.text[start:end]
    count = page.rectangles(start, end - start)
    if not count:
        return Line(clean_line(raw), 0.0, 0.0, 0.0, 0.0, spans=((start, end),))
    few = count <= _FEW_RECTANGLES
    rectangles = [page.rectangle(index) for index in (range(count) if few else (0, count - 1))]
    boxes = [page.shown(rectangle) for rectangle in rectangles] if page.turns else rectangles
    if (_has_small_neighbour(boxes) if few else page.has_shifted_digit(raw, start)) or page.has_raised_glyph(
        raw, start
    ):
        page.separate_marks(start, end)
    if raw[0] in SYMBOL_MARKS and raw[1:2] in _AFTER_MARK:
        page.read_symbol(start)
    if raw[0] == raw[1:2] and _DOUBLED.fullmatch(raw):
        page.drop_second_prints(start, end)
    text = clean_line(page.edited(start, end))
    if page.right_to_left:
        text = order_prefixes(text)
    size, weight, turns = page.font(page.first_of_base(start))
    if raw[0] >= FIRST_CJK:
        turns = _direction(page, start, end)
    if not page.visibility.suspicious:
        page.visibility.check_boxes(rectangles)
        positions = (start,) if count == 1 else (*range(start, end, _SAMPLE_STEP if few else 2 * _SAMPLE_STEP), end - 1)
        page.visibility.sample((start, end), positions, size)
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
        spans=((start, end),),
    )


def _is_over(box: Rectangle, other: Rectangle) -> bool:
    """Whether a character is printed over another one, moved by less than a fifth of its height."""
    limit = _SHADOW * (box[3] - box[1])
    return abs(other[0] - box[0]) < limit and abs(other[1] - box[1]) < limit


def _is_raised_glyph(character: str, rise: float, height: float, size: float) -> bool:
    return character.isalnum() and rise > _RAISED_RISE * size and height < _RAISED_HEIGHT * size


def _has_small_neighbour(boxes: list[Rectangle]) -> bool:
    """Whether touching boxes differ in height or position: perhaps a mark beside a word."""
    for before, after in pairwise(boxes):
        height = max(_height(before), _height(after))
        if abs(after[0] - before[2]) < 0.25 * height and (
            min(_height(before), _height(after)) < _SMALL_BOX * height or abs(after[1] - before[1]) > 0.2 * height
        ):
            return True
    return False


def _height(box: Rectangle) -> float:
    return box[3] - box[1]


def _join_rows(
    page: TextPage, spans: list[tuple[int, int]], lines: list[Line]
) -> tuple[list[tuple[int, int]], list[Line]]:
    """Join the parts of rows that pdfium broke at a raised or lowered mark."""
    joined: list[tuple[int, int]] = []
    found: list[Line] = []
    for (start, end), line in zip(spans, lines, strict=True):
        if found and _may_continue_row(found[-1], line):
            first, stop = joined[-1]
            before = page.glyphs(max(first, stop - _MARK_CONTEXT), stop)
            if continues_row(before, page.glyphs(start, min(end, start + _MARK_CONTEXT))):
                page.join_lines(stop, start)
                page.separate_marks(first, end)
                joined[-1], found[-1] = (first, end), _measure(page, first, end)
                continue
        if found and _is_drop_cap(found[-1], line):
            gap = "" if page.text[start - 1] in _LINE_END else " "
            found[-1] = replace(line, text=f"{found[-1].text}{gap}{line.text}")
            joined[-1] = (start, end)
            continue
        joined.append((start, end))
        found.append(line)
    return joined, found


def _is_drop_cap(initial: Line, line: Line) -> bool:
    """Whether a large initial of several lines' height begins the first word of a line."""
    size = line.size
    return (
        initial.size > _DROP_CAP * size > 0
        and initial.text.lstrip(_OPENING_QUOTES).isalpha()
        and len(initial.text.lstrip(_OPENING_QUOTES)) == 1
        and _DROP_CAP_LINE.match(line.text) is not None
        and -0.5 * size < line.left - initial.right < size
        and initial.bottom < line.bottom
        and abs(initial.top - line.top) < size
    )


def _may_continue_row(line: Line, following: Line) -> bool:
    size = max(line.size, following.size)
    return (
        -0.5 * size < following.left - line.right < 0.8 * size
        and min(line.top, following.top) > max(line.bottom, following.bottom) - 0.2 * size
    )


def _has_wide_gap(boxes: list[Rectangle], size: float) -> bool:
    return any(
        after[0] - before[2] > _CELL_GAP * size and abs(after[1] - before[1]) < size
        for before, after in pairwise(boxes)
    )


def _has_far_number(page: TextPage, raw: str, start: int, size: float) -> bool:
    """Whether a wide gap precedes the last number, as in a table row."""
    before_blank = end = -1
    for found in _NUMBER_AFTER_BLANK.finditer(raw):
        # a sign that belongs to the last number is not the text before the next
        if found.start() > end and not raw[found.start() - 1 : found.start()].isspace():
            before_blank, end = found.start() - 1, found.end()
    if end < 0:
        return False
    before, after = page.character_box(start + before_blank), page.character_box(start + end - 1)
    return bool(before and after and page.shown(after)[0] - page.shown(before)[2] > _CELL_GAP * size)


def _looks_interleaved(page: TextPage, spans: list[Span], lines: list[Line]) -> bool:
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
    return text.count(" ") >= 6 and _has_few_figures(text)


def _has_few_figures(text: str) -> bool:
    return 12 * len(_DIGITS.findall(text)) <= len(text) or 20 * len(FIGURE.findall(text)) <= len(text)


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
        if page.text[index] in UNSHOWN:
            continue
        box = page.character_box(index)
        if box is None:
            continue
        box = page.shown(box)
        if previous is not None and (
            box[0] - previous[2] > _GAP_POINTS or box[3] < previous[1] - 2 or previous[0] - box[0] > _JUMP_BACK
        ):
            if page.text[index - 1] in "\ufffe\x02":  # the next line of a hyphenated word
                previous = box
                continue
            yield _measure(page, first, trim(page.text, first, index))
            first = index
        previous = box
    yield _measure(page, first, end)
