"""``POST /v1/chat/completions``, JSON and server-sent events."""

from __future__ import annotations

from typing import Any, Protocol, cast

import msgspec
from litestar import Request, post
from litestar.response.base import ASGIResponse

from ragsvc.core.access import NO_ACCESS, Scope
from ragsvc.core.chat import ChatRequest, decode_chat_request
from ragsvc.services.answer import AnswerService
from ragsvc.web.context import context_of
from ragsvc.web.families import ACCESS_PARAMETERS, access_of
from ragsvc.web.openapi import ANY_JSON, EVENTS, Answer
from ragsvc.web.presence import ClientPresence
from ragsvc.web.raw_responses import ClientGone, EventStream, JsonBytes


class ChatServices(Protocol):
    """The part of the composed services that these routes use."""

    @property
    def answer(self) -> AnswerService:
        """Answers chats."""
        ...


@post(
    ["/v1/chat/completions", "/api/chat/completions", "/chat/completions"],
    status_code=200,
    opt={
        "scope": Scope.CHAT,
        "tag": "chat",
        "body": ChatRequest,
        "answers": {200: Answer("The completion; events when `stream` is true.", {**ANY_JSON, **EVENTS})},
        "parameters": ACCESS_PARAMETERS,
        "errors": (402, 404, 502, 504),
    },
    summary="Answer a chat",
)
async def create_chat_completion(request: Request[Any, Any, Any]) -> ASGIResponse:
    """Complete a chat with a model, from documents when ``use_rag`` is true; as an event stream when ``stream`` is."""
    context = context_of(request.scope)
    call = decode_chat_request(await request.body())
    access = access_of(context)
    if access != NO_ACCESS:
        call = msgspec.structs.replace(call, access=access)
    answer = cast("ChatServices", request.app.state["services"]).answer
    with ClientPresence(request.receive):
        if call.request.stream:
            return EventStream(await answer.stream(context.principal, call), request_id=context.request_id)
        return JsonBytes(await answer.complete(context.principal, call))
    return ClientGone()


route_handlers = [create_chat_completion]
