"""Feedback on answers: stored, replaced, listed, isolated, deleted, and exported as a questions file."""

from __future__ import annotations

import csv
import io
import json
import tarfile

import pytest

from ragsvc.evaluation.questions import read_questions
from tests.conftest import NO_LIMITS

TEXT = "The pump uses 40 litres of water per hour. The lamp uses two watts."


def ask(tenant, question: str) -> dict:
    body = {"model": "local/chat-model", "input": question, "use_rag": True}
    return tenant.http.post("/v1/responses", json=body).json()


def rate(tenant, rating: str = "up", **fields: object) -> dict:
    body = {"question": "How much water?", "answer": "40 litres [1]", "rating": rating, **fields}
    reply = tenant.http.post("/v1/rag/feedback", json=body)
    assert reply.status_code == 201, reply.text
    return reply.json()


def test_feedback_on_a_cited_answer_becomes_a_question_with_its_place(tenant, tmp_path):
    document_id = tenant.add_text(TEXT)
    question = "How much water does the pump use?"
    response = ask(tenant, question)
    (part,) = response["output"][-1]["content"]
    (citation,) = part["annotations"]
    assert citation["document_id"] == document_id
    places = [{name: citation[name] for name in ("document_id", "page", "quote", "filename", "chunk_id")}]
    made = rate(tenant, question=question, answer=part["text"], citations=places, answer_id=response["id"], note="Good")
    assert (made["rating"], made["note"], made["citations"]) == ("up", "Good", places)
    assert made["id"].startswith("fb_")
    assert tenant.http.get(f"/v1/rag/feedback/{made['id']}").json() == made
    rate(tenant, question="Who painted it?", answer="Not there.", not_in_documents=True)
    rate(tenant, "down", question="What is the lamp's colour?", answer="Two watts [1]", citations=places)
    exported = tenant.http.get("/v1/rag/feedback/questions")
    assert exported.headers["content-type"].startswith("application/x-ndjson")
    path = tmp_path / "questions.jsonl"
    path.write_bytes(exported.content)
    absent, found = [numbered.question for numbered in read_questions(path)]
    assert (absent.question, absent.answerable) == ("Who painted it?", False)
    assert (found.question, found.document, found.pages) == (question, document_id, (1,))
    assert found.excerpts == (citation["quote"],)
    assert found.excerpts[0] in TEXT
    path.write_bytes(tenant.http.get("/v1/rag/feedback/questions", params={"rating": "down"}).content)
    (doubtful,) = [numbered.question for numbered in read_questions(path)]
    assert (doubtful.question, doubtful.document, doubtful.answerable) == ("What is the lamp's colour?", None, True)
    path.write_bytes(tenant.http.get("/v1/rag/feedback/questions", params={"rating": "all"}).content)
    assert len(read_questions(path)) == 3


def test_feedback_is_exported_as_a_table_that_spreadsheets_read(tenant):
    place = {"document_id": "doc_1", "filename": "Pläne.pdf", "page": 3}
    rate(tenant, "down", question="Wie viel, ungefähr?", answer='Etwa "40"\nLiter', note="=1+1", citations=[place])
    rate(tenant, question="How much?")
    reply = tenant.http.get("/v1/rag/feedback/table")
    assert reply.headers["content-type"] == "text/csv; header=present; charset=utf-8"
    assert reply.headers["content-disposition"] == 'attachment; filename="ratings.csv"'
    assert reply.content.startswith(b"\xef\xbb\xbf"), "without the mark, Excel shows umlauts wrong"
    good, bad = csv.DictReader(io.StringIO(reply.content.decode("utf-8-sig"), newline=""))
    assert (good["rating"], good["question"], good["note"], good["sources"]) == ("up", "How much?", "", "")
    assert (bad["rating"], bad["question"], bad["sources"]) == ("down", "Wie viel, ungefähr?", "Pläne.pdf, page 3")
    assert (bad["answer"], bad["note"]) == ('Etwa "40"\nLiter', "'=1+1"), "no cell is run as a formula"
    only = tenant.http.get("/v1/rag/feedback/table", params={"rating": "down"}).text
    assert ("How much?" in only, "Wie viel" in only) == (False, True)


def test_a_second_rating_of_an_answer_replaces_the_first(tenant):
    first = rate(tenant, answer_id="resp_1")
    second = rate(tenant, "down", answer_id="resp_1", note="Wrong year")
    assert second["id"] == first["id"]
    listed = tenant.http.get("/v1/rag/feedback").json()
    assert [entry["rating"] for entry in listed["data"]] == ["down"]
    rate(tenant)
    rate(tenant)
    assert len(tenant.http.get("/v1/rag/feedback").json()["data"]) == 3


def test_feedback_is_listed_newest_first_page_by_page(tenant):
    made = [rate(tenant, "up" if number % 2 else "down", note=str(number))["id"] for number in range(5)]
    page = tenant.http.get("/v1/rag/feedback", params={"limit": 2}).json()
    assert [entry["id"] for entry in page["data"]] == made[:2:-1]
    assert (page["has_more"], page["last_id"]) == (True, made[3])
    rest = tenant.http.get("/v1/rag/feedback", params={"after": page["last_id"]}).json()
    assert [entry["id"] for entry in rest["data"]] == made[2::-1]
    assert rest["has_more"] is False
    up = tenant.http.get("/v1/rag/feedback", params={"rating": "up"}).json()["data"]
    assert [entry["id"] for entry in up] == [made[3], made[1]]
    assert tenant.http.get("/v1/rag/feedback", params={"after": "fb_none"}).status_code == 404


@pytest.mark.parametrize(
    ("change", "param"),
    [
        ({"rating": "maybe"}, "rating"),
        ({"question": "  "}, "question"),
        ({"citations": [{"page": 1}]}, "citations[0].document_id"),
        ({"citations": [{"document_id": "doc_1", "page": 0}]}, "citations[0].page"),
        ({"score": 5}, "score"),
    ],
)
def test_malformed_feedback_is_refused_by_field(tenant, change, param):
    body = {"question": "How much?", "answer": "40", "rating": "up", **change}
    reply = tenant.http.post("/v1/rag/feedback", json=body)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, param)
    assert tenant.http.get("/v1/rag/feedback").json()["data"] == []


def test_feedback_of_other_keys_and_tenants_does_not_exist(service, new_tenant):
    mine, other = new_tenant(), new_tenant()
    made = rate(mine)
    with service.client(service.admin_key) as admin:
        colleague = admin.post("/v1/keys", json={"tenant": mine.name, "label": "colleague", **NO_LIMITS}).json()["key"]
        manager = admin.post(
            "/v1/keys",
            json={"tenant": mine.name, "label": "manager", "scopes": ["chat", "tenant.admin"], **NO_LIMITS},
        ).json()["key"]
    with service.client(colleague) as client:
        assert client.get("/v1/rag/feedback").json()["data"] == []
        assert client.get(f"/v1/rag/feedback/{made['id']}").status_code == 404
        assert client.get("/v1/rag/feedback", params={"of": "tenant"}).status_code == 403
        assert client.get("/v1/rag/feedback/questions", params={"of": "tenant"}).status_code == 403
        assert client.get("/v1/rag/feedback/table", params={"of": "tenant"}).status_code == 403
        assert client.delete(f"/v1/rag/feedback/{made['id']}").status_code == 404
    assert other.http.get(f"/v1/rag/feedback/{made['id']}").json()["error"]["code"] == "feedback_not_found"
    assert other.http.delete(f"/v1/rag/feedback/{made['id']}").status_code == 404
    with service.client(manager) as client:
        listed = client.get("/v1/rag/feedback", params={"of": "tenant"}).json()["data"]
        assert [entry["id"] for entry in listed] == [made["id"]]
        assert client.get("/v1/rag/feedback").json()["data"] == []
        assert client.delete(f"/v1/rag/feedback/{made['id']}").json() == {
            "id": made["id"],
            "object": "feedback.deleted",
            "deleted": True,
        }
    assert mine.http.get("/v1/rag/feedback").json()["data"] == []


def test_an_administrator_that_is_limited_to_a_collection_does_not_see_what_others_quote(service, new_tenant):
    tenant = new_tenant()
    made = rate(tenant, citations=[{"document_id": "doc_1", "quote": "The secret of another collection."}])
    with service.client(service.admin_key) as admin:
        fields = {"label": "manager", "scopes": ["chat", "tenant.admin"], "allowed_collections": ["one"]}
        key = admin.post("/v1/keys", json={"tenant": tenant.name, **fields, **NO_LIMITS}).json()["key"]
    with service.client(key) as client:
        for path in ("/v1/rag/feedback", "/v1/rag/feedback/questions"):
            reply = client.get(path, params={"of": "tenant"})
            assert (reply.status_code, reply.json()["error"]["param"]) == (403, "of")
        assert client.get(f"/v1/rag/feedback/{made['id']}").status_code == 404
        assert client.delete(f"/v1/rag/feedback/{made['id']}").status_code == 404
    assert tenant.http.get(f"/v1/rag/feedback/{made['id']}").status_code == 200


def test_feedback_is_exported_and_deleted_with_its_tenant(service, new_tenant):
    tenant = new_tenant()
    made = rate(tenant, note="Right")
    with service.client(service.admin_key) as admin:
        for key in admin.get("/v1/keys", params={"tenant": tenant.name}).json()["data"]:
            admin.delete(f"/v1/keys/{key['id']}")
        assert tenant.name in [entry["name"] for entry in admin.get("/v1/tenants").json()["data"]]
        exported = admin.get(f"/v1/tenants/{tenant.name}/export")
        with tarfile.open(fileobj=io.BytesIO(exported.content)) as archive:
            member = archive.extractfile(f"feedback/{made['id']}.json")
            assert member is not None
            assert json.load(member)["note"] == "Right"
        removed = admin.delete(f"/v1/tenants/{tenant.name}").json()["removed"]
        assert removed["feedback"] == 1
        assert admin.get(f"/v1/tenants/{tenant.name}").status_code == 404
