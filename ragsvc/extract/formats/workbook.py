"""Reads Excel workbooks (XLSX): each visible sheet is a page of Markdown rows, with values as their cells show them."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec

from ragsvc.core.documents import Extraction
from ragsvc.core.errors import ExtractionFailed, FailureReason
from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.formats.markdown_table import table_rows
from ragsvc.extract.formats.number_formats import BUILT_IN, GENERAL, display, display_text
from ragsvc.extract.formats.package_properties import package_title
from ragsvc.extract.formats.page_builder import PageBuilder
from ragsvc.extract.formats.xml_trees import Element, attribute, child, children, local
from ragsvc.extract.formats.zip_package import ZipPackage, open_package
from ragsvc.extract.pdf_pages import PageReports

_PAGE_CHARACTERS = 50_000
_MAX_COLUMNS = 16_384
_MAX_SHOWN_COLUMNS = 400
_MAX_CELLS = 4_000_000
_REFERENCE = re.compile(r"\$?([A-Z]{1,3})\$?(\d{1,7})\Z")
_ESCAPED = re.compile(r"_x([0-9A-Fa-f]{4})_")
_DEFAULT_NAME = re.compile(
    r"(?:Sheet|Tabelle|Feuil|Hoja|Foglio|Blad|Munka|Лист|Planilha|Ark|Arkusz)\s*\d*", re.IGNORECASE
)
_TRUE = ("1", "true")


class MergedRange(msgspec.Struct, frozen=True):
    """Cells shown as a single cell; rows and columns count from 1, and the ends are included."""

    top: int
    left: int
    bottom: int
    right: int


class _SheetContent(msgspec.Struct):
    rows: dict[int, dict[int, str]] = {}
    merged: list[MergedRange] = []
    hidden: list[str] = []


def read_workbook(path: Path, *, limits: ExtractionLimits, reports: PageReports) -> Extraction:
    """Read a workbook. Raises ``ExtractionFailed``."""
    with open_package(path) as package:
        main = next((found.path for found in package.relations("").values() if found.kind == "officeDocument"), "")
        main = main or "xl/workbook.xml"
        root = package.xml(main)
        sheets = child(root, "sheets")
        if root is None or sheets is None:
            raise ExtractionFailed(FailureReason.DAMAGED, "The file is damaged: the workbook has no list of sheets.")
        reader = _WorkbookReader(package, main, root)
        builder = PageBuilder(limits, split_at=_PAGE_CHARACTERS)
        listed = [sheet for sheet in children(sheets) if local(sheet) == "sheet"]
        for number, sheet in enumerate(listed, start=1):
            name = attribute(sheet, "name") or str(number)
            relation = reader.relations.get(attribute(sheet, "id") or "")
            if relation is None or relation.kind != "worksheet":
                continue
            if (attribute(sheet, "state") or "visible") != "visible":
                for text in reader.texts(relation.path):
                    builder.hidden(text)
                continue
            builder.page(f"sheet {name}")
            _add_sheet(builder, name, reader.sheet(relation.path), reader.remarks(relation.path))
            reports.on_progress(number, len(listed))
        return builder.finish(
            title=package_title(package), nothing="The workbook contains no text.", on_progress=reports.on_progress
        )


def _add_sheet(builder: PageBuilder, name: str, content: _SheetContent, remarks: list[str]) -> None:
    for text in content.hidden:
        builder.hidden(text)
    blocks = list(_row_blocks(content.rows))
    if _DEFAULT_NAME.fullmatch(name) is None:
        builder.section(name)
    for block in blocks:
        _add_block(builder, block, content)
    for remark in remarks:
        builder.block(remark)


def _row_blocks(rows: dict[int, dict[int, str]]) -> Iterator[list[int]]:
    """Runs of rows without a blank row between them; a single row of headings may have one below it."""
    block: list[int] = []
    for number in sorted(rows):
        is_heading = len(block) == 1 and len(rows[block[0]]) > 1 and rows[number].keys() == rows[block[0]].keys()
        if block and number > block[-1] + 1 + is_heading:
            yield block
            block = []
        block.append(number)
    if block:
        yield block


def _add_block(builder: PageBuilder, block: list[int], content: _SheetContent) -> None:
    """Add a table. Rows of a single cell before it are its titles."""
    start = 0
    while start < len(block) and len(content.rows[block[start]]) == 1:
        builder.block(next(iter(content.rows[block[start]].values())), joined=start > 0)
        start += 1
    rows = block[start:]
    if not rows:
        return
    filled = {number: dict(content.rows[number]) for number in rows}
    for merged in content.merged:
        _fill(filled, merged, content.rows.get(merged.top, {}).get(merged.left, ""))
    columns = sorted({column for row in filled.values() for column in row})[:_MAX_SHOWN_COLUMNS]
    lines = table_rows([[filled[number].get(column, "") for column in columns] for number in rows])
    builder.rows(lines, headers=2 if len(lines) > 2 else 0)


def _fill(rows: dict[int, dict[int, str]], merged: MergedRange, text: str) -> None:
    """Repeat the text of merged cells in the rows and columns that they cover."""
    for number, row in rows.items():
        if merged.top <= number <= merged.bottom and len(row) + (merged.top != number) > 1:
            for column in range(merged.left, min(merged.right, merged.left + _MAX_SHOWN_COLUMNS) + 1):
                row.setdefault(column, text)


class _WorkbookReader:
    """The shared parts of a workbook, and its sheets."""

    def __init__(self, package: ZipPackage, main: str, root: Element) -> None:
        self._package = package
        self.relations = package.relations(main)
        parts = {relation.kind: relation.path for relation in self.relations.values()}
        self._strings = [_string(item) for item in package.elements(parts.get("sharedStrings", ""), frozenset({"si"}))]
        self._formats = _cell_formats(package.xml(parts.get("styles", "")))
        properties = child(root, "workbookPr")
        self._from_1904 = properties is not None and (attribute(properties, "date1904") or "") in _TRUE
        self._cells_left = _MAX_CELLS

    def texts(self, path: str) -> Iterator[str]:
        """The texts of all cells of a sheet."""
        content = self.sheet(path)
        yield from content.hidden
        for row in content.rows.values():
            yield from row.values()

    def sheet(self, path: str) -> _SheetContent:
        """The visible cells of a sheet with text, by row and column from 1, and the texts of hidden cells."""
        content = _SheetContent(rows={}, merged=[], hidden=[])
        hidden_columns: list[tuple[int, int]] = []
        row_number = 0
        for element in self._package.elements(path, frozenset({"row", "col", "mergeCell"})):
            name = local(element)
            if name == "col":
                if (attribute(element, "hidden") or "") in _TRUE:
                    hidden_columns.append((_whole(element, "min"), _whole(element, "max")))
            elif name == "mergeCell":
                merged = _range(attribute(element, "ref") or "")
                if merged is not None:
                    content.merged.append(merged)
            else:
                row_number = _whole(element, "r") or row_number + 1
                self._row(element, row_number, hidden_columns, content)
        return content

    def _row(self, row: Element, number: int, hidden_columns: list[tuple[int, int]], content: _SheetContent) -> None:
        row_hidden = (attribute(row, "hidden") or "") in _TRUE
        column = 0
        cells: dict[int, str] = {}
        for cell in row:
            if local(cell) != "c":
                continue
            column = _column(attribute(cell, "r")) or column + 1
            self._cells_left -= 1
            text = self._cell(cell) if self._cells_left > 0 else ""
            if not text.strip() or column > _MAX_COLUMNS:
                continue
            if row_hidden or any(first <= column <= last for first, last in hidden_columns):
                content.hidden.append(text)
            else:
                cells[column] = text
        if cells:
            content.rows[number] = cells

    def _cell(self, cell: Element) -> str:
        """The text that a cell shows; its formula if the file holds no result of it."""
        kind = cell.get("t", "n")
        if kind == "inlineStr":
            inline = child(cell, "is")
            return _string(inline) if inline is not None else ""
        value = child(cell, "v")
        if value is not None and value.text:
            return self._value(kind, value.text, self._code(cell))
        formula = child(cell, "f")
        return f"={formula.text}" if formula is not None and formula.text and kind != "str" else ""

    def _value(self, kind: str, written: str, code: str) -> str:
        shown = written  # errors, and dates in ISO 8601
        if kind == "s":
            index = int(written) if written.isdigit() else -1
            shown = display_text(self._strings[index], code) if 0 <= index < len(self._strings) else ""
        elif kind == "b":
            shown = "TRUE" if written in _TRUE else "FALSE"
        elif kind == "str":
            shown = display_text(_unescaped(written), code)
        elif kind == "n":
            with contextlib.suppress(ValueError, OverflowError, ArithmeticError):
                shown = display(float(written), code, from_1904=self._from_1904)
        return shown

    def _code(self, cell: Element) -> str:
        style = cell.get("s", "0")
        index = int(style) if style.isdigit() else 0
        return self._formats[index] if index < len(self._formats) else GENERAL

    def remarks(self, path: str) -> list[str]:
        """The comments of a sheet, and the texts of its text boxes."""
        found: list[str] = []
        for relation in self._package.relations(path).values():
            if relation.kind == "comments":
                found += self._comments(relation.path)
            elif relation.kind == "drawing":
                root = self._package.xml(relation.path)
                found += drawing_texts(root) if root is not None else []
        return found

    def _comments(self, path: str) -> list[str]:
        root = self._package.xml(path)
        authors = [author.text or "" for author in children(child(root, "authors"))]
        comments: list[str] = []
        for comment in children(child(root, "commentList")):
            text = child(comment, "text")
            number = _whole(comment, "authorId")
            author = authors[number] if number < len(authors) else ""
            body = _string(text) if text is not None else ""
            if body.strip():
                by = f" by {author}" if author and not author.startswith("tc=") else ""
                comments.append(f"[Comment{by} on {attribute(comment, 'ref') or ''}: {body.strip()}]")
        return comments


def drawing_texts(root: Element) -> list[str]:
    """The texts of the shapes of a drawing, a paragraph each line."""
    texts: list[str] = []
    for body in (element for element in root.iter() if local(element) == "txBody"):
        paragraphs = [
            "".join(found.text or "" for found in paragraph.iter() if local(found) == "t")
            for paragraph in body
            if local(paragraph) == "p"
        ]
        text = "\n".join(filter(None, paragraphs))
        if text.strip():
            texts.append(text)
    return texts


def _string(item: Element) -> str:
    """The text of a shared or inline string, without phonetic readings."""
    parts: list[str] = []
    for element in item:
        if local(element) == "t":
            parts.append(element.text or "")
        elif local(element) == "r":
            parts += [found.text or "" for found in element if local(found) == "t"]
    return _unescaped("".join(parts))


def _unescaped(text: str) -> str:
    return _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text) if "_x" in text else text


def _cell_formats(root: Element | None) -> list[str]:
    """The format code of each cell style."""
    own = {
        _whole(element, "numFmtId"): attribute(element, "formatCode") or GENERAL
        for element in children(child(root, "numFmts"))
        if local(element) == "numFmt"
    }
    codes: list[str] = []
    for element in children(child(root, "cellXfs")):
        number = _whole(element, "numFmtId")
        codes.append(own.get(number) or BUILT_IN.get(number, GENERAL))
    return codes


def _whole(element: Element, name: str) -> int:
    text = attribute(element, name) or ""
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else 0


def _column(reference: str | None) -> int:
    found = _REFERENCE.match(reference or "")
    number = 0
    for letter in found[1] if found is not None else "":
        number = number * 26 + ord(letter) - 64
    return number


def _range(text: str) -> MergedRange | None:
    first, _, last = text.partition(":")
    start, end = _REFERENCE.match(first), _REFERENCE.match(last or first)
    if start is None or end is None:
        return None
    return MergedRange(int(start[2]), _column(first), int(end[2]), _column(last or first))
