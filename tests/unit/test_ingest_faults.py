"""What an ingest does with faults of the disk and with damaged files."""

from pathlib import Path

import anyio
import pytest

from ragsvc.core.documents import DocumentStatus, ProblemCode
from ragsvc.core.errors import FailureReason
from tests.support.in_process_ingest import InProcessIngest, ObservedEmbedder
from tests.support.stored_documents import ACME

FULL = [
    ValueError("An IO error occurred: 'No space left on device (os error 28) at path \"/x\"'"),
    RuntimeError("Error in write_index: could not write: Disk quota exceeded"),
    OSError("12 requested and 0 written"),
    OSError(27, "File too large"),
]


@pytest.mark.parametrize("fault", FULL, ids=lambda fault: type(fault).__name__)
def test_a_full_disk_met_by_any_library_does_not_fail_the_document(tmp_path: Path, fault: Exception) -> None:
    faults = [fault, fault]

    def raise_faults(texts: list[str]) -> None:
        if faults:
            raise faults.pop()

    async def main() -> None:
        async with InProcessIngest(tmp_path / "data", embedder=ObservedEmbedder(raise_faults)).running() as service:
            document = await service.add("The walrus sleeps.", filename="a.txt")
            assert (document.status, document.failure_code, faults) == (DocumentStatus.READY, None, [])
            assert await service.found("walrus") == ["a.txt"]

    anyio.run(main)


def test_another_fault_still_fails_the_document(tmp_path: Path) -> None:
    def raise_fault(texts: list[str]) -> None:
        raise ValueError("the graph has no such output")

    async def main() -> None:
        async with InProcessIngest(tmp_path / "data", embedder=ObservedEmbedder(raise_fault)).running() as service:
            document = await service.add("The walrus sleeps.", filename="a.txt")
            assert document.failure_code == FailureReason.INTERNAL_ERROR

    anyio.run(main)


def removals(service: InProcessIngest) -> int:
    return service.database.read_sync(lambda c: c.exec_driver_sql("SELECT count(*) FROM file_removals").scalar_one())


def test_a_file_that_cannot_be_removed_is_removed_later(tmp_path: Path) -> None:
    async def main() -> None:
        async with InProcessIngest(tmp_path / "data").running() as service:
            document = await service.add("The walrus sleeps.", filename="a.txt")
            path = service.blobs.path(ACME, document.sha256)
            path.unlink()
            path.mkdir()  # cannot be unlinked, whoever runs this
            await service.documents.delete(ACME, document.public_id)
            assert await service.found("walrus") == []
            assert removals(service) == 1
            path.rmdir()
            path.write_text("The walrus sleeps.")
            await service.ingest.file_removals.finish_all()
            assert not path.exists()
            with anyio.fail_after(10):
                while removals(service):
                    await anyio.sleep(0.01)

    anyio.run(main)


def test_a_damaged_file_fails_its_document_until_the_bytes_come_again(tmp_path: Path) -> None:
    async def main() -> None:
        service = InProcessIngest(tmp_path / "data")
        queued = await service.upload("The walrus sleeps.", filename="a.txt")
        service.blobs.path(ACME, queued.sha256).write_bytes(b"The walrus swims.")
        async with service.running():
            failed = await service.documents.wait(ACME, queued.public_id, timeout_s=60)
            assert failed.failure_code == FailureReason.STORED_FILE_DAMAGED
            assert [problem.code for problem in failed.problems] == [ProblemCode.STORED_FILE_DAMAGED]
            mended = await service.add("The walrus sleeps.", filename="a.txt")
            assert (mended.public_id, mended.status, mended.problems) == (queued.public_id, DocumentStatus.READY, [])
            assert await service.found("sleeps") == ["a.txt"]

    anyio.run(main)
