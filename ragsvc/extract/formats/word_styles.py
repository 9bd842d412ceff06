"""Reads the styles and the list numbering of a Word document (ECMA-376 part 1, §17.7 and §17.9)."""

from __future__ import annotations

import msgspec

from ragsvc.extract.formats.xml_trees import Element, attribute, child, children, local

_MAX_STYLE_DEPTH = 20
_MAX_LEVEL = 9
_BODY_TEXT_LEVEL = 9
_BULLET = "•"
_ROMAN = ((1000, "m"), (900, "cm"), (500, "d"), (400, "cd"), (100, "c"), (90, "xc"), (50, "l"), (40, "xl"), (10, "x"))
_SMALL_ROMAN = ((9, "ix"), (5, "v"), (4, "iv"), (1, "i"))


def value_of(element: Element | None, name: str) -> str | None:
    """The attribute ``val`` of a child element."""
    found = child(element, name)
    return None if found is None else attribute(found, "val")


def is_on(element: Element | None, name: str) -> bool | None:
    """The value of a toggle property; ``None`` if it is not set."""
    found = child(element, name)
    if found is None:
        return None
    return (attribute(found, "val") or "1").lower() not in ("0", "false", "off", "none")


class ListPlace(msgspec.Struct, frozen=True):
    """The numbering definition and level of a list paragraph."""

    number_id: str
    level: int


class WordStyles:
    """The properties of paragraph and character styles, inherited ones included."""

    def __init__(self, root: Element | None) -> None:
        styles = [style for style in children(root) if local(style) == "style"]
        self._styles = {attribute(style, "styleId") or "": style for style in styles}
        self._default = next(
            (
                attribute(style, "styleId") or ""
                for style in styles
                if attribute(style, "type") == "paragraph" and attribute(style, "default") in ("1", "true")
            ),
            "",
        )

    def _chain(self, style_id: str | None) -> list[Element]:
        """A style and those that it is based on."""
        found: list[Element] = []
        while style_id and len(found) < _MAX_STYLE_DEPTH and style_id in self._styles:
            found.append(self._styles[style_id])
            style_id = value_of(found[-1], "basedOn")
        return found

    def heading_level(self, properties: Element | None) -> int:
        """The outline level of a paragraph, from 1; 0 for body text."""
        style_id = value_of(properties, "pStyle") or self._default
        chain = self._chain(style_id)
        levels = [value_of(properties, "outlineLvl"), *(value_of(child(style, "pPr"), "outlineLvl") for style in chain)]
        written = next((level for level in levels if level is not None and level.isdigit()), None)
        if written is not None:
            return int(written) + 1 if int(written) < _BODY_TEXT_LEVEL else 0
        for style in chain:
            name = (value_of(style, "name") or "").lower()
            if name == "title":
                return 1
            if name.startswith("heading ") and name[8:].isdigit():
                return int(name[8:])
        return 0

    def is_on(self, name: str, *, run: Element | None, paragraph: Element | None) -> bool:
        """Whether a toggle property of a run is on, by its own properties or its styles."""
        own = is_on(run, name)
        if own is not None:
            return own
        for style_id in (value_of(run, "rStyle"), value_of(paragraph, "pStyle") or self._default):
            for style in self._chain(style_id):
                found = is_on(child(style, "rPr"), name)
                if found is not None:
                    return found
        return False

    def list_place(self, properties: Element | None) -> ListPlace | None:
        """The list that a paragraph belongs to, by its own properties or its style."""
        chain = self._chain(value_of(properties, "pStyle") or self._default)
        for numbered in (child(properties, "numPr"), *(child(child(style, "pPr"), "numPr") for style in chain)):
            if numbered is not None and (number_id := value_of(numbered, "numId")) is not None:
                level = value_of(numbered, "ilvl") or "0"
                place = ListPlace(number_id, min(int(level), _MAX_LEVEL) if level.isdigit() else 0)
                return None if number_id == "0" else place
        return None


class _Level(msgspec.Struct):
    start: int = 1
    kind: str = "decimal"
    text: str = ""


class WordNumbering:
    """Counts list paragraphs and writes their numbers as Word shows them."""

    def __init__(self, root: Element | None) -> None:
        self._abstract: dict[str, dict[int, _Level]] = {}
        self._of: dict[str, str] = {}
        self._overrides: dict[str, dict[int, _Level]] = {}
        self._starts: dict[str, dict[int, int]] = {}
        self._counters: dict[str, dict[int, int]] = {}
        self._restarted: set[tuple[str, int]] = set()
        for element in children(root):
            if local(element) == "abstractNum":
                self._abstract[attribute(element, "abstractNumId") or ""] = _levels(element)
            elif local(element) == "num":
                number_id = attribute(element, "numId") or ""
                self._of[number_id] = value_of(element, "abstractNumId") or ""
                overrides = [found for found in element if local(found) == "lvlOverride"]
                self._overrides[number_id] = {}
                self._starts[number_id] = {}
                for override in overrides:
                    level = _integer(attribute(override, "ilvl"))
                    self._overrides[number_id] |= _levels(override)
                    start = value_of(override, "startOverride")
                    if start is not None:
                        self._starts[number_id][level] = _integer(start, 1)

    def next_mark(self, place: ListPlace) -> str:
        """The number or bullet of the next paragraph of a list; empty if the list has none."""
        abstract = self._of.get(place.number_id)
        levels = {**self._abstract.get(abstract or "", {}), **self._overrides.get(place.number_id, {})}
        level = levels.get(place.level)
        if abstract is None or level is None:
            return ""
        counters = self._counters.setdefault(abstract, {})
        start = self._starts[place.number_id].get(place.level)
        if start is not None and (place.number_id, place.level) not in self._restarted:
            self._restarted.add((place.number_id, place.level))
            counters[place.level] = start
        else:
            counters[place.level] = counters.get(place.level, level.start - 1) + 1
        for deeper in [key for key in counters if key > place.level]:
            del counters[deeper]
        if level.kind == "bullet":
            return _BULLET
        if level.kind == "none":
            return ""
        text = level.text
        for index in range(place.level + 1):
            upper = levels.get(index, _Level())
            kind = "decimal" if index < place.level and level.kind == "decimal" and upper.kind == "none" else upper.kind
            text = text.replace(f"%{index + 1}", formatted_number(counters.get(index, upper.start), kind))
        return text.strip()


def _levels(parent: Element) -> dict[int, _Level]:
    levels: dict[int, _Level] = {}
    for element in parent:
        if local(element) == "lvl":
            levels[_integer(attribute(element, "ilvl"))] = _Level(
                start=_integer(value_of(element, "start"), 1),
                kind=value_of(element, "numFmt") or "decimal",
                text=value_of(element, "lvlText") or "",
            )
    return levels


def _integer(text: str | None, default: int = 0) -> int:
    return int(text) if text is not None and text.isascii() and text.isdigit() else default


def formatted_number(number: int, kind: str) -> str:
    """A number in a format of a list or note (ECMA-376 part 1, §17.18.59); other formats are written in digits.

    >>> [formatted_number(4, kind) for kind in ("decimal", "upperRoman", "lowerLetter", "decimalZero", "ordinal")]
    ['4', 'IV', 'd', '04', '4th']
    """
    if kind in ("lowerRoman", "upperRoman") and 0 < number < 4000:
        text = ""
        rest = number
        for value, letters in (*_ROMAN, *_SMALL_ROMAN):
            text += letters * (rest // value)
            rest %= value
        return text.upper() if kind == "upperRoman" else text
    if kind in ("lowerLetter", "upperLetter") and 0 < number <= 26 * 26:
        letter = chr(ord("a") + (number - 1) % 26) * ((number - 1) // 26 + 1)
        return letter.upper() if kind == "upperLetter" else letter
    if kind == "decimalZero":
        return f"{number:02d}"
    if kind == "ordinal":
        end = "th" if 10 <= number % 100 <= 20 else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
        return f"{number}{end}"
    return str(number)
