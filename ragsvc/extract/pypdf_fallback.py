"""Reads files and pages with pypdf that pdfium cannot read.

pypdf also applies the glyph names of Type 3 fonts (``/Differences``, ISO 32000-1 §9.10.2), which pdfium does not.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ragsvc.core.errors import ExtractionFailed, FailureReason
from ragsvc.extract.clean import clean_line, is_garbled
from ragsvc.extract.glyph_evidence import (
    has_foreign_letters,
    has_glyph_names,
    looks_like_codes,
    mark_unusable,
    needs_recognition,
)
from ragsvc.extract.pdf_passwords import password_spellings

if TYPE_CHECKING:
    from pypdf import PdfReader

_DAMAGED = "The PDF is damaged: it is truncated, or its structure cannot be repaired."


def count_pages(path: Path, *, password: str | None) -> int:
    """The number of pages that pypdf finds.

    Raises:
        ExtractionFailed: pypdf cannot open the file either, or needs a password.
    """
    try:
        count = len(_open(path, password).pages)
    except (ExtractionFailed, MemoryError):
        raise
    except Exception as error:
        raise ExtractionFailed(FailureReason.DAMAGED, _DAMAGED) from error
    if count == 0:
        raise ExtractionFailed(FailureReason.DAMAGED, "The PDF is damaged or empty: it has no pages.")
    return count


def read_pages(
    path: Path,
    *,
    password: str | None,
    numbers: Iterable[int],
    page_count: int,
    on_page: Callable[[int], None] | None = None,
) -> dict[int, str]:
    """Read pages (from 1) with pypdf; pages that it cannot read either are missing in the result.

    The result is empty if pypdf does not find ``page_count`` pages, because its page numbers may then differ.
    """
    texts: dict[int, str] = {}
    try:
        pages = _open(path, password).pages
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - a damaged file can cause any error in pypdf
        return texts
    if len(pages) != page_count:
        return texts
    for number in numbers:
        try:
            raw = pages[number - 1].extract_text()
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001, S112 - as above, for a page
            continue
        finally:
            if on_page is not None:
                on_page(number)
        text = "\n".join(line for line in map(clean_line, raw.splitlines()) if line)
        if text and not _is_unusable(raw):
            texts[number] = text
    return texts


def _is_unusable(raw: str) -> bool:
    marked = mark_unusable(raw, [index for index, character in enumerate(raw) if character == "\x00"])
    return (
        needs_recognition(marked)
        or is_garbled(raw)
        or looks_like_codes(raw)
        or has_foreign_letters(raw)
        or has_glyph_names(raw)
    )


def _open(path: Path, password: str | None) -> PdfReader:
    from pypdf import PdfReader  # noqa: PLC0415 - 50 ms and memory, only for damaged files
    from pypdf.errors import DependencyError, FileNotDecryptedError, WrongPasswordError  # noqa: PLC0415 - as above

    def unlock() -> PdfReader:
        *others, last = password_spellings(password)
        for spelling in others:
            with contextlib.suppress(WrongPasswordError):
                return PdfReader(path, strict=False, password=spelling)
        return PdfReader(path, strict=False, password=last)

    try:
        reader = unlock()
    except WrongPasswordError as error:
        raise ExtractionFailed(
            FailureReason.PASSWORD_WRONG, "The PDF is password-protected, and the password is wrong."
        ) from error
    except DependencyError as error:
        raise ExtractionFailed(
            FailureReason.UNSUPPORTED_ENCRYPTION, "The PDF is encrypted with a method that ragsvc does not support."
        ) from error
    try:
        len(reader.pages)
    except FileNotDecryptedError as error:
        raise ExtractionFailed(
            FailureReason.PASSWORD_REQUIRED, "The PDF is password-protected; send the password with the upload."
        ) from error
    return reader
