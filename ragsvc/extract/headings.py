"""Finds section headings and the document title, from the outline or else from font sizes and weights. Pure."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import msgspec

from ragsvc.core.documents import Heading
from ragsvc.core.page_views import OutlineEntry
from ragsvc.extract.clean import LINE_HYPHEN
from ragsvc.extract.layout import Line

_MAX_TITLE_CHARACTERS = 200
_MAX_HEADING_CHARACTERS = 120
_MAX_HEADING_WORDS = 16
_MAX_PER_PAGE = 8
_MAX_REPEATS = 3
_LEVELS = 3
_MIN_PAGES_WITH_COVER = 4
_LARGER = 1.12
_BOLDER = 100
_LETTERS = re.compile(r"[^\W\d_]")
_WORD = re.compile(r"[^\W\d_]{2,}")
_NUMBERED = re.compile(
    r"^(?:(?:part|item|chapter|section|note|appendix|annex|article|schedule|exhibit)\s+[\divxlc]+[a-z]?\b"
    r"|\d{1,2}(?:\.\d{1,2}){0,3}\.?\s+[^\W\d_])",
    re.IGNORECASE,
)
_NO_TITLE = re.compile(
    r"^(?:untitled|no title|document|title|slide 1|powerpoint presentation|microsoft (?:word|powerpoint|excel)\b.*"
    r"|.*\.(?:docx?|pdf|indd|qxd|pptx?|xlsx?|tex|dvi|html?|rtf|odt|txt|pages|ps|eps|p65|fm|pub))$",
    re.IGNORECASE,
)
_BLANKS = re.compile(r"\s+")


class HeadingCandidate(msgspec.Struct, frozen=True):
    """A short line that may be a heading, with its font size and weight."""

    text: str
    size: float
    weight: int


class PageFonts(msgspec.Struct):
    """A page's heading candidates, and the number of characters of each font size and weight."""

    lines: list[HeadingCandidate] = []
    characters: Counter[tuple[float, int]] = msgspec.field(default_factory=Counter)


def page_fonts(lines: Sequence[Line]) -> PageFonts:
    """The heading candidates and font statistics of a page's lines."""
    fonts = PageFonts()
    for line in lines:
        fonts.characters[line.size, line.weight] += len(line.text)
        if len(line.text) <= _MAX_HEADING_CHARACTERS and not (line.row or line.upright) and _LETTERS.search(line.text):
            fonts.lines.append(HeadingCandidate(line.text, line.size, line.weight))
    return fonts


def place_outline(entries: Sequence[OutlineEntry], texts: Sequence[str]) -> list[Heading]:
    """Headings from bookmarks, in reading order; offset 0 if the page does not contain the title."""
    headings: list[Heading] = []
    folded: dict[int, str] = {}
    last = (0, 0)
    for entry in entries:
        text = texts[entry.page - 1]
        start = last[1] if last[0] == entry.page else 0
        offset = _find(text, entry.title, start, folded.setdefault(entry.page, text.casefold()))
        headings.append(Heading(entry.title[:_MAX_TITLE_CHARACTERS], entry.level, entry.page, offset or 0))
        if offset is not None:
            last = (entry.page, offset + 1)
    return sorted(headings, key=lambda heading: (heading.page, heading.offset))


def _find(text: str, title: str, start: int, folded: str) -> int | None:
    """The offset of a title in a page's text, ignoring white space and case; at the beginning of a line if possible."""
    words = _BLANKS.split(title.strip())
    pattern = r"\s+".join(map(re.escape, words))
    for begin in (start, 0):
        found = re.compile(rf"^[^\S\n]*(?:[\d.]+\s+)?({pattern})", re.IGNORECASE | re.MULTILINE).search(text, begin)
        if found is not None:
            return found.start(1) if not _NUMBERED.match(found.group().strip()) else found.start()
    position = folded.find(title.casefold(), start) if len(folded) == len(text) else -1
    return position if position >= 0 else None


def headings_by_font(pages: Sequence[PageFonts], texts: Sequence[str]) -> list[Heading]:
    """Headings are short lines in a larger font than the body text, or bold ones; few on a page, and not repeated."""
    characters: Counter[tuple[float, int]] = Counter()
    for page in pages:
        characters.update(page.characters)
    if not characters:
        return []
    body_size, body_weight = characters.most_common(1)[0][0]
    candidates = [
        (number, line)
        for number, page in enumerate(pages, start=1)
        for line in _candidates(page, body_size, body_weight)
    ]
    repeats = Counter(_plain(line.text) for _, line in candidates)
    candidates = [(number, line) for number, line in candidates if repeats[_plain(line.text)] <= _MAX_REPEATS]
    if len(pages) >= _MIN_PAGES_WITH_COVER:  # a size that only the cover uses is the title's
        later = {line.size for number, line in candidates if number > 1}
        candidates = [(number, line) for number, line in candidates if number > 1 or line.size in later]
    levels = _levels([line.size for _, line in candidates], body_size)
    headings: list[Heading] = []
    position = (0, 0)
    for number, line in candidates:
        start = position[1] if position[0] == number else 0
        title = line.text.replace(LINE_HYPHEN, "-")
        offset = texts[number - 1].find(title, start)
        if offset < 0:
            continue
        headings.append(Heading(title, levels[line.size], number, offset))
        position = (number, offset + len(title))
    return headings


def _candidates(page: PageFonts, body_size: float, body_weight: int) -> list[HeadingCandidate]:
    found = [line for line in page.lines if _is_heading(line, body_size, body_weight)]
    return (
        found if len(found) <= _MAX_PER_PAGE else [line for line in found if _NUMBERED.match(line.text)][:_MAX_PER_PAGE]
    )


def _is_heading(line: HeadingCandidate, body_size: float, body_weight: int) -> bool:
    text = line.text
    if len(text.split()) > _MAX_HEADING_WORDS or (text[-1] in ".,;:" and not _NUMBERED.match(text)):
        return False
    if not _WORD.search(text) or 2 * len(_LETTERS.findall(text)) < len(text.replace(" ", "")):
        return False
    if line.size >= _LARGER * body_size:
        return True
    bold = line.weight >= body_weight + _BOLDER
    return bold and line.size >= 0.98 * body_size and (_NUMBERED.match(text) is not None or not text[0].islower())


def _levels(sizes: Sequence[float], body_size: float) -> dict[float, int]:
    """Levels by font size: larger sizes first, the size of the body text last."""
    larger = sorted({size for size in sizes if size >= _LARGER * body_size}, reverse=True)
    levels = {size: min(rank, _LEVELS) for rank, size in enumerate(larger, start=1)}
    lowest = min(len(larger), _LEVELS) + 1
    return {size: levels.get(size, lowest) for size in sizes}


def document_title(metadata: str | None, subject: str | None, first_page: PageFonts) -> str | None:
    """The title of the metadata unless a program generated it, else the largest text of the first page.

    In filings and reports the metadata title is often useless and the subject names the period; the subject is then
    appended.
    """
    if metadata and _is_meaningful(metadata):
        return metadata[:_MAX_TITLE_CHARACTERS]
    parts = [_largest_type(first_page)]
    if subject and _is_meaningful(subject) and len(subject.split()) >= 3:
        parts.append(subject)
    title = " - ".join(part for part in parts if part)
    return title[:_MAX_TITLE_CHARACTERS] or None


def _largest_type(first_page: PageFonts) -> str:
    lines = [line for line in first_page.lines if _WORD.search(line.text)]
    if not lines or not first_page.characters:
        return ""
    largest = max(line.size for line in lines)
    body_size = first_page.characters.most_common(1)[0][0][0]
    if largest < _LARGER * body_size and len(lines) > 3:
        return ""
    title = " ".join(line.text for line in lines if line.size >= 0.98 * largest).replace(LINE_HYPHEN, "-")
    return title if 3 < len(title) <= _MAX_TITLE_CHARACTERS // 2 else ""


def _is_meaningful(title: str) -> bool:
    return _WORD.search(title) is not None and _NO_TITLE.match(title.strip()) is None


def _plain(text: str) -> str:
    return _BLANKS.sub(" ", re.sub(r"\d+", "0", text)).casefold()
