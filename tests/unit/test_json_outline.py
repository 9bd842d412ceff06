"""Outlines of large JSON bodies: the same strings as a decoder reads, in slices of bounded size."""

import asyncio
import json
import threading
import time

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ragsvc.core import json_outline
from ragsvc.core.cancellation import Cancellation, WorkCancelled, count_in_parts, run_in_thread
from ragsvc.core.errors import InvalidRequest, PromptTooLong
from ragsvc.core.gateway.chat import decode_chat_request, decode_large_chat_request
from ragsvc.core.gateway.endpoint_families import Family, read_large_fields
from ragsvc.core.json_outline import JsonOutline


def chat(*texts, ensure_ascii=True, **fields):
    messages = [{"role": "user", "content": text} for text in texts]
    return json.dumps({"model": "m", "messages": messages, **fields}, ensure_ascii=ensure_ascii).encode()


def any_limit(_model):
    return 10_000_000


PIECES = st.sampled_from(["a" * 3000, '"', "\\", "\n", "😀", "п", "中" * 900, " ", "u", "d83d", "\\u" * 700])


@given(texts=st.lists(st.lists(PIECES, max_size=60).map("".join), min_size=1, max_size=4), ensure_ascii=st.booleans())
def test_a_large_body_decodes_like_a_small_one(texts, ensure_ascii):
    body = chat(*texts, ensure_ascii=ensure_ascii)
    assert decode_large_chat_request(body, max_prompt_characters=any_limit) == decode_chat_request(body)


@pytest.mark.parametrize("ensure_ascii", [True, False])
@pytest.mark.parametrize("text", ["hello world ", "привет", "😀", '"\\', "\n", "\\", "中文", "a"])
def test_strings_of_megabytes_are_decoded_in_slices(text, ensure_ascii, monkeypatch):
    whole = text * (600_000 // len(text))
    longest = 0
    original = JsonOutline._cut

    def cut(self, begin, end):
        nonlocal longest
        at = original(self, begin, end)
        longest = max(longest, at - begin)
        return at

    monkeypatch.setattr(JsonOutline, "_cut", cut)
    call = decode_large_chat_request(chat(whole, ensure_ascii=ensure_ascii), max_prompt_characters=any_limit)
    assert call.request.messages[0].content == whole
    assert longest <= json_outline._SLICE_BYTES


def test_parts_and_images():
    image = "data:image/png;base64," + "A" * 100_000
    content = [{"type": "text", "text": "x" * 9000}, {"type": "image_url", "image_url": {"url": image}}]
    body = json.dumps({"model": "m", "messages": [{"role": "user", "content": content}]}).encode()
    call = decode_large_chat_request(body, max_prompt_characters=lambda _: 10_000)
    assert call.request.messages[0].text == "x" * 9000
    assert call.raw is body
    assert JsonOutline(body).fewest_characters == 1500


def test_a_prompt_that_is_too_long_is_refused_before_it_is_decoded():
    body = chat("x" * 28_000_000)
    begin = time.thread_time()
    with pytest.raises(PromptTooLong) as refused:
        decode_large_chat_request(body, max_prompt_characters=lambda _: 4_000_000)
    assert time.thread_time() - begin < 0.5
    assert refused.value.code == "string_above_max_length"
    body = json.dumps({"model": "m", "input": ["x" * 300_000]}).encode()
    with pytest.raises(PromptTooLong):
        read_large_fields(body, Family.EMBEDDINGS, max_prompt_characters=lambda _: 299_999)


def test_limits_are_by_model():
    asked = []

    def limit(model):
        asked.append(model)
        return 10_000

    assert decode_large_chat_request(chat("x" * 10_000), max_prompt_characters=limit).model == "m"
    assert asked == ["m"]


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(b'{"model":"' + b"m" * 5000 + b'","messages":[{"role":"user","content":"x"}]}', id="model"),
        pytest.param(b'{"model":"m","messages":[{"role":"user","content":"' + b"x" * 5000, id="no end"),
        pytest.param(b'{"model":"m","messages":[{"role":"user","content":"' + b"\xff" * 5000 + b'"}]}', id="UTF-8"),
        pytest.param(b'{"model":"m","messages":[{"role":"user","content":"' + b"\\x" * 5000 + b'"}]}', id="escape"),
        pytest.param(b'{"model":"m","messages":[' + b'{"role":"user","content":"x"},' * 30_000 + b"1]}", id="messages"),
        pytest.param(b'{"model":"m","x":[' + b'"",' * 1_500_000 + b"1]}", id="strings"),
        pytest.param(b'{"model":"m","x":[' + b"1," * 1_500_000 + b"1]}", id="parts"),
    ],
)
def test_bodies_that_are_refused(body):
    with pytest.raises(InvalidRequest):
        decode_large_chat_request(body, max_prompt_characters=any_limit)


def test_placeholders_are_not_forgeable():
    first = JsonOutline(chat("x" * 5000))
    forged = msgspec.json.decode(first.skeleton)["messages"][0]["content"]
    body = chat(forged, "y" * 5000)
    call = decode_large_chat_request(body, max_prompt_characters=any_limit)
    assert call.request.messages[0].content == forged


@pytest.mark.anyio
async def test_work_in_a_thread_stops_when_its_caller_is_cancelled():
    counted, begun, stopped = [], threading.Event(), threading.Event()

    def work(cancellation: Cancellation):
        def count(text):
            counted.append(len(text))
            begun.set()
            time.sleep(0.01)
            return len(text)

        try:
            return count_in_parts(count, cancellation)("x" * 50_000_000)
        except WorkCancelled:
            stopped.set()
            raise

    task = asyncio.create_task(run_in_thread(work))
    assert await asyncio.to_thread(begun.wait, 20)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await asyncio.to_thread(stopped.wait, 5)
    assert len(counted) < 400


@pytest.fixture
def anyio_backend():
    return "asyncio"
