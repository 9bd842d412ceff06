"""A renamed document: found by its new name and not by the former one, whatever is interrupted."""

from __future__ import annotations

import shutil
from hashlib import blake2b
from pathlib import Path

import anyio
import numpy as np
import pytest

from ragsvc.core.documents import DocumentStatus
from ragsvc.core.errors import EmbeddingFailed
from ragsvc.core.ports.embedding import EmbeddingModel
from ragsvc.core.retrieval.search_values import SearchMode
from ragsvc.core.text.chunking import embedding_text
from ragsvc.services.embedding_spaces import EmbeddingSpace
from ragsvc.services.model_change import Reembedding
from ragsvc.store import job_rows, serving_model
from ragsvc.store.reingest import forget_embeddings
from ragsvc.store.vector_rows import delete_vectors, model_row_id, passages_to_embed
from ragsvc.testing.fakes import FakeEmbedder
from tests.support.in_process_ingest import InProcessIngest, ObservedEmbedder
from tests.support.stored_documents import ACME

pytestmark = pytest.mark.anyio

LINES = "\n".join(f"The invoice lists position {number} of the delivery." for number in range(150))
NEW = "Invoice Kessler Plumbing.txt"


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def stored_vectors(service: InProcessIngest, document, model_id: int) -> np.ndarray:
    statement = (
        "SELECT vector FROM embeddings JOIN passages ON passages.id = passage_id "
        "WHERE document_id = ? AND model_id = ? ORDER BY passages.id"
    )
    rows = service.database.read_sync(lambda c: c.exec_driver_sql(statement, (document.id, model_id)).scalars().all())
    return np.stack([np.frombuffer(row, "<f2") for row in rows])


def expected_vectors(service: InProcessIngest, document, filename: str) -> np.ndarray:
    """Vectors of the document's passages under a file name, made by the model at once."""
    stored = service.database.read_sync(
        lambda c: passages_to_embed(c, document.id, service.model_id, after=0, limit=1000, only_missing=False)
    )
    texts = [embedding_text(passage.passage, title=document.title, filename=filename) for passage in stored]
    return FakeEmbedder().embed_passages(texts).astype("<f2")


def assert_vectors_follow(service: InProcessIngest, document, filename: str = NEW) -> None:
    np.testing.assert_array_equal(
        stored_vectors(service, document, service.model_id), expected_vectors(service, document, filename)
    )
    report = service.indexes.verify(document.collection_id)
    assert report.ok, report


async def test_words_follow_at_once_and_vectors_in_the_background(tmp_path: Path) -> None:
    go_on = anyio.Event()
    go_on.set()
    embedder = ObservedEmbedder(before=lambda _: go_on.wait())
    async with InProcessIngest(tmp_path, embedder=embedder).running() as service:
        document = await service.add(LINES, filename="scan0002.txt")
        await service.add("Something else entirely.", filename="other.txt")
        before = await service.cosine("Kessler Plumbing")
        assert await service.found("scan0002") == ["scan0002.txt"]
        go_on = anyio.Event()
        renamed = await service.rename(document, NEW)
        assert (renamed.status, renamed.filename) == (DocumentStatus.READY, NEW)
        assert await service.found("Kessler Plumbing") == [NEW]
        assert await service.found("scan0002") == []
        assert await service.cosine("Kessler Plumbing") == before  # the vectors of the former name serve
        assert service.indexes.verify(document.collection_id).ok
        go_on.set()
        await service.idle()
        assert await service.cosine("Kessler Plumbing") > before + 0.1
        assert await service.found("Kessler Plumbing", mode=SearchMode.HYBRID) == [NEW]
        assert_vectors_follow(service, document)
        current = await service.documents.get(ACME, document.public_id)
        assert (current.passages_done, current.passages_total, current.ready_at) == (150, 150, document.ready_at)


async def test_a_kill_at_any_step_is_made_up_for_by_the_next_start(tmp_path: Path) -> None:
    copies: list[Path] = []

    def copy(_texts: object = None) -> None:
        copies.append(tmp_path / f"copy{len(copies)}")
        service.copy_as_if_killed(copies[-1])

    async with InProcessIngest(tmp_path / "data").running() as service:
        document = await service.add(LINES, filename="scan0002.txt")
        service.batcher.before = copy
        await service.rename(document, NEW)
        copy()
        await service.idle()
        copy()
    assert len(copies) >= 5  # after the commit of the rename, before each of three batches, at the end
    for folder in copies:
        async with InProcessIngest(folder).running() as service:
            assert await service.found("Kessler Plumbing") == [NEW]
            assert await service.found("scan0002") == []
            await service.idle()
            assert_vectors_follow(service, document)
            assert len(service.batcher.embedded) <= 150
        shutil.rmtree(folder)


async def test_a_restart_continues_behind_the_stored_batches(tmp_path: Path) -> None:
    async with InProcessIngest(tmp_path / "data").running() as service:
        document = await service.add(LINES, filename="scan0002.txt")
        calls: list[int] = []

        def copy_at_third(_texts: list[str]) -> None:
            calls.append(1)
            if len(calls) == 3:
                service.copy_as_if_killed(tmp_path / "copy")

        service.batcher.before = copy_at_third
        await service.rename(document, NEW)
        await service.idle()
    async with InProcessIngest(tmp_path / "copy").running() as service:
        await service.idle()
        assert 0 < len(service.batcher.embedded) < 150
        assert_vectors_follow(service, document)


async def test_of_renames_in_a_row_the_last_counts(tmp_path: Path) -> None:
    names = ["first.txt", "second.txt", NEW]
    async with InProcessIngest(tmp_path).running() as service:
        document = await service.add(LINES, filename="scan0002.txt")

        async def rename_again() -> None:
            if names:
                await service.rename(document, names.pop(0))

        service.batcher.before = lambda _texts: rename_again()
        await service.rename(document, "zeroth.txt")
        await service.idle()
        assert names == []
        assert await service.found("Kessler Plumbing") == [NEW]
        for former in ("scan0002", "zeroth", "first", "second"):
            assert await service.found(former) == []
        assert_vectors_follow(service, document)


async def test_a_document_renamed_during_its_ingest_gets_vectors_of_its_new_name(tmp_path: Path) -> None:
    async with InProcessIngest(tmp_path).running() as service:
        calls: list[int] = []

        async def rename_at_second() -> None:
            calls.append(1)
            if len(calls) == 2:
                await service.rename(document, NEW)

        service.batcher.before = lambda _texts: rename_at_second()
        document = await service.upload(LINES, filename="scan0002.txt")
        ready = await service.documents.wait(ACME, document.public_id, timeout_s=60)
        assert (ready.status, ready.filename, ready.passages_done) == (DocumentStatus.READY, NEW, 150)
        assert await service.found("Kessler Plumbing") == [NEW]
        assert await service.found("scan0002") == []
        await service.idle()
        assert_vectors_follow(service, document)


async def test_a_document_renamed_and_renamed_back_during_its_ingest_gets_all_vectors(tmp_path: Path) -> None:
    async with InProcessIngest(tmp_path).running() as service:
        calls: list[int] = []

        async def rename_at_third() -> None:
            calls.append(1)
            if len(calls) == 3:
                await service.rename(document, "other.txt")
                await service.rename(document, "scan0002.txt")

        service.batcher.before = lambda _texts: rename_at_third()
        document = await service.upload(LINES, filename="scan0002.txt")
        ready = await service.documents.wait(ACME, document.public_id, timeout_s=60)
        assert (ready.status, ready.filename, ready.passages_done) == (DocumentStatus.READY, "scan0002.txt", 150)
        await service.idle()
        assert_vectors_follow(service, document, "scan0002.txt")


async def test_a_renewal_whose_vectors_were_deleted_meanwhile_does_not_end(tmp_path: Path) -> None:
    async with InProcessIngest(tmp_path).running() as service:
        document = await service.add(LINES, filename="scan0002.txt")
        calls: list[int] = []

        def delete_at_third(_texts: list[str]) -> None:
            calls.append(1)
            if len(calls) == 3:
                service.database.write_sync(lambda c: delete_vectors(c, document.id))

        service.batcher.before = delete_at_third
        await service.rename(document, NEW)
        await service.idle()
        assert_vectors_follow(service, document)


async def test_a_name_that_changes_no_word_costs_nothing(tmp_path: Path) -> None:
    async with InProcessIngest(tmp_path).running() as service:
        document = await service.add("The crane lifts ninety tonnes.", filename="crane.txt")
        head = service.source.head_seq(document.collection_id)
        renamed = await service.rename(document, "crane.md")  # extensions are no words
        assert renamed.filename == "crane.md"
        assert service.jobs() == 0
        assert service.source.head_seq(document.collection_id) == head


async def test_a_failure_is_tried_again_and_the_document_stays_ready(tmp_path: Path) -> None:
    async with InProcessIngest(tmp_path).running() as service:
        document = await service.add(LINES, filename="scan0002.txt")
        calls: list[int] = []

        def fail_twice(_texts: list[str]) -> None:
            calls.append(1)
            if len(calls) <= 2:
                raise EmbeddingFailed("the model ran out of memory")

        service.batcher.before = fail_twice
        await service.rename(document, NEW)
        await service.idle()
        assert_vectors_follow(service, document)


async def test_failures_without_end_leave_a_ready_document_with_its_former_vectors(tmp_path: Path, caplog) -> None:
    async with InProcessIngest(tmp_path).running() as service:
        document = await service.add(LINES, filename="scan0002.txt")

        def fail(_texts: list[str]) -> None:
            raise EmbeddingFailed("the model ran out of memory")

        service.batcher.before = fail
        await service.rename(document, NEW)
        await service.idle()
        current = await service.documents.get(ACME, document.public_id)
        assert (current.status, current.failure_code) == (DocumentStatus.READY, None)
        assert_vectors_follow(service, document, "scan0002.txt")
        assert await service.found("Kessler Plumbing") == [NEW]
        assert [record for record in caplog.records if record.levelname == "ERROR"][-1].message.startswith(
            f"new vectors for the renamed {document.public_id} failed 10 times"
        )


async def test_a_rename_during_the_last_attempt_starts_the_attempts_again(tmp_path: Path) -> None:
    async with InProcessIngest(tmp_path).running() as service:
        document = await service.add("The crane lifts ninety tonnes.", filename="crane.txt")
        attempts: list[int] = []

        async def fail_ten_times() -> None:
            attempts.append(1)
            if len(attempts) == 10:
                await service.rename(document, NEW)
            if len(attempts) <= 10:
                raise EmbeddingFailed("the model ran out of memory")

        service.batcher.before = lambda _texts: fail_ten_times()
        await service.rename(document, "other.txt")
        await service.idle()
        assert len(attempts) == 11
        assert_vectors_follow(service, document)


async def test_failing_renewals_do_not_keep_the_workers_from_ingesting(tmp_path: Path) -> None:
    async with InProcessIngest(tmp_path, retry_s=600).running() as service:
        documents = [await service.add(f"Text number {n}.", filename=f"scan{n}.txt") for n in range(4)]
        failed: list[str] = []

        def fail_renewals(texts: list[str]) -> None:
            if any("Kessler" in text for text in texts):
                failed.extend(texts)
                raise EmbeddingFailed("the model ran out of memory")

        service.batcher.before = fail_renewals
        for n, document in enumerate(documents):
            await service.rename(document, f"Kessler {n}.txt")
        with anyio.fail_after(30):
            while len(failed) < len(documents):
                await anyio.sleep(0.01)
            ready = await service.add("Another text.", filename="another.txt")
        assert ready.status is DocumentStatus.READY
        assert len(failed) == len(documents)  # each waits before its next attempt
        assert service.jobs() == len(documents)


async def test_a_failed_renewal_is_tried_again_after_the_wait_without_a_new_upload(tmp_path: Path) -> None:
    async with InProcessIngest(tmp_path, retry_s=0.5).running() as service:
        document = await service.add("The crane lifts ninety tonnes.", filename="crane.txt")
        attempts: list[float] = []

        def fail_once(_texts: list[str]) -> None:
            attempts.append(anyio.current_time())
            if len(attempts) == 1:
                raise EmbeddingFailed("the model ran out of memory")

        service.batcher.before = fail_once
        await service.rename(document, NEW)
        with anyio.fail_after(15):
            await service.idle()
        assert attempts[1] - attempts[0] >= 0.5
        assert_vectors_follow(service, document)


async def test_a_delete_ends_the_renewal(tmp_path: Path) -> None:
    async with InProcessIngest(tmp_path).running() as service:
        document = await service.add(LINES, filename="scan0002.txt")

        async def delete() -> None:
            service.batcher.before = lambda _texts: None
            await service.documents.delete(ACME, document.public_id)

        service.batcher.before = lambda _texts: delete()
        await service.rename(document, NEW)
        await service.idle()
        assert await service.found("Kessler Plumbing") == []
        assert service.indexes.verify(document.collection_id).ok


def test_renewals_wait_for_uploads_and_do_not_count_as_queued_documents(tmp_path: Path) -> None:
    async def main() -> None:
        async with InProcessIngest(tmp_path).running() as service:
            document = await service.add("The crane lifts ninety tonnes.", filename="crane.txt")
            service.ingest.drain()
            await service.rename(document, NEW)
            database = service.database
            assert database.read_sync(job_rows.waiting_count) == 0
            await service.upload("Another text.", filename="another.txt")
            assert database.read_sync(job_rows.waiting_count) == 1
            claimed = [database.write_sync(lambda c: job_rows.claim(c, now=5)) for _ in range(2)]
            assert [job.work for job in claimed] == [job_rows.JobWork.PARSE, job_rows.JobWork.RENEW_VECTORS]

    anyio.run(main)


async def test_forgetting_all_vectors_takes_over_a_queued_renewal(tmp_path: Path) -> None:
    async with InProcessIngest(tmp_path).running() as service:
        document = await service.add(LINES, filename="scan0002.txt")
        service.ingest.drain()
        await service.rename(document, NEW)
        assert service.database.write_sync(lambda c: forget_embeddings(c, now=9)) == 1
        job = service.database.write_sync(lambda c: job_rows.claim(c, now=9))
        assert job.work is job_rows.JobWork.EMBED


async def test_a_change_of_the_model_does_not_keep_vectors_of_the_former_name(tmp_path: Path) -> None:
    """A document is renamed after the new model has embedded it, and another one while it is being embedded."""
    async with InProcessIngest(tmp_path).running() as service:
        documents = [await service.add(f"Text number {n}.", filename=f"scan{n}.txt") for n in range(3)]
        target = EmbeddingModel(name="target", dimension=64, max_tokens=256, fingerprint="target")
        target_id = service.database.write_sync(lambda c: model_row_id(c, target, now=2))
        calls: list[int] = []

        async def rename() -> None:
            calls.append(1)
            if len(calls) == 2:
                await service.rename(documents[0], "Kessler first.txt")
                await service.rename(documents[1], "Kessler second.txt")

        space = EmbeddingSpace(
            model=target,
            model_id=target_id,
            batcher=ObservedEmbedder(before=lambda _texts: rename()),
            indexes=service.indexes,
            prepare=str,
            knows=lambda _: True,
        )

        async def nothing() -> None:
            return None

        work = Reembedding(database=service.database, target=space, prepare=nothing, swap=nothing, retry_s=0)
        await work.run()
        await service.idle()
        assert service.database.read_sync(serving_model.serving_model).id == target_id
        for document, name in zip(documents, ("Kessler first.txt", "Kessler second.txt", "scan2.txt"), strict=True):
            np.testing.assert_array_equal(
                stored_vectors(service, document, target_id), expected_vectors(service, document, name)
            )


async def test_vectors_of_another_form_of_the_text_are_not_reused(tmp_path: Path) -> None:
    line = "The falcons (of the tower) are fed!"

    def condensed(text: str) -> str:
        return text.replace(" (of the tower)", "")

    async with InProcessIngest(tmp_path).running() as service:
        await service.add(line, filename="falcons.txt")
    async with InProcessIngest(tmp_path, prepare=condensed).running() as service:
        document = await service.add(line + "\n", filename="falcons.txt")
        assert service.batcher.embedded == ["falcons\nThe falcons are fed!"]
        copy = await service.add(line + "\n\n", filename="falcons.txt")
        assert len(service.batcher.embedded) == 1  # equal text of the same form is embedded once
        np.testing.assert_array_equal(
            stored_vectors(service, document, service.model_id)[0], stored_vectors(service, copy, service.model_id)[0]
        )


async def test_vectors_of_earlier_releases_stay_in_use_and_are_not_copied(tmp_path: Path) -> None:
    """They stored the hash of the text before condensing, which does not tell what was embedded."""
    async with InProcessIngest(tmp_path).running() as service:
        document = await service.add("The crane lifts.", filename="crane.txt")
        service.database.write_sync(
            lambda c: c.exec_driver_sql(
                "UPDATE passages SET embedding_hash = ?",
                (blake2b(b"crane\nThe crane lifts.", digest_size=16).digest(),),
            ).close()
        )
        before = stored_vectors(service, document, service.model_id)
    async with InProcessIngest(tmp_path).running() as service:
        assert await service.found("crane", mode=SearchMode.DENSE) == ["crane.txt"]
        await service.add("The crane lifts.\n", filename="crane.txt")
        assert len(service.batcher.embedded) == 1
        np.testing.assert_array_equal(stored_vectors(service, document, service.model_id), before)
