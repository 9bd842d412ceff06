"""A tenant as its clients see it, and what it should have: the model of the property test of two tenants.

``Side`` sends requests with a key of the tenant. No answer may have an id or a secret word of another tenant that was
not in the request itself.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx

from ragsvc.core.access.principal import DEFAULT_SCOPES, Scope
from tests.support.service_in_process import ServiceInProcess

MODEL = "local/chat-model"
QUESTION = "How many lights has the harbour?"
SHARED_TEXTS = ("The harbour has seven lights.", "The mountain path is quiet.", "Rivers carry the barges north.")
RANDOM_PART = re.compile(r"[0-9a-f]{24,}")


@dataclass
class StoredDocument:
    """A document of a vector store, with the ids of its files."""

    id: str
    files: set[str]
    attributes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Store:
    collection: str
    documents: dict[str, StoredDocument] = field(default_factory=dict)
    """By the text that the document has: equal bytes are one document of a store."""
    batches: dict[str, set[str]] = field(default_factory=dict)

    @property
    def files(self) -> set[str]:
        return {file for document in self.documents.values() for file in document.files}


@dataclass
class PartialUpload:
    text: str
    parts: list[str] = field(default_factory=list)
    is_pending: bool = True


@dataclass
class Answer:
    """A stored response: its body, and the ids of the items of its input."""

    body: dict[str, Any]
    inputs: list[str]


class Side:
    """One of two tenants."""

    def __init__(self, service: ServiceInProcess, name: str, secret: str) -> None:
        self.service = service
        self.name = name
        self.secret = secret
        self.key = service.new_key(name, *DEFAULT_SCOPES, Scope.TENANT_ADMIN)
        self.other: Side
        self.texts = (*SHARED_TEXTS, f"The {secret} harbour has nine lights.", f"Lights of {secret} are green.")
        self.seen: set[str] = {secret, name}
        """The random parts of all ids that the tenant ever had, and its secret words."""
        self.uploaded: dict[str, str] = {}
        self.implicit: dict[str, str] = {}
        self.uploads: dict[str, PartialUpload] = {}
        self.stores: dict[str, Store] = {}
        self.answers: dict[str, Answer] = {}
        self.conversations: dict[str, list[str]] = {}
        self.metadata: dict[str, dict[str, str]] = {}
        self.idempotency = 0

    # -- requests ----------------------------------------------------------------------------------------------

    def send(self, method: str, path: str, **options: Any) -> httpx.Response:
        """Send a request; nothing of the other tenant is in the answer unless it was in the request."""
        reply = self.service.request(method, path, key=self.key, **options)
        asked = path + repr(options)
        answered = reply.content.decode("latin-1") + repr(reply.headers.multi_items())
        for word in self.other.seen:
            assert word not in answered or word in asked, f"{word} of {self.other.name} in the answer to {asked}"
        return reply

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """The answer to a request that succeeds."""
        reply = self.send(method, path, **options)
        assert reply.status_code in (200, 201), (method, path, options, reply.status_code, reply.text)
        return reply.json()

    def pages(self, path: str, *, limit: int = 2) -> list[dict[str, Any]]:
        """All entries of a list, page by page."""
        found: list[dict[str, Any]] = []
        after: dict[str, str] = {}
        while True:
            page = self.ask("GET", path, params={"limit": limit, "order": "asc", **after})
            found += page["data"]
            if not page["has_more"]:
                return found
            after = {"after": page["last_id"]}

    def note(self, *ids: str) -> None:
        """Remember ids of the tenant, which the other one must never see."""
        self.seen.update(part for each in ids for part in RANDOM_PART.findall(each))

    # -- the model ---------------------------------------------------------------------------------------------

    @property
    def files(self) -> dict[str, str]:
        return {**self.uploaded, **self.implicit}

    @property
    def documents(self) -> dict[str, str]:
        """The text of each document by its id."""
        return {d.id: text for store in self.stores.values() for text, d in store.documents.items()}

    def attach(self, store: str, file: str, document: str, *, attributes: dict[str, Any] | None = None) -> None:
        """A file is in a store."""
        held = self.stores[store].documents.setdefault(self.files[file], StoredDocument(document, set()))
        assert held.id == document, "equal bytes are one document of a store"
        held.files.add(file)
        if attributes is not None:
            held.attributes = attributes
        self.note(file, document)

    def detach(self, store: str, file: str) -> None:
        """A file is no longer in a store; its document goes with the last file."""
        held = self.stores[store]
        text = self.files[file]
        held.documents[text].files.discard(file)
        for batch in held.batches.values():
            batch.discard(file)
        if not held.documents[text].files:
            self.drop(store, text)

    def drop(self, store: str, text: str) -> None:
        """A document of a store is deleted."""
        gone = self.stores[store].documents.pop(text)
        for batch in self.stores[store].batches.values():
            batch.difference_update(gone.files)
        self.forget_implicit()

    def forget_implicit(self) -> None:
        """Files that came with a document go with their last one."""
        used = {file for store in self.stores.values() for file in store.files}
        self.implicit = {file: text for file, text in self.implicit.items() if file in used}

    def await_store(self, store: str) -> None:
        """Wait until no file of a store is in progress."""
        for _ in range(1000):
            if not self.ask("GET", f"/v1/vector_stores/{store}")["file_counts"]["in_progress"]:
                return
            time.sleep(0.02)
        raise AssertionError("the files of a store stay in progress")

    # -- what the service shows --------------------------------------------------------------------------------

    def check(self) -> None:
        """The service shows exactly what the model has."""
        self._check_files()
        self._check_stores()
        self._check_documents()
        self._check_answers()
        self._check_conversations()
        self._check_counts()

    def _check_files(self) -> None:
        listed = self.pages("/v1/files")
        assert {file["id"]: file["bytes"] for file in listed} == {id_: len(text) for id_, text in self.files.items()}
        for file, text in self.files.items():
            assert self.send("GET", f"/v1/files/{file}/content").text == text

    def _check_stores(self) -> None:
        listed = {store["id"]: store for store in self.pages("/v1/vector_stores")}
        assert set(listed) == set(self.stores)
        for id_, store in self.stores.items():
            shown, files = listed[id_], self.pages(f"/v1/vector_stores/{id_}/files")
            assert {file["id"] for file in files} == store.files
            assert shown["collection"] == store.collection
            assert shown["file_counts"]["completed"] == shown["file_counts"]["total"] == len(store.files)
            assert shown["usage_bytes"] == sum(len(self.files[file]) for file in store.files)
            for file in files:
                document = store.documents[self.files[file["id"]]]
                assert (file["document_id"], file["attributes"]) == (document.id, document.attributes)
            for batch, members in store.batches.items():
                path = f"/v1/vector_stores/{id_}/file_batches/{batch}"
                assert self.ask("GET", path)["file_counts"]["total"] == len(members)
                assert {file["id"] for file in self.pages(f"{path}/files")} == members
            self.check_search(id_)

    def check_search(self, id_: str) -> None:
        """A search of a store finds each of its texts once, with a file of that text."""
        store = self.stores[id_]
        body = {"query": [QUESTION, self.other.secret], "max_num_results": 50}
        hits = self.ask("POST", f"/v1/vector_stores/{id_}/search", json=body)["data"]
        assert sorted(hit["content"][0]["text"] for hit in hits) == sorted(store.documents)
        for hit in hits:
            assert hit["file_id"] in store.documents[hit["content"][0]["text"]].files

    def _check_documents(self) -> None:
        listed = self.pages("/v1/rag/documents")
        assert {document["id"]: document["bytes"] for document in listed} == {
            id_: len(text) for id_, text in self.documents.items()
        }
        shown = {entry["name"]: entry["documents"] for entry in self.ask("GET", "/v1/rag/collections")["data"]}
        assert shown == {store.collection: len(store.documents) for store in self.stores.values()}
        for store in self.stores.values():
            body = {"query": QUESTION, "collection": store.collection, "top_k": 50}
            found = self.ask("POST", "/v1/rag/search", json=body)["data"]
            assert {hit["document_id"] for hit in found} == {document.id for document in store.documents.values()}

    def _check_answers(self) -> None:
        for id_, answer in self.answers.items():
            assert self.ask("GET", f"/v1/responses/{id_}") == answer.body
            assert [item["id"] for item in self.pages(f"/v1/responses/{id_}/input_items")] == answer.inputs

    def _check_conversations(self) -> None:
        for id_, items in self.conversations.items():
            assert self.ask("GET", f"/v1/conversations/{id_}")["metadata"] == self.metadata.get(id_, {})
            assert [item["id"] for item in self.pages(f"/v1/conversations/{id_}/items")] == items

    def _check_counts(self) -> None:
        shown = self.ask("GET", f"/v1/tenants/{self.name}")
        parts = sum(len(upload.text) for upload in self.uploads.values() if upload.is_pending and upload.parts)
        assert shown["collections"] == len(self.stores)
        assert shown["documents"] == len(self.documents)
        assert shown["files"] == len(self.uploaded)
        assert shown["bytes"] == sum(map(len, self.files.values())) + parts

    def check_export(self) -> None:
        """The export has every object of the tenant, and none of the other one."""
        archive = self.send("GET", f"/v1/tenants/{self.name}/export")
        assert archive.status_code == 200
        content = archive.content.decode("latin-1")
        for name in (*self.uploaded, *self.documents, *self.stores, *self.answers, *self.conversations):
            assert name in content

    def check_empty(self) -> None:
        """After the deletion of the tenant, a new key finds nothing."""
        fresh = Side(self.service, self.name, self.secret)
        fresh.other = self.other
        for name in ("/v1/files", "/v1/vector_stores", "/v1/rag/documents", "/v1/rag/collections"):
            assert fresh.ask("GET", name)["data"] == []
        for path in self.object_paths():
            assert fresh.send("GET", path).status_code == 404, path
        shown = fresh.ask("GET", f"/v1/tenants/{self.name}")
        assert (shown["keys"], shown["collections"], shown["documents"], shown["files"], shown["bytes"]) == (
            1,
            0,
            0,
            0,
            0,
        )

    def object_paths(self) -> Iterator[str]:
        """The path of every object that can be shown."""
        yield from (f"/v1/files/{id_}" for id_ in self.files)
        yield from (f"/v1/vector_stores/{id_}" for id_ in self.stores)
        yield from (f"/v1/rag/documents/{id_}" for id_ in self.documents)
        yield from (f"/v1/responses/{id_}" for id_ in self.answers)
        yield from (f"/v1/conversations/{id_}" for id_ in self.conversations)


def pick(values: Iterable[str], number: int) -> str:
    """One of the values; an empty text if there is none."""
    listed = sorted(values) if isinstance(values, set) else list(values)
    return listed[number % len(listed)] if listed else ""


def chosen(reply: dict[str, Any]) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The results and the citations of a response."""
    results = [r for item in reply["output"] if item["type"] == "file_search_call" for r in item["results"] or ()]
    texts = [part for item in reply["output"] if item["type"] == "message" for part in item["content"]]
    return results, [annotation for part in texts for annotation in part["annotations"]]


def plain(reply: httpx.Response, *ids: str) -> tuple[int, dict[str, str], str]:
    """An answer without what differs in every answer, and without ids of the request."""
    headers = {
        name: value
        for name, value in reply.headers.items()
        if name != "x-request-id" and not name.startswith("x-ratelimit")
    }
    text = re.sub(r'"request_id":"[^"]*"', "", reply.text)
    for each in ids:
        text = text.replace(each, "ID")
        headers = json.loads(json.dumps(headers).replace(each, "ID"))
    return reply.status_code, headers, text
