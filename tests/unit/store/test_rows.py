"""Statements about documents, jobs, passages and vectors, on a real database."""

import random
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from sqlalchemy import Connection, event

from ragsvc.core.documents import Document, DocumentStatus, Extraction, Page, Passage, Stage
from ragsvc.core.errors import DocumentNotFound
from ragsvc.core.ids import TenantId
from ragsvc.core.ports.embedding import EmbeddingModel
from ragsvc.core.ports.parsing import ParsedDocument
from ragsvc.core.retrieval.document_questions import DocumentQuestion
from ragsvc.core.retrieval.filters import parse_filter
from ragsvc.store import (
    conversation_rows,
    document_listing,
    document_rows,
    file_rows,
    job_rows,
    parsed_rows,
    passage_rows,
    tenant_rows,
    vector_rows,
)
from ragsvc.store.database import Database, driver_connection
from ragsvc.store.document_changes import change_document
from ragsvc.store.engines import engine_of
from ragsvc.store.index_source import SqliteIndexSource
from ragsvc.store.reingest import forget_embeddings
from ragsvc.store.sqlite_database import SqliteDatabase
from ragsvc.store.vector_rows import VectorsOutcome
from tests.support.engines import ONLY_SQLITE
from tests.support.stored_documents import ACME, MODEL, OTHER, add, make_ready


@pytest.fixture
def database(any_database: Database) -> Database:
    return any_database


def source(database: Database) -> SqliteIndexSource:
    return SqliteIndexSource(
        database, model_id=1, dimension=4, lexical_context=lambda title, name, headings, _: f"{title} {name} {headings}"
    )


def test_a_delete_leaves_no_row_and_tells_the_indexes(database: Database) -> None:
    document = add(database, "a")
    ids = make_ready(database, document)
    deleted = database.write_sync(lambda c: document_rows.delete_document(c, ACME, document.public_id))
    assert deleted.blob_unused
    for table in ("documents", "pages", "passages", "embeddings", "jobs"):
        statement = f"SELECT count(*) FROM {table}"  # noqa: S608 - a fixed list of names
        assert database.read_sync(lambda c, s=statement: c.exec_driver_sql(s).scalar_one()) == 0
    changes = source(database).changes(document.collection_id, 0, 10)
    assert [(change.op, change.ids().tolist()) for change in changes] == [
        ("add", ids),
        ("delete", ids),
    ]
    assert source(database).all_passage_ids(document.collection_id).size == 0


def test_ids_are_never_reused(database: Database) -> None:
    first = add(database, "a")
    first_ids = make_ready(database, first)
    database.write_sync(lambda c: document_rows.delete_document(c, ACME, first.public_id))
    second = add(database, "b")
    second_ids = make_ready(database, second)
    assert second.id > first.id
    assert min(second_ids) > max(first_ids)


def test_a_file_that_another_collection_needs_is_kept(database: Database) -> None:
    document = add(database, "a")

    def copy(connection: Connection) -> None:
        collection = document_rows.ensure_collection(connection, ACME, "second", now=1)
        document_rows.insert_document(
            connection,
            document_rows.NewDocument(
                public_id="doc_copy",
                tenant=ACME,
                collection=collection,
                filename="copy.pdf",
                media_type="application/pdf",
                size_bytes=3,
                sha256="a",
                metadata={},
                created_at=1,
            ),
        )

    database.write_sync(copy)
    assert not database.write_sync(lambda c: document_rows.delete_document(c, ACME, document.public_id)).blob_unused
    assert database.write_sync(lambda c: document_rows.delete_document(c, ACME, "doc_copy")).blob_unused


def test_another_tenant_sees_nothing(database: Database) -> None:
    document = add(database, "a")
    for call in (document_rows.get_document, document_rows.delete_document):
        with pytest.raises(DocumentNotFound):
            database.write_sync(lambda c, call=call: call(c, OTHER, document.public_id))
    which = document_listing.DocumentFilter()
    assert database.read_sync(lambda c: document_listing.list_documents(c, OTHER, which=which, limit=10)) == ([], False)


def test_text_of_an_unfinished_document_is_not_retrievable(database: Database) -> None:
    document = add(database, "a")
    parsed = ParsedDocument(Extraction(pages=[Page(1, "x")], page_count=1), [Passage(0, 1, 0, 1, "x")])
    database.write_sync(lambda c: parsed_rows.store_parsed(c, document.id, parsed, timings={}, now=2))
    assert database.read_sync(lambda c: passage_rows.load_passages(c, [1])) == {}
    assert source(database).all_passage_ids(document.collection_id).size == 0


def test_claims_take_turns_between_tenants(database: Database) -> None:
    for name in ("a", "b", "c"):
        add(database, name)
    add(database, "z", tenant=OTHER)
    claimed = [database.write_sync(lambda c: job_rows.claim(c, now=5)) for _ in range(4)]
    assert [job.document.tenant for job in claimed if job] == [ACME, OTHER, ACME, ACME]
    assert database.write_sync(lambda c: job_rows.claim(c, now=5)) is None
    assert database.write_sync(job_rows.release_running) == 4
    again = database.write_sync(lambda c: job_rows.claim(c, now=6))
    assert again is not None
    assert (again.attempts, again.password) == (2, "secret")


@ONLY_SQLITE
def test_claims_take_turns_whatever_the_order_of_the_queue(database: Database) -> None:
    """By kind, then by the number of running jobs of the tenant, then by age; compared with a sort of all jobs."""
    chosen = random.Random(7)  # noqa: S311 - a fixed sequence
    tenants = [TenantId(f"t{number}") for number in range(5)]
    for number in range(40):
        tenant = chosen.choice(tenants)
        document = add(database, f"d{number}", tenant=tenant)
        if chosen.random() < 0.3:
            make_ready(database, document)
            database.write_sync(lambda c, document=document: job_rows.enqueue_renewal(c, document, now=4))
    statement = (
        "SELECT jobs.id, document_id, jobs.tenant, status FROM jobs JOIN documents ON documents.id = document_id "
        "WHERE state = 'queued'"
    )
    left = {row.id: row for row in database.read_sync(lambda c: c.exec_driver_sql(statement).all())}
    waiting = chosen.sample(sorted(left), 4)
    busy = [left[job_id].document_id for job_id in chosen.sample(sorted(left), 4)]
    running = Counter[str]()
    while expected := [
        (row.status == DocumentStatus.READY, running[row.tenant], row.id)
        for row in left.values()
        if row.id not in waiting and row.document_id not in busy
    ]:
        job = database.write_sync(lambda c: job_rows.claim(c, now=5, waiting=waiting, busy=busy))
        assert job is not None
        assert job.job_id == min(expected)[2]
        running[left.pop(job.job_id).tenant] += 1
    assert database.write_sync(lambda c: job_rows.claim(c, now=5, waiting=waiting, busy=busy)) is None


def steps(database: Database, work: Callable[[Connection], object]) -> int:
    """Steps of SQLite's virtual machine, in tens, that ``work`` takes."""

    def count(connection: Connection) -> int:
        counted = []
        driver = driver_connection(connection)
        driver.set_progress_handler(lambda: counted.append(1), 10)
        try:
            work(connection)
        finally:
            driver.set_progress_handler(None, 10)
        return len(counted)

    return database.write_sync(count)


def queue(database: Database, first: int, last: int) -> None:
    """Store and queue documents with these numbers."""

    def write(connection: Connection) -> None:
        collection = document_rows.ensure_collection(connection, ACME, "default", now=1)
        values = [(f"doc_{number}", ACME, collection.id, f"{number:064x}") for number in range(first, last)]
        columns = (
            "public_id, tenant, collection_id, sha256, filename, media_type, size_bytes, status, stage, metadata, "
            "problems, timings, pages_total, pages_done, passages_total, passages_done, created_at, updated_at"
        )
        driver = driver_connection(connection)
        driver.executemany(
            f"INSERT INTO documents ({columns}) VALUES (?, ?, ?, ?, 'f', 'text/plain', 3, 'queued', 'queued', x'7b7d', "  # noqa: S608
            "x'5b5d', x'7b7d', 1, 1, 1, 0, 1, 1)",
            values,
        )
        driver.execute(
            "INSERT INTO jobs (document_id, tenant, state, attempts, created_at) "
            "SELECT id, tenant, 'queued', 0, 1 FROM documents WHERE id NOT IN (SELECT document_id FROM jobs)"
        )

    database.write_sync(write)


@ONLY_SQLITE
def test_a_claim_does_not_read_the_whole_queue(database: Database) -> None:
    queue(database, 0, 100)
    few = steps(database, lambda c: job_rows.claim(c, now=5))
    queue(database, 100, 5000)
    assert steps(database, lambda c: job_rows.claim(c, now=5)) <= 2 * few


@ONLY_SQLITE
def test_the_size_of_a_tenant_is_read_from_an_index(database: Database) -> None:
    """Rows of documents are large; without the index each of them was read for every upload."""
    queue(database, 0, 100)
    statements: list[tuple[str, Any]] = []

    def note(_connection, _cursor, statement, parameters, _context, _many) -> None:
        statements.append((statement, parameters))

    def explain(connection: Connection) -> list[str]:
        event.listen(connection.engine, "before_cursor_execute", note)
        assert tenant_rows.count_documents(connection, ACME) == (100, 300)
        event.remove(connection.engine, "before_cursor_execute", note)
        ((statement, parameters),) = statements
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
        return [row.detail for row in plan if "documents" in row.detail]

    assert database.write_sync(explain) == [
        "SEARCH documents USING COVERING INDEX documents_by_collection (collection_id=?)"
    ]


@ONLY_SQLITE
def test_the_rate_of_ingest_does_not_read_old_documents(database: Database) -> None:
    def rate(connection: Connection) -> None:
        found = document_rows.ingest_rate(connection, since=1_000)
        assert (found.documents, found.pages, found.failed) == (1, 1, 1)

    ready, failed = add(database, "ready"), add(database, "failed", tenant=OTHER)
    make_ready(database, ready)
    for document, status in ((ready, "ready"), (failed, "failed")):
        values = (status, 2_000, 2_000 if status == "ready" else None, 1, int(document.id))
        statement = "UPDATE documents SET status = ?, updated_at = ?, ready_at = ?, pages_total = ? WHERE id = ?"
        database.write_sync(lambda c, v=values, s=statement: c.exec_driver_sql(s, v))
    queue(database, 0, 100)
    few = steps(database, rate)
    queue(database, 100, 5000)
    assert steps(database, rate) <= 2 * few


@ONLY_SQLITE
def test_the_conversations_of_a_tenant_are_found_by_an_index(database: Database) -> None:
    def insert(first: int, last: int) -> None:
        values = [(f"conv_{n}", ACME, f"key_{n % 7}", n, n) for n in range(first, last)]
        columns = "public_id, tenant, key_id, created_at, last_active_at, metadata, collections"
        statement = f"INSERT INTO conversations ({columns}) VALUES (?, ?, ?, ?, ?, x'7b7d', x'5b5d')"  # noqa: S608
        database.write_sync(lambda c: driver_connection(c).executemany(statement, values))

    def page(connection: Connection) -> None:
        options: dict[str, Any] = {"limit": 20, "key_id": None, "active_after": 0}
        first = conversation_rows.conversation_page(connection, ACME, after=None, **options)
        second = conversation_rows.conversation_page(connection, ACME, after=first[-1], **options)
        times = [conversation.last_active_at for conversation in (*first, *second)]
        assert times == list(range(times[0], times[0] - 40, -1))

    insert(1, 100)
    few = steps(database, page)
    insert(100, 5000)
    assert steps(database, page) <= 2 * few


@ONLY_SQLITE
def test_files_with_a_purpose_are_found_by_an_index(database: Database) -> None:
    statements: list[tuple[str, Any]] = []

    def note(_connection, _cursor, statement, parameters, _context, _many) -> None:
        statements.append((statement, parameters))

    def explain(connection: Connection) -> list[str]:
        event.listen(connection.engine, "before_cursor_execute", note)
        file_rows.list_files(connection, ACME, now=1, limit=20, purpose="batch")
        event.remove(connection.engine, "before_cursor_execute", note)
        ((statement, parameters),) = statements
        return [row.detail for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)]

    how, *others = database.write_sync(explain)
    assert how == "SEARCH files USING INDEX files_by_purpose (tenant=? AND purpose=?)"
    assert not [step for step in others if "ORDER BY" in step], others


def test_jobs_of_a_collection_that_is_being_deleted_are_not_claimed(database: Database) -> None:
    queued, ready = add(database, "a"), add(database, "b")
    make_ready(database, ready)
    database.write_sync(lambda c: tenant_rows.mark_collections_deleted(c, ACME, now=3))
    assert database.write_sync(lambda c: forget_embeddings(c, now=4)) == 0
    database.write_sync(lambda c: job_rows.enqueue(c, queued.id, ACME, password=None, now=4))  # by an earlier release
    other = add(database, "z", tenant=OTHER)
    claimed = database.write_sync(lambda c: job_rows.claim(c, now=5))
    assert claimed is not None
    assert claimed.document.id == other.id
    assert database.write_sync(lambda c: job_rows.claim(c, now=5)) is None


def test_a_failure_keeps_the_row_with_its_reason_and_a_retry_starts_clean(database: Database) -> None:
    document = add(database, "a")
    database.write_sync(lambda c: job_rows.mark_failed(c, document.id, code="damaged", message="cut off", now=4))
    failed = database.read_sync(lambda c: document_rows.get_document(c, ACME, document.public_id))
    assert (failed.status, failed.failure_code) == (DocumentStatus.FAILED, "damaged")
    assert database.read_sync(job_rows.waiting_count) == 0
    database.write_sync(lambda c: job_rows.requeue(c, failed, password=None, now=5))
    again = database.read_sync(lambda c: document_rows.get_document(c, ACME, document.public_id))
    assert (again.status, again.stage, again.failure_code) == (DocumentStatus.QUEUED, Stage.QUEUED, None)
    assert database.read_sync(job_rows.waiting_count) == 1


def test_listing_pages_through_in_both_directions_with_filters(database: Database) -> None:
    names = [f"n{number:03d}" for number in range(25)]
    made = [add(database, name, metadata={"even": number % 2 == 0}) for number, name in enumerate(names)]
    ids = [document.public_id for document in made]
    which = document_listing.DocumentFilter(metadata=parse_filter({"type": "eq", "key": "even", "value": True}))
    even = ids[::2]

    def page(**cursor: object) -> tuple[list[str], bool]:
        found, more = database.read_sync(
            lambda c: document_listing.list_documents(c, ACME, which=which, limit=5, descending=False, **cursor)
        )
        return [document.public_id for document in found], more

    assert page() == (even[:5], True)
    assert page(after=even[4]) == (even[5:10], True)
    assert page(after=even[9]) == (even[10:], False)
    assert page(before=even[10]) == (even[5:10], True)
    newest, _ = database.read_sync(
        lambda c: document_listing.list_documents(
            c, ACME, which=document_listing.DocumentFilter(filename_contains="N02"), limit=9
        )
    )
    assert [document.public_id for document in newest] == ids[24:19:-1]


@ONLY_SQLITE
@pytest.mark.parametrize(
    "find",
    [
        lambda c: document_listing.documents_changed_since(c, ACME, 5, collections=(), limit=1001),
        lambda c: document_listing.list_documents(
            c, ACME, which=document_listing.DocumentFilter(statuses=(DocumentStatus.FAILED,)), limit=100
        )[0],
    ],
)
def test_changed_and_failed_documents_are_found_without_reading_the_others(
    database: Database, find: Callable[[Connection], list[Document]]
) -> None:
    def add_ready(first: int, last: int) -> None:
        queue(database, first, last)
        changes = (
            "status = CASE WHEN id = 7 THEN 'failed' ELSE 'ready' END, updated_at = CASE WHEN id = 7 THEN 9 ELSE 1 END"
        )
        database.write_sync(lambda c: c.exec_driver_sql(f"UPDATE documents SET {changes}"))  # noqa: S608 - a constant

    add_ready(0, 100)
    few = steps(database, find)
    add_ready(100, 5000)
    assert [document.public_id for document in database.read_sync(find)] == ["doc_6"]
    assert steps(database, find) <= 2 * few


@ONLY_SQLITE
@pytest.mark.parametrize("order", document_listing.DocumentOrder)
def test_a_list_with_a_filter_that_fits_one_document_reads_each_once(
    database: Database, order: document_listing.DocumentOrder
) -> None:
    year = document_listing.DocumentFilter(metadata=parse_filter({"type": "eq", "key": "year", "value": 2024}))

    def find(connection: Connection) -> list[str]:
        found, more = document_listing.list_documents(connection, ACME, which=year, limit=20, order=order)
        assert not more
        return [document.public_id for document in found]

    queue(database, 0, 500)
    few = steps(database, find)
    queue(database, 500, 5000)
    assert steps(database, find) <= 20 * few
    database.write_sync(
        lambda c: change_document(c, ACME, "doc_77", filename=None, change_metadata=lambda _: {"year": 2024}, now=3)
    )
    assert database.read_sync(find) == ["doc_77"]


def test_equal_text_of_one_tenant_shares_a_vector(database: Database) -> None:
    make_ready(database, add(database, "a"), texts=("same", "else"))
    digest = vector_rows.embedding_hash("same")
    known = database.read_sync(lambda c: vector_rows.cached_vectors(c, ACME, 1, [digest, b"?" * 16]))
    assert list(known) == [digest]
    assert database.read_sync(lambda c: vector_rows.cached_vectors(c, OTHER, 1, [digest])) == {}


def vectors_for(database: Database, document: Document, model_id: int, text: str) -> VectorsOutcome:
    """Store a vector for each passage of ``document``, as if ``text`` had been embedded for it."""

    def write(connection: Connection) -> VectorsOutcome:
        stored = vector_rows.passages_to_embed(
            connection, document.id, model_id, after=0, limit=100, only_missing=False
        )
        digest = vector_rows.embedding_hash(text)
        new = [vector_rows.PassageVector(passage.id, digest, bytes(8)) for passage in stored]
        return vector_rows.store_vectors(connection, document, model_id, new, now=3)

    return database.write_sync(write)


def test_a_passage_with_vectors_of_different_texts_shares_none_of_them(database: Database) -> None:
    document = add(database, "a")
    make_ready(database, document, texts=("whole text",))
    other = EmbeddingModel(name="other", dimension=4, max_tokens=256, fingerprint="other")
    other_id = database.write_sync(lambda c: vector_rows.model_row_id(c, other, now=2))
    digests = [vector_rows.embedding_hash(text) for text in ("whole text", "condensed text")]

    def known(model_id: int) -> list[bytes]:
        return list(database.read_sync(lambda c: vector_rows.cached_vectors(c, ACME, model_id, digests)))

    assert (known(1), known(other_id)) == (digests[:1], [])
    assert vectors_for(database, document, other_id, "whole text") is VectorsOutcome.STORED
    assert (known(1), known(other_id)) == (digests[:1], digests[:1])
    assert vectors_for(database, document, other_id, "condensed text") is VectorsOutcome.STORED
    assert (known(1), known(other_id)) == ([], [])


def test_a_document_renamed_after_its_last_vector_is_not_made_ready_with_it(database: Database) -> None:
    document = add(database, "a")
    parsed = ParsedDocument(Extraction(pages=[Page(1, "x")], page_count=1), [Passage(0, 1, 0, 1, "x")])
    database.write_sync(lambda c: parsed_rows.store_parsed(c, document.id, parsed, timings={}, now=2))
    model_id = database.write_sync(lambda c: vector_rows.model_row_id(c, MODEL, now=2))
    assert vectors_for(database, document, model_id, "a x") is VectorsOutcome.STORED
    renamed = database.write_sync(
        lambda c: change_document(c, ACME, document.public_id, filename="b.pdf", change_metadata=None, now=4)
    )

    def mark(embedded: Document) -> job_rows.JobOutcome:
        return database.write_sync(
            lambda c: job_rows.mark_ready(c, embedded, model=MODEL, model_id=model_id, timings={}, now=5)
        )

    assert mark(document) is job_rows.JobOutcome.DOCUMENT_RENAMED
    assert source(database).head_seq(document.collection_id) == 0
    assert vectors_for(database, document, model_id, "a x") is VectorsOutcome.DOCUMENT_RENAMED
    assert vectors_for(database, renamed, model_id, "b x") is VectorsOutcome.STORED
    assert mark(renamed) is job_rows.JobOutcome.DONE


def test_the_index_reads_unit_vectors_and_skips_what_is_gone(database: Database) -> None:
    document = add(database, "a")
    ids = make_ready(database, document)
    found, owners, vectors = source(database).vectors(document.collection_id, np.array([*ids, 999], dtype=np.int64))
    assert found.tolist() == ids
    assert owners.tolist() == [document.id] * 2
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)
    texts = source(database).lexical(document.collection_id, found)
    assert [(passage.id, passage.text) for passage in texts] == [(ids[0], "one"), (ids[1], "two")]
    assert source(database).head_seq(document.collection_id) == 1


@pytest.mark.parametrize(
    "text",
    [
        'He said "no\\yes"',
        "tab\tand\nline\x01\x1f",
        "\u2028 \u00e9\u4e2d\u6587 \U0001f600",
        "[1, null]",
        "x" * 2_000_000,
    ],
)
def test_rows_come_back_letter_by_letter(database: Database, text: str) -> None:
    document = add(database, "strange")
    ids = make_ready(database, document, texts=(text, "plain"))
    whole = database.read_sync(lambda c: passage_rows.load_passages(c, [*ids, 999]))
    assert {passage.text for passage in whole.values()} == {text, "plain"}
    assert database.read_sync(lambda c: passage_rows.load_names(c, [document.id, 999])) == {
        document.id: ("strange.pdf", None)
    }
    first_page = DocumentQuestion(pages=("1",))
    asked = database.read_sync(
        lambda c: passage_rows.load_asked_passages(c, first_page, documents=[document.id, 999], collection_id=None)
    )
    assert asked == [(passage, document.id) for passage in ids]
    texts = database.read_sync(lambda c: passage_rows.load_texts(c, [*ids, 999]))
    assert {passage: found.decode() for passage, found in texts.items()} == dict(zip(ids, (text, "plain"), strict=True))
    assert database.read_sync(lambda c: passage_rows.load_passages(c, [])) == {}
    assert database.read_sync(lambda c: passage_rows.load_texts(c, [])) == {}


@ONLY_SQLITE
def test_expiring_files_are_found_without_reading_the_others(database: Database) -> None:
    def fill(first: int, last: int) -> None:
        database.write_sync(
            lambda c: c.exec_driver_sql(
                "INSERT INTO files (public_id, tenant, filename, media_type, size_bytes, sha256, purpose, status, "
                "created_at, implicit) WITH RECURSIVE n(i) AS (SELECT ? UNION ALL SELECT i + 1 FROM n WHERE i < ?) "
                "SELECT 'file-' || i, 'acme', 'a', 'text/plain', 3, i, 'assistants', 'processed', 1, i % 2 FROM n",
                (first, last),
            )
        )

    def sweep(connection: Connection) -> None:
        assert file_rows.expired_files(connection, now=5, limit=10) == []
        assert file_rows.next_file_expiry(connection) is None
        assert file_rows.doomed_files(connection, limit=1) == []

    fill(1, 100)
    few = steps(database, sweep)
    fill(101, 5000)
    assert steps(database, sweep) <= 2 * few
    assert database.read_sync(lambda c: tenant_rows.stored_bytes(c, ACME)) == 15_000
    assert database.read_sync(lambda c: file_rows.count_uploaded_files(c, ACME)) == 2500


def test_requested_passages_are_found_by_their_ids(any_database: Database) -> None:
    """Not by reading all rows: SQLite uses no index for a condition that is compared with a number."""
    make_ready(any_database, add(any_database, "a"))
    is_sqlite = isinstance(any_database, SqliteDatabase)

    def plan(connection: Connection) -> str:
        driver = driver_connection(connection)
        compiled = passage_rows._rows_as_json._statement.of_engine(connection)
        if not is_sqlite:
            driver.execute("SET LOCAL enable_seqscan = off")  # a small table is read whole otherwise
        explained = f"EXPLAIN QUERY PLAN {compiled._query}" if is_sqlite else b"EXPLAIN " + compiled._query
        wanted = engine_of(connection).encode_ids([1, 2])
        rows = driver.execute(explained, {**compiled._values, "ids": wanted}).fetchall()
        return "\n".join(str(row[-1]) for row in rows)

    found = any_database.read_sync(plan)
    assert ("SEARCH passages USING INTEGER PRIMARY KEY" if is_sqlite else "passages_pkey") in found, found
