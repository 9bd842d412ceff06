"""Builds small PDFs for tests, object by object, so that a test controls every detail of its file."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pypdfium2

A4 = (595, 842)
_DIGIT_NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")


class Text(NamedTuple):
    """A string in Helvetica at a position in points, from the bottom left."""

    x: float
    y: float
    text: str
    size: float = 11
    bold: bool = False


def escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("(", "\\(").replace(")", "\\)")


def content(texts: Iterable[Text]) -> bytes:
    parts = [
        f"BT /{'B' if bold else 'F'} {size} Tf {x} {y} Td ({escape(text)}) Tj ET" for x, y, text, size, bold in texts
    ]
    return "\n".join(parts).encode("cp1252")


def assemble(objects: Sequence[bytes], *, root: int = 1, info: int | None = None) -> bytes:
    """A PDF file of objects 1..n with a cross-reference table."""
    out = bytearray(b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n")
    offsets = []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n" % number + body + b"\nendobj\n"
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n" % (len(objects) + 1)
    out += b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    extra = b" /Info %d 0 R" % info if info else b""
    out += b"trailer\n<< /Size %d /Root %d 0 R%s >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, root, extra, start)
    return bytes(out)


def stream(data: bytes, *, compress: bool = False, extra: bytes = b"") -> bytes:
    if compress:
        data, extra = zlib.compress(data), extra + b" /Filter /FlateDecode"
    return b"<< /Length %d%s >>\nstream\n" % (len(data), extra) + data + b"\nendstream"


def make_pdf(
    pages: Sequence[Sequence[Text] | bytes],
    *,
    size: tuple[int, int] = A4,
    page_extra: bytes = b"",
    title: str | None = None,
    outline: Sequence[tuple[str, int]] = (),
    font: bytes = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
) -> bytes:
    """A PDF with pages of texts or of raw content; ``outline`` has (title, page from 1)."""
    bold = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica-Bold /Encoding /WinAnsiEncoding >>"
    first_page = 6
    page_numbers = [first_page + 2 * index for index in range(len(pages))]
    kids = b" ".join(b"%d 0 R" % number for number in page_numbers)
    first_bookmark = first_page + 2 * len(pages)
    outlines = b" /Outlines %d 0 R" % first_bookmark if outline else b""
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R%s >>" % outlines,
        b"<< /Type /Pages /Kids [%s] /Count %d >>" % (kids, len(pages)),
        font,
        bold,
        b"<< /Title (%s) >>" % escape(title or "").encode("latin-1"),
    ]
    for number, page in zip(page_numbers, pages, strict=True):
        body = page if isinstance(page, bytes) else content(page)
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 %d %d] /Contents %d 0 R%s"
            b" /Resources << /Font << /F 3 0 R /B 4 0 R >> >> >>" % (*size, number + 1, page_extra)
        )
        objects.append(stream(body))
    if outline:
        last = first_bookmark + len(outline)
        objects.append(b"<< /Type /Outlines /First %d 0 R /Last %d 0 R >>" % (first_bookmark + 1, last))
        for index, (name, page_number) in enumerate(outline, start=1):
            number = first_bookmark + index
            following = b" /Next %d 0 R" % (number + 1) if number < last else b""
            objects.append(
                b"<< /Title (%s) /Parent %d 0 R%s /Dest [%d 0 R /Fit] >>"
                % (escape(name).encode("latin-1"), first_bookmark, following, page_numbers[page_number - 1])
            )
    return assemble(objects, info=5 if title is not None else None)


def make_scan(
    source: Path,
    page: int,
    *,
    turns: int = 0,
    skew: float = 0.0,
    dpi: int = 150,
    then: Sequence[Sequence[Text]] = (),
    stamp: Sequence[Text] = (),
    layer: Sequence[Text] = (),
) -> bytes:
    """A scan: a PDF page with a grey image of page ``page`` (from 1) of ``source``, followed by ``then`` pages of text.

    ``stamp`` is text on the image, and ``layer`` is invisible text on it. The image has ``turns`` clockwise quarter
    turns and is skewed by ``skew`` degrees counter-clockwise.
    """
    with pypdfium2.PdfDocument(source) as document:
        options: dict[str, Any] = {"scale": dpi / 72, "grayscale": True}  # pypdfium2 has no types: scale's default is 1
        picture = document[page - 1].render(**options).to_pil().rotate(-90 * turns, expand=True)
    picture = picture.rotate(skew, fillcolor=255)
    width, height = picture.size
    extra = b" /Type /XObject /Subtype /Image /ColorSpace /DeviceGray /BitsPerComponent 8 /Width %d /Height %d"
    size = (round(72 * width / dpi), round(72 * height / dpi))
    contents = [
        stream(b"q %d 0 0 %d 0 0 cm /P Do Q\n" % size + content(stamp) + b"\n3 Tr " + content(layer)),
        *(stream(content(texts)) for texts in then),
    ]
    count = len(contents)
    kids = b" ".join(b"%d 0 R" % (5 + index) for index in range(count))
    return assemble(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Kids [%s] /Count %d /MediaBox [0 0 %d %d]"
            b" /Resources << /XObject << /P 4 0 R >> /Font << /F 3 0 R >> >> >>" % (kids, count, *size),
            b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
            stream(picture.tobytes(), compress=True, extra=extra % (width, height)),
            *(b"<< /Type /Page /Parent 2 0 R /Contents %d 0 R >>" % (5 + count + index) for index in range(count)),
            *contents,
        ]
    )


def lines(
    texts: Iterable[str], *, x: float = 72, top: float = 760, leading: float = 13.5, size: float = 11
) -> list[Text]:
    """Lines of text below each other."""
    return [Text(x, top - leading * index, text, size) for index, text in enumerate(texts)]


def make_unmapped_pdf(pages: Sequence[Sequence[str]], *, target: str) -> bytes:
    """Pages of a line each; every second part is in a font whose ToUnicode maps each code to ``target`` (hex)."""
    to_unicode = (
        "/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /X def /CMapType 2 def\n"
        "1 begincodespacerange <00> <FF> endcodespacerange\n"
        "95 beginbfchar\n" + "\n".join(f"<{code:02X}> <{target}>" for code in range(32, 127)) + "\nendbfchar\n"
        "endcmap CMapName currentdict /CMap defineresource pop end end"
    )
    contents = [
        b"BT 72 700 Td "
        + b" ".join(
            f"/{'G' if index % 2 else 'F'} 10 Tf ({escape(part)}) Tj".encode("cp1252")
            for index, part in enumerate(parts)
        )
        + b" ET"
        for parts in pages
    ]
    helvetica = b"/Type /Font /Subtype /Type1 /BaseFont /Helvetica"
    return assemble(
        [
            b"<< /Type /Catalog /Pages 2 0 R >>",
            b"<< /Type /Pages /Kids [%s] /Count %d /MediaBox [0 0 595 842]"
            b" /Resources << /Font << /F 3 0 R /G 4 0 R >> >> >>"
            % (b" ".join(b"%d 0 R" % (6 + 2 * index) for index in range(len(pages))), len(pages)),
            b"<< %s /Encoding /WinAnsiEncoding >>" % helvetica,
            b"<< %s /ToUnicode 5 0 R >>" % helvetica,
            stream(to_unicode.encode()),
            *(
                body
                for index, content_of_page in enumerate(contents)
                for body in (
                    b"<< /Type /Page /Parent 2 0 R /Contents %d 0 R >>" % (7 + 2 * index),
                    stream(content_of_page),
                )
            ),
        ]
    )


def make_type3_pdf(texts: Sequence[str], *, names: str, then: Sequence[Sequence[str]] = ()) -> bytes:
    """A page in a Type 3 font without ToUnicode whose codes are those of signs and digits; then pages in Helvetica.

    ``names`` of the glyphs: ``standard`` (``/a``, ``/space``) or ``numbers`` (``/g33``).
    """
    characters = sorted(set("".join(texts)))
    code_of = {character: 33 + index for index, character in enumerate(characters)}
    standard = {" ": "space", ".": "period", ",": "comma", **{str(n): name for n, name in enumerate(_DIGIT_NAMES)}}
    glyphs = [
        standard.get(character, character) if names == "standard" else f"g{code_of[character]}"
        for character in characters
    ]
    first, last = 33, 32 + len(characters)
    shown = [bytes(code_of[character] for character in text) for text in texts]
    codes = b"".join(
        b"BT /F 12 Tf 72 %d Td <%s> Tj ET\n" % (740 - 20 * index, text.hex().encode())
        for index, text in enumerate(shown)
    )
    font = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>"
    count = 1 + len(then)
    pages = [codes, *(content([Text(72, 740 - 20 * at, text) for at, text in enumerate(page)]) for page in then)]
    kids = b" ".join(b"%d 0 R" % (6 + 2 * index) for index in range(count))
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [%s] /Count %d /MediaBox [0 0 595 842] >>" % (kids, count),
        b"<< /Type /Font /Subtype /Type3 /FontBBox [0 0 600 700] /FontMatrix [.001 0 0 .001 0 0] /FirstChar %d"
        b" /LastChar %d /Widths [%s] /CharProcs << %s >> /Resources << >> /Encoding << /Type /Encoding"
        b" /Differences [33 %s] >> >>"
        % (
            first,
            last,
            b" ".join([b"600"] * len(glyphs)),
            b" ".join(f"/{name} 5 0 R".encode() for name in glyphs),
            b" ".join(f"/{name}".encode() for name in glyphs),
        ),
        font,
        stream(b"600 0 0 0 600 700 d1 100 0 400 600 re f"),
    ]
    for index, page in enumerate(pages):
        used = 4 if index else 3
        objects.append(
            b"<< /Type /Page /Parent 2 0 R /Contents %d 0 R /Resources << /Font << /F %d 0 R >> >> >>"
            % (7 + 2 * index, used)
        )
        objects.append(stream(page))
    return assemble(objects)


def make_annotated_pdf(
    texts: Sequence[Text],
    annotations: Sequence[bytes],
    *,
    fields: Sequence[bytes] = (),
    appearances: Sequence[bytes] = (),
) -> bytes:
    """A page of texts with annotations; ``annotations`` and ``fields`` are the entries of their dictionaries.

    Field ``n`` (from 0) is object ``20 + n``, appearance ``n`` object ``40 + n``, annotation ``n`` object ``60 + n``;
    widgets without a ``/Parent`` are fields of the form.
    """
    numbers = range(60, 60 + len(annotations))
    own = [
        number for number, body in zip(numbers, annotations, strict=True) if b"/FT" in body and b"/Parent" not in body
    ]
    form = b" ".join(b"%d 0 R" % number for number in [*range(20, 20 + len(fields)), *own])
    font = b"<< /Font << /F 4 0 R /B 4 0 R >> >>"
    objects = {
        1: b"<< /Type /Catalog /Pages 2 0 R /AcroForm << /Fields [%s] /DA (/F 10 Tf) /DR %s >> >>" % (form, font),
        2: b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        3: b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents 5 0 R /Resources %s /Annots [%s] >>"
        % (font, b" ".join(b"%d 0 R" % number for number in numbers)),
        4: b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding >>",
        5: stream(content(texts)),
    }
    objects |= {20 + index: b"<< %s >>" % body for index, body in enumerate(fields)}
    shape = b" /Type /XObject /Subtype /Form /BBox [0 0 300 40] /Resources " + font
    objects |= {40 + index: stream(body, extra=shape) for index, body in enumerate(appearances)}
    objects |= {
        number: b"<< /Type /Annot /P 3 0 R %s >>" % body for number, body in zip(numbers, annotations, strict=True)
    }
    return assemble([objects.get(number, b"null") for number in range(1, 1 + max(objects))])
