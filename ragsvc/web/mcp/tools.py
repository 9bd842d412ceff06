"""The tools of the MCP server: search, fetch, ask, list and add documents.

``search`` and ``fetch`` have the arguments and results that ChatGPT's connectors require
(https://platform.openai.com/docs/mcp). Results are bounded, so that a client can put them into a prompt. An id is that
of a document, optionally with pages: ``doc_…``, ``doc_…#page=3``, ``doc_…#page=3-5``.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping
from concurrent.futures import Future
from typing import Annotated, Any, Final, Protocol, TypeVar

import anyio
import msgspec
from msgspec import Meta

from ragsvc.core.access.principal import Principal, Scope, allows_collection, require_collection, require_scope
from ragsvc.core.defaults import DEFAULT_COLLECTION, LOCAL_MODEL, MAX_COLLECTION_NAME_LENGTH, MAX_MODEL_NAME_LENGTH
from ragsvc.core.documents import Document, Page
from ragsvc.core.errors import DocumentNotFound, InvalidRequest
from ragsvc.core.file_names import clean_filename
from ragsvc.core.gateway.chat import decode_chat_request
from ragsvc.core.ports.searcher import Searcher
from ragsvc.core.retrieval.filters import parse_filter
from ragsvc.core.retrieval.search_values import SearchHit, SearchQuery
from ragsvc.core.validation import invalid_field, invalid_value
from ragsvc.services.access_control import Access
from ragsvc.services.answers import AnswerService
from ragsvc.services.citation_insertion import content_url
from ragsvc.services.document_service import DocumentService, Upload
from ragsvc.store.document_listing import DocumentFilter
from ragsvc.web.uploads import media_type_of_upload

MAX_FETCHED_CHARACTERS: Final = 40_000
"""Of one result: about 10,000 tokens of English."""
_MAX_SNIPPET_CHARACTERS: Final = 1_500
_PROGRESS_EVERY_S: Final = 2.0
_ID: Final = re.compile(r"(?P<document>[^#]{1,200})(?:#page=(?P<first>[0-9]{1,6})(?:-(?P<last>[0-9]{1,6}))?)?")

T = TypeVar("T")
Report = Callable[[float, float | None, str], Awaitable[None]]
"""Reports progress: what is done, the total if it is known, and a message."""


class UploadSettings(Protocol):
    """The settings that the tools use."""

    @property
    def upload_wait_s(self) -> float: ...


class ToolServices(Protocol):
    """The services that the tools use."""

    @property
    def access(self) -> Access: ...

    @property
    def answer(self) -> AnswerService: ...

    @property
    def documents(self) -> DocumentService: ...

    @property
    def search(self) -> Searcher: ...

    @property
    def settings(self) -> UploadSettings: ...


class AgentCall(msgspec.Struct, frozen=True):
    """The caller of a tool. ``origin`` is the address of the service as the caller sees it."""

    services: ToolServices
    principal: Principal
    origin: str
    report: Report

    def url_of(self, document_id: str, page: int | None) -> str:
        """The address of a document's file, at a page."""
        return content_url(self.origin, document_id, page)


_Collection = Annotated[
    str, Meta(min_length=1, max_length=MAX_COLLECTION_NAME_LENGTH, description="Name of a collection of documents")
]
_Limit = Annotated[int, Meta(ge=1, le=50, description="Maximum number of results")]


class SearchArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    query: Annotated[str, Meta(min_length=1, max_length=8_000, description="A question or words to look for")]
    collection: _Collection = DEFAULT_COLLECTION
    limit: _Limit = 10
    filters: Annotated[
        dict[str, Any] | None,
        Meta(description='Filter on metadata: {"type": "eq", "key": "year", "value": 2023}, or "and"/"or" of filters'),
    ] = None


class FetchArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    id: Annotated[
        str,
        Meta(
            min_length=1,
            max_length=220,
            description="An id from search or list_documents: 'doc_1', 'doc_1#page=3' or 'doc_1#page=3-5'",
        ),
    ]


class AskArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    question: Annotated[str, Meta(min_length=1, max_length=8_000, description="A question about the documents")]
    collection: _Collection = DEFAULT_COLLECTION
    model: Annotated[
        str, Meta(min_length=1, max_length=MAX_MODEL_NAME_LENGTH, description="Name of the chat model that answers")
    ] = LOCAL_MODEL


class ListArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    collection: _Collection | None = None
    name: Annotated[str, Meta(max_length=255, description="A part of the file name")] | None = None
    limit: _Limit = 20
    after: Annotated[str, Meta(max_length=200, description="'next' of the result before")] | None = None


class AddArguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    filename: Annotated[
        str,
        Meta(min_length=1, max_length=255, description="File name with its suffix, which gives the type: 'report.pdf'"),
    ]
    text: Annotated[str, Meta(description="The content of a text file")] | None = None
    content_base64: Annotated[str, Meta(description="The content of any file, in base64")] | None = None
    collection: _Collection = DEFAULT_COLLECTION


class ToolResult(msgspec.Struct, frozen=True):
    """What a tool returns: an object, and ``text`` for clients that show text (``None``: the object as JSON)."""

    value: dict[str, Any]
    text: str | None = None


class AgentTool(msgspec.Struct, frozen=True):
    """A tool. A key without its scopes neither sees nor calls it."""

    name: str
    title: str
    description: str
    arguments: type[msgspec.Struct]
    scopes: tuple[Scope, ...]
    run: Callable[[AgentCall, Any], Awaitable[ToolResult]]
    changes: bool = False

    @property
    def input_schema(self) -> dict[str, Any]:
        """JSON Schema of the arguments, without references."""
        _, components = msgspec.json.schema_components([self.arguments])
        schema = dict(components[self.arguments.__name__])
        schema.pop("title", None)
        return schema


async def search(call: AgentCall, arguments: SearchArguments) -> ToolResult:
    """Find pages by meaning and by words. Passages of a page are one result."""
    require_collection(call.principal, arguments.collection)
    call.services.access.count_request(call.principal, family="search")
    found = await call.services.search.search(
        call.principal.tenant,
        SearchQuery(
            text=arguments.query,
            collection=arguments.collection,
            filters=None if arguments.filters is None else parse_filter(arguments.filters),
            top_k=arguments.limit,
        ),
    )
    pages: dict[str, list[SearchHit]] = {}
    for hit in found.hits:
        pages.setdefault(f"{hit.passage.document_public_id}#page={hit.passage.page}", []).append(hit)
    return ToolResult({"results": [_page_result(call, identifier, hits) for identifier, hits in pages.items()]})


def _page_result(call: AgentCall, identifier: str, hits: list[SearchHit]) -> dict[str, Any]:
    passage = hits[0].passage
    in_order = sorted((hit.passage for hit in hits), key=lambda each: each.start)
    return {
        "id": identifier,
        "title": f"{passage.filename}, page {passage.page_label or passage.page}",
        "url": call.url_of(passage.document_public_id, passage.page),
        "text": _cut(" … ".join(each.text for each in in_order), _MAX_SNIPPET_CHARACTERS),
        "score": round(hits[0].score, 4),
    }


async def fetch(call: AgentCall, arguments: FetchArguments) -> ToolResult:
    """The text of a document or of its pages."""
    document, first, last = await find_pages(call, arguments.id)
    text, reached = await read_pages(call, document, first, last)
    left_out = {} if reached >= last else {"next": f"{document.public_id}#page={reached + 1}-{last}"}
    if left_out:
        text += f"\n\n[Pages {reached + 1} to {last} are left out. Fetch '{left_out['next']}' for them.]"
    return ToolResult(
        {
            "id": arguments.id,
            "title": document.title or document.filename,
            "text": text,
            "url": call.url_of(document.public_id, first),
            "metadata": {
                "filename": document.filename,
                "collection": document.collection,
                "pages": document.pages_total,
                "first_page": first,
                "last_page": reached,
                **left_out,
                **({"document": document.metadata} if document.metadata else {}),
            },
        }
    )


async def find_pages(call: AgentCall, identifier: str) -> tuple[Document, int, int]:
    """The document of an id, and its first and last page that are meant; pages count from 1.

    Raises:
        DocumentNotFound: the key sees no such document, or the document has no such page.
        InvalidRequest: the text is no id, or the document is not ready.
    """
    match = _ID.fullmatch(identifier)
    if match is None:
        raise invalid_value("id", "Expected the id of a document, such as 'doc_1' or 'doc_1#page=3'")
    document = await visible_document(call, match["document"])
    if not document.is_searchable:
        raise InvalidRequest(
            f"The document '{document.public_id}' is {document.status}; its text is not known.", param="id"
        )
    if match["first"] is None:
        return document, 1, max(1, document.pages_total)
    first = int(match["first"])
    last = int(match["last"] or first)
    if not 1 <= first <= last or first > document.pages_total:
        raise DocumentNotFound(
            f"The document '{document.public_id}' has no page {first}; it has {document.pages_total}.", param="id"
        )
    return document, first, min(last, document.pages_total)


async def visible_document(call: AgentCall, document_id: str) -> Document:
    """A document that the key may see. Raises ``DocumentNotFound``."""
    document = await call.services.documents.get(call.principal.tenant, document_id)
    if not allows_collection(call.principal, document.collection):
        raise DocumentNotFound(f"There is no document '{document_id}'.", param="id")
    return document


async def read_pages(call: AgentCall, document: Document, first: int, last: int) -> tuple[str, int]:
    """The text of pages, as many as fit into a result and at least one, and the last of them."""
    texts: list[str] = []
    length, reached = 0, first
    for number in range(first, last + 1):
        page = await call.services.documents.page(call.principal.tenant, document.public_id, number)
        text = page.text if first == last else _with_number(page)
        if texts and length + len(text) > MAX_FETCHED_CHARACTERS:
            break
        texts.append(_cut(text, MAX_FETCHED_CHARACTERS))
        length, reached = length + len(text), number
    return "\n\n".join(texts), reached


def _with_number(page: Page) -> str:
    label = "" if page.label is None or page.label == str(page.number) else f" ({page.label})"
    return f"[Page {page.number}{label}]\n{page.text}"


def _cut(text: str, most: int) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


async def ask(call: AgentCall, arguments: AskArguments) -> ToolResult:
    """An answer with citations, from a chat model."""
    require_collection(call.principal, arguments.collection)
    request = {
        "model": arguments.model,
        "use_rag": True,
        "rag": {"collection": arguments.collection},
        "messages": [{"role": "user", "content": arguments.question}],
    }
    chat = decode_chat_request(msgspec.json.encode(request))
    answer = await _reporting(
        call.report, f"Asking {arguments.model}", call.services.answer.complete(call.principal, chat)
    )
    completion = msgspec.json.decode(answer.body, type=dict[str, Any])
    message: dict[str, Any] = completion["choices"][0]["message"]
    citations = [_citation(call, source) for source in completion.get("citations") or ()]
    answer_text: str = message.get("content") or ""
    text = "\n\n".join(filter(None, [answer_text, "\n".join(_source_lines(citations))]))
    return ToolResult({"answer": answer_text, "citations": citations, "model": completion.get("model")}, text)


def _citation(call: AgentCall, source: Mapping[str, Any]) -> dict[str, Any]:
    page: int | None = source.get("page")
    document_id: str = source["file_id"]
    return {
        "index": source.get("index"),
        "id": document_id if page is None else f"{document_id}#page={page}",
        "title": f"{source.get('filename')}, page {source.get('page_label') or page}",
        "quote": source.get("quote"),
        "url": call.url_of(document_id, page),
    }


def _source_lines(citations: Iterable[Mapping[str, Any]]) -> list[str]:
    return [f"[{citation['index']}] {citation['title']}: \u201c{citation['quote']}\u201d" for citation in citations]


async def _reporting(report: Report, message: str, work: Awaitable[T]) -> T:
    """Await work, and report meanwhile that it is going on: clients end calls from which they hear nothing."""
    outcome: Future[T] = Future()
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(_report_waiting, report, message)
        try:
            outcome.set_result(await work)
        except Exception as error:  # noqa: BLE001 - raised below: a task group would wrap it
            outcome.set_exception(error)
        tasks.cancel_scope.cancel()
    return outcome.result()


async def _report_waiting(report: Report, message: str) -> None:
    done = 0.0
    while True:
        await report(done, None, message)
        await anyio.sleep(_PROGRESS_EVERY_S)
        done += _PROGRESS_EVERY_S


async def list_documents(call: AgentCall, arguments: ListArguments) -> ToolResult:
    """Documents, newest first."""
    if arguments.collection is not None:
        require_collection(call.principal, arguments.collection)
    documents, more = await call.services.documents.list_page(
        call.principal.tenant,
        which=DocumentFilter(collections=call.principal.allowed_collections, filename_contains=arguments.name),
        collection=arguments.collection,
        limit=arguments.limit,
        after=arguments.after,
    )
    value: dict[str, Any] = {"documents": [describe(document) for document in documents]}
    if more:
        value["next"] = documents[-1].public_id
    return ToolResult(value)


def describe(document: Document) -> dict[str, Any]:
    """A document as tools show it."""
    described: dict[str, Any] = {
        "id": document.public_id,
        "filename": document.filename,
        "collection": document.collection,
        "status": document.status.value,
        "pages": document.pages_total,
        "created_at": document.created_at,
    }
    if document.title:
        described["title"] = document.title
    if document.failure_message:
        described["error"] = document.failure_message
    return described


async def add_document(call: AgentCall, arguments: AddArguments) -> ToolResult:
    """Store a file as a document, and wait until it is ready or the service's time for uploads is over."""
    require_collection(call.principal, arguments.collection)
    if (arguments.text is None) == (arguments.content_base64 is None):
        raise InvalidRequest("Give either 'text' or 'content_base64'.", param="text")
    data = _content(arguments)
    filename = clean_filename(arguments.filename)
    service, tenant = call.services.documents, call.principal.tenant
    call.services.access.count_request(call.principal, family="documents")
    async with service.receiving(announced_bytes=len(data)) as receiving:
        await receiving.write(data)
        media_type = media_type_of_upload("", filename, receiving)
        upload = Upload(filename=filename or None, media_type=media_type, collection=arguments.collection)
        document = (await service.add(tenant, receiving, upload)).document
    with anyio.move_on_after(call.services.settings.upload_wait_s):
        async for state in service.follow(tenant, document.public_id, every_s=_PROGRESS_EVERY_S):
            document = state or document
            await call.report(document.pages_done, document.pages_total or None, document.stage.value)
    return ToolResult(describe(document))


def _content(arguments: AddArguments) -> bytes:
    if arguments.text is not None:
        return arguments.text.encode()
    try:
        return base64.b64decode(arguments.content_base64 or "", validate=True)
    except (binascii.Error, ValueError) as error:
        raise invalid_value("content_base64", "Expected base64") from error


TOOLS: Final = {
    tool.name: tool
    for tool in (
        AgentTool(
            "search",
            "Search documents",
            "Search the documents of this service by meaning and by words. Returns pages, best first, each with an id, "
            "a title, a URL and the matching passages. Use fetch with the id to read a whole page.",
            SearchArguments,
            (Scope.SEARCH,),
            search,
        ),
        AgentTool(
            "fetch",
            "Read a document",
            "Read the text of a document or of some of its pages, by an id from search or list_documents. Add "
            "'#page=3' or '#page=3-5' to the id of a document to read these pages only.",
            FetchArguments,
            (Scope.DOCUMENTS_READ,),
            fetch,
        ),
        AgentTool(
            "ask",
            "Ask the documents",
            "Answer a question from the documents, with citations that name the page and quote its words. Says so if "
            "the documents contain no answer. Use search instead to read and conclude yourself.",
            AskArguments,
            (Scope.CHAT,),
            ask,
        ),
        AgentTool(
            "list_documents",
            "List documents",
            "List the documents of this service, newest first, with file name, collection, status and number of pages.",
            ListArguments,
            (Scope.DOCUMENTS_READ,),
            list_documents,
        ),
        AgentTool(
            "add_document",
            "Add a document",
            "Add a file (PDF, Office, text, HTML, Markdown, e-mail, picture) to the documents, as text or in base64, "
            "up to about 700 kB. Returns its id and status; 'ready' means that search finds it.",
            AddArguments,
            (Scope.DOCUMENTS_WRITE,),
            add_document,
            changes=True,
        ),
    )
}


def allowed_tools(principal: Principal) -> list[AgentTool]:
    """The tools that a key may call."""
    return [tool for tool in TOOLS.values() if principal.scopes.issuperset(tool.scopes)]


async def call_tool(call: AgentCall, name: str, arguments: Mapping[str, Any]) -> ToolResult:
    """Run a tool.

    Raises:
        InvalidRequest: no such tool, or the arguments do not fit.
        PolicyDenied: the key lacks a scope.
    """
    tool = TOOLS.get(name)
    if tool is None:
        raise InvalidRequest(f"There is no tool '{name[:100]}'. Tools: {', '.join(TOOLS)}.", param="name")
    for scope in tool.scopes:
        require_scope(call.principal, scope)
    given = {key: value for key, value in arguments.items() if value is not None}  # models send null for "not given"
    return await tool.run(call, convert_arguments(given, tool.arguments))


def convert_arguments(given: Mapping[str, Any], arguments: type[msgspec.Struct]) -> msgspec.Struct:
    """Validate arguments. Raises ``InvalidRequest``, which names the argument."""
    try:
        return msgspec.convert(given, arguments)
    except msgspec.ValidationError as error:
        raise invalid_field(error) from error
