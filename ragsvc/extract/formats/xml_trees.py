"""Parses XML and HTML with lxml: without network, external entities and document types. The only module that uses lxml.

lxml has no type information, so elements are described by a protocol.
"""

from __future__ import annotations

import importlib
import io
import re
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, overload

from ragsvc.core.errors import ExtractionFailed, FailureReason

_etree: Any = importlib.import_module("lxml.etree")
_html: Any = importlib.import_module("lxml.html")
_SAFE = {"resolve_entities": False, "no_network": True, "load_dtd": False, "huge_tree": False}
_TOO_DEEP = "xcessive depth"
_TAG = re.compile(r"<[^>]*>")
_INVISIBLE = re.compile(r"<(script|style|template|noscript)\b.*?</\1\s*>", re.IGNORECASE | re.DOTALL)
_NOT_WELL_FORMED = "The file is damaged: its XML is not well-formed."


class Element(Protocol):
    """An element of a parsed tree. ``tag`` is text for elements; comments and entities have other tags."""

    tag: Any
    text: str | None
    tail: str | None

    def __iter__(self) -> Iterator[Element]: ...

    @overload
    def get(self, key: str) -> str | None: ...

    @overload
    def get(self, key: str, default: str) -> str: ...

    def items(self) -> Iterable[tuple[str, str]]: ...

    def iter(self) -> Iterator[Element]: ...

    def iterdescendants(self) -> Iterator[Element]: ...

    def iterancestors(self) -> Iterator[Element]: ...

    def itertext(self) -> Iterator[str]: ...

    def getparent(self) -> Element | None: ...


def parse_xml(data: bytes) -> Element:
    """Parse XML. Raises ``ExtractionFailed`` if it is not well-formed."""
    parser = _etree.XMLParser(remove_comments=True, remove_pis=True, **_SAFE)
    try:
        root: Element | None = _etree.fromstring(data, parser)
    except (_etree.XMLSyntaxError, ValueError) as error:
        raise ExtractionFailed(FailureReason.DAMAGED, _NOT_WELL_FORMED) from error
    if root is None:
        raise ExtractionFailed(FailureReason.DAMAGED, _NOT_WELL_FORMED)
    return root


def iterate_xml(data: bytes, wanted: Iterable[str]) -> Iterator[Element]:
    """The elements with these local names, as they end; each is emptied after its use, so that memory is bounded.

    Raises:
        ExtractionFailed: the XML is not well-formed.
    """
    tags = [f"{{*}}{name}" for name in wanted]
    try:
        parsed = _etree.iterparse(
            io.BytesIO(data), events=("end",), tag=tags, remove_comments=True, remove_pis=True, **_SAFE
        )
        for _, element in parsed:
            yield element
            element.clear()
            while element.getprevious() is not None:
                element.getparent().remove(element.getprevious())
    except _etree.XMLSyntaxError as error:
        raise ExtractionFailed(FailureReason.DAMAGED, _NOT_WELL_FORMED) from error


def parse_html(text: str) -> Element | None:
    """Parse HTML as browsers do, whatever its faults; ``None`` if it has no elements.

    libxml2 drops what is nested deeper than 2,048 elements (256 without ``huge_tree``), and only notes it in the log of
    errors. Such a page is read without its tags.
    """
    parser = _html.HTMLParser(no_network=True, remove_comments=True, remove_pis=True, huge_tree=True)
    try:
        root: Element | None = _html.document_fromstring(text, parser=parser) if text.strip() else None
    except (_etree.ParserError, _etree.XMLSyntaxError, ValueError):
        return None
    if any(_TOO_DEEP in entry.message for entry in parser.error_log):
        return parse_html(_TAG.sub(" ", _INVISIBLE.sub(" ", text)))
    return root


def local(element: Element) -> str:
    """The name of an element without its namespace; empty for comments and entities."""
    tag = element.tag
    return tag.rpartition("}")[2] if isinstance(tag, str) else ""


def attribute(element: Element, name: str) -> str | None:
    """The value of an attribute by its local name, whatever its namespace (strict and transitional OOXML differ)."""
    value = element.get(name)
    if value is not None:
        return value
    return next((found for key, found in element.items() if key.rpartition("}")[2] == name), None)


def child(element: Element | None, name: str) -> Element | None:
    """The first child with a local name."""
    return next((found for found in children(element) if local(found) == name), None)


def children(element: Element | None) -> list[Element]:
    """The child elements; none without an element."""
    return [found for found in element if local(found)] if element is not None else []


def all_text(element: Element) -> str:
    """The text of an element and of everything in it."""
    return "".join(map(str, element.itertext()))
