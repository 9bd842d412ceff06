"""Reads the text of a Word paragraph as a reader sees it: results of fields, insertions, and no hidden text."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from ragsvc.extract.formats.word_styles import WordStyles, is_on, value_of
from ragsvc.extract.formats.xml_trees import Element, attribute, child, local

_LEFT_OUT = frozenset({"del", "moveFrom", "pPr", "rPr", "rt", "instrText", "delText", "delInstrText", "Fallback"})
_SUPERSCRIPTS = str.maketrans("0123456789+-\u2212()", "⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁻⁽⁾")
_SUPERSCRIPT_SOURCE = frozenset("0123456789+-\u2212()")
_SYMBOLS = {
    **dict.fromkeys((0xB7, 0xA7, 0x6C, 0x6E, 0x75, 0xD8), "•"),
    **dict.fromkeys((0xFC, 0x50), "✓"),
    **dict.fromkeys((0xFE, 0x52, 0xFD, 0x53), "☒"),
    **dict.fromkeys((0xA8, 0x6F, 0x71, 0x72), "☐"),
    **dict.fromkeys((0xE0, 0xF0), "→"),
}
"""Characters of Wingdings and Symbol that are marks in text: bullets, check marks, check boxes and arrows."""
_GREEK = dict(zip(range(0x61, 0x7B), "αβχδεφγηιϕκλμνοπθρστυϖωξψζ", strict=True))
_OPERATORS = {0xB0: "°", 0xB1: "±", 0xB3: "≥", 0xA3: "≤", 0xB4: "\u00d7", 0xB9: "≠", 0xBB: "≈", 0xA5: "∞", 0xD7: "⋅"}


class PageBreak(msgspec.Struct, frozen=True):
    """A page ends here. ``rendered``: Word noted it at the last layout, also after an explicit break."""

    rendered: bool = False


class NoteMark(msgspec.Struct, frozen=True):
    """A reference to a footnote, an endnote or a comment."""

    kind: str
    note_id: str


class TextBox(msgspec.Struct, frozen=True):
    """The content of a text box that is anchored here."""

    content: Element


class GraphicPart(msgspec.Struct, frozen=True):
    """A chart or diagram that is anchored here, by the relation of its part."""

    kind: str
    relation_id: str


class RunText(msgspec.Struct, frozen=True):
    """Text of one appearance."""

    text: str
    hidden: bool = False
    struck: bool = False


Piece = RunText | PageBreak | NoteMark | TextBox | GraphicPart


_UNREADABLE_HALF_POINTS = 3
_OTHER_BACKGROUND = frozenset(("tbl", "txbxContent"))


class ParagraphReader:
    """Yields the pieces of paragraphs in order. Complex fields may span paragraphs, so their state is kept."""

    def __init__(self, styles: WordStyles) -> None:
        self._styles = styles
        self._fields: list[bool] = []
        self._paragraph: Element | None = None
        self._readers: dict[str, Callable[[Element], Iterator[Piece]]] = {
            "r": self._run,
            "oMath": self._formula,
            "AlternateContent": self._alternative,
        }

    @property
    def _in_field_code(self) -> bool:
        return not all(self._fields)

    def pieces(self, paragraph: Element) -> Iterator[Piece]:
        """The pieces of a paragraph."""
        self._paragraph = child(paragraph, "pPr")
        yield from self._children(paragraph)

    def _children(self, element: Element) -> Iterator[Piece]:
        for found in element:
            name = local(found)
            if name and name not in _LEFT_OUT:
                yield from self._readers.get(name, self._children)(found)

    def _alternative(self, element: Element) -> Iterator[Piece]:
        choice = child(element, "Choice")
        if choice is None:
            choice = child(element, "Fallback")
        if choice is not None:
            yield from self._run_content(choice) if _is_in_run(element) else self._children(choice)

    @staticmethod
    def _formula(element: Element) -> Iterator[Piece]:
        yield RunText(formula_text(element))

    def _run(self, run: Element) -> Iterator[Piece]:
        properties = child(run, "rPr")
        hidden = self._on("vanish", properties) or self._on("webHidden", properties) or self._is_unseen(run, properties)
        struck = self._on("strike", properties) or self._on("dstrike", properties)
        raised = value_of(properties, "vertAlign") == "superscript"
        for piece in self._run_content(run):
            if isinstance(piece, RunText):
                text = superscript_digits(piece.text) if raised else piece.text
                yield RunText(text, hidden, struck)
            elif not (hidden and isinstance(piece, NoteMark)):
                yield piece

    def _is_unseen(self, run: Element, properties: Element | None) -> bool:
        """Whether a run is white on the page's white, or of a size that nobody can read.

        Shapes, shaded cells and styles may have another background, so white text in them is seen.
        """
        if properties is None:
            return False
        size = value_of(properties, "sz") or ""
        if size.isdigit() and int(size) <= _UNREADABLE_HALF_POINTS:
            return True
        if (value_of(properties, "color") or "").upper() != "FFFFFF":
            return False
        paragraph = self._paragraph
        backgrounds = (child(properties, "shd"), child(properties, "highlight"), child(paragraph, "shd"))
        styles = (child(properties, "rStyle"), child(paragraph, "pStyle"))
        if any(found is not None for found in (*backgrounds, *styles)):
            return False
        return all(local(parent) not in _OTHER_BACKGROUND for parent in run.iterancestors())

    def _on(self, name: str, properties: Element | None) -> bool:
        return self._styles.is_on(name, run=properties, paragraph=self._paragraph)

    def _run_content(self, run: Element) -> Iterator[Piece]:
        for element in run:
            name = local(element)
            if name == "fldChar":
                yield from self._field_mark(element)
            elif name == "lastRenderedPageBreak":
                yield PageBreak(rendered=True)
            elif not self._in_field_code:
                yield from self._content(element, name)

    def _content(self, element: Element, name: str) -> Iterator[Piece]:
        match name:
            case "br" if attribute(element, "type") == "page":
                yield PageBreak()
            case "footnoteReference" | "endnoteReference" | "commentReference":
                yield NoteMark(name.removesuffix("Reference"), attribute(element, "id") or "")
            case "drawing" | "pict" | "object":
                yield from map(TextBox, _text_boxes(element))
                yield from _graphics(element)
            case "AlternateContent":
                yield from self._alternative(element)
            case "ruby":
                yield from self._children(element)
            case _:
                text = _text_of(element, name)
                if text:
                    yield RunText(text)

    def _field_mark(self, element: Element) -> Iterator[Piece]:
        kind = attribute(element, "fldCharType")
        if kind == "begin":
            outer = self._in_field_code
            data = child(element, "ffData")
            if data is not None and not outer and (text := _form_field(data)):
                yield RunText(text)
            self._fields.append(False)
        elif kind == "separate" and self._fields:
            self._fields[-1] = True
        elif kind == "end" and self._fields:
            self._fields.pop()


def _is_in_run(element: Element) -> bool:
    parent = element.getparent()
    return parent is not None and local(parent) in ("r", "Choice")


def _text_of(element: Element, name: str) -> str:
    match name:
        case "t":
            return element.text or ""
        case "tab" | "ptab":
            return "\t"
        case "br" | "cr":
            return "\n"
        case "noBreakHyphen":
            return "-"
        case "sym":
            return _symbol(attribute(element, "char") or "", attribute(element, "font") or "")
        case _:
            return ""


def _symbol(code: str, font: str) -> str:
    try:
        number = int(code, 16)
    except ValueError:
        return ""
    if not 0xF000 <= number <= 0xF0FF:
        return chr(number) if 0x20 <= number < 0xD800 else ""
    number -= 0xF000
    if font.lower() == "symbol" and (number in _GREEK or number in _OPERATORS):
        return _GREEK.get(number) or _OPERATORS[number]
    return _SYMBOLS.get(number, "")


def _form_field(data: Element) -> str:
    """The state of a legacy check box or list of choices, whose value is not text of the document."""
    box = child(data, "checkBox")
    if box is not None:
        checked = is_on(box, "checked")
        return "☒" if (is_on(box, "default") if checked is None else checked) else "☐"
    choices = child(data, "ddList")
    if choices is not None:
        entries = [attribute(entry, "val") or "" for entry in choices if local(entry) == "listEntry"]
        chosen = value_of(choices, "result") or value_of(choices, "default") or "0"
        return entries[int(chosen)] if chosen.isdigit() and int(chosen) < len(entries) else ""
    return ""


def superscript_digits(text: str) -> str:
    """Raised digits as superscripts, so that a mark beside a figure stays apart from it."""
    stripped = text.strip()
    return text.translate(_SUPERSCRIPTS) if stripped and set(stripped) <= _SUPERSCRIPT_SOURCE else text


def superscript(number: str) -> str:
    """A number as the mark of a note."""
    return number.translate(_SUPERSCRIPTS) if number.isdigit() else f"^{number}"


def _text_boxes(element: Element) -> Iterator[Element]:
    """The contents of text boxes in a drawing. Of the alternative drawings of a box, only the first is read."""
    for found in element:
        name = local(found)
        if name == "txbxContent":
            yield found
        elif name == "AlternateContent":
            choice = child(found, "Choice")
            choice = child(found, "Fallback") if choice is None else choice
            if choice is not None:
                yield from _text_boxes(choice)
        elif name:
            yield from _text_boxes(found)


def _graphics(element: Element) -> Iterator[GraphicPart]:
    """The charts and diagrams in a drawing."""
    for found in element.iter():
        name = local(found)
        if name in ("chart", "relIds"):
            end = "}id" if name == "chart" else "}dm"
            relation_id = next((value for key, value in found.items() if key.endswith(end)), "")
            yield GraphicPart("chart" if name == "chart" else "diagram", relation_id)


def formula_text(element: Element) -> str:
    """An Office Math formula in one line (ECMA-376 part 1, §22.1)."""
    name = local(element)
    if name in ("t", "delim"):
        return element.text or ""
    parts = {local(found): formula_text(found) for found in element if local(found)}
    inner, upper, lower = parts.get("e", ""), _grouped(parts.get("sup", "")), _grouped(parts.get("sub", ""))
    match name:
        case "f":
            text = f"{_grouped(parts.get('num', ''))}/{_grouped(parts.get('den', ''))}"
        case "sSup":
            text = f"{inner}^{upper}"
        case "sSub":
            text = f"{inner}_{lower}"
        case "sSubSup":
            text = f"{inner}_{lower}^{upper}"
        case "rad":
            text = f"√({inner})"
        case "d":
            text = f"({', '.join(formula_text(found) for found in element if local(found) == 'e')})"
        case _:
            text = "".join(formula_text(found) for found in element if local(found))
    return text


def _grouped(text: str) -> str:
    return text if len(text) < 2 or text.isalnum() else f"({text})"
