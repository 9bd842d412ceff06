"""Show pages of documents and where text is on them: ``…/pages/{number}/image``, ``…/boxes``, and ``…/outline``."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Final, Literal

import anyio.to_thread
import msgspec
from litestar import Request, Response, get
from litestar.params import FromPath, QueryParameter

from ragsvc.core.access.principal import Scope, allows_collection
from ragsvc.core.documents import Document, Page, StoredPassage
from ragsvc.core.errors import DocumentNotFound, InvalidRequest
from ragsvc.core.ids import CHUNK_ID_PATTERN, ordinal_of_chunk
from ragsvc.core.page_views import DEFAULT_PICTURE_WIDTH, MAX_PICTURE_WIDTH, OutlineEntry, ShownBox
from ragsvc.core.validation import invalid_value
from ragsvc.services.document_service import DocumentService
from ragsvc.services.page_views import PageViews, find_quote
from ragsvc.web.context import principal_of
from ragsvc.web.openapi import BINARY, DocumentedAnswer, header_parameter
from ragsvc.web.stored_files import matches_tag
from ragsvc.web.uploads import AnyRequest

_READ: Final = {"scope": Scope.DOCUMENTS_READ, "tag": "documents"}
_PASSWORD: Final = header_parameter(
    "X-Document-Password", "Password of a protected PDF; it is not stored after the PDF was read"
)
_MAX_QUOTE: Final = 20_000

_Width = Annotated[
    int,
    QueryParameter(
        ge=1, le=MAX_PICTURE_WIDTH, description="Wanted width in pixels; the picture is as wide or somewhat wider"
    ),
]
_Start = Annotated[int | None, QueryParameter(ge=0, description="First character in the text of the page")]
_End = Annotated[int | None, QueryParameter(ge=1, description="Character after the last one")]
_PassageId = Annotated[
    str | None, QueryParameter(pattern=CHUNK_ID_PATTERN, description="A passage on this page: `chunk_id` of a citation")
]
_Quote = Annotated[
    str | None,
    QueryParameter(
        min_length=1,
        max_length=_MAX_QUOTE,
        description="Words of the page: `quote` of a citation; in `passage_id` first",
    ),
]


class PageBoxesOut(msgspec.Struct, frozen=True, kw_only=True):
    """Where the characters ``start`` to ``end`` of a page's text are: a rectangle for each line.

    ``width`` and ``height`` are those of the displayed page in points. Rectangles are fractions of them, from the top
    left, on the page as the picture shows it, turned and cropped. ``recognised``: the positions come from text
    recognition.
    """

    object: Literal["document.page.boxes"] = "document.page.boxes"
    document_id: str
    page: int
    start: int
    end: int
    width: float
    height: float
    recognised: bool
    boxes: list[ShownBox]


class DocumentOutline(msgspec.Struct, frozen=True, kw_only=True):
    """The bookmarks of a PDF that name a page, in order; empty without bookmarks, and for other types."""

    object: Literal["list"] = "list"
    data: list[OutlineEntry]


@get(
    "/v1/rag/documents/{document_id:str}/pages/{number:int}/image",
    opt={
        **_READ,
        "answers": {
            200: DocumentedAnswer("The page as PNG.", {"image/png": BINARY}),
            304: DocumentedAnswer("`If-None-Match` has the picture's `ETag`.", {}),
        },
        "parameters": [_PASSWORD, header_parameter("If-None-Match", "The `ETag` of a copy that the client has")],
        "errors": (422, 503),
    },
    summary="Show a page's picture",
)
async def get_page_image(
    request: Request[Any, Any, Any],
    document_id: FromPath[str],
    number: FromPath[int],
    width: _Width = DEFAULT_PICTURE_WIDTH,
) -> Response[bytes]:
    """The picture of a page, counted from 1, of a PDF or a picture.

    404 with the code ``page_has_no_picture`` for documents of other types, whose pages have text only; 422 if the page
    cannot be drawn, with ``password_required`` for a protected PDF.
    """
    document = await _document(request, document_id)
    views = _views(request)
    tag = f'"{views.picture_tag(document, number, width)}"'
    headers = {
        "etag": tag,
        "cache-control": "private, no-cache",
        "x-content-type-options": "nosniff",
        "content-security-policy": "sandbox",
    }
    if matches_tag(request.headers.get("if-none-match"), tag):
        return Response(b"", status_code=304, headers=headers)
    password = _password(request)
    png = await views.picture(document, number, width=width, password=password)
    if password is not None:  # a copy in the browser's cache would be shown again without the password
        headers["cache-control"] = "private, no-store"
        del headers["etag"]
    return Response(png, media_type="image/png", headers=headers)


@get(
    "/v1/rag/documents/{document_id:str}/pages/{number:int}/boxes",
    opt={**_READ, "parameters": [_PASSWORD], "errors": (422, 503)},
    summary="Show where text is on a page",
)
async def get_page_boxes(
    request: Request[Any, Any, Any],
    document_id: FromPath[str],
    number: FromPath[int],
    start: _Start = None,
    end: _End = None,
    passage_id: _PassageId = None,
    quote: _Quote = None,
) -> PageBoxesOut:
    """Show where a stretch of a page's text is: ``start`` and ``end``, a passage, or a quote.

    On a page whose text was recognised, the first request takes seconds: the page is recognised again.
    """
    document = await _document(request, document_id)
    page = await _documents(request).page(document.tenant, document_id, number)
    if (start is None) != (end is None):
        raise InvalidRequest("'start' and 'end' belong together.", param="start" if start is None else "end")
    if (start is None) == (passage_id is None and quote is None):
        raise InvalidRequest("Send either 'start' and 'end', or 'passage_id' or 'quote'.", param="start")
    if start is None or end is None:
        start, end = await _stretch(request, document, page, passage_id, quote)
    found = await _views(request).boxes(document, page, start, end, password=_password(request))
    return PageBoxesOut(
        document_id=document_id,
        page=number,
        start=start,
        end=end,
        width=found.width,
        height=found.height,
        recognised=found.recognised,
        boxes=found.boxes,
    )


@get(
    "/v1/rag/documents/{document_id:str}/outline",
    opt={**_READ, "parameters": [_PASSWORD], "errors": (422, 503)},
    summary="Show a document's outline",
)
async def get_outline(request: Request[Any, Any, Any], document_id: FromPath[str]) -> DocumentOutline:
    """Show the bookmarks of a PDF with their pages."""
    document = await _document(request, document_id)
    entries = await _views(request).outline(document, password=_password(request))
    return DocumentOutline(data=entries)


def _documents(request: AnyRequest) -> DocumentService:
    service: DocumentService = request.app.state.services.documents
    return service


def _views(request: AnyRequest) -> PageViews:
    views: PageViews = request.app.state.services.page_views
    return views


async def _document(request: AnyRequest, document_id: str) -> Document:
    """A document of the caller. Raises ``DocumentNotFound``, also if its key may not use the document's collection."""
    principal = principal_of(request)
    document = await _documents(request).get(principal.tenant, document_id)
    if not allows_collection(principal, document.collection):
        raise DocumentNotFound(f"There is no document '{document_id}'.", param="document_id")
    return document


def _password(request: AnyRequest) -> str | None:
    return request.headers.get("x-document-password") or None


async def _stretch(
    request: AnyRequest, document: Document, page: Page, passage_id: str | None, quote: str | None
) -> tuple[int, int]:
    """The stretch of the page's text that a passage or a quote is."""
    passage = None if passage_id is None else await _passage(request, document, page.number, passage_id)
    if quote is not None:
        return await anyio.to_thread.run_sync(partial(find_quote, page, quote, within=passage))
    assert passage is not None  # noqa: S101 - the caller has checked that one of both is given
    return passage.start, passage.end


async def _passage(request: AnyRequest, document: Document, number: int, passage_id: str) -> StoredPassage:
    ordinal = ordinal_of_chunk(passage_id, document_id=document.public_id)
    if ordinal is not None:
        found = await _documents(request).passages(
            document.tenant, document.public_id, after=ordinal - 1 if ordinal else None, limit=1
        )
        if found and found[0].ordinal == ordinal and found[0].page == number:
            return found[0]
    raise invalid_value("passage_id", "Expected the id of a passage of this page")


route_handlers: list[Any] = [get_page_image, get_page_boxes, get_outline]
"""All routes of this module."""
