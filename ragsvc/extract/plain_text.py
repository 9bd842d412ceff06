"""Reads plain text and Markdown: decodes it, splits it into pages, and finds Markdown headings. Keeps all text."""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from ragsvc.core.documents import Extraction, Heading, Page, ProblemCode
from ragsvc.core.errors import ExtractionFailed, FailureReason
from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.problems import merge_problems

_PAGE_CHARACTERS = 3_000
_SAMPLE_BYTES = 100_000
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROLS = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x84\x86-\x9f\ud800-\udfff\ufeff]")
_BREAKS = (re.compile(r"\n[^\S\n]*\n"), re.compile(r"\n"), re.compile(r"(?<=[.!?。])\s*"), re.compile(r"\s"))
_ATX = re.compile(r"^ {0,3}(#{1,6})[ \t]+(.+?)(?:[ \t]+#+)?[ \t]*$")
_SETEXT = re.compile(r"^ {0,3}(=+|-{2,})[ \t]*$")
_FENCE = re.compile(r"^ {0,3}(`{3,}|~{3,})")


def read_text(
    path: Path, *, markdown: bool, limits: ExtractionLimits, on_progress: Callable[[int, int], None]
) -> Extraction:
    """Read a text file. Form feeds separate pages; longer texts are split into pages of about 3,000 characters.

    Raises:
        ExtractionFailed: the file is not text in a known encoding, or blank, or too long.
    """
    text = decode(path.read_bytes()).replace("\r\n", "\n").replace("\r", "\n")
    text = _CONTROLS.sub("", text)
    if not text.strip():
        raise ExtractionFailed(FailureReason.NO_TEXT, "The file contains only white space.")
    truncated = len(text) > limits.max_text_characters
    headings: list[Heading] = []
    pages: list[Page] = []
    for raw in split_virtual_pages(text[: limits.max_text_characters]):
        pages.append(Page(len(pages) + 1, raw))
        if len(pages) > limits.max_pages:
            raise ExtractionFailed(
                FailureReason.TOO_MANY_PAGES, f"The text has more pages than the limit of {limits.max_pages:,}."
            )
    if markdown:
        headings = markdown_headings(pages)
    on_progress(len(pages), len(pages))
    return Extraction(
        pages=pages,
        headings=headings,
        problems=merge_problems([(len(pages), ProblemCode.TEXT_TRUNCATED)] if truncated else []),
        title=next((heading.title for heading in headings if heading.level == 1), None),
        page_count=len(pages),
    )


def decode(data: bytes) -> str:
    """Decode text by its byte order mark, as UTF-8, in the encoding that charset-normalizer detects, or as Latin-1.

    Raises:
        ExtractionFailed: the bytes are not text.
    """
    for mark, encoding in _BOMS:
        if data.startswith(mark):
            return data.decode(encoding, "replace")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        text = ""
    if text and text.count("\x00") <= len(text) // 1000:
        return text
    sample = data[:_SAMPLE_BYTES]
    if sample.count(0) > len(sample) // 10 and (wide := _utf16_without_mark(sample)) is not None:
        return data.decode(wide, "replace")
    controls = sum(byte < 9 or 13 < byte < 27 for byte in sample)
    if controls > len(sample) // 100:
        raise ExtractionFailed(FailureReason.NOT_TEXT, "The file was sent as text but contains binary data.")
    from charset_normalizer import from_bytes  # noqa: PLC0415 - slow to import, and most text is UTF-8

    best = from_bytes(sample).best()
    encoding = best.encoding if best is not None else "latin-1"
    return data.decode(encoding, "replace")


def _utf16_without_mark(sample: bytes) -> str | None:
    """UTF-16 of a Western script has zeros only in even or only in odd bytes."""
    even, odd = sample[::2].count(0), sample[1::2].count(0)
    if odd > 9 * even:
        return "utf-16-le"
    return "utf-16-be" if even > 9 * odd else None


def split_virtual_pages(text: str) -> Iterator[str]:
    """Split at form feeds, then into pages of about 3,000 characters at paragraph, line, sentence or word boundaries.

    >>> [len(page) for page in split_virtual_pages("word " * 1500)]
    [2999, 2999, 1499]
    """
    for section in text.split("\f"):
        start, end = _strip(section, 0, len(section))
        while start < end:
            cut = _cut(section, start, end)
            page_start, page_end = _strip(section, start, cut)
            if page_start < page_end:
                yield section[page_start:page_end]
            start = max(cut, start + 1)


def _strip(text: str, start: int, end: int) -> tuple[int, int]:
    while start < end and text[start] == "\n":
        start += 1
    while end > start and text[end - 1].isspace():
        end -= 1
    return start, end


def _cut(text: str, start: int, end: int) -> int:
    if end - start <= _PAGE_CHARACTERS + _PAGE_CHARACTERS // 5:
        return end
    earliest, latest = start + _PAGE_CHARACTERS // 2, start + _PAGE_CHARACTERS
    for border in _BREAKS:
        ends = [found.end() for found in border.finditer(text, earliest, latest)]
        if ends:
            return ends[-1]
    return latest


def markdown_headings(pages: list[Page]) -> list[Heading]:
    """Find ATX (``## Title``) and Setext (underlined) headings outside fenced code. CommonMark §4.2, §4.3."""
    headings: list[Heading] = []
    fence: str | None = None
    for page in pages:
        offset = 0
        previous = ""
        for line in page.text.split("\n"):
            mark = _FENCE.match(line)
            if mark is not None and (fence is None or line.lstrip().startswith(fence)):
                fence = mark.group(1) if fence is None else None
            elif fence is None:
                if (found := _ATX.match(line)) is not None:
                    headings.append(Heading(found.group(2), len(found.group(1)), page.number, offset + found.start(1)))
                elif previous.strip() and not _ATX.match(previous) and (under := _SETEXT.match(line)) is not None:
                    level = 1 if under.group(1)[0] == "=" else 2
                    start = offset - len(previous) - 1
                    headings.append(Heading(previous.strip(), level, page.number, start))
            previous = "" if fence is not None or mark is not None else line
            offset += len(line) + 1
    return headings
