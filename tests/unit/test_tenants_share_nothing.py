"""Property: whatever two tenants do with files and vector stores, neither sees an id, count or byte of the other."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ragsvc.core.access.principal import Principal
from ragsvc.core.errors import NotFound, VectorStoreNotFound
from ragsvc.core.retrieval.search_values import SearchMode, SearchQuery
from ragsvc.core.vector_stores import StoreFileStatus
from ragsvc.services.document_service import Upload
from ragsvc.services.store_files import StoreFileDraft
from tests.support.in_process_ingest import InProcessIngest
from tests.support.store_services import StoreServices
from tests.support.stored_documents import ACME, OTHER

TEXTS = ("harbour lights", "mountain paths", "quiet rivers")
OPERATIONS = (
    "upload",
    "upload",
    "create",
    "create",
    "attach",
    "attach",
    "attach",
    "batch",
    "document",
    "document",
    "detach",
    "delete file",
    "delete store",
    "delete document",
    "attributes",
    "foreign",
)


class Side:
    """A tenant, and what it should have: texts of files by id, and for each store the files of each text."""

    def __init__(self, principal: Principal) -> None:
        self.principal = principal
        self.uploaded: dict[str, str] = {}
        self.implicit: dict[str, str] = {}
        self.stores: dict[str, dict[str, set[str]]] = {}
        self.attributes: dict[tuple[str, str], Mapping[str, Any]] = {}

    @property
    def files(self) -> dict[str, str]:
        return {**self.uploaded, **self.implicit}

    def attach(self, store: str, file: str) -> None:
        self.stores[store].setdefault(self.files[file], set()).add(file)

    def detach(self, store: str, file: str) -> None:
        text = self.files[file]
        self.stores[store][text].discard(file)
        if not self.stores[store][text]:
            self.drop(store, text)

    def drop(self, store: str, text: str) -> None:
        """A document is gone."""
        self.stores[store].pop(text)
        self.attributes.pop((store, text), None)
        self.forget_implicit()

    def forget_implicit(self) -> None:
        used = {file for texts in self.stores.values() for files in texts.values() for file in files}
        self.implicit = {file: text for file, text in self.implicit.items() if file in used}

    def files_of(self, store: str) -> set[str]:
        return {file for files in self.stores[store].values() for file in files}


class Pair:
    """Two tenants of one service."""

    def __init__(self, services: StoreServices, sides: list[Side]) -> None:
        self.services = services
        self.sides = sides

    async def run(self, operation: str, which: int, number: int, other: int) -> None:
        """Run an operation of a tenant; ``number`` and ``other`` choose among its files and stores, if it has any."""
        side = self.sides[which]
        file, store = pick(side.files, number), pick(side.stores, other)
        inside = pick(side.files_of(store), number) if store else ""
        if operation == "upload":
            text = TEXTS[number % len(TEXTS)]
            side.uploaded[(await self.services.file(side.principal, text)).public_id] = text
        elif operation == "create":
            side.stores[await self.services.store(side.principal, name=("same", "name", None)[number % 3])] = {}
        elif operation == "foreign":
            await self.reach_for_the_other(which, number, other)
        elif operation == "delete file" and file:
            await self.delete_file(side, file)
        elif operation in ("attach", "batch") and store and file:
            await self.attach(side, store, file, as_batch=operation == "batch")
        elif store:
            await self.change(operation, side, store, number, inside)

    async def change(self, operation: str, side: Side, store: str, number: int, inside: str) -> None:
        """Change a store; ``inside`` is one of its files."""
        services, principal = self.services, side.principal
        if operation == "document":
            await self.add_document(side, store, TEXTS[number % len(TEXTS)])
        elif operation == "delete store":
            await services.stores.delete(principal, store)
            side.stores.pop(store)
            side.forget_implicit()
        elif operation == "detach" and inside:
            await services.store_files.detach(principal, store, inside)
            side.detach(store, inside)
        elif operation == "delete document" and inside:
            found = await services.store_files.get(principal, store, inside)
            await services.ingest.documents.delete(principal.tenant, found.document_public_id)
            side.drop(store, side.files[inside])
        elif operation == "attributes" and inside:
            value = {"by": principal.tenant, "n": number}
            await services.store_files.set_attributes(principal, store, inside, value)
            side.attributes[store, side.files[inside]] = value

    async def attach(self, side: Side, store: str, file: str, *, as_batch: bool) -> None:
        files = self.services.store_files
        add = files.create_batch if as_batch else files.attach
        await add(side.principal, store, [StoreFileDraft(file_id=file)])
        side.attach(store, file)

    async def delete_file(self, side: Side, file: str) -> None:
        await self.services.files.delete(side.principal.tenant, file)
        for store in side.stores:
            if file in side.files_of(store):
                side.detach(store, file)
        side.uploaded.pop(file, None)
        side.implicit.pop(file, None)

    async def add_document(self, side: Side, store: str, text: str) -> None:
        """Upload a document to the collection of a store."""
        documents = self.services.ingest.documents
        collection = (await self.services.stores.get(side.principal, store)).collection
        async with documents.receiving() as receiving:
            await receiving.write(text.encode())
            upload = Upload(filename="a.txt", media_type="text/plain", collection=collection)
            result = await documents.add(side.principal.tenant, receiving, upload)
        if result.created:
            file = result.document.public_id.replace("doc_", "file-")
            side.implicit[file] = text
            side.attach(store, file)

    async def reach_for_the_other(self, which: int, number: int, other: int) -> None:
        """Every use of an id of the other tenant is an unknown id."""
        side, victim = self.sides[which], self.sides[1 - which]
        principal, services = side.principal, self.services
        file, store = pick(victim.files, number), pick(victim.stores, other)
        own = pick(side.stores, other)
        if store:
            for call in (services.stores.get, services.stores.delete, services.store_files.list_page):
                with pytest.raises(VectorStoreNotFound):
                    await call(principal, store, **({"limit": 9} if call == services.store_files.list_page else {}))
            with pytest.raises(VectorStoreNotFound):
                await services.stores.search(principal, store, [SearchQuery(text="harbour")])
        if file:
            with pytest.raises(NotFound):
                await services.files.delete(principal.tenant, file)
            if own:
                with pytest.raises(NotFound):
                    await services.store_files.attach(principal, own, [StoreFileDraft(file_id=file)])
                with pytest.raises(NotFound):
                    await services.store_files.create_batch(principal, own, [StoreFileDraft(file_id=file)])
                with pytest.raises(NotFound):
                    await services.store_files.detach(principal, own, file)

    async def check(self, *, settled: bool) -> None:
        for side in self.sides:
            await self.check_side(side, settled=settled)

    async def check_side(self, side: Side, *, settled: bool) -> None:
        services, principal = self.services, side.principal
        files, _ = await services.files.list_page(principal.tenant, limit=100)
        assert {file.public_id for file in files} == set(side.files)
        stores, _ = await services.stores.list_page(principal, limit=100)
        assert {store.public_id for store in stores} == set(side.stores)
        for store in stores:
            expected = side.files_of(store.public_id)
            listed, _ = await services.store_files.list_page(principal, store.public_id, limit=100)
            assert {file.file_id for file in listed} == expected
            assert store.counts.total == len(expected) == len(listed)
            assert store.usage_bytes == sum(len(side.files[file]) for file in expected)
            for file in listed:
                text = side.files[file.file_id]
                assert file.attributes == side.attributes.get((store.public_id, text), {})
            if settled:
                assert store.counts.completed == store.counts.total
                assert all(file.status is StoreFileStatus.COMPLETED for file in listed)
                await self.check_search(side, store.public_id)
        folder = services.ingest.blobs.folder / principal.tenant
        stored = sorted(path.read_text() for path in folder.glob("*/*")) if folder.exists() else []
        assert stored == sorted(set(side.files.values()))

    async def check_search(self, side: Side, store: str) -> None:
        for text in TEXTS:
            query = SearchQuery(text=text, mode=SearchMode.LEXICAL)
            found = await self.services.stores.search(side.principal, store, [query])
            assert [passage.hit.passage.text for passage in found] == ([text] if text in side.stores[store] else [])
            assert {passage.file.file_id for passage in found} <= side.files_of(store)


def pick(values: Iterable[str], number: int) -> str:
    """One of the values; an empty text if there is none."""
    listed = sorted(values) if isinstance(values, set) else list(values)
    return listed[number % len(listed)] if listed else ""


step = st.tuples(st.sampled_from(OPERATIONS), st.integers(0, 1), st.integers(0, 5), st.integers(0, 5))


@pytest.mark.timeout(240)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(steps=st.lists(step, min_size=8, max_size=40))
def test_two_tenants_share_nothing(steps: list[tuple[str, int, int, int]]) -> None:
    async def run(folder: Path) -> None:
        services = StoreServices(InProcessIngest(folder / "data"))
        async with services.running():
            pair = Pair(services, [Side(await services.principal(tenant)) for tenant in (ACME, OTHER)])
            for operation, which, number, other in steps:
                await pair.run(operation, which, number, other)
                await pair.check(settled=False)
            await services.ingest.idle()
            await pair.check(settled=True)

    with tempfile.TemporaryDirectory() as folder:
        anyio.run(run, Path(folder))
