"""Builds small Office documents, books and messages for tests, part by part, so that a test controls every detail."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

_OFFICE = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
_WORD = "http://schemas.openxmlformats.org/wordprocessingml/2006/main"
_SHEET = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
_SLIDE = "http://schemas.openxmlformats.org/presentationml/2006/main"
_DRAWING = "http://schemas.openxmlformats.org/drawingml/2006/main"


def zipped(members: Mapping[str, str | bytes], *, stored: tuple[str, ...] = ()) -> bytes:
    """A ZIP archive of these members, compressed unless they are ``stored``."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content, zipfile.ZIP_STORED if name in stored else zipfile.ZIP_DEFLATED)
    return buffer.getvalue()


def relations(*targets: tuple[str, str, str]) -> str:
    """A part of relations: ``(id, kind, target)``."""
    listed = "".join(f'<Relationship Id="{key}" Type="{_OFFICE}/{kind}" Target="{to}"/>' for key, kind, to in targets)
    return (
        f'<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">{listed}</Relationships>'
    )


def _package(main: str, members: Mapping[str, str | bytes]) -> bytes:
    common = {
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types"/>',
        "_rels/.rels": relations(("rId1", "officeDocument", main)),
    }
    return zipped({**common, **members})


def docx(body: str, **parts: str) -> bytes:
    """A Word document; ``parts`` are ``styles``, ``numbering``, ``footnotes``, ``comments`` and so on."""
    targets = [(f"rId{kind}", kind, f"{kind}.xml") for kind in parts]
    opened = f'xmlns:w="{_WORD}" xmlns:r="{_OFFICE}"'
    members = {
        "word/document.xml": f"<w:document {opened}><w:body>{body}</w:body></w:document>",
        "word/_rels/document.xml.rels": relations(*targets),
        **{f"word/{kind}.xml": f"<w:{kind} {opened}>{content}</w:{kind}>" for kind, content in parts.items()},
    }
    return _package("word/document.xml", members)


def paragraph(text: str, *, run: str = "", properties: str = "") -> str:
    """A Word paragraph with a run of text."""
    return (
        f'<w:p><w:pPr>{properties}</w:pPr><w:r><w:rPr>{run}</w:rPr><w:t xml:space="preserve">{text}</w:t></w:r></w:p>'
    )


def xlsx(sheets: Mapping[str, str], *, strings: str = "", styles: str = "", states: Mapping[str, str] | None = None):
    """A workbook of sheets by name; a sheet is the content of ``worksheet``."""
    states = states or {}
    listed = "".join(
        f'<sheet name="{name}" sheetId="{number}" r:id="rId{number}" state="{states.get(name, "visible")}"/>'
        for number, name in enumerate(sheets, start=1)
    )
    targets = [(f"rId{number}", "worksheet", f"worksheets/sheet{number}.xml") for number in range(1, len(sheets) + 1)]
    targets += [("rIdS", "sharedStrings", "sharedStrings.xml"), ("rIdT", "styles", "styles.xml")]
    members = {
        "xl/workbook.xml": f'<workbook xmlns="{_SHEET}" xmlns:r="{_OFFICE}"><sheets>{listed}</sheets></workbook>',
        "xl/_rels/workbook.xml.rels": relations(*targets),
        "xl/sharedStrings.xml": f'<sst xmlns="{_SHEET}">{strings}</sst>',
        "xl/styles.xml": f'<styleSheet xmlns="{_SHEET}">{styles}</styleSheet>',
    }
    for number, content in enumerate(sheets.values(), start=1):
        members[f"xl/worksheets/sheet{number}.xml"] = f'<worksheet xmlns="{_SHEET}">{content}</worksheet>'
    return _package("xl/workbook.xml", members)


def formats(*codes: str) -> str:
    """Styles of cells with these number formats; style 0 is General."""
    own = "".join(f'<numFmt numFmtId="{200 + n}" formatCode="{code}"/>' for n, code in enumerate(codes))
    used = "".join(f'<xf numFmtId="{200 + n}"/>' for n in range(len(codes)))
    return f'<numFmts>{own}</numFmts><cellXfs><xf numFmtId="0"/>{used}</cellXfs>'


def pptx(slides: list[str], *, attributes: Mapping[int, str] | None = None) -> bytes:
    """A presentation of slides; a slide is the content of ``spTree``, its attributes are by number from 1."""
    attributes = attributes or {}
    numbers = range(1, len(slides) + 1)
    opened = f'xmlns:p="{_SLIDE}" xmlns:r="{_OFFICE}" xmlns:a="{_DRAWING}"'
    listed = "".join(f'<p:sldId id="{255 + number}" r:id="rId{number}"/>' for number in numbers)
    members: dict[str, str | bytes] = {
        "ppt/presentation.xml": f"<p:presentation {opened}><p:sldIdLst>{listed}</p:sldIdLst></p:presentation>",
        "ppt/_rels/presentation.xml.rels": relations(*((f"rId{n}", "slide", f"slides/slide{n}.xml") for n in numbers)),
    }
    for number, content in zip(numbers, slides, strict=True):
        members[f"ppt/slides/slide{number}.xml"] = (
            f"<p:sld {opened} {attributes.get(number, '')}><p:cSld><p:spTree>{content}</p:spTree></p:cSld></p:sld>"
        )
    return _package("ppt/presentation.xml", members)


def shape(*paragraphs: str, kind: str = "", hidden: bool = False) -> str:
    """A shape of a slide with paragraphs of text; ``kind`` is that of a placeholder."""
    placeholder = f'<p:ph type="{kind}"/>' if kind else ""
    text = "".join(f"<a:p><a:r><a:t>{paragraph}</a:t></a:r></a:p>" for paragraph in paragraphs)
    return (
        f'<p:sp><p:nvSpPr><p:cNvPr id="2" name="x" hidden="{int(hidden)}"/><p:nvPr>{placeholder}</p:nvPr></p:nvSpPr>'
        f"<p:txBody>{text}</p:txBody></p:sp>"
    )


def epub(
    chapters: Mapping[str, str], *, title: str = "A book", extra: Mapping[str, str | bytes] | None = None
) -> bytes:
    """A book; ``chapters`` are bodies by the names in the table of contents."""
    numbers = range(1, len(chapters) + 1)
    manifest = "".join(f'<item id="c{n}" href="text/c{n}.xhtml" media-type="application/xhtml+xml"/>' for n in numbers)
    spine = "".join(f'<itemref idref="c{n}"/>' for n in numbers)
    links = "".join(
        f'<li><a href="text/c{n}.xhtml#a">{name}</a></li>' for n, name in zip(numbers, chapters, strict=True)
    )
    page = '<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml"><head><title/></head><body>{}</body></html>'
    members: dict[str, str | bytes] = {
        "mimetype": "application/epub+zip",
        "META-INF/container.xml": '<container><rootfile full-path="OEBPS/book.opf"/></container>',
        "OEBPS/book.opf": (
            f'<package xmlns:dc="d"><metadata><dc:title>{title}</dc:title></metadata><manifest>{manifest}'
            '<item id="nav" href="nav.xhtml" properties="nav" media-type="application/xhtml+xml"/></manifest>'
            f"<spine>{spine}</spine></package>"
        ),
        "OEBPS/nav.xhtml": page.format(f"<nav><ol>{links}</ol></nav>"),
        **{f"OEBPS/text/c{n}.xhtml": page.format(body) for n, body in zip(numbers, chapters.values(), strict=True)},
        **(extra or {}),
    }
    return zipped(members, stored=("mimetype",))
