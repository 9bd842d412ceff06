"""The files of the web pages in memory: ``index.html``, and what it loads. Knows neither routes nor sessions.

``scripts/pages/build.py`` makes them from ``source/`` into ``static/``. Names in ``assets/`` contain a hash of the
content, so browsers may keep these files for ever; the others are asked for again with their ``ETag``.
"""

from __future__ import annotations

import gzip
import hashlib
import html
import mimetypes
from pathlib import Path
from typing import Final

import msgspec

FOLDER: Final = Path(__file__).parent / "static"
_INDEX: Final = "index.html"
_ASSETS: Final = "assets/"
_LEAST_COMPRESSED_BYTES: Final = 512
_PREFIX_META: Final = '<meta name="ragsvc-prefix" content="'
_TYPES: Final = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml", ".json": "application/json"}
_PACKED: Final = frozenset({"image/png", "image/webp", "image/jpeg", "font/woff2"})
"""Media types whose files are compressed already."""


class PageFile(msgspec.Struct, frozen=True, kw_only=True):
    """A file as it is sent. ``gzipped`` is ``None`` if compression does not make it smaller."""

    content: bytes
    gzipped: bytes | None
    media_type: str
    etag: str
    immutable: bool = False


def page_file(content: bytes, media_type: str, *, immutable: bool = False) -> PageFile:
    """Compress a file and hash it."""
    gzipped = None
    if media_type not in _PACKED and len(content) >= _LEAST_COMPRESSED_BYTES:
        packed = gzip.compress(content, 9, mtime=0)
        gzipped = packed if len(packed) < len(content) else None
    text = media_type.startswith(("text/", "image/svg", "application/json"))
    return PageFile(
        content=content,
        gzipped=gzipped,
        media_type=f"{media_type}; charset=utf-8" if text else media_type,
        etag=f'"{hashlib.sha256(content).hexdigest()[:32]}"',
        immutable=immutable,
    )


class PageFiles:
    """All files of the pages. ``index`` is rendered for the path prefix under which a proxy serves them."""

    def __init__(self, index: str, files: dict[str, PageFile]) -> None:
        self._index = index
        self._files = files
        self._rendered: dict[str, PageFile] = {}

    def index(self, prefix: str) -> PageFile:
        """The page for a path prefix, which is empty or begins with a slash."""
        rendered = self._rendered.get(prefix)
        if rendered is None:
            if len(self._rendered) > 16:  # a trusted proxy states the prefix; there are few
                self._rendered.clear()
            rendered = self._rendered[prefix] = page_file(self._render(prefix).encode(), "text/html")
        return rendered

    def _render(self, prefix: str) -> str:
        base = html.escape(f"{prefix}/static/pages/", quote=True)
        page = self._index.replace('="./', f'="{base}')
        return page.replace(_PREFIX_META, _PREFIX_META + html.escape(prefix, quote=True))

    def find(self, name: str) -> PageFile | None:
        """The file with a path below the folder, such as ``assets/index-1a2b3c.js``."""
        return self._files.get(name)


def load_page_files(folder: Path = FOLDER) -> PageFiles | None:
    """Read and compress all files of a folder; ``None`` if the pages were not built."""
    index = folder / _INDEX
    if not index.is_file():
        return None
    files: dict[str, PageFile] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and name != _INDEX:
            media_type = _TYPES.get(path.suffix) or mimetypes.guess_type(name)[0] or "application/octet-stream"
            files[name] = page_file(path.read_bytes(), media_type, immutable=name.startswith(_ASSETS))
    return PageFiles(index.read_text(encoding="utf-8"), files)
