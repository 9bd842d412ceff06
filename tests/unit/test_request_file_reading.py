"""Files of requests are parsed once, kept for a bounded time and size, and ranked like documents."""

from __future__ import annotations

import functools
from pathlib import Path

import anyio
import pytest

from ragsvc.core.access.principal import DEFAULT_SCOPES, Principal
from ragsvc.core.documents import Extraction, Page, Passage
from ragsvc.core.errors import ExtractionFailed, FailureReason, FileUnreadable, InvalidRequest, Overloaded, TooLarge
from ragsvc.core.gateway.request_files import RequestFile
from ragsvc.core.ids import KeyId, TenantId
from ragsvc.core.ports.parsing import ParsedDocument
from ragsvc.index.memory_words import MemoryWordScorer
from ragsvc.services.request_files import RequestFileLimits, RequestFiles
from tests.support.in_process_ingest import InProcessIngest


class CountingParser:
    """A page and a passage for each line; notes the names and paths that it was given."""

    def __init__(self) -> None:
        self.parsed: list[str] = []
        self.paths: list[Path] = []
        self.may_go = anyio.Event()
        self.may_go.set()

    async def parse(self, path, *, media_type, filename, password=None, on_progress=None):
        self.parsed.append(filename)
        self.paths.append(path)
        await self.may_go.wait()
        lines = path.read_text().splitlines()
        if lines[0] == "broken":
            raise ExtractionFailed(FailureReason.DAMAGED, "The file is damaged.")
        pages = [Page(number, line) for number, line in enumerate(lines, 1)]
        passages = [
            Passage(page.number - 1, page.number, 0, len(page.text), page.text, token_count=10) for page in pages
        ]
        return ParsedDocument(Extraction(pages, page_count=len(pages)), passages)

    async def close(self):
        return


class Scene:
    """The service over a data directory, with a clock that the test sets."""

    def __init__(self, folder: Path, **limits: float) -> None:
        self.ingest = InProcessIngest(folder)
        self.parser = CountingParser()
        self.now = 1000.0
        self.files = RequestFiles(
            database=self.ingest.database,
            parser=self.parser,
            blobs=self.ingest.blobs,
            spaces=self.ingest.spaces,
            words=MemoryWordScorer(),
            limits=RequestFileLimits(**limits),
            monotonic=lambda: self.now,
        )

    async def read(self, *texts: str, tenant: str = "acme", name: str = "a.txt"):
        sent = [RequestFile(param=f"p{at}", data=text.encode(), filename=name) for at, text in enumerate(texts)]
        return await self.files.read(Principal(KeyId("k"), TenantId(tenant), "k", DEFAULT_SCOPES), sent)


def scene(**limits: float):
    """Run the coroutine of a test with a ``Scene``."""

    def decorate(test):
        @functools.wraps(test)
        def run(tmp_path):
            async def main():
                made = Scene(tmp_path / "data", **limits)
                try:
                    await test(made)
                finally:
                    made.ingest.indexes.close()
                    made.ingest.database.close()

            anyio.run(main)

        del run.__wrapped__
        return run

    return decorate


@scene()
async def test_a_second_turn_does_not_parse_or_embed_again(made):
    files = await made.read("alpha\nbeta")
    await made.files.search(files, "alpha", top_k=1, room_tokens=0)
    embedded = list(made.ingest.batcher.embedded)
    again = await made.read("alpha\nbeta")
    await made.files.search(again, "beta", top_k=1, room_tokens=0)
    assert made.parser.parsed == ["a.txt"]
    assert made.ingest.batcher.embedded == embedded
    assert not any(path.exists() for path in made.parser.paths)


@scene()
async def test_the_bytes_of_a_file_are_dropped_when_it_is_read(made):
    sent = [RequestFile(param=name, data=b"alpha", filename=f"{name}.txt") for name in "ab"]
    for _ in range(2):  # the second time the file is in the cache
        await made.files.read(Principal(KeyId("k"), TenantId("acme"), "k", DEFAULT_SCOPES), sent)
        assert [(file.data, file.size_bytes) for file in sent] == [(None, 5), (None, 5)]
        sent = [RequestFile(param=name, data=b"alpha", filename=f"{name}.txt") for name in "ab"]


@scene()
async def test_two_requests_at_the_same_time_parse_a_file_once(made):
    made.parser.may_go = anyio.Event()
    async with anyio.create_task_group() as group:
        for _ in range(3):
            group.start_soon(made.read, "alpha")
        await anyio.sleep(0.1)
        made.parser.may_go.set()
    assert len(made.parser.parsed) == 1


@scene()
async def test_what_was_read_for_one_tenant_is_not_used_for_another(made):
    await made.read("alpha")
    await made.read("alpha", tenant="other")
    assert len(made.parser.parsed) == 2
    made.files.forget(TenantId("acme"))
    await made.read("alpha", tenant="other")
    assert len(made.parser.parsed) == 2
    await made.read("alpha")
    assert len(made.parser.parsed) == 3


@scene(cache_s=60)
async def test_a_file_is_forgotten_some_time_after_its_last_use(made):
    for seconds in (0, 50, 50):
        made.now += seconds
        await made.read("alpha")
    assert len(made.parser.parsed) == 1
    made.now += 61
    await made.read("alpha")
    assert len(made.parser.parsed) == 2


@scene(cache_s=0.05)
async def test_a_file_is_forgotten_without_a_further_request(made):
    await made.read("alpha")
    assert made.files.cached_bytes > 0
    made.now += 1
    with anyio.fail_after(5):
        while made.files.cached_bytes:
            await anyio.sleep(0.05)


@scene(cache_bytes=3000)
async def test_the_least_recently_used_files_make_room(made):
    for text in ("alpha " * 100, "beta " * 100, "gamma " * 100):
        await made.read(text)
    assert made.files.cached_bytes <= 3000
    await made.read("gamma " * 100)
    assert len(made.parser.parsed) == 3
    await made.read("alpha " * 100)
    assert len(made.parser.parsed) == 4


@scene(cache_bytes=0)
async def test_without_a_cache_files_are_read_each_time(made):
    for _ in range(2):
        files = await made.read("alpha\nbeta")
        found = await made.files.search(files, "beta", top_k=1, room_tokens=0)
        assert found.hits[0].passage.text == "beta"
    assert len(made.parser.parsed) == 2
    assert made.files.cached_bytes == 0


@scene(total_bytes=100)
async def test_the_bytes_of_a_request_and_of_all_requests_are_limited(made):
    with pytest.raises(TooLarge) as refused:
        await made.read("a" * 60, "b" * 60)
    assert refused.value.param == "p1"
    with pytest.raises(InvalidRequest) as many:
        await made.read(*("abc" for _ in range(21)))
    assert many.value.param == "p20"
    made.parser.may_go = anyio.Event()
    async with anyio.create_task_group() as group:
        for text in ("a" * 90, "b" * 90):
            group.start_soon(made.read, text)
        await anyio.sleep(0.1)
        with pytest.raises(Overloaded):
            await made.read("c" * 90)
        made.parser.may_go.set()
    await made.read("c" * 90)


@scene()
async def test_a_file_that_cannot_be_read_is_named_and_not_remembered(made):
    for _ in range(2):
        with pytest.raises(FileUnreadable) as refused:
            await made.read("fine", "broken")
        assert (refused.value.param, refused.value.reason) == ("p1", "damaged")
        assert refused.value.message == "'p1': the file is damaged."
    assert made.parser.parsed.count("a.txt") == 3


@scene()
async def test_passages_are_ranked_over_all_files_and_the_rest_is_in_reading_order(made):
    first = await made.read("the archive is in Porto\nnothing here\nnothing there")
    second = await made.read("the ferry leaves at noon\nthe archive opens at nine", name="b.txt")
    found = await made.files.search([*first, *second], "When does the ferry leave?", top_k=1, room_tokens=1000)
    assert found.hits[0].passage.text == "the ferry leaves at noon"
    assert found.whole
    assert len(found.rest) == 4
    assert found.attached == {first[0].public_id, second[0].public_id}
    ids = [hit.passage.id for hit in (*found.hits, *found.rest)]
    assert len(set(ids)) == 5
    parts = await made.files.search([*first, *second], "When does the ferry leave?", top_k=1, room_tokens=30)
    assert not parts.whole
    assert len(parts.rest) == 2


@scene()
async def test_pages_that_a_question_names_come_first(made):
    files = await made.read("\n".join(f"line {number}" for number in range(1, 30)))
    found = await made.files.search(files, "What is on page 17?", top_k=2, room_tokens=0)
    assert found.hits[0].passage.page == 17
    last = await made.files.search(files, "Read the last page", top_k=2, room_tokens=0)
    assert last.hits[0].passage.page == 29
