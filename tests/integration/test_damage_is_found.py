"""Damage of stored rows and files is reported where it is, and everything else goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from ragsvc.testing.service_runner import RunningService, create_key
from tests.support.command import at_data, ragsvc
from tests.support.engines import SQLITE, engine, stored_rows
from tests.support.file_places import StoredFiles

pytestmark = [pytest.mark.model, pytest.mark.timeout(300)]

WORDS = ("walrus", "meadow", "copper", "basalt")


def content_of(word: str) -> bytes:
    return f"The code word of this report is {word}. {'The harbour crane was painted green in April. ' * 20}".encode()


def upload(http: httpx.Client, word: str) -> httpx.Response:
    return http.post(
        "/v1/rag/documents",
        params={"filename": f"{word}.txt"},
        content=content_of(word),
        headers={"content-type": "text/plain"},
    )


def found(http: httpx.Client, word: str, mode: str) -> set[str]:
    reply = http.post("/v1/rag/search", json={"query": f"Wörter: code word {word}", "mode": mode, "top_k": 50})
    assert reply.status_code == 200, reply.text
    return {hit["document_id"] for hit in reply.json()["data"]}


def problems(http: httpx.Client, document: str) -> set[str]:
    return {problem["code"] for problem in http.get(f"/v1/rag/documents/{document}").json()["problems"]}


def damage_texts(data_dir: Path, document: str) -> None:
    """Put bytes that are not UTF-8 into the rows of a document, as a disk does."""
    with stored_rows(data_dir) as rows:
        (row,) = rows.exec_driver_sql("SELECT id FROM documents WHERE public_id = ?", (document,)).one()
        for table in ("passages", "pages"):
            damaged = "CAST(x'ff' || CAST(substr(text, 2) AS BLOB) AS TEXT)"
            rows.exec_driver_sql(f"UPDATE {table} SET text = {damaged} WHERE document_id = ?", (row,))  # noqa: S608


@pytest.fixture
def data_dir(service: RunningService, tmp_path: Path) -> Path:
    made = tmp_path / "data"
    made.mkdir()
    (made / "models").symlink_to(service.data_dir / "models")
    return made


def stored(data_dir: Path, key: str, words: tuple[str, ...]) -> dict[str, dict]:
    """The documents of some words, uploaded to a service that has ended."""
    running = RunningService(data_dir)
    with running.client(key) as http:
        uploads = {word: upload(http, word).json() for word in words}
    assert running.stop() == 0
    return uploads


@contextmanager
def serving(data_dir: Path, key: str) -> Iterator[httpx.Client]:
    """A service that logs no traceback."""
    running = RunningService(data_dir)
    try:
        with running.client(key) as http:
            yield http
    finally:
        running.kill()
    assert not [line for line in running.log if "Traceback" in line]


@pytest.mark.sqlite_file
def test_damaged_texts_are_reported_and_the_rest_answers(data_dir: Path) -> None:
    key = create_key(data_dir)
    ids = {word: document["id"] for word, document in stored(data_dir, key, WORDS).items()}
    damage_texts(data_dir, ids["walrus"])

    doctor = ragsvc("doctor", "--deep", env=at_data(data_dir))
    assert doctor.code == 1
    assert f"page 1 of {ids['walrus']}" in doctor.out.replace("\n", " ")

    with serving(data_dir, key) as http:
        for mode in ("hybrid", "dense", "lexical"):
            for word in WORDS[1:]:
                assert ids[word] in found(http, word, mode)
            assert ids["walrus"] not in found(http, "walrus", mode)
        page = http.get(f"/v1/rag/documents/{ids['walrus']}/pages/1")
        assert (page.status_code, page.json()["error"]["code"]) == (500, "stored_data_damaged")
        passages = http.get(f"/v1/rag/documents/{ids['walrus']}/passages")
        assert (passages.status_code, passages.json()["error"]["code"]) == (500, "stored_data_damaged")
        assert problems(http, ids["walrus"]) == {"stored_text_damaged"}
        assert http.delete(f"/v1/rag/documents/{ids['walrus']}").status_code == 200
        assert upload(http, "walrus").status_code == 201


def test_each_damaged_file_is_reported_and_its_upload_mends_it(data_dir: Path) -> None:
    key = create_key(data_dir)
    uploads = stored(data_dir, key, WORDS)
    ids = {word: document["id"] for word, document in uploads.items()}
    files = StoredFiles(data_dir)
    names = {word: files.name_of(document["sha256"]) for word, document in uploads.items()}
    files.write(names["meadow"], content_of("meadow")[:-100])
    files.write(names["copper"], content_of("copper").replace(b"copper", b"cupper"))
    files.delete(names["basalt"])

    if engine.name == SQLITE:  # doctor reads no rows of PostgreSQL
        doctor = ragsvc("doctor", "--deep", env=at_data(data_dir))
        assert doctor.code == 1
        assert all(uploads[word]["sha256"] in doctor.out for word in ("meadow", "copper", "basalt"))

    with serving(data_dir, key) as http:
        assert http.get(f"/v1/rag/documents/{ids['walrus']}/content").content == content_of("walrus")
        for mode in ("hybrid", "dense", "lexical"):
            for word in WORDS:
                assert ids[word] in found(http, word, mode)
        for word in WORDS[1:]:
            for _ in range(2):
                reply = http.get(f"/v1/rag/documents/{ids[word]}/content")
                assert (reply.status_code, reply.json()["error"]["code"]) == (500, "stored_data_damaged")
            assert problems(http, ids[word]) == {"stored_file_damaged"}
            again = upload(http, word)
            assert (again.status_code, again.json()["id"]) == (200, ids[word])
            assert http.get(f"/v1/rag/documents/{ids[word]}/content").content == content_of(word)
            assert problems(http, ids[word]) == set()
