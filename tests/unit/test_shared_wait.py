"""``ragsvc ingest`` waits for many small files with one request for all of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import httpx

from ragsvc.cli.ingest.shared_wait import SharedWait
from ragsvc.cli.service_client import ServiceClient

Lists = Callable[[int], list[dict[str, Any]]]


def waiting(lists: Lists, use: Callable[[SharedWait], Any]) -> tuple[Any, list[str]]:
    """The result of ``use``, and the requests that were sent; ``lists`` gives the documents of each request."""
    sent: list[str] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        sent.append(str(request.url.path))
        return httpx.Response(200, json={"data": lists(len(sent)), "has_more": False})

    async def main() -> Any:
        async with httpx.AsyncClient(base_url="http://service", transport=httpx.MockTransport(answer)) as http:
            return await use(SharedWait(ServiceClient(http), poll_s=0))

    return anyio.run(main), sent


def document(number: int, status: str) -> dict[str, Any]:
    return {"id": f"doc_{number}", "status": status}


def test_one_request_answers_all_that_wait() -> None:
    async def use(shared: SharedWait) -> dict[int, str]:
        found: dict[int, str] = {}

        async def wait(number: int) -> None:
            state = await shared.last_state(document(number, "queued"))
            assert state is not None
            found[number] = state["status"]

        async with anyio.create_task_group() as tasks:
            for number in range(40):
                tasks.start_soon(wait, number)
        return found

    def lists(request: int) -> list[dict[str, Any]]:
        ended = "ready" if request > 2 else "processing"
        return [document(number, "failed" if number == 7 else ended) for number in range(40)]

    found, sent = waiting(lists, use)
    assert found == {number: "failed" if number == 7 else "ready" for number in range(40)}
    assert set(sent) == {"/v1/rag/documents"}
    assert len(sent) < 10


def test_a_document_that_is_not_in_the_list_is_followed_by_itself() -> None:
    async def use(shared: SharedWait) -> object:
        return await shared.last_state(document(1, "queued"))

    found, sent = waiting(lambda _: [document(2, "ready")], use)
    assert found is None
    assert len(sent) == 1
