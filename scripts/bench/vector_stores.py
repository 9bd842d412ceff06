"""Time to count and to list the files of a large vector store over HTTP, and the query plans behind it.

    scripts/bench_vector_stores [--files N] [--rounds N] [--json]

The rows are written directly: neither text nor vectors matter here. A tenth of the files has failed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

import httpx
import sqlalchemy as sa

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from ragsvc.core.documents import DocumentStatus
from ragsvc.core.ids import TenantId
from ragsvc.core.vector_stores import StoreFileStatus
from ragsvc.store import document_rows, store_file_rows
from ragsvc.store.sqlite_database import SqliteDatabase
from ragsvc.testing.service_runner import RunningService, create_key
from scripts.bench.measuring import median, percentile, print_json

_TENANT = TenantId("acme")
_AT_ONCE = 1000
_OF_A_BATCH = 2000


def fill(data_dir: Path, files: int) -> str:
    """Write a store with ready and failed documents; returns its public id."""
    database = SqliteDatabase(data_dir / "ragsvc.sqlite")
    collection = database.write_sync(lambda c: document_rows.ensure_collection(c, _TENANT, "large", now=1))
    batch = database.write_sync(lambda c: store_file_rows.insert_batch(c, collection, "vsfb_large", now=1))

    def add(connection: sa.Connection, numbers: range) -> None:
        for number in numbers:
            new = document_rows.NewDocument(
                public_id=f"doc_{number:024x}",
                tenant=_TENANT,
                collection=collection,
                filename=f"report-{number}.pdf",
                media_type="application/pdf",
                size_bytes=1000,
                sha256=f"{number:064x}",
                metadata={"year": 2000 + number % 25, "author": "An author with a name", "topic": "x" * 100},
                created_at=number // 10,
            )
            document_rows.insert_document(connection, new)

    for begin in range(0, files, _AT_ONCE):
        database.write_sync(lambda c, b=begin: add(c, range(b, min(b + _AT_ONCE, files))))
    of_batch = f"FROM document_files LIMIT {_OF_A_BATCH}"
    statements = (
        f"UPDATE documents SET status = '{DocumentStatus.READY}', stage = 'ready'",  # noqa: S608 - values of an enumeration
        f"UPDATE documents SET status = '{DocumentStatus.FAILED}', failure_code = 'no_text' WHERE id % 10 = 0",  # noqa: S608 - as above
        f"INSERT INTO batch_files SELECT {batch}, created_at, file_id, document_id {of_batch}",
    )
    for statement in statements:
        database.write_sync(lambda c, s=statement: c.exec_driver_sql(s))
    print_plans(database, collection, batch)
    database.close()
    return collection.public_id


def print_plans(database: SqliteDatabase, collection, batch: int) -> None:
    """Print how SQLite runs the statements that are measured."""
    seen: list[tuple[str, tuple]] = []

    def note(_connection, _cursor, statement, parameters, _context, _many) -> None:
        seen.append((statement, parameters))

    def read(connection: sa.Connection) -> None:
        sa.event.listen(connection.engine, "before_cursor_execute", note)
        store_file_rows.count_files(connection, collection.id)
        for status in (None, StoreFileStatus.FAILED):
            store_file_rows.list_store_files(connection, collection, status=status, limit=100)
        store_file_rows.list_store_files(connection, collection, batch_id=batch, limit=100)
        sa.event.remove(connection.engine, "before_cursor_execute", note)
        names = ("count documents", "count files", "list", "list failed", "list a batch")
        for name, (statement, parameters) in zip(names, seen, strict=True):
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters)
            print(f"{name}: " + "; ".join(row[3] for row in plan), file=sys.stderr)

    database.read_sync(read)


def measure(client: httpx.Client, store: str, rounds: int) -> dict[str, list[float]]:
    """Milliseconds of each request, by its name."""
    base = f"/v1/vector_stores/{store}"
    middle = client.get(f"{base}/files", params={"limit": 100}).json()["last_id"]
    requests = {
        "count": (base, {}),
        "list the first 100": (f"{base}/files", {"limit": 100}),
        "list 100 after a file": (f"{base}/files", {"limit": 100, "after": middle}),
        "list 100 that failed": (f"{base}/files", {"limit": 100, "filter": "failed"}),
        "list in progress (none)": (f"{base}/files", {"limit": 100, "filter": "in_progress"}),
        "count a batch of 2000": (f"{base}/file_batches/vsfb_large", {}),
        "list 100 of a batch": (f"{base}/file_batches/vsfb_large/files", {"limit": 100}),
        "nothing (models)": ("/v1/models", {}),
        "list stores": ("/v1/vector_stores", {}),
        "show the collection": ("/v1/rag/collections/large", {}),
    }
    times: dict[str, list[float]] = {name: [] for name in requests}
    for _ in range(rounds):
        for name, (path, query) in requests.items():
            begin = time.perf_counter()
            reply = client.get(path, params=query)
            times[name].append((time.perf_counter() - begin) * 1000)
            assert reply.status_code == 200, reply.text
    return times


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data_dir = Path(folder) / "data"
        key = create_key(data_dir, tenant=_TENANT)
        store = fill(data_dir, options.files)
        service = RunningService(data_dir)
        try:
            with service.client(key) as client:
                times = measure(client, store, options.rounds)
        finally:
            service.stop()
    measured = {
        name: {"p50_ms": round(median(values), 2), "p99_ms": round(percentile(values, 0.99), 2)}
        for name, values in times.items()
    }
    if options.json:
        print_json({"files": options.files, **measured})
    else:
        print(f"{options.files} files in one vector store, {options.rounds} requests each")
        for name, values in measured.items():
            print(f"{name:<26} p50 {values['p50_ms']:7.2f} ms   p99 {values['p99_ms']:7.2f} ms")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
