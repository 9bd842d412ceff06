"""Detects the type of a file by its content and reads it. The child process calls ``extract``."""

from __future__ import annotations

import re
from pathlib import Path

from ragsvc.core import file_types
from ragsvc.core.documents import Extraction
from ragsvc.core.errors import ExtractionFailed, FailureReason
from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.pdf_document import read_pdf
from ragsvc.extract.pdf_pages import PageReports
from ragsvc.extract.plain_text import read_text

_MARKDOWN_SUFFIXES = (".md", ".markdown", ".mkd")
_CHARSET = re.compile(r";\s*charset\s*=\s*\"?([\w.:+-]{1,40})", re.IGNORECASE | re.ASCII)
_PROGRAM = "a program"
_TEXTS = frozenset({file_types.TEXT, file_types.MARKDOWN, file_types.HTML, file_types.CSV, file_types.TSV})


def extract(
    path: Path,
    *,
    media_type: str,
    filename: str,
    password: str | None,
    limits: ExtractionLimits,
    reports: PageReports,
) -> Extraction:
    """Read a file. Its bytes decide about a binary format, then ``media_type`` and ``filename`` about texts.

    Raises:
        ExtractionFailed: the file is empty, of another type, or cannot be read.
    """
    head, tail = _ends(path)
    if not head:
        raise ExtractionFailed(FailureReason.EMPTY_FILE, "The file is empty (0 bytes).")
    declared = media_type.partition(";")[0].strip().lower()
    declared = file_types.MEDIA_TYPE_ALIASES.get(declared, declared)
    found = file_types.recognise(head, tail)
    if found is not None and found.media_type == file_types.PDF:
        return read_pdf(path, password=password, limits=limits, reports=reports)
    if found is not None and (declared in _TEXTS or declared.startswith("text/")) and found.name != _PROGRAM:
        raise ExtractionFailed(FailureReason.NOT_TEXT, f"The file was sent as text but is {found.name}.")
    if found is not None and found.media_type is not None:
        try:
            return _read_binary(path, found.media_type, limits=limits, reports=reports)
        except ExtractionFailed as error:
            if declared == file_types.PDF and error.reason is FailureReason.DAMAGED:
                raise _not_a_pdf(f"{found.name}, which is damaged") from error
            raise
    charset = _CHARSET.search(media_type)
    if declared in _TEXTS or declared.startswith("text/"):
        markdown = declared == file_types.MARKDOWN or filename.lower().endswith(_MARKDOWN_SUFFIXES)
        name = charset.group(1) if charset else None
        return _read_text(path, declared, markdown=markdown, charset=name, limits=limits, reports=reports)
    if declared == file_types.EML and found is None:
        from ragsvc.extract.formats.email_message import read_email  # noqa: PLC0415 - imports lxml

        return read_email(path, limits=limits, reports=reports)
    if declared == file_types.PDF:
        raise _not_a_pdf(_description(found, head))
    raise ExtractionFailed(
        FailureReason.DAMAGED,
        f"The file was sent as '{declared}' but is {_description(found, head)}, or damaged at its start.",
    )


def _ends(path: Path) -> tuple[bytes, bytes]:
    """The first and the last bytes of a file."""
    with path.open("rb") as file:
        head = file.read(file_types.HEAD_BYTES)
        file.seek(max(0, path.stat().st_size - file_types.TAIL_BYTES))
        return head, file.read(file_types.TAIL_BYTES)


def _read_binary(path: Path, media_type: str, *, limits: ExtractionLimits, reports: PageReports) -> Extraction:
    # the readers import lxml or Pillow (20 to 60 ms), so only if a file needs them
    if media_type == file_types.DOCX:
        from ragsvc.extract.formats.word import read_word  # noqa: PLC0415 - see above

        return read_word(path, limits=limits, reports=reports)
    if media_type == file_types.XLSX:
        from ragsvc.extract.formats.workbook import read_workbook  # noqa: PLC0415 - see above

        return read_workbook(path, limits=limits, reports=reports)
    if media_type == file_types.PPTX:
        from ragsvc.extract.formats.slides import read_slides  # noqa: PLC0415 - see above

        return read_slides(path, limits=limits, reports=reports)
    if media_type == file_types.EPUB:
        from ragsvc.extract.formats.epub import read_epub  # noqa: PLC0415 - see above

        return read_epub(path, limits=limits, reports=reports)
    from ragsvc.extract.formats.pictures import read_pictures  # noqa: PLC0415 - see above

    return read_pictures(path, limits=limits, reports=reports)


def _read_text(
    path: Path, declared: str, *, markdown: bool, charset: str | None, limits: ExtractionLimits, reports: PageReports
) -> Extraction:
    if declared == file_types.HTML:
        from ragsvc.extract.formats.web_page import read_web_page  # noqa: PLC0415 - imports lxml

        return read_web_page(path, limits=limits, reports=reports, charset=charset)
    if declared in (file_types.CSV, file_types.TSV):
        from ragsvc.extract.formats.csv_table import read_csv  # noqa: PLC0415 - only if a file needs it

        return read_csv(path, limits=limits, reports=reports, charset=charset)
    return read_text(path, markdown=markdown, limits=limits, on_progress=reports.on_progress, charset=charset)


def _not_a_pdf(description: str) -> ExtractionFailed:
    return ExtractionFailed(FailureReason.NOT_A_PDF, f"The file is not a PDF: it is {description}.")


def _description(found: file_types.FileType | None, head: bytes) -> str:
    if found is not None:
        return found.name
    if not head.strip(b"\x00\t\r\n "):
        return "only zero bytes or white space"
    if _looks_like_html(head):
        return "a web page (often an error or login page saved as PDF)"
    return "plain text; send it as text/plain" if file_types.is_text(head) else "of an unknown type"


def _looks_like_html(head: bytes) -> bool:
    start = head.lstrip().lower()
    return start.startswith((b"<!doctype html", b"<html", b"<head", b"<?xml"))
