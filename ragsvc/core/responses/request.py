"""Requests of the Responses API, decoded and checked. OpenAI: POST /v1/responses.

Clients send fields that only concern OpenAI's own servers (``prompt_cache_key``, ``client_metadata``). They are
accepted and have no effect, as all unknown fields.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal, cast

import msgspec
from msgspec import UNSET, Meta, UnsetType

from ragsvc.core.defaults import MAX_MODEL_NAME_LENGTH, MAX_TOP_K
from ragsvc.core.errors import InvalidRequest, UnsupportedParameter
from ragsvc.core.gateway.retrieval_fields import RETRIEVAL_FIELDS, meant_retrieval_field
from ragsvc.core.retrieval.filters import parse_filter
from ragsvc.core.retrieval.search_values import SearchMode
from ragsvc.core.validation import decode_json, invalid_field, invalid_value, missing_value

Item = dict[str, Any]
"""An item of the input or output as decoded JSON."""

INCLUDE_RESULTS: Final = "file_search_call.results"
INCLUDE_LOGPROBS: Final = "message.output_text.logprobs"
MAX_VECTOR_STORES: Final = 16
"""Vector stores that one request searches."""

_MAX_ITEMS: Final = 20_000
_MAX_METADATA: Final = 16
_EDGE_BYTES: Final = 4096
_LIKE_RETRIEVAL: Final = re.compile(rb'"(?:use[_-]?)?r(?:ag|ga)s?"\s*:', re.IGNORECASE)


class FileRanking(msgspec.Struct, frozen=True):
    """How ``file_search`` ranks. ``ranker`` is accepted and has no effect."""

    ranker: str | None = None
    score_threshold: Annotated[float, Meta(ge=0, le=1)] | None = None
    hybrid_search: HybridWeights | None = None

    @property
    def mode(self) -> SearchMode:
        """The scores that rank: one kind alone if the other's weight is 0."""
        weights = self.hybrid_search
        if weights is None or (weights.text_weight and weights.embedding_weight):
            return SearchMode.HYBRID
        return SearchMode.LEXICAL if weights.text_weight else SearchMode.DENSE


class HybridWeights(msgspec.Struct, frozen=True):
    """Weights of the meaning and of the words."""

    embedding_weight: Annotated[float, Meta(ge=0)] = 1.0
    text_weight: Annotated[float, Meta(ge=0)] = 1.0


class FileSearch(msgspec.Struct, frozen=True):
    """The tool ``file_search``."""

    vector_store_ids: Annotated[list[str], Meta(min_length=1, max_length=MAX_VECTOR_STORES)]
    max_num_results: Annotated[int, Meta(ge=1, le=MAX_TOP_K)] | None = None
    filters: dict[str, Any] | None = None
    ranking_options: FileRanking | None = None


class TextFormat(msgspec.Struct, frozen=True):
    """The format of the text: ``text``, ``json_object`` or ``json_schema``."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    description: str | None = None
    schema: dict[str, Any] | None = None
    strict: bool | None = None


class TextOptions(msgspec.Struct, frozen=True):
    """Options of the text of the answer."""

    format: TextFormat | None = None
    verbosity: str | None = None


class ReasoningOptions(msgspec.Struct, frozen=True):
    """Options of models that reason."""

    effort: str | None = None
    summary: str | None = None


class ConversationReference(msgspec.Struct, frozen=True):
    """A conversation by its id."""

    id: str


class ResponseRequest(msgspec.Struct, frozen=True, kw_only=True):
    """The known fields of a request; ``null`` means that a field is absent."""

    model: Annotated[str, Meta(min_length=1, max_length=MAX_MODEL_NAME_LENGTH)] | None = None
    input: str | Annotated[list[Item], Meta(max_length=_MAX_ITEMS)] | None = None
    instructions: str | None = None
    tools: list[Item] | None = None
    tool_choice: str | Item | None = None
    parallel_tool_calls: bool | None = None
    text: TextOptions | None = None
    max_output_tokens: Annotated[int, Meta(ge=1)] | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    metadata: dict[str, str] | None = None
    user: str | None = None
    truncation: Literal["auto", "disabled"] | None = None
    include: list[str] | None = None
    reasoning: ReasoningOptions | None = None
    stream: bool | None = None
    store: bool | None = None
    background: bool | None = None
    previous_response_id: str | None = None
    conversation: str | ConversationReference | None = None
    prompt: Item | None = None
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    service_tier: str | None = None
    max_tool_calls: int | None = None
    use_rag: Any | UnsetType = UNSET
    rag: Any | UnsetType = UNSET

    @property
    def is_stored(self) -> bool:
        return self.store is not False

    @property
    def conversation_id(self) -> str | None:
        if isinstance(self.conversation, ConversationReference):
            return self.conversation.id
        return self.conversation

    @property
    def has_results(self) -> bool:
        """Whether the answer shows the results of searches."""
        return INCLUDE_RESULTS in (self.include or ())

    @property
    def has_logprobs(self) -> bool:
        return INCLUDE_LOGPROBS in (self.include or ()) or bool(self.top_logprobs)

    @property
    def names_no_documents(self) -> bool:
        """Whether the request lacks the fields that ask for documents, also with a value that asks for none."""
        return self.use_rag is UNSET and self.rag is UNSET

    @property
    def is_stateless(self) -> bool:
        """Whether a provider can answer the request as it is: it uses nothing that is stored here."""
        asks = self.use_rag not in (UNSET, None, False) or self.rag not in (UNSET, None)
        searches = any(tool.get("type") == "file_search" for tool in self.tools or ())
        is_plain = self.store is False and not self.uses_stored and not self.prompt
        return is_plain and not asks and not searches and not self._has_references()

    @property
    def uses_stored(self) -> bool:
        """Whether the request continues or stores something that later requests find, beside the response."""
        return bool(self.previous_response_id or self.conversation or self.background)

    def _has_references(self) -> bool:
        """Whether the input has files, which are read here, or refers to stored items."""
        if not isinstance(self.input, list):
            return False
        for item in self.input:
            if item.get("type") == "item_reference" or (item.get("type") is None and item.get("role") is None):
                return True
            if _has_file(item.get("content")) or _has_file(item.get("output")):
                return True
        return False


def _has_file(content: object) -> bool:
    """Whether a part, or one of several, is a file or has the id of one."""
    if isinstance(content, dict):
        return _is_file(cast("Item", content))
    parts = cast("list[object]", content) if isinstance(content, list) else []
    return any(isinstance(part, dict) and _is_file(cast("Item", part)) for part in parts)


def _is_file(part: Item) -> bool:
    return part.get("type") in ("input_file", "file") or part.get("file_id") is not None


_DECODER: Final = msgspec.json.Decoder(ResponseRequest)


def decode_response_request(raw: bytes) -> ResponseRequest:
    """Decode and check a request body.

    Raises:
        InvalidRequest: not JSON, or a known field has the wrong type, is out of range or contradicts another one.
        UnsupportedParameter: a prompt template, which only OpenAI's servers know.
    """
    request = decode_json(raw, _DECODER)
    _refuse_misspelt_retrieval(raw)
    if request.prompt is not None:
        raise UnsupportedParameter(
            "'prompt' names a template that is stored at OpenAI. Send its text in 'instructions' or 'input'.",
            param="prompt",
        )
    if request.previous_response_id is not None and request.conversation is not None:
        raise InvalidRequest(
            "'previous_response_id' and 'conversation' exclude each other; send only one.", param="conversation"
        )
    if request.background and not request.is_stored:
        raise InvalidRequest("'background' needs a stored response; remove 'store': false.", param="background")
    if request.input is None and request.previous_response_id is None and request.conversation is None:
        raise missing_value("input")
    _check_metadata(request.metadata)
    return request


def _refuse_misspelt_retrieval(raw: bytes) -> None:
    edges = raw if len(raw) <= 2 * _EDGE_BYTES else raw[:_EDGE_BYTES] + raw[-_EDGE_BYTES:]
    if _LIKE_RETRIEVAL.search(edges) is None:
        return
    for name in msgspec.json.decode(raw, type=dict[str, msgspec.Raw]):
        meant = meant_retrieval_field(name)
        if meant is not None and name not in RETRIEVAL_FIELDS:
            raise InvalidRequest(f"'{name}' is not a known field; '{meant}' was probably meant.", param=name)


def _check_metadata(metadata: Mapping[str, str] | None) -> None:
    if metadata is None:
        return
    if len(metadata) > _MAX_METADATA:
        raise invalid_value("metadata", f"Expected `object` of length <= {_MAX_METADATA}")
    for key, value in metadata.items():
        if len(key) > 64 or len(value) > 512:
            raise invalid_value("metadata", "Expected keys of at most 64 and values of at most 512 characters")


class ChosenTools(msgspec.Struct, frozen=True):
    """The tools of a request as they are used. ``choice`` is the ``tool_choice`` of a chat; ``None`` is its default."""

    functions: list[Item] = []
    searches: list[FileSearch] = []
    choice: str | Item | None = None


def choose_tools(request: ResponseRequest) -> ChosenTools:
    """The tools that the model may call, and the searches to make.

    Tools of other types are passed over unless the answer has to call them.

    Raises:
        InvalidRequest: a tool is malformed, or ``tool_choice`` names a tool that the request lacks.
        UnsupportedParameter: the answer would have to call a tool of a type that this service does not run.
    """
    functions: list[Item] = []
    searches: list[FileSearch] = []
    for index, tool in enumerate(request.tools or ()):
        kind = tool.get("type")
        if kind == "function":
            functions.append(_function(tool, f"tools[{index}]"))
        elif kind == "file_search":
            searches.append(_file_search(tool, f"tools[{index}]"))
        elif not isinstance(kind, str):
            raise missing_value(f"tools[{index}].type")
    choice = request.tool_choice
    if isinstance(choice, dict):
        return _named_choice(choice, functions, searches)
    if choice == "none":
        return ChosenTools(functions, [], "none" if functions else None)
    if choice == "required":
        if not functions and not searches:
            raise _cannot_call("required")
        return ChosenTools(functions, searches, None if searches else "required")
    if choice not in (None, "auto"):
        raise invalid_value("tool_choice", "Expected 'none', 'auto', 'required' or an `object`")
    return ChosenTools(functions, searches, choice if functions else None)


def _named_choice(choice: Item, functions: list[Item], searches: list[FileSearch]) -> ChosenTools:
    kind = choice.get("type")
    if kind == "function":
        name = choice.get("name")
        if all(function["function"]["name"] != name for function in functions):
            raise invalid_value("tool_choice.name", "Expected the name of a function in 'tools'")
        return ChosenTools(functions, searches, {"type": "function", "function": {"name": name}})
    if kind == "file_search":
        if not searches:
            raise invalid_value("tool_choice", "Expected a tool of type 'file_search' in 'tools'")
        return ChosenTools([], searches)
    if kind == "allowed_tools":
        allowed = choice.get("tools")
        if not isinstance(allowed, list):
            raise missing_value("tool_choice.tools")
        members = [member for member in allowed if isinstance(member, dict)]
        names = [member.get("name") for member in members if member.get("type") == "function"]
        kept = [function for function in functions if function["function"]["name"] in names]
        searched = searches if any(member.get("type") == "file_search" for member in members) else []
        mode = choice.get("mode") or "auto"
        if mode == "required" and not kept and not searched:
            raise _cannot_call("allowed_tools")
        return ChosenTools(kept, searched, "required" if mode == "required" and kept and not searched else None)
    raise _cannot_call(str(kind)[:64])


def _cannot_call(what: str) -> UnsupportedParameter:
    return UnsupportedParameter(
        f"'tool_choice' ({what}) demands the call of a tool that this service does not run. "
        "It runs 'file_search', and passes 'function' tools to the model.",
        param="tool_choice",
    )


def _function(tool: Item, path: str) -> Item:
    nested = tool.get("function")
    described = nested if isinstance(nested, dict) else tool  # some clients send the shape of chat completions
    name = described.get("name")
    if not isinstance(name, str) or not name:
        raise missing_value(f"{path}.name")
    known = ("name", "description", "parameters", "strict")
    function = {key: described[key] for key in known if described.get(key) is not None}
    return {"type": "function", "function": function}


def _file_search(tool: Item, path: str) -> FileSearch:
    try:
        search = msgspec.convert(tool, FileSearch)
    except msgspec.ValidationError as error:
        raise invalid_field(error, within=path) from error
    if search.filters is not None:
        parse_filter(search.filters, path=f"{path}.filters")
    return search
