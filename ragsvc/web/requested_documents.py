"""Ways to ask a chat for an answer from documents without a field of the body: a suffix of the model, or headers.

The body takes precedence over the headers, and these over the suffix. Two names of collections are an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

import msgspec

from ragsvc.core.defaults import DEFAULT_COLLECTION, MAX_COLLECTION_NAME_LENGTH
from ragsvc.core.errors import InvalidRequest
from ragsvc.core.gateway.chat import ChatCall, ChatRequest, RagOptions
from ragsvc.core.gateway.document_suffix import RequestedModel
from ragsvc.core.gateway.retrieval_fields import unsupported_retrieval
from ragsvc.core.validation import check_text_length, invalid_value
from ragsvc.services.model_registry import ModelRegistry
from ragsvc.web.openapi import header_parameter

USE_RAG_HEADER: Final = b"x-ragsvc-use-rag"
COLLECTION_HEADER: Final = b"x-ragsvc-collection"
_SHOWN: Final = {USE_RAG_HEADER: "X-Ragsvc-Use-Rag", COLLECTION_HEADER: "X-Ragsvc-Collection"}
DOCUMENT_PARAMETERS: Final = (
    header_parameter("X-Ragsvc-Use-Rag", "`true` answers from documents, as `use_rag` in the body does"),
    header_parameter("X-Ragsvc-Collection", "Answers from documents of this collection; UTF-8 or percent-encoded"),
)
_SWITCH: Final = {b"true": True, b"1": True, b"false": False, b"0": False}


def with_requested_documents(call: ChatCall, models: ModelRegistry, headers: Mapping[bytes, bytes]) -> ChatCall:
    """The call with the model's own name, and with retrieval if its model or a header asks for it.

    Raises:
        InvalidRequest: a header has an invalid value, or several collections are named.
    """
    request = call.request
    by_url = call.access.base_url is not None  # only that provider knows what its names mean
    asked = RequestedModel(request.model) if by_url else models.requested(request.model)
    in_header = asks_in_header(headers)
    if in_header is None and asked.name == request.model:
        return call
    in_body = _asks_in_body(request)
    wanted = next((said for said in (in_body, in_header) if said is not None), asked.documents)
    # use_rag is set in any case, so that the provider gets a body with the model's own name
    changed = msgspec.structs.replace(request, model=asked.name, use_rag=wanted)
    if wanted:
        options = request.rag if isinstance(request.rag, RagOptions) else RagOptions()
        collection = _collection(options.collection, _collection_of(headers), asked.collection)
        changed = msgspec.structs.replace(changed, rag=msgspec.structs.replace(options, collection=collection))
    return msgspec.structs.replace(call, request=changed, model=asked.name)


def _asks_in_body(request: ChatRequest) -> bool | None:
    """Whether the body asks for documents; ``None`` if it says nothing."""
    if isinstance(request.use_rag, bool):
        return request.use_rag
    return True if isinstance(request.rag, RagOptions) else None


def asks_in_header(headers: Mapping[bytes, bytes]) -> bool | None:
    """Whether the headers ask for documents; ``None`` if they say nothing. Raises ``InvalidRequest``."""
    switch = headers.get(USE_RAG_HEADER)
    if switch is not None:
        wanted = _SWITCH.get(switch.strip().lower())
        if wanted is None:
            raise invalid_value(_SHOWN[USE_RAG_HEADER], "Expected 'true' or 'false'")
        return wanted
    return True if COLLECTION_HEADER in headers else None


def refuse_document_headers(headers: Mapping[bytes, bytes], where: str) -> None:
    """Refuse headers that ask for documents where they cannot be used. Raises ``UnsupportedParameter``."""
    if asks_in_header(headers):
        name = USE_RAG_HEADER if USE_RAG_HEADER in headers else COLLECTION_HEADER
        raise unsupported_retrieval(_SHOWN[name], where)


def _collection_of(headers: Mapping[bytes, bytes]) -> str | None:
    """The collection in the headers: UTF-8, percent-encoded where a client can only send ASCII."""
    value = headers.get(COLLECTION_HEADER)
    if value is None:
        return None
    name = unquote(value.decode("utf-8", "replace").strip())
    if not name:
        raise invalid_value(_SHOWN[COLLECTION_HEADER], "Expected the name of a collection")
    check_text_length(_SHOWN[COLLECTION_HEADER], name, maximum=MAX_COLLECTION_NAME_LENGTH)
    return name


def _collection(in_body: str, in_header: str | None, in_model: str | None) -> str:
    """The collection that the request names; the default collection of the body counts as no name."""
    body = None if in_body == DEFAULT_COLLECTION else in_body
    names = list(dict.fromkeys(name for name in (body, in_header, in_model) if name is not None))
    if len(names) > 1:
        raise InvalidRequest(
            f"The request names the collections '{names[0]}' and '{names[1]}'; name only one.", param="rag.collection"
        )
    return names[0] if names else DEFAULT_COLLECTION
