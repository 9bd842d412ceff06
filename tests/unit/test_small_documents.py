"""Small texts are ingested together; whatever goes wrong with one of them concerns this document only."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

import anyio
import pytest

from ragsvc.core.documents import DocumentStatus
from ragsvc.core.errors import EmbeddingFailed, ExtractionFailed, FailureReason, Overloaded
from ragsvc.core.ids import TenantId, new_document_id
from ragsvc.core.ports.parsing import FileToParse, ParsedDocument
from ragsvc.services.embedding_spaces import EmbeddingSpace
from ragsvc.store import job_rows
from ragsvc.store.document_listing import DocumentFilter
from ragsvc.store.vector_rows import model_row_id
from ragsvc.testing.fakes import FakeEmbedder
from tests.support.in_process_ingest import InProcessIngest, LineParser, ObservedEmbedder
from tests.support.stored_documents import ACME, OTHER

TEXTS = [f"The lamp number {number} was oiled." for number in range(6)]


class TogetherParser(LineParser):
    """A parser of several files. A file with the word "broken" cannot be read, nor any file after one with "deadly"."""

    def __init__(self) -> None:
        self.together: list[int] = []
        self.alone: list[str] = []

    async def parse(self, path, **options) -> ParsedDocument:
        self.alone.append(path.read_text())
        if "broken" in path.read_text():
            raise ExtractionFailed(FailureReason.DAMAGED, "It is broken.")
        if "deadly" in path.read_text():
            raise ExtractionFailed(FailureReason.PARSER_CRASHED, "It is deadly.")
        return await super().parse(path, **options)

    async def parse_many(self, files: Sequence[FileToParse]) -> list[ParsedDocument | None]:
        self.together.append(len(files))
        parsed: list[ParsedDocument | None] = []
        for file in files:
            text = file.path.read_text()
            if "deadly" in text:
                break
            found = await LineParser.parse(self, file.path, media_type=file.media_type, filename=file.filename)
            parsed.append(None if "broken" in text else found)
        return parsed + [None] * (len(files) - len(parsed))


async def upload_all(service: InProcessIngest, texts: Sequence[str]) -> None:
    for number, text in enumerate(texts):
        await service.upload(text, filename=f"{number}.txt")


async def statuses(service: InProcessIngest) -> dict[str, tuple[str, str | None]]:
    documents, _ = await service.documents.list_page(ACME, which=DocumentFilter(), limit=100)
    return {document.filename: (document.status.value, document.failure_code) for document in documents}


def test_texts_that_wait_are_parsed_embedded_and_indexed_together(tmp_path: Path) -> None:
    async def main() -> None:
        parser = TogetherParser()
        batches: list[int] = []
        embedder = ObservedEmbedder(before=lambda texts: batches.append(len(texts)))
        service = InProcessIngest(tmp_path / "data", parser=parser, embedder=embedder)
        await upload_all(service, TEXTS)
        async with service.running():
            await service.idle()
            assert await service.found("lamp number 3") == [f"{number}.txt" for number in (3, 0, 1, 2, 4, 5)]
            assert (parser.together, parser.alone, batches) == ([6], [], [6])
            (index,) = [service.indexes.get(status.collection_id) for status in service.indexes.status()]
            assert index._lexical.markers == 1  # each commit of the word index leaves one
            assert set((await statuses(service)).values()) == {("ready", None)}
            documents, _ = await service.documents.list_page(ACME, which=DocumentFilter(), limit=1)
            (document,) = documents
            assert (document.passages_total, document.passages_done, document.pages_total) == (1, 1, 1)
            assert document.embedding_model == service.space.model.name
            assert set(document.timings) == {"parse_s", "embed_s"}

    anyio.run(main)


def test_the_texts_of_a_tenant_do_not_wait_until_those_of_another_are_ready(tmp_path: Path) -> None:
    async def main() -> None:
        parser = TogetherParser()
        service = InProcessIngest(tmp_path / "data", parser=parser)
        await upload_all(service, [f"The lamp number {number} was oiled." for number in range(70)])
        await service.upload("The walrus sleeps.", filename="other.txt", tenant=OTHER)
        async with service.running():
            await service.idle()
        assert parser.together == [64, 1, 6]
        assert parser.alone == []

    anyio.run(main)


def test_the_tenants_take_turns_with_texts_that_run_together(tmp_path: Path) -> None:
    async def main() -> None:
        service = InProcessIngest(tmp_path / "data", parser=TogetherParser())
        tenants = [TenantId(name) for name in ("b", "c", "a")]
        for tenant in tenants:
            for number in range(3):
                await service.upload(f"The lamp number {number}.", filename=f"{number}.txt", tenant=tenant)
        served: list[TenantId] = []
        while jobs := service.database.write_sync(
            lambda c: job_rows.claim_small(c, limit=2, after=served[-1] if served else None)
        ):
            served.append(jobs[0].document.tenant)
            assert {job.document.tenant for job in jobs} == {served[-1]}
        assert served == ["a", "b", "c", "a", "b", "c"]
        service.close()

    anyio.run(main)


def test_the_rows_are_those_of_documents_that_are_ingested_alone(tmp_path: Path) -> None:
    columns = {
        "documents": "filename, status, stage, title, problems, pages_total, pages_done, passages_total, passages_done",
        "pages": "document_id, number, label, text, checksum",
        "passages": 'id, document_id, ordinal, page, start, "end", headings, embedding_hash, text, checksum, tables',
        "embeddings": "model_id, passage_id, vector",
        "index_log": "collection_id, op, document_id, passage_ids",
        "files": "filename, media_type, size_bytes, sha256, purpose, status, implicit, created_by, expires_at",
        "document_files": "document_id, file_id, collection_id",
        "jobs": "*",
    }

    def rows(service: InProcessIngest) -> dict[str, list[tuple[object, ...]]]:
        return service.database.read_sync(
            lambda c: {
                table: [tuple(row) for row in c.exec_driver_sql(f"SELECT {names} FROM {table} ORDER BY 1, 2")]  # noqa: S608
                for table, names in columns.items()
            }
        )

    async def main() -> None:
        found = []
        for name, parser in (("together", TogetherParser()), ("alone", LineParser())):
            async with InProcessIngest(tmp_path / name, parser=parser).running() as service:
                for number, text in enumerate(TEXTS):
                    await service.add(f"{text}\nIt burns again.", filename=f"{number}.txt")
                found.append(rows(service))
        assert found[0]["passages"]
        assert found[0] == found[1]

    anyio.run(main)


def test_a_text_that_cannot_be_read_fails_alone(tmp_path: Path) -> None:
    async def main() -> None:
        parser = TogetherParser()
        service = InProcessIngest(tmp_path / "data", parser=parser)
        await upload_all(service, [*TEXTS[:2], "broken", *TEXTS[2:4], "deadly", *TEXTS[4:]])
        async with service.running():
            await service.idle()
            found = await statuses(service)
            assert {name: found.pop(name) for name in ("2.txt", "5.txt")} == {
                "2.txt": ("failed", "damaged"),
                "5.txt": ("failed", "parser_crashed"),
            }
            assert set(found.values()) == {("ready", None)}
            assert len(found) == 6
            assert parser.together == [8]
            assert sorted(parser.alone) == sorted(["broken", "deadly", *TEXTS[4:]])

    anyio.run(main)


def test_a_text_whose_stored_file_is_damaged_fails_alone(tmp_path: Path) -> None:
    async def main() -> None:
        service = InProcessIngest(tmp_path / "data", parser=TogetherParser())
        await upload_all(service, TEXTS)
        damaged = await service.upload("to be changed", filename="damaged.txt")
        service.blobs.path(ACME, damaged.sha256).write_bytes(b"changed")
        async with service.running():
            await service.idle()
            found = await statuses(service)
            assert found.pop("damaged.txt") == ("failed", "stored_file_damaged")
            assert set(found.values()) == {("ready", None)}

    anyio.run(main)


def test_if_the_model_refuses_a_text_the_others_become_ready(tmp_path: Path) -> None:
    def refuse(texts: list[str]) -> None:
        if any("number 3" in text for text in texts):
            raise EmbeddingFailed("It is the third.")

    async def main() -> None:
        service = InProcessIngest(tmp_path / "data", parser=TogetherParser(), embedder=ObservedEmbedder(refuse))
        await upload_all(service, TEXTS)
        async with service.running():
            await service.idle()
            found = await statuses(service)
            assert found.pop("3.txt") == ("failed", "embedding_failed")
            assert set(found.values()) == {("ready", None)}

    anyio.run(main)


def test_while_the_model_is_overloaded_the_texts_wait_together(tmp_path: Path) -> None:
    refused: list[int] = []

    def refuse(texts: list[str]) -> None:
        if len(refused) < 2:
            refused.append(len(texts))
            raise Overloaded("Too much.")

    async def main() -> None:
        parser = TogetherParser()
        service = InProcessIngest(tmp_path / "data", parser=parser, embedder=ObservedEmbedder(refuse))
        await upload_all(service, TEXTS)
        async with service.running():
            await service.idle()
            assert set((await statuses(service)).values()) == {("ready", None)}
            assert (parser.together, parser.alone, refused) == ([6, 6, 6], [], [6, 6])

    anyio.run(main)


@pytest.mark.parametrize("change", ["delete", "rename", "model"])
def test_a_change_while_they_are_embedded_is_respected(tmp_path: Path, change: str) -> None:
    """One of the documents is deleted or renamed, or another model begins to serve, between reading and storing."""
    embedding, may_go_on = threading.Event(), threading.Event()

    async def wait() -> None:
        embedding.set()
        await anyio.to_thread.run_sync(may_go_on.wait, 30)

    async def main() -> None:
        parser = TogetherParser()
        embedder = ObservedEmbedder(lambda _: None if may_go_on.is_set() else wait())
        service = InProcessIngest(tmp_path / "data", parser=parser, embedder=embedder)
        await upload_all(service, TEXTS)
        documents, _ = await service.documents.list_page(ACME, which=DocumentFilter(), limit=100)
        chosen = next(document for document in documents if document.filename == "3.txt")
        async with service.running():
            assert await anyio.to_thread.run_sync(embedding.wait, 30)
            if change == "delete":
                await service.documents.delete(ACME, chosen.public_id)
            elif change == "rename":
                await service.rename(chosen, "beacon.txt")
            else:
                other = FakeEmbedder(max_tokens=300).model
                number = service.database.write_sync(lambda c: model_row_id(c, other, now=1))
                service.database.write_sync(
                    lambda c: c.exec_driver_sql(
                        "UPDATE service_state SET value = ? WHERE name LIKE 'serving%'", (number,)
                    )
                )
                service.spaces.serving = EmbeddingSpace(
                    model=other,
                    model_id=number,
                    batcher=service.batcher,
                    indexes=service.indexes,
                    prepare=str,
                    knows=lambda _: True,
                )
            may_go_on.set()
            await service.idle()
            found = await statuses(service)
            names = {f"{number}.txt" for number in range(6)} - {"3.txt"}
            kept = {"delete": set(), "rename": {"beacon.txt"}, "model": {"3.txt"}}[change]
            assert found == dict.fromkeys(names | kept, ("ready", None))
            if change != "model":  # the indexes of this service are those of the former model
                assert set(await service.found("lamp oiled")) == names | kept
            assert len(parser.alone) == {"delete": 0, "rename": 1, "model": 6}[change]
            lacking = (
                "SELECT count(*) FROM passages WHERE id NOT IN (SELECT passage_id FROM embeddings WHERE model_id = ?)"
            )
            count = service.database.read_sync(
                lambda c: c.exec_driver_sql(lacking, (service.spaces.serving.model_id,)).scalar_one()
            )
            assert count == 0

    anyio.run(main)


def test_a_stop_puts_them_back_and_the_next_start_ingests_them(tmp_path: Path) -> None:
    embedding = threading.Event()

    async def never(_: list[str]) -> None:
        embedding.set()
        await anyio.sleep_forever()

    async def main() -> None:
        service = InProcessIngest(tmp_path / "data", parser=TogetherParser(), embedder=ObservedEmbedder(never))
        await upload_all(service, TEXTS)
        async with service.running():
            assert await anyio.to_thread.run_sync(embedding.wait, 30)
            service.copy_as_if_killed(tmp_path / "killed")
        for folder, expected in (("data", ([6], 0)), ("killed", ([], 6))):
            parser = TogetherParser()
            async with InProcessIngest(tmp_path / folder, parser=parser).running() as again:
                await again.idle()
                assert set((await statuses(again)).values()) == {("ready", None)}
                # jobs that a killed process left run by themselves: one of them may have killed it
                assert (parser.together, len(parser.alone)) == expected
                assert len(await again.found("lamp")) == 6

    anyio.run(main)


def test_large_texts_other_types_and_passwords_are_not_small() -> None:
    assert job_rows.is_small("text/plain", 8192)
    assert job_rows.is_small("text/markdown", 1)
    assert not job_rows.is_small("text/plain", 8193)
    assert not job_rows.is_small("application/pdf", 100)
    assert not job_rows.is_small("text/plain; charset=utf-16", 100)


def test_ids_of_documents_ascend_with_time_and_differ(monkeypatch: pytest.MonkeyPatch) -> None:
    at = iter([1.0, 1.0, 1_800_000_000.0, 4_000_000_000.0])
    monkeypatch.setattr("ragsvc.core.ids.time.time", lambda: next(at))
    first, same, later, last = (new_document_id() for _ in range(4))
    assert first != same
    assert max(first, same) < later < last
    assert {len(public_id) for public_id in (first, same, later, last)} == {len("doc_") + 24}


def test_a_status_of_a_document_is_queued_until_it_is_ready(tmp_path: Path) -> None:
    async def main() -> None:
        service = InProcessIngest(tmp_path / "data", parser=TogetherParser())
        document = await service.upload(TEXTS[0], filename="0.txt")
        claimed = service.database.write_sync(lambda c: job_rows.claim_small(c, limit=10))
        assert [job.document.id for job in claimed] == [document.id]
        assert (await service.documents.get(ACME, document.public_id)).status is DocumentStatus.QUEUED
        assert service.database.write_sync(lambda c: job_rows.claim_small(c, limit=10)) == []
        assert service.database.write_sync(lambda c: job_rows.claim(c, now=1)) is None
        service.close()

    anyio.run(main)
