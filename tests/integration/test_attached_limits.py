"""The limits of attached files hold for jobs at the same time and for repeated ones; every file left out is named."""

import threading
from pathlib import Path

import anyio

from ragsvc.core.documents import AttachedFile, DocumentStatus
from ragsvc.services.attached_documents import AttachmentLimits
from ragsvc.store.document_listing import DocumentFilter
from tests.support.in_process_ingest import InProcessIngest, LineParser
from tests.support.stored_documents import ACME


class NestedParser(LineParser):
    """Attaches two children to the root, and a leaf to each child."""

    async def parse(self, path, **options):
        parsed = await super().parse(path, **options)
        word, _, number = path.read_text().partition(" ")
        children = {"Root": ("Child 1", "Child 2"), "Child": (f"Leaf {number}",)}.get(word, ())
        parsed.extraction.attached_files.extend(AttachedFile(name=f"{c}.txt", data=c.encode()) for c in children)
        return parsed


async def states(service: InProcessIngest) -> dict[str, list[str]]:
    documents, _ = await service.documents.list_page(ACME, which=DocumentFilter(), limit=100)
    return {document.filename: [problem.message for problem in document.problems] for document in documents}


def test_documents_that_attach_at_the_same_time_do_not_pass_the_limit_together(tmp_path: Path) -> None:
    """Both children have found room for one more document before either of them stores its leaf."""

    async def main() -> None:
        async with InProcessIngest(tmp_path / "data").running() as service:
            service.ingest._parser = NestedParser()
            service.ingest._attached._limits = AttachmentLimits(documents=3)
            both, publish = threading.Barrier(2), service.blobs.publish

            def publish_together(incoming, tenant, sha256):
                if incoming.path.read_bytes().startswith(b"Leaf"):
                    both.wait(30)
                return publish(incoming, tenant, sha256)

            service.blobs.publish = publish_together  # type: ignore[method-assign]
            await service.upload("Root", filename="root.txt")
            await service.idle()
            found = await states(service)
            assert len(found) == 4
            assert len(list(service.blobs.entries())) == 4
            left_out = [problems for problems in found.values() if problems]
            assert len(left_out) == 1
            assert "beyond the limit of attached files" in left_out[0][0]

    anyio.run(main)


def test_files_at_the_limit_are_not_left_out_when_the_job_is_repeated(tmp_path: Path) -> None:
    async def main() -> None:
        async with InProcessIngest(tmp_path / "data").running() as service:
            document = await service.add("Message", filename="m.txt")
            attached = service.ingest._attached
            attached._limits = AttachmentLimits(documents=2)
            files = [AttachedFile(name=f"{number}.txt", data=b"File %d" % number) for number in range(2)]
            names = [file.name for file in files]
            assert await attached.register(document, files, names, now=1) == []
            assert await attached.register(document, files, names, now=1) == []
            (problem,) = await attached.register(
                document, [*files, AttachedFile(name="3.txt", data=b"File 3")], names, now=1
            )
            assert "'3.txt' (beyond the limit of attached files)" in problem.message

    anyio.run(main)


def test_an_attached_file_beyond_the_size_of_documents_is_named(tmp_path: Path) -> None:
    async def main() -> None:
        async with InProcessIngest(tmp_path / "data").running() as service:
            document = await service.add("Message", filename="m.txt")
            service.ingest._attached._limits = AttachmentLimits(max_document_bytes=10)
            files = [AttachedFile(name="large.txt", data=b"x" * 11), AttachedFile(name="small.txt", data=b"x" * 10)]
            (problem,) = await service.ingest._attached.register(document, files, ["large.txt", "small.txt"], now=1)
            assert "'large.txt' (larger than the limits of attached files)" in problem.message
            assert "small" not in problem.message
            assert document.status is DocumentStatus.READY

    anyio.run(main)
