"""Opens ZIP-based documents (OOXML, EPUB) with limits on members, sizes and compression, and parses their XML safely.

A member is never read beyond its limit, whatever size the archive states. XML is parsed without network, external
entities and document types; OOXML forbids these (ECMA-376 part 2, §8.2.5.2).
"""

from __future__ import annotations

import posixpath
import re
import zipfile
import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from ragsvc.core.errors import ExtractionFailed, FailureReason
from ragsvc.extract.formats.xml_trees import Element, children, iterate_xml, parse_xml

MAX_MEMBERS = 20_000
MAX_MEMBER_BYTES = 256 << 20
MAX_TOTAL_BYTES = 512 << 20
MAX_RATIO = 200
_RATIO_FROM_BYTES = 4 << 20
"""Small members may have any ratio: the styles of an empty document have 1:20, a sheet of zeros 1:100."""
_DOCTYPE = re.compile(rb"<!(?:DOCTYPE|ENTITY)|<\x00!\x00D\x00O\x00C\x00", re.IGNORECASE)
_PROLOGUE_BYTES = 4096
_TOO_LARGE = "The file is compressed more than any real document (a ZIP bomb?), or unpacks to more than the limit."


class ZipPackage:
    """The members of an archive, by name without regard to case."""

    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._read_bytes = 0
        members = archive.infolist()
        if len(members) > MAX_MEMBERS:
            raise ExtractionFailed(FailureReason.DAMAGED, f"The file has more than {MAX_MEMBERS:,} members.")
        if any(member.flag_bits & 1 for member in members):
            raise ExtractionFailed(FailureReason.UNSUPPORTED_ENCRYPTION, "The members of the file are encrypted.")
        self._members = {_normal(member.filename).lower(): member for member in members if not member.is_dir()}

    def __contains__(self, name: str) -> bool:
        return _normal(name).lower() in self._members

    @property
    def names(self) -> list[str]:
        return [member.filename for member in self._members.values()]

    def read(self, name: str) -> bytes:
        """The content of a member; empty if there is no such member.

        Raises:
            ExtractionFailed: the member is damaged, or larger than the limits.
        """
        member = self._members.get(_normal(name).lower())
        if member is None:
            return b""
        most = min(MAX_MEMBER_BYTES, MAX_TOTAL_BYTES - self._read_bytes)
        most = min(most, max(_RATIO_FROM_BYTES, MAX_RATIO * member.compress_size))
        if member.file_size > most:
            raise ExtractionFailed(FailureReason.OUT_OF_MEMORY, _TOO_LARGE)
        try:
            with self._archive.open(member) as opened:
                data = opened.read(most + 1)
        except (zipfile.BadZipFile, zlib.error, EOFError, OSError, NotImplementedError, RuntimeError) as error:
            raise ExtractionFailed(
                FailureReason.DAMAGED, "The file is damaged: a member cannot be unpacked."
            ) from error
        if len(data) > most:
            raise ExtractionFailed(FailureReason.OUT_OF_MEMORY, _TOO_LARGE)
        self._read_bytes += len(data)
        return data

    def xml(self, name: str) -> Element | None:
        """The root element of an XML member of an OOXML package; ``None`` if there is no such member.

        Raises:
            ExtractionFailed: the member is not well-formed, or declares a document type.
        """
        data = self.read(name)
        if not data:
            return None
        _refuse_document_type(data)
        return parse_xml(data)

    def elements(self, name: str, wanted: Iterable[str]) -> Iterator[Element]:
        """The elements of an XML member with these local names, as they end; each is emptied after its use.

        Raises:
            ExtractionFailed: as for ``xml``.
        """
        data = self.read(name)
        if data:
            _refuse_document_type(data)
            yield from iterate_xml(data, wanted)

    def relations(self, part: str) -> dict[str, Relation]:
        """The relations of a part of an OOXML package, by id. External targets are left out: nothing is fetched."""
        folder, _, name = part.rpartition("/")
        root = self.xml(f"{folder}/_rels/{name}.rels" if folder else f"_rels/{name}.rels")
        found: dict[str, Relation] = {}
        for element in children(root):
            if element.get("TargetMode") == "External":
                continue
            target = unquote(element.get("Target") or "")
            path = target if target.startswith("/") else posixpath.join(folder, target)
            kind = (element.get("Type") or "").rpartition("/")[2]
            found[element.get("Id") or ""] = Relation(kind, _normal(path))
        return found


class Relation:
    """A relation of an OOXML part: its ``kind`` (the last part of its type) and the ``path`` of its target."""

    def __init__(self, kind: str, path: str) -> None:
        self.kind = kind
        self.path = path


def _refuse_document_type(data: bytes) -> None:
    if _DOCTYPE.search(data[:_PROLOGUE_BYTES]) is not None:
        raise ExtractionFailed(
            FailureReason.DAMAGED, "The file declares a document type or entities, which Office documents never do."
        )


def _normal(name: str) -> str:
    return posixpath.normpath("/" + name.replace("\\", "/")).lstrip("/")


@contextmanager
def open_package(path: Path) -> Generator[ZipPackage]:
    """Open an archive. Raises ``ExtractionFailed`` if it is damaged or encrypted, or has too many members."""
    try:
        archive = zipfile.ZipFile(path)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise ExtractionFailed(
            FailureReason.DAMAGED, "The file is damaged or incomplete: its ZIP directory cannot be read."
        ) from error
    with archive:
        yield ZipPackage(archive)
