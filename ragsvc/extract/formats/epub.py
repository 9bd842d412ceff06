"""Reads EPUB books: each document of the spine is a page, labelled with the chapter's name from the table of contents.

EPUB 3.3 §5 (package), §5.4 (navigation); EPUB 2 tables of contents (NCX) are read too. Nothing is fetched.
"""

from __future__ import annotations

import html
import posixpath
import re
from pathlib import Path
from urllib.parse import unquote

from ragsvc.core.documents import Extraction
from ragsvc.core.errors import ExtractionFailed, FailureReason
from ragsvc.core.ports.parsing import ExtractionLimits
from ragsvc.extract.formats.html_text import HtmlWalker, page_title, read_tree
from ragsvc.extract.formats.page_builder import PageBuilder
from ragsvc.extract.formats.web_page import decode_html
from ragsvc.extract.formats.xml_trees import Element, all_text, child, children, local, parse_xml
from ragsvc.extract.formats.zip_package import ZipPackage, open_package
from ragsvc.extract.pdf_pages import PageReports

_CONTAINER = "META-INF/container.xml"
_ENCRYPTION = "META-INF/encryption.xml"
_PAGES = frozenset({"application/xhtml+xml", "text/html", "application/x-dtbook+xml", "text/x-oeb1-document"})
_FONT_ALGORITHMS = ("http://www.idpf.org/2008/embedding", "http://ns.adobe.com/pdf/enc#RC")
_ENTITY = re.compile(r"&([A-Za-z][A-Za-z0-9]{1,30});")
_DOCTYPE = re.compile(r"<!DOCTYPE[^>\[]*(?:\[[^\]]*\])?[^>]*>", re.IGNORECASE)
_XML_DECLARATION = re.compile(r"\A\s*<\?xml[^>]*\?>")
_XML_ENTITIES = frozenset({"amp", "lt", "gt", "quot", "apos"})


def read_epub(path: Path, *, limits: ExtractionLimits, reports: PageReports) -> Extraction:
    """Read a book. Raises ``ExtractionFailed``."""
    with open_package(path) as package:
        _refuse_encrypted(package)
        book = _Book(package)
        builder = PageBuilder(limits)
        for number, name in enumerate(book.spine, start=1):
            root = _page(package.read(name))
            chapter = book.chapters.get(name) or _heading(root)
            builder.page(f"chapter {chapter}" if chapter else None)
            if chapter:
                builder.section(chapter)
            if root is not None:
                HtmlWalker(builder, root).add(root)
            reports.on_progress(number, len(book.spine))
        return builder.finish(title=book.title, nothing="The book contains no text.", on_progress=reports.on_progress)


class _Book:
    """The package of a book: its title, the documents of its spine, and the chapters by document."""

    def __init__(self, package: ZipPackage) -> None:
        self._package = package
        container = _xml(package, _CONTAINER)
        rootfiles = [found for found in container.iter() if local(found) == "rootfile"] if container is not None else []
        name = next((unquote(found.get("full-path", "")) for found in rootfiles), "")
        root = _xml(package, name) if name else None
        if root is None:
            raise ExtractionFailed(FailureReason.DAMAGED, "The file is damaged: the book has no package document.")
        self._folder = posixpath.dirname(name)
        titles = [found.text for found in children(child(root, "metadata")) if local(found) == "title"]
        self.title = " ".join((titles[0] or "").split()) if titles else None
        manifest = {found.get("id", ""): found for found in children(child(root, "manifest")) if local(found) == "item"}
        listed = [found.get("idref", "") for found in children(child(root, "spine")) if local(found) == "itemref"]
        items = [manifest[item] for item in listed if item in manifest]
        self.spine = [
            self._path(item.get("href", "")) for item in items if item.get("media-type", "").lower() in _PAGES
        ]
        self.chapters: dict[str, str] = {}
        self._read_contents(list(manifest.values()))

    def _path(self, reference: str, folder: str | None = None) -> str:
        name = unquote(reference.partition("#")[0])
        return posixpath.normpath(posixpath.join(self._folder if folder is None else folder, name))

    def _read_contents(self, items: list[Element]) -> None:
        """Read the table of contents; the first entry of a document names its chapter."""
        navigation = next((item for item in items if "nav" in item.get("properties", "").split()), None)
        contents = navigation
        if contents is None:
            contents = next((item for item in items if item.get("media-type") == "application/x-dtbncx+xml"), None)
        if contents is None:
            return
        name = self._path(contents.get("href", ""))
        folder = posixpath.dirname(name)
        if navigation is not None:
            root = _page(self._package.read(name))
            for link in root.iter() if root is not None else ():
                if local(link) == "a" and link.get("href"):
                    self._note(self._path(link.get("href", ""), folder), all_text(link))
            return
        root = _xml(self._package, name)
        for point in root.iter() if root is not None else ():
            if local(point) == "navPoint":
                target, label = child(point, "content"), child(point, "navLabel")
                if target is not None and label is not None:
                    self._note(self._path(target.get("src", ""), folder), all_text(label))

    def _note(self, name: str, label: str) -> None:
        text = " ".join(label.split())
        if text:
            self.chapters.setdefault(name, text)


def _xml(package: ZipPackage, name: str) -> Element | None:
    data = package.read(name)
    return _parse(decode_html(data, charset=None).text) if data else None


def _parse(text: str) -> Element:
    """Parse XML after removing its document type; the named characters of HTML are replaced before."""
    text = _DOCTYPE.sub("", _XML_DECLARATION.sub("", text.lstrip("\ufeff")), count=1)
    text = _ENTITY.sub(_character, text)
    return parse_xml(text.encode())


def _character(found: re.Match[str]) -> str:
    return found[0] if found[1] in _XML_ENTITIES else html.escape(html.unescape(found[0]), quote=False)


def _page(data: bytes) -> Element | None:
    """The tree of a page: as XML, or as HTML if it is not well-formed."""
    if not data.strip():
        return None
    text = decode_html(data).text
    try:
        return _parse(text)
    except ExtractionFailed:
        return read_tree(text)


def _heading(root: Element | None) -> str | None:
    """The first heading of a page, else its title."""
    if root is None:
        return None
    for element in root.iter():
        if local(element) in ("h1", "h2") and (text := " ".join(all_text(element).split())):
            return text
    return page_title(root)


def _refuse_encrypted(package: ZipPackage) -> None:
    """Refuse a book whose pages are encrypted; obfuscated fonts do not matter."""
    root = _xml(package, _ENCRYPTION)
    for element in root.iter() if root is not None else ():
        if local(element) == "EncryptionMethod" and element.get("Algorithm", "") not in _FONT_ALGORITHMS:
            raise ExtractionFailed(
                FailureReason.UNSUPPORTED_ENCRYPTION, "The book is encrypted (digital rights management)."
            )
