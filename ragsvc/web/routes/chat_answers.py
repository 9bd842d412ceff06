"""The answers of a chat for the OpenAPI document: the completion, and the chunks of a stream.

Answers of providers pass without being decoded into these types; a provider may add fields.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from ragsvc.core.gateway.chat import TokenUsage, ToolCall
from ragsvc.services.citation_insertion import ChatAnnotation
from ragsvc.web.openapi import Schema

FinishReason = Literal["stop", "length", "tool_calls", "content_filter", "function_call"]


class AnswerMessage(msgspec.Struct, frozen=True, kw_only=True):
    """The message of the model; ``annotations`` are the citations of an answer from documents."""

    role: Literal["assistant"]
    content: str | None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None
    annotations: list[ChatAnnotation] | None = None


class AnswerChoice(msgspec.Struct, frozen=True, kw_only=True):
    """One of ``n`` answers."""

    index: int
    message: AnswerMessage
    finish_reason: FinishReason
    logprobs: dict[str, Any] | None = None


class ChatCompletion(msgspec.Struct, frozen=True, kw_only=True):
    """A complete answer. ``citations`` has the annotations of all choices, if the answer is from documents."""

    id: str
    object: Literal["chat.completion"]
    created: Annotated[int, Meta(description="Unix seconds")]
    model: str
    choices: list[AnswerChoice]
    usage: TokenUsage | None = None
    citations: list[ChatAnnotation] | None = None


class FunctionCallDelta(msgspec.Struct, frozen=True, kw_only=True):
    """The next part of a function call; the parts of ``arguments`` are joined."""

    name: str | None = None
    arguments: str | None = None


class ToolCallDelta(msgspec.Struct, frozen=True, kw_only=True):
    """The next part of the tool call with this index; ``id`` and ``type`` are in its first part."""

    index: int
    id: str | None = None
    type: str | None = None
    function: FunctionCallDelta | None = None


class AnswerDelta(msgspec.Struct, frozen=True, kw_only=True):
    """The next part of a message; ``annotations`` are in the chunk that ends the choice."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCallDelta] | None = None
    annotations: list[ChatAnnotation] | None = None


class ChunkChoice(msgspec.Struct, frozen=True, kw_only=True):
    """The next part of one of ``n`` answers."""

    index: int
    delta: AnswerDelta
    finish_reason: FinishReason | None = None
    logprobs: dict[str, Any] | None = None


class ChatCompletionChunk(msgspec.Struct, frozen=True, kw_only=True):
    """The data of a server-sent event. ``[DONE]`` is the last event; an error is an event with the field ``error``."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: Annotated[int, Meta(description="Unix seconds")]
    model: str
    choices: list[ChunkChoice]
    usage: TokenUsage | None = None
    citations: list[ChatAnnotation] | None = None


CHAT_ANSWERS: Mapping[str, Schema] = {"application/json": ChatCompletion, "text/event-stream": ChatCompletionChunk}
"""Media types of a chat's answer with their types."""
