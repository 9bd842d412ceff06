"""``POST /v1/chat/completions``, JSON and server-sent events."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Protocol

import anyio.to_thread
import msgspec
from litestar import Request, post
from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope

from ragsvc.core.access.principal import Scope as KeyScope
from ragsvc.core.access.principal import require_collection, require_scope
from ragsvc.core.gateway.chat import ChatCall, ChatRequest, decode_chat_request, decode_large_chat_request
from ragsvc.core.gateway.misspelt_parameters import misspelt_parameters
from ragsvc.core.gateway.upstream_access import NO_ACCESS
from ragsvc.core.json_outline import LARGE_BODY_BYTES
from ragsvc.core.log_events import RepetitionLimit, log_event
from ragsvc.services.answers import AnswerService
from ragsvc.services.model_registry import ModelRegistry
from ragsvc.web.bodies import CHAT_FILES_KEY, LARGE_BODIES_KEY, ChatFileRules, MemoryBudget, read_body
from ragsvc.web.context import context_of
from ragsvc.web.disconnects import DisconnectWatcher
from ragsvc.web.headers import MISSPELT_PARAMETERS_HEADER
from ragsvc.web.keep_alive import COMMENT_EVERY_KEY
from ragsvc.web.openapi import DocumentedAnswer
from ragsvc.web.passthrough.raw_responses import ClientGone, EventStream, JsonBytes, dropped_header
from ragsvc.web.public_address import service_url
from ragsvc.web.requested_documents import DOCUMENT_PARAMETERS, with_requested_documents
from ragsvc.web.routes.chat_answers import CHAT_ANSWERS
from ragsvc.web.routes.endpoint_families import ACCESS_PARAMETERS, access_of

_log = logging.getLogger(__name__)
_reported = RepetitionLimit(every_s=60)


class ChatServices(Protocol):
    """The services that these routes use."""

    @property
    def answer(self) -> AnswerService: ...

    @property
    def models(self) -> ModelRegistry: ...


def _misspelt_header(misspelt: Mapping[str, str]) -> list[tuple[bytes, bytes]]:
    if not misspelt:
        return []
    listed = ", ".join(f"{name} ({meant}?)" for name, meant in misspelt.items())
    return [(MISSPELT_PARAMETERS_HEADER, listed.encode("ascii"))]


def _report(misspelt: Mapping[str, str]) -> None:
    """Log the known names that were probably meant; the names in the request are not logged."""
    for meant in misspelt.values():
        left_out = _reported.admit(meant)
        level = logging.DEBUG if left_out is None else logging.WARNING
        message = "an unknown parameter of a chat is probably misspelt"
        log_event(_log, level, "misspelt_parameter", message, meant=meant)


async def _read_call(scope: Scope, receive: Receive) -> tuple[ChatCall, Mapping[str, str]] | None:
    """The call in the body, and its misspelt parameters; ``None`` if the client disconnects.

    Nothing keeps the body, most of which may be files.
    """
    context = context_of(scope)
    state = scope["litestar_app"].state
    services: ChatServices = state["services"]
    budget: MemoryBudget = state[LARGE_BODIES_KEY]
    rules: ChatFileRules = state[CHAT_FILES_KEY]
    with budget.share() as take:
        body = await read_body(receive, context.body_limit, take)
        if body is None:
            return None
        if len(body) < LARGE_BODY_BYTES:
            call = decode_chat_request(body, max_file_bytes=rules.max_bytes, pass_files=rules.pass_on)
            return call, {} if context.encrypted else misspelt_parameters(body)  # headers are not sealed
        call = await anyio.to_thread.run_sync(
            lambda: decode_large_chat_request(
                body,
                max_prompt_characters=services.answer.max_prompt_characters,
                max_file_bytes=rules.max_bytes,
                pass_files=rules.pass_on,
            )
        )
        return call, {}


async def answer_chat(scope: Scope, receive: Receive) -> ASGIResponse:
    """Answer an admitted chat request."""
    context = context_of(scope)
    state = scope["litestar_app"].state
    services: ChatServices = state["services"]
    received = await _read_call(scope, receive)
    if received is None:
        return ClientGone()
    call, misspelt = received
    _report(misspelt)
    access = access_of(context)
    if access != NO_ACCESS:
        call = msgspec.structs.replace(call, access=access)
    call = with_requested_documents(call, services.models, context.headers)
    if (options := call.request.rag_options) is not None:
        require_scope(context.principal, KeyScope.CHAT)
        require_collection(context.principal, options.collection)
    if options is not None or call.files:
        call = msgspec.structs.replace(call, service_url=service_url(scope))
    if call.request.stream:
        answer, principal = services.answer, context.principal
        return EventStream(
            lambda prepared: answer.stream(principal, call, prepared=prepared),
            comment_every_s=state[COMMENT_EVERY_KEY],
            headers=_misspelt_header(misspelt),
        )
    with DisconnectWatcher(receive):
        completed = await services.answer.complete(context.principal, call)
        headers = [*dropped_header(completed.dropped_passages), *_misspelt_header(misspelt)]
        return JsonBytes(completed.body, headers=headers)
    return ClientGone()


@post(
    ["/v1/chat/completions", "/api/chat/completions", "/chat/completions"],
    status_code=200,
    opt={
        "scope": KeyScope.CHAT_PLAIN,
        "raw": answer_chat,
        "passes_query": True,
        "large_body": True,
        "takes_files": True,
        "tag": "chat",
        "body": ChatRequest,
        "answers": {200: DocumentedAnswer("The completion; events if `stream` is true.", CHAT_ANSWERS)},
        "parameters": (*ACCESS_PARAMETERS, *DOCUMENT_PARAMETERS),
        "errors": (402, 404, 502, 504),
    },
    summary="Answer a chat",
)
async def create_chat_completion(request: Request[Any, Any, Any]) -> ASGIResponse:
    """Answer a chat with a model, from documents if ``use_rag`` is true, as an event stream if ``stream`` is true.

    The scope ``chat.plain`` suffices without ``use_rag``.
    """
    return await answer_chat(request.scope, request.receive)


route_handlers = [create_chat_completion]
