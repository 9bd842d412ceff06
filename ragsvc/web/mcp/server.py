"""The MCP server: maps the protocol's requests to the tools and to the documents of the caller.

Errors of tools are results with ``isError``, which a model can read and correct. Errors of resources are errors of
JSON-RPC.
"""

from __future__ import annotations

import json
import re
from typing import Any, Final, cast

from mcp.server.context import ServerRequestContext
from mcp.server.lowlevel.server import Server
from mcp.shared.exceptions import MCPError
from mcp_types import (
    INTERNAL_ERROR,
    INVALID_PARAMS,
    CallToolRequestParams,
    CallToolResult,
    ListResourcesResult,
    ListResourceTemplatesResult,
    ListToolsResult,
    PaginatedRequestParams,
    ReadResourceRequestParams,
    ReadResourceResult,
    Resource,
    ResourceTemplate,
    TextContent,
    TextResourceContents,
    Tool,
    ToolAnnotations,
)
from starlette.requests import Request

from ragsvc import __version__
from ragsvc.core.access.principal import Scope, require_scope
from ragsvc.core.documents import DocumentStatus
from ragsvc.core.errors import RagsvcError
from ragsvc.store.document_listing import DocumentFilter
from ragsvc.web.context import context_of
from ragsvc.web.errors import is_unexpected, log_unexpected
from ragsvc.web.mcp.tools import (
    AgentCall,
    ToolServices,
    allowed_tools,
    call_tool,
    find_pages,
    read_pages,
)
from ragsvc.web.public_address import service_url

_RESOURCES_AT_ONCE: Final = 50
_URI: Final = re.compile(r"ragsvc://documents/(?P<document>[^/#?]{1,200})(?:/pages/(?P<page>[0-9]{1,6}))?")
_RESOURCE_NOT_FOUND: Final = -32002
"""https://modelcontextprotocol.io/specification, "Resources", "Error Handling"."""
_INSTRUCTIONS: Final = (
    "Private documents. Use search to find pages, fetch to read them, and ask for an answer with citations. "
    "Name the page of what you quote."
)

_Context = ServerRequestContext[dict[str, Any], Any]


class _Handlers:
    """The handlers of the protocol's requests; the caller is the one of the HTTP request that carries them."""

    def __init__(self, services: ToolServices) -> None:
        self._services = services

    def _call(self, context: _Context) -> AgentCall:
        request = _request_of(context)
        return AgentCall(
            services=self._services,
            principal=context_of(request.scope).principal,
            origin=service_url(request.scope),
            report=context.session.report_progress,
        )

    async def list_tools(self, context: _Context, _: PaginatedRequestParams | None) -> ListToolsResult:
        tools = [
            Tool(
                name=tool.name,
                title=tool.title,
                description=tool.description,
                input_schema=tool.input_schema,
                annotations=ToolAnnotations(
                    title=tool.title,
                    read_only_hint=not tool.changes,
                    destructive_hint=False,
                    idempotent_hint=True,
                    open_world_hint=False,
                ),
            )
            for tool in allowed_tools(self._call(context).principal)
        ]
        return ListToolsResult(tools=tools)

    async def call_tool(self, context: _Context, params: CallToolRequestParams) -> CallToolResult:
        try:
            result = await call_tool(self._call(context), params.name, params.arguments or {})
        except Exception as error:  # noqa: BLE001 - the model reads every error
            return CallToolResult(content=[TextContent(text=_message(error, context))], is_error=True)
        text = json.dumps(result.value, ensure_ascii=False) if result.text is None else result.text
        return CallToolResult(content=[TextContent(text=text)], structured_content=result.value)

    async def list_resources(self, context: _Context, params: PaginatedRequestParams | None) -> ListResourcesResult:
        call = self._call(context)
        try:
            require_scope(call.principal, Scope.DOCUMENTS_READ)
            documents, more = await call.services.documents.list_page(
                call.principal.tenant,
                which=DocumentFilter(collections=call.principal.allowed_collections, statuses=(DocumentStatus.READY,)),
                limit=_RESOURCES_AT_ONCE,
                after=None if params is None else params.cursor,
            )
        except Exception as error:
            raise _rpc_error(error, context) from error
        resources = [
            Resource(
                uri=f"ragsvc://documents/{document.public_id}",
                name=document.filename,
                title=document.title or document.filename,
                description=f"{document.pages_total} pages, collection '{document.collection}'",
                mime_type="text/plain",
            )
            for document in documents
        ]
        return ListResourcesResult(resources=resources, next_cursor=documents[-1].public_id if more else None)

    async def list_templates(self, _: _Context, __: PaginatedRequestParams | None) -> ListResourceTemplatesResult:
        return ListResourceTemplatesResult(
            resource_templates=[
                ResourceTemplate(
                    uri_template="ragsvc://documents/{document}/pages/{page}",
                    name="page",
                    title="A page of a document",
                    description="The text of a page, counted from 1",
                    mime_type="text/plain",
                )
            ]
        )

    async def read_resource(self, context: _Context, params: ReadResourceRequestParams) -> ReadResourceResult:
        call = self._call(context)
        match = _URI.fullmatch(params.uri)
        if match is None:
            raise MCPError(_RESOURCE_NOT_FOUND, "There is no such resource.", {"uri": params.uri[:300]})
        identifier = match["document"] if match["page"] is None else f"{match['document']}#page={match['page']}"
        try:
            require_scope(call.principal, Scope.DOCUMENTS_READ)
            document, first, last = await find_pages(call, identifier)
            text, reached = await read_pages(call, document, first, last)
        except Exception as error:
            raise _rpc_error(error, context) from error
        if reached < last:
            text += f"\n\n[Pages {reached + 1} to {last} are left out. The next is {params.uri}/pages/{reached + 1}]"
        return ReadResourceResult(contents=[TextResourceContents(uri=params.uri, mime_type="text/plain", text=text)])


def _request_of(context: _Context) -> Request:
    request = context.request
    assert isinstance(request, Request)  # noqa: S101 - each message arrives in an HTTP request
    return request


def _message(error: Exception, context: _Context) -> str:
    """The message of an error; unexpected ones are logged and not shown."""
    request = context_of(_request_of(context).scope)
    if is_unexpected(error):
        log_unexpected(error, request_id=request.request_id, encrypted=request.encrypted)
        return f"An internal error occurred. The log of the service has details under '{request.request_id}'."
    return cast("RagsvcError", error).message


def _rpc_error(error: Exception, context: _Context) -> MCPError:
    message = _message(error, context)
    if is_unexpected(error):
        return MCPError(INTERNAL_ERROR, message)
    code = cast("RagsvcError", error).code
    return MCPError(_RESOURCE_NOT_FOUND if code == "document_not_found" else INVALID_PARAMS, message, {"code": code})


def create_server(services: ToolServices) -> Server[dict[str, Any]]:
    """Build the server. Its requests need a caller, which ``AccessGate`` has authenticated."""
    handlers = _Handlers(services)
    return Server(
        "ragsvc",
        version=__version__,
        title="ragsvc documents",
        instructions=_INSTRUCTIONS,
        on_list_tools=handlers.list_tools,
        on_call_tool=handlers.call_tool,
        on_list_resources=handlers.list_resources,
        on_list_resource_templates=handlers.list_templates,
        on_read_resource=handlers.read_resource,
    )
