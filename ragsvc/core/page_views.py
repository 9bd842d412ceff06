"""How a page is shown: its picture, the rectangles of a stretch of its text, and the outline of its document. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from ragsvc.core.file_types import PDF, PICTURES

MAX_PICTURE_WIDTH: Final = 4000
DEFAULT_PICTURE_WIDTH: Final = 1000
WIDTHS: Final = (160, 320, 640, 1000, 1400, 2000, 2800, MAX_PICTURE_WIDTH)
"""The widths in which pictures are drawn: few, so that pictures are reused."""

MAX_PICTURE_PIXELS: Final = 12_000_000
RENDITION_VERSION: Final = 1
"""Raise it when the same page would be drawn, or its text recognised, differently."""


class ShownBox(msgspec.Struct, frozen=True):
    """A rectangle on a page as displayed, turned and cropped: fractions of its width and height, from the top left."""

    left: float
    top: float
    width: float
    height: float


class PositionedLine(msgspec.Struct, frozen=True):
    """A recognised line: its text without outer spaces, and where each character begins and ends along it.

    ``corners`` are x and y in pixels of the upper left, upper right, lower right and lower left corner, seen by a
    reader of the line. ``edges`` has a fraction of the line's length for the beginning and the end of each character.
    """

    text: str
    corners: tuple[float, float, float, float, float, float, float, float]
    edges: list[tuple[float, float]]


class RecognisedLines(msgspec.Struct, frozen=True):
    """The recognised lines of a page in reading order, and the size in pixels of the picture that they refer to."""

    lines: list[PositionedLine] = []
    columns: int = 0
    rows: int = 0


class TextStretch(msgspec.Struct, frozen=True):
    """The characters ``start`` to ``end`` (exclusive) of the stored text of a page.

    ``recognised`` is whether text recognition contributed to the text.
    """

    text: str
    start: int
    end: int
    recognised: bool = False


class PageBoxes(msgspec.Struct, frozen=True):
    """The rectangles of a stretch of text, one for each line of the page, in reading order.

    ``width`` and ``height`` are those of the displayed page in points. ``recognised`` is whether a rectangle comes from
    text recognition, which is less exact than the positions in the file.
    """

    width: float
    height: float
    boxes: list[ShownBox]
    recognised: bool = False


class PagePicture(msgspec.Struct, frozen=True):
    """A page drawn as PNG, ``width`` x ``height`` pixels."""

    png: bytes
    width: int
    height: int


class OutlineEntry(msgspec.Struct, frozen=True):
    """A bookmark: its title, level (from 1) and page (from 1)."""

    title: str
    level: int
    page: int


def has_pictures(media_type: str) -> bool:
    """Whether documents of a type have pages that can be drawn."""
    essence = media_type.partition(";")[0]
    return essence == PDF or essence in PICTURES


def width_to_draw(width: int) -> int:
    """The smallest width that is drawn and not below ``width``, in pixels.

    >>> width_to_draw(1), width_to_draw(1000), width_to_draw(1001)
    (160, 1000, 1400)
    """
    return next((candidate for candidate in WIDTHS if candidate >= width), MAX_PICTURE_WIDTH)


def picture_size(width: float, height: float, drawn_width: int) -> tuple[int, int]:
    """Pixels of the picture of a page of any size: ``drawn_width`` wide, fewer if it had too many pixels.

    >>> picture_size(612, 792, 1000), picture_size(10_000, 10_000, 4000), picture_size(10, 10_000, 1000)
    ((1000, 1294), (3464, 3464), (109, 109544))
    """
    scale = min(drawn_width / width, (MAX_PICTURE_PIXELS / (width * height)) ** 0.5)
    return max(1, int(width * scale)), max(1, int(height * scale))
