"""Uploads of bytes that the collection already has, while the document that has them is being deleted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import anyio
import anyio.from_thread
import pytest

from ragsvc.core.documents import AttachedFile, Document, DocumentStatus
from ragsvc.store import tenant_rows
from ragsvc.store.document_listing import DocumentFilter
from tests.support.in_process_ingest import InProcessIngest, LineParser
from tests.support.stored_documents import ACME

pytestmark = pytest.mark.anyio

ATTACHED = "The walrus sleeps."
PARENT = "A letter with an attachment."


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


class AttachingParser(LineParser):
    """Finds an attached file in the letter."""

    async def parse(self, path, *, media_type, filename, password=None, on_progress=None):
        parsed = await super().parse(path, media_type=media_type, filename=filename)
        if path.read_text() == PARENT:
            parsed.extraction.attached_files.append(AttachedFile(name="attached.txt", data=ATTACHED.encode()))
        return parsed


async def documents(service: InProcessIngest) -> list[Document]:
    found, more = await service.documents.list_page(ACME, which=DocumentFilter())
    assert not more
    return found


def before_the_file_is_compared(service: InProcessIngest, action: Callable[[], object]) -> None:
    """Run an action once, in the thread that reads the stored file for the next upload."""
    is_intact, actions = service.blobs.is_intact, [action]

    def act_and_compare(*arguments) -> bool:
        if actions:
            actions.pop()()
        return is_intact(*arguments)

    service.blobs.is_intact = act_and_compare


async def test_an_attachment_that_is_uploaded_while_its_parent_is_deleted_is_kept(tmp_path: Path) -> None:
    async with (
        InProcessIngest(tmp_path, parser=AttachingParser()).running() as service,
        anyio.create_task_group() as tg,
    ):
        parent = await service.add(PARENT, filename="letter.txt")
        await service.idle()

        async def parent_is_deleted() -> None:
            tg.start_soon(service.documents.delete, ACME, parent.public_id)
            while parent.public_id in {row.public_id for row in await documents(service)}:
                await anyio.sleep(0.01)

        before_the_file_is_compared(service, lambda: anyio.from_thread.run(parent_is_deleted))
        with anyio.fail_after(30):
            kept = await service.upload(ATTACHED, filename="own copy.txt")
        await service.idle()
        assert [row.public_id for row in await documents(service)] == [kept.public_id]
        assert await service.found("walrus") == ["own copy.txt"]
        assert service.blobs.is_intact(ACME, kept.sha256)


@pytest.mark.parametrize("filename", ["a.txt", "other.txt"])
async def test_an_upload_into_a_collection_that_is_deleted_meanwhile_is_stored_anew(
    tmp_path: Path, filename: str
) -> None:
    async with InProcessIngest(tmp_path).running() as service:
        first = await service.add(ATTACHED, filename="a.txt")
        database = service.database
        before_the_file_is_compared(
            service,
            lambda: database.write_sync(lambda c: tenant_rows.mark_collections_deleted(c, ACME, now=1)),
        )
        second = await service.upload(ATTACHED, filename=filename)
        assert second.public_id != first.public_id
        ready = await service.documents.wait(ACME, second.public_id, timeout_s=30)
        assert (ready.status, ready.filename) == (DocumentStatus.READY, filename)
        service.searcher.forget_collections(ACME)
        assert await service.found("walrus") == [filename]
