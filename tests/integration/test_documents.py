"""Documents over HTTP against the real service: uploads in every form, invalid input, listings, renames, deletion."""

from __future__ import annotations

import json
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from ragsvc.testing import pdf_builder
from ragsvc.testing.sample_pdfs import text_pdf
from tests.support.command import at_service, ragsvc
from tests.support.file_places import StoredFiles

pytestmark = pytest.mark.model

REPORT = text_pdf(
    [
        ["Annual report of the Harbour Company.", "The harbour handled 4,711 containers in 2023."],
        ["Outlook.", "The company expects 5,000 containers in 2024."],
    ]
)


def error_of(reply: httpx.Response) -> dict:
    error = reply.json()["error"]
    assert {"message", "type", "param", "code", "request_id"} <= set(error)
    assert reply.headers["x-request-id"] == error["request_id"]
    return error


def test_a_raw_pdf_becomes_ready_and_is_found_on_its_page(tenant) -> None:
    reply = tenant.upload(REPORT, filename="harbour.pdf")
    assert reply.status_code == 201
    document = reply.json()
    assert reply.headers["location"] == f"/v1/rag/documents/{document['id']}"
    assert (document["object"], document["status"], document["stage"], document["progress"]) == (
        "document",
        "ready",
        "ready",
        1.0,
    )
    assert (document["pages"], document["bytes"]) == (2, len(REPORT))
    assert document["sha256"] == sha256(REPORT).hexdigest()
    hit = tenant.search("How many containers does the company expect?")[0]
    assert (hit["document_id"], hit["filename"], hit["page"]) == (document["id"], "harbour.pdf", 2)
    page = tenant.http.get(f"/v1/rag/documents/{document['id']}/pages/{hit['page']}").json()
    assert page["text"][hit["start"] : hit["end"]] == hit["quote"]
    assert "5,000 containers" in hit["quote"]


def test_the_same_bytes_again_are_the_same_document(tenant) -> None:
    first = tenant.upload(REPORT)
    again = tenant.upload(REPORT, filename="other name.pdf")
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json()["id"] == first.json()["id"]
    assert (first.json()["created"], first.json()["updated"]) == (True, [])
    assert (again.json()["created"], again.json()["updated"]) == (False, ["filename"])
    elsewhere = tenant.upload(REPORT, collection="second")
    assert elsewhere.status_code == 201
    assert elsewhere.json()["id"] != first.json()["id"]


def test_the_last_name_and_metadata_given_win(tenant) -> None:
    first = tenant.upload(REPORT, filename="scan0001.pdf", metadata=json.dumps({"year": 2022, "kind": "report"})).json()
    again = tenant.upload(REPORT, filename="Zwiebelfisch.pdf", metadata=json.dumps({"year": 2023}))
    document = again.json()
    assert (again.status_code, document["id"], document["updated"]) == (200, first["id"], ["filename", "metadata"])
    assert (document["filename"], document["metadata"]) == ("Zwiebelfisch.pdf", {"year": 2023, "kind": "report"})
    assert [hit["filename"] for hit in tenant.search("Zwiebelfisch", mode="lexical")] == ["Zwiebelfisch.pdf"] * 2
    assert tenant.search("scan0001", mode="lexical") == []
    assert tenant.search("containers", filters={"type": "eq", "key": "year", "value": 2023})
    assert tenant.search("containers", filters={"type": "eq", "key": "year", "value": 2022}) == []
    unnamed = tenant.http.post("/v1/rag/documents", content=REPORT, headers={"content-type": "application/pdf"})
    same = tenant.upload(REPORT, filename="Zwiebelfisch.pdf", metadata=json.dumps({"year": 2023}))
    for reply in (unnamed, same):
        assert (reply.status_code, reply.json()["updated"]) == (200, [])
        assert (reply.json()["filename"], reply.json()["metadata"]["year"]) == ("Zwiebelfisch.pdf", 2023)
    refused = tenant.upload(REPORT, filename="x.pdf", metadata=json.dumps({f"key{n}": n for n in range(64)}))
    assert (refused.status_code, error_of(refused)["param"]) == (400, "metadata")  # 66 keys when merged


def test_many_uploads_of_the_same_bytes_with_names_leave_one_of_the_names(tenant) -> None:
    names = [f"Bericht {number}.pdf" for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda name: tenant.upload(REPORT, filename=name, wait_s=30), names))
    assert {reply.status_code for reply in replies} <= {200, 201}
    (listed,) = tenant.http.get("/v1/rag/documents").json()["data"]
    assert listed["filename"] in names
    word = listed["filename"].removesuffix(".pdf").split()[-1]
    found = tenant.search(f"Bericht {word}", mode="lexical")
    assert {hit["filename"] for hit in found} == {listed["filename"]}


def test_a_document_without_a_name_is_called_by_its_title(tenant) -> None:
    pdf = pdf_builder.make_pdf([pdf_builder.lines(["The tariffs of 2024."])], title="Tariffs of the harbour")
    reply = tenant.http.post("/v1/rag/documents", content=pdf, headers={"content-type": "application/pdf"})
    assert (reply.status_code, reply.json()["filename"]) == (201, "Tariffs of the harbour.pdf")
    assert tenant.search("harbour tariffs")[0]["filename"] == "Tariffs of the harbour.pdf"
    located = tenant.http.post(
        "/v1/rag/documents",
        content=b"A text about nothing.",
        headers={"content-type": "text/plain", "content-location": "https://example.org/a/Mein%20Text.txt?v=2"},
    )
    assert located.json()["filename"] == "Mein Text.txt"
    queried = tenant.upload(b"Another text.", kind="text/plain", filename="https://example.org/b/Bericht%207.txt")
    assert queried.json()["filename"] == "Bericht 7.txt"


def test_many_uploads_of_the_same_bytes_at_once_make_one_document(tenant) -> None:
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda _: tenant.upload(REPORT, wait_s=30), range(8)))
    assert {reply.status_code for reply in replies} <= {200, 201}
    assert len({reply.json()["id"] for reply in replies}) == 1
    assert len(tenant.http.get("/v1/rag/documents").json()["data"]) == 1


def test_a_form_carries_name_metadata_and_collection(tenant) -> None:
    reply = tenant.http.post(
        "/v1/rag/documents",
        files={"file": ("Отчёт über 年報.pdf", REPORT, "application/pdf")},
        data={"metadata": json.dumps({"year": 2023, "public": True}), "collection": "reports"},
    )
    assert reply.status_code == 201
    document = reply.json()
    assert document["filename"] == "Отчёт über 年報.pdf"
    assert document["metadata"] == {"year": 2023, "public": True}
    assert document["collection"] == "reports"
    content = tenant.http.get(f"/v1/rag/documents/{document['id']}/content")
    assert content.content == REPORT
    assert content.headers["content-type"] == "application/pdf"
    assert quote("Отчёт über 年報.pdf", safe="") in content.headers["content-disposition"]


@pytest.mark.parametrize(
    ("disposition", "expected"),
    [
        ('attachment; filename="plain.pdf"', "plain.pdf"),
        ("attachment; filename*=UTF-8''%E5%B9%B4%E5%A0%B1.pdf", "年報.pdf"),
        ('attachment; filename="../../etc/passwd.pdf"', "passwd.pdf"),
        ("attachment; filename=\"plain.pdf\"; filename*=UTF-8''%E5%B9%B4%E5%A0%B1.pdf", "年報.pdf"),
        ("attachment; filename*=UTF-8''%E5%B9%B4%E5%A0%B1.pdf; filename=\"plain.pdf\"", "年報.pdf"),
        ("attachment; filename*=iso-8859-1'en'na%EFve.pdf", "naïve.pdf"),
        ("attachment; filename*=no-such-charset''%FF.pdf; filename=plain.pdf", "plain.pdf"),
        ("attachment; filename*=UTF-8''%FF.pdf; filename=plain.pdf", "plain.pdf"),
        ('attachment; name="x; filename*=UTF-8\'\'wrong.pdf"; filename="right.pdf"', "right.pdf"),
        ('attachment; xfilename="wrong.pdf"; filename="right.pdf"', "right.pdf"),
        ('attachment; filename="a \\"quoted\\" name.pdf"', 'a "quoted" name.pdf'),
        ('attachment; filename="50%2F50.pdf"', "50%2F50.pdf"),
        ("attachment; filename=Straße.pdf".encode(), "Straße.pdf"),
        ("attachment", "document.pdf"),
    ],
)
def test_the_name_comes_from_content_disposition(tenant, disposition: str, expected: str) -> None:
    reply = tenant.http.post(
        "/v1/rag/documents",
        params={"wait_s": 0},
        content=REPORT,
        headers={"content-type": "application/pdf", "content-disposition": disposition},
    )
    assert reply.json()["filename"] == expected


@pytest.mark.parametrize(
    ("parameters", "expected"),
    [
        ('filename="plain.pdf"', "plain.pdf"),
        ('filename="Straße.pdf"', "Straße.pdf"),
        ("filename*=UTF-8''%E5%B9%B4%E5%A0%B1.pdf", "年報.pdf"),
        ("filename=\"plain.pdf\"; filename*=UTF-8''%E5%B9%B4%E5%A0%B1.pdf", "年報.pdf"),
        ("filename*=UTF-8''%E5%B9%B4%E5%A0%B1.pdf; filename=\"plain.pdf\"", "年報.pdf"),
        ('filename="C:\\\\reports\\\\Q3.pdf"', "Q3.pdf"),
        ('filename="the %22final%22 draft.pdf"', 'the "final" draft.pdf'),
        ('filename="a \\"quoted\\" name.pdf"', 'a "quoted" name.pdf'),
        ('filename="=?UTF-8?Q?Stra=C3=9Fe.pdf?="', "Straße.pdf"),
        ('filename="Jahresbericht%202023.pdf"', "Jahresbericht 2023.pdf"),
        (b'filename="Stra\xdfe.pdf"', "Straße.pdf"),
    ],
)
def test_a_forms_file_name_is_read_like_that_of_a_raw_body(tenant, parameters: str | bytes, expected: str) -> None:
    given = parameters if isinstance(parameters, bytes) else parameters.encode()
    head = b'--b\r\nContent-Disposition: form-data; name="file"; %b\r\nContent-Type: application/pdf\r\n\r\n' % given
    reply = tenant.http.post(
        "/v1/rag/documents?wait_s=0",
        content=head + REPORT + b"\r\n--b--\r\n",
        headers={"content-type": "multipart/form-data; boundary=b"},
    )
    assert reply.json()["filename"] == expected


@pytest.mark.parametrize("length", [4_200, 60_000])
@pytest.mark.parametrize("form", [False, True], ids=["raw", "form"])
def test_a_long_content_disposition_is_refused_at_once(tenant, length: int, form: bool) -> None:
    disposition = 'form-data; name="file"; filename="' + ";" * length
    begin = time.perf_counter()
    if form:
        body = f"--b\r\nContent-Disposition: {disposition}\r\n\r\nx\r\n--b--\r\n"
        headers = {"content-type": "multipart/form-data; boundary=b"}
    else:
        body = "x"
        headers = {"content-type": "text/plain", "content-disposition": disposition}
    reply = tenant.http.post("/v1/rag/documents?wait_s=0", content=body, headers=headers)
    assert time.perf_counter() - begin < 1
    error = reply.json()["error"]
    assert (reply.status_code, error["code"], error["param"]) == (400, "invalid_request", "Content-Disposition")
    assert "'Content-Disposition'" in error["message"]
    assert error["message"].endswith(" is longer than 4,096 bytes.")


def test_respond_async_answers_at_once_and_events_follow_to_ready(tenant) -> None:
    reply = tenant.http.post(
        "/v1/rag/documents",
        content=REPORT,
        headers={"content-type": "application/pdf", "prefer": "respond-async"},
    )
    assert reply.status_code == 202
    assert reply.headers["preference-applied"] == "respond-async"
    document_id = reply.json()["id"]
    names = []
    with tenant.http.stream("GET", f"/v1/rag/documents/{document_id}/events") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("event: "):
                names.append(line.removeprefix("event: "))
            elif line.startswith("data: "):
                last = json.loads(line.removeprefix("data: "))
    assert names[-1] == "ready"
    assert set(names[:-1]) <= {"progress"}
    assert last["status"] == "ready"


def test_events_are_written_with_one_name_and_one_data_line(tenant) -> None:
    document_id = tenant.add_text("A line about nothing.")
    reply = tenant.http.get(f"/v1/rag/documents/{document_id}/events")
    document = tenant.http.get(f"/v1/rag/documents/{document_id}").content
    assert reply.content == b"event: ready\ndata: " + document + b"\n\n"
    assert reply.headers.get_list("cache-control") == ["no-store"]
    assert reply.headers["x-accel-buffering"] == "no"


def test_text_and_markdown_are_read(tenant) -> None:
    text = tenant.upload("Die Straße heißt Müllerweg.".encode(), filename="a.txt", kind="text/plain; charset=utf-8")
    markdown = tenant.upload(b"# Rules\n\nNo smoking in the **turbine hall**.", filename="b.md", kind="text/markdown")
    assert (text.status_code, markdown.status_code) == (201, 201)
    assert tenant.search("Wie heißt die Straße?")[0]["document_id"] == text.json()["id"]
    hit = tenant.search("Where is smoking forbidden?")[0]
    assert hit["document_id"] == markdown.json()["id"]
    assert "**turbine hall**" in hit["quote"]


def test_the_charset_of_an_upload_and_of_a_form_part_is_used(tenant) -> None:
    text = "Плата за лодку составляет 640 рублей в месяц."
    raw = tenant.upload(text.encode("koi8-r"), filename="a.txt", kind='text/plain; charset="KOI8-R"')
    form = tenant.http.post(
        "/v1/rag/documents",
        files={"file": ("b.txt", text.encode("cp1251"), "text/plain; charset=windows-1251")},
        params={"wait_s": 60},
    )
    for reply in (raw, form):
        document = tenant.http.get(f"/v1/rag/documents/{reply.json()['id']}").json()
        assert document["status"] == "ready"
        page = tenant.http.get(f"/v1/rag/documents/{document['id']}/pages/1").json()
        assert page["text"] == text
    content = tenant.http.get(f"/v1/rag/documents/{raw.json()['id']}/content")
    assert content.headers["content-type"] == "text/plain; charset=koi8-r"
    assert content.text == text


def test_a_scanned_page_is_found_and_cited_with_its_page(tenant, tmp_path) -> None:
    original = tmp_path / "original.pdf"
    words = ["The lighthouse of Norderney was lit in 1874.", "Its lamp is seen from 23 nautical miles away."]
    original.write_bytes(pdf_builder.make_pdf([pdf_builder.lines(words, x=20, top=60)], size=(300, 90)))
    typed = pdf_builder.lines(["This page says nothing about towers.", "It lists the ferries of 1999."], x=20, top=60)
    reply = tenant.upload(pdf_builder.make_scan(original, 1, then=[typed]), filename="lighthouse.pdf")
    assert reply.status_code == 201, reply.text
    document = reply.json()
    assert [(problem["code"], problem["first_page"], problem["last_page"]) for problem in document["problems"]] == [
        ("ocr_used", 1, 1)
    ]
    assert "recognised" in document["problems"][0]["message"]
    question = "How far away is the lamp of the lighthouse seen?"
    hit = tenant.search(question)[0]
    assert (hit["document_id"], hit["page"]) == (document["id"], 1)
    assert "23 nautical miles" in hit["quote"]
    body = {
        "model": "local/chat-model",
        "use_rag": True,
        "messages": [{"role": "user", "content": question}],
    }
    answer = tenant.http.post("/v1/chat/completions", json=body).json()
    assert "23 nautical miles" in answer["choices"][0]["message"]["content"]
    assert answer["citations"][0]["page"] == 1


@pytest.mark.parametrize(
    ("content", "kind", "code"),
    [
        (b"", "application/pdf", "empty_file"),
        (b"", "text/plain", "empty_file"),
        (b"this is no PDF at all", "application/pdf", "not_a_pdf"),
        (b"%PDF-1.7\n" + bytes(range(256)) * 40, "application/pdf", "damaged"),
        (text_pdf([[]]), "application/pdf", "no_text"),
        (b"\x89PNG\r\n\x1a\n" + bytes(2000), "application/pdf", "not_a_pdf"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 8, "text/plain", "not_text"),
    ],
)
def test_dirty_input_ends_failed_with_a_reason_and_stays_visible(tenant, content: bytes, kind: str, code: str) -> None:
    reply = tenant.upload(content, kind=kind, filename="dirty.bin")
    assert reply.status_code == 422
    error = error_of(reply)
    assert (error["code"], error["type"], error["param"]) == (code, "invalid_request_error", "file")
    document = tenant.http.get(reply.headers["location"]).json()
    assert error["message"] == document["error"]["message"]
    assert (document["status"], document["stage"]) == ("failed", "failed")
    assert document["error"]["code"] == code
    assert document["error"]["message"].strip()
    failed = tenant.http.get("/v1/rag/documents?status=failed").json()["data"]
    assert [listed["id"] for listed in failed] == [document["id"]]
    retried = tenant.http.post(f"/v1/rag/documents/{document['id']}/retry")
    assert retried.status_code == 202
    again = tenant.upload(content, kind=kind, filename="dirty.bin")
    assert (again.status_code, again.headers["location"]) == (422, reply.headers["location"])
    assert tenant.upload(content, kind=kind, filename="dirty.bin", wait_s=0).status_code == 200
    assert tenant.http.delete(f"/v1/rag/documents/{document['id']}").status_code == 200


def test_what_is_not_read_is_refused_by_type(tenant) -> None:
    reply = tenant.upload(b"PK\x03\x04", kind="application/zip", filename="a.zip")
    assert reply.status_code == 415
    assert error_of(reply)["code"] == "unsupported_media_type"
    assert tenant.http.get("/v1/rag/documents").json()["data"] == []


def test_over_the_limit_is_refused_before_the_body_is_sent(service, tenant) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(
            b"POST /v1/rag/documents HTTP/1.1\r\nHost: x\r\nContent-Type: application/pdf\r\n"
            b"Content-Length: 50000001\r\nAuthorization: Bearer " + tenant.key.encode() + b"\r\n\r\n%PDF"
        )
        answer = b"".join(iter(lambda: raw.recv(65536), b""))
    assert answer.startswith(b"HTTP/1.1 413 ")
    assert b'"code":"request_too_large"' in answer


def test_over_the_limit_without_an_announced_length_leaves_nothing_behind(service, tenant) -> None:
    def endless():
        for _ in range(60):
            yield b"x" * 1_000_000

    reply = tenant.http.post("/v1/rag/documents", content=endless(), headers={"content-type": "text/plain"})
    assert reply.status_code == 413
    assert tenant.http.get("/v1/rag/documents").json()["data"] == []
    assert list((service.data_dir / "uploads").iterdir()) == []


def test_a_client_that_hangs_up_leaves_nothing_behind(service, tenant) -> None:
    host, port = service.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=10) as raw:
        raw.sendall(
            b"POST /v1/rag/documents HTTP/1.1\r\nHost: x\r\nContent-Type: application/pdf\r\n"
            b"Content-Length: 5000000\r\nAuthorization: Bearer " + tenant.key.encode() + b"\r\n\r\n%PDF-1.4 half"
        )
        time.sleep(0.2)
    deadline = time.monotonic() + 10
    while list((service.data_dir / "uploads").iterdir()) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert list((service.data_dir / "uploads").iterdir()) == []
    assert tenant.http.get("/v1/rag/documents").json()["data"] == []


@pytest.mark.parametrize(
    ("form", "param"),
    [
        ({"data": {"metadata": "{}"}}, "file"),
        ({"files": {"file": ("a.pdf", REPORT, "application/pdf")}, "data": {"metadata": "[1]"}}, "metadata"),
        (
            {"files": {"file": ("a.pdf", REPORT, "application/pdf")}, "data": {"metadata": '{"a": {"b": 1}}'}},
            "metadata",
        ),
        ({"files": {"file": ("a.pdf", REPORT, "application/pdf")}, "data": {"colour": "red"}}, "colour"),
        ({"content": b"--x\r\nbroken", "headers": {"content-type": "multipart/form-data; boundary=x"}}, "file"),
        ({"content": b"", "headers": {"content-type": "multipart/form-data"}}, "file"),
    ],
)
def test_a_bad_form_is_refused_with_the_field_named(tenant, form: dict, param: str) -> None:
    if "files" not in form and "data" in form:
        form = {"files": {"metadata": (None, form["data"]["metadata"])}}
    reply = tenant.http.post("/v1/rag/documents", **form)
    assert reply.status_code == 400, reply.text
    assert error_of(reply)["param"] == param
    assert tenant.http.get("/v1/rag/documents").json()["data"] == []


def test_a_deleted_document_is_gone_everywhere_and_its_id_stays_unknown(service, tenant) -> None:
    document_id = tenant.add_text("The password of the vault is swordfish-7.")
    assert tenant.search("password of the vault")[0]["document_id"] == document_id
    reply = tenant.http.post(f"/v1/rag/documents/{document_id}/delete")
    assert reply.json() == {"id": document_id, "object": "document.deleted", "deleted": True}
    for mode in ("hybrid", "dense", "lexical"):
        assert tenant.search("password of the vault", mode=mode) == []
    for path in ("", "/content", "/passages", "/pages/1", "/events"):
        gone = tenant.http.get(f"/v1/rag/documents/{document_id}{path}")
        assert (gone.status_code, error_of(gone)["code"]) == (404, "document_not_found")
    assert tenant.http.delete(f"/v1/rag/documents/{document_id}").status_code == 404
    assert StoredFiles(service.data_dir).names(f"blobs/{tenant.name}") == []


def test_a_delete_while_it_is_worked_on_holds(tenant) -> None:
    big = text_pdf([[f"Line {line} of page {page} speaks of nothing." for line in range(50)] for page in range(300)])
    document_id = tenant.upload(big, wait_s=0).json()["id"]
    time.sleep(0.3)
    assert tenant.http.delete(f"/v1/rag/documents/{document_id}").status_code == 200
    assert tenant.http.get("/v1/rag/documents").json()["data"] == []
    assert tenant.search("nothing") == []
    assert tenant.upload(b"Another text follows.", kind="text/plain").status_code == 201


def test_another_tenant_reaches_nothing(new_tenant) -> None:
    one, other = new_tenant(), new_tenant()
    document_id = one.add_text("Only tenant one may know about the blue turbine.")
    assert other.search("blue turbine") == []
    for method, path in [("GET", ""), ("GET", "/content"), ("DELETE", ""), ("POST", "/retry"), ("GET", "/passages")]:
        reply = other.http.request(method, f"/v1/rag/documents/{document_id}{path}")
        assert reply.status_code == 404
    refused = other.http.post("/v1/rag/search", json={"query": "blue turbine", "document_ids": [document_id]})
    assert refused.status_code == 404
    assert other.http.get("/v1/rag/documents").json()["data"] == []


def test_passages_page_through_by_the_last_id(tenant) -> None:
    text = "\n\n".join(
        f"Chapter {number}. " + f"The turbine number {number} turns slowly. " * 40 for number in range(6)
    )
    document_id = tenant.add_text(text)
    path = f"/v1/rag/documents/{document_id}/passages"
    whole = tenant.http.get(path, params={"limit": 100}).json()["data"]
    assert len(whole) > 5
    seen, cursor = [], {}
    while True:
        page = tenant.http.get(path, params={"limit": 2, **cursor}).json()
        seen += page["data"]
        if not page["has_more"]:
            break
        cursor = {"after": page["last_id"]}
    assert seen == whole
    other = tenant.add_text("A text of its own.")
    for unknown in (
        "chunk_999999999999",
        f"{whole[0]['id'].rpartition('_')[0]}_99999",
        tenant.http.get(f"/v1/rag/documents/{other}/passages").json()["last_id"],
        "3",
    ):
        refused = tenant.http.get(path, params={"after": unknown})
        assert (refused.status_code, error_of(refused)["param"]) == (400, "after")


def test_listing_pages_through_and_filters(tenant) -> None:
    ids = [
        tenant.add_text(f"Text number {number}.", filename=f"Bericht {number}.txt", metadata=json.dumps({"n": number}))
        for number in range(5)
    ]
    first = tenant.http.get("/v1/rag/documents", params={"limit": 2}).json()
    assert [listed["id"] for listed in first["data"]] == ids[:2:-1]
    assert (first["object"], first["has_more"], first["last_id"]) == ("list", True, ids[3])
    rest = tenant.http.get("/v1/rag/documents", params={"limit": 10, "after": first["last_id"]}).json()
    assert [listed["id"] for listed in rest["data"]] == ids[2::-1]
    assert not rest["has_more"]
    named = tenant.http.get("/v1/rag/documents", params={"name": "bericht 3"}).json()
    assert [listed["id"] for listed in named["data"]] == [ids[3]]
    condition = json.dumps({"type": "gte", "key": "n", "value": 3})
    filtered = tenant.http.get("/v1/rag/documents", params={"filters": condition, "order": "asc"}).json()
    assert [listed["id"] for listed in filtered["data"]] == ids[3:]
    for bad in ({"limit": 0}, {"limit": 101}, {"order": "up"}, {"status": "lost"}, {"filters": "{"}):
        reply = tenant.http.get("/v1/rag/documents", params=bad)
        assert reply.status_code == 400
        assert error_of(reply)["param"] == next(iter(bad))
    assert tenant.http.get("/v1/rag/documents", params={"after": "doc_nothing"}).status_code == 404
    assert tenant.http.get("/v1/rag/documents", params={"collection": "none"}).status_code == 404


def test_name_and_metadata_can_change(tenant) -> None:
    document_id = tenant.add_text("Something.", metadata='{"a": 1, "b": 2}')
    reply = tenant.http.patch(
        f"/v1/rag/documents/{document_id}", json={"filename": "new.txt", "metadata": {"b": None, "c": "x"}}
    )
    assert reply.status_code == 200
    assert (reply.json()["filename"], reply.json()["metadata"]) == ("new.txt", {"a": 1, "c": "x"})
    refused = tenant.http.patch(f"/v1/rag/documents/{document_id}", json={"status": "ready"})
    assert refused.status_code == 400
    ready = tenant.http.post(f"/v1/rag/documents/{document_id}/retry")
    assert (ready.status_code, error_of(ready)["code"]) == (409, "conflict")


def test_a_renamed_document_is_found_by_its_new_name_and_not_by_the_former_one(tenant) -> None:
    text = "Two taps and a boiler were replaced, payable within thirty days."
    tenant.add_text("A hundred chairs were delivered, payable within ten days.", filename="scan0001.txt")
    document_id = tenant.add_text(text, filename="scan0002.txt")
    uploaded_so = tenant.add_text(text + "\n", filename="Invoice Kessler Plumbing.txt", collection="named")
    query = "Kessler Plumbing"

    def best(mode: str, query: str = query, **options: object) -> dict | None:
        return next(iter(tenant.search(query, mode=mode, **options)), None)

    before = best("dense", document_ids=[document_id])["score"]
    reply = tenant.http.patch(f"/v1/rag/documents/{document_id}", json={"filename": "Invoice Kessler Plumbing.txt"})
    assert (reply.status_code, reply.json()["status"]) == (200, "ready")
    found = best("lexical")
    assert (found["document_id"], found["filename"]) == (document_id, "Invoice Kessler Plumbing.txt")
    assert best("lexical", "scan0002") is None

    expected = best("dense", collection="named")
    assert expected["document_id"] == uploaded_so
    deadline = time.monotonic() + 30
    while (now := best("dense", document_ids=[document_id])["score"]) == before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert now == pytest.approx(expected["score"], abs=1e-3)
    assert now > before + 0.05
    assert best("hybrid")["document_id"] == document_id


def test_search_restricts_before_it_ranks(tenant) -> None:
    wanted = tenant.add_text("The copper price rose.", filename="one.txt", metadata='{"year": 2022}')
    other = tenant.add_text(
        "The copper price rose, copper copper copper.", filename="two.txt", metadata='{"year": 2023}'
    )
    everywhere = {hit["document_id"] for hit in tenant.search("copper price")}
    assert everywhere == {wanted, other}
    by_id = tenant.search("copper price", document_ids=[wanted], top_k=1)
    by_year = tenant.search("copper price", filters={"type": "eq", "key": "year", "value": 2022}, top_k=1)
    assert [hit["document_id"] for hit in by_id] == [hit["document_id"] for hit in by_year] == [wanted]
    nowhere = tenant.search("copper price", filters={"type": "eq", "key": "year", "value": 1900})
    assert nowhere == []
    for hit in tenant.search("copper price"):
        assert 0 <= hit["score"] <= 1
        assert set(hit["scores"]) == {"dense", "lexical"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({}, "query"),
        ({"query": ""}, "query"),
        ({"query": "   "}, "query"),
        ({"query": "x", "top_k": 0}, "top_k"),
        ({"query": "x", "mode": "magic"}, "mode"),
        ({"query": "x", "filters": {"type": "like"}}, "filters"),
        ({"query": "x", "colour": 1}, "colour"),
        ({"query": "x", "rerank": True}, "rerank"),
    ],
)
def test_a_bad_search_is_refused_with_the_field_named(tenant, body: dict, param: str) -> None:
    reply = tenant.http.post("/v1/rag/search", json=body)
    assert reply.status_code == 400
    assert error_of(reply)["param"] == param


def test_a_collection_name_that_uploads_accept_is_accepted_everywhere(tenant, tmp_path: Path) -> None:
    for length in (300, 512):
        name = "é" * length
        text = f"The lighthouse of part {length} was built in 1868."
        document_id = tenant.add_text(text, filename="light.txt", collection=name)
        assert tenant.search("When was the lighthouse built?", collection=name)[0]["document_id"] == document_id
        listed = tenant.http.get("/v1/rag/documents", params={"collection": name}).json()["data"]
        assert [(document["id"], document["collection"]) for document in listed] == [(document_id, name)]
        question = {"role": "user", "content": "When was the lighthouse built?"}
        chat = {"model": "local/chat-model", "messages": [question], "rag": {"collection": name}}
        answer = tenant.http.post("/v1/chat/completions", json=chat)
        assert answer.status_code == 200, answer.text
        assert "1868" in answer.json()["choices"][0]["message"]["content"]
        questions = tmp_path / f"{length}.jsonl"
        line = {"question": "When was the lighthouse built?", "document": "light.txt", "excerpts": [text]}
        questions.write_text(json.dumps(line) + "\n")
        env = at_service(tenant.service.url, tenant.key)
        evaluated = ragsvc("evaluate", questions, "--collection", name, "--mode", "hybrid", "--json", env=env)
        assert evaluated.code == 0, evaluated.err
        assert evaluated.json["settings"][0]["measures"]["hit@1"]["value"] == 1.0


def test_a_longer_collection_name_is_refused_alike_everywhere(tenant) -> None:
    name = "n" * 513
    chat = {"model": "local/chat-model", "messages": [{"role": "user", "content": "x"}], "rag": {"collection": name}}
    replies = [
        ("collection", tenant.upload(b"x", kind="text/plain", collection=name)),
        ("rag.collection", tenant.http.post("/v1/chat/completions", json=chat)),
        ("collection", tenant.http.post("/v1/rag/search", json={"query": "x", "collection": name})),
        ("collection", tenant.http.get("/v1/rag/documents", params={"collection": name})),
    ]
    for param, reply in replies:
        assert (reply.status_code, error_of(reply)["param"]) == (400, param)
        assert error_of(reply)["message"] == f"'{param}': expected `str` of length <= 512."


@pytest.mark.parametrize(
    "query",
    ['"unclosed', "AND OR NOT", "a:b^2~3", "(((", "\\", "*", "年報 отчёт", "x" * 20_000, "?" * 500, "'; DROP TABLE"],
)
def test_any_text_is_a_legal_query(tenant, query: str) -> None:
    tenant.add_text("A line about nothing.")
    for mode in ("hybrid", "dense", "lexical"):
        assert tenant.http.post("/v1/rag/search", json={"query": query, "mode": mode}).status_code == 200


def test_ingest_of_a_large_document_does_not_stall_a_small_one(tenant) -> None:
    big = text_pdf([[f"Row {line} on page {page}: value {line * page}." for line in range(50)] for page in range(400)])
    big_id = tenant.upload(big, wait_s=0).json()["id"]
    small = tenant.upload(b"A small text comes quickly.", kind="text/plain", wait_s=60)
    assert small.status_code == 201
    status = tenant.http.get(f"/v1/rag/documents/{big_id}").json()
    assert status["status"] in ("queued", "processing")
    assert tenant.http.delete(f"/v1/rag/documents/{big_id}").status_code == 200


def test_deletes_and_searches_at_the_same_time_never_show_a_ghost(tenant) -> None:
    ids = [tenant.add_text(f"The falcon number {number} flies over the harbour.") for number in range(12)]
    deleted: set[str] = set()
    ghosts: list[str] = []
    done = threading.Event()

    def look() -> None:
        with tenant.service.client(tenant.key) as client:
            while not done.is_set():
                gone = set(deleted)
                reply = client.post("/v1/rag/search", json={"query": "falcon over the harbour", "top_k": 20})
                ghosts.extend(hit["document_id"] for hit in reply.json()["data"] if hit["document_id"] in gone)

    watcher = threading.Thread(target=look)
    watcher.start()
    for document_id in ids:
        assert tenant.http.delete(f"/v1/rag/documents/{document_id}").status_code == 200
        deleted.add(document_id)
    done.set()
    watcher.join(30)
    assert ghosts == []


def test_a_document_may_be_larger_than_other_bodies(tenant) -> None:
    large = REPORT + b"\n%" + b"x" * 33_000_000
    assert tenant.upload(large, wait_s=0).status_code == 202
    form = tenant.http.post("/v1/rag/documents?wait_s=0", files={"file": ("again.pdf", large, "application/pdf")})
    assert form.status_code == 200
    assert tenant.http.post("/v1/rag/search", content=large).status_code == 413


def test_an_upload_with_an_idempotency_key_is_repeated_without_an_effect(tenant) -> None:
    def upload(text: str, *, name: str = "a.txt", key: str = "k-1") -> httpx.Response:
        headers = {"content-type": "text/plain", "idempotency-key": key}
        return tenant.http.post("/v1/rag/documents", params={"filename": name}, content=text.encode(), headers=headers)

    first = upload("The harbour is blue.")
    assert first.status_code == 201
    path = f"/v1/rag/documents/{first.json()['id']}"
    assert tenant.http.patch(path, json={"filename": "renamed.txt"}).status_code == 200
    again = upload("The harbour is blue.")
    assert (again.status_code, again.json()["id"], again.json()["created"]) == (201, first.json()["id"], True)
    assert tenant.http.get(path).json()["filename"] == "renamed.txt"  # without the key, the last name wins
    for other in (upload("Another text."), upload("The harbour is blue.", name="b.txt")):
        assert (other.status_code, error_of(other)["param"]) == (400, "Idempotency-Key")
    assert len(tenant.http.get("/v1/rag/documents").json()["data"]) == 1
    assert tenant.http.delete(path).status_code == 200
    assert upload("The harbour is blue.").status_code == 404
    assert tenant.http.get("/v1/rag/documents").json()["data"] == []
    assert upload("The harbour is blue.", key="k-2").status_code == 201
    known = upload("The harbour is blue.", key="k-3")
    assert (known.status_code, upload("The harbour is blue.", key="k-3").json()["id"]) == (200, known.json()["id"])
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda number: upload(f"Text {number % 2}.", key="k-4"), range(8)))
    assert sorted({reply.status_code for reply in replies}) == [201, 400]
    assert len({reply.json()["id"] for reply in replies if reply.status_code == 201}) == 1


def test_ids_of_passages_reveal_nothing_about_other_tenants(new_tenant) -> None:
    first, second = new_tenant(), new_tenant()
    for tenant in (first, second):
        document = tenant.add_text("The harbour is blue.")
        (passage,) = tenant.http.get(f"/v1/rag/documents/{document}/passages").json()["data"]
        (hit,) = tenant.search("harbour", mode="lexical")
        assert passage["id"] == hit["chunk_id"] == f"chunk_{document.removeprefix('doc_')}_0"
