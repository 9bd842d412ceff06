"""Values of a chat completion: what a client asks, the call a backend gets, what it costs.

Owns reading and editing of the request body. Knows neither HTTP nor any backend. A request is decoded once into its
known fields; its bytes are kept, so that a backend that speaks the same format gets every field it may know, unchanged.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from ragsvc.core.defaults import BYTES_PER_TOKEN, MAX_COLLECTION_NAME_LENGTH, MAX_MODEL_NAME_LENGTH, MAX_TOP_K
from ragsvc.core.errors import InvalidRequest
from ragsvc.core.gateway.upstream_access import NO_ACCESS, UpstreamAccess
from ragsvc.core.retrieval.filters import parse_filter
from ragsvc.core.retrieval.search import DEFAULT_COLLECTION, SearchHit, SearchMode, SearchQuery
from ragsvc.core.validation import decode_json

CountTokens = Callable[[str], int]
"""Counts the tokens of a text."""

_OURS: Final = ("use_rag", "rag")
_TOKENS_OF_A_MESSAGE: Final = 4
_TOKENS_OF_AN_IMAGE: Final = 1000


class ContentPart(msgspec.Struct, frozen=True):
    """A part of a message: ``text``, ``image_url`` or another type that only some upstreams know."""

    type: str
    text: str | None = None
    image_url: ImageUrl | None = None


class ImageUrl(msgspec.Struct, frozen=True):
    """Where an image is: an address or a ``data:`` URL."""

    url: str
    detail: str | None = None


class FunctionCall(msgspec.Struct, frozen=True):
    """The function a model wants called; ``arguments`` is JSON in a string."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct, frozen=True):
    """One call inside an assistant message."""

    id: str
    type: str = "function"
    function: FunctionCall | None = None


class ChatMessage(msgspec.Struct, frozen=True):
    """One message of the conversation. OpenAI: POST /v1/chat/completions, ``messages``."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """The words of the message, without images and other parts."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content or () if part.text)


class StreamOptions(msgspec.Struct, frozen=True):
    """What a stream should also say."""

    include_usage: bool | None = None


class ResponseFormat(msgspec.Struct, frozen=True):
    """``text``, ``json_object`` or ``json_schema``."""

    type: str


class FunctionDefinition(msgspec.Struct, frozen=True):
    """A function that the model may ask for; its JSON Schema is passed on unread."""

    name: str
    description: str | None = None


class Tool(msgspec.Struct, frozen=True):
    """A tool that the model may ask for."""

    type: str
    function: FunctionDefinition | None = None


class ToolChoice(msgspec.Struct, frozen=True):
    """Forces one named tool."""

    type: str


class RagOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where and how to look for passages."""

    collection: Annotated[str, Meta(min_length=1, max_length=MAX_COLLECTION_NAME_LENGTH)] = DEFAULT_COLLECTION
    document_ids: Annotated[list[str], Meta(max_length=1000)] | None = None
    filters: dict[str, Any] | None = None
    top_k: Annotated[int, Meta(ge=1, le=MAX_TOP_K)] | None = None
    mode: SearchMode = SearchMode.HYBRID
    min_score: Annotated[float, Meta(ge=0, le=1)] = 0.0

    def search_query(self, text: str, *, default_top_k: int) -> SearchQuery:
        """The search these options describe. Raises ``InvalidRequest`` for a malformed filter."""
        return SearchQuery(
            text=text,
            collection=self.collection,
            document_ids=self.document_ids,
            filters=None if self.filters is None else parse_filter(self.filters),
            top_k=self.top_k or default_top_k,
            mode=self.mode,
            min_score=self.min_score,
        )


Penalty = Annotated[float, Meta(ge=-2, le=2)] | None


class ChatRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The known fields of a request; others are legal and travel in the bytes. OpenAI: POST /v1/chat/completions."""

    model: Annotated[str, Meta(min_length=1, max_length=MAX_MODEL_NAME_LENGTH)]
    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    max_tokens: Annotated[int, Meta(ge=1)] | None = None
    n: Annotated[int, Meta(ge=1, le=128)] | None = None
    stop: str | Annotated[list[str], Meta(max_length=4)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    seed: int | None = None
    presence_penalty: Penalty = None
    frequency_penalty: Penalty = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    logit_bias: dict[str, float] | None = None
    response_format: ResponseFormat | None = None
    tools: list[Tool] | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    functions: list[FunctionDefinition] | None = None
    modalities: list[str] | None = None
    user: str | None = None
    use_rag: bool | UnsetType | None = UNSET
    rag: RagOptions | UnsetType | None = UNSET

    @property
    def reply_limit(self) -> int | None:
        """The most tokens a choice may have; the newer name goes before the older."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def choices(self) -> int:
        """How many answers are wanted."""
        return self.n or 1

    @property
    def stops(self) -> tuple[str, ...]:
        """Texts that end the answer, themselves not part of it; empty ones mean nothing."""
        listed = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(one for one in listed if one)

    @property
    def wants_usage(self) -> bool:
        """Whether a stream should end with a usage chunk."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def rag_options(self) -> RagOptions | None:
        """How to search, or ``None`` when documents are not asked for; ``rag`` alone asks for them as well."""
        options = self.rag if isinstance(self.rag, RagOptions) else None
        wanted = options is not None if self.use_rag is UNSET or self.use_rag is None else self.use_rag
        return (options or RagOptions()) if wanted else None

    def estimated_prompt_tokens(self, count_tokens: CountTokens | None = None) -> int:
        """About the tokens of the prompt; without a counter from lengths alone, rather too many than too few."""
        tokens = 0
        for message in self.messages:
            text = message.text
            tokens += _TOKENS_OF_A_MESSAGE
            tokens += count_tokens(text) if count_tokens else len(text) // BYTES_PER_TOKEN + 1
            if isinstance(message.content, list):
                tokens += _TOKENS_OF_AN_IMAGE * sum(part.type == "image_url" for part in message.content)
        return tokens


class TokenUsage(msgspec.Struct, frozen=True):
    """Tokens of one completion; ``total_tokens`` is the sum."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int

    @classmethod
    def of(cls, prompt_tokens: int, completion_tokens: int) -> TokenUsage:
        """The usage with its sum."""
        return cls(prompt_tokens, completion_tokens, prompt_tokens + completion_tokens)


class RetrievedPassages(msgspec.Struct, frozen=True):
    """What retrieval found for the conversation; marker ``[n]`` stands for ``hits[n - 1]``."""

    query: str
    hits: tuple[SearchHit, ...]
    answerable: float


class ChatCall(msgspec.Struct, frozen=True):
    """One completion to make, as a backend gets it.

    ``model`` is the backend's own name for it. ``messages`` replace the request's when passages were woven in.
    """

    request: ChatRequest
    raw: bytes
    model: str
    evidence: RetrievedPassages | None = None
    messages: Sequence[Raw] | None = None
    access: UpstreamAccess = NO_ACCESS

    def upstream_body(self, *, meter_usage: bool = False) -> bytes:
        """The request body without our own fields; the client's very bytes where nothing has to change.

        ``meter_usage`` asks the upstream for the usage of a stream.
        """
        request = self.request
        adds_usage = meter_usage and not request.wants_usage
        if not (
            adds_usage
            or self.messages is not None
            or self.model != request.model
            or request.use_rag is not UNSET
            or request.rag is not UNSET
            or _may_repeat_model(self.raw)
        ):
            return self.raw
        members = msgspec.json.decode(self.raw, type=dict[str, Raw])
        for name in _OURS:
            members.pop(name, None)
        members["model"] = Raw(msgspec.json.encode(self.model))
        if self.messages is not None:
            members["messages"] = Raw(msgspec.json.encode(self.messages))
        if adds_usage:
            members["stream_options"] = _with_usage(members.get("stream_options"))
        return msgspec.json.encode(members)


def _may_repeat_model(raw: bytes) -> bool:
    """Whether another parser may see another ``model``: a repeated key, perhaps spelled with escapes."""
    return raw.count(b'"model"') != 1 or b"\\u00" in raw


def _with_usage(options: Raw | None) -> Raw:
    members = msgspec.json.decode(options, type=dict[str, Raw] | None) if options is not None else None
    return Raw(msgspec.json.encode((members or {}) | {"include_usage": True}))


_DECODER: Final = msgspec.json.Decoder(ChatRequest)


def decode_chat_request(raw: bytes) -> ChatCall:
    """Read a request body.

    Raises:
        InvalidRequest: not JSON, a known field of a wrong type or outside its range; ``param`` names the field.
    """
    request = decode_json(raw, _DECODER)
    for index, message in enumerate(request.messages):
        if message.role in ("user", "system", "developer", "tool"):
            _check_content(message, f"messages[{index}].content")
    if isinstance(request.rag, RagOptions) and request.rag.filters is not None:
        _check_filters(request.rag.filters)
    return ChatCall(request=request, raw=raw, model=request.model)


def _check_content(message: ChatMessage, param: str) -> None:
    if message.content is None:
        raise InvalidRequest(f"a message of role '{message.role}' needs content", param=param)
    if isinstance(message.content, str):
        return
    for index, part in enumerate(message.content):
        if part.type == "text" and part.text is None:
            raise InvalidRequest("a part of type 'text' needs 'text'", param=f"{param}[{index}].text")
        if part.type == "image_url" and part.image_url is None:
            raise InvalidRequest("a part of type 'image_url' needs 'image_url'", param=f"{param}[{index}].image_url")


def _check_filters(filters: dict[str, Any]) -> None:
    try:
        parse_filter(filters)
    except InvalidRequest as error:
        raise InvalidRequest(error.message, param="rag.filters") from error
