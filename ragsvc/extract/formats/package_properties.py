"""Reads the title from the core properties of an Office document (ECMA-376 part 2, §8.3)."""

from __future__ import annotations

from ragsvc.core.errors import ExtractionFailed
from ragsvc.extract.formats.xml_trees import child
from ragsvc.extract.formats.zip_package import ZipPackage

_NO_TITLES = frozenset(
    {
        "powerpoint presentation",
        "powerpoint-präsentation",
        "slide 1",
        "folie 1",
        "document",
        "untitled",
        "word document",
    }
)


def package_title(package: ZipPackage) -> str | None:
    """The title that the author gave; ``None`` without one."""
    try:
        parts = [found.path for found in package.relations("").values() if found.kind == "core-properties"]
        title = child(package.xml(parts[0]) if parts else None, "title")
    except ExtractionFailed:  # damaged properties do not matter
        return None
    text = " ".join((title.text or "").split()) if title is not None else ""
    return None if text.lower() in _NO_TITLES else text or None
