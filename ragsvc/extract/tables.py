"""Finds tables in the lines of a page: their columns, the headings above them, and the rows. Pure geometry and text.

The text of the page stays as it is: a table is a second view of its lines. A table is found by evidence only, because
prose or columns of text that are taken for a table do more harm than a table that is missed: at least two rows below
each other, cells that stand in common columns, a column of values (amounts or marks), and headings above it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import msgspec

from ragsvc.core.documents import Table, TableRow
from ragsvc.extract.layout import Line
from ragsvc.extract.table_columns import (
    Cell,
    Interval,
    find_columns,
    in_columns,
    is_figure,
    spread_headings,
    value_columns,
)

ReadCells = Callable[[Line], list[Cell]]

_LAST = r"[\d)%\u2013\u2014\u00b9\u00b2\u00b3\u2070-\u2079]"
_ENDS_IN_VALUES = re.compile(rf"[^\W\d_].* \S*{_LAST}(?: [$%)])* [^\s\w]*\d?\S*{_LAST}")
_DOT_LEADER = re.compile(r"\.(?: ?\.){2}|\.")
_ROW_GAP = 2.6
_MOST_BETWEEN = 2
_MOST_COLUMNS = 30
_MOST_LEVELS = 6
_LEVEL_GAP = 1.6
_CAPTION_GAP = 4
_HIGHEST = 20
_MOST_LINES_ABOVE = 24
_LONGEST_CELL = 160
_LONGEST_LINE = 240
_LONGEST_HEADING = 80
_LONGEST_CAPTION = 200
_MIN_VALUES = 3
_HEADED_SHARE = 0.5


class DraftTable(msgspec.Struct):
    """A table before its lines are found in the text of the page. ``rows`` are the texts of lines, and the cells."""

    columns: tuple[str, ...]
    caption: str
    heading: list[str]
    rows: list[tuple[list[str], tuple[str, ...]]]


def find_tables(lines: Sequence[Line], read_cells: ReadCells) -> list[DraftTable]:
    """The tables of a page whose lines are in reading order. ``read_cells`` returns the cells of a line.

    Lines of headings become rows, so that they are not joined to a paragraph.

    >>> def row(left, *texts): return Line("|".join(texts), left, 400, 700 - left, 710 - left, 10, row=True)
    >>> def cells(line):
    ...     texts = enumerate(line.text.split("|"))
    ...     return [Cell(t, 60 + 100 * n, 60 + 100 * n + 5 * len(t), line.bottom, line.top) for n, t in texts if t]
    >>> page = [row(0, "", "May", "June"), row(12, "Pike", "7", "9"), row(24, "Trout", "", "12")]
    >>> found = find_tables(page, cells)[0]
    >>> found.columns, [cells for _, cells in found.rows]
    (('', 'May', 'June'), [('Pike', '7', '9'), ('Trout', '', '12')])
    """
    if sum(line.row for line in lines) < 2:
        return []
    return _PageTables(lines, read_cells).find()


class _PageTables:
    def __init__(self, lines: Sequence[Line], read_cells: ReadCells) -> None:
        self._lines = lines
        self._read_cells = read_cells
        self._known: dict[int, list[Cell]] = {}
        self._floor = 0
        """The lines before this are above the table that is looked at."""

    def find(self) -> list[DraftTable]:
        lines = self._lines
        found: list[DraftTable] = []
        start = 0
        while start < len(lines):
            if not lines[start].row:
                start += 1
                continue
            first = start
            while first > self._floor and self._is_below(first) and self._is_row(first - 1):
                first -= 1
            end = self._block_end(start)
            if end - first < 2:
                start = end
                continue
            for begin, stop in self._bodies(first, end):
                table = self._table(begin, stop)
                if table is not None:
                    found.append(table)
                    self._floor = stop
            start = end
        return found

    def _cells(self, index: int) -> list[Cell]:
        if index not in self._known:
            self._known[index] = self._read_cells(self._lines[index])
        return self._known[index]

    def _is_row(self, index: int) -> bool:
        """Whether a line is a row: by its wide gaps, or because it ends in a value in a cell of its own."""
        line = self._lines[index]
        if line.row:
            return True
        if line.upright or len(line.text) > _LONGEST_LINE or not _ENDS_IN_VALUES.fullmatch(line.text):
            return False
        cells = self._cells(index)
        return len(cells) > 1 and is_figure(cells[-1].text)

    def _is_below(self, index: int) -> bool:
        """Whether a line is close below the line before it."""
        line, before = self._lines[index], self._lines[index - 1]
        size = max(line.size, before.size) or 10.0
        return not (line.upright or line.fresh) and -0.7 * size < before.bottom - line.top < _ROW_GAP * size

    def _block_end(self, start: int) -> int:
        """The end of the run of rows from ``start`` on, with at most two other lines between two rows."""
        end = start + 1
        for index in range(start + 1, len(self._lines)):
            if not self._is_below(index) or len(self._lines[index].text) > _LONGEST_LINE:
                break
            if self._is_row(index):
                end = index + 1
            elif index - end >= _MOST_BETWEEN:
                break
        return end

    def _bodies(self, start: int, end: int) -> list[tuple[int, int]]:
        """The bodies of the tables in a block, from the first row with values to the last."""
        bodies: list[tuple[int, int]] = []
        first: int | None = None
        last = start
        left = 0.0
        for index in range(start, end):
            cells = self._cells(index) if self._is_row(index) else []
            if len(cells) < 2:
                continue
            heading = not any(is_figure(cell.text) for cell in cells) and any(len(cell.text) > 1 for cell in cells[1:])
            if first is None:
                if not heading:
                    first, last, left = index, index, cells[0].left
                continue
            size = self._lines[index].size or 10.0
            apart = self._lines[last].bottom - self._lines[index].top > 1.2 * size
            if heading and (cells[0].left > left + 3 * size or apart):
                bodies.append((first, last + 1))
                first = None
            else:
                last, left = index, min(left, cells[0].left)
        if first is not None:
            bodies.append((first, last + 1))
        return bodies

    def _table(self, first: int, end: int) -> DraftTable | None:
        rows = {index: self._cells(index) for index in range(first, end) if self._is_row(index)}
        rows = {index: cells for index, cells in rows.items() if len(cells) > 1}
        if len(rows) < 2:
            return None
        columns = find_columns(list(rows.values()), self._lines[first].size or 10.0)
        if not 1 < len(columns) <= _MOST_COLUMNS:
            return None
        grid = {index: in_columns(cells, columns) for index, cells in rows.items()}
        if any(
            len(text) > _LONGEST_CELL or (_DOT_LEADER.search(text[-6:]) and text.count(".") > 3)
            for texts in grid.values()
            for text in texts
        ):
            return None
        values = value_columns(list(grid.values()))
        if sum(bool(texts[column]) for texts in grid.values() for column in values) < _MIN_VALUES:
            return None
        above = _Headings(columns, values, self._lines[first])
        above.read(self._cells_above(first))
        headed = sum(bool(above.texts[column]) for column in values)
        if headed < max(1, _HEADED_SHARE * len(values)) or (len(values) == 1 and above.texts[0].endswith(":")):
            return None
        whole = [index for index, count in above.used.items() if count == len(self._cells(index))]
        labels = [index for index in above.labels if index not in above.used]
        for index in (*whole, *labels):
            self._lines[index].row = True
        return DraftTable(
            columns=tuple(above.texts),
            caption=self._caption(first, {*whole, *labels}, above.top),
            heading=[self._lines[index].text for index in sorted(whole)],
            rows=self._rows([*labels, *range(first, end)], grid, columns),
        )

    def _cells_above(self, first: int) -> list[tuple[Cell, int]]:
        """The cells above a row with the numbers of their lines, from the lowest to the highest."""
        lines, row = self._lines, self._lines[first]
        size, top = row.size or 10.0, row.top
        near = [
            index
            for index in range(max(self._floor, first - _MOST_LINES_ABOVE), first)
            if row.bottom < lines[index].bottom < top + _HIGHEST * size and len(lines[index].text) <= _LONGEST_LINE
        ]
        found: list[tuple[Cell, int]] = []
        for index in sorted(near, key=lambda index: lines[index].bottom):
            if lines[index].bottom - top > _LEVEL_GAP * size:
                break
            cells = [cell for cell in self._cells(index) if cell.bottom > row.bottom]
            found += [(cell, index) for cell in cells]
            top = max(top, *(cell.top for cell in cells), lines[index].bottom)
        return sorted(found, key=lambda item: (item[0].bottom, item[0].left))

    def _caption(self, first: int, headings: set[int], top: float) -> str:
        """The line above the headings, if it is short or announces the table."""
        for index in range(first - 1, max(self._floor, first - _MOST_LINES_ABOVE) - 1, -1):
            line = self._lines[index]
            size = line.size or 10.0
            if index in headings or line.bottom < top - 0.5 * size:
                continue
            near = line.bottom - top < _CAPTION_GAP * size and not (line.row or line.upright)
            short = len(line.text) <= _LONGEST_CAPTION and (line.text.endswith(":") or not line.text.endswith("."))
            return line.text if near and short else ""
        return ""

    def _rows(
        self, numbers: Sequence[int], grid: dict[int, list[str]], columns: Sequence[Interval]
    ) -> list[tuple[list[str], tuple[str, ...]]]:
        """The rows with values, and the labels between them; a label of two lines is one."""
        found: list[tuple[list[str], tuple[str, ...]]] = []
        empty = ("",) * (len(columns) - 1)
        label = ""
        for index in numbers:
            line = self._lines[index]
            texts = grid.get(index)
            if texts is not None and label and texts[0][:1].islower() and not label.endswith(":"):
                found.append(([label, line.text], (f"{label} {texts[0]}", *texts[1:])))
                label = ""
                continue
            if label:
                found.append(([label], (label, *empty)))
            label = line.text if texts is None and line.left < columns[0][1] else ""
            if texts is not None:
                found.append(([line.text], tuple(texts)))
        return found


class _Headings:
    """Collects the headings above the first row of a table, by position, level by level.

    By position, because a file often stores a heading of two lines before the next heading. ``used`` counts the cells
    of each line that are headings, ``labels`` are the lines between the headings and the first row.
    """

    def __init__(self, columns: Sequence[Interval], values: Sequence[int], row: Line) -> None:
        self._columns = columns
        self._border = columns[values[0]][0]
        self._second = columns[min(values[0] + 1, len(columns) - 1)][0]
        self._size = row.size or 10.0
        self.top = row.top
        self.texts = [""] * len(columns)
        self.used: dict[int, int] = {}
        self.labels: list[int] = []

    def read(self, above: Sequence[tuple[Cell, int]]) -> None:
        """Take the headings from the cells above the table, which are given from the lowest to the highest."""
        levels = self._levels(above)
        while levels and self._is_label(levels[-1]):  # a label or caption above the headings
            levels.pop()
        while levels and self._is_label(levels[0]):
            self.labels = [*sorted({index for _, index in levels.pop(0)}), *self.labels]
        wide = list(self._columns)
        for level in levels:
            for column, text in spread_headings([cell for cell, _ in level], self._columns, wide, self._size).items():
                self.texts[column] = f"{text} {self.texts[column]}".rstrip()
            for cell, index in level:
                self.used[index] = self.used.get(index, 0) + 1
                self.top = max(self.top, cell.top)

    def _levels(self, above: Sequence[tuple[Cell, int]]) -> list[list[tuple[Cell, int]]]:
        levels: list[list[tuple[Cell, int]]] = []
        top = self.top
        for cell, index in above:
            if cell.bottom - top > _LEVEL_GAP * self._size:
                break
            same = bool(levels) and cell.bottom - levels[-1][0][0].bottom < 0.5 * self._size
            if self._is_text(cell) or is_figure(cell.text):  # no part of this line is a heading
                return levels[:-1] if same else levels
            if same:
                levels[-1].append((cell, index))
            elif len(levels) == _MOST_LEVELS:
                break
            else:
                levels.append([(cell, index)])
            top = max(top, cell.top)
        return levels

    def _is_text(self, cell: Cell) -> bool:
        """Whether a cell is longer than a heading, or stands above labels and values alike."""
        labels, size = self._columns[0], self._size
        over_labels = min(cell.right, labels[1]) - max(cell.left, labels[0])
        return (
            len(cell.text) > _LONGEST_HEADING
            or (over_labels > 2.5 * size and cell.right > self._border + size)
            or (cell.left < self._border - 3 * size and cell.right > self._second)
            or (cell.text.endswith(":") and cell.right > self._second)
        )

    def _is_label(self, level: Sequence[tuple[Cell, int]]) -> bool:
        return all(cell.right <= self._border and cell.left < self._columns[0][1] for cell, _ in level)


def place_tables(drafts: Sequence[DraftTable], text: str) -> list[Table]:
    """The tables with the offsets of their rows in the text of the page; a row that it lacks is left out."""
    placed: list[Table] = []
    position = 0
    for draft in drafts:
        heading = _place(text, draft.heading, position) if draft.heading else None
        at = heading[1] if heading is not None else position
        rows: list[TableRow] = []
        for texts, cells in draft.rows:
            span = _place(text, texts, at)
            if span is not None:
                rows.append(TableRow(*span, cells))
                at = span[1]
        if len(rows) < 2:
            continue
        if heading is not None and text[heading[1] : rows[0].start].strip():
            heading = None
        start, end = heading or (0, 0)
        placed.append(
            Table(columns=draft.columns, rows=tuple(rows), caption=draft.caption, heading_start=start, heading_end=end)
        )
        position = at
    return placed


def _place(text: str, parts: Sequence[str], position: int) -> tuple[int, int] | None:
    """The span of whole lines with these texts below each other."""
    if len(parts) > 1 or not parts:
        spans = [_place(text, [part], position) for part in parts[:1]]
        if not spans or spans[0] is None:
            return None
        start, end = spans[0]
        for part in parts[1:]:
            span = _place(text, [part], end)
            if span is None or text[end : span[0]].strip():
                return None
            end = span[1]
        return start, end
    part = parts[0]
    start = text.find(part, position)
    while start >= 0:
        end = start + len(part)
        line = text.rfind("\n", 0, start) + 1
        if not text[line:start].strip(" ") and text[end : end + 1] in ("", "\n"):
            return start, end
        start = text.find(part, start + 1)
    return None
