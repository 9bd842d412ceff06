"""Lists of many entries take little time of the event loop."""

from __future__ import annotations

import io
import json
import tarfile
import time
from pathlib import Path
from typing import NamedTuple

import httpx
import msgspec
import pytest
from prometheus_client import CollectorRegistry

from ragsvc.config import Settings
from ragsvc.core.ids import CollectionId
from ragsvc.core.readiness import Readiness
from ragsvc.core.vector_stores import VectorStore
from ragsvc.services.access_control import Access
from ragsvc.services.file_service import FileService
from ragsvc.services.key_administration import KeyAdministration
from ragsvc.services.tenant_export import formatted_json
from ragsvc.store.vector_store_rows import ExportedStore
from ragsvc.web.app import create_app
from ragsvc.web.routes import files as file_routes
from tests.support.in_process_ingest import InProcessIngest
from tests.support.store_services import StoreServices
from tests.support.stored_documents import ACME

pytestmark = pytest.mark.anyio

FILES = """
WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 10000)
INSERT INTO files (public_id, tenant, filename, media_type, size_bytes, sha256, purpose, status, created_at, implicit)
SELECT printf('file-%024d', n), 'acme', 'report ' || n || '.pdf', 'application/pdf', n, printf('%064d', n),
'assistants', 'processed', n, false FROM numbers
"""


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class ServicesOfFiles(NamedTuple):
    access: Access
    keys: KeyAdministration
    readiness: Readiness
    registry: CollectorRegistry
    files: FileService
    settings: Settings


async def test_a_list_of_10000_files_keeps_the_event_loop_free(tmp_path: Path) -> None:
    """The share of the loop's thread in the processor time of the process, whatever else the machine does."""
    services = StoreServices(InProcessIngest(tmp_path / "data"))
    async with services.running():
        services.database.write_sync(lambda c: c.exec_driver_sql(FILES))
        key = (await services.key(ACME)).text
        made = ServicesOfFiles(
            services.access, services.keys, Readiness(), CollectorRegistry(), services.files, Settings()
        )
        app = create_app(made, route_handlers=file_routes.route_handlers)
        headers = {"authorization": f"Bearer {key}"}
        transport = httpx.ASGITransport(app)
        used: dict[int, tuple[float, float]] = {}
        async with app.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            for limit in (1, 10_000):
                attempts = []
                for _ in range(5):
                    begin, begin_in_all = time.thread_time(), time.process_time()
                    reply = await client.get("/v1/files", params={"limit": limit}, headers=headers)
                    attempts.append((time.thread_time() - begin, time.process_time() - begin_in_all))
                    assert reply.status_code == 200, reply.text
                used[limit] = min(attempts)
            page = reply.json()
        assert (len(page["data"]), page["has_more"]) == (10_000, False)
        assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])
        assert page["data"][-1] == {
            "id": "file-" + "1".zfill(24),
            "object": "file",
            "bytes": 1,
            "created_at": 1,
            "expires_at": None,
            "filename": "report 1.pdf",
            "purpose": "assistants",
            "status": "processed",
            "status_details": None,
        }
        more_in_loop, more_in_all = (used[10_000][of] - used[1][of] for of in (0, 1))
        assert more_in_loop < 0.08 * more_in_all


USAGE = """
WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 30000)
INSERT INTO usage (key_id, day, model, family, tenant, prompt_tokens, completion_tokens, requests)
SELECT 'key_1', n, 'model', 'chat', 'acme', n, n, 1 FROM numbers
"""
CONVERSATION = """
INSERT INTO conversations VALUES (1, 'conv_1', 'acme', CAST('{}' AS BLOB), CAST('[]' AS BLOB), 1, 1)
"""
ITEMS = """
WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 5000)
INSERT INTO conversation_items (conversation_id, public_id, body) SELECT 1, 'msg_' || n,
CAST(json_object('id', 'msg_' || n, 'content', hex(zeroblob(500))) AS BLOB) FROM numbers
"""
RESPONSE = """
INSERT INTO responses (public_id, tenant, model, status, background, collections, input, body, created_at)
VALUES ('resp_1', 'acme', 'm', 'completed', false, CAST('[]' AS BLOB), CAST('[]' AS BLOB),
CAST(json_object('text', hex(zeroblob(2000000))) AS BLOB), 1)
"""


async def test_the_export_of_a_tenant_keeps_the_event_loop_free(tmp_path: Path) -> None:
    services = StoreServices(InProcessIngest(tmp_path / "data"))
    async with services.running():
        for statement in (USAGE, CONVERSATION, ITEMS, RESPONSE):
            services.database.write_sync(lambda c, sql=statement: c.exec_driver_sql(sql))
        archive = io.BytesIO()
        in_loop = in_all = 0.0
        chunks = services.export.chunks(ACME)
        while True:
            begin, begin_in_all = time.thread_time(), time.process_time()
            chunk = await anext(chunks, None)
            in_loop += time.thread_time() - begin
            in_all += time.process_time() - begin_in_all
            if chunk is None:
                break
            assert len(chunk) <= 1 << 20
            archive.write(chunk)
    assert in_loop < 0.15 * in_all
    archive.seek(0)
    with tarfile.open(fileobj=archive) as members:
        content = {name: members.extractfile(name).read() for name in members.getnames()}
    assert len(json.loads(content["usage.json"])) == 30_000
    items = json.loads(content["conversations/conv_1.json"])["items"]
    assert [item["id"] for item in items] == [f"msg_{number}" for number in range(1, 5001)]
    assert len(json.loads(content["responses/resp_1.json"])["response"]["text"]) == 4_000_000


class Entry(msgspec.Struct):
    name: str
    values: list[int]


@pytest.mark.parametrize("count", [0, 1, 499, 500, 501, 1700])
def test_a_list_in_pieces_is_the_same_json(count: int) -> None:
    entries = [Entry("[]" * (place % 3), [place] * (place % 4)) for place in range(count)]
    pieces = formatted_json(entries)
    assert b"".join(pieces) == msgspec.json.format(msgspec.json.encode(entries), indent=1)
    assert max(map(len, pieces)) < 60_000


@pytest.mark.parametrize("count", [0, 1, 500, 501, 2000])
def test_the_stores_of_an_export_are_the_same_json_in_pieces(count: int) -> None:
    store = VectorStore(
        id=CollectionId(1),
        public_id="vs_1",
        tenant=ACME,
        collection="reports",
        name="[]",
        description=None,
        metadata={"a": "[]"},
        created_at=1,
        last_active_at=1,
        expires_after_days=None,
    )
    stores = [ExportedStore(store, [(f"file-{place}", f"doc_{place}") for place in range(count)]) for _ in range(2)]
    pieces = formatted_json(stores)
    assert b"".join(pieces) == msgspec.json.format(msgspec.json.encode(stores), indent=1)
    assert max(map(len, pieces)) < 60_000
