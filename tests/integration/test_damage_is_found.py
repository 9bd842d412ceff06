"""Damage of stored rows and files is reported where it is, and everything else goes on."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from ragsvc.testing.service_runner import RunningService, create_key
from tests.support.command import at_data, ragsvc

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
    with closing(sqlite3.connect(data_dir / "ragsvc.sqlite", isolation_level=None)) as connection:
        (row,) = connection.execute("SELECT id FROM documents WHERE public_id = ?", (document,)).fetchone()
        for table in ("passages", "pages"):
            damaged = "CAST(x'ff' || CAST(substr(text, 2) AS BLOB) AS TEXT)"
            connection.execute(f"UPDATE {table} SET text = {damaged} WHERE document_id = ?", (row,))  # noqa: S608


def test_each_damage_is_reported_and_the_rest_answers(service: RunningService, tmp_path: Path) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "models").symlink_to(service.data_dir / "models")
    key = create_key(data_dir)
    running = RunningService(data_dir)
    with running.client(key) as http:
        uploads = {word: upload(http, word).json() for word in WORDS}
    assert running.stop() == 0
    ids = {word: document["id"] for word, document in uploads.items()}
    blobs = {word: next((data_dir / "blobs").rglob(document["sha256"])) for word, document in uploads.items()}
    damage_texts(data_dir, ids["walrus"])
    blobs["meadow"].write_bytes(content_of("meadow")[:-100])
    blobs["copper"].write_bytes(content_of("copper").replace(b"copper", b"cupper"))
    blobs["basalt"].unlink()

    doctor = ragsvc("doctor", "--deep", env=at_data(data_dir))
    assert doctor.code == 1
    assert all(blobs[word].name in doctor.out for word in ("meadow", "copper", "basalt"))
    assert f"page 1 of {ids['walrus']}" in doctor.out.replace("\n", " ")

    running = RunningService(data_dir)
    try:
        with running.client(key) as http:
            for mode in ("hybrid", "dense", "lexical"):
                for word in WORDS[1:]:
                    assert ids[word] in found(http, word, mode)
                assert ids["walrus"] not in found(http, "walrus", mode)
            page = http.get(f"/v1/rag/documents/{ids['walrus']}/pages/1")
            assert (page.status_code, page.json()["error"]["code"]) == (500, "stored_data_damaged")
            passages = http.get(f"/v1/rag/documents/{ids['walrus']}/passages")
            assert (passages.status_code, passages.json()["error"]["code"]) == (500, "stored_data_damaged")
            assert problems(http, ids["walrus"]) == {"stored_text_damaged"}
            for word in WORDS[1:]:
                for _ in range(2):
                    reply = http.get(f"/v1/rag/documents/{ids[word]}/content")
                    assert (reply.status_code, reply.json()["error"]["code"]) == (500, "stored_data_damaged")
                assert problems(http, ids[word]) == {"stored_file_damaged"}
                again = upload(http, word)
                assert (again.status_code, again.json()["id"]) == (200, ids[word])
                assert http.get(f"/v1/rag/documents/{ids[word]}/content").content == content_of(word)
                assert problems(http, ids[word]) == set()
            assert http.delete(f"/v1/rag/documents/{ids['walrus']}").status_code == 200
            assert upload(http, "walrus").status_code == 201
    finally:
        running.kill()
    assert not [line for line in running.log if "Traceback" in line]
