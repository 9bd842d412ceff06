"""What service and child say to each other: length-prefixed MessagePack frames over pipes.

MessagePack with typed structs rather than pickle, because a child that a hostile file took over may write anything.
Large results travel in batches: decoding 2,000 pages at once holds the interpreter for 13 ms, a batch for 0.04 ms.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import BinaryIO

import msgspec

from ragsvc.core.documents import Extraction, Heading, Page, Passage, Problem
from ragsvc.core.errors import FailureReason
from ragsvc.core.ports.parsing import ChunkingOptions, ExtractionLimits

MAX_FRAME_BYTES = 64 << 20
_HEADER = struct.Struct(">I")
_BATCH_CHARACTERS = 100_000


class ChunkingPlan(msgspec.Struct, frozen=True):
    """How the child cuts passages; functions go by dotted path so that nothing but text crosses the pipe.

    ``split`` names ``split_pages(extraction, *, options, tokens, filename) -> list[Passage]``; ``load_tokens`` names
    ``load_token_spans(path) -> TokenSpans``, called once per child with ``tokenizer``. Both are ``module:function``.
    """

    split: str
    load_tokens: str
    tokenizer: str
    options: ChunkingOptions = ChunkingOptions()


class QuoteBox(msgspec.Struct, frozen=True):
    """A rectangle in PDF points, origin at the bottom left of the unrotated page."""

    left: float
    top: float
    right: float
    bottom: float


class ParseRequest(msgspec.Struct, frozen=True, tag=True):
    """Extract a file and cut passages (none without ``plan``)."""

    path: str
    media_type: str
    filename: str
    password: str | None
    limits: ExtractionLimits
    plan: ChunkingPlan | None


class BoxesRequest(msgspec.Struct, frozen=True, tag=True):
    """Find where the span ``[start, end)`` of ``page_text`` stands on page ``page`` (from 1)."""

    path: str
    password: str | None
    page: int
    start: int
    end: int
    page_text: str
    limits: ExtractionLimits


class ParseStarted(msgspec.Struct, frozen=True, tag=True):
    """The child has the job; from here on its death is the document's failure."""


class ParseProgress(msgspec.Struct, frozen=True, tag=True):
    """Pages read so far; the text of ``recognised`` of them came from their pictures, which takes its time."""

    done: int
    total: int
    recognised: int = 0


class ParseWarning(msgspec.Struct, frozen=True, tag=True):
    """Something is wrong with the installation, not with the file."""

    message: str


class PageBatch(msgspec.Struct, frozen=True, tag=True):
    """Some pages, in order."""

    pages: list[Page]


class PassageBatch(msgspec.Struct, frozen=True, tag=True):
    """Some passages, in order."""

    passages: list[Passage]


class ParseFinished(msgspec.Struct, frozen=True, tag=True):
    """The end of a good parse: all but pages and passages. ``rss_bytes`` is the child's memory now."""

    headings: list[Heading]
    problems: list[Problem]
    title: str | None
    page_count: int
    attachments: list[str]
    timings: dict[str, float]
    rss_bytes: int


class FoundBoxes(msgspec.Struct, frozen=True, tag=True):
    """The end of a boxes job."""

    boxes: list[QuoteBox]
    rss_bytes: int


class ParseFailed(msgspec.Struct, frozen=True, tag=True):
    """The end of a job that could not be done."""

    reason: FailureReason
    message: str
    rss_bytes: int


Request = ParseRequest | BoxesRequest
Reply = (
    ParseStarted | ParseProgress | ParseWarning | PageBatch | PassageBatch | ParseFinished | FoundBoxes | ParseFailed
)

_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_replies: msgspec.msgpack.Decoder[Reply] = msgspec.msgpack.Decoder(Reply)


def decode_request(payload: bytes) -> Request:
    """Read a request. Raises ``msgspec.DecodeError``."""
    return _requests.decode(payload)


def decode_reply(payload: bytes) -> Reply:
    """Read a reply. Raises ``msgspec.DecodeError``."""
    return _replies.decode(payload)


def pack(message: Request | Reply) -> bytes:
    """Encode a message with its length in front."""
    payload = msgspec.msgpack.encode(message)
    return _HEADER.pack(len(payload)) + payload


def payload_length(header: bytes) -> int:
    """Read a frame's length. Raises ``ValueError`` beyond ``MAX_FRAME_BYTES``."""
    (length,) = _HEADER.unpack(header)
    if length > MAX_FRAME_BYTES:
        raise ValueError(f"a frame of {length} bytes")
    return int(length)


HEADER_BYTES = _HEADER.size


def read_payload(stream: BinaryIO) -> bytes | None:
    """Read one frame from a blocking stream; ``None`` at its end (also in the middle of a frame)."""
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


def assemble(pages: list[Page], finished: ParseFinished) -> Extraction:
    """Put the parts of a parse together again."""
    return Extraction(
        pages=pages,
        headings=finished.headings,
        problems=finished.problems,
        title=finished.title,
        page_count=finished.page_count,
        attachments=finished.attachments,
        timings=finished.timings,
    )
