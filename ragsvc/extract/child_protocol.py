"""The protocol between the service and its child processes: length-prefixed MessagePack frames over pipes.

MessagePack with typed structs instead of pickle, because a child that a malicious file has compromised may send
anything. Large results are sent in batches: decoding 2,000 pages at once blocks the interpreter for 13 ms, decoding a
batch for 0.04 ms.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import msgspec

from ragsvc.core.documents import AttachedFile, Extraction, Heading, Page, Passage, Problem
from ragsvc.core.errors import FailureReason
from ragsvc.core.page_views import OutlineEntry, PageBoxes, PagePicture, RecognisedLines, TextStretch
from ragsvc.core.ports.parsing import ChunkingOptions, ExtractionLimits

MAX_FRAME_BYTES = 64 << 20
_HEADER = struct.Struct(">I")
_BATCH_CHARACTERS = 100_000
_PIECE_BYTES = 8 << 20


class ChunkingPlan(msgspec.Struct, frozen=True):
    """How the child splits pages into passages. Functions are named by dotted path, so that the pipe carries only data.

    ``split`` names ``split_pages(extraction, *, options, tokens, filename) -> list[Passage]``; ``load_tokens`` names
    ``load_token_spans(path) -> TokenSpans``, called once in each child with ``tokenizer``. Both have the form
    ``module:function``.
    """

    split: str
    load_tokens: str
    tokenizer: str
    options: ChunkingOptions = ChunkingOptions()


class ChildFiles(msgspec.Struct, frozen=True):
    """What a child may read, apart from the installation: ``paths``, and the packages it imports functions from."""

    paths: tuple[str, ...] = ()
    packages: tuple[str, ...] = ("ragsvc",)


class ParseRequest(msgspec.Struct, frozen=True, tag=True):
    """Extract a file and split it into passages (none without ``plan``).

    ``is_small``: the file is one of many that take a moment each, so the child reports no progress and collects garbage
    less often.
    """

    path: str
    media_type: str
    filename: str
    password: str | None
    limits: ExtractionLimits
    plan: ChunkingPlan | None
    is_small: bool = False


class BoxesRequest(msgspec.Struct, frozen=True, tag=True):
    """Find the rectangles of a stretch of the text of page ``page`` (from 1); ``known`` are its recognised lines."""

    path: str
    password: str | None
    page: int
    stretch: TextStretch
    known: RecognisedLines | None
    limits: ExtractionLimits


class DrawRequest(msgspec.Struct, frozen=True, tag=True):
    """Draw page ``page`` (from 1) about ``width`` pixels wide."""

    path: str
    password: str | None
    page: int
    width: int
    limits: ExtractionLimits


class OutlineRequest(msgspec.Struct, frozen=True, tag=True):
    """Read the bookmarks of a PDF."""

    path: str
    password: str | None
    limits: ExtractionLimits


class ParseStarted(msgspec.Struct, frozen=True, tag=True):
    """The child has accepted the job. If it ends after this reply, the document has failed."""


class ParseProgress(msgspec.Struct, frozen=True, tag=True):
    """Pages read so far. ``recognised`` of them needed text recognition, which extends the deadline."""

    done: int
    total: int
    recognised: int = 0


class ParseWarning(msgspec.Struct, frozen=True, tag=True):
    """A problem of the installation, not of the file."""

    message: str


class EarlyPageBatch(msgspec.Struct, frozen=True, tag=True):
    """Pages that were read while others are not yet; ``total`` is the number of all pages.

    Their final texts, which can differ, follow in a ``PageBatch``.
    """

    pages: list[Page]
    total: int


class RecognitionBegins(msgspec.Struct, frozen=True, tag=True):
    """The text layers are read; the texts of ``pages`` pages are recognised next, which takes seconds for each."""

    pages: int


class PageBatch(msgspec.Struct, frozen=True, tag=True):
    pages: list[Page]


class PassageBatch(msgspec.Struct, frozen=True, tag=True):
    passages: list[Passage]


class AttachmentPiece(msgspec.Struct, frozen=True, tag=True):
    """A piece of an attached file; the pieces of a file follow each other, and ``last`` ends it."""

    name: str
    data: bytes
    last: bool


class ParseFinished(msgspec.Struct, frozen=True, tag=True):
    """The last reply of a successful parse: the results without pages and passages, and the child's memory use."""

    headings: list[Heading]
    problems: list[Problem]
    title: str | None
    page_count: int
    attachments: list[str]
    timings: dict[str, float]
    rss_bytes: int


class FoundBoxes(msgspec.Struct, frozen=True, tag=True):
    """The only reply to a ``BoxesRequest`` after ``ParseStarted``; ``lines`` if recognised lines were needed."""

    boxes: PageBoxes
    lines: RecognisedLines | None
    rss_bytes: int


class DrawnPage(msgspec.Struct, frozen=True, tag=True):
    """The only reply to a ``DrawRequest`` after ``ParseStarted``."""

    picture: PagePicture
    rss_bytes: int


class FoundOutline(msgspec.Struct, frozen=True, tag=True):
    """The only reply to an ``OutlineRequest`` after ``ParseStarted``."""

    bookmarks: list[OutlineEntry]
    rss_bytes: int


class ParseFailed(msgspec.Struct, frozen=True, tag=True):
    """The last reply of a failed job."""

    reason: FailureReason
    message: str
    rss_bytes: int


Request = ParseRequest | BoxesRequest | DrawRequest | OutlineRequest
Reply = (
    ParseStarted
    | ParseProgress
    | ParseWarning
    | EarlyPageBatch
    | RecognitionBegins
    | PageBatch
    | PassageBatch
    | AttachmentPiece
    | ParseFinished
    | FoundBoxes
    | DrawnPage
    | FoundOutline
    | ParseFailed
)

_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def decode_request(payload: bytes) -> Request:
    """Raises ``msgspec.DecodeError``."""
    return _requests.decode(payload)


def decode_reply(payload: bytes) -> Reply:
    """Raises ``msgspec.DecodeError``."""
    return _replies.decode(payload)


def pack(message: Request | Reply) -> bytes:
    """Encode a message as a frame."""
    payload = msgspec.msgpack.encode(message)
    return _HEADER.pack(len(payload)) + payload


def payload_length(header: bytes) -> int:
    """Decode a frame's length. Raises ``ValueError`` if it exceeds ``MAX_FRAME_BYTES``."""
    (length,) = _HEADER.unpack(header)
    if length > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {length} bytes exceeds {MAX_FRAME_BYTES} bytes")
    return int(length)


HEADER_BYTES = _HEADER.size


def read_payload(stream: BinaryIO) -> bytes | None:
    """Read a frame's payload from a blocking stream; ``None`` at the end of the stream, also within a frame."""
    header = stream.read(HEADER_BYTES)
    if len(header) < HEADER_BYTES:
        return None
    length = payload_length(header)
    payload = stream.read(length)
    return payload if len(payload) == length else None


def page_batches(pages: Iterable[Page]) -> Iterator[PageBatch]:
    """Group pages into frames of about 100,000 characters."""
    batch: list[Page] = []
    size = 0
    for page in pages:
        batch.append(page)
        size += len(page.text)
        if size >= _BATCH_CHARACTERS:
            yield PageBatch(batch)
            batch, size = [], 0
    if batch:
        yield PageBatch(batch)


def passage_batches(passages: Iterable[Passage]) -> Iterator[PassageBatch]:
    """Group passages into frames of about 100,000 characters."""
    batch: list[Passage] = []
    size = 0
    for passage in passages:
        batch.append(passage)
        size += len(passage.text) + 200
        if size >= _BATCH_CHARACTERS:
            yield PassageBatch(batch)
            batch, size = [], 0
    if batch:
        yield PassageBatch(batch)


def attachment_pieces(files: Iterable[AttachedFile]) -> Iterator[AttachmentPiece]:
    """Divide attached files into frames of at most 8 MiB."""
    for file in files:
        for start in range(0, max(1, len(file.data)), _PIECE_BYTES):
            piece = file.data[start : start + _PIECE_BYTES]
            yield AttachmentPiece(file.name, piece, last=start + _PIECE_BYTES >= len(file.data))


def assemble(pages: list[Page], finished: ParseFinished, attached_files: list[AttachedFile]) -> Extraction:
    """Combine the replies of a parse."""
    return Extraction(
        pages=pages,
        headings=finished.headings,
        problems=finished.problems,
        title=finished.title,
        page_count=finished.page_count,
        attachments=finished.attachments,
        attached_files=attached_files,
        timings=finished.timings,
    )
