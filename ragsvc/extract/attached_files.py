"""Collects the files that are attached to a document, within limits of number and size. Pure."""

from __future__ import annotations

import msgspec

from ragsvc.core.documents import AttachedFile, Extraction
from ragsvc.core.ports.parsing import ExtractionLimits


class AttachmentCollector:
    """Keeps attached files within the limits, each content once; the names of all of them are kept."""

    def __init__(self, limits: ExtractionLimits) -> None:
        self._limits = limits
        self._contents: set[bytes] = set()
        self.bytes_left = limits.max_attachment_bytes
        self.names: list[str] = []
        self.files: list[AttachedFile] = []

    @property
    def is_full(self) -> bool:
        """Whether no more files are kept."""
        return len(self.files) >= self._limits.max_attachments or self.bytes_left <= 0

    def add(self, file: AttachedFile) -> None:
        """Keep a file with content, unless a limit is reached."""
        if file.data and file.data in self._contents:
            return
        self.names.append(file.name)
        if file.data and not self.is_full and len(file.data) <= self.bytes_left:
            self.bytes_left -= len(file.data)
            self._contents.add(file.data)
            self.files.append(file)

    def added_to(self, extraction: Extraction) -> Extraction:
        """The extraction with the attached files."""
        return msgspec.structs.replace(extraction, attachments=self.names, attached_files=self.files)
