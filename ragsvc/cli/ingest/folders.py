"""Finds the files to ingest; handles link cycles, unreadable folders and file names of any bytes."""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

import msgspec

from ragsvc.core.file_types import MEDIA_TYPES_BY_SUFFIX


class FileSelection(msgspec.Struct, frozen=True, kw_only=True):
    """Which files of a folder to ingest. Patterns match the name or the relative path; ``*`` also matches ``/``."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    hidden: bool = False
    follow_links: bool = False


class SourceFile(msgspec.Struct, frozen=True):
    """A file to ingest: ``root`` and ``path`` as text that JSON can hold, and ``location`` to open it."""

    root: str
    path: str
    location: Path
    size_bytes: int

    @property
    def key(self) -> str:
        """The whole path as text; identifies a source across runs."""
        return f"{self.root.rstrip('/')}/{self.path}"

    @property
    def media_type(self) -> str:
        """The media type by suffix; the service recognises other files by their bytes."""
        return MEDIA_TYPES_BY_SUFFIX.get(self.location.suffix.lower(), "application/octet-stream")


class ScanProblem(msgspec.Struct, frozen=True):
    """A file or folder that could not be read."""

    path: str
    reason: str


class Scan(msgspec.Struct, frozen=True):
    """The files found. ``folders`` are the given folders, as text."""

    files: list[SourceFile]
    problems: list[ScanProblem]
    folders: list[str]
    links_passed_over: int
    passed_over: dict[str, int] = {}
    """Number of files in the folders whose type cannot be read, by suffix in lower case."""


def text_of(path: str | Path) -> str:
    r"""A path as text; bytes that are not UTF-8 become ``\xff``."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def scan(sources: Sequence[Path], selection: FileSelection) -> Scan:
    """Find the files in the given folders, and the given files, in a stable order.

    Raises:
        FileNotFoundError: a given path does not exist.
    """
    walk = _Walk(selection)
    folders: list[str] = []
    for source in sources:
        root = source.resolve(strict=True)
        if root.is_dir():
            folders.append(text_of(root))
            walk.folder(root)
        else:
            walk.single(root)
    return Scan(
        files=list(walk.files.values()),
        problems=walk.problems,
        folders=folders,
        links_passed_over=walk.links,
        passed_over=dict(walk.passed_over.most_common()),
    )


class _Walk:
    def __init__(self, selection: FileSelection) -> None:
        self._selection = selection
        self._seen: set[tuple[int, int]] = set()
        self.files: dict[str, SourceFile] = {}
        self.problems: list[ScanProblem] = []
        self.links = 0
        self.passed_over: Counter[str] = Counter()

    def single(self, file: Path) -> None:
        """Take a file that was named explicitly, with any suffix."""
        self._take(file.parent, file)

    def folder(self, root: Path) -> None:
        """Take the selected files below ``root``; a folder reached twice (links, overlap) is walked once."""
        waiting = [root]
        while waiting:
            folder = waiting.pop()
            below: list[Path] = []
            for entry in self._entries(folder):
                path = Path(entry.path)
                if not self._wanted(entry, root):
                    continue
                try:
                    if entry.is_dir():
                        below.append(path)
                    elif self._included(path, root):
                        self._take(root, path)
                    elif not self._selection.include:
                        self.passed_over[text_of(path.suffix.lower()) or "no suffix"] += 1
                except OSError as error:
                    self._problem(path, error)
            waiting += reversed(below)

    def _entries(self, folder: Path) -> Iterator[os.DirEntry[str]]:
        try:
            found = folder.stat()
            if (found.st_dev, found.st_ino) in self._seen:
                return
            self._seen.add((found.st_dev, found.st_ino))
            with os.scandir(folder) as entries:
                ordered = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            self._problem(folder, error)
            return
        yield from ordered

    def _wanted(self, entry: os.DirEntry[str], root: Path) -> bool:
        if entry.name.startswith(".") and not self._selection.hidden:
            return False
        if entry.is_symlink() and not self._selection.follow_links:
            self.links += 1
            return False
        return not _matches(Path(entry.path), root, self._selection.exclude)

    def _included(self, path: Path, root: Path) -> bool:
        if self._selection.include:
            return _matches(path, root, self._selection.include)
        return path.suffix.lower() in MEDIA_TYPES_BY_SUFFIX

    def _take(self, root: Path, path: Path) -> None:
        try:
            found = path.stat()
        except OSError as error:
            self._problem(path, error)
            return
        if not stat.S_ISREG(found.st_mode):
            self.problems.append(ScanProblem(text_of(path), "is not a regular file"))
            return
        file = SourceFile(text_of(root), text_of(path.relative_to(root)), path, found.st_size)
        self.files.setdefault(file.key, file)

    def _problem(self, path: Path, error: OSError) -> None:
        self.problems.append(ScanProblem(text_of(path), error.strerror or type(error).__name__))


def _matches(path: Path, root: Path, patterns: Sequence[str]) -> bool:
    relative = path.relative_to(root).as_posix()
    return any(fnmatch(path.name, pattern) or fnmatch(relative, pattern) for pattern in patterns)


def has_vanished(path: str) -> bool:
    """``True`` only if the path certainly does not exist; unreadable paths (permissions, lost mounts) do not count."""
    try:
        Path(path).lstat()
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False
    return False
