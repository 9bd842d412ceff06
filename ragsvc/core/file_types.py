"""The file types that can be documents, and how they are recognised by their content. Pure."""

from __future__ import annotations

import mimetypes
import re
from typing import Final

import msgspec

PDF: Final = "application/pdf"
DOCX: Final = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
PPTX: Final = "application/vnd.openxmlformats-officedocument.presentationml.presentation"
XLSX: Final = "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet"
EPUB: Final = "application/epub+zip"
EML: Final = "message/rfc822"
HTML: Final = "text/html"
CSV: Final = "text/csv"
TSV: Final = "text/tab-separated-values"
TEXT: Final = "text/plain"
MARKDOWN: Final = "text/markdown"
PNG: Final = "image/png"
JPEG: Final = "image/jpeg"
TIFF: Final = "image/tiff"
WEBP: Final = "image/webp"

MEDIA_TYPES_BY_SUFFIX: Final = {
    ".pdf": PDF,
    ".docx": DOCX,
    ".docm": DOCX,
    ".dotx": DOCX,
    ".pptx": PPTX,
    ".pptm": PPTX,
    ".ppsx": PPTX,
    ".xlsx": XLSX,
    ".xlsm": XLSX,
    ".html": HTML,
    ".htm": HTML,
    ".xhtml": HTML,
    ".epub": EPUB,
    ".csv": CSV,
    ".tsv": TSV,
    ".eml": EML,
    ".txt": TEXT,
    ".text": TEXT,
    ".md": MARKDOWN,
    ".markdown": MARKDOWN,
    ".png": PNG,
    ".jpg": JPEG,
    ".jpeg": JPEG,
    ".tif": TIFF,
    ".tiff": TIFF,
    ".webp": WEBP,
}
"""Media types of the files that can be documents, by suffix in lower case."""

MEDIA_TYPES: Final = tuple(dict.fromkeys(MEDIA_TYPES_BY_SUFFIX.values()))
SUFFIXES: Final = {media_type: suffix for suffix, media_type in reversed(MEDIA_TYPES_BY_SUFFIX.items())}
"""The usual suffix of each media type."""

MEDIA_TYPE_ALIASES: Final = {
    "application/x-pdf": PDF,
    "text/x-markdown": MARKDOWN,
    "application/xhtml+xml": HTML,
    "application/csv": CSV,
    "text/x-csv": CSV,
    "text/comma-separated-values": CSV,
    "image/jpg": JPEG,
    "image/pjpeg": JPEG,
    "image/tif": TIFF,
    "application/vnd.ms-word.document.macroenabled.12": DOCX,
    "application/vnd.openxmlformats-officedocument.wordprocessingml.template": DOCX,
    "application/vnd.ms-powerpoint.presentation.macroenabled.12": PPTX,
    "application/vnd.openxmlformats-officedocument.presentationml.slideshow": PPTX,
    "application/vnd.ms-excel.sheet.macroenabled.12": XLSX,
}
PICTURES: Final = frozenset({PNG, JPEG, TIFF, WEBP})

READABLE: Final = (
    "PDF (.pdf), Word (.docx), PowerPoint (.pptx), Excel (.xlsx), HTML (.html), EPUB (.epub), CSV (.csv, .tsv), "
    "e-mail (.eml), plain text (.txt), Markdown (.md) and pictures of pages (.png, .jpg, .tiff, .webp)"
)
"""The list of what can be read, for error messages."""

HEAD_BYTES: Final = 8192
TAIL_BYTES: Final = 65_536
"""Bytes of the start and the end of a file that ``recognise`` looks at: a ZIP archive lists its members at the end."""

_MAX_MEMBERS: Final = 2000
_OFFICE: Final = ((b"word/", DOCX), (b"ppt/", PPTX), (b"xl/", XLSX))
_OPEN_DOCUMENT: Final = b"application/vnd.oasis.opendocument"
_WIDE_PACKAGE: Final = "EncryptedPackage".encode("utf-16-le")
_UNREADABLE: Final = (
    (b"GIF8", "a GIF image"),
    (b"BM", "a bitmap image"),
    (b"RIFF", "a media file"),
    (b"ID3", "an audio file"),
    (b"OggS", "a media file"),
    (b"fLaC", "an audio file"),
    (b"\x1a\x45\xdf\xa3", "a video"),
    (b"{\\rtf", "an RTF document"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ\x00", "an xz archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"%!PS", "a PostScript file"),
    (b"SQLite format 3\x00", "a SQLite database"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
)
_PICTURE_MARKS: Final = ((b"\x89PNG", PNG), (b"\xff\xd8\xff", JPEG), (b"II*\x00", TIFF), (b"MM\x00*", TIFF))
_NAMES: Final = {
    PDF: "a PDF",
    DOCX: "a Word document",
    PPTX: "a PowerPoint presentation",
    XLSX: "an Excel workbook",
    EPUB: "an EPUB book",
    PNG: "a PNG image",
    JPEG: "a JPEG image",
    TIFF: "a TIFF image",
    WEBP: "a WebP image",
}
_TEXT_BOMS: Final = (b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")
_PDF_START: Final = re.compile(rb"(?:\A|[\r\n\x00])[ \t]*%PDF-")
_TAR: Final = (257, b"ustar")
_HTML_START: Final = re.compile(
    rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--.*?-->\s*)*<(?:!doctype\s+html|html|head|body)\b", re.I | re.S
)
_HEADER: Final = re.compile(
    rb"(?:From [^\r\n]*\r?\n)?(?:[\x21-\x39\x3b-\x7e]+:[^\r\n]*\r?\n(?:[ \t][^\r\n]*\r?\n)*){2,}"
)
_MAIL_FIELDS: Final = re.compile(rb"^(?:from|received|return-path|message-id|delivered-to|mime-version):", re.I | re.M)


OCTET_STREAM: Final = "application/octet-stream"
UNTYPED: Final = frozenset(
    {
        "",
        OCTET_STREAM,
        "binary/octet-stream",
        "application/x-www-form-urlencoded",
        "application/zip",
        "application/x-zip-compressed",
        "application/vnd.ms-excel",
    }
)
"""Types that say little: Windows sends Office files as ZIP archives, and CSV files as Excel workbooks."""
_TEXT_LIKE: Final = re.compile(
    r"text/.+|application/(?:json|jsonl|x-ndjson|xml|yaml|x-yaml|toml|sql|javascript|typescript|x-sh|x-tex|x-python"
    r"|.+\+(?:json|xml|yaml))"
)
_OTHER_TYPES: Final = {
    ".jsonl": "application/jsonl",
    ".ts": "application/typescript",
    ".yaml": "application/yaml",
    ".yml": "application/yaml",
    ".sh": "application/x-sh",
    ".go": "text/x-go",
    ".rs": "text/x-rust",
    ".rb": "text/x-ruby",
    ".php": "text/x-php",
    ".java": "text/x-java",
    ".cs": "text/x-csharp",
}
"""Types of files that cannot be documents as they are, which the table of the standard library lacks or misses."""
_MEDIA_TYPE: Final = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}")


class FileType(msgspec.Struct, frozen=True):
    """A type recognised by content; ``media_type`` is ``None`` if it cannot be read. ``name`` is for messages."""

    media_type: str | None
    name: str


def recognise(head: bytes, tail: bytes = b"") -> FileType | None:
    r"""The type of a file with a binary format, from its first and last bytes; ``None`` for text and unknown formats.

    >>> recognise(b"%PDF-1.7").media_type
    'application/pdf'
    >>> recognise(b"Rar!\x1a\x07\x01")
    FileType(media_type=None, name='a RAR archive')
    """
    if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
        return _zip_type(head, tail)
    picture = next((media_type for mark, media_type in _PICTURE_MARKS if head.startswith(mark)), None)
    if head.startswith(b"RIFF") and head[8:12] == b"WEBP":
        picture = WEBP
    if picture is not None:
        return _readable(picture)
    other = _unreadable_name(head, tail)
    if other is not None:
        return FileType(None, other)
    start = head[:1024]
    is_pdf = _PDF_START.search(start) is not None or (b"%PDF-" in start and not is_text(head))
    return _readable(PDF) if is_pdf else None


def _unreadable_name(head: bytes, tail: bytes) -> str | None:
    if head.startswith(b"\xd0\xcf\x11\xe0"):
        protected = _WIDE_PACKAGE in head or _WIDE_PACKAGE in tail
        return (
            "a password-protected Office document" if protected else "an old Office document (.doc, .xls, .ppt, .msg)"
        )
    if head[4:8] == b"ftyp":
        return "a video or HEIF image"
    if head[_TAR[0] :].startswith(_TAR[1]):
        return "a tar archive"
    name = next((name for mark, name in _UNREADABLE if head.startswith(mark)), None)
    return None if name is not None and _is_short_mark(head) and is_text(head) else name


def _readable(media_type: str) -> FileType:
    return FileType(media_type, _NAMES[media_type])


def _is_short_mark(head: bytes) -> bool:
    """Whether the mark of the format is printable, so that a text may begin with it."""
    return head.startswith((b"BM", b"MZ", b"ID3", b"BZh", b"OggS", b"RIFF", b"fLaC", b"GIF8"))


def is_text(head: bytes) -> bool:
    """Whether bytes are text in some encoding, UTF-16 with a byte order mark included."""
    if head.startswith(_TEXT_BOMS):
        return True
    return b"\x00" not in head and sum(byte < 9 or 13 < byte < 27 for byte in head) <= len(head) // 20


def _zip_type(head: bytes, tail: bytes) -> FileType:
    names = _member_names(head, tail)
    first = head[30 : 30 + 200]
    if first.startswith(b"mimetype" + EPUB.encode()) or b"META-INF/container.xml" in names:
        return _readable(EPUB)
    if _OPEN_DOCUMENT in first:
        return FileType(None, "an OpenDocument file")
    if b"xl/workbook.bin" in names:
        return FileType(None, "a binary Excel workbook (.xlsb)")
    if b"[Content_Types].xml" in names:
        for folder, media_type in _OFFICE:
            if any(name.startswith(folder) for name in names):
                return _readable(media_type)
        if b"PK\x05\x06" not in tail:
            return FileType(None, "an incomplete Office document")
    return FileType(None, "a ZIP archive" if b"PK\x05\x06" in tail else "a ZIP archive or Office document, incomplete")


def _member_names(head: bytes, tail: bytes) -> set[bytes]:
    """Names of the members of a ZIP archive that are listed in these parts of it (PKWARE APPNOTE §4.3.7, §4.3.12)."""
    names: set[bytes] = set()
    for data, mark, length_at, name_at in ((head, b"PK\x03\x04", 26, 30), (tail, b"PK\x01\x02", 28, 46)):
        position = data.find(mark)
        while position >= 0 and len(names) < _MAX_MEMBERS:
            length = int.from_bytes(data[position + length_at : position + length_at + 2], "little")
            names.add(data[position + name_at : position + name_at + length])
            position = data.find(mark, position + 4)
    return names


def looks_like_html(head: bytes) -> bool:
    """Whether a text begins as an HTML document does."""
    return _HTML_START.match(head.removeprefix(_TEXT_BOMS[0])) is not None


def looks_like_email(head: bytes) -> bool:
    """Whether a text begins with header fields of a message (RFC 5322 §2.2)."""
    fields = _HEADER.match(head)
    return fields is not None and _MAIL_FIELDS.search(fields.group()) is not None


def media_type_of(declared: str, filename: str, *, head: bytes, tail: bytes) -> FileType | None:
    """The type of a file: by content if its format is binary, else as declared, else by content and name.

    ``declared`` is one of ``MEDIA_TYPES`` or empty. ``None`` if the type is unknown.
    """
    found = recognise(head, tail)
    damaged = found is not None and found.media_type == PNG and head[12:16] != b"IHDR"
    if found is not None and not (
        damaged and declared
    ):  # a damaged picture becomes a document that failed, as declared
        return found
    if declared:
        return FileType(declared, declared)
    suffix = filename[filename.rfind(".") :].lower() if "." in filename else ""
    by_name = MEDIA_TYPES_BY_SUFFIX.get(suffix)
    if by_name is not None and (by_name in (HTML, EML) or by_name.startswith("text/")):
        return FileType(by_name, by_name)
    if looks_like_html(head):
        return FileType(HTML, HTML)
    if looks_like_email(head):
        return FileType(EML, EML)
    return None if by_name is None else FileType(by_name, by_name)


def stored_media_type(declared: str, filename: str, *, head: bytes, tail: bytes) -> str:
    """The media type of any file, also of one that cannot be a document: by content, as declared, or by its name.

    >>> stored_media_type("application/octet-stream", "notes.md", head=b"# Tides", tail=b"# Tides")
    'text/markdown'
    >>> stored_media_type("", "batch.jsonl", head=b'{"custom_id": "1"}', tail=b"")
    'application/jsonl'
    >>> stored_media_type("application/octet-stream", "weights.bin", head=bytes(64), tail=bytes(64))
    'application/octet-stream'
    """
    declared = declared.lower()
    declared = MEDIA_TYPE_ALIASES.get(declared, declared)
    if declared in UNTYPED or not _MEDIA_TYPE.fullmatch(declared):
        declared = ""
    found = media_type_of(declared if declared in MEDIA_TYPES else "", filename, head=head, tail=tail)
    if found is not None and found.media_type is not None:
        return declared if declared in MEDIA_TYPES and declared.startswith("text/") else found.media_type
    if declared:
        return declared
    guessed = _OTHER_TYPES.get(filename[filename.rfind(".") :].lower()) or mimetypes.guess_type(filename)[0]
    return guessed or (TEXT if head and is_text(head) else OCTET_STREAM)


def document_media_type(media_type: str) -> str | None:
    """The type as which a stored file is read if it becomes a document: its own, or text; ``None`` if it cannot.

    >>> [document_media_type(kind) for kind in ("application/pdf", "application/json", "video/mp4")]
    ['application/pdf', 'text/plain', None]
    """
    plain = media_type.partition(";")[0]
    if plain in MEDIA_TYPES:
        return media_type
    return TEXT if _TEXT_LIKE.fullmatch(plain) else None
