"""Detects the type of a file by its content and reads it. The child process calls ``extract``."""

from __future__ import annotations

import re
from pathlib import Path

from ragsvc.core.documents import Extraction
from ragsvc.core.errors import ExtractionFailed, FailureReason
from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.pdf_document import read_pdf
from ragsvc.extract.pdf_pages import PageReports
from ragsvc.extract.plain_text import read_text

_HEAD_BYTES = 1024
_MARKDOWN_SUFFIXES = (".md", ".markdown", ".mkd")
_KINDS: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"II*\x00", "a TIFF image"),
    (b"MM\x00*", "a TIFF image"),
    (b"BM", "a bitmap image"),
    (b"RIFF", "a media file"),
    (b"PK\x03\x04", "a ZIP archive or an Office document"),
    (b"\xd0\xcf\x11\xe0", "an old Office document"),
    (b"{\\rtf", "an RTF document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"%!PS", "a PostScript file"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
)
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([\w.:+-]{1,40})", re.IGNORECASE | re.ASCII)
_TEXT_BOMS = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")


def extract(
    path: Path,
    *,
    media_type: str,
    filename: str,
    password: str | None,
    limits: ExtractionLimits,
    reports: PageReports,
) -> Extraction:
    """Read a PDF, plain text or Markdown file. Its bytes decide about the type, then ``media_type``, then ``filename``.

    Raises:
        ExtractionFailed: the file is empty, of another type, or cannot be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        raise ExtractionFailed(FailureReason.EMPTY_FILE, "The file is empty (0 bytes).")
    if b"%PDF-" in head:
        return read_pdf(path, password=password, limits=limits, reports=reports)
    kind = media_type.partition(";")[0].strip().lower()
    other = next((name for magic, name in _KINDS if head.startswith(magic)), None)
    if kind.startswith("text/"):
        if other is not None and other != "a program" and not head.startswith(_TEXT_BOMS):
            raise ExtractionFailed(FailureReason.NOT_TEXT, f"The file was sent as text but is {other}.")
        markdown = kind in ("text/markdown", "text/x-markdown") or filename.lower().endswith(_MARKDOWN_SUFFIXES)
        charset = _CHARSET.search(media_type)
        return read_text(
            path,
            markdown=markdown,
            limits=limits,
            on_progress=reports.on_progress,
            charset=charset.group(1) if charset else None,
        )
    if not head.strip(b"\x00\t\r\n "):
        other = "only zero bytes or white space"
    elif other is None and _looks_like_html(head):
        other = "a web page (often an error or login page saved as PDF)"
    elif other is None and not _is_binary(head):
        other = "plain text; send it as text/plain"
    raise ExtractionFailed(FailureReason.NOT_A_PDF, f"The file is not a PDF: it is {other or 'of an unknown type'}.")


def _looks_like_html(head: bytes) -> bool:
    start = head.lstrip().lower()
    return start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml"))


def _is_binary(head: bytes) -> bool:
    return b"\x00" in head or sum(byte < 9 or 13 < byte < 32 for byte in head) > len(head) // 20
