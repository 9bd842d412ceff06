"""Property: whatever two tenants do, each sees exactly its own objects, and a foreign id is an unknown id.

Random requests of two tenants go to the whole service in this process. The model is ``tests.support.tenant_model``.
``--hypothesis-profile=thorough`` runs for about half an hour.
"""

from __future__ import annotations

import itertools
import secrets
import time
from typing import Any, ClassVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from ragsvc.core.access.principal import Scope
from tests.support.foreign_requests import Named, filled, requests_for
from tests.support.service_in_process import ServiceInProcess
from tests.support.tenant_model import (
    MODEL,
    QUESTION,
    RANDOM_PART,
    Answer,
    PartialUpload,
    Side,
    Store,
    chosen,
    pick,
    plain,
)

_serial = itertools.count(1)
which = st.integers(0, 1)
number = st.integers(0, 5)
FILE_SEARCH_RESULTS = ["file_search_call.results"]


class TwoTenants(RuleBasedStateMachine):
    """Two tenants of one service. All tenants have names, texts and idempotency keys of their own and common ones."""

    service: ClassVar[ServiceInProcess]
    operator: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        pair = next(_serial)
        self.sides = [
            Side(self.service, f"tenant-{secrets.token_hex(4)}-{pair}", word + secrets.token_hex(4))
            for word in ("zanzibar", "valparaiso")
        ]
        self.sides[0].other, self.sides[1].other = self.sides[1], self.sides[0]

    @initialize()
    def begin(self) -> None:
        """Both tenants have an object of every kind, so that no rule is idle."""
        for which in (0, 1):
            self.upload_file(which, 0)
            self.upload_file(which, 3)
            self.create_store(which, "reports", 1, filled=True)
            self.upload_document(which, 2, 0)
            self.add_batch(which, 0, 0)
            self.upload_in_parts(which, 4, "later")
            self.plain_response(which, store=True, background=False)
            self.create_conversation(which, 1)

    # -- files and uploads -------------------------------------------------------------------------------------

    @rule(which=which, number=number)
    def upload_file(self, which: int, number: int) -> None:
        side = self.sides[which]
        text = side.texts[number % len(side.texts)]
        side.idempotency += 1
        file = side.ask(
            "POST",
            "/v1/files",
            files={"file": ("notes.txt", text.encode(), "text/plain")},
            data={"purpose": "assistants"},
            headers={"idempotency-key": f"upload-{side.idempotency}"},
        )
        assert file["id"] not in side.uploaded
        side.uploaded[file["id"]] = text
        side.note(file["id"])

    @rule(which=which, number=number, end=st.sampled_from(["later", "complete", "cancel"]))
    def upload_in_parts(self, which: int, number: int, end: str) -> None:
        side = self.sides[which]
        text = side.texts[number % len(side.texts)]
        body = {"filename": "p.txt", "purpose": "assistants", "bytes": len(text), "mime_type": "text/plain"}
        id_ = side.ask("POST", "/v1/uploads", json=body)["id"]
        part = side.ask("POST", f"/v1/uploads/{id_}/parts", files={"data": ("part", text.encode())})["id"]
        side.uploads[id_] = PartialUpload(text, [part])
        side.note(id_, part)
        if end != "later":
            self.end_upload(which, len(side.uploads) - 1, complete=end == "complete")

    @rule(which=which, number=number, complete=st.booleans())
    def end_upload(self, which: int, number: int, *, complete: bool) -> None:
        side = self.sides[which]
        id_ = pick(side.uploads, number)
        if not id_ or not side.uploads[id_].is_pending:
            return
        upload = side.uploads[id_]
        if complete:
            file = side.ask("POST", f"/v1/uploads/{id_}/complete", json={"part_ids": upload.parts})["file"]["id"]
            side.uploaded[file] = upload.text
            side.note(file)
        else:
            assert side.ask("POST", f"/v1/uploads/{id_}/cancel")["status"] == "cancelled"
        upload.is_pending = False

    @rule(which=which, number=number)
    def delete_file(self, which: int, number: int) -> None:
        side = self.sides[which]
        file = pick(side.files, number)
        if not file:
            return
        side.ask("DELETE", f"/v1/files/{file}")
        for store in side.stores:
            if file in side.stores[store].files:
                side.detach(store, file)
        side.uploaded.pop(file, None)
        side.implicit.pop(file, None)

    # -- vector stores and documents ---------------------------------------------------------------------------

    @rule(which=which, name=st.sampled_from(["reports", "letters", None]), number=number, filled=st.booleans())
    def create_store(self, which: int, name: str | None, number: int, *, filled: bool) -> None:
        side = self.sides[which]
        file = pick(side.files, number) if filled else ""
        made = side.ask("POST", "/v1/vector_stores", json={"name": name, "file_ids": [file] if file else None})
        side.stores[made["id"]] = Store(made["collection"])
        side.note(made["id"])
        if file:
            self.expect_files(side, made["id"], [file])

    @rule(which=which, number=number, other=number, labelled=st.booleans())
    def add_file(self, which: int, number: int, other: int, *, labelled: bool) -> None:
        side = self.sides[which]
        file, store = pick(side.files, number), pick(side.stores, other)
        if file and store:
            attributes = {"of": side.secret, "n": number} if labelled else None
            side.ask("POST", f"/v1/vector_stores/{store}/files", json={"file_id": file, "attributes": attributes})
            self.expect_files(side, store, [file], attributes=attributes)

    @rule(which=which, number=number, other=number)
    def add_batch(self, which: int, number: int, other: int) -> None:
        side = self.sides[which]
        files = list(side.files)[number : number + 2]
        store = pick(side.stores, other)
        if files and store:
            made = side.ask("POST", f"/v1/vector_stores/{store}/file_batches", json={"file_ids": files})
            side.stores[store].batches[made["id"]] = set(files)
            side.note(made["id"])
            self.expect_files(side, store, files)

    def expect_files(
        self, side: Side, store: str, files: list[str], *, attributes: dict[str, Any] | None = None
    ) -> None:
        side.await_store(store)
        for file in files:
            shown = side.ask("GET", f"/v1/vector_stores/{store}/files/{file}")
            side.attach(store, file, shown["document_id"], attributes=attributes)

    @rule(which=which, number=number, other=number)
    def remove_file(self, which: int, number: int, other: int) -> None:
        side = self.sides[which]
        store = pick(side.stores, other)
        file = pick(side.stores[store].files, number) if store else ""
        if file:
            side.ask("DELETE", f"/v1/vector_stores/{store}/files/{file}")
            side.detach(store, file)
            side.forget_implicit()

    @rule(which=which, number=number)
    def delete_store(self, which: int, number: int) -> None:
        side = self.sides[which]
        store = pick(side.stores, number)
        if store:
            side.ask("DELETE", f"/v1/vector_stores/{store}")
            side.stores.pop(store)
            side.forget_implicit()

    @rule(which=which, number=number, other=number)
    def upload_document(self, which: int, number: int, other: int) -> None:
        side = self.sides[which]
        store, text = pick(side.stores, other), side.texts[number % len(side.texts)]
        if store:
            reply = side.ask(
                "POST",
                "/v1/rag/documents",
                params={"filename": "letter.txt", "collection": side.stores[store].collection, "wait_s": 60},
                content=text.encode(),
                headers={"content-type": "text/plain"},
            )
            assert reply["status"] == "ready"
            file = reply["id"].replace("doc_", "file-")
            side.implicit[file] = text
            side.attach(store, file, reply["id"])

    @rule(which=which, number=number)
    def delete_document(self, which: int, number: int) -> None:
        side = self.sides[which]
        document = pick(side.documents, number)
        if document:
            side.ask("DELETE", f"/v1/rag/documents/{document}")
            store = next(id_ for id_, store in side.stores.items() if _has(store, document))
            side.drop(store, side.documents[document])

    @rule(which=which, number=number, as_document=st.booleans())
    def label_document(self, which: int, number: int, *, as_document: bool) -> None:
        side = self.sides[which]
        id_ = pick(side.documents, number)
        if not id_:
            return
        store = next(id_of for id_of, each in side.stores.items() if _has(each, id_))
        document = side.stores[store].documents[side.documents[id_]]
        label = {"label": side.secret, "n": number}
        if as_document:
            side.ask("PATCH", f"/v1/rag/documents/{id_}", json={"metadata": label})
            document.attributes = {**document.attributes, **label}
        else:
            file = pick(document.files, number)
            side.ask("POST", f"/v1/vector_stores/{store}/files/{file}", json={"attributes": label})
            document.attributes = label

    # -- responses and conversations ---------------------------------------------------------------------------

    def respond(self, side: Side, **body: Any) -> dict[str, Any]:
        """Make a response; the model keeps it if it is stored."""
        body = {"model": MODEL, "input": f"Greetings from {side.secret}.", **body}
        reply = side.ask("POST", "/v1/responses", json=body)
        side.note(reply["id"])
        deadline = time.monotonic() + 60
        while reply["status"] in ("queued", "in_progress"):
            assert time.monotonic() < deadline, "a background response does not end"
            reply = side.ask("GET", f"/v1/responses/{reply['id']}")
        assert reply["status"] == "completed", reply
        if reply["store"]:
            shown = side.ask("GET", f"/v1/responses/{reply['id']}")
            items = side.pages(f"/v1/responses/{reply['id']}/input_items")
            side.answers[reply["id"]] = Answer(shown, [item["id"] for item in items])
            side.note(*side.answers[reply["id"]].inputs)
        else:
            assert side.send("GET", f"/v1/responses/{reply['id']}").status_code == 404
        return reply

    @rule(which=which, store=st.booleans(), background=st.booleans())
    def plain_response(self, which: int, *, store: bool, background: bool) -> None:
        self.respond(self.sides[which], store=store or background, background=background)

    @rule(which=which, number=number)
    def continue_response(self, which: int, number: int) -> None:
        side = self.sides[which]
        previous = pick(side.answers, number)
        if previous:
            self.respond(side, input="And then?", previous_response_id=previous)
            self.respond(side, input=[{"type": "item_reference", "id": side.answers[previous].inputs[0]}])

    @rule(which=which, number=number, count=st.integers(1, 2))
    def search_files(self, which: int, number: int, count: int) -> None:
        side = self.sides[which]
        stores = list(side.stores)[number : number + count] or list(side.stores)[:count]
        if stores:
            tool = {"type": "file_search", "vector_store_ids": stores, "max_num_results": 50}
            reply = self.respond(side, input=QUESTION, tools=[tool], include=FILE_SEARCH_RESULTS)
            results, citations = chosen(reply)
            held = {text: each.files for id_ in stores for text, each in side.stores[id_].documents.items()}
            files = {file for id_ in stores for file in side.stores[id_].files}
            assert {result["text"] for result in results} == set(held)
            assert {found["file_id"] for found in (*results, *citations)} <= files
            assert {citation["quote"] for citation in citations} <= set(held)

    @rule(which=which, number=number)
    def ask_about_file(self, which: int, number: int) -> None:
        side = self.sides[which]
        file = pick(side.files, number)
        if file:
            content = [{"type": "input_text", "text": QUESTION}, {"type": "input_file", "file_id": file}]
            _, citations = chosen(self.respond(side, input=[{"role": "user", "content": content}]))
            assert {citation["file_id"] for citation in citations} <= {file}
            assert {citation["quote"] for citation in citations} <= {side.files[file]}

    @rule(which=which, number=number)
    def chat_with_documents(self, which: int, number: int) -> None:
        side = self.sides[which]
        store = pick(side.stores, number)
        if store:
            held = side.stores[store]
            body = {
                "model": MODEL,
                "messages": [{"role": "user", "content": QUESTION}],
                "use_rag": True,
                "rag": {"collection": held.collection},
            }
            message = side.ask("POST", "/v1/chat/completions", json=body)["choices"][0]["message"]
            for citation in message.get("annotations") or ():
                assert citation["url_citation"]["content"] in held.documents

    @rule(which=which, number=number)
    def delete_response(self, which: int, number: int) -> None:
        side = self.sides[which]
        id_ = pick(side.answers, number)
        if id_:
            side.ask("DELETE", f"/v1/responses/{id_}")
            later = [name for name, each in side.answers.items() if each.body["previous_response_id"] == id_]
            side.answers.pop(id_)
            assert all(side.send("GET", f"/v1/responses/{name}").status_code == 200 for name in later)

    @rule(which=which, count=st.integers(0, 2))
    def create_conversation(self, which: int, count: int) -> None:
        side = self.sides[which]
        items = [{"role": "user", "content": f"{side.secret} {place}"} for place in range(count)]
        made = side.ask("POST", "/v1/conversations", json={"items": items, "metadata": {"of": side.secret}})
        side.metadata[made["id"]] = {"of": side.secret}
        side.note(made["id"])
        self.expect_items(side, made["id"], count)

    def expect_items(self, side: Side, id_: str, count: int) -> None:
        before = side.conversations.get(id_, [])
        ids = [item["id"] for item in side.pages(f"/v1/conversations/{id_}/items")]
        assert ids[: len(before)] == before
        assert len(ids) == len(before) + count
        side.conversations[id_] = ids
        side.note(*ids)

    @rule(which=which, number=number, answered=st.booleans(), same_id=st.booleans())
    def extend_conversation(self, which: int, number: int, *, answered: bool, same_id: bool) -> None:
        side = self.sides[which]
        id_ = pick(side.conversations, number)
        if not id_:
            return
        if answered:
            self.respond(side, conversation=id_)
            self.expect_items(side, id_, 2)
        elif "msg_common" not in side.conversations[id_]:
            own = {"id": "msg_common"} if same_id else {}
            items = [{"role": "user", "content": side.secret, "type": "message", **own}]
            side.ask("POST", f"/v1/conversations/{id_}/items", json={"items": items})
            self.expect_items(side, id_, 1)

    @rule(which=which, number=number, other=number)
    def delete_item(self, which: int, number: int, other: int) -> None:
        side = self.sides[which]
        id_ = pick(side.conversations, number)
        item = pick(side.conversations[id_], other) if id_ else ""
        if item:
            side.ask("DELETE", f"/v1/conversations/{id_}/items/{item}")
            side.conversations[id_].remove(item)

    @rule(which=which, number=number)
    def delete_conversation(self, which: int, number: int) -> None:
        side = self.sides[which]
        id_ = pick(side.conversations, number)
        if id_:
            side.ask("DELETE", f"/v1/conversations/{id_}")
            side.conversations.pop(id_)

    # -- what no tenant may do ---------------------------------------------------------------------------------

    @rule(which=which, number=number)
    def name_foreign_objects(self, which: int, number: int) -> None:
        self.name_all_foreign_objects(self.sides[which], number)

    def name_all_foreign_objects(self, side: Side, number: int) -> None:
        """Every use of an id of the other tenant is answered like that of an unknown id."""
        for named, target, places in requests_for(side, number):
            foreign = self.send_named(side, named, target, places)
            unknown = self.send_named(side, named, _like(target), places)
            assert foreign == unknown, named
            assert foreign[0] >= 400, named

    @staticmethod
    def send_named(side: Side, named: Named, id_: str, places: dict[str, str]) -> tuple[int, dict[str, str], str]:
        filling = {"id": id_, **places}
        options = {"json": filled(named.body, filling)} if named.body is not None else dict(named.form or {})
        return plain(side.send(named.method, filled(named.path, filling), **options), id_)

    @rule()
    def look(self) -> None:
        for side in self.sides:
            side.check()

    def teardown(self) -> None:
        leaving, staying = self.sides if int(self.sides[0].name[-1]) % 2 else self.sides[::-1]
        try:
            for side in self.sides:
                self.name_all_foreign_objects(side, 0)
            for side in self.sides:
                side.check()
                side.check_export()
            self.delete_tenant(leaving)
            leaving.check_empty()
            staying.check()
            staying.check_export()
        finally:
            for side in self.sides:
                self.delete_tenant(side)

    def delete_tenant(self, side: Side) -> None:
        reply = self.service.request("DELETE", f"/v1/tenants/{side.name}", key=self.operator)
        assert reply.status_code in (200, 404), reply.text


def _has(store: Store, document: str) -> bool:
    return any(each.id == document for each in store.documents.values())


def _like(id_: str) -> str:
    """An id that nothing has, of the same form."""
    found = RANDOM_PART.search(id_)
    return (
        id_[:-8] + secrets.token_hex(4)
        if found is None
        else id_.replace(found[0], secrets.token_hex(40)[: len(found[0])])
    )


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    with ServiceInProcess(tmp_path_factory.mktemp("two_tenants") / "data") as running:
        TwoTenants.service = running
        TwoTenants.operator = running.new_key("operator", Scope.ADMIN)
        yield running


is_thorough = settings.get_current_profile_name() == "thorough"


@pytest.mark.timeout(7200 if is_thorough else 300)
@pytest.mark.usefixtures("service")
class TestTwoTenants(TwoTenants.TestCase):
    settings = settings(
        max_examples=400 if is_thorough else 8,
        stateful_step_count=50 if is_thorough else 25,
        phases=settings.default.phases
        if is_thorough
        else [Phase.explicit, Phase.reuse, Phase.generate],  # shrinking takes minutes
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
