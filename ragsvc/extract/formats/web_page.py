"""Reads web pages (HTML): decodes them as browsers do, and divides their text into pages of about 3,000 characters."""

from __future__ import annotations

import re
from pathlib import Path

from ragsvc.core.documents import Extraction, ProblemCode
from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.formats.html_text import HtmlWalker, page_title, read_tree
from ragsvc.extract.formats.page_builder import VIRTUAL_PAGE_CHARACTERS, PageBuilder
from ragsvc.extract.pdf_pages import PageReports
from ragsvc.extract.plain_text import DecodedText, decode

_META = re.compile(rb"<meta[^>]{0,400}?charset\s*=\s*[\"']?\s*([\w.:+-]{1,40})", re.IGNORECASE)
_XML_ENCODING = re.compile(rb"\A\s*<\?xml[^>]*?encoding\s*=\s*[\"']([\w.:+-]{1,40})", re.IGNORECASE)
_SCANNED_BYTES = 8192
_NOT_IN_META = frozenset({"utf-16", "utf-16le", "utf-16be", "utf-32", "x-user-defined"})


def read_web_page(path: Path, *, limits: ExtractionLimits, reports: PageReports, charset: str | None) -> Extraction:
    """Read a web page. Raises ``ExtractionFailed``."""
    decoded = decode_html(path.read_bytes(), charset=charset)
    builder = PageBuilder(limits, split_at=VIRTUAL_PAGE_CHARACTERS * 6 // 5)
    builder.page()
    if decoded.damaged:
        builder.problem(ProblemCode.BAD_CHARACTERS)
    root = read_tree(decoded.text)
    title = None
    if root is not None:
        HtmlWalker(builder, root).add(root)
        title = page_title(root)
    return builder.finish(
        title=title or builder.first_heading,
        nothing="The web page contains no visible text. Pages whose text a script writes have none in the file.",
        on_progress=reports.on_progress,
    )


def decode_html(data: bytes, *, charset: str | None = None) -> DecodedText:
    """Decode a page by its byte order mark, the declared ``charset``, or its own declaration (WHATWG HTML §13.2.3)."""
    start = data[:_SCANNED_BYTES]
    found = _XML_ENCODING.search(start) or _META.search(start)
    if charset is None and found is not None:
        declared = found[1].decode("ascii").lower()
        charset = "utf-8" if declared in _NOT_IN_META else declared
    return decode(data, charset=charset)
