"""Chat completions: the request of the client, the call to a backend, token usage.

Decodes and edits request bodies; knows neither HTTP nor any backend. A request is decoded once into its known fields.
Its bytes are kept, so that a backend with the same format receives all fields unchanged, also those unknown here.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from ragsvc.core.defaults import (
    BYTES_PER_TOKEN,
    DEFAULT_COLLECTION,
    DEFAULT_MAX_DOCUMENT_BYTES,
    MAX_COLLECTION_NAME_LENGTH,
    MAX_FILENAME_LENGTH,
    MAX_MODEL_NAME_LENGTH,
    MAX_TOP_K,
)
from ragsvc.core.documents import CitedFile
from ragsvc.core.errors import InvalidRequest, PromptTooLong
from ragsvc.core.file_names import clean_filename
from ragsvc.core.gateway.request_files import RequestFile, inline_file
from ragsvc.core.gateway.retrieval_fields import RETRIEVAL_FIELDS, nested_retrieval_field
from ragsvc.core.gateway.upstream_access import NO_ACCESS, UpstreamAccess
from ragsvc.core.json_outline import JsonOutline
from ragsvc.core.near_misses import near_miss
from ragsvc.core.retrieval.filters import parse_filter
from ragsvc.core.retrieval.search_values import DocumentIds, SearchHit, SearchMode, SearchQuery
from ragsvc.core.validation import check_text_length, decode_json, missing_value

CountTokens = Callable[[str], int]
"""Number of tokens in a text."""

_OWN_FIELD_LIKE: Final = re.compile(rb'"(?:[uU]se[\w-]{1,8}|[\w-]{0,8}[rR][aAgG][gGaA][\w-]{0,8})"\s*:')
_SEARCHED_BYTES: Final = 4096
"""Of the beginning and the end of a request, where the fields beside ``messages`` are."""
_TOKENS_OF_A_MESSAGE: Final = 4
_TOKENS_OF_AN_IMAGE: Final = 1000
_MAX_NODES: Final = 20_000
_MAX_FILE_ID_CHARACTERS: Final = 128
_SHOWN_NAME_CHARACTERS: Final = 200

FILE_PART: Final = "file"
"""The type of a content part that is a file. Every model can use it: it gets the text of the file."""


class ContentPart(msgspec.Struct, frozen=True):
    """A part of a message: ``text``, ``image_url``, ``file`` or another type that only some providers support."""

    type: str
    text: str | None = None
    image_url: ImageUrl | None = None
    file: FilePart | None = None


class FilePart(msgspec.Struct, frozen=True):
    """A file that the answer is to use: inline (base64 or a ``data:`` URL), or the id of a stored file."""

    file_data: str | None = None
    file_id: str | None = None
    filename: str | None = None


class ImageUrl(msgspec.Struct, frozen=True):
    """The URL of an image, which may be a ``data:`` URL."""

    url: str
    detail: str | None = None


class FunctionCall(msgspec.Struct, frozen=True):
    """A function call requested by a model; ``arguments`` is JSON in a string."""

    name: str
    arguments: str


class ToolCall(msgspec.Struct, frozen=True):
    """A tool call in an assistant message."""

    id: str
    type: str = "function"
    function: FunctionCall | None = None


class ChatMessage(msgspec.Struct, frozen=True):
    """A message of the conversation. OpenAI: POST /v1/chat/completions, ``messages``."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[ContentPart] | None = None
    name: str | None = None
    tool_calls: list[ToolCall] | None = None
    tool_call_id: str | None = None

    @property
    def text(self) -> str:
        """The text parts, joined by line feeds; images and other parts are left out."""
        if isinstance(self.content, str):
            return self.content
        return "\n".join(part.text for part in self.content or () if part.text)


class StreamOptions(msgspec.Struct, frozen=True):
    """OpenAI: POST /v1/chat/completions, ``stream_options``."""

    include_usage: bool | None = None


class ResponseFormat(msgspec.Struct, frozen=True):
    """``text``, ``json_object`` or ``json_schema``."""

    type: str


class FunctionDefinition(msgspec.Struct, frozen=True):
    """A function that the model may call; its JSON Schema is passed to the provider without being read."""

    name: str
    description: str | None = None


class Tool(msgspec.Struct, frozen=True):
    """A tool that the model may call."""

    type: str
    function: FunctionDefinition | None = None


class AllowedTools(msgspec.Struct, frozen=True):
    """The part of the tools that the model may call (``auto``) or must call one of (``required``)."""

    mode: str = "required"


class ToolChoice(msgspec.Struct, frozen=True):
    """Forces the call of a named tool, or limits the choice to ``allowed_tools``."""

    type: str
    allowed_tools: AllowedTools | None = None


class FunctionChoice(msgspec.Struct, frozen=True):
    """Forces the call of a named function. OpenAI: ``function_call``, which ``tool_choice`` has replaced."""

    name: str


class RagOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Options of the search for passages."""

    collection: Annotated[str, Meta(min_length=1, max_length=MAX_COLLECTION_NAME_LENGTH)] = DEFAULT_COLLECTION
    document_ids: DocumentIds | None = None
    filters: dict[str, Any] | None = None
    top_k: Annotated[int, Meta(ge=1, le=MAX_TOP_K)] | None = None
    mode: SearchMode = SearchMode.HYBRID
    min_score: Annotated[float, Meta(ge=0, le=1)] = 0.0

    def search_query(self, text: str, *, default_top_k: int) -> SearchQuery:
        """Build the query for a search for ``text``. Raises ``InvalidRequest`` for a malformed filter."""
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
    """The known fields of a request; others are legal and kept in the bytes. OpenAI: POST /v1/chat/completions."""

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
    function_call: str | FunctionChoice | None = None
    modalities: list[str] | None = None
    user: str | None = None
    use_rag: bool | UnsetType | None = UNSET
    rag: RagOptions | UnsetType | None = UNSET

    @property
    def prompt_characters(self) -> int:
        """Characters of the texts of all messages."""
        return sum(
            len(message.content)
            if isinstance(message.content, str)
            else sum(len(part.text) for part in message.content or () if part.text)
            for message in self.messages
        )

    @property
    def reply_limit(self) -> int | None:
        """Maximum tokens of a choice: ``max_completion_tokens``, else the older ``max_tokens``."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def choices(self) -> int:
        """Number of answers requested."""
        return self.n or 1

    @property
    def stops(self) -> tuple[str, ...]:
        """Stop sequences, which end the answer and are not part of it; empty ones are ignored."""
        sequences = [self.stop] if isinstance(self.stop, str) else self.stop or []
        return tuple(sequence for sequence in sequences if sequence)

    @property
    def forces_tool(self) -> bool:
        """Whether the answer must be the call of a tool; otherwise a model that has no tools answers in text."""
        choice = self.tool_choice
        if isinstance(choice, ToolChoice):
            return choice.allowed_tools is None or choice.allowed_tools.mode != "auto"
        return choice not in (None, "none", "auto")

    @property
    def forces_function(self) -> bool:
        """``forces_tool`` for the older ``functions``."""
        return self.function_call not in (None, "none", "auto")

    @property
    def wants_usage(self) -> bool:
        """Whether a stream must end with a usage chunk."""
        return self.stream_options is not None and bool(self.stream_options.include_usage)

    @property
    def rag_options(self) -> RagOptions | None:
        """Search options, or ``None`` without retrieval; ``rag`` without ``use_rag`` turns retrieval on as well."""
        options = self.rag if isinstance(self.rag, RagOptions) else None
        wanted = options is not None if self.use_rag is UNSET or self.use_rag is None else self.use_rag
        return (options or RagOptions()) if wanted else None

    def estimated_prompt_tokens(self, count_tokens: CountTokens | None = None) -> int:
        """Estimate the tokens of the prompt, without ``count_tokens`` from text lengths."""
        tokens = 0
        for message in self.messages:
            text = message.text
            tokens += _TOKENS_OF_A_MESSAGE
            tokens += count_tokens(text) if count_tokens else len(text) // BYTES_PER_TOKEN + 1
            if isinstance(message.content, list):
                tokens += _TOKENS_OF_AN_IMAGE * sum(part.type == "image_url" for part in message.content)
        return tokens


MOST_TOKENS: Final = 1 << 40
"""More tokens than a request can use. A higher count of a provider is wrong, and sums of it would pass 64 bits."""


class TokenUsage(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tokens of a completion; ``total_tokens`` is the sum of prompt and completion.

    ``cached_tokens`` are the tokens of the prompt that the provider reports as cached.
    """

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int = 0

    @classmethod
    def of(cls, prompt_tokens: int, completion_tokens: int, *, cached_tokens: int = 0) -> TokenUsage:
        """Build a usage and compute its total."""
        return cls(prompt_tokens, completion_tokens, prompt_tokens + completion_tokens, cached_tokens)


class RetrievedPassages(msgspec.Struct, frozen=True):
    """Search hits for a conversation; the citation marker ``[n]`` refers to ``hits[n - 1]``.

    ``rest`` are further passages of the request's files, for prompts that have room for them. ``whole``: together with
    ``hits`` they are all passages of these files, whose public ids are ``attached``. ``files`` are those of the
    documents that were found, by the public ids of the documents.
    """

    query: str
    hits: tuple[SearchHit, ...]
    answerable: float
    rest: tuple[SearchHit, ...] = ()
    whole: bool = False
    attached: frozenset[str] = frozenset()
    files: Mapping[str, CitedFile] = {}


class ChatCall(msgspec.Struct, frozen=True):
    """A call for a completion, as a backend receives it.

    ``model`` is the backend's name of the model. ``messages`` replace those of the request if passages were inserted.
    ``service_url`` is the address of this service as the client sees it, for the URLs of citations. ``files`` are those
    of the request. They are neither in ``request`` nor in ``raw``, where their names are in their places.
    ``searches`` are made instead of that of ``rag``, with the query of the conversation as text; the best passages of
    all are used. ``rag`` is set as well, because the answer gets citations.
    """

    request: ChatRequest
    raw: bytes
    model: str
    evidence: RetrievedPassages | None = None
    messages: Sequence[Raw] | None = None
    access: UpstreamAccess = NO_ACCESS
    service_url: str = ""
    files: tuple[RequestFile, ...] = ()
    searches: tuple[SearchQuery, ...] = ()

    def upstream_body(self, *, meter_usage: bool = False) -> bytes:
        """The request body without the fields of ragsvc; the bytes of the client if nothing has to change.

        ``meter_usage`` requests the usage of a stream from the provider.
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
        for name in RETRIEVAL_FIELDS:
            members.pop(name, None)
        members["model"] = Raw(msgspec.json.encode(self.model))
        if self.messages is not None:
            members["messages"] = Raw(msgspec.json.encode(self.messages))
        if adds_usage:
            members["stream_options"] = _with_usage(members.get("stream_options"))
        return msgspec.json.encode(members)


def _may_repeat_model(raw: bytes) -> bool:
    """Whether another JSON parser could read another ``model``: from a repeated key, or one written with escapes."""
    return raw.count(b'"model"') != 1 or b"\\u00" in raw


def _with_usage(options: Raw | None) -> Raw:
    members = msgspec.json.decode(options, type=dict[str, Raw] | None) if options is not None else None
    return Raw(msgspec.json.encode((members or {}) | {"include_usage": True}))


_DECODER: Final = msgspec.json.Decoder(ChatRequest)
_KNOWN_FIELDS: Final = frozenset(ChatRequest.__struct_fields__)


def decode_chat_request(
    raw: bytes, *, max_file_bytes: int = DEFAULT_MAX_DOCUMENT_BYTES, pass_files: bool = False
) -> ChatCall:
    """Decode a request body, and the files in it, of which each may have ``max_file_bytes``.

    With ``pass_files``, inline files stay in the body.

    Raises:
        InvalidRequest: not JSON, or a known field has the wrong type or is out of range; ``param`` names the field.
        TooLarge: a file is too large.
    """
    request = decode_json(raw, _DECODER)
    files = [
        _file_of(part, param, iter([part.file.file_data or ""]) if part.file else iter(()), max_file_bytes)
        for part, param in _file_parts(request, pass_files=pass_files)
    ]
    return _checked(request, raw, files)


def decode_large_chat_request(
    raw: bytes,
    *,
    max_prompt_characters: Callable[[str], int],
    max_file_bytes: int = DEFAULT_MAX_DOCUMENT_BYTES,
    pass_files: bool = False,
) -> ChatCall:
    """Decode a large request body, without holding the interpreter lock for long (see ``JsonOutline``).

    ``max_prompt_characters`` is called with the name of the model. A prompt that is certainly longer is not decoded.

    Raises:
        PromptTooLong: the prompt is longer than the model accepts.
        InvalidRequest: as ``decode_chat_request``, or the conversation has too many messages or parts.
    """
    outline = JsonOutline(raw)
    nodes = outline.skeleton.count(b'"role"') + outline.skeleton.count(b'"type"')
    if nodes > _MAX_NODES:
        raise InvalidRequest(f"'messages': expected at most {_MAX_NODES} messages and parts.", param="messages")
    request = decode_json(outline.skeleton, _DECODER)
    limit = max_prompt_characters(request.model)
    parts = list(_file_parts(request, pass_files=pass_files))
    everything = list(_file_parts(request, pass_files=False))
    encoded = [part.file.file_data for part, _ in everything if part.file is not None and part.file.file_data]
    if outline.fewest_characters_without(encoded) > limit:
        raise prompt_too_long(request.model, limit)
    files = [
        _file_of(part, param, outline.pieces(part.file.file_data or "") if part.file else iter(()), max_file_bytes)
        for part, param in parts
    ]
    messages = [_with_texts(message, outline) for message in request.messages]
    if files and not pass_files:
        raw = outline.without(encoded)
    return _checked(msgspec.structs.replace(request, messages=messages), raw, files)


def _file_parts(request: ChatRequest, *, pass_files: bool) -> Iterator[tuple[ContentPart, str]]:
    """The parts of type ``file`` that are read, and their places in the request."""
    for at, message in enumerate(request.messages):
        for position, part in enumerate(message.content if isinstance(message.content, list) else ()):
            if _is_read(part, pass_files=pass_files):
                yield part, _place(f"messages[{at}]", position)


def _is_read(part: ContentPart, *, pass_files: bool) -> bool:
    """Whether a part is a file that providers do not get; with ``pass_files``, they get the inline ones."""
    return part.type == FILE_PART and not (pass_files and part.file is not None and part.file.file_data)


def _file_of(part: ContentPart, param: str, pieces: Iterator[str], limit_bytes: int) -> RequestFile:
    file = part.file
    if file is None:
        raise missing_value(param)
    if file.file_data and file.file_id:
        raise InvalidRequest(f"'{param}': give either 'file_data' or 'file_id', not both.", param=param)
    if file.filename:
        check_text_length(f"{param}.filename", file.filename, maximum=MAX_FILENAME_LENGTH)
    if file.file_id:
        check_text_length(f"{param}.file_id", file.file_id, maximum=_MAX_FILE_ID_CHARACTERS)
        return RequestFile(param=param, file_id=file.file_id, filename=clean_filename(file.filename or ""))
    if not file.file_data:
        raise InvalidRequest(f"'{param}': 'file_data' or 'file_id' is required.", param=f"{param}.file_data")
    return inline_file(pieces, filename=file.filename, param=param, limit_bytes=limit_bytes)


def prompt_too_long(model: str, limit: int, *, param: str = "messages") -> PromptTooLong:
    """The error for a prompt of more than ``limit`` characters."""
    return PromptTooLong(
        f"The prompt is too long for the model '{model}': at most {limit} characters are accepted.", param=param
    )


def _with_texts(message: ChatMessage, outline: JsonOutline) -> ChatMessage:
    """The message with the long texts in place of their placeholders."""
    content = message.content
    if isinstance(content, str):
        text = outline.text(content)
        return message if text is content else msgspec.structs.replace(message, content=text)
    if content is None or not any(part.text and outline.text(part.text) is not part.text for part in content):
        return message
    parts = [
        part if part.text is None else msgspec.structs.replace(part, text=outline.text(part.text)) for part in content
    ]
    return msgspec.structs.replace(message, content=parts)


def _checked(request: ChatRequest, raw: bytes, files: Sequence[RequestFile]) -> ChatCall:
    if request.use_rag is UNSET and request.rag is UNSET:
        _refuse_misspelt_fields(raw)
    for index, message in enumerate(request.messages):
        if message.role in ("user", "system", "developer", "tool"):
            _check_content(message, f"messages[{index}].content")
    if isinstance(request.rag, RagOptions) and request.rag.filters is not None:
        parse_filter(request.rag.filters, path="rag.filters")
    if files:
        places = {file.param: file for file in files}
        raw = _named_files(raw, places)
        messages = [_without_data(message, f"messages[{at}]", places) for at, message in enumerate(request.messages)]
        request = msgspec.structs.replace(request, messages=messages)
    return ChatCall(request=request, raw=raw, model=request.model, files=tuple(files))


def _place(message: str, position: int) -> str:
    """The place of a file in the request."""
    return f"{message}.content[{position}].file"


def _without_data(message: ChatMessage, path: str, files: Mapping[str, RequestFile]) -> ChatMessage:
    """The message without the bytes of the files that are read; ``files`` are those of the request by their place."""
    if not isinstance(message.content, list):
        return message
    parts = [
        ContentPart(FILE_PART, file=FilePart(filename=files[place].filename)) if place in files else part
        for place, part in ((_place(path, position), part) for position, part in enumerate(message.content))
    ]
    return msgspec.structs.replace(message, content=parts)


def _named_files(raw: bytes, files: Mapping[str, RequestFile]) -> bytes:
    """The body with the names of the files in their places: providers get the passages of the files as text."""
    members = msgspec.json.decode(raw, type=dict[str, Raw])
    messages = msgspec.json.decode(members["messages"], type=list[Raw])
    changed = [_with_names(message, f"messages[{at}]", files) for at, message in enumerate(messages)]
    members["messages"] = Raw(msgspec.json.encode(changed))
    return msgspec.json.encode(members)


def _with_names(raw: Raw, path: str, files: Mapping[str, RequestFile]) -> Raw:
    if not any(place.startswith(f"{path}.") for place in files):
        return raw
    message = msgspec.json.decode(raw, type=dict[str, Raw])
    parts = msgspec.json.decode(message["content"], type=list[Raw])
    for position in range(len(parts)):
        file = files.get(_place(path, position))
        if file is not None:
            parts[position] = _name_of(file)
    return Raw(msgspec.json.encode(message | {"content": Raw(msgspec.json.encode(parts))}))


def _name_of(file: RequestFile) -> Raw:
    name = f": {file.filename[:_SHOWN_NAME_CHARACTERS]}" if file.filename else ""
    return Raw(msgspec.json.encode({"type": "text", "text": f"[Attached file{name}]"}))


def _refuse_misspelt_fields(raw: bytes) -> None:
    """Refuse fields that are almost ``use_rag`` or ``rag``: the answer would not be from the documents."""
    edges = raw if len(raw) <= 2 * _SEARCHED_BYTES else raw[:_SEARCHED_BYTES] + raw[-_SEARCHED_BYTES:]
    if _OWN_FIELD_LIKE.search(edges) is None:
        return
    for name, value in msgspec.json.decode(raw, type=dict[str, Raw]).items():
        if name == "extra_body" and (nested := nested_retrieval_field(value)):
            raise InvalidRequest(
                f"'extra_body.{nested}' has no effect: '{nested}' is a field of the body itself.",
                param=f"extra_body.{nested}",
            )
        if name not in _KNOWN_FIELDS and (meant := near_miss(name, RETRIEVAL_FIELDS)):
            raise InvalidRequest(f"'{name}' is not a known field; '{meant}' was probably meant.", param=name)


def _check_content(message: ChatMessage, param: str) -> None:
    if message.content is None:
        raise InvalidRequest(f"'{param}' is required in a message of role '{message.role}'.", param=param)
    if isinstance(message.content, str):
        return
    for index, part in enumerate(message.content):
        if part.type == "text" and part.text is None:
            raise missing_value(f"{param}[{index}].text")
        if part.type == "image_url" and part.image_url is None:
            raise missing_value(f"{param}[{index}].image_url")
