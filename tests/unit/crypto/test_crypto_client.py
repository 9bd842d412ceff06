"""The official OpenAI client over the encrypting transports, and attacks by a server or gateway."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator

import httpx
import openai
import pytest

from ragsvc.client import AsyncEncryptedTransport, EncryptedTransport, HpkeStream, Rvenc, ServerKey, fingerprint
from ragsvc.client.chunk_aggregation import aggregate_chunks
from ragsvc.client.transport import ENCRYPTED
from ragsvc.core.errors import ConfigurationError, CryptoFailure
from ragsvc.crypto import rvenc
from ragsvc.crypto.sealed_headers import encode_base64
from tests.support.crypto import KEY, Clock, RunningServer, in_memory_keyring

MESSAGES = [{"role": "user", "content": "the canary sings"}]
MODES = [HpkeStream, Rvenc]
Connect = Callable[..., openai.OpenAI]


@pytest.fixture
def connect(server: RunningServer) -> Iterator[Connect]:
    clients = []

    def make(mode, **options) -> openai.OpenAI:
        transport = EncryptedTransport(server.origin, mode, **options)
        clients.append(httpx.Client(transport=transport, follow_redirects=True))
        return openai.OpenAI(
            api_key=KEY, base_url=server.origin + "/v1", http_client=clients[-1], max_retries=0, timeout=20
        )

    yield make
    for client in clients:
        client.close()


def ask(client: openai.OpenAI, content: str = "the canary sings") -> str:
    answer = client.chat.completions.create(model="m", messages=[{"role": "user", "content": content}])
    return answer.choices[0].message.content


def stream_text(client: openai.OpenAI) -> str:
    chunks = client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks)


@pytest.mark.parametrize("mode", MODES)
def test_the_openai_client_works_with_and_without_stream(connect, server, mode):
    client = connect(mode())
    assert ask(client) == "echo: the canary sings"
    assert stream_text(client).replace(" ", "") == "echo:thecanarysings"
    assert server.application.fetched_keys == 1  # the key is cached
    for _method, _path, headers, body in server.application.seen:
        assert b"canary" not in body
        assert "canary" not in json.dumps(headers)


@pytest.mark.parametrize("mode", MODES)
def test_the_async_openai_client_works_with_and_without_stream(server, mode):
    async def converse() -> tuple[str, str]:
        transport = AsyncEncryptedTransport(server.origin, mode())
        async with httpx.AsyncClient(transport=transport) as inner:
            client = openai.AsyncOpenAI(api_key=KEY, base_url=server.origin + "/v1", http_client=inner, max_retries=0)
            whole = await client.chat.completions.create(model="m", messages=MESSAGES)
            chunks = await client.chat.completions.create(model="m", messages=MESSAGES, stream=True)
            parts = [chunk.choices[0].delta.content or "" async for chunk in chunks]
            return whole.choices[0].message.content, "".join(parts)

    whole, streamed = asyncio.run(converse())
    assert whole == "echo: the canary sings"
    assert streamed.replace(" ", "") == "echo:thecanarysings"


def test_requests_without_a_body_and_queries_are_authenticated_and_answered_encrypted(connect, server):
    client = connect(HpkeStream())
    assert [model.id for model in client.models.list(extra_query={"after": "x"})] == ["m"]
    method, path, headers, body = server.application.seen[-1]
    assert (method, path, body) == ("GET", "/v1/models", b"")
    assert "x-hpke-body" in headers


@pytest.mark.parametrize("mode", [HpkeStream(), Rvenc()])
def test_errors_of_the_service_become_the_clients_own_exceptions(connect, mode):
    client = connect(mode)
    with pytest.raises(openai.APIStatusError) as caught:
        ask(client, "fail")
    if isinstance(mode, HpkeStream):
        assert (caught.value.status_code, caught.value.param) == (404, "model")
    else:
        assert caught.value.status_code == 502
        assert "the model broke" in str(caught.value)


def test_an_error_within_an_rvenc_stream_reaches_the_caller(connect):
    client = connect(Rvenc())
    failing = [{"role": "user", "content": "fail"}]
    with pytest.raises(openai.APIError, match="the model broke"):
        list(client.chat.completions.create(model="m", messages=failing, stream=True))


def test_an_rvenc_server_may_send_one_document_instead_of_chunks(connect, server):
    server.application.aggregate = False
    assert ask(connect(Rvenc())) == "echo: the canary sings"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("use", [ask, stream_text])
def test_a_plaintext_success_is_refused(connect, server, mode, use):
    server.application.plaintext_answers = True
    with pytest.raises(CryptoFailure) as caught:
        use(connect(mode()))
    assert "without encryption" in caught.value.__notes__[0]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("use", [ask, stream_text])
def test_a_truncated_stream_is_an_error(connect, server, mode, use):
    server.application.cut_streams = True
    with pytest.raises(CryptoFailure):
        use(connect(mode()))


def test_a_key_that_is_not_pinned_is_refused_before_anything_is_sent(connect, server):
    right = fingerprint(server.application.keyring.current().hpke_public)
    assert ask(connect(HpkeStream(), pinned_keys=[right.upper()])) == "echo: the canary sings"
    sent = len(server.application.seen)
    with pytest.raises(CryptoFailure) as caught:
        ask(connect(HpkeStream(), pinned_keys=["00" * 32]))
    assert "pinned" in caught.value.__notes__[0]
    assert [path for _, path, _, _ in server.application.seen[sent:]] == ["/v1/hpke/key"]


def test_verify_key_can_refuse_the_key(connect):
    def refuse(key: ServerKey) -> None:
        raise ConfigurationError([f"{key.key_id} is not attested"])

    with pytest.raises(ConfigurationError, match="not attested"):
        ask(connect(HpkeStream(), verify_key=refuse))


@pytest.mark.parametrize("mode", MODES)
def test_a_rotated_key_is_fetched_again_and_the_request_sealed_again(connect, server, mode):
    client = connect(mode())
    ask(client)
    server.application.keyring = in_memory_keyring()
    assert ask(client) == "echo: the canary sings"
    assert server.application.fetched_keys == 2


def test_an_expired_key_is_fetched_again(server):
    clock = Clock()
    transport = EncryptedTransport(server.origin, HpkeStream(), clock=clock)
    with httpx.Client(transport=transport) as client:
        for _ in range(2):
            client.post(server.origin + "/v1/chat/completions", json={"messages": MESSAGES})
        assert server.application.fetched_keys == 1
        clock.now += 3601
        client.post(server.origin + "/v1/chat/completions", json={"messages": MESSAGES})
    assert server.application.fetched_keys == 2


def test_a_request_moved_under_another_account_does_not_open(server):
    class Gateway(httpx.HTTPTransport):
        def handle_request(self, request):
            if "authorization" in request.headers:
                request.headers["authorization"] = "Bearer somebody-else"
            return super().handle_request(request)

    transport = EncryptedTransport(server.origin, HpkeStream(), inner=Gateway())
    with httpx.Client(transport=transport, headers={"Authorization": f"Bearer {KEY}"}) as client:
        answer = client.post(server.origin + "/v1/chat/completions", json={"messages": MESSAGES})
    assert (answer.status_code, answer.extensions[ENCRYPTED]) == (400, False)
    assert answer.json()["error"]["code"] == "encryption_error"
    assert server.application.decrypted == []


def canned(status: int, headers: dict[str, str], content: bytes = b"", key: bytes | None = None):
    """A server that gives the same response on every path except the key endpoint."""

    def answer(request: httpx.Request) -> httpx.Response:
        if request.url.path == "/v1/hpke/key":
            public = in_memory_keyring().current().hpke_public
            document = {"public_key": encode_base64(public)}
            return httpx.Response(200, content=json.dumps(document).encode() if key is None else key)
        return httpx.Response(status, headers=headers, content=content)

    return httpx.MockTransport(answer)


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (307, {"location": "https://elsewhere.example/"}),
        (307, {"location": "/other", "content-type": "application/vnd.oryxen.hpke-stream"}),
        (200, {"content-type": "application/json"}),
        (204, {}),
        (200, {"content-type": "application/vnd.oryxen.hpke"}),
    ],
)
def test_redirects_and_unencrypted_successes_are_refused(status, headers):
    transport = EncryptedTransport("https://host.example", HpkeStream(), inner=canned(status, headers))
    with httpx.Client(transport=transport, follow_redirects=True) as client, pytest.raises(CryptoFailure):
        client.post("https://host.example/v1/x", json={})


def test_a_plaintext_error_is_passed_on_marked_and_bounded():
    for status, content in ((401, b'{"error": {"message": "no"}}'), (503, b"busy")):
        transport = EncryptedTransport("https://host.example", HpkeStream(), inner=canned(status, {}, content))
        with httpx.Client(transport=transport) as client:
            answer = client.get("https://host.example/v1/models")
        assert (answer.status_code, answer.content, answer.extensions[ENCRYPTED]) == (status, content, False)
    transport = EncryptedTransport("https://host.example", HpkeStream(), inner=canned(500, {}, bytes(70_000)))
    with httpx.Client(transport=transport) as client, pytest.raises(CryptoFailure):
        client.get("https://host.example/v1/models")


@pytest.mark.parametrize("key", [b"", b"[]", b"{}", b'{"public_key": 7}', b'{"public_key": "AAAA"}', bytes(70_000)])
def test_a_malformed_key_document_is_refused(key):
    transport = EncryptedTransport("https://host.example", HpkeStream(), inner=canned(200, {}, key=key))
    with httpx.Client(transport=transport) as client, pytest.raises(CryptoFailure):
        client.get("https://host.example/v1/models")


def test_other_origins_are_refused_and_plain_http_needs_pins(server):
    with httpx.Client(transport=EncryptedTransport(server.origin, HpkeStream())) as client:
        for url in ("http://127.0.0.1:1/v1/models", "https://host.example/v1/models"):
            with pytest.raises(ConfigurationError, match="only"):
                client.get(url)
    with pytest.raises(ConfigurationError, match="pinned"):
        EncryptedTransport("http://host.example", HpkeStream())
    EncryptedTransport("http://host.example", HpkeStream(), pinned_keys=["00" * 32]).close()


def test_rvenc_refuses_routes_it_cannot_encrypt(connect, server):
    with pytest.raises(ConfigurationError, match="plaintext"):
        connect(Rvenc()).models.list()
    assert [path for _, path, _, _ in server.application.seen] == ["/rvenc/key"]


def test_rvenc_reuses_one_cipher_text_per_api_key_and_never_a_nonce(server):
    with httpx.Client(transport=EncryptedTransport(server.origin, Rvenc())) as client:
        for key in ("one", "one", "two"):
            headers = {"Authorization": f"Bearer {key}"}
            client.post(server.origin + "/v1/chat/completions", json={"messages": MESSAGES}, headers=headers)
    sent = [json.loads(body) for _, path, _, body in server.application.seen if path == "/rvenc/chat/completions"]
    assert sent[0]["cipherText"] == sent[1]["cipherText"] != sent[2]["cipherText"]
    assert len({request["nonce"] for request in sent}) == 3


def test_rvenc_takes_pre_generated_keys(connect, server):
    keys = rvenc.generate_encryption_keys(server.application.keyring.current().xwing_public)
    assert ask(connect(Rvenc(encryption_keys=keys))) == "echo: the canary sings"
    assert json.loads(server.application.seen[-1][3])["cipherText"] == keys.cipher_text.hex()


@pytest.mark.parametrize("use", [ask, stream_text])
def test_rvenc_bounds_its_buffer(connect, use):
    with pytest.raises(CryptoFailure):
        use(connect(Rvenc(max_buffer_bytes=100)))


def test_a_slow_server_runs_into_the_request_timeout(connect, server):
    client = connect(HpkeStream(), request_timeout_s=0.2)
    ask(client)
    server.application.pause_s = 1.0
    with pytest.raises(openai.APITimeoutError):
        ask(client)


def test_chunks_are_joined_with_tool_calls_reasoning_and_usage():
    def part(delta, **choice):
        return {"id": "c", "object": "chat.completion.chunk", "choices": [{"index": 0, "delta": delta, **choice}]}

    whole = aggregate_chunks(
        [
            part({"role": "assistant", "content": None, "reasoning_content": "Let "}),
            part({"reasoning_content": "me see", "tool_calls": None}),
            part({"tool_calls": [{"index": 0, "id": "t1", "function": {"name": "find", "arguments": '{"q":'}}]}),
            part({"tool_calls": [{"index": 0, "function": {"arguments": ' "x"}'}}]}),
            part({"tool_calls": [{"index": 1, "id": "t2", "function": {"name": "stop", "arguments": "{}"}}]}),
            part([], finish_reason="tool_calls", logprobs={"content": [1]}),
            part({}, logprobs={"content": [2]}),
            {"id": "c", "object": "chat.completion.chunk", "choices": [], "usage": {"total_tokens": 3}},
        ]
    )
    (choice,) = whole["choices"]
    assert whole["object"] == "chat.completion"
    assert whole["usage"] == {"total_tokens": 3}
    assert choice["message"]["reasoning_content"] == "Let me see"
    assert choice["message"]["content"] is None
    assert [call["function"]["arguments"] for call in choice["message"]["tool_calls"]] == ['{"q": "x"}', "{}"]
    assert [call["id"] for call in choice["message"]["tool_calls"]] == ["t1", "t2"]
    assert (choice["finish_reason"], choice["logprobs"]) == ("tool_calls", {"content": [1, 2]})


@pytest.mark.parametrize("index", [-1, 10**12, None])
def test_a_tool_call_with_an_impossible_index_takes_no_memory(index):
    call = {"index": index, "id": "call_1", "function": {"name": "f", "arguments": "{}"}}
    whole = aggregate_chunks([{"choices": [{"index": 0, "delta": {"tool_calls": [call]}}]}] * 2)
    assert len(whole["choices"][0]["message"]["tool_calls"]) == (0 if index is not None else 2)
