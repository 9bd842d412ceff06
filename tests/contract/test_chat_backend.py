"""What every ``ChatBackend`` must do, asked of the local one and of a provider."""

import asyncio
import threading
from contextlib import asynccontextmanager

import msgspec
import pytest

from ragsvc.core.errors import Overloaded
from ragsvc.core.gateway.chat import RetrievedPassages, TokenUsage, decode_chat_request
from ragsvc.core.gateway.event_stream import event_data, split_events
from ragsvc.core.gateway.provider_settings import ProviderSettings
from ragsvc.core.ports.model_provider import ForwardRequest
from ragsvc.core.retrieval.search_values import SearchHit
from ragsvc.providers.concurrency_slots import ConcurrencySlots
from ragsvc.providers.local_extractive import LocalExtractive
from ragsvc.providers.openai_upstream import OpenAIUpstream
from ragsvc.providers.upstream_requests import open_session
from tests.support.small_corpus import count_tokens, extract, passage
from tests.support.upstream_server import serving_upstream


@pytest.fixture(scope="module")
def upstream():
    with serving_upstream() as running:
        yield running


@pytest.fixture(params=["local", "provider"])
def backend(request, upstream):
    @asynccontextmanager
    async def opened():
        if request.param == "local":
            yield LocalExtractive(extract, count_tokens=count_tokens)
        else:
            async with open_session() as session:
                settings = ProviderSettings(name="up", base_url=upstream.url)
                yield OpenAIUpstream(settings, session, count_tokens=count_tokens)

    return opened


def call(**fields):
    body = {"model": "m", "messages": [{"role": "user", "content": "By how much did revenue rise?"}]}
    return decode_chat_request(msgspec.json.encode(body | fields))


def run(backend, use):
    async def inside():
        async with backend() as opened:
            return await use(opened)

    return asyncio.run(inside())


@pytest.mark.parametrize("n", [1, 3])
def test_a_whole_answer(backend, n):
    reply = run(backend, lambda opened: opened.complete(call(n=n)))
    body = msgspec.json.decode(reply.body)
    assert body["object"] == "chat.completion"
    assert {"id", "created", "model"} <= body.keys()
    assert [choice["index"] for choice in body["choices"]] == list(range(n))
    for choice in body["choices"]:
        assert choice.keys() == {"index", "message", "logprobs", "finish_reason"}
        assert choice["message"].keys() >= {"role", "content", "refusal"}
        assert choice["finish_reason"] == "stop"
    assert msgspec.convert(body["usage"], TokenUsage) == reply.usage
    assert reply.usage.total_tokens == reply.usage.prompt_tokens + reply.usage.completion_tokens


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("asks_usage", [False, True])
def test_a_stream_says_the_same_as_the_whole_answer(backend, n, asks_usage):
    options = {"stream_options": {"include_usage": True}} if asks_usage else {}

    async def use(opened):
        whole = await opened.complete(call(n=n))
        stream = await opened.stream(call(n=n, stream=True, **options))
        blocks = []
        async for block in stream:
            assert block.endswith(b"\n\n")
            blocks.append(block)
        assert stream.finished
        usage = await stream.usage()
        await stream.aclose()
        await stream.aclose()
        return whole, b"".join(blocks), usage

    whole, text, usage = run(backend, use)
    chunks = [msgspec.json.decode(event_data(event)) for event in split_events(text)]
    assert b"[DONE]" not in text
    assert {chunk["object"] for chunk in chunks} == {"chat.completion.chunk"}
    assert len({(chunk["id"], chunk["created"]) for chunk in chunks}) == 1
    if asks_usage:
        last = chunks.pop()
        assert last["choices"] == []
        assert msgspec.convert(last["usage"], TokenUsage) == usage
        assert all(chunk["usage"] is None for chunk in chunks)
    else:
        assert not any("usage" in chunk for chunk in chunks)
    for index in range(n):
        mine = [choice for chunk in chunks for choice in chunk["choices"] if choice["index"] == index]
        assert mine[0]["delta"]["role"] == "assistant"
        assert [choice["finish_reason"] for choice in mine] == [None] * (len(mine) - 1) + ["stop"]
        said = "".join(choice["delta"].get("content") or "" for choice in mine)
        assert said == msgspec.json.decode(whole.body)["choices"][index]["message"]["content"]
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens > 0


def test_a_stream_that_is_left_knows_what_it_said(backend):
    async def use(opened):
        stream = await opened.stream(call(stream=True))
        await anext(stream)
        usage = await stream.usage()
        await stream.aclose()
        return usage, getattr(opened, "in_use", 0)

    usage, in_use = run(backend, use)
    assert usage.prompt_tokens > 0
    assert in_use == 0


def test_the_local_answer_is_worked_out_off_the_loop():
    threads = []

    def watched(question, hits, *, answerable):
        threads.append(threading.current_thread())
        return extract(question, hits, answerable=answerable)

    evidence = RetrievedPassages("revenue rise", (SearchHit(passage(1, "The revenue had a rise."), 1.0),), 1.0)
    asked = msgspec.structs.replace(call(), evidence=evidence)
    reply = asyncio.run(LocalExtractive(watched, count_tokens=count_tokens).complete(asked))
    assert b"The revenue had a rise. [1]" in reply.body
    assert threads[0] is not threading.main_thread()


def test_a_short_chat_without_documents_needs_no_thread_once_the_tokenizer_is_loaded():
    async def use():
        backend = LocalExtractive(extract, count_tokens=count_tokens)
        first = await backend.complete(call())
        await backend.aclose()
        second = await backend.complete(call())
        with pytest.raises(RuntimeError):  # a long one needs a thread, and these have ended
            await backend.complete(call(messages=[{"role": "user", "content": "word " * 300}]))
        return [msgspec.json.decode(reply.body) | {"id": "", "created": 0} for reply in (first, second)]

    first, second = asyncio.run(use())
    assert first == second
    assert first["usage"]["completion_tokens"] > 0


def test_other_families_pass_as_they_are(upstream):
    async def parts():
        yield b"--x\r\n"
        yield b"binary \x00\xff\r\n--x--\r\n"

    async def use(opened):
        replies = []
        for body in (b"raw \x00 body", parts()):
            request = ForwardRequest("POST", "/audio/any", body, {"Content-Type": "multipart/form-data; boundary=x"})
            reply = await opened.forward(request)
            replies.append((reply.status, dict(reply.headers), b"".join([piece async for piece in reply])))
            await reply.aclose()
        return replies, opened.in_use

    async def inside():
        async with open_session() as session:
            settings = ProviderSettings(name="up", base_url=upstream.url)
            return await use(OpenAIUpstream(settings, session, count_tokens=count_tokens))

    upstream.echoes = True
    try:
        replies, in_use = asyncio.run(inside())
    finally:
        upstream.echoes = False
    assert [reply[2] for reply in replies] == [b"raw \x00 body", b"--x\r\nbinary \x00\xff\r\n--x--\r\n"]
    assert replies[0][:2] == (200, {"content-type": "application/x-echo"})
    assert upstream.headers[-1]["content-type"] == "multipart/form-data; boundary=x"
    assert in_use == 0


def test_slots_are_given_in_order_and_never_lost():
    async def use():
        slots = ConcurrencySlots(2, max_waiting=3, timeout_s=0.05)
        await slots.acquire()
        await slots.acquire()
        waiting = [asyncio.create_task(slots.acquire()) for _ in range(4)]
        await asyncio.sleep(0.01)
        assert isinstance(waiting[3].exception(), Overloaded)
        waiting[0].cancel()
        slots.release()
        await asyncio.sleep(0)
        await waiting[1]
        with pytest.raises(Overloaded):
            await waiting[2]
        slots.release()
        slots.release()
        return slots.in_use, await slots.acquire(), await slots.acquire()

    assert asyncio.run(use())[0] == 0
