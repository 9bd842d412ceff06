"""Finds the rectangles of a stretch of a page's text, from the stored file.

The extracted text differs from pdfium's text (ligatures, hyphens, the order of columns), so a stretch is found by its
letters and digits only (``text_alignment``). Positions of recognised text are not stored: the page is recognised again,
which takes seconds.
"""

from __future__ import annotations

import ctypes
import re
from collections import defaultdict
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
import pypdfium2.raw as pdfium

from ragsvc.core.errors import ExtractionFailed, FailureReason
from ragsvc.core.file_types import PDF, PICTURES
from ragsvc.core.page_views import PageBoxes, RecognisedLines, ShownBox, TextStretch
from ragsvc.extract.annotation_lines import PlacedText
from ragsvc.extract.clean import clean_line
from ragsvc.extract.page_pictures import no_such_page, type_of
from ragsvc.extract.pdf_annotations import read_annotations
from ragsvc.extract.pdf_document import PdfNotOpened, open_forms, open_pdf
from ragsvc.extract.pdf_layers import may_hide_layers
from ragsvc.extract.pdf_text import PageUnreadable, TextPage, open_text_page, read_lines
from ragsvc.extract.pdfium_calls import PdfiumHandle
from ragsvc.extract.text_alignment import LetterRun, align, letters_of
from ragsvc.extract.turned import Rectangle

_MAX_CHARACTERS = 1_000_000
_DEVICE = 1_000_000
_SAME_ROW = 0.3
_MUCH_LARGER = 2.0
_WIDEST_JUMP = 12
_FULLY = 0.95
_MOSTLY = 0.3
_PICTURE_POINTS = 842.0
_MARKS_BEFORE = re.compile(r"[^\w\s]*", re.UNICODE)
_MARKS_AFTER = re.compile(r"[^\w\s]*$", re.UNICODE)


class QuoteBox(msgspec.Struct, frozen=True):
    """A rectangle in PDF points, origin at the bottom left of the unrotated page."""

    left: float
    top: float
    right: float
    bottom: float


def find_page_boxes(
    path: Path, page_number: int, stretch: TextStretch, *, password: str | None, known: RecognisedLines | None
) -> tuple[PageBoxes, RecognisedLines | None]:
    """The rectangles of a stretch of the text of page ``page_number`` (from 1) as the page is displayed.

    ``known`` are the recognised lines that an earlier call returned; they are returned if they were needed.

    Raises:
        ExtractionFailed: the file cannot be opened, has no such page, or is of a type without pages to draw
            (``unsupported_file``).
    """
    kind = type_of(path)
    if kind in PICTURES:
        return _find_in_picture(path, page_number, stretch, known)
    if kind != PDF:
        raise ExtractionFailed(FailureReason.UNSUPPORTED_FILE, "Files of this type have no pages that can be drawn.")
    with _opened(path, page_number, password) as document:
        found, lines = _locate(document, path, page_number - 1, stretch, known)
        width, height, boxes = _as_displayed(document, page_number - 1, found)
        return PageBoxes(width, height, boxes, recognised=lines is not None), lines


def find_quote_boxes(
    path: Path, page_number: int, start: int, end: int, *, page_text: str, password: str | None = None
) -> list[QuoteBox]:
    """The rectangles, one for each line, of ``page_text[start:end]`` on page ``page_number`` (from 1) of a PDF.

    ``page_text`` is the extracted text of the page. Empty if the page does not contain the stretch (for example because
    only pypdf could read the page).

    Raises:
        ExtractionFailed: the file cannot be opened, or has no such page.
    """
    with _opened(path, page_number, password) as document:
        return _locate(document, path, page_number - 1, TextStretch(page_text, start, end), None)[0]


@contextmanager
def _opened(path: Path, page_number: int, password: str | None) -> Generator[PdfiumHandle]:
    try:
        with open_pdf(path, password) as document:
            if not 1 <= page_number <= len(document):
                raise no_such_page(page_number)
            yield document
    except (PdfNotOpened, PageUnreadable) as error:
        raise ExtractionFailed(FailureReason.DAMAGED, "The page cannot be read by the main parser.") from error


class _Letters(msgspec.Struct, frozen=True):
    """A stretch of a page by letters: those of the page, and the stretch's first and last (exclusive)."""

    text: str
    start: int
    end: int

    @classmethod
    def of(cls, page_text: str, start: int, end: int) -> _Letters:
        before = len(letters_of(page_text[:start]))
        return cls(letters_of(page_text), before, before + len(letters_of(page_text[start:end])))


class _PlacedBox(msgspec.Struct, frozen=True):
    """A rectangle, and the position of its first letter among those of the page. ``alone``: of a field or a note."""

    position: int
    box: QuoteBox
    alone: bool = False


_Placed = list[_PlacedBox]


def _locate(
    document: PdfiumHandle, path: Path, index: int, stretch: TextStretch, known: RecognisedLines | None
) -> tuple[list[QuoteBox], RecognisedLines | None]:
    wanted = _Letters.of(stretch.text, stretch.start, stretch.end)
    if wanted.start == wanted.end:
        return [], None
    layers = may_hide_layers(path)
    forms = open_forms(document)
    with open_text_page(document.raw, index, max_characters=_MAX_CHARACTERS, layers=layers) as page:
        read_lines(page)  # leaves out the hidden characters
        placed, covered = _locate_in_text(document, page, index, stretch, wanted, forms=forms)
        upright = page.turns % 2 == 0
    found = _in_rows(placed, upright=upright)
    least = _FULLY if stretch.recognised else _MOSTLY
    gaps = [gap for gap in _gaps(wanted, covered) if gap[1] - gap[0] > 1 or not covered]
    if sum(end - start for start, end in gaps) <= (1 - least) * (wanted.end - wanted.start):
        return found, None
    lines = known or _recognised_lines(document, index)
    if lines is None or not lines.lines:
        return found, None
    in_picture, upright = _locate_in_lines(document, index, wanted, gaps, lines)
    if not in_picture:
        return found, None
    return [*found, *_in_rows(in_picture, upright=upright)], lines


def _locate_in_text(
    document: PdfiumHandle,
    page: TextPage,
    index: int,
    stretch: TextStretch,
    wanted: _Letters,
    *,
    forms: PdfiumHandle,
) -> tuple[_Placed, list[tuple[int, int]]]:
    """Rectangles from the positions of the file's characters and annotations, and the letters that they cover."""
    skeleton, indexes = _skeleton(page.text)
    annotations = read_annotations(document.raw, page.page, index, forms=forms)
    values = _values(annotations, stretch.text, skeleton) if annotations else []
    placed: _Placed = []
    covered: list[tuple[int, int]] = []
    for begin, stop, box in _segments(values, stretch.start, stretch.end):
        part = _Letters.of(stretch.text, begin, stop)
        if box is not None:
            placed.append(_PlacedBox(part.start, box, alone=True))
            covered.append((part.start, part.end))
            continue
        runs = align(wanted.text, part.start, part.end, skeleton)
        covered += [(run.start, run.start + run.length) for run in runs]
        quote = stretch.text[begin:stop]
        for run in runs:
            before = _MARKS_BEFORE.match(quote)[0] if run is runs[0] else ""  # type: ignore[index]
            after = _MARKS_AFTER.search(quote)[0] if run is runs[-1] else ""  # type: ignore[index]
            for first, last in _spans(page.text, indexes, run, before=before, after=after):
                placed += [_PlacedBox(run.start, QuoteBox(*corners)) for corners in _rectangles(page, first, last)]
    return placed, covered


def _spans(raw: str, indexes: Sequence[int], run: LetterRun, *, before: str, after: str) -> Iterator[tuple[int, int]]:
    """The spans ``[first, last]`` of pdfium's characters of a run, with the marks before and after it.

    A run does not extend over many characters that are no letters: they are hidden.
    """
    places = indexes[run.found : run.found + run.length]
    first = places[0]
    for mark in reversed(before):
        if first > 0 and raw[first - 1] == mark:
            first -= 1
    for place, following in zip(places, [*places[1:], None], strict=True):
        if following is None:
            last = place
            for mark in after:
                if raw[last + 1 : last + 2] == mark:
                    last += 1
            yield first, last
        elif following - place > _WIDEST_JUMP:
            yield first, place
            first = following


def _rectangles(page: TextPage, first: int, last: int) -> Iterator[Rectangle]:
    """Left, top, right and bottom of the rectangles of a run of characters."""
    for number in range(page.rectangles(first, last - first + 1)):
        left, bottom, right, top = page.rectangle(number)
        yield left, top, right, bottom


def _in_rows(placed: _Placed, *, upright: bool) -> list[QuoteBox]:
    """One rectangle for each line and field; ``upright``: lines run across the unrotated page."""
    merged: list[QuoteBox] = []
    may_join = False
    for placed_box in sorted(placed, key=lambda placed_box: placed_box.position):
        box = placed_box.box
        if may_join and not placed_box.alone and _same_row(merged[-1], box, upright=upright):
            other = merged[-1]
            merged[-1] = QuoteBox(
                min(other.left, box.left),
                max(other.top, box.top),
                max(other.right, box.right),
                min(other.bottom, box.bottom),
            )
        else:
            merged.append(box)
        may_join = not placed_box.alone
    return merged


def _same_row(box: QuoteBox, other: QuoteBox, *, upright: bool) -> bool:
    """Whether two rectangles are in one line; beside much larger letters, several lines may be found."""
    across = min(box.right, other.right) - max(box.left, other.left)
    down = min(box.top, other.top) - max(box.bottom, other.bottom)
    heights = box.top - box.bottom, other.top - other.bottom
    widths = box.right - box.left, other.right - other.left
    overlap, gap, sizes = (down, -across, heights) if upright else (across, -down, widths)
    smaller, larger = sorted(sizes)
    if larger > _MUCH_LARGER * smaller and gap > smaller:
        return False
    return overlap > _SAME_ROW * smaller


def _gaps(wanted: _Letters, covered: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """The parts of the stretch that nothing covers."""
    gaps: list[tuple[int, int]] = []
    at = wanted.start
    for start, end in sorted(covered):
        if start > at:
            gaps.append((at, start))
        at = max(at, end)
    return [*gaps, (at, wanted.end)] if at < wanted.end else gaps


def _recognised_lines(document: PdfiumHandle, index: int) -> RecognisedLines | None:
    from ragsvc.extract.ocr_boxes import recognise_again  # noqa: PLC0415 - imports numpy, only if a page needs it

    return recognise_again(document.raw, index)


def _locate_in_lines(
    document: PdfiumHandle, index: int, wanted: _Letters, gaps: Sequence[tuple[int, int]], lines: RecognisedLines
) -> tuple[_Placed, bool]:
    """Rectangles on the unrotated page from its recognised lines, and whether the lines run across it."""
    rectangles = _rectangles_in_lines(wanted, gaps, lines)
    with _loaded(document, index) as page:
        turned = pdfium.FPDFPage_GetRotation(page) % 2 == 1
        placed = [_PlacedBox(start, _from_display(page, rectangle)) for start, rectangle in rectangles]
    return placed, _run_across(lines) != turned


def _rectangles_in_lines(
    wanted: _Letters, gaps: Sequence[tuple[int, int]], lines: RecognisedLines
) -> list[tuple[int, Rectangle]]:
    """Left, top, right and bottom of the parts of a stretch, as fractions of the picture."""
    from ragsvc.extract.ocr_boxes import rectangles_of  # noqa: PLC0415 - imports numpy, only if a page needs it

    text = "".join(line.text for line in lines.lines)
    skeleton, indexes = _skeleton(text)
    return [
        (run.start, rectangle)
        for start, end in gaps
        for run in align(wanted.text, start, end, skeleton)
        for rectangle in rectangles_of(lines, indexes[run.found], indexes[run.found + run.length - 1])
    ]


def _run_across(lines: RecognisedLines) -> bool:
    """Whether the recognised lines run from left to right or back in the picture."""
    across = down = 0.0
    for line in lines.lines:
        across += abs(line.corners[2] - line.corners[0])
        down += abs(line.corners[3] - line.corners[1])
    return across >= down


def _find_in_picture(
    path: Path, page_number: int, stretch: TextStretch, known: RecognisedLines | None
) -> tuple[PageBoxes, RecognisedLines | None]:
    from ragsvc.extract.ocr_boxes import recognise_picture_again  # noqa: PLC0415 - imports Pillow and numpy

    lines = known or recognise_picture_again(path, page_number)
    if lines is None or not lines.columns:
        return PageBoxes(_PICTURE_POINTS, _PICTURE_POINTS, []), None
    wanted = _Letters.of(stretch.text, stretch.start, stretch.end)
    placed = [
        _PlacedBox(start, QuoteBox(left, -top, right, -bottom))
        for start, (left, top, right, bottom) in _rectangles_in_lines(wanted, [(wanted.start, wanted.end)], lines)
    ]
    found = _in_rows(placed, upright=_run_across(lines))
    scale = _PICTURE_POINTS / max(lines.columns, lines.rows)
    boxes = [ShownBox(box.left, -box.top, box.right - box.left, box.top - box.bottom) for box in found]
    return PageBoxes(lines.columns * scale, lines.rows * scale, boxes, recognised=True), lines


def _as_displayed(document: PdfiumHandle, index: int, found: Sequence[QuoteBox]) -> tuple[float, float, list[ShownBox]]:
    """Width and height of the displayed page in points, and the rectangles as fractions of it, cropped to it."""
    boxes: list[ShownBox] = []
    with _loaded(document, index) as page:
        width, height = pdfium.FPDF_GetPageWidthF(page), pdfium.FPDF_GetPageHeightF(page)
        for box in found:
            corners = [_to_display(page, box.left, box.top), _to_display(page, box.right, box.bottom)]
            left, right = sorted(min(1.0, max(0.0, x)) for x, _ in corners)
            top, bottom = sorted(min(1.0, max(0.0, y)) for _, y in corners)
            if left < right and top < bottom:
                boxes.append(ShownBox(left, top, round(right - left, 6), round(bottom - top, 6)))
    return width, height, boxes


@contextmanager
def _loaded(document: PdfiumHandle, index: int) -> Generator[PdfiumHandle]:
    page = pdfium.FPDF_LoadPage(document.raw, index)
    if not page:
        raise PageUnreadable
    try:
        yield page
    finally:
        pdfium.FPDF_ClosePage(page)


def _to_display(page: PdfiumHandle, x: float, y: float) -> tuple[float, float]:
    """A point of the unrotated page as fractions of the displayed page."""
    column, row = ctypes.c_int(), ctypes.c_int()
    pdfium.FPDF_PageToDevice(page, 0, 0, _DEVICE, _DEVICE, 0, x, y, column, row)
    return column.value / _DEVICE, row.value / _DEVICE


def _from_display(page: PdfiumHandle, rectangle: Rectangle) -> QuoteBox:
    """A rectangle of the displayed page (left, top, right, bottom as fractions) on the unrotated page."""
    xs: list[float] = []
    ys: list[float] = []
    left, top, right, bottom = rectangle
    for across, down in ((left, top), (right, bottom)):
        x, y = ctypes.c_double(), ctypes.c_double()
        pdfium.FPDF_DeviceToPage(page, 0, 0, _DEVICE, _DEVICE, 0, round(across * _DEVICE), round(down * _DEVICE), x, y)
        xs.append(x.value)
        ys.append(y.value)
    return QuoteBox(min(xs), max(ys), max(xs), min(ys))


class _Value(msgspec.Struct, frozen=True):
    """The span of a form value, a free text or a note in the text of its page, and its rectangle."""

    start: int
    end: int
    box: QuoteBox


def _values(annotations: Sequence[PlacedText], page_text: str, skeleton: str) -> list[_Value]:
    """Where the page's text contains the annotations. Equal values are assigned from top to bottom.

    A line that the text layer (``skeleton``) contains as a whole contains no value.
    """
    ordered = sorted(annotations, key=lambda placed: (-placed.rectangle[3], placed.rectangle[0]))
    rectangles: defaultdict[str, list[Rectangle]] = defaultdict(list)
    for placed in ordered:
        rectangles[" ".join(placed.text.split())].append(placed.rectangle)
    values: list[_Value] = []
    for wording, places in sorted(rectangles.items(), key=lambda item: -len(item[0])):
        pattern = r"(?<!\w)" + r"\s+".join(map(re.escape, wording.split())) + r"(?!\w)"
        spans = [
            (match.start(), match.end())
            for match in re.finditer(pattern, page_text)
            if not _overlaps(values, *match.span())
            and letters_of(_line_around(page_text, *match.span())) not in skeleton
        ]
        for (start, end), (left, bottom, right, top) in zip(spans, places, strict=False):
            values.append(_Value(start, end, QuoteBox(left, top, right, bottom)))
    return sorted(values, key=lambda value: value.start)


def _overlaps(values: Sequence[_Value], start: int, end: int) -> bool:
    return any(value.start < end and start < value.end for value in values)


def _line_around(text: str, start: int, end: int) -> str:
    following = text.find("\n", end)
    return text[text.rfind("\n", 0, start) + 1 : len(text) if following < 0 else following]


def _segments(values: Sequence[_Value], start: int, end: int) -> Iterator[tuple[int, int, QuoteBox | None]]:
    """Cut a span at the values in it; a value has its box, text between values has none."""
    for value in values:
        if value.end <= start or value.start >= end:
            continue
        if value.start > start:
            yield start, value.start, None
        yield max(start, value.start), min(end, value.end), value.box
        start = value.end
    if start < end:
        yield start, end, None


def _skeleton(raw: str) -> tuple[str, list[int]]:
    """The letters and digits of pdfium's text, each with the index of its character."""
    letters: list[str] = []
    indexes: list[int] = []
    for index, character in enumerate(raw):
        if "\ud800" <= character <= "\udbff":
            kept = letters_of(clean_line(raw[index : index + 2]))
        else:
            kept = character if character.isalnum() and character.isascii() else letters_of(clean_line(character))
        letters.append(kept)
        indexes += [index] * len(kept)
    return "".join(letters), indexes
