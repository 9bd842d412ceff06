"""Uploads of every format, what is refused at upload, and attached files as documents of their own."""

from __future__ import annotations

import time
from email.message import EmailMessage
from pathlib import Path

import pytest
from sqlalchemy import select

from ragsvc.store.tables import DocumentRow, table_of
from ragsvc.testing.sample_pdfs import text_pdf
from tests.support.command import at_data, ragsvc
from tests.support.engines import stored_rows
from tests.support.office_files import docx, formats, paragraph, xlsx, zipped

FIXTURES = Path(__file__).parents[2] / "fixtures/formats"


def error_of(reply):
    return reply.json()["error"]


def documents(tenant, **params):
    return tenant.http.get("/v1/rag/documents", params={"order": "asc", **params}).json()["data"]


def settled(tenant, count):
    """The documents, once there are ``count`` and none is being processed."""
    end = time.monotonic() + 60
    while time.monotonic() < end:
        found = documents(tenant)
        if len(found) == count and all(document["status"] in ("ready", "failed") for document in found):
            return found
        time.sleep(0.2)
    raise AssertionError([(document["filename"], document["status"]) for document in documents(tenant)])


def mail(*attachments, subject="The bill", body="See the attached bill."):
    made = EmailMessage()
    made["Subject"], made["From"], made["To"] = subject, "anna@example.org", "ben@example.org"
    made.set_content(body)
    for name, data in attachments:
        made.add_attachment(data, maintype="application", subtype="octet-stream", filename=name)
    return made.as_bytes()


def test_a_cell_is_found_and_cited_by_its_sheet(tenant):
    rows = "".join(
        f'<row><c t="inlineStr"><is><t>{town}</t></is></c><c s="1"><v>{value}</v></c></row>'
        for town, value in (("Borken", 0.0725), ("Ahaus", 0.0811))
    )
    heads = '<row><c t="inlineStr"><is><t>Town</t></is></c><c t="inlineStr"><is><t>Levy rate</t></is></c></row>'
    book = xlsx({"Levies 2026": f"<sheetData>{heads}{rows}</sheetData>"}, styles=formats("0.00%"))
    reply = tenant.upload(book, filename="levies.xlsx", kind="application/octet-stream")
    assert reply.status_code == 201, reply.text
    assert reply.json()["media_type"].endswith("spreadsheetml.sheet")
    hit = tenant.search("What is the levy rate in Borken?")[0]
    assert hit["page_label"] == "sheet Levies 2026"
    assert "| Borken | 7.25% |" in hit["quote"]
    content = tenant.http.get(f"/v1/rag/documents/{reply.json()['id']}/content")
    assert content.content == book


def test_the_content_decides_about_the_type_and_not_the_name(tenant):
    letter = docx(paragraph("The ferry to Juist leaves at 9:40."))
    reply = tenant.upload(letter, filename="letter.pdf", kind="application/pdf")
    assert reply.status_code == 201, reply.text
    assert reply.json()["media_type"].endswith("wordprocessingml.document")
    form = tenant.http.post("/v1/rag/documents", files={"file": ("page", b"<!doctype html><p>Tide tables", "")})
    assert form.json()["media_type"] == "text/html"


@pytest.mark.parametrize("kind", ["application/pdf", "application/octet-stream", "application/zip"])
@pytest.mark.parametrize(
    ("content", "name"),
    [
        (zipped({"a.pdf": text_pdf([["x"]])}, stored=("a.pdf",)), "a ZIP archive"),
        (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600), "an old Office document"),
        (b"\x00\x00\x00\x18ftypmp42" + bytes(50), "a video"),
    ],
)
def test_what_cannot_be_read_is_refused_with_the_list_of_what_can(tenant, content, name, kind):
    reply = tenant.upload(content, filename="report.pdf", kind=kind)
    assert reply.status_code == 415
    error = error_of(reply)
    assert (error["code"], error["param"]) == ("unsupported_media_type", "file")
    assert name in error["message"]
    for readable in ("PDF", ".docx", ".xlsx", ".pptx", ".epub", ".eml", ".csv", ".html", ".png"):
        assert readable in error["message"]
    assert documents(tenant) == []


def test_attachments_are_documents_of_their_own_and_go_with_their_message(tenant):
    bill = text_pdf([["The bill of the lighthouse keeper is 1,482 euros."]])
    message = mail(("bill.pdf", bill), ("notes.csv", b"a;b\n007;2\n"), ("tool.exe", b"MZ" + bytes(range(200))))
    reply = tenant.upload(message, filename="bill.eml", kind="message/rfc822", metadata='{"year": 2026}')
    assert reply.status_code == 201, reply.text
    parent = reply.json()
    assert parent["parent_id"] is None
    assert [problem["code"] for problem in parent["problems"]] == ["attachment_left_out"]
    assert "'tool.exe' (a program)" in parent["problems"][0]["message"]
    _, first, second = settled(tenant, 3)
    assert [document["filename"] for document in (first, second)] == ["bill.pdf", "notes.csv"]
    assert [document["parent_id"] for document in (first, second)] == [parent["id"]] * 2
    assert first["metadata"] == {"year": 2026}
    assert [document["id"] for document in documents(tenant, parent_id=parent["id"])] == [first["id"], second["id"]]
    assert tenant.search("How much is the lighthouse keeper's bill?")[0]["document_id"] == first["id"]

    assert tenant.upload(message, filename="bill.eml", kind="message/rfc822").json()["id"] == parent["id"]
    assert len(settled(tenant, 3)) == 3

    assert tenant.http.delete(f"/v1/rag/documents/{parent['id']}").status_code == 200
    assert documents(tenant) == []
    assert tenant.search("How much is the lighthouse keeper's bill?") == []


def test_an_attachment_that_is_known_is_not_stored_twice_and_outlives_its_message(tenant):
    bill = text_pdf([["The bill of the harbour master is 77 euros."]])
    own = tenant.upload(bill, filename="own.pdf").json()
    first = tenant.upload(mail(("bill.pdf", bill)), filename="1.eml", kind="message/rfc822").json()
    assert [document["filename"] for document in settled(tenant, 2)] == ["own.pdf", "1.eml"]
    assert tenant.http.get(f"/v1/rag/documents/{own['id']}").json()["parent_id"] == first["id"]
    tenant.http.delete(f"/v1/rag/documents/{first['id']}")
    assert [document["id"] for document in documents(tenant)] == [own["id"]]


def test_a_shared_attachment_goes_with_the_last_message_that_has_it(tenant):
    bill = text_pdf([["The bill of the pilot is 12 euros."]])
    first = tenant.upload(mail(("b.pdf", bill), subject="one"), filename="1.eml", kind="message/rfc822").json()
    settled(tenant, 2)
    second = tenant.upload(mail(("b.pdf", bill), subject="two"), filename="2.eml", kind="message/rfc822").json()
    settled(tenant, 3)
    tenant.http.delete(f"/v1/rag/documents/{first['id']}")
    assert sorted(document["filename"] for document in documents(tenant)) == ["2.eml", "b.pdf"]
    tenant.http.delete(f"/v1/rag/documents/{second['id']}")
    assert documents(tenant) == []


def test_an_attachment_uploaded_itself_stays_when_its_message_is_deleted(tenant):
    bill = text_pdf([["The bill of the cook is 5 euros."]])
    parent = tenant.upload(mail(("b.pdf", bill)), filename="1.eml", kind="message/rfc822").json()
    settled(tenant, 2)
    again = tenant.upload(bill, filename="mine.pdf")
    assert again.status_code == 200
    tenant.http.delete(f"/v1/rag/documents/{parent['id']}")
    assert [document["id"] for document in documents(tenant)] == [again.json()["id"]]


def test_attachments_of_attachments_are_followed_to_a_depth(tenant):
    message = mail(("end.txt", b"the innermost text"), subject="level 5")
    for level in (4, 3, 2, 1):
        message = mail(("inner.eml", message), subject=f"level {level}")
    tenant.upload(message, filename="outer.eml", kind="message/rfc822")
    found = settled(tenant, 4)
    assert [document["title"] for document in found] == ["level 1", "level 2", "level 3", "level 4"]
    assert found[-1]["problems"][0]["code"] == "attachment_left_out"


def states_of(data_dir: Path) -> list[tuple[str, str]]:
    rows = table_of(DocumentRow).c
    with stored_rows(data_dir) as connection:
        found = connection.execute(select(rows.filename, rows.status)).all()
    return sorted((filename, status) for filename, status in found)


def test_an_ingest_ends_when_the_attachments_are_ready_and_counts_what_it_passed_over(tmp_path):
    folder, data_dir = tmp_path / "mails", tmp_path / "data"
    folder.mkdir()
    inner = mail(("inner.pdf", text_pdf([["The bill of the smith."]])), subject="inner")
    (folder / "a.eml").write_bytes(mail(("inner.eml", inner), ("list.csv", b"a;b\n1;2\n"), subject="outer"))
    for name in ("b.zip", "c.zip", "d.doc"):
        (folder / name).write_bytes(b"x")
    done = ragsvc("ingest", folder, "--json", env=at_data(data_dir))
    assert (done.code, done.json["counts"]) == (0, {"added": 1}), done.err
    assert done.json["passed_over"] == {".zip": 2, ".doc": 1}
    assert states_of(data_dir) == [(name, "ready") for name in ("a.eml", "inner.eml", "inner.pdf", "list.csv")]


def test_an_ingest_waits_for_attachments_of_a_message_that_is_ready_before_it_looks(tmp_path):
    folder, data_dir = tmp_path / "mails", tmp_path / "data"
    folder.mkdir()
    lines = [[f"Page {page}, line {line}: the smith was paid." for line in range(40)] for page in range(100)]
    inner = mail(("inner.pdf", text_pdf(lines)), subject="inner")
    (folder / "a.eml").write_bytes(mail(("inner.eml", inner), subject="outer"))
    (folder / "b.pdf").write_bytes(text_pdf([["A page of its own."]] * 3))
    done = ragsvc("ingest", folder, "--json", env=at_data(data_dir))
    assert done.code == 0, done.err
    assert states_of(data_dir) == [(name, "ready") for name in ("a.eml", "b.pdf", "inner.eml", "inner.pdf")]


def test_files_attached_to_a_pdf_are_documents(tenant):
    reply = tenant.upload((FIXTURES / "deep-attachments.pdf").read_bytes(), filename="portfolio.pdf")
    assert reply.status_code == 201, reply.text
    parent, attached, *_ = settled(tenant, len(documents(tenant)))
    assert attached["parent_id"] == parent["id"]
    assert attached["filename"] == "orig(10).pdf"
