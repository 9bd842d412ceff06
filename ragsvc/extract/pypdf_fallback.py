"""pypdf as the second opinion on files and pages that pdfium cannot read. Imported only when needed."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ragsvc.core.errors import ExtractionFailed, FailureReason
from ragsvc.extract.clean import clean_line, is_garbled

if TYPE_CHECKING:
    from pypdf import PdfReader

_DAMAGED = "The PDF is damaged: it is cut off or its structure is broken beyond repair."


def count_pages(path: Path, *, password: str | None) -> int:
    """Count the pages pypdf finds.

    Raises:
        ExtractionFailed: pypdf cannot open the file either, or finds it locked.
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
    """Read pages (from 1) as pypdf sees them; those it cannot read either are missing.

    None are read when pypdf does not count ``page_count`` pages: its page 3 may then be another one.
    """
    texts: dict[int, str] = {}
    try:
        pages = _open(path, password).pages
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - pypdf raises whatever a broken file leads it to; no opinion then
        return texts
    if len(pages) != page_count:
        return texts
    for number in numbers:
        try:
            raw = pages[number - 1].extract_text()
        except MemoryError:
            raise
        except Exception:  # noqa: BLE001, S112 - as above, for one page
            continue
        finally:
            if on_page is not None:
                on_page(number)
        text = "\n".join(line for line in map(clean_line, raw.splitlines()) if line)
        if text and not is_garbled(raw):
            texts[number] = text
    return texts


def _open(path: Path, password: str | None) -> PdfReader:
    from pypdf import PdfReader  # noqa: PLC0415 - 50 ms and memory that healthy files need not pay
    from pypdf.errors import DependencyError, FileNotDecryptedError, WrongPasswordError  # noqa: PLC0415 - as above

    try:
        reader = PdfReader(path, strict=False, password=password)
    except WrongPasswordError as error:
        raise ExtractionFailed(
            FailureReason.PASSWORD_WRONG, "The PDF is protected and the given password does not open it."
        ) from error
    except DependencyError as error:
        raise ExtractionFailed(
            FailureReason.UNSUPPORTED_ENCRYPTION, "The PDF is encrypted in a way that ragsvc does not know."
        ) from error
    try:
        len(reader.pages)
    except FileNotDecryptedError as error:
        raise ExtractionFailed(
            FailureReason.PASSWORD_REQUIRED, "The PDF is protected; send its password along to have it read."
        ) from error
    return reader
