"""Lists and counts of documents, and the events of all documents, over HTTP against the real service."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from ragsvc.client import (
    Client,
    DocumentDeletionRecord,
    DocumentRecord,
    DocumentsSnapshotRecord,
    ServiceUnreachable,
)
from ragsvc.testing.sample_pdfs import text_pdf

pytestmark = pytest.mark.model

FIXTURES = Path(__file__).parents[2] / "fixtures"


def pages_pdf(pages: int, topic: str) -> bytes:
    return text_pdf([[f"Page {page} of the paper on {topic}."] for page in range(1, pages + 1)])


def names(reply: httpx.Response) -> list[str]:
    assert reply.status_code == 200, reply.text
    return [document["filename"] for document in reply.json()["data"]]


class Events:
    """The events of all documents of a tenant, read in the background."""

    def __init__(self, client: httpx.Client, *, last_event_id: str | None = None) -> None:
        self.received: list[tuple[str, str, dict]] = []
        self.ended = threading.Event()
        self._arrived = threading.Condition()
        headers = {} if last_event_id is None else {"last-event-id": last_event_id}
        self._response = client.send(client.build_request("GET", "/v1/rag/events", headers=headers), stream=True)
        assert self._response.status_code == 200, self._response.read()
        assert self._response.headers["content-type"].startswith("text/event-stream")
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        name = identifier = ""
        try:
            for line in self._response.iter_lines():
                if line.startswith("event: "):
                    name = line.removeprefix("event: ")
                elif line.startswith("id: "):
                    identifier = line.removeprefix("id: ")
                elif line.startswith("data: "):
                    with self._arrived:
                        self.received.append((name, identifier, json.loads(line.removeprefix("data: "))))
                        self._arrived.notify_all()
        except httpx.HTTPError:
            pass  # closed by the test
        finally:
            self.ended.set()

    def wait_for(self, name: str, **fields: object) -> dict:
        """The first event of this name with these fields."""

        def found() -> dict | None:
            return next(
                (
                    body
                    for kind, _, body in self.received
                    if kind == name and all(body.get(field) == value for field, value in fields.items())
                ),
                None,
            )

        with self._arrived:
            assert self._arrived.wait_for(lambda: found() is not None, timeout=60), (name, fields, self.received)
            event = found()
        assert event is not None
        return event

    def ids(self) -> set[str]:
        with self._arrived:
            return {body["id"] for _, _, body in self.received if "id" in body}

    def last_id(self) -> str:
        with self._arrived:
            return self.received[-1][1]

    def close(self) -> None:
        self._response.close()
        self._thread.join(timeout=10)


@contextmanager
def events_of(client: httpx.Client, *, last_event_id: str | None = None) -> Iterator[Events]:
    events = Events(client, last_event_id=last_event_id)
    try:
        yield events
    finally:
        events.close()


def test_documents_are_sorted_by_name_pages_size_and_time_in_both_directions_over_pages(tenant) -> None:
    for filename, pages in (("Beta.pdf", 2), ("alpha.pdf", 3), ("delta.pdf", 1), ("Gamma.pdf", 2), ("epsilon.pdf", 1)):
        assert tenant.upload(pages_pdf(pages, filename), filename=filename).status_code == 201

    def listed(sort: str, order: str) -> list[str]:
        """All names, two at a time, forwards; and the same backwards."""
        parameters = {"sort": sort, "order": order, "limit": 2}
        found, after = [], None
        while True:
            page = tenant.http.get("/v1/rag/documents", params=parameters | ({"after": after} if after else {}))
            found.append(names(page))
            if not page.json()["has_more"]:
                break
            after = page.json()["last_id"]
        before = page.json()["first_id"]
        back = tenant.http.get("/v1/rag/documents", params=parameters | {"before": before})
        assert names(back) == found[-2]
        return [name for page in found for name in page]

    by_name = ["alpha.pdf", "Beta.pdf", "delta.pdf", "epsilon.pdf", "Gamma.pdf"]
    assert listed("name", "asc") == by_name
    assert listed("name", "desc") == by_name[::-1]
    assert listed("pages", "asc") == ["delta.pdf", "epsilon.pdf", "Beta.pdf", "Gamma.pdf", "alpha.pdf"]
    assert listed("pages", "desc") == ["alpha.pdf", "Gamma.pdf", "Beta.pdf", "epsilon.pdf", "delta.pdf"]
    assert listed("created", "asc") == ["Beta.pdf", "alpha.pdf", "delta.pdf", "Gamma.pdf", "epsilon.pdf"]
    sizes = {name: len(pages_pdf(pages, name)) for name, pages in (("alpha.pdf", 3), ("delta.pdf", 1))}
    by_size = listed("bytes", "desc")
    assert sizes["alpha.pdf"] > sizes["delta.pdf"]
    assert by_size.index("alpha.pdf") < by_size.index("delta.pdf")
    wrong = tenant.http.get("/v1/rag/documents", params={"sort": "colour"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "sort")


def test_documents_are_counted_and_listed_by_status_type_name_and_metadata(tenant) -> None:
    tenant.upload(pages_pdf(1, "ferries"), filename="ferries.pdf", metadata=json.dumps({"year": 2023}))
    tenant.add_text("A note about ferries.", filename="ferries.txt", metadata=json.dumps({"year": 2024}))
    tenant.add_text("A note about trains.", filename="trains.txt", collection="rail")
    tenant.http.post(
        "/v1/rag/documents?wait_s=60", files={"file": ("latin.txt", b"Fa\xe7ade", "text/plain; charset=latin-1")}
    )
    broken = tenant.upload(b"%PDF-1.7 nothing else", filename="broken.pdf")
    assert broken.status_code == 422, broken.text

    def counts(**parameters: object) -> dict:
        reply = tenant.http.get("/v1/rag/documents/counts", params=parameters)
        assert reply.status_code == 200, reply.text
        listed = tenant.http.get("/v1/rag/documents", params={"limit": 100, **parameters}).json()["data"]
        assert len(listed) == reply.json()["total"]
        return reply.json()

    assert counts() == {
        "object": "document.counts",
        "total": 5,
        "queued": 0,
        "processing": 0,
        "ready": 4,
        "failed": 1,
        "media_types": {"application/pdf": 2, "text/plain": 3},
    }
    assert counts(media_type="text/plain")["total"] == 3
    assert counts(media_type="text/plain, application/pdf", status="ready")["total"] == 4
    assert counts(name="FERR")["media_types"] == {"application/pdf": 1, "text/plain": 1}
    assert counts(collection="rail")["total"] == 1
    many = ",".join(["Text/Plain", *(f"a{number}" for number in range(180))])
    assert counts(media_type=many)["media_types"] == {"text/plain": 3}
    for route in ("documents", "documents/counts"):
        long = tenant.http.get(f"/v1/rag/{route}", params={"name": "a" * 55_000})
        assert (long.status_code, long.json()["error"]["param"]) == (400, "name")
    year = {"type": "gte", "key": "year", "value": 2024}
    assert counts(filters=json.dumps(year))["media_types"] == {"text/plain": 1}
    missing = tenant.http.get("/v1/rag/documents/counts", params={"collection": "none"})
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "collection_not_found")


def test_one_stream_reports_every_document_from_upload_to_deletion(tenant) -> None:
    with events_of(tenant.http) as events:
        first = events.wait_for("snapshot")
        assert (first["counts"]["total"], first["unfinished"], first["resumed"]) == (0, [], False)
        ids = [
            tenant.upload(pages_pdf(3, f"topic {number}"), filename=f"{number}.pdf", wait_s=0).json()["id"]
            for number in range(5)
        ]
        failing = tenant.upload(b"%PDF-1.7 nothing else", filename="broken.pdf", wait_s=0).json()["id"]
        for document_id in ids:
            document = events.wait_for("ready", id=document_id)
            assert document == tenant.http.get(f"/v1/rag/documents/{document_id}").json()
        assert events.wait_for("failed", id=failing)["error"]["code"] == "damaged"
        tenant.http.patch(f"/v1/rag/documents/{ids[0]}", json={"filename": "renamed.pdf"})
        events.wait_for("ready", id=ids[0], filename="renamed.pdf")
        tenant.http.patch(f"/v1/rag/documents/{ids[1]}", json={"metadata": {"year": 2024}})
        events.wait_for("ready", id=ids[1], metadata={"year": 2024})
        tenant.http.delete(f"/v1/rag/documents/{ids[2]}")
        assert events.wait_for("deleted", id=ids[2]) == {
            "id": ids[2],
            "object": "document.deleted",
            "deleted": True,
        }


def test_a_protected_document_is_retried_with_its_password_in_the_stream(tenant) -> None:
    protected = (FIXTURES / "dirty" / "password-asdfzxcv.pdf").read_bytes()
    with events_of(tenant.http) as events:
        document_id = tenant.upload(protected, filename="secret.pdf", wait_s=0).json()["id"]
        assert events.wait_for("failed", id=document_id)["error"]["code"] == "password_required"
        reply = tenant.http.post(f"/v1/rag/documents/{document_id}/retry", json={"password": "asdfzxcv"})
        assert reply.status_code == 202
        assert events.wait_for("ready", id=document_id)["pages"] > 0


def test_a_stream_resumes_with_what_changed_and_was_deleted_meanwhile(tenant) -> None:
    kept, gone = tenant.add_text("Kept.", filename="kept.txt"), tenant.add_text("Gone.", filename="gone.txt")
    with events_of(tenant.http) as events:
        events.wait_for("snapshot")
        position = events.last_id()
    tenant.http.patch(f"/v1/rag/documents/{kept}", json={"filename": "new name.txt"})
    tenant.http.delete(f"/v1/rag/documents/{gone}")
    added = tenant.add_text("Added.", filename="added.txt")
    with events_of(tenant.http, last_event_id=position) as events:
        snapshot = events.wait_for("snapshot")
        assert (snapshot["resumed"], snapshot["counts"]["total"]) == (True, 2)
        events.wait_for("ready", id=kept, filename="new name.txt")
        events.wait_for("ready", id=added)
        events.wait_for("deleted", id=gone)
    with events_of(tenant.http, last_event_id="5") as events:  # long before this service began
        assert events.wait_for("snapshot")["resumed"] is False
    wrong = tenant.http.get("/v1/rag/events", headers={"last-event-id": "yesterday"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "Last-Event-ID")


def test_a_deleted_collection_makes_the_stream_send_a_new_snapshot(tenant) -> None:
    tenant.add_text("Kept.", filename="kept.txt")
    tenant.add_text("Gone.", filename="gone.txt", collection="old")
    with events_of(tenant.http) as events:
        assert events.wait_for("snapshot")["counts"]["total"] == 2
        assert tenant.http.delete("/v1/rag/collections/old").status_code == 200
        with events._arrived:
            assert events._arrived.wait_for(
                lambda: any(name == "snapshot" and body["counts"]["total"] == 1 for name, _, body in events.received),
                timeout=30,
            )


def test_changed_attributes_of_a_file_in_a_vector_store_reach_the_stream(tenant) -> None:
    store = tenant.http.post("/v1/vector_stores", json={"name": "reports"}).json()["id"]
    content = {"file": ("report.txt", b"The harbour report.", "text/plain")}
    file = tenant.http.post("/v1/files", data={"purpose": "assistants"}, files=content).json()["id"]
    path = f"/v1/vector_stores/{store}/files"
    with events_of(tenant.http) as events:
        events.wait_for("snapshot")
        assert tenant.http.post(path, json={"file_id": file}).status_code == 200
        deadline = time.monotonic() + 60
        while not any(  # a snapshot may take the place of the state of each added document
            kind == "ready" or (kind == "snapshot" and body["counts"]["ready"]) for kind, _, body in events.received
        ):
            assert time.monotonic() < deadline, events.received
            time.sleep(0.1)
        assert tenant.http.post(f"{path}/{file}", json={"attributes": {"year": 2024}}).status_code == 200
        events.wait_for("ready", filename="report.txt", metadata={"year": 2024})


def test_the_stream_shows_only_documents_of_the_tenant_and_of_allowed_collections(new_tenant) -> None:
    one, other = new_tenant(), new_tenant()
    with one.service.client(one.service.admin_key) as admin:
        made = admin.post("/v1/keys", json={"tenant": one.name, "label": "narrow", "allowed_collections": ["open"]})
        limited = made.json()
        assert made.status_code == 201, made.text
    hidden_before = one.add_text("Hidden before.", filename="before.txt", collection="closed")
    with (
        one.service.client(limited["key"]) as narrow_client,
        events_of(narrow_client) as narrow,
        events_of(other.http) as foreign,
        events_of(one.http) as own,
    ):
        assert narrow.wait_for("snapshot")["counts"]["total"] == 0
        closed = one.add_text("Closed.", filename="closed.txt", collection="closed")
        shown = one.add_text("Open.", filename="open.txt", collection="open")
        one.http.delete(f"/v1/rag/documents/{closed}")
        own.wait_for("deleted", id=closed)
        one.http.delete(f"/v1/rag/documents/{shown}")
        narrow.wait_for("deleted", id=shown)
        mine = other.add_text("Mine.", filename="mine.txt")
        foreign.wait_for("ready", id=mine)
        assert narrow.ids() == {shown}
        assert foreign.ids() == {mine}
        assert hidden_before not in own.ids()


def test_a_search_explains_its_scores_in_every_mode(tenant) -> None:
    tenant.add_text("The harbour handled 4,711 containers in 2023.", filename="harbour report.txt")
    tenant.add_text("The museum sold 300 tickets in 2023.", filename="museum report.txt")
    assert "explanation" not in tenant.search("containers of the harbour")[0]
    for mode in ("hybrid", "dense", "lexical"):
        hits = tenant.search("How many containers of the harbour report?", mode=mode, explain=True)
        for hit in hits:
            parts = hit["explanation"]["parts"]
            assert sum(part["points"] for part in parts) == pytest.approx(hit["score"], abs=5e-4)
        named = {part["name"] for part in hits[0]["explanation"]["parts"]}
        assert hits[0]["filename"] == "harbour report.txt"
        assert {"containers", "harbour"} <= set(hits[0]["explanation"]["words"])
        expected = {"hybrid": {"meaning", "document"}, "dense": {"meaning"}, "lexical": {"words"}}[mode]
        assert expected <= named
    page = tenant.search("Summarize page 1 of the harbour report", explain=True)[0]
    assert sum(part["points"] for part in page["explanation"]["parts"]) == pytest.approx(page["score"], abs=5e-4)


def test_an_empty_collection_is_created_once_and_only_by_a_key_that_may_use_it(new_tenant) -> None:
    owner = new_tenant()
    made = owner.http.post("/v1/rag/collections", json={"name": "reports/2024"})
    assert (made.status_code, made.json()["documents"]) == (201, 0)
    again = owner.http.post("/v1/rag/collections", json={"name": "reports/2024"})
    assert (again.status_code, again.json()) == (200, made.json())
    assert [entry["name"] for entry in owner.http.get("/v1/rag/collections").json()["data"]] == ["reports/2024"]
    assert owner.search("anything", collection="reports/2024") == []
    blank = owner.http.post("/v1/rag/collections", json={"name": "  "})
    assert (blank.status_code, blank.json()["error"]["param"]) == (400, "name")
    with owner.service.client(owner.service.admin_key) as admin:
        narrow = admin.post(
            "/v1/keys", json={"tenant": owner.name, "label": "narrow", "allowed_collections": ["open"]}
        ).json()
        admin.patch(f"/v1/tenants/{owner.name}", json={"max_collections": 1})
    with owner.service.client(narrow["key"]) as client:
        refused = client.post("/v1/rag/collections", json={"name": "closed"})
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "policy_denied")
    full = owner.http.post("/v1/rag/collections", json={"name": "more"})
    assert full.json()["error"]["code"] == "quota_exceeded"


@pytest.mark.parametrize(
    ("name", "other"),
    [("/reports", "reports"), ("reports/", "reports"), ("a//b", "a/b"), (" reports", "reports"), ("50%25", "50%")],
)
def test_a_collection_with_an_odd_name_is_shown_and_deleted_and_no_other(tenant, name: str, other: str) -> None:
    for each in (name, other):
        assert tenant.http.post("/v1/rag/collections", json={"name": each}).status_code == 201
    path = f"/v1/rag/collections/{quote(name)}"
    assert tenant.http.get(path).json()["name"] == name
    assert tenant.http.delete(path).json()["name"] == name
    assert [entry["name"] for entry in tenant.http.get("/v1/rag/collections").json()["data"]] == [other]
    assert tenant.http.delete(path).json()["error"]["code"] == "collection_not_found"


def test_the_python_client_counts_sorts_explains_and_follows_all_documents(tenant) -> None:
    with Client(tenant.service.url, tenant.key) as client:
        assert client.collections.create("papers").documents == 0
        for name in ("beta.txt", "alpha.txt"):
            client.documents.upload(f"The text of {name}.".encode(), filename=name, media_type="text/plain")
        assert client.documents.count(media_type="text/plain").ready == 2
        listed = client.documents.list(sort="name", order="asc")
        assert [document.filename for document in listed] == ["alpha.txt", "beta.txt"]
        hit = client.search("text of alpha", explain=True).data[0]
        assert hit.explanation is not None
        assert sum(part.points for part in hit.explanation.parts) == pytest.approx(hit.score, abs=5e-4)
        following = client.documents.follow_all()
        snapshot = next(following)
        assert isinstance(snapshot, DocumentsSnapshotRecord)
        assert snapshot.counts.ready == 2
        tenant.http.patch(f"/v1/rag/documents/{hit.document_id}", json={"metadata": {"year": 2024}})
        changed = next(following)
        assert isinstance(changed, DocumentRecord)
        assert changed.metadata == {"year": 2024}
        tenant.http.delete(f"/v1/rag/documents/{hit.document_id}")
        deletion = next(following)
        assert isinstance(deletion, DocumentDeletionRecord)
        assert deletion.id == hit.document_id
        following.close()


def test_the_python_client_raises_when_the_stream_of_events_ends(new_tenant) -> None:
    owner = new_tenant()
    with owner.service.client(owner.service.admin_key) as admin:
        second = admin.post("/v1/keys", json={"tenant": owner.name, "label": "second"}).json()
        with Client(owner.service.url, second["key"]) as client:
            following = client.documents.follow_all()
            assert isinstance(next(following), DocumentsSnapshotRecord)
            assert admin.delete(f"/v1/keys/{second['id']}").status_code in (200, 204)
            owner.add_text("A change wakes the stream.")
            with pytest.raises(ServiceUnreachable, match="the stream of events ended"):
                list(following)


@pytest.mark.parametrize("name", [".", "..", "a/../b", "a/./b", "a\nb", "\x7f"])
def test_a_collection_has_no_name_that_urls_cannot_carry(tenant, name: str) -> None:
    made = tenant.http.post("/v1/rag/collections", json={"name": name})
    assert (made.status_code, made.json()["error"]["param"]) == (400, "name")
    sent = tenant.upload(b"Text.", filename="a.txt", kind="text/plain", collection=name)
    assert (sent.status_code, sent.json()["error"]["param"]) == (400, "collection")
    assert tenant.http.get("/v1/rag/collections").json()["data"] == []
    store = tenant.http.post("/v1/vector_stores", json={"name": name}).json()
    assert store["name"] == name
    (collection,) = tenant.http.get("/v1/rag/collections").json()["data"]
    assert collection["name"] == store["id"]
    assert tenant.http.delete(f"/v1/rag/collections/{store['id']}").status_code == 200


def test_a_revoked_key_ends_the_stream(new_tenant) -> None:
    owner = new_tenant()
    with owner.service.client(owner.service.admin_key) as admin:
        second = admin.post("/v1/keys", json={"tenant": owner.name, "label": "second"}).json()
        with owner.service.client(second["key"]) as client, events_of(client) as events:
            events.wait_for("snapshot")
            assert admin.delete(f"/v1/keys/{second['id']}").status_code in (200, 204)
            secret = owner.add_text("Not for the former key.")
            assert events.ended.wait(timeout=20)
            assert secret not in events.ids()


def test_a_changed_key_ends_the_stream(new_tenant) -> None:
    owner = new_tenant()
    with owner.service.client(owner.service.admin_key) as admin:
        second = admin.post("/v1/keys", json={"tenant": owner.name, "label": "second"}).json()
        with owner.service.client(second["key"]) as client, events_of(client) as events:
            events.wait_for("snapshot")
            changed = admin.patch(f"/v1/keys/{second['id']}", json={"allowed_collections": ["open"]})
            assert changed.status_code == 200, changed.text
            secret = owner.add_text("Not for the narrowed key.", collection="closed")
            assert events.ended.wait(timeout=20)
            assert secret not in events.ids()


def test_a_sign_out_ends_the_stream(new_tenant) -> None:
    owner = new_tenant()
    with httpx.Client(base_url=owner.service.url, timeout=60) as client:
        opened = client.post("/v1/session", json={"key": owner.key}).json()
        with events_of(client) as events:
            events.wait_for("snapshot")
            headers = {"x-csrf-token": opened["csrf_token"], "origin": owner.service.url}
            assert client.delete("/v1/session", headers=headers).status_code == 200
            secret = owner.add_text("Not for who has signed out.")
            assert events.ended.wait(timeout=20)
            assert secret not in events.ids()
