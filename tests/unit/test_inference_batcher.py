"""The batcher groups, bounds, drops and closes."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence

import anyio
import numpy as np
import pytest

from ragsvc.core.errors import EmbeddingFailed, NotFound, Overloaded, ShuttingDown
from ragsvc.core.ports.embedding import Vectors
from ragsvc.inference.batcher import EmbeddingBatcher
from ragsvc.testing.fakes import FakeEmbedder


class RecordingEmbedder(FakeEmbedder):
    """Remembers each batch, and waits at a gate before it works."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[str]] = []
        self.queries: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.together: list[int] = []
        self.query_gate = threading.Event()
        self.query_gate.set()
        self.fail_on = ""

    def embed_passages(self, texts: Sequence[str]) -> Vectors:
        self.batches.append(list(texts))
        assert self.gate.wait(5)
        if self.fail_on and self.fail_on in texts:
            raise ZeroDivisionError(self.fail_on)
        return super().embed_passages(texts)

    def embed_queries(self, texts: Sequence[str]) -> Vectors:
        self.queries += texts
        self.together.append(len(texts))
        assert self.query_gate.wait(5)
        if self.fail_on and self.fail_on in texts:
            raise ZeroDivisionError(self.fail_on)
        return super().embed_passages(texts)


async def wait_for_batches(embedder: RecordingEmbedder, count: int) -> None:
    with anyio.fail_after(5):
        while len(embedder.batches) < count:
            await anyio.sleep(0.001)


def test_concurrent_calls_share_a_batch_and_get_their_own_rows() -> None:
    embedder = RecordingEmbedder()
    results: dict[int, Vectors] = {}

    async def main() -> None:
        async with (
            EmbeddingBatcher(embedder, max_wait_s=0.2, max_batch_texts=20, bulk_threads=1) as batcher,
            anyio.create_task_group() as group,
        ):

            async def call(number: int) -> None:
                results[number] = await batcher.embed_passages([f"text {number}", f"other {number}"])

            for number in range(10):
                group.start_soon(call, number)

    anyio.run(main)
    assert len(embedder.batches) == 1
    for number, vectors in results.items():
        np.testing.assert_array_equal(vectors, FakeEmbedder().embed_passages([f"text {number}", f"other {number}"]))


def test_a_long_call_does_not_hold_up_a_short_one() -> None:
    embedder = RecordingEmbedder()
    finished: list[str] = []

    async def main() -> None:
        async with (
            EmbeddingBatcher(embedder, max_batch_texts=16, bulk_threads=1) as batcher,
            anyio.create_task_group() as group,
        ):

            async def call(name: str, count: int) -> None:
                vectors = await batcher.embed_passages([f"{name} {index}" for index in range(count)])
                np.testing.assert_array_equal(
                    vectors, FakeEmbedder().embed_passages([f"{name} {index}" for index in range(count)])
                )
                finished.append(name)

            embedder.gate.clear()
            group.start_soon(call, "long", 200)
            await wait_for_batches(embedder, 1)
            group.start_soon(call, "short", 3)
            await anyio.sleep(0.01)
            embedder.gate.set()

    anyio.run(main)
    assert finished == ["short", "long"]
    assert any(text.startswith("short") for text in embedder.batches[1])
    assert max(map(len, embedder.batches)) == 16


def test_a_full_queue_refuses_and_says_when_to_come_back() -> None:
    embedder = RecordingEmbedder()

    async def main() -> None:
        async with EmbeddingBatcher(embedder, max_waiting_texts=10) as batcher, anyio.create_task_group() as group:
            embedder.gate.clear()
            group.start_soon(batcher.embed_passages, ["a"] * 12)  # alone it may exceed the bound
            await wait_for_batches(embedder, 1)
            with pytest.raises(Overloaded) as refused:
                await batcher.embed_passages(["b"])
            assert refused.value.retry_after_s is not None
            assert refused.value.retry_after_s >= 1
            embedder.gate.set()
        assert batcher.waiting_texts == 0

    anyio.run(main)


def test_a_cancelled_caller_is_dropped_before_the_forward_pass() -> None:
    embedder = RecordingEmbedder()

    async def main() -> None:
        async with EmbeddingBatcher(embedder, bulk_threads=1) as batcher, anyio.create_task_group() as group:
            embedder.gate.clear()
            group.start_soon(batcher.embed_passages, ["first"])
            await wait_for_batches(embedder, 1)
            with anyio.move_on_after(0.01):
                await batcher.embed_passages(["cancelled"])
            group.start_soon(batcher.embed_passages, ["last"])
            await anyio.sleep(0.01)
            embedder.gate.set()
        assert batcher.waiting_texts == 0

    anyio.run(main)
    assert embedder.batches == [["first"], ["last"]]


def test_a_failing_model_fails_the_calls_of_the_batch_and_no_later_ones() -> None:
    embedder = RecordingEmbedder()
    embedder.fail_on = "bad"

    async def main() -> None:
        async with EmbeddingBatcher(embedder, max_batch_texts=2) as batcher:
            with pytest.raises(EmbeddingFailed, match="ZeroDivisionError"):
                await batcher.embed_passages(["good", "good", "bad", "good", "good", "good"])
            assert (await batcher.embed_passages(["good"])).shape == (1, 64)
            assert batcher.waiting_texts == 0

    anyio.run(main)


def test_a_part_that_failed_fails_its_call_whatever_becomes_of_the_part_beside_it() -> None:
    embedder = RecordingEmbedder()
    embedder.fail_on = "bad"
    outcomes: list[object] = []

    async def main() -> None:
        async with EmbeddingBatcher(embedder, max_batch_texts=2) as batcher, anyio.create_task_group() as group:

            async def call() -> None:
                try:
                    outcomes.append(await batcher.embed_passages(["bad", "good", "fine", "fine"]))
                except EmbeddingFailed as error:
                    outcomes.append(error)

            embedder.gate.clear()
            group.start_soon(call)
            await wait_for_batches(embedder, 2)  # both halves are with the model
            embedder.gate.set()
            assert (await batcher.embed_passages(["good"])).shape == (1, 64)
        assert batcher.waiting_texts == 0

    anyio.run(main)
    assert [type(outcome) for outcome in outcomes] == [EmbeddingFailed]


def test_closing_fails_waiting_calls_and_refuses_new_ones() -> None:
    embedder = RecordingEmbedder()
    outcomes: list[str] = []

    async def main() -> None:
        batcher = EmbeddingBatcher(embedder, max_batch_texts=1, bulk_threads=1)
        batcher.start()

        async def call(text: str) -> None:
            try:
                await batcher.embed_passages([text])
                outcomes.append("embedded")
            except ShuttingDown:
                outcomes.append("refused")

        async with anyio.create_task_group() as group:
            embedder.gate.clear()
            group.start_soon(call, "running")
            await wait_for_batches(embedder, 1)
            group.start_soon(call, "waiting")
            await anyio.sleep(0.01)
            group.start_soon(batcher.aclose)
            await anyio.sleep(0.01)
            embedder.gate.set()
        with pytest.raises(ShuttingDown):
            await batcher.embed_passages(["late"])
        with pytest.raises(ShuttingDown):
            await batcher.embed_query("late")

    anyio.run(main)
    assert sorted(outcomes) == ["embedded", "refused"]


def test_queries_are_cached_and_do_not_wait_for_passages() -> None:
    embedder = RecordingEmbedder()

    async def main() -> None:
        async with EmbeddingBatcher(embedder, cached_queries=2) as batcher, anyio.create_task_group() as group:
            embedder.gate.clear()
            group.start_soon(batcher.embed_passages, ["bulk"])
            await wait_for_batches(embedder, 1)
            for text in ("one", "two", "one", "three", "one", "two"):
                vector = await batcher.embed_query(text)
                np.testing.assert_array_equal(vector, FakeEmbedder().embed_passages([text])[0])
                assert not vector.flags.writeable
            embedder.gate.set()

    anyio.run(main)
    assert embedder.queries == ["one", "two", "three", "two"]  # "two" had been the oldest when "three" came


def test_it_runs_on_a_plain_asyncio_loop_and_does_not_block_it() -> None:
    embedder = RecordingEmbedder()

    async def main() -> float:
        async with EmbeddingBatcher(embedder) as batcher:
            embedder.gate.clear()
            call = asyncio.gather(batcher.embed_passages(["text"]))
            started = time.monotonic()
            await asyncio.sleep(0.02)
            paused = time.monotonic() - started
            embedder.gate.set()
            assert (await call)[0].shape == (1, 64)
            return paused

    assert asyncio.run(main()) < 1


def test_questions_that_wait_go_together_and_one_that_fails_fails_alone() -> None:
    embedder = RecordingEmbedder()
    embedder.fail_on = "question 7"
    answers: dict[int, object] = {}

    async def main() -> None:
        async with EmbeddingBatcher(embedder) as batcher, anyio.create_task_group() as group:

            async def ask(number: int) -> None:
                try:
                    answers[number] = await batcher.embed_query(f"question {number}")
                except EmbeddingFailed as error:
                    answers[number] = error

            embedder.query_gate.clear()
            for number in range(12):
                group.start_soon(ask, number)
            with anyio.move_on_after(0.05):
                await batcher.embed_query("question of one that left")
            embedder.query_gate.set()

    anyio.run(main)
    assert max(embedder.together) > 1
    for number, answer in answers.items():
        if number == 7:
            assert isinstance(answer, EmbeddingFailed)
        else:
            np.testing.assert_array_equal(answer, FakeEmbedder().embed_passages([f"question {number}"])[0])
    assert len(answers) == 12


def test_work_with_queries_runs_on_the_thread_that_embedded_them() -> None:
    embedder = RecordingEmbedder()
    worked: list[tuple[str, int]] = []
    expected = {text: FakeEmbedder().embed_passages([text])[0] for text in ("a", "b", "c")}

    def work(name: str):
        def check(vectors):
            worked.append((threading.current_thread().name, len(vectors)))
            for text, vector in zip(name, vectors, strict=True):
                np.testing.assert_array_equal(vector, expected[text])
            if name == "c":
                raise NotFound("gone")
            return name.upper()

        return check

    async def main() -> list[object]:
        async with EmbeddingBatcher(embedder, query_threads=1) as batcher:
            embedder.query_gate.clear()
            calls = [batcher.with_queries(list(name), work(name)) for name in ("ab", "c", "a")]
            left = asyncio.ensure_future(batcher.with_queries(["b"], lambda _: worked.append(("left", 0))))
            gathered = asyncio.gather(*calls, return_exceptions=True)
            await asyncio.sleep(0)
            left.cancel()
            embedder.query_gate.set()
            results = await gathered
            embedder.fail_on = "a"  # both texts are known now
            return [*results, await batcher.with_queries(["a", "b"], len)]

    first, second, third, fourth = asyncio.run(main())
    assert (first, third, fourth) == ("AB", "A", 2)
    assert isinstance(second, NotFound)
    assert sorted(count for _, count in worked) == [1, 1, 2]
    assert all(name.startswith("embedding-query") for name, _ in worked)


class Panic(BaseException):
    """As the panics of libraries in Rust."""


@pytest.mark.parametrize("raised", [Panic, StopIteration])
def test_panics_fail_their_callers_and_no_later_ones(raised: type[BaseException]) -> None:
    class Panicking(RecordingEmbedder):
        def embed_queries(self, texts: Sequence[str]) -> Vectors:
            if "bad" in texts:
                raise raised
            return super().embed_queries(texts)

        def embed_passages(self, texts: Sequence[str]) -> Vectors:
            if "bad" in texts:
                raise raised
            return super().embed_passages(texts)

    def work(vectors: Sequence[Vectors]) -> int:
        raise raised

    async def main() -> None:
        async with EmbeddingBatcher(Panicking()) as batcher:
            for _ in range(4):  # more than there are threads
                with anyio.fail_after(5), pytest.raises(RuntimeError, match="work with the vectors"):
                    await batcher.with_queries(["a"], work)
                with anyio.fail_after(5), pytest.raises(EmbeddingFailed):
                    await batcher.embed_query("bad")
                with anyio.fail_after(5), pytest.raises(EmbeddingFailed):
                    await batcher.embed_passages(["bad"])
            with anyio.fail_after(5):
                assert await batcher.with_queries(["a"], len) == 1
                assert len(await batcher.embed_passages(["a"])) == 1

    anyio.run(main)


def test_closing_answers_questions_that_were_asked() -> None:
    embedder = RecordingEmbedder()

    async def main() -> list[Vectors]:
        batcher = EmbeddingBatcher(embedder)
        batcher.start()
        embedder.query_gate.clear()
        asked = [asyncio.ensure_future(batcher.embed_query(f"question {number}")) for number in range(9)]
        await asyncio.sleep(0.01)
        closing = asyncio.ensure_future(batcher.aclose())
        await asyncio.sleep(0.01)
        embedder.query_gate.set()
        await asyncio.wait_for(closing, 5)
        return await asyncio.gather(*asked)

    assert len(asyncio.run(main())) == 9


def test_a_model_that_makes_too_few_vectors_fails_its_callers_and_no_later_ones() -> None:
    embedder = RecordingEmbedder()

    async def main() -> None:
        async with EmbeddingBatcher(embedder) as batcher:
            whole = embedder.embed_queries, embedder.embed_passages
            embedder.embed_queries = embedder.embed_passages = lambda texts: FakeEmbedder().embed_passages(texts)[1:]  # type: ignore[method-assign]
            for number in range(4):
                with pytest.raises(EmbeddingFailed, match="returned 0 vectors for 1 texts"):
                    await batcher.embed_query(f"question {number}")
                with pytest.raises(EmbeddingFailed, match="returned 0 vectors for 1 texts"):
                    await batcher.embed_passages(["text"])
            embedder.embed_queries, embedder.embed_passages = whole  # type: ignore[method-assign]
            with anyio.fail_after(5):
                assert (await batcher.embed_query("question")).shape == (64,)
                assert (await batcher.embed_passages(["text"])).shape == (1, 64)

    anyio.run(main)
