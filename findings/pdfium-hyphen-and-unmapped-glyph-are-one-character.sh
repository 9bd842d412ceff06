#!/usr/bin/env bash
# pypdfium2 5.15.2 (pdfium as bundled in its wheel), PdfTextPage.get_text_range.
#
# Expected: U+FFFE in the extracted text marks a hyphen at the end of a line, as pdfium's headers and many programs say,
#   so removing it joins the parts of a broken word. Glyphs whose ToUnicode entry is U+0000 have no text: they are left
#   out, or become U+FFFD.
# Behaviour: a glyph without a character is U+FFFE as well. A figure in a font with an empty map ("186") becomes three
#   hyphens, and code that joins hyphenated words deletes it without a trace. Only FPDFText_GetUnicode tells them
#   apart: 2 for the hyphen, 0 for the glyph.
# Output seen: U+FFFE for both; FPDFText_GetUnicode 2 and 0
#
# Exits with 0 while the behaviour is as described, and with 1 once it has changed.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet pypdfium2==5.15.2
"$folder/venv/bin/python" - <<'PYTHON'
import pypdfium2
import pypdfium2.raw


def pdf(content: bytes, cmap: bytes) -> bytes:
    font = b"<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica /Encoding /WinAnsiEncoding"
    objects = [
        b"<< /Type /Catalog /Pages 2 0 R >>",
        b"<< /Type /Pages /Kids [3 0 R] /Count 1 >>",
        b"<< /Type /Page /Parent 2 0 R /MediaBox [0 0 300 200] /Contents 4 0 R"
        b" /Resources << /Font << /A 5 0 R /B 6 0 R >> >> >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(content), content),
        font + b" >>",
        font + b" /ToUnicode 7 0 R >>",
        b"<< /Length %d >>\nstream\n%s\nendstream" % (len(cmap), cmap),
    ]
    out, offsets = b"%PDF-1.7\n", []
    for number, body in enumerate(objects, start=1):
        offsets.append(len(out))
        out += b"%d 0 obj\n%s\nendobj\n" % (number, body)
    table = b"".join(b"%010d 00000 n \n" % offset for offset in offsets)
    start = len(out)
    out += b"xref\n0 %d\n0000000000 65535 f \n%s" % (len(objects) + 1, table)
    return out + b"trailer << /Size %d /Root 1 0 R >>\nstartxref\n%d\n%%%%EOF\n" % (len(objects) + 1, start)


CMAP = (
    b"/CIDInit /ProcSet findresource begin 12 dict begin begincmap /CMapName /Empty def /CMapType 2 def\n"
    b"1 begincodespacerange <00> <FF> endcodespacerange\n"
    b"3 beginbfchar <31> <0000> <36> <0000> <38> <0000> endbfchar\nendcmap end end"
)
CONTENT = (
    b"BT /A 12 Tf 20 150 Td (The members of the associ-) Tj 0 -14 Td (ation pay a fee of ) Tj"
    b" /B 12 Tf (186) Tj /A 12 Tf ( euros.) Tj ET"
)
with pypdfium2.PdfDocument(pdf(CONTENT, CMAP)) as document:
    text_page = document[0].get_textpage()
    text = text_page.get_text_range()
    print(ascii(text))
    marks = [index for index, character in enumerate(text) if character == "\ufffe"]
    codes = [pypdfium2.raw.FPDFText_GetUnicode(text_page.raw, index) for index in marks]
    print(codes)
raise SystemExit(codes != [2, 0, 0, 0])
PYTHON
