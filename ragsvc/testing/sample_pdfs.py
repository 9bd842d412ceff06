"""Makes small PDFs of plain text. ``pdf_builder`` makes all others."""

from __future__ import annotations

from collections.abc import Sequence

from ragsvc.testing import pdf_builder


def text_pdf(pages: Sequence[Sequence[str]]) -> bytes:
    """A PDF with a page for each list of lines."""
    return pdf_builder.make_pdf([pdf_builder.lines(lines) for lines in pages])
