"""Makes HTML and SVG elements; the serializer of the standard library escapes every text and attribute."""

from __future__ import annotations

from xml.etree import ElementTree as Tree

Element = Tree.Element
Child = Element | str


def element(name: str, /, *children: Child, **attributes: str | float) -> Element:
    """An element; ``class_`` and ``text_anchor`` stand for ``class`` and ``text-anchor``, numbers are shortened."""
    made = Element(name, {_attribute(key): _value(value) for key, value in attributes.items()})
    last: Element | None = None
    for child in children:
        if isinstance(child, Element):
            made.append(child)
            last = child
        elif last is None:
            made.text = (made.text or "") + child
        else:
            last.tail = (last.tail or "") + child
    return made


def to_html(root: Element) -> str:
    r"""The document's text.

    >>> to_html(element("p", "1 < 2", element("br"), "&", title='"'))
    '<!DOCTYPE html>\n<p title="&quot;">1 &lt; 2<br>&amp;</p>\n'
    """
    return "<!DOCTYPE html>\n" + Tree.tostring(root, encoding="unicode", method="html") + "\n"


def _attribute(key: str) -> str:
    return key if key == "viewBox" else key.rstrip("_").replace("_", "-")


def _value(value: str | float) -> str:
    return value if isinstance(value, str) else f"{value:.2f}".rstrip("0").rstrip(".")
