"""Lists of many entries take little time of the event loop."""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest
from prometheus_client import CollectorRegistry

from ragsvc.config import Settings
from ragsvc.core.readiness import Readiness
from ragsvc.services.access_control import Access
from ragsvc.services.file_service import FileService
from ragsvc.services.key_administration import KeyAdministration
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
