"""Finds the characters of a page that a reader cannot see, although they are in the file's text.

Hidden are: text outside the crop box, text of a size that nobody can read, text in the invisible mode without a
picture below (with a picture it is the text layer of a scan), text in the colour of its background, text below an
opaque shape, and text of layers that are switched off. The first three are found by their properties. For the others
the page is rendered with and without the text: characters that change no pixel are hidden. This takes 40 ms a page,
so it is done only if one of a few samples per line is suspicious (0.3 ms a page). Light text is common (headings on
coloured bars): if nothing else is suspicious, only the light text is examined (10 ms a page).
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

import msgspec
import pypdfium2.raw as pdfium

from ragsvc.extract.page_shapes import Area, Colour, PageObjects, PageShapes
from ragsvc.extract.pdfium_calls import HANDLE, INT, PdfiumHandle, bind, places_of, reference_to

if TYPE_CHECKING:
    from ragsvc.extract.page_image import PixelMask

_MIN_SIZE = 1.5
_FEW_FLAT = 4
_LIGHT = 200
_FAINT = 60
_FAINT_SHARE = 0.3
_MARGIN = 1.0
_ONE_COLOUR = 30
_RED = 60
_MAX_OBJECTS = 20_000
_MAX_OBJECTS_OF_FORM = 100
_MIN_COVER = 3.0
_INVISIBLE, _CLIP = 3, 7
_SCALE = 1.5
_MAX_PIXELS = 4_000_000
_MIN_CHANGE = 12
_SCAN_SHARE = 0.5
_MAX_SIDE = 20_000
_MAX_GROUPS = 6
_CELL = 8.0
_OVERLAP = 0.03
_MIN_PAGE = 18.0
_NO_LIMITS = (float("-inf"), float("-inf"), float("inf"), float("inf"))

_get_text_object = bind("FPDFText_GetTextObject", HANDLE)
_get_render_mode = bind("FPDFTextObj_GetTextRenderMode", INT, of_object=True)
_get_text_colour = bind("FPDFText_GetFillColor", INT)
_get_char_box = bind("FPDFText_GetCharBox", INT)
_set_is_active = bind("FPDFPageObj_SetIsActive", INT, of_object=True)

Box = tuple[float, float, float, float]
"""left, bottom, right, top in points of the unrotated page."""
_UNKNOWN_START: tuple[int | None, Colour] = (None, (0, 0, 0))


class _NotRendered(Exception):
    """The page cannot be rendered: what the rendering would show is not known."""


class _Character(msgspec.Struct):
    position: int
    owner: int
    line: int
    box: Box


class PageVisibility:
    """Collects suspicions while a page is read, and examines the page if there are any."""

    def __init__(self, page: PdfiumHandle, text_page: PdfiumHandle, *, layers: bool) -> None:
        self._page = page
        self._text_page = text_page
        self._text_reference = reference_to(text_page)
        self.suspicious = layers
        self._faint_spans: list[tuple[int, int]] = []
        self._layers = layers
        self._last: int | None = None
        self._last_is_faint = False
        self._last_colour = (0, 0, 0)
        self._colour = (ctypes.c_uint * 4)()
        self._colour_places = places_of(self._colour)
        self._box = (ctypes.c_double * 4)()
        self._sides = places_of(self._box)
        self._crop = self._crop_box()
        left, bottom, right, top = self._crop
        self._limits = (left - _MARGIN, bottom - _MARGIN, right + _MARGIN, top + _MARGIN)
        self._lines: list[Box] = []
        self._starts: list[tuple[int | None, Colour]] = []
        """The text object and the colour at the start of each line, for the lines that were sampled."""
        self.red = False
        """Whether a sampled character is red, as in tracked changes."""
        self._objects: PageObjects | None = None
        self._shapes: PageShapes | None = None
        self.layer_share = 0.0
        """The share of the visible characters that are the text layer of a scan: a picture shows them. 0 to 1."""

    def _crop_box(self) -> Box:
        box = pdfium.FS_RECTF()
        if not pdfium.FPDF_GetPageBoundingBox(self._page, box):
            return _NO_LIMITS
        if (
            min(box.right - box.left, box.top - box.bottom) < _MIN_PAGE
        ):  # a wrong box: nothing can be read on such a page
            return _NO_LIMITS
        return (box.left, box.bottom, box.right, box.top)

    def check_boxes(self, boxes: Sequence[Box]) -> None:
        """Keep the boxes of a line, and note whether they reach beyond the crop box."""
        left, bottom, right, top = self._limits
        first_x, first_y, last_x, first_top = boxes[0]
        for x0, y0, x1, y1 in boxes:
            if x0 < left or y0 < bottom or x1 > right or y1 > top:
                self.suspicious = True
            first_x, last_x = x0 if x0 < first_x else first_x, x1 if x1 > last_x else last_x
        self._lines.append((first_x, first_y, last_x, first_top))

    def sample(self, span: tuple[int, int], positions: Iterable[int], size: float) -> None:
        """Note whether some characters of a line, at ``span`` of the text, are tiny, invisible or as light as paper."""
        if self.suspicious:
            return
        if size < _MIN_SIZE:
            self.suspicious = True
        is_faint = False
        first: tuple[int | None, Colour] | None = None
        owner_of, text_page = _get_text_object, self._text_reference
        colour, places = self._colour, self._colour_places
        for position in positions:
            owner = owner_of(text_page, position)
            if owner is None:
                first = first or _UNKNOWN_START
                continue
            if owner != self._last:
                self._last = owner
                if _get_render_mode(owner) in (_INVISIBLE, _CLIP):
                    self.suspicious = True
                    return
                known = _get_text_colour(text_page, position, *places)
                red, green, blue, alpha = colour
                self._last_is_faint = bool(known) and _are_faint(red, green, blue, alpha)
                self._last_colour = (red, green, blue)
                if red > green + _RED and red > blue + _RED:
                    self.red = True
            if first is None:
                first = (owner, self._last_colour)
            is_faint = is_faint or self._last_is_faint
        self._starts.append(first or _UNKNOWN_START)
        if is_faint:
            self._faint_spans.append(span)

    @property
    def needs_examination(self) -> bool:
        return self.suspicious or bool(self._faint_spans)

    def _is_faint(self, position: int) -> bool:
        known = _get_text_colour(self._text_reference, position, *self._colour_places)
        return bool(known) and _are_faint(*self._colour)

    @property
    def objects(self) -> PageObjects:
        if self._objects is None:
            self._objects = PageObjects(self._page)
        return self._objects

    @property
    def shapes(self) -> PageShapes:
        """The shapes of the page. Of a page with red text all, because deletions are often red and struck out."""
        if self._shapes is None:
            self._shapes = self.objects.shapes(thorough=self.red)
        return self._shapes

    def check_covers(self) -> None:
        """Note whether a shape of the page is above text that was drawn before, or has the colour of text above it.

        Looking at all objects of a page with very many takes a tenth of the time of reading the page, so it is done
        only if the page has light text: then it has coloured shapes as well.
        """
        if self.suspicious:
            return
        if self._faint_spans:
            self.suspicious = self._has_covered_text()
        self.suspicious = self.suspicious or self._is_covered_or_on_its_colour()

    def _is_covered_or_on_its_colour(self) -> bool:
        below: dict[int, Colour] = {}
        colours = {colour for _, colour in self._starts}
        first_text = min(self.shapes.texts.values(), default=self.shapes.last_form)
        for area in self.shapes.areas:
            fill = self.objects.fill_colour(area.address) if area.is_path else None
            if area.is_path and fill is None:
                continue
            may_cover = area.number > first_text
            if not (may_cover or below or (fill and any(_are_alike(fill, colour) for colour in colours))):
                continue
            for line in self._lines_at(area.box):
                owner = self._starts[line][0]
                if owner is None:
                    continue
                if self.shapes.number_of(owner) > area.number:
                    if fill is not None and area.box[0] <= self._lines[line][0] + 1:
                        below[line] = fill
                elif may_cover and self._covers_text(area, self._lines[line]):
                    return True
        return any(_are_alike(fill, self._starts[line][1]) for line, fill in below.items())

    def _lines_at(self, area: Box) -> Iterator[int]:
        """The lines that touch a shape."""
        x0, y0, x1, y1 = area
        for line, (left, bottom, right, top) in enumerate(self._lines):
            if y0 < (bottom + top) / 2 < y1 and left < x1 and right > x0:
                yield line

    def _has_covered_text(self) -> bool:
        covers: list[Box] = []
        objects = self.objects
        for number in range(min(objects.count, _MAX_OBJECTS) - 1, -1, -1):
            page_object = objects.at(number)
            kind = objects.kind(page_object)
            if kind == pdfium.FPDF_PAGEOBJ_TEXT:
                if covers and (box := objects.bounds(page_object)) is not None:
                    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
                    if any(left <= x <= right and bottom <= y <= top for left, bottom, right, top in covers):
                        return True
            elif kind in (pdfium.FPDF_PAGEOBJ_PATH, pdfium.FPDF_PAGEOBJ_IMAGE):
                cover = objects.bounds(page_object)
                if cover is not None and (kind == pdfium.FPDF_PAGEOBJ_IMAGE or self._is_cover(page_object, cover)):
                    covers.append(cover)
        return False

    def _is_cover(self, shape: int, box: Box) -> bool:
        """Whether a shape is more than a line, and opaque."""
        return box[2] - box[0] >= _MIN_COVER and box[3] - box[1] >= _MIN_COVER and self.objects.is_opaque(shape)

    def _covers_text(self, cover: Area, line: Box) -> bool:
        """Whether the text of a line at the place of a shape was drawn before the shape."""
        left, bottom, right, top = line
        x, y = (max(left, cover.box[0]) + min(right, cover.box[2])) / 2, (bottom + top) / 2
        position = pdfium.FPDFText_GetCharIndexAtPos(self._text_page, x, y, 4.0, 4.0)
        owner = _get_text_object(self._text_reference, position) if position >= 0 else None
        return owner is not None and self.shapes.number_of(owner) < cover.number

    def hidden(self, text: str, size_at: Callable[[int], float]) -> list[int]:
        """The positions of the hidden characters; ``text`` is the text as pdfium counts it."""
        if self._crop == _NO_LIMITS:
            return []
        spans = [(0, len(text))] if self.suspicious else self._faint_spans
        characters = [character for span in spans for character in self._characters(text, *span)]
        if not self.suspicious:
            characters = [
                character for run in _runs(characters) if self._is_faint(run[0].position) for character in run
            ]
        hidden = {character.position for character in characters if not self.is_on_page(character.box)}
        drawn: list[list[_Character]] = []
        invisible: list[_Character] = []
        for run in _runs(character for character in characters if character.position not in hidden):
            if _is_tiny(run, size_at(run[0].position)):
                hidden.update(character.position for character in run)
            elif _get_render_mode(run[0].owner) == _INVISIBLE:
                invisible += run
            else:
                drawn.append(run)
        in_picture = 0
        with contextlib.suppress(_NotRendered):
            without_picture = self._without_picture(invisible, share=len(invisible) / max(1, len(characters)))
            without_effect, in_picture = self._without_effect(drawn)
            hidden |= without_picture | without_effect
            in_picture += len(invisible) - len(without_picture)
        self.layer_share = in_picture / max(1, len(characters) - len(hidden)) if self.suspicious else 0.0
        return sorted(hidden)

    def _characters(self, text: str, start: int, end: int) -> list[_Character]:
        found: list[_Character] = []
        text_page, box = self._text_reference, self._box
        left, bottom, right, top = self._sides
        line = text.count("\n", 0, start)
        for position in range(start, end):
            character = text[position]
            if character.isspace() or character == "\x00":
                line += character == "\n"
                continue
            owner = _get_text_object(text_page, position)
            if owner and _get_char_box(text_page, position, left, right, bottom, top):
                x0, y0, x1, y1 = box
                found.append(_Character(position, owner, line, (x0, y0, x1, y1)))
        return found

    def is_on_page(self, box: Box) -> bool:
        """Whether the middle of a box is inside the crop box."""
        left, bottom, right, top = self._crop
        return left <= (box[0] + box[2]) / 2 <= right and bottom <= (box[1] + box[3]) / 2 <= top

    def _without_picture(self, invisible: Sequence[_Character], *, share: float) -> set[int]:
        """The characters in the invisible mode that no picture is below.

        If most of a page's text is visible, the pictures may be backgrounds: they must show something at the place.
        """
        if not invisible:
            return set()
        pictures = self._picture_boxes()
        above = [character for character in invisible if any(_contains(box, character.box) for box in pictures)]
        hidden = {character.position for character in invisible} - {character.position for character in above}
        if above and share < _SCAN_SHARE:
            image = _PageRendering(self._page, self._crop, above)
            hidden |= {character.position for character in above if not image.has_contrast(character.box)}
        return hidden

    def _without_effect(self, drawn: Sequence[Sequence[_Character]]) -> tuple[set[int], int]:
        """The characters without which the rendered page looks the same, of runs of the same text object.

        Not those that a picture of text covers, of which the number is returned: some scanners write the text layer
        before the picture.
        """
        if not drawn:
            return set(), 0
        characters = [character for run in drawn for character in run]
        before = _PageRendering(self._page, self._crop, characters)
        unseen: list[_Character] = []
        for group in _without_overlaps(drawn):
            for run in group:
                _set_is_active(run[0].owner, 0)
            try:
                changes = before.changes(_PageRendering(self._page, self._crop, characters))
            finally:
                for run in group:
                    _set_is_active(run[0].owner, 1)
            unseen += [character for run in group for character in run if not before.reaches(changes, character.box)]
        unseen += self._faint_beside(unseen, characters)
        pictures = self._picture_boxes() if unseen and not self._layers else []
        hidden = {
            character.position
            for character in unseen
            if not (any(_contains(box, character.box) for box in pictures) and before.has_contrast(character.box))
        }
        return hidden, len(unseen) - len(hidden)

    def _faint_beside(self, unseen: Sequence[_Character], drawn: Sequence[_Character]) -> list[_Character]:
        """The light characters of lines in which many light characters are unseen.

        White text on paper changes the dark text that it crosses: there it has an effect, but is not read either.
        """
        if not unseen:
            return []
        hidden = {character.position for character in unseen}
        lines: dict[int, list[_Character]] = {}
        for character in drawn:
            if self._is_faint(character.position):
                lines.setdefault(character.line, []).append(character)
        return [
            character
            for line in lines.values()
            if sum(character.position in hidden for character in line) > _FAINT_SHARE * len(line)
            for character in line
            if character.position not in hidden
        ]

    def _picture_boxes(self) -> list[Box]:
        numbers = range(min(_MAX_OBJECTS, self.objects.count))
        return self.objects.pictures(numbers, most_inside=_MAX_OBJECTS_OF_FORM)


def _are_faint(red: int, green: int, blue: int, alpha: int) -> bool:
    return alpha < _FAINT or (red > _LIGHT and green > _LIGHT and blue > _LIGHT)


def _runs(characters: Iterable[_Character]) -> list[list[_Character]]:
    """The characters of each text object."""
    runs: dict[int, list[_Character]] = {}
    for character in characters:
        runs.setdefault(character.owner, []).append(character)
    return list(runs.values())


def _without_overlaps(runs: Sequence[Sequence[_Character]]) -> list[list[Sequence[_Character]]]:
    """Group runs so that runs at the same place (old text below new, two languages) are in different groups."""
    groups: list[list[Sequence[_Character]]] = []
    grids: list[dict[tuple[int, int], list[Box]]] = []
    for run in runs:
        free = (number for number, grid in enumerate(grids) if not any(_is_taken(item.box, grid) for item in run))
        number = next(free, min(len(groups), _MAX_GROUPS - 1))
        if number == len(groups):
            groups.append([])
            grids.append({})
        groups[number].append(run)
        for character in run:
            grids[number].setdefault(_cell(character.box), []).append(character.box)
    return groups


def _cell(box: Box) -> tuple[int, int]:
    return int((box[0] + box[2]) / 2 / _CELL), int((box[1] + box[3]) / 2 / _CELL)


def _is_taken(box: Box, grid: dict[tuple[int, int], list[Box]]) -> bool:
    column, row = _cell(box)
    area = (box[2] - box[0]) * (box[3] - box[1])
    for x in (column - 1, column, column + 1):
        for y in (row - 1, row, row + 1):
            for other in grid.get((x, y), ()):
                width = min(box[2], other[2]) - max(box[0], other[0])
                height = min(box[3], other[3]) - max(box[1], other[1])
                if width > 0 and height > 0 and width * height > _OVERLAP * area:
                    return True
    return False


class _PageRendering:
    """The pixels of the part of a page that contains some characters, and where the page's points are in it."""

    def __init__(self, page: PdfiumHandle, crop: Box, characters: Iterable[_Character]) -> None:
        from ragsvc.extract.page_image import PageNotRendered, draw_window  # noqa: PLC0415 - imports numpy, if needed

        width, height = pdfium.FPDF_GetPageWidthF(page), pdfium.FPDF_GetPageHeightF(page)
        if not (_MIN_PAGE < width < _MAX_SIDE and _MIN_PAGE < height < _MAX_SIDE) or crop == _NO_LIMITS:
            raise _NotRendered
        scale = min(_SCALE, (_MAX_PIXELS / (width * height)) ** 0.5)
        columns, rows = max(1, int(width * scale)), max(1, int(height * scale))
        left, bottom, right, top = crop
        origin, across, up = (
            _to_device(page, columns, rows, x, y) for x, y in ((left, bottom), (right, bottom), (left, top))
        )
        self._origin, self._corner = origin, (left, bottom)
        self._x = tuple((end - start) / (right - left) for start, end in zip(origin, across, strict=True))
        self._y = tuple((end - start) / (top - bottom) for start, end in zip(origin, up, strict=True))
        self._left, self._top = 0, 0
        down, along = self._region(_surrounding([character.box for character in characters]))
        self._left, self._top = min(along.start, columns - 1), min(down.start, rows - 1)
        size = max(1, min(along.stop, columns) - self._left), max(1, min(down.stop, rows) - self._top)
        try:
            self._pixels = draw_window(page, columns, rows, (self._left, self._top, *size))
        except PageNotRendered as error:
            raise _NotRendered from error

    def _region(self, box: Box) -> tuple[slice, slice]:
        columns: list[float] = []
        rows: list[float] = []
        for x, y in ((box[0], box[1]), (box[2], box[3])):
            right, up = x - self._corner[0], y - self._corner[1]
            columns.append(self._origin[0] - self._left + right * self._x[0] + up * self._y[0])
            rows.append(self._origin[1] - self._top + right * self._x[1] + up * self._y[1])
        return (
            slice(max(0, int(min(rows))), max(0, int(max(rows)) + 1)),
            slice(max(0, int(min(columns))), max(0, int(max(columns)) + 1)),
        )

    def changes(self, other: _PageRendering) -> PixelMask:
        """The pixels that look different in another rendering of the same part."""
        from ragsvc.extract.page_image import different_pixels  # noqa: PLC0415 - imports numpy, if needed

        return different_pixels(self._pixels, other._pixels, least=_MIN_CHANGE)

    def reaches(self, changes: PixelMask, box: Box) -> bool:
        """Whether a box has a changed pixel. A box of which no pixel was drawn counts as changed."""
        part = changes[self._region(box)]
        return not part.size or bool(part.any())

    def has_contrast(self, box: Box) -> bool:
        part = self._pixels[self._region(box)][:, :, :3]
        return bool(part.size) and int(part.max()) - int(part.min()) >= _MIN_CHANGE


def _surrounding(boxes: Sequence[Box]) -> Box:
    return (
        min(box[0] for box in boxes),
        min(box[1] for box in boxes),
        max(box[2] for box in boxes),
        max(box[3] for box in boxes),
    )


def _to_device(page: PdfiumHandle, columns: int, rows: int, x: float, y: float) -> tuple[int, int]:
    column, row = ctypes.c_int(), ctypes.c_int()
    pdfium.FPDF_PageToDevice(page, 0, 0, columns, rows, 0, x, y, column, row)
    return column.value, row.value


def _is_tiny(run: Sequence[_Character], size: float) -> bool:
    """Whether nobody can read the text. Font sizes of bitmap fonts mean little, so the drawn size counts as well."""
    if size >= _MIN_SIZE:
        return False
    boxes = [item.box for item in run]
    low = all(top - bottom < _MIN_SIZE for _, bottom, _, top in boxes)
    return low and (len(run) >= _FEW_FLAT or all(right - left < _MIN_SIZE for left, _, right, _ in boxes))


def _contains(outer: Box, inner: Box) -> bool:
    x, y = (inner[0] + inner[2]) / 2, (inner[1] + inner[3]) / 2
    return outer[0] <= x <= outer[2] and outer[1] <= y <= outer[3]


def _are_alike(colour: Colour, other: Colour) -> bool:
    return max(map(abs, map(int.__sub__, colour, other))) < _ONE_COLOUR
