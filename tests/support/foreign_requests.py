"""Every request that names an object, to be sent with an id that exists for another tenant and with an unknown id."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.support.tenant_model import MODEL, QUESTION, Side, pick


class Named(NamedTuple):
    """A request with the place ``{id}`` for the id of an object in its path, parameters or body."""

    method: str
    path: str
    body: dict[str, Any] | None = None
    form: dict[str, Any] | None = None


FILES = (
    Named("GET", "/v1/files/{id}"),
    Named("GET", "/v1/files/{id}/content"),
    Named("DELETE", "/v1/files/{id}"),
    Named("GET", "/v1/files?after={id}"),
    Named("GET", "/v1/files?before={id}"),
    Named("POST", "/v1/vector_stores", {"name": "stolen", "file_ids": ["{id}"]}),
    Named("POST", "/v1/vector_stores/{own store}/files", {"file_id": "{id}"}),
    Named("POST", "/v1/vector_stores/{own store}/file_batches", {"file_ids": ["{id}"]}),
    Named("GET", "/v1/vector_stores/{own store}/files/{id}"),
    Named("GET", "/v1/vector_stores/{own store}/files/{id}/content"),
    Named("POST", "/v1/vector_stores/{own store}/files/{id}", {"attributes": {"by": "thief"}}),
    Named("DELETE", "/v1/vector_stores/{own store}/files/{id}"),
    Named("GET", "/v1/vector_stores/{own store}/files?after={id}"),
    Named(
        "POST",
        "/v1/responses",
        {
            "model": MODEL,
            "input": [
                {
                    "role": "user",
                    "content": [{"type": "input_text", "text": QUESTION}, {"type": "input_file", "file_id": "{id}"}],
                }
            ],
        },
    ),
    Named(
        "POST",
        "/v1/chat/completions",
        {
            "model": MODEL,
            "messages": [
                {
                    "role": "user",
                    "content": [{"type": "text", "text": QUESTION}, {"type": "file", "file": {"file_id": "{id}"}}],
                }
            ],
        },
    ),
)
STORES = (
    Named("GET", "/v1/vector_stores/{id}"),
    Named("POST", "/v1/vector_stores/{id}", {"name": "stolen"}),
    Named("DELETE", "/v1/vector_stores/{id}"),
    Named("GET", "/v1/vector_stores?after={id}"),
    Named("GET", "/v1/vector_stores?before={id}"),
    Named("POST", "/v1/vector_stores/{id}/search", {"query": QUESTION}),
    Named("GET", "/v1/vector_stores/{id}/files"),
    Named("POST", "/v1/vector_stores/{id}/files", {"file_id": "{own file}"}),
    Named("POST", "/v1/vector_stores/{id}/file_batches", {"file_ids": ["{own file}"]}),
    Named("DELETE", "/v1/vector_stores/{id}/files/{own file}"),
    Named("GET", "/v1/vector_stores/{id}/files/{other file}"),
    Named("GET", "/v1/vector_stores/{id}/files/{other file}/content"),
    Named("DELETE", "/v1/vector_stores/{id}/files/{other file}"),
    Named(
        "POST",
        "/v1/responses",
        {"model": MODEL, "input": QUESTION, "tools": [{"type": "file_search", "vector_store_ids": ["{id}"]}]},
    ),
)
BATCHES = (
    Named("GET", "/v1/vector_stores/{own store}/file_batches/{id}"),
    Named("GET", "/v1/vector_stores/{own store}/file_batches/{id}/files"),
    Named("POST", "/v1/vector_stores/{own store}/file_batches/{id}/cancel"),
    Named("GET", "/v1/vector_stores/{other store}/file_batches/{id}"),
    Named("POST", "/v1/vector_stores/{other store}/file_batches/{id}/cancel"),
)
UPLOADS = (
    Named("POST", "/v1/uploads/{id}/parts", form={"files": {"data": ("part", b"bytes")}}),
    Named("POST", "/v1/uploads/{id}/complete", {"part_ids": ["part_000000000000000000000000"]}),
    Named("POST", "/v1/uploads/{id}/cancel"),
)
PARTS = (Named("POST", "/v1/uploads/{own upload}/complete", {"part_ids": ["{id}"]}),)
DOCUMENTS = (
    Named("GET", "/v1/rag/documents/{id}"),
    Named("GET", "/v1/rag/documents/{id}/content"),
    Named("GET", "/v1/rag/documents/{id}/passages"),
    Named("GET", "/v1/rag/documents/{id}/pages/1"),
    Named("GET", "/v1/rag/documents/{id}/events"),
    Named("PATCH", "/v1/rag/documents/{id}", {"metadata": {"by": "thief"}}),
    Named("POST", "/v1/rag/documents/{id}/retry"),
    Named("DELETE", "/v1/rag/documents/{id}"),
    Named("POST", "/v1/rag/documents/{id}/delete"),
    Named("GET", "/v1/rag/documents?after={id}"),
    Named("GET", "/v1/rag/documents?before={id}"),
    Named("GET", "/v1/rag/documents?parent_id={id}"),
    Named("POST", "/v1/rag/search", {"query": QUESTION, "document_ids": ["{id}"]}),
    Named("POST", "/v1/rag/search", {"query": QUESTION, "document_ids": ["{id}"], "collection": "{own collection}"}),
    Named(
        "POST",
        "/v1/chat/completions",
        {
            "model": MODEL,
            "messages": [{"role": "user", "content": QUESTION}],
            "use_rag": True,
            "rag": {"collection": "{own collection}", "document_ids": ["{id}"]},
        },
    ),
)
RESPONSES = (
    Named("GET", "/v1/responses/{id}"),
    Named("GET", "/v1/responses/{id}?stream=true"),
    Named("GET", "/v1/responses/{id}?stream=true&starting_after=1"),
    Named("GET", "/v1/responses/{id}/input_items"),
    Named("POST", "/v1/responses/{id}/cancel"),
    Named("DELETE", "/v1/responses/{id}"),
    Named("POST", "/v1/responses", {"model": MODEL, "input": "And then?", "previous_response_id": "{id}"}),
)
ITEMS = (
    Named("POST", "/v1/responses", {"model": MODEL, "input": [{"type": "item_reference", "id": "{id}"}]}),
    Named("GET", "/v1/conversations/{own conversation}/items/{id}"),
    Named("DELETE", "/v1/conversations/{own conversation}/items/{id}"),
    Named("GET", "/v1/conversations/{own conversation}/items?after={id}"),
)
CONVERSATIONS = (
    Named("GET", "/v1/conversations/{id}"),
    Named("POST", "/v1/conversations/{id}", {"metadata": {"by": "thief"}}),
    Named("DELETE", "/v1/conversations/{id}"),
    Named("GET", "/v1/conversations/{id}/items"),
    Named("POST", "/v1/conversations/{id}/items", {"items": [{"role": "user", "content": "Mine"}]}),
    Named("GET", "/v1/conversations/{id}/items/{other item}"),
    Named("DELETE", "/v1/conversations/{id}/items/{other item}"),
    Named("POST", "/v1/responses", {"model": MODEL, "input": "And then?", "conversation": "{id}"}),
    Named("POST", "/v1/responses", {"model": MODEL, "input": "And then?", "conversation": {"id": "{id}"}}),
)
TENANTS = (
    Named("GET", "/v1/tenants/{id}"),
    Named("GET", "/v1/tenants/{id}/export"),
    Named("PATCH", "/v1/tenants/{id}", {"max_documents": 0}),
    Named("DELETE", "/v1/tenants/{id}"),
    Named("GET", "/v1/keys?tenant={id}"),
)


def requests_for(side: Side, number: int) -> Iterator[tuple[Named, str, dict[str, str]]]:
    """(request, id of the other tenant, what its other places stand for), for one object of every kind.

    Requests with a place for which there is no object are left out.
    """
    other = side.other
    own_store, other_store = pick(side.stores, number), pick(other.stores, number)
    own_collection = side.stores[own_store].collection if own_store else ""
    items = [item for listed in other.conversations.values() for item in listed]
    items += [item for answer in other.answers.values() for item in answer.inputs]
    places = {
        "own store": own_store,
        "other store": other_store,
        "own file": pick(side.files, number),
        "other file": pick(other.stores[other_store].files, number) if other_store else "",
        "own collection": own_collection,
        "own upload": pick([id_ for id_, upload in side.uploads.items() if upload.is_pending], number),
        "own conversation": pick(side.conversations, number),
        "other item": pick(other.conversations.get(pick(other.conversations, number), []), number),
    }
    batches = [batch for store in other.stores.values() for batch in store.batches]
    parts = [part for upload in other.uploads.values() for part in upload.parts]
    kinds = (
        (FILES, other.files),
        (STORES, other.stores),
        (BATCHES, batches),
        (UPLOADS, other.uploads),
        (PARTS, parts),
        (DOCUMENTS, other.documents),
        (RESPONSES, other.answers),
        (ITEMS, items),
        (CONVERSATIONS, other.conversations),
        (TENANTS, [other.name]),
    )
    for requests, ids in kinds:
        target = pick(ids, number)
        for named in requests if target else ():
            if all(value or "{" + place + "}" not in repr(named) for place, value in places.items()):
                yield named, target, places


def filled(value: Any, places: dict[str, str]) -> Any:
    """The value with its places filled."""
    if isinstance(value, str):
        for place, text in places.items():
            value = value.replace("{" + place + "}", text)
        return value
    if isinstance(value, dict):
        return {name: filled(each, places) for name, each in value.items()}
    return [filled(each, places) for each in value] if isinstance(value, list) else value
