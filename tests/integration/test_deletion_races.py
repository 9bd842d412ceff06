"""Deletions of tenants, collections and documents while other requests and jobs are in progress: nothing is left."""

import threading
from pathlib import Path

import anyio
import pytest

from ragsvc.core.access.principal import Scope
from ragsvc.core.errors import TenantNotFound
from tests.support.administered_ingest import AdministeredIngest
from tests.support.in_process_ingest import InProcessIngest
from tests.support.stored_documents import ACME


async def require_no_tenant(service: AdministeredIngest) -> None:
    with pytest.raises(TenantNotFound):
        await service.tenants.tenant(ACME)
    assert [service.count(table) for table in ("api_keys", "collections", "documents", "jobs")] == [0] * 4
    assert service.stored_texts() == []


def test_an_upload_that_was_authenticated_before_the_deletion_stores_nothing(tmp_path: Path) -> None:
    """The upload is stopped between its authentication and its first byte, in the thread that makes its file."""

    async def main() -> None:
        async with (
            AdministeredIngest(InProcessIngest(tmp_path / "data")).running() as service,
            service.client() as client,
        ):
            key = await service.key()
            await service.add("The walrus sleeps.", collection="one")
            inside, may_go_on = threading.Event(), threading.Event()
            make_file = service.ingest.blobs.incoming

            def incoming(**options: int):
                inside.set()
                assert may_go_on.wait(30)
                return make_file(**options)

            service.ingest.blobs.incoming = incoming  # type: ignore[method-assign]
            statuses: list[int] = []

            async def upload() -> None:
                headers = {"authorization": f"Bearer {key.text}", "content-type": "text/plain"}
                reply = await client.post("/v1/rag/documents", content=b"Late.", headers=headers)
                statuses.append(reply.status_code)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(upload)
                assert await anyio.to_thread.run_sync(inside.wait, 30)
                await service.tenants.delete_tenant(ACME)
                may_go_on.set()
            assert statuses == [409]
            await require_no_tenant(service)

    anyio.run(main)


def test_a_key_that_a_deleted_tenant_asked_for_before_is_not_created(tmp_path: Path) -> None:
    """The request of a tenant's administrator is stopped between its authentication and the end of its body."""

    async def main() -> None:
        async with (
            AdministeredIngest(InProcessIngest(tmp_path / "data")).running() as service,
            service.client() as client,
        ):
            key = await service.key(scopes=frozenset({Scope.TENANT_ADMIN}))
            received, may_end = anyio.Event(), anyio.Event()

            async def slow_body():
                yield b'{"label": "late",'
                received.set()
                await may_end.wait()
                yield b' "requests_per_minute": 1, "requests_per_hour": 1}'

            replies = []

            async def create() -> None:
                headers = {"authorization": f"Bearer {key.text}", "content-type": "application/json"}
                replies.append(await client.post("/v1/keys", content=slow_body(), headers=headers))

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(create)
                await received.wait()
                await service.tenants.delete_tenant(ACME)
                may_end.set()
            assert (replies[0].status_code, replies[0].json()["error"]["code"]) == (409, "conflict")
            await require_no_tenant(service)

    anyio.run(main)
