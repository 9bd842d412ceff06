"""The in-process transport against small ASGI applications that stream, break off, and are left early."""

import anyio
import httpx
import pytest

from ragsvc.cli.in_process import InProcessTransport


async def _start(send, *, status: int = 200) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"X-Case", b"kept")]})


def _run(app, work) -> None:
    async def run() -> None:
        async with anyio.create_task_group() as tasks:
            transport = InProcessTransport(app, tasks)
            async with httpx.AsyncClient(transport=transport, base_url="http://in-process") as client:
                with anyio.fail_after(5):
                    await work(client)
            tasks.cancel_scope.cancel()

    anyio.run(run)


def test_answers_arrive_while_they_are_made() -> None:
    async def app(scope, receive, send) -> None:
        await _start(send)
        await send({"type": "http.response.body", "body": b"first", "more_body": True})
        await gate[0].wait()
        await send({"type": "http.response.body", "body": b"second"})

    async def work(client: httpx.AsyncClient) -> None:
        gate.append(anyio.Event())
        async with client.stream("GET", "/") as response:
            chunks = response.aiter_raw()
            assert await anext(chunks) == b"first"
            gate[0].set()
            assert await anext(chunks) == b"second"

    gate: list[anyio.Event] = []
    _run(app, work)


def test_requests_arrive_whole_with_query_and_path() -> None:
    async def app(scope, receive, send) -> None:
        body = b""
        while True:
            message = await receive()
            body += message["body"]
            if not message["more_body"]:
                break
        echo = b"|".join([scope["path"].encode(), scope["query_string"], body, dict(scope["headers"])[b"x-name"]])
        await _start(send, status=201)
        await send({"type": "http.response.body", "body": echo})

    async def parts():
        yield b"a" * 70_000
        yield b"b"

    async def work(client: httpx.AsyncClient) -> None:
        reply = await client.post("/gr%C3%BCn", params={"q": "ä"}, content=parts(), headers={"X-Name": "v"})
        assert reply.status_code == 201
        assert reply.headers["x-case"] == "kept"
        path, query, body, header = reply.content.split(b"|")
        assert (path.decode(), query, len(body), header) == ("/grün", b"q=%C3%A4", 70_001, b"v")

    _run(app, work)


def test_an_answer_that_breaks_off_is_an_error() -> None:
    async def app(scope, receive, send) -> None:
        await _start(send)
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        raise RuntimeError

    async def work(client: httpx.AsyncClient) -> None:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/")

    _run(app, work)


def test_an_application_that_dies_first_is_an_error() -> None:
    async def app(scope, receive, send) -> None:
        raise RuntimeError

    async def work(client: httpx.AsyncClient) -> None:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/")

    _run(app, work)


def test_leaving_early_is_a_disconnect() -> None:
    told = []

    async def app(scope, receive, send) -> None:
        while (await receive())["more_body"]:
            pass
        await _start(send)
        await send({"type": "http.response.body", "body": b"x", "more_body": True})
        told.append((await receive())["type"])
        await send({"type": "http.response.body", "body": b"nobody reads this", "more_body": True})

    async def work(client: httpx.AsyncClient) -> None:
        async with client.stream("GET", "/") as response:
            await anext(response.aiter_raw())
        while not told:
            await anyio.sleep(0.01)

    _run(app, work)
    assert told == ["http.disconnect"]
