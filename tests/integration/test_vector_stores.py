"""Vector stores with OpenAI's own client, and the same documents through ``/v1/rag``."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from email.message import EmailMessage

import openai
import pytest

from tests.conftest import Tenant

pytestmark = pytest.mark.model

LIGHTHOUSE = "The lighthouse of the island is painted in red and white."
FERRY = "The ferry to the mainland leaves at six in the evening."
BAKERY = "The bakery in the harbour street sells rye bread."


@pytest.fixture
def client(tenant: Tenant) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key=tenant.key, base_url=f"{tenant.service.url}/v1", max_retries=0) as made:
        yield made


def file_of(document_id: str) -> str:
    """The id of the file that came with a document."""
    return document_id.replace("doc_", "file-")


def add_file(tenant: Tenant, text: str, **options: object) -> str:
    return file_of(tenant.add_text(text, **options))


def test_a_store_is_created_changed_listed_and_deleted(client: openai.OpenAI) -> None:
    store = client.vector_stores.create(name="reports", metadata={"team": "a"})
    assert store.id.startswith("vs_")
    assert (store.object, store.name, store.status, store.metadata) == (
        "vector_store",
        "reports",
        "completed",
        {"team": "a"},
    )
    assert store.file_counts.total == store.usage_bytes == 0
    assert store.expires_at is None
    nameless = client.vector_stores.create(extra_body={"name": None, "file_ids": None, "metadata": None})
    assert nameless.name is None
    twin = client.vector_stores.create(name="reports")
    assert [entry.id for entry in client.vector_stores.list()] == [twin.id, nameless.id, store.id]
    first = client.vector_stores.list(limit=2, order="asc")
    assert ([entry.id for entry in first.data], first.has_more) == ([store.id, nameless.id], True)
    assert [entry.id for entry in first.get_next_page().data] == [twin.id]
    before = client.vector_stores.list(before=twin.id, order="asc", limit=1)
    assert ([entry.id for entry in before.data], before.has_more) == ([nameless.id], True)
    changed = client.vector_stores.update(
        store.id, name="yearly", metadata={"team": "b"}, expires_after={"anchor": "last_active_at", "days": 3}
    )
    assert (changed.name, changed.metadata) == ("yearly", {"team": "b"})
    assert changed.expires_at == changed.last_active_at + 3 * 86400
    assert client.vector_stores.retrieve(store.id) == changed
    assert client.vector_stores.delete(store.id).model_dump() == {
        "id": store.id,
        "object": "vector_store.deleted",
        "deleted": True,
    }
    with pytest.raises(openai.NotFoundError, match="no vector store"):
        client.vector_stores.retrieve(store.id)
    assert [entry.id for entry in client.vector_stores.list()] == [twin.id, nameless.id]


def test_a_file_is_attached_searched_read_and_removed(client: openai.OpenAI, tenant: Tenant) -> None:
    file_id = add_file(tenant, LIGHTHOUSE, filename="island.txt")
    store = client.vector_stores.create(name="places")
    added = client.vector_stores.files.create_and_poll(
        file_id, vector_store_id=store.id, attributes={"kind": "tower", "floors": 7, "open": True}
    )
    assert (added.status, added.last_error, added.usage_bytes) == ("completed", None, len(LIGHTHOUSE))
    assert added.attributes == {"kind": "tower", "floors": 7, "open": True}
    assert added.chunking_strategy.type == "static"
    client.vector_stores.files.create_and_poll(add_file(tenant, FERRY), vector_store_id=store.id)
    counted = client.vector_stores.retrieve(store.id)
    assert counted.file_counts.completed == counted.file_counts.total == 2
    assert counted.usage_bytes == len(LIGHTHOUSE) + len(FERRY)
    found = client.vector_stores.search(store.id, query="Which colours has the lighthouse?")
    assert found.data[0].file_id == file_id
    assert found.data[0].filename == "island.txt"
    assert found.data[0].content[0].text == LIGHTHOUSE
    assert found.data[0].attributes == added.attributes
    assert 0 < found.data[0].score <= 1
    assert found.data[0].score >= found.data[-1].score
    text = "".join(part.text or "" for part in client.vector_stores.files.content(file_id, vector_store_id=store.id))
    assert text == LIGHTHOUSE
    changed = client.vector_stores.files.update(file_id, vector_store_id=store.id, attributes={"kind": "museum"})
    assert changed.attributes == {"kind": "museum"}
    removed = client.vector_stores.files.delete(file_id, vector_store_id=store.id)
    assert removed.model_dump() == {"id": file_id, "object": "vector_store.file.deleted", "deleted": True}
    assert file_id not in {hit.file_id for hit in client.vector_stores.search(store.id, query="lighthouse")}
    assert client.vector_stores.retrieve(store.id).file_counts.total == 1
    assert tenant.search("lighthouse")[0]["quote"] == LIGHTHOUSE  # the document it came with still has the file


def test_filters_and_several_queries(client: openai.OpenAI, tenant: Tenant) -> None:
    store = client.vector_stores.create(name="filtered")
    years = {LIGHTHOUSE: 2021, FERRY: 2022, BAKERY: 2023}
    for text, year in years.items():
        client.vector_stores.files.create_and_poll(
            add_file(tenant, text), vector_store_id=store.id, attributes={"year": year}
        )

    def searched(query: str | list[str] = "What is on the island?", **options) -> set[int]:
        return {hit.attributes["year"] for hit in client.vector_stores.search(store.id, query=query, **options)}

    def year(kind: str, value: object) -> dict:
        return {"type": kind, "key": "year", "value": value}

    assert searched() == {2021, 2022, 2023}
    assert searched(filters=year("eq", 2022)) == {2022}
    assert searched(filters=year("ne", 2022)) == {2021, 2023}
    assert searched(filters=year("gt", 2022)) == {2023}
    assert searched(filters=year("gte", 2022)) == {2022, 2023}
    assert searched(filters=year("lt", 2022)) == {2021}
    assert searched(filters=year("lte", 2022)) == {2021, 2022}
    assert searched(filters=year("in", [2021, 2023])) == {2021, 2023}
    assert searched(filters=year("nin", [2021, 2023])) == {2022}
    either = {"type": "or", "filters": [year("eq", 2021), year("eq", 2023)]}
    assert searched(filters=either) == {2021, 2023}
    assert searched(filters={"type": "and", "filters": [either, year("gt", 2021)]}) == {2023}
    queries = ["When does the ferry leave?", "Who sells rye bread?"]
    both = client.vector_stores.search(store.id, query=queries, max_num_results=2)
    assert {hit.content[0].text for hit in both} == {FERRY, BAKERY}
    raw = tenant.http.post(
        f"/v1/vector_stores/{store.id}/search",
        json={"query": "Hello! Could you please tell me when the ferry leaves?", "rewrite_query": True},
    ).json()
    assert raw["search_query"] == ["when the ferry leaves?"]
    assert (raw["object"], raw["has_more"], raw["next_page"]) == ("vector_store.search_results.page", False, None)


def test_ranking_options_are_honoured(client: openai.OpenAI, tenant: Tenant) -> None:
    store = client.vector_stores.create(name="ranked")
    words = "Timetable of departures: the boat goes in the evening."
    meaning = "A ferry is a large vessel. The word ferry is old."
    for text in (words, meaning, BAKERY):
        client.vector_stores.files.create_and_poll(add_file(tenant, text), vector_store_id=store.id)

    def scores(**ranking) -> dict[str, float]:
        found = client.vector_stores.search(
            store.id, query="ferry", max_num_results=50, ranking_options=ranking, extra_headers={"OpenAI-Beta": "x"}
        )
        return {hit.content[0].text: hit.score for hit in found}

    lexical = scores(ranker="none", hybrid_search={"embedding_weight": 0, "text_weight": 1})
    assert lexical == {meaning: 1.0}
    dense = scores(ranker="none", hybrid_search={"embedding_weight": 1, "text_weight": 0})
    assert set(dense) == {words, meaning, BAKERY}
    for embedding_weight, text_weight in ((0.75, 0.25), (1, 3), (2, 2)):
        mixed = scores(hybrid_search={"embedding_weight": embedding_weight, "text_weight": text_weight})
        share = embedding_weight / (embedding_weight + text_weight)
        assert mixed[meaning] == pytest.approx(share * dense[meaning] + (1 - share), abs=2e-3)
        assert mixed[words] == pytest.approx(share * dense[words], abs=2e-3)
    threshold = sorted(dense.values())[1]
    kept = scores(score_threshold=threshold, hybrid_search={"embedding_weight": 1, "text_weight": 0})
    assert kept == {text: score for text, score in dense.items() if score >= threshold}
    with pytest.raises(openai.BadRequestError, match="hybrid_search"):
        scores(hybrid_search={"embedding_weight": 0, "text_weight": 0})


def test_both_faces_see_the_same_documents(client: openai.OpenAI, tenant: Tenant) -> None:
    document = tenant.add_text(FERRY, collection="boats", metadata='{"port": "east"}')
    (store,) = [entry for entry in client.vector_stores.list() if entry.name == "boats"]
    (file,) = client.vector_stores.files.list(store.id)
    assert (file.id, file.status, file.attributes) == (file_of(document), "completed", {"port": "east"})
    assert client.vector_stores.search(store.id, query="ferry").data[0].file_id == file.id
    client.vector_stores.files.update(file.id, vector_store_id=store.id, attributes={"port": "west"})
    assert tenant.http.get(f"/v1/rag/documents/{document}").json()["metadata"] == {"port": "west"}
    tenant.http.patch(f"/v1/rag/documents/{document}", json={"metadata": {"deck": 2}})
    attributes = client.vector_stores.files.retrieve(file.id, vector_store_id=store.id).attributes
    assert attributes == {"port": "west", "deck": 2}
    made = client.vector_stores.create(name="towers")
    client.vector_stores.files.create_and_poll(add_file(tenant, LIGHTHOUSE), vector_store_id=made.id)
    assert tenant.search("lighthouse", collection="towers")[0]["quote"] == LIGHTHOUSE
    (listed,) = tenant.http.get("/v1/rag/documents", params={"collection": "towers"}).json()["data"]
    assert tenant.http.delete(f"/v1/rag/documents/{listed['id']}").status_code == 200
    assert client.vector_stores.retrieve(made.id).file_counts.total == 0
    assert tenant.http.delete("/v1/rag/collections/towers").status_code == 200
    with pytest.raises(openai.NotFoundError):
        client.vector_stores.retrieve(made.id)
    client.vector_stores.delete(store.id)
    assert tenant.http.get("/v1/rag/collections/boats").status_code == 404


def test_batches_count_list_and_take_attributes_of_their_own(client: openai.OpenAI, tenant: Tenant) -> None:
    store = client.vector_stores.create()
    ids = [add_file(tenant, text) for text in (LIGHTHOUSE, FERRY, BAKERY)]
    batch = client.vector_stores.file_batches.create_and_poll(
        store.id, files=[{"file_id": ids[0], "attributes": {"n": 1}}, {"file_id": ids[1]}]
    )
    assert batch.status == "completed"
    assert batch.file_counts.model_dump() == {"in_progress": 0, "completed": 2, "failed": 0, "cancelled": 0, "total": 2}
    files = list(client.vector_stores.file_batches.list_files(batch.id, vector_store_id=store.id, order="asc"))
    assert [(file.id, file.attributes) for file in files] == [(ids[0], {"n": 1}), (ids[1], {})]
    common = client.vector_stores.file_batches.create_and_poll(store.id, file_ids=ids[2:], attributes={"n": 3})
    assert client.vector_stores.file_batches.retrieve(common.id, vector_store_id=store.id) == common
    page = client.vector_stores.files.list(store.id, limit=2, order="asc", filter="completed")
    assert ([file.id for file in page.data], page.has_more) == (ids[:2], True)
    assert [file.id for file in page.get_next_page().data] == ids[2:]
    backwards = client.vector_stores.files.list(store.id, before=ids[2], order="asc", limit=1)
    assert ([file.id for file in backwards.data], backwards.has_more) == ([ids[1]], True)
    assert list(client.vector_stores.files.list(store.id, filter="failed")) == []
    with pytest.raises(openai.NotFoundError, match="no file"):
        client.vector_stores.file_batches.create(store.id, file_ids=[ids[0], "file-" + "0" * 24])
    with pytest.raises(openai.NotFoundError, match="no file batch"):
        client.vector_stores.file_batches.retrieve("vsfb_" + "0" * 24, vector_store_id=store.id)


def test_files_are_uploaded_into_a_store_and_deleted_from_all(client: openai.OpenAI, tenant: Tenant) -> None:
    """The helpers of OpenAI's client: ``upload_and_poll`` of a file and of a batch."""
    store = client.vector_stores.create(name="uploads")
    file = client.vector_stores.files.upload_and_poll(
        vector_store_id=store.id, file=("tower.txt", LIGHTHOUSE.encode()), attributes={"kind": "tower"}
    )
    assert (file.status, file.usage_bytes, file.attributes) == ("completed", len(LIGHTHOUSE), {"kind": "tower"})
    batch = client.vector_stores.file_batches.upload_and_poll(
        store.id, files=[("ferry.txt", FERRY.encode()), ("bakery.txt", BAKERY.encode())], file_ids=[]
    )
    assert (batch.status, batch.file_counts.completed, batch.file_counts.total) == ("completed", 2, 2)
    again = client.vector_stores.create(name="again", file_ids=[file.id])
    client.vector_stores.files.poll(file.id, vector_store_id=again.id)
    hit = client.vector_stores.search(store.id, query="Which colours has the lighthouse?").data[0]
    assert (hit.file_id, hit.filename) == (file.id, "tower.txt")
    assert client.files.retrieve(file.id).filename == "tower.txt"
    assert len(tenant.http.get("/v1/rag/documents", params={"collection": "uploads"}).json()["data"]) == 3
    assert client.files.delete(file.id).deleted
    for left in (store, again):
        assert file.id not in {entry.id for entry in client.vector_stores.files.list(left.id)}
        assert LIGHTHOUSE not in {hit.content[0].text for hit in client.vector_stores.search(left.id, query="tower")}
    assert client.vector_stores.retrieve(store.id).file_counts.total == 2
    assert client.vector_stores.retrieve(again.id).file_counts.total == 0


def test_a_stored_file_of_any_kind_can_be_added_and_fails_by_its_kind(client: openai.OpenAI) -> None:
    store = client.vector_stores.create()
    program = client.files.create(file=("tool.exe", b"MZ" + bytes(range(256))), purpose="assistants")
    broken = client.files.create(file=("broken.pdf", b"%PDF-1.4 broken"), purpose="assistants")
    batch = client.vector_stores.file_batches.create_and_poll(store.id, file_ids=[program.id, broken.id])
    assert (batch.status, batch.file_counts.failed) == ("failed", 2)
    codes = {file.id: file.last_error.code for file in client.vector_stores.files.list(store.id)}
    assert codes == {program.id: "unsupported_file", broken.id: "invalid_file"}
    counted = client.vector_stores.retrieve(store.id)
    assert (counted.status, counted.file_counts.failed, counted.file_counts.total) == ("completed", 2, 2)


def test_a_file_that_cannot_be_read_fails_with_openais_codes(client: openai.OpenAI, tenant: Tenant) -> None:
    reply = tenant.upload(b"%PDF-1.4 broken", collection="broken", wait_s=30)
    assert reply.status_code == 422
    document = reply.headers["location"].rpartition("/")[2]
    store = client.vector_stores.create(name="failures")
    file = client.vector_stores.files.create_and_poll(file_of(document), vector_store_id=store.id)
    assert (file.status, file.last_error.code) == ("failed", "invalid_file")
    assert file.last_error.message
    counts = client.vector_stores.retrieve(store.id).file_counts
    assert (counts.failed, counts.total) == (1, 1)
    assert [entry.id for entry in client.vector_stores.files.list(store.id, filter="failed")] == [file.id]


def test_keys_limited_to_collections_see_only_their_stores(new_tenant: Callable[..., Tenant]) -> None:
    owner = new_tenant()
    owner.add_text(FERRY, collection="open")
    secret = owner.add_text(LIGHTHOUSE, collection="secret")
    stores = {entry["name"]: entry["id"] for entry in owner.http.get("/v1/vector_stores").json()["data"]}
    with owner.service.client(owner.service.admin_key) as admin:
        body = {"tenant": owner.name, "label": "limited", "allowed_collections": ["open"]}
        key = admin.post("/v1/keys", json=body).json()["key"]
    with owner.service.client(key) as limited:
        assert [entry["name"] for entry in limited.get("/v1/vector_stores").json()["data"]] == ["open"]
        hidden = f"/v1/vector_stores/{stores['secret']}"
        unknown = "/v1/vector_stores/vs_" + "0" * 24
        for address in (hidden, unknown):
            assert limited.get(address).status_code == 404
            assert limited.get(f"{address}/files").status_code == 404
            assert limited.delete(address).status_code == 404
            assert limited.post(address, json={"name": "mine"}).status_code == 404
            assert limited.post(f"{address}/search", json={"query": "lighthouse"}).status_code == 404
        attach = limited.post(f"/v1/vector_stores/{stores['open']}/files", json={"file_id": file_of(secret)})
        assert attach.status_code == 404
        assert limited.post("/v1/vector_stores", json={"name": "other"}).status_code == 403


def test_scopes_and_quotas_apply(new_tenant: Callable[..., Tenant]) -> None:
    owner = new_tenant()
    store = owner.http.post("/v1/vector_stores", json={"name": "one"}).json()["id"]
    with owner.service.client(owner.service.admin_key) as admin:
        body = {"tenant": owner.name, "label": "reader", "scopes": ["documents.read"]}
        reader = admin.post("/v1/keys", json=body).json()["key"]
        limits = {"max_collections": 1, "max_documents": 2}
        assert admin.patch(f"/v1/tenants/{owner.name}", json=limits).status_code == 200
    with owner.service.client(reader) as limited:
        assert limited.get(f"/v1/vector_stores/{store}").status_code == 200
        assert limited.post("/v1/vector_stores", json={}).status_code == 403
        assert limited.post(f"/v1/vector_stores/{store}/search", json={"query": "x"}).status_code == 403
    refused = owner.http.post("/v1/vector_stores", json={"name": "two"})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "quota_exceeded")
    with openai.OpenAI(api_key=owner.key, base_url=f"{owner.service.url}/v1", max_retries=0) as client:
        ids = [client.files.create(file=(name, name.encode()), purpose="assistants").id for name in ("a.txt", "b.txt")]
        owner.add_text(FERRY, collection="one")
        with pytest.raises(openai.PermissionDeniedError, match="documents"):
            client.vector_stores.file_batches.create(store, file_ids=ids)
        assert client.vector_stores.retrieve(store).file_counts.total == 1
        assert client.vector_stores.files.create_and_poll(ids[0], vector_store_id=store).status == "completed"
        with pytest.raises(openai.PermissionDeniedError, match="documents"):
            client.vector_stores.files.create(store, file_id=ids[1])


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"metadata": {str(number): "x" for number in range(17)}}, "metadata"),
        ({"metadata": {"k": "x" * 513}}, "metadata"),
        ({"expires_after": {"anchor": "created_at", "days": 1}}, "expires_after.anchor"),
        ({"expires_after": {"anchor": "last_active_at", "days": 0}}, "expires_after.days"),
        ({"chunking_strategy": {"type": "static"}}, "chunking_strategy.static"),
        ({"naem": "x"}, "naem"),
    ],
)
def test_invalid_stores_are_refused(tenant: Tenant, body: dict, param: str) -> None:
    reply = tenant.http.post("/v1/vector_stores", json=body)
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]["param"].startswith(param)


@pytest.mark.parametrize("file_first", [True, False])
def test_an_attachment_that_was_also_added_as_a_file_stays_with_its_mail(
    client: openai.OpenAI, tenant: Tenant, file_first: bool
) -> None:
    """And with the file, whichever was there first and whichever is deleted first."""
    mail = EmailMessage()
    mail["From"], mail["To"], mail["Subject"] = "a@example.org", "b@example.org", "Ferry times"
    mail.set_content("The timetable is attached.")
    mail.add_attachment(FERRY.encode(), maintype="text", subtype="plain", filename="ferry.txt")
    store = client.vector_stores.create(name="mails")

    def add_file() -> str:
        return client.vector_stores.files.upload_and_poll(vector_store_id=store.id, file=("f.txt", FERRY.encode())).id

    def add_mail() -> str:
        reply = tenant.upload(
            mail.as_bytes(), filename="mail.eml", kind="message/rfc822", collection="mails", wait_s=30
        )
        deadline = time.monotonic() + 30
        while client.vector_stores.retrieve(store.id).status == "in_progress" and time.monotonic() < deadline:
            time.sleep(0.1)
        return reply.json()["id"]

    def is_found() -> bool:
        return FERRY in {hit.content[0].text for hit in client.vector_stores.search(store.id, query="ferry")}

    for deleted_first in ("mail", "file"):
        if file_first:
            file_id, mail_id = add_file(), add_mail()
        else:
            mail_id, file_id = add_mail(), add_file()
        if deleted_first == "file":
            client.files.delete(file_id)
            assert is_found()
        assert tenant.http.post(f"/v1/rag/documents/{mail_id}/delete").status_code == 200
        if deleted_first == "mail":
            assert is_found()
            client.files.delete(file_id)
        assert not is_found()
        assert client.vector_stores.retrieve(store.id).file_counts.total == 0
