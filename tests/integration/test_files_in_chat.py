"""Files in chat requests: inline and by id, for every model, read and cited and never stored."""

from __future__ import annotations

import base64
import io
import json
import zipfile

import httpx
import openai
import pypdf
import pytest

from ragsvc.client import EncryptedTransport, HpkeStream, Rvenc
from ragsvc.core.files import implicit_file_id
from ragsvc.testing.pdf_builder import Text, make_pdf
from ragsvc.testing.service_runner import RunningService, create_key
from tests.conftest import FIXTURES, NO_LIMITS
from tests.support.file_places import stored_bytes
from tests.support.quoting_provider import QuotingProvider, passages_in
from tests.support.upstream_server import serving

pytestmark = pytest.mark.model

CONFIG = """
chat_files_bytes = 8_000_000
chat_file_pages = 200
chat_file_timeout_s = 20
max_body_bytes = 2_000_000
[[providers]]
name = "up"
base_url = "{url}/v1"
retries = 0
models = ["quoter"]
"""
NVIDIA = FIXTURES / "documents" / "nvidia-10-q-2023-10-29.pdf"
LABELS = FIXTURES / "documents" / "page-labels.pdf"
LOCAL = "local/chat-model"
NOTES = (
    "The archive is in the city of Porto. It holds nine thousand maps.\n\n"
    "The archive opens at nine in the morning and closes at four."
)


class Running:
    """The service, its provider, and clients of two tenants."""

    def __init__(self, service: RunningService, upstream: QuotingProvider) -> None:
        self.service = service
        self.upstream = upstream
        self.key = self.new_key("first")
        self.other_key = self.new_key("second")

    def new_key(self, tenant: str, **options: object) -> str:
        with self.service.client(self.service.admin_key) as admin:
            reply = admin.post("/v1/keys", json={"tenant": tenant, "label": tenant, **NO_LIMITS, **options})
        assert reply.status_code == 201, reply.text
        return reply.json()["key"]

    def client(self, key: str | None = None, **options: object) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self.service.url}/v1", api_key=key or self.key, max_retries=0, **options)


@pytest.fixture(scope="module", params=["plain", "encrypted"])
def running(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("files-in-chat")
    settings = {}
    if request.param == "encrypted":
        settings["RAGSVC_MASTER_KEY"] = "11" * 32
    admin_key = create_key(folder / "data", tenant="operator", extra=("--scope", "admin"), settings=settings)
    upstream = QuotingProvider()
    with serving(upstream) as (url, _):
        (folder / "ragsvc.toml").write_text(CONFIG.format(url=url))
        service = RunningService(folder / "data", env={"RAGSVC_CONFIG": str(folder / "ragsvc.toml"), **settings})
        service.admin_key = admin_key
        try:
            yield Running(service, upstream)
        finally:
            assert service.stop() == 0


@pytest.fixture
def client(running):
    with running.client() as made:
        yield made


def data_url(data: bytes, media_type: str = "application/pdf") -> str:
    return f"data:{media_type};base64,{base64.b64encode(data).decode()}"


def inline(data: bytes, filename: str = "file.pdf", media_type: str = "application/pdf") -> dict:
    return {"type": "file", "file": {"file_data": data_url(data, media_type), "filename": filename}}


def ask(question: str, *parts: dict) -> list[dict]:
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


def pdf(*pages: str) -> bytes:
    return make_pdf([[Text(50, 700, text)] for text in pages])


def text_of(path, page: int) -> str:
    return pypdf.PdfReader(path).pages[page - 1].extract_text()


def squeezed(text: str) -> str:
    return "".join(text.split())


def test_an_inline_pdf_is_quoted_with_its_pages(client):
    reply = client.chat.completions.create(
        model=LOCAL, messages=ask("How much was NVIDIA's cost of revenue?", inline(NVIDIA.read_bytes(), "q3.pdf"))
    )
    message = reply.choices[0].message
    assert message.annotations
    for annotation in message.annotations:
        cited = annotation.url_citation
        assert message.content[cited.start_index : cited.end_index].startswith("[")
        assert cited.title == f"q3.pdf, page {annotation.page}"
        assert cited.url.startswith("ni:///sha-256-96;")
        assert cited.url.endswith(f"#page={annotation.page}")
        assert annotation.file_id.startswith("inline-")
        assert squeezed(annotation.quote)[:40] in squeezed(text_of(NVIDIA, annotation.page))
    assert "revenue" in message.content.lower()


@pytest.mark.parametrize("model", [LOCAL, "quoter"])
@pytest.mark.parametrize("stream", [False, True])
def test_both_kinds_of_models_cite_inline_files(client, running, model, stream):
    question = "Which city hosts the archive?" + (" QUOTE: Porto" if model == "quoter" else "")
    messages = ask(question, inline(NOTES.encode(), "notes.txt", "text/plain"))
    if stream:
        chunks = list(client.chat.completions.create(model=model, messages=messages, stream=True))
        text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
        annotations = [
            note
            for chunk in chunks
            if chunk.choices
            for note in chunk.choices[0].delta.model_dump().get("annotations") or ()
        ]
        url = annotations[0]["url_citation"]["url"]
        quote = annotations[0]["quote"]
    else:
        message = client.chat.completions.create(model=model, messages=messages).choices[0].message
        text, (annotation, *_) = message.content, message.annotations
        url, quote = annotation.url_citation.url, annotation.quote
    assert "Porto" in text
    assert "[1]" in text
    assert quote in NOTES
    assert url.startswith("ni:///")
    if model == "quoter":
        sent = running.upstream.last.body
        assert b"file_data" not in sent
        assert base64.b64encode(NOTES.encode())[:40] not in sent
        assert b"[Attached file: notes.txt]" in sent
        assert "notes.txt" in passages_in(sent)[0][1]


def test_a_small_file_is_in_the_prompt_as_a_whole_and_in_reading_order(client, running):
    pages = [f"Page {page} says that chapter {page} is about subject number {page * 11}." for page in range(1, 31)]
    client.chat.completions.create(model="quoter", messages=ask("What is chapter 7 about?", inline(pdf(*pages))))
    found = [text for _, _, text in passages_in(running.upstream.last.body)]
    assert len(found) == 30
    assert [f"chapter {page} " in text for page, text in enumerate(found, 1)] == [True] * 30
    assert b"the whole text of the files" in running.upstream.last.body


def test_of_a_large_file_the_passages_that_fit_the_question_are_in_the_prompt(client, running):
    client.chat.completions.create(
        model="quoter",
        messages=ask("What does NVIDIA say about export controls to China?", inline(NVIDIA.read_bytes())),
    )
    found = passages_in(running.upstream.last.body)
    assert 10 <= len(found) < 60
    assert any("export" in text for _, _, text in found)
    assert b"parts that fit the question best" in running.upstream.last.body


def test_a_stored_file_is_cited_by_its_content_address(client, running):
    with running.service.client(running.key) as http:
        document = http.post(
            "/v1/rag/documents",
            params={"filename": "labels.pdf", "wait_s": 60},
            content=LABELS.read_bytes(),
            headers={"content-type": "application/pdf"},
        ).json()
    file_id = implicit_file_id(document["id"])
    messages = ask("What is this document about?", {"type": "file", "file": {"file_id": file_id}})
    message = client.chat.completions.create(model=LOCAL, messages=messages).choices[0].message
    assert message.annotations
    cited = message.annotations[0]
    assert cited.file_id == file_id
    assert cited.filename == "labels.pdf"
    assert cited.url_citation.url == f"{running.service.url}/v1/files/{file_id}/content#page={cited.page}"
    assert squeezed(cited.quote)[:20] in squeezed(text_of(LABELS, cited.page))


def test_a_file_that_was_uploaded_as_such_is_read_and_its_citation_leads_to_it(client, running):
    uploaded = client.files.create(file=("labels.pdf", LABELS.read_bytes()), purpose="user_data")
    messages = ask("What is this document about?", {"type": "file", "file": {"file_id": uploaded.id}})
    message = client.chat.completions.create(model=LOCAL, messages=messages).choices[0].message
    cited = message.annotations[0]
    assert cited.filename == "labels.pdf"
    with running.service.client(running.key) as http:
        assert http.get(cited.url_citation.url.removeprefix(running.service.url)).content == LABELS.read_bytes()
    client.files.delete(uploaded.id)
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model=LOCAL, messages=messages)


def test_a_stored_file_of_a_type_that_cannot_be_read_is_refused(client):
    uploaded = client.files.create(file=("calls.jsonl", b'{"a": 1}\n'), purpose="batch")
    messages = ask("What?", {"type": "file", "file": {"file_id": uploaded.id}})
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=LOCAL, messages=messages)
    assert refused.value.param == "messages[0].content[0].file"
    assert refused.value.body["code"] == "unsupported_media_type"


def test_the_encoding_of_a_text_is_that_of_its_data_url(client):
    text = "Die Fähre nach Bressay fährt um zwölf Uhr ab."
    part = inline(text.encode("latin-1"), "a.txt", "text/plain;charset=iso-8859-1")
    message = (
        client.chat.completions.create(model=LOCAL, messages=ask("Wann fährt die Fähre?", part)).choices[0].message
    )
    assert text in message.content


def test_files_of_another_tenant_and_unknown_ids_are_not_found_alike(client, running):
    with running.service.client(running.other_key) as http:
        document = http.post(
            "/v1/rag/documents", params={"filename": "secret.txt"}, content=b"The secret is 4711."
        ).json()
    problems = []
    for file_id in (implicit_file_id(document["id"]), "file-0123456789abcdef01234567"):
        with pytest.raises(openai.NotFoundError) as refused:
            client.chat.completions.create(
                model=LOCAL, messages=ask("What is the secret?", {"type": "file", "file": {"file_id": file_id}})
            )
        problems.append(
            (refused.value.body["message"].replace(file_id, "ID"), refused.value.body["code"], refused.value.param)
        )
    assert problems[0] == problems[1]
    assert problems[0][2] == "messages[0].content[0].file.file_id"


def test_a_key_without_the_right_to_read_documents_sends_files_inline_only(running):
    key = running.new_key("first", scopes=["chat.plain"])
    with running.client(key) as limited:
        with pytest.raises(openai.PermissionDeniedError) as refused:
            limited.chat.completions.create(
                model=LOCAL,
                messages=ask("What?", {"type": "file", "file": {"file_id": "file-0123456789abcdef01234567"}}),
            )
        assert "documents.read" in refused.value.body["message"]
        reply = limited.chat.completions.create(
            model=LOCAL,
            messages=ask("Which city hosts the archive?", inline(NOTES.encode(), "notes.txt", "text/plain")),
        )
        assert "Porto" in reply.choices[0].message.content


def test_files_and_documents_are_cited_together(client, running):
    with running.service.client(running.key) as http:
        stored = http.post(
            "/v1/rag/documents",
            params={"filename": "hours.txt", "collection": "both", "wait_s": 60},
            content=b"The museum shop opens at ten o'clock on Sundays.",
        ).json()
    message = (
        client.chat.completions.create(
            model="quoter",
            messages=ask(
                "When does the museum shop open, and the archive? QUOTE: museum shop|archive opens",
                inline(NOTES.encode(), "notes.txt", "text/plain"),
            ),
            extra_body={"use_rag": True, "rag": {"collection": "both"}},
        )
        .choices[0]
        .message
    )
    by_name = {annotation.filename: annotation for annotation in message.annotations}
    assert set(by_name) == {"hours.txt", "notes.txt"}
    assert f"/v1/rag/documents/{stored['id']}/content" in by_name["hours.txt"].url_citation.url
    assert by_name["notes.txt"].url_citation.url.startswith("ni:///")
    assert by_name["notes.txt"].quote in NOTES


def test_a_file_of_an_earlier_turn_is_used_again(client):
    messages = [
        *ask("Which city hosts the archive?", inline(NOTES.encode(), "notes.txt", "text/plain")),
        {"role": "assistant", "content": "Porto."},
        {"role": "user", "content": "When does the archive open in the morning?"},
    ]
    message = client.chat.completions.create(model=LOCAL, messages=messages).choices[0].message
    assert "nine in the morning" in message.content
    assert message.annotations[0].filename == "notes.txt"


def test_a_file_without_a_question_is_described(client):
    messages = [{"role": "user", "content": [inline(NOTES.encode(), "notes.txt", "text/plain")]}]
    message = client.chat.completions.create(model=LOCAL, messages=messages).choices[0].message
    assert "archive" in message.content
    assert message.annotations


def test_bare_base64_without_a_name_is_recognised_by_content(client):
    for data in (pdf("The ferry to Bressay leaves at noon."), b"The ferry to Bressay leaves at noon."):
        part = {"type": "file", "file": {"file_data": base64.b64encode(data).decode()}}
        message = (
            client.chat.completions.create(model=LOCAL, messages=ask("When does the ferry leave?", part))
            .choices[0]
            .message
        )
        assert "noon" in message.content


@pytest.mark.parametrize("name", ["various.docx", "words.png", "short.csv", "utf8.html"])
def test_every_type_that_documents_have_can_be_sent(client, name):
    data = (FIXTURES / "formats" / name).read_bytes()
    part = {"type": "file", "file": {"file_data": base64.b64encode(data).decode(), "filename": name}}
    message = (
        client.chat.completions.create(model=LOCAL, messages=ask("What is this document about?", part))
        .choices[0]
        .message
    )
    assert message.annotations, message.content
    assert message.annotations[0].filename == name


def zip_bomb() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("[Content_Types].xml", "<Types/>")
        archive.writestr("word/document.xml", b"<w>" + b" " * 600_000_000)
    return packed.getvalue()


def hostile():
    encrypted = (FIXTURES / "dirty" / "password-asdfzxcv.pdf").read_bytes()
    return {
        "encrypted": (inline(encrypted), "password_required"),
        "empty": ({"type": "file", "file": {"file_data": "data:application/pdf;base64,"}}, "invalid_request"),
        "no data": ({"type": "file", "file": {"filename": "x.pdf"}}, "invalid_request"),
        "no file": ({"type": "file"}, "invalid_request"),
        "wrong base64": (
            {"type": "file", "file": {"file_data": "data:application/pdf;base64,@@@@"}},
            "invalid_request",
        ),
        "cut base64": ({"type": "file", "file": {"file_data": "AAAAA"}}, "invalid_request"),
        "not a pdf": (inline(b"%PDF-1.7\nnothing"), None),
        "archive": (inline(b"PK\x05\x06" + bytes(18), "x.zip", "application/zip"), "unsupported_media_type"),
        "program": (inline(b"\x7fELF" + bytes(200), "x"), "unsupported_media_type"),
        "both": ({"type": "file", "file": {"file_data": "QUJD", "file_id": "file-1"}}, "invalid_request"),
        "many pages": (inline(pdf(*["x"] * 201)), "too_many_pages"),
    }


@pytest.mark.parametrize("name", hostile())
def test_a_file_that_cannot_be_read_is_refused_by_name(client, name):
    part, code = hostile()[name]
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=LOCAL, messages=ask("What?", {"type": "text", "text": "x"}, part))
    body = refused.value.body
    assert body["param"].startswith("messages[0].content[1].file"), body
    assert code is None or body["code"] == code, body
    assert body["message"].endswith(".")


def test_a_bomb_is_refused_within_the_limits(client):
    with pytest.raises(openai.BadRequestError) as refused:
        client.chat.completions.create(model=LOCAL, messages=ask("What?", inline(zip_bomb(), "bomb.docx", "")))
    assert refused.value.param == "messages[0].content[0].file"
    assert (
        client.chat.completions.create(
            model=LOCAL,
            messages=ask("Which city hosts the archive?", inline(NOTES.encode(), "notes.txt", "text/plain")),
        )
        .choices[0]
        .message.annotations
    )


def test_files_beyond_the_limit_are_refused_and_bodies_may_hold_files_within_it(client):
    filler = pdf("The ferry to Bressay leaves at noon.")
    fits = filler + b"\n" * 7_000_000  # 9.3 MB of base64, more than other bodies may have
    message = (
        client.chat.completions.create(model=LOCAL, messages=ask("When does the ferry leave?", inline(fits)))
        .choices[0]
        .message
    )
    assert "noon" in message.content
    for parts in (
        [inline(filler + b"\n" * 8_000_000)],
        [inline(filler + b"\n" * 4_100_000), inline(filler + b" \n" * 2_050_000)],
    ):
        with pytest.raises(openai.APIStatusError) as refused:
            client.chat.completions.create(model=LOCAL, messages=ask("When does the ferry leave?", *parts))
        assert refused.value.status_code == 413
        assert refused.value.body["code"] == "request_too_large"
    with pytest.raises(openai.APIStatusError) as refused:
        client.chat.completions.create(model=LOCAL, messages=ask("?", inline(bytes(40_000_000))))
    assert refused.value.status_code == 413


@pytest.mark.parametrize("mode", [HpkeStream, Rvenc])
def test_files_in_encrypted_chats(running, mode):
    with (
        httpx.Client(transport=EncryptedTransport(running.service.url, mode()), timeout=60) as http,
        running.client(http_client=http) as sealed,
    ):
        fits = pdf("The ferry to Bressay leaves at noon.") + b"\n" * 3_000_000
        message = (
            sealed.chat.completions.create(
                model=LOCAL, messages=ask("When does the ferry leave?", inline(fits, "f.pdf"))
            )
            .choices[0]
            .message
        )
    assert "noon" in message.content
    assert message.annotations[0].filename == "f.pdf"


def test_nothing_of_an_inline_file_stays(client, running):
    word = "Zwetschgenkuchen"
    text = f"The recipe for {word} is older than the house."
    message = (
        client.chat.completions.create(
            model=LOCAL, messages=ask("Which recipe is older than the house?", inline(pdf(text), "recipe.pdf"))
        )
        .choices[0]
        .message
    )
    assert word in message.content
    assert [name for name, content in stored_bytes(running.service.data_dir) if word.encode() in content] == []
    assert not any(word in line or "recipe.pdf" in line for line in running.service.log)
    assert not list((running.service.data_dir / "uploads").iterdir())
    with running.service.client(running.key) as http:
        assert not any(entry["filename"] == "recipe.pdf" for entry in http.get("/v1/rag/documents").json()["data"])


def test_tokens_of_files_are_reserved_and_settled(running):
    key = running.new_key("first", token_balance=50)
    with running.client(key) as poor, pytest.raises(openai.APIStatusError) as refused:
        poor.chat.completions.create(model="quoter", max_tokens=5, messages=ask("What?", inline(NVIDIA.read_bytes())))
    assert refused.value.status_code == 402
    key = running.new_key("first", token_balance=20_000)
    with running.client(key) as rich:
        rich.chat.completions.create(
            model="quoter", max_tokens=5, messages=ask("What?", inline(NOTES.encode(), "n.txt", "text/plain"))
        )
    with running.service.client(key) as http:
        assert http.get("/v1/tokens").json()["tokens_remaining"] == 20_000 - 120


def test_a_provider_never_gets_a_file_id(client, running):
    with running.service.client(running.key) as http:
        document = http.post("/v1/rag/documents", params={"filename": "n.txt"}, content=NOTES.encode()).json()
    file_id = implicit_file_id(document["id"])
    client.chat.completions.create(
        model="quoter", messages=ask("What?", {"type": "file", "file": {"file_id": file_id}})
    )
    assert file_id.encode() not in running.upstream.last.body
    assert json.loads(running.upstream.last.body)["messages"][-1]["content"][0]["type"] == "text"


def test_inline_files_are_passed_on_if_the_operator_wants_it(tmp_path):
    admin_key = create_key(tmp_path / "data", tenant="operator", extra=("--scope", "admin"))
    upstream = QuotingProvider()
    with serving(upstream) as (url, _):
        (tmp_path / "ragsvc.toml").write_text("pass_chat_files = true\n" + CONFIG.format(url=url))
        service = RunningService(tmp_path / "data", env={"RAGSVC_CONFIG": str(tmp_path / "ragsvc.toml")})
        service.admin_key = admin_key
        try:
            running = Running(service, upstream)
            part = inline(NOTES.encode(), "notes.txt", "text/plain")
            with running.service.client(running.key) as http:
                document = http.post("/v1/rag/documents", params={"filename": "n.txt"}, content=NOTES.encode()).json()
            by_id = {"type": "file", "file": {"file_id": implicit_file_id(document["id"])}}
            with running.client() as client:
                client.chat.completions.create(model="quoter", messages=ask("What?", part))
                assert json.loads(upstream.last.body)["messages"][0]["content"][0] == part
                client.chat.completions.create(model="quoter", messages=ask("What?", part, by_id))
                sent = json.loads(upstream.last.body)["messages"][-1]["content"]
                assert part in sent
                assert document["id"].removeprefix("doc_").encode() not in upstream.last.body
                with pytest.raises(openai.BadRequestError) as refused:
                    client.chat.completions.create(model=LOCAL, messages=ask("What?", part))
                assert refused.value.param == "messages[0].content[0]"
        finally:
            assert service.stop() == 0
