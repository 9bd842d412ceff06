"""The bodies of the Responses API for the OpenAPI document; answers are sent without being encoded from these types."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ragsvc.web.openapi import Schema


class ResponseFailure(msgspec.Struct, frozen=True, kw_only=True):
    """Why a response failed."""

    code: str
    message: str


class IncompleteDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Why a response is incomplete."""

    reason: Literal["max_output_tokens", "content_filter"]


class InputTokenDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Parts of the input tokens."""

    cached_tokens: int
    cache_write_tokens: int


class OutputTokenDetails(msgspec.Struct, frozen=True, kw_only=True):
    """Parts of the output tokens."""

    reasoning_tokens: int


class ResponseUsage(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens of a response."""

    input_tokens: int
    input_tokens_details: InputTokenDetails
    output_tokens: int
    output_tokens_details: OutputTokenDetails
    total_tokens: int


class OutputItem(msgspec.Struct, frozen=True, kw_only=True):
    """An item of the output; ``type`` decides which other fields it has."""

    type: Literal["message", "function_call", "file_search_call", "reasoning"]
    id: str
    status: Literal["in_progress", "completed", "incomplete"]
    role: Literal["assistant"] | msgspec.UnsetType = msgspec.UNSET
    content: list[dict[str, Any]] | msgspec.UnsetType = msgspec.UNSET
    call_id: str | msgspec.UnsetType = msgspec.UNSET
    name: str | msgspec.UnsetType = msgspec.UNSET
    arguments: str | msgspec.UnsetType = msgspec.UNSET
    queries: list[str] | msgspec.UnsetType = msgspec.UNSET
    results: list[dict[str, Any]] | msgspec.UnsetType | None = msgspec.UNSET


class ResponseBody(msgspec.Struct, frozen=True, kw_only=True):
    """A response. OpenAI: the object ``response``."""

    id: str
    object: Literal["response"]
    created_at: Annotated[int, Meta(description="Unix seconds")]
    completed_at: int | None
    status: Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
    background: bool
    error: ResponseFailure | None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    metadata: dict[str, str]
    model: str
    output: list[OutputItem]
    parallel_tool_calls: bool
    previous_response_id: str | None
    store: bool
    temperature: float | None
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_p: float | None
    truncation: Literal["auto", "disabled"]
    usage: ResponseUsage | None


class ResponseEvent(msgspec.Struct, frozen=True, kw_only=True):
    """The data of a server-sent event, whose name is its ``type``; the type decides which other fields it has."""

    type: str
    sequence_number: int


class ResponseDeleted(msgspec.Struct, frozen=True, kw_only=True):
    """The response was deleted."""

    id: str
    object: Literal["response"] = "response"
    deleted: bool = True


class InputItemList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of the items of a request."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


RESPONSE_ANSWERS: Mapping[str, Schema] = {"application/json": ResponseBody, "text/event-stream": ResponseEvent}
"""Media types of a response with their types."""
