"""Turns an HTML element tree into blocks of text as a browser shows them. Nothing is fetched.

Hidden elements are left out and counted: by attribute, by their own style, and by simple rules of style sheets in the
file. Tables of data become Markdown rows; tables that arrange a page are read as their contents.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ragsvc.extract.formats.markdown_table import table_rows
from ragsvc.extract.formats.page_builder import PageBuilder
from ragsvc.extract.formats.word_runs import superscript_digits
from ragsvc.extract.formats.word_styles import formatted_number
from ragsvc.extract.formats.xml_trees import Element, all_text, local, parse_html

_BLOCKS = frozenset(
    "address article aside blockquote body center dd details dialog dir div dl dt fieldset figcaption figure"
    " footer form h1 h2 h3 h4 h5 h6 header hgroup hr html legend li main menu nav ol p pre section summary table"
    " tbody td tfoot th thead tr ul caption".split()
)
_LEFT_OUT = frozenset(
    "script style template noscript head iframe object embed applet canvas audio video datalist rp rt map area param"
    " source track meta link base title frame frameset noframes noembed".split()
)
_HIDING = re.compile(
    r"(?:^|;)\s*(?:display\s*:\s*none|visibility\s*:\s*(?:hidden|collapse)|opacity\s*:\s*0(?:\.0*)?\s*(?:;|!|$)"
    r"|font-size\s*:\s*0(?:\.0*)?\s*(?:px|pt|em|rem|%)?\s*(?:;|!|$)|mso-hide\s*:\s*all"
    r"|(?:left|top|text-indent|margin-left)\s*:\s*-\d{4,})",
    re.IGNORECASE,
)
_RULE = re.compile(r"([^{}@;]+)\{([^{}]*)\}")
_AT_RULE = re.compile(r"@[\w-]+[^{};]*(?:\{(?:[^{}]*\{[^{}]*\})*[^{}]*\}|;)")
_COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
_SELECTOR = re.compile(r"([a-z][a-z0-9]*)?(?:\.([\w-]+)|#([\w-]+))?\Z", re.IGNORECASE)
_XML_DECLARATION = re.compile(r"\A\s*<\?xml[^>]*\?>")
_SPACES = re.compile(r"[ \t\r\n\f]+")
_STRUCK = frozenset({"del", "s", "strike"})
_LIST_KINDS = {"a": "lowerLetter", "A": "upperLetter", "i": "lowerRoman", "I": "upperRoman"}
_MAX_SPAN = 60
_MAX_DEPTH = 400
_MAX_STYLE_CHARACTERS = 200_000
_BREAK = "\x02"


def read_tree(text: str) -> Element | None:
    """Parse a page; ``None`` if it has no elements. No scripts run, and nothing is loaded."""
    return parse_html(_XML_DECLARATION.sub("", text).replace("\x00", ""))


def page_title(root: Element) -> str | None:
    """The text of the element ``title``."""
    for element in root.iter():
        if local(element) == "title" and not _is_inside(element, "svg"):
            return " ".join(all_text(element).split()) or None
    return None


def _is_inside(element: Element, name: str) -> bool:
    return any(local(above) == name for above in element.iterancestors())


class HtmlWalker:
    """Adds the visible text of a tree to pages."""

    def __init__(self, builder: PageBuilder, root: Element) -> None:
        self._builder = builder
        self._hidden_by_rules = _hiding_selectors(root)
        self._line: list[str] = []
        self._prefix = ""
        self._joined = False
        self._depth = 0

    def add(self, element: Element) -> None:
        """Add an element with its children."""
        self._walk(element)
        self._flush()

    def _walk(self, element: Element) -> None:
        name = local(element)
        if not name or name in _LEFT_OUT:
            return
        if self._is_hidden(element, name):
            self._builder.hidden(all_text(element))
            return
        if self._depth >= _MAX_DEPTH:
            self._line.append(all_text(element))
            return
        self._depth += 1
        if name in _BLOCKS:
            self._flush()
            self._block(element, name)
            self._flush()
        else:
            self._inline(element, name)
        self._depth -= 1

    def _children(self, element: Element) -> None:
        self._line.append(_collapsed(element.text))
        for found in element:
            self._walk(found)
            self._line.append(_collapsed(found.tail))

    def _block(self, element: Element, name: str) -> None:
        if name == "table":
            self._table(element)
        elif name == "pre":
            text = self._raw(element)
            self._builder.block(text, indented=True)
        elif name in ("ul", "ol", "menu", "dir"):
            self._list(element, name)
        elif len(name) == 2 and name[0] == "h" and name[1].isdigit():
            self._children(element)
            self._flush(level=int(name[1]))
        else:
            self._children(element)

    def _inline(self, element: Element, name: str) -> None:
        if name == "br":
            self._line.append(_BREAK)
        elif name == "input":
            self._line.append(_input_text(element))
        elif name in _STRUCK:
            start = len(self._line)
            self._children(element)
            text = "".join(self._line[start:])
            self._line[start:] = [f"~~{text.strip()}~~"] if text.strip() else [text]
        elif name == "sup":
            start = len(self._line)
            self._children(element)
            self._line[start:] = [superscript_digits("".join(self._line[start:]))]
        elif name == "textarea":
            self._line.append(self._raw(element).replace("\n", _BREAK))
        elif name == "select":
            options = [found for found in element.iter() if local(found) == "option"]
            chosen = [found for found in options if found.get("selected") is not None] or options[:1]
            self._line.append(", ".join(" ".join(all_text(found).split()) for found in chosen))
        else:
            self._children(element)

    def _raw(self, element: Element) -> str:
        """Text with its white space, as in ``pre``; line breaks of elements count, hidden elements do not."""
        parts = [element.text or ""]
        for found in element:
            name = local(found)
            if name == "br":
                parts.append("\n")
            elif name and name not in _LEFT_OUT and not self._is_hidden(found, name):
                parts.append(self._raw(found))
            parts.append(found.tail or "")
        return "".join(parts)

    def _list(self, element: Element, name: str) -> None:
        kind = _LIST_KINDS.get(element.get("type", ""), "decimal")
        items = [found for found in element if local(found)]
        number = _integer(element.get("start"), 1)
        for item in items:
            if local(item) != "li":
                self._walk(item)
                continue
            number = _integer(item.get("value"), number)
            self._flush()
            self._prefix = f"{formatted_number(number, kind)}. " if name == "ol" else "• "
            self._joined = True
            self._walk(item)
            self._flush()
            self._prefix = ""
            number += 1
        self._joined = False

    def _flush(self, *, level: int = 0) -> None:
        text = self._taken()
        if text:
            self._builder.block(self._prefix + text, level=level, joined=self._joined)
            self._prefix = ""

    def _taken(self) -> str:
        text = _SPACES.sub(" ", "".join(self._line))
        self._line.clear()
        return "\n".join(filter(None, (line.strip() for line in text.split(_BREAK))))

    # -- tables ------------------------------------------------------------------------------------------------

    def _table(self, table: Element) -> None:
        rows = list(_table_rows(table))
        if _is_layout(table, rows):
            for row in rows:
                for cell in row:
                    self._walk(cell)
                    self._flush()
            return
        for caption in (found for found in table if local(found) == "caption"):
            self._walk(caption)
            self._flush()
        lines = table_rows(self._cell_texts(rows))
        self._builder.rows(lines, headers=2 if len(lines) > 2 else 0)

    def _cell_texts(self, rows: list[list[Element]]) -> list[list[str]]:
        """The texts of the cells; a cell that spans rows or columns is repeated in each."""
        below: dict[int, tuple[int, str]] = {}
        table: list[list[str]] = []
        for row in rows:
            texts: list[str] = []
            following: dict[int, tuple[int, str]] = {}

            def carry() -> None:
                while len(texts) in below:  # noqa: B023 - called in this turn of the loop only
                    left, text = below[len(texts)]  # noqa: B023 - as above
                    if left > 1:
                        following[len(texts)] = (left - 1, text)  # noqa: B023 - as above
                    texts.append(text)  # noqa: B023 - as above

            for cell in row:
                carry()
                text = self._cell_text(cell)
                span = min(_integer(cell.get("colspan"), 1), _MAX_SPAN) or 1
                down = min(_integer(cell.get("rowspan"), 1), 1000)
                for _ in range(span if len(row) > 1 else 1):
                    if down > 1:
                        following[len(texts)] = (down - 1, text)
                    texts.append(text)
            carry()
            below = following
            table.append(texts)
        return table

    def _cell_text(self, cell: Element) -> str:
        if self._is_hidden(cell, local(cell)):
            self._builder.hidden(all_text(cell))
            return ""
        inner = _CellBuilder(self._builder)
        walker = HtmlWalker(inner, cell)
        walker._hidden_by_rules = self._hidden_by_rules
        walker._depth = self._depth
        walker._children(cell)
        walker._flush()
        return " ".join(inner.texts)

    # -- visibility --------------------------------------------------------------------------------------------

    def _is_hidden(self, element: Element, name: str) -> bool:
        if element.get("hidden") is not None or (name == "input" and element.get("type", "").lower() == "hidden"):
            return True
        style = element.get("style")
        if style and _HIDING.search(style):
            return True
        if not self._hidden_by_rules:
            return False
        own = {("", "", element.get("id", "")), (name, "", element.get("id", "")), (name, "", "")}
        for class_name in element.get("class", "").split():
            own |= {("", class_name, ""), (name, class_name, "")}
        return not own.isdisjoint(self._hidden_by_rules)


class _CellBuilder(PageBuilder):
    """Collects the blocks of a table cell; hidden text is counted on the page of the table."""

    def __init__(self, page: PageBuilder) -> None:
        self._page = page
        self.texts: list[str] = []

    def block(self, text: str, *, level: int = 0, joined: bool = False, indented: bool = False) -> None:
        self.texts.append(text)

    def rows(self, rows: object, *, headers: int = 0) -> None:
        self.texts += [row for row in rows if not row.startswith("| ---")] if isinstance(rows, list) else []

    def hidden(self, text: str) -> None:
        self._page.hidden(text)


def _table_rows(table: Element) -> Iterator[list[Element]]:
    """The cells of each row, without those of tables inside."""
    for element in table:
        name = local(element)
        if name == "tr":
            yield [cell for cell in element if local(cell) in ("td", "th")]
        elif name in ("thead", "tbody", "tfoot"):
            yield from _table_rows(element)


def _is_layout(table: Element, rows: list[list[Element]]) -> bool:
    """Whether a table arranges a page: it has a table or heading inside, a single column, or says so."""
    if (table.get("role") or "") in ("presentation", "none") or all(len(row) < 2 for row in rows):
        return True
    if any(local(cell) == "th" for row in rows for cell in row):
        return False
    inside = ("table", "h1", "h2", "h3", "form")
    return any(local(found) in inside for row in rows for cell in row for found in cell.iterdescendants())


def _hiding_selectors(root: Element) -> frozenset[tuple[str, str, str]]:
    """The (element, class, id) of rules that hide elements; rules for media and longer selectors are ignored."""
    found: set[tuple[str, str, str]] = set()
    for style in (element for element in root.iter() if local(element) == "style"):
        text = _AT_RULE.sub(" ", _COMMENT.sub(" ", all_text(style)[:_MAX_STYLE_CHARACTERS]))
        for selectors, declarations in _RULE.findall(text):
            hides = _HIDING.search(declarations) is not None
            shows = not hides and re.search(r"(?:display|visibility)\s*:", declarations) is not None
            for selector in selectors.split(","):
                match = _SELECTOR.match(selector.strip())
                if match is None or not selector.strip():
                    continue
                key = ((match[1] or "").lower(), match[2] or "", match[3] or "")
                if hides and key not in (("body", "", ""), ("html", "", "")):
                    found.add(key)
                elif shows:
                    found.discard(key)
    return frozenset(found)


def _input_text(element: Element) -> str:
    kind = (element.get("type") or "text").lower()
    if kind in ("checkbox", "radio"):
        return "☒ " if element.get("checked") is not None else "☐ "
    return element.get("value", "") if kind not in ("hidden", "password", "file", "image", "color", "range") else ""


def _integer(text: str | None, default: int) -> int:
    stripped = (text or "").strip()
    return int(stripped) if stripped.isascii() and stripped.isdigit() and len(stripped) < 7 else default


def _collapsed(text: str | None) -> str:
    return _SPACES.sub(" ", text).replace(_BREAK, "") if text else ""
