"""Reads Word documents (DOCX): paragraphs, lists, tables, notes, headers and footers, in reading order.

A page is a printed page where Word noted page breaks at the last layout, or where the author set them; a document
without either is divided into parts of about 3,000 characters, which are labelled as parts.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from ragsvc.core.documents import Extraction
from ragsvc.core.errors import ExtractionFailed, FailureReason
from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.formats.charts import chart_rows, chart_title, diagram_texts
from ragsvc.extract.formats.markdown_table import table_rows
from ragsvc.extract.formats.package_properties import package_title
from ragsvc.extract.formats.page_builder import VIRTUAL_PAGE_CHARACTERS, PageBuilder
from ragsvc.extract.formats.word_runs import (
    GraphicPart,
    NoteMark,
    PageBreak,
    ParagraphReader,
    Piece,
    RunText,
    TextBox,
    superscript,
)
from ragsvc.extract.formats.word_styles import WordNumbering, WordStyles, is_on, value_of
from ragsvc.extract.formats.xml_trees import Element, attribute, child, children, local
from ragsvc.extract.formats.zip_package import ZipPackage, open_package
from ragsvc.extract.pdf_pages import PageReports

_CONTAINERS = frozenset({"sdt", "sdtContent", "ins", "moveTo", "customXml", "smartTag", "AlternateContent", "Choice"})
_MAX_DEPTH = 40
_NOTE_SEPARATORS = frozenset({"separator", "continuationSeparator", "continuationNotice"})
_NEW_PAGE = frozenset({"nextPage", "oddPage", "evenPage"})


def read_word(path: Path, *, limits: ExtractionLimits, reports: PageReports) -> Extraction:
    """Read a Word document. Raises ``ExtractionFailed``."""
    with open_package(path) as package:
        main = next((found.path for found in package.relations("").values() if found.kind == "officeDocument"), "")
        root = package.xml(main or "word/document.xml")
        body = child(root, "body")
        if root is None or body is None:
            raise ExtractionFailed(FailureReason.DAMAGED, "The file is damaged: the Word document has no text part.")
        has_pages = any(local(found) == "lastRenderedPageBreak" for found in root.iter())
        builder = PageBuilder(limits, split_at=None if has_pages else VIRTUAL_PAGE_CHARACTERS * 6 // 5)
        flow = _WordFlow(package, main or "word/document.xml", builder)
        flow.document(body)
        extraction = builder.finish(
            title=package_title(package) or builder.first_heading,
            nothing="The Word document contains no text.",
            on_progress=reports.on_progress,
        )
        return extraction if has_pages or flow.breaks else _as_parts(extraction)


def _as_parts(extraction: Extraction) -> Extraction:
    """Label the pages of a document without page breaks, so that they are not taken for printed pages."""
    if extraction.page_count < 2:
        return extraction
    pages = [type(page)(page.number, page.text, f"part {page.number}") for page in extraction.pages]
    return type(extraction)(
        pages=pages,
        headings=extraction.headings,
        problems=extraction.problems,
        title=extraction.title,
        page_count=extraction.page_count,
    )


class _ParagraphText(msgspec.Struct):
    """What a paragraph has besides its text, and its text so far."""

    level: int
    mark: str
    is_item: bool
    parts: list[str]
    boxes: list[Any] = []
    graphics: list[GraphicPart] = []
    comments: list[str] = []


class _WordFlow:
    """Walks a document and adds its blocks to pages."""

    def __init__(self, package: ZipPackage, main: str, builder: PageBuilder) -> None:
        self._package = package
        self._builder = builder
        self._relations = package.relations(main)
        parts = {relation.kind: relation.path for relation in self._relations.values()}
        self._styles = WordStyles(package.xml(parts.get("styles", "")))
        self._numbering = WordNumbering(package.xml(parts.get("numbering", "")))
        self._reader = ParagraphReader(self._styles)
        self._notes = {
            kind: _notes(package.xml(parts.get(f"{kind}s", ""))) for kind in ("footnote", "endnote", "comment")
        }
        self._even_pages = is_on(package.xml(parts.get("settings", "")), "evenAndOddHeaders") or False
        self._marks: dict[tuple[str, str], str] = {}
        self._waiting: list[tuple[str, Element]] = []
        self._endnotes: list[tuple[str, Element]] = []
        self._sections: list[Element] = []
        self._repeated: set[str] = set()
        self._wrote_since_break = False
        self._break_before: bool | None = None
        self._joined = ""
        self.breaks = 0

    def document(self, body: Element) -> None:
        self._sections = [found for found in body.iter() if local(found) == "sectPr"]
        self._margins("header")
        for block in _blocks(body):
            self._block(block)
            section = child(child(block, "pPr"), "sectPr") if local(block) == "p" else None
            if section is not None:
                self._end_section(section)
        self._end_page_notes()
        for mark, note in self._endnotes:
            self._note(mark, note)
        self._margins("footer")

    def _end_section(self, section: Element) -> None:
        self._margins("footer")
        if section in self._sections:
            self._sections.remove(section)
        following = self._sections[0] if self._sections else None
        kind = value_of(following, "type") or "nextPage" if following is not None else ""
        if kind in _NEW_PAGE:
            self._break(PageBreak())
        self._margins("header")

    def _margins(self, kind: str) -> None:
        """Add the headers or footers of the present section, unless a section before had the same."""
        section = self._sections[0] if self._sections else None
        for reference in children(section):
            if local(reference) != f"{kind}Reference":
                continue
            shown = attribute(reference, "type") or "default"
            if (shown == "first" and not is_on(section, "titlePg")) or (shown == "even" and not self._even_pages):
                continue
            relation = self._relations.get(attribute(reference, "id") or "")
            root = self._package.xml(relation.path) if relation is not None else None
            lines = [self._plain(block) for block in _blocks(root)] if root is not None else list[str]()
            text = "\n".join(filter(None, lines))
            if text.strip() and not text.strip().isdigit() and text not in self._repeated:
                self._repeated.add(text)
                self._builder.block(text)

    def _block(self, block: Element, depth: int = 0) -> None:
        if depth > _MAX_DEPTH:
            return
        if local(block) == "p":
            self._paragraph(block, depth)
        elif local(block) == "tbl":
            self._table(block, depth)

    def _paragraph(self, paragraph: Element, depth: int) -> None:
        properties = child(paragraph, "pPr")
        if is_on(properties, "pageBreakBefore") and self._wrote_since_break:
            self._break(PageBreak())
        place = self._styles.list_place(properties)
        text = _ParagraphText(
            level=self._styles.heading_level(properties),
            mark=self._numbering.next_mark(place) if place is not None else "",
            is_item=place is not None,
            parts=[self._joined],
        )
        self._joined = ""
        for piece in self._reader.pieces(paragraph):
            self._add_piece(piece, text)
        if child(child(properties, "rPr"), "del") is not None:  # the end of the paragraph was deleted
            self._joined = "".join(text.parts)
        else:
            self._write_paragraph(text)
        for box in text.boxes:
            for block in _blocks(box):
                self._block(block, depth + 1)
        for graphic in text.graphics:
            self._graphic(graphic)
        for note_id in text.comments:
            self._comment(note_id)

    def _add_piece(self, piece: Piece, text: _ParagraphText) -> None:
        match piece:
            case RunText():
                self._add_run(piece, text.parts)
            case PageBreak():
                self._write_paragraph(text)
                self._break(piece)
            case NoteMark(kind="comment"):
                text.comments.append(piece.note_id)
            case NoteMark():
                text.parts.append(self._note_mark(piece))
            case TextBox():
                text.boxes.append(piece.content)
            case GraphicPart():
                text.graphics.append(piece)

    def _write_paragraph(self, text: _ParagraphText) -> None:
        """Write the text up to here; its list mark only once, also if a page ends inside the paragraph."""
        written = "".join(text.parts).strip()
        text.parts.clear()
        if written:
            self._write(f"{text.mark} {written}" if text.mark else written, level=text.level, joined=text.is_item)
            text.mark = ""

    def _add_run(self, run: RunText, parts: list[str]) -> None:
        if run.hidden:
            self._builder.hidden(run.text)
        elif run.struck and run.text.strip():
            if parts and parts[-1].endswith("~~"):
                parts[-1] = f"{parts[-1][:-2]}{run.text}~~"
            else:
                parts.append(f"~~{run.text}~~")
        else:
            parts.append(run.text)

    def _graphic(self, graphic: GraphicPart) -> None:
        relation = self._relations.get(graphic.relation_id)
        root = self._package.xml(relation.path) if relation is not None else None
        if root is None:
            return
        if graphic.kind == "diagram":
            self._write("\n".join(diagram_texts(root)))
            return
        self._write(chart_title(root))
        self._add_rows(chart_rows(root))

    def _write(self, text: str, *, level: int = 0, joined: bool = False) -> None:
        self._builder.block(text, level=level, joined=joined and not level)
        self._wrote_since_break = True

    def _break(self, piece: PageBreak) -> None:
        """End the page. Word notes a break again where the author set it: with no text between, both are one."""
        self.breaks += 1
        if not self._wrote_since_break and piece.rendered and self._break_before is not None:
            return
        self._end_page_notes()
        if self._builder.is_blank and self._break_before is None:
            self._builder.page()
        self._builder.page()
        self._break_before = piece.rendered
        self._wrote_since_break = False

    # -- notes -------------------------------------------------------------------------------------------------

    def _note_mark(self, piece: NoteMark) -> str:
        note = self._notes[piece.kind].get(piece.note_id)
        if note is None:
            return ""
        key = (piece.kind, piece.note_id)
        if key not in self._marks:
            number = sum(kind == piece.kind for kind, _ in self._marks) + 1
            self._marks[key] = superscript(str(number))
            (self._waiting if piece.kind == "footnote" else self._endnotes).append((self._marks[key], note))
        return self._marks[key]

    def _end_page_notes(self) -> None:
        waiting, self._waiting = self._waiting, []
        for mark, note in waiting:
            self._note(mark, note)

    def _note(self, mark: str, note: Element) -> None:
        text = "\n".join(filter(None, (self._plain(block) for block in _blocks(note)))).strip()
        if text:
            self._write(f"{mark} {text}")

    def _comment(self, note_id: str) -> None:
        comment = self._notes["comment"].get(note_id)
        if comment is None:
            return
        text = " ".join(filter(None, (self._plain(block) for block in _blocks(comment))))
        if text.strip():
            author = attribute(comment, "author") or ""
            self._write(f"[Comment{' by ' + author if author else ''}: {text.strip()}]")

    # -- text of cells, notes and margins ----------------------------------------------------------------------

    def _plain(self, block: Element, depth: int = 0) -> str:
        """The visible text of a paragraph or table in a place that has no pages."""
        if depth > _MAX_DEPTH:
            return ""
        if local(block) == "tbl":
            rows = [" ".join(filter(None, row)) for _, row in self._cells(block, depth + 1)]
            return "; ".join(filter(None, rows))
        parts: list[str] = []
        boxes: list[Element] = []
        for piece in self._reader.pieces(block):
            match piece:
                case RunText():
                    self._add_run(piece, parts)
                case NoteMark() if piece.kind != "comment":
                    parts.append(self._note_mark(piece))
                case TextBox():
                    boxes.append(piece.content)
                case _:
                    pass
        text = "".join(parts).strip()
        properties = child(block, "pPr")
        place = self._styles.list_place(properties) if text else None
        mark = self._numbering.next_mark(place) if place is not None else ""
        inside = [self._plain(found, depth + 1) for box in boxes for found in _blocks(box)]
        return "\n".join(filter(None, [f"{mark} {text}" if mark else text, *inside]))

    # -- tables ------------------------------------------------------------------------------------------------

    def _table(self, table: Element, depth: int) -> None:
        rows = list(self._cells(table, depth))
        if all(len(row) < 2 for _, row in rows):
            self._single_column(table, depth)
            return
        begin = 0
        for index, (row, _) in enumerate(rows):
            broken = any(local(found) == "lastRenderedPageBreak" for found in row.iter())
            if broken and self._wrote_since_break | (index > begin):
                self._add_rows([cells for _, cells in rows[begin:index]])
                self._break(PageBreak(rendered=True))
                begin = index
        self._add_rows([cells for _, cells in rows[begin:]])

    def _add_rows(self, rows: list[list[str]]) -> None:
        lines = table_rows(rows)
        if lines:
            self._builder.rows(lines, headers=2 if len(lines) > 2 else 0)
            self._wrote_since_break = True

    def _single_column(self, table: Element, depth: int) -> None:
        """A table of one column is a frame around paragraphs."""
        for row in _rows(table):
            for cell in _within(row, "tc"):
                for block in _blocks(cell):
                    self._block(block, depth + 1)

    def _cells(self, table: Element, depth: int) -> Iterator[tuple[Element, list[str]]]:
        """The rows with the texts of their cells; merged cells are repeated in every row and column they cover."""
        above: dict[int, str] = {}
        for row in _rows(table):
            before = value_of(child(row, "trPr"), "gridBefore") or "0"
            texts = [""] * (int(before) if before.isdigit() and int(before) < 64 else 0)
            cells = list(_within(row, "tc"))
            for cell in cells:
                properties = child(cell, "tcPr")
                span = value_of(properties, "gridSpan") or "1"
                columns = min(int(span), 64) if span.isdigit() else 1
                merge = child(properties, "vMerge")
                if merge is not None and attribute(merge, "val") != "restart":
                    text = above.get(len(texts), "")
                else:
                    text = "\n".join(filter(None, (self._plain(block, depth + 1) for block in _blocks(cell))))
                if merge is None:
                    above.pop(len(texts), None)
                else:
                    above[len(texts)] = text
                texts += [text] * columns if len(cells) > 1 else [text]
            yield row, texts


def _rows(table: Element) -> Iterator[Element]:
    """The rows of a table without those that a tracked change deleted."""
    for row in _within(table, "tr"):
        if child(child(row, "trPr"), "del") is None:
            yield row


def _blocks(element: Element) -> Iterator[Element]:
    """The paragraphs and tables of a body, cell or note, also those within content controls and insertions."""
    for found in element:
        name = local(found)
        if name in ("p", "tbl"):
            yield found
        elif name in _CONTAINERS:
            yield from _blocks(found)


def _within(element: Element, name: str) -> Iterator[Element]:
    for found in element:
        if local(found) == name:
            yield found
        elif local(found) in _CONTAINERS:
            yield from _within(found, name)


def _notes(root: Element | None) -> dict[str, Element]:
    """The notes of a part by id, without the lines that separate them from the text."""
    return {
        attribute(note, "id") or "": note
        for note in children(root)
        if (attribute(note, "type") or "") not in _NOTE_SEPARATORS
    }
