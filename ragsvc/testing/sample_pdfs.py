"""Makes small real PDF files of plain text, one string per line; what is odd about a file is ``pdf_builder``'s."""

from __future__ import annotations

from collections.abc import Sequence

from ragsvc.testing import pdf_builder


def make_pdf(pages: Sequence[Sequence[str]]) -> bytes:
    """A PDF with one page per list of lines."""
    return pdf_builder.make_pdf([pdf_builder.lines(lines) for lines in pages])
