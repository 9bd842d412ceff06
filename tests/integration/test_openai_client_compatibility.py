"""The official Python client over every family: what it sends arrives byte for byte, and so does the answer."""

from __future__ import annotations

import base64
import contextlib
import io
import struct
import time

import httpx
import openai
import pytest

from ragsvc.client import EncryptedTransport, HpkeStream
from tests.support.recording_provider import COMPLETION_STREAM, JSON_ANSWERS, RESPONSE_STREAM, SPEECH, VECTOR_BASE64

pytestmark = pytest.mark.model


class Wire:
    """An official client and what went over its wire."""

    def __init__(self, gateway, key: str | None = None, **options) -> None:
        self.upstream = gateway.upstream
        self.sent: list[bytes] = []
        self.received: list[httpx.Response] = []
        http = httpx.Client(event_hooks={"request": [self._sent], "response": [self.received.append]})
        self.client = openai.OpenAI(
            api_key=key or gateway.key, base_url=f"{gateway.url}/v1", max_retries=0, http_client=http, **options
        )

    def _sent(self, request: httpx.Request) -> None:
        self.sent.append(request.read())

    def check(self, path: str, answer: bytes | None) -> None:
        """The provider got what was sent, at that path, with the operator's key; the client got ``answer``."""
        recorded = self.upstream.last
        assert recorded.path == path
        assert recorded.body == self.sent[-1]
        assert recorded.headers["authorization"] == "Bearer sk-operator"
        reply = self.received[-1]
        assert reply.headers["x-request-id"].startswith("req_")
        assert reply.headers["x-ratelimit-remaining-requests"] != "1"
        assert "openai-organization" not in reply.headers
        assert reply.headers["content-type"] != ""
        if answer is not None:
            assert reply.content == answer


@pytest.fixture
def wire(gateway):
    made = Wire(gateway)
    yield made
    made.client.close()


def image() -> io.BytesIO:
    file = io.BytesIO(b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 2000)
    file.name = "ox.png"
    return file


CALLS = {
    "/completions": lambda c: c.completions.create(model="m", prompt="Say é", max_tokens=7).choices[0].text,
    "/embeddings": lambda c: c.embeddings.create(model="text-embedding-3-small", input="Memory").data[0].embedding,
    "/responses": lambda c: c.responses.create(model="gpt-4.1", input="Tell me a story", store=False).output_text,
    "/images/generations": lambda c: c.images.generate(model="gpt-image-1", prompt="An ox").data[0].b64_json[:4],
    "/images/edits": lambda c: c.images.edit(model="gpt-image-1", image=image(), prompt="blue").data[0].b64_json,
    "/images/variations": lambda c: c.images.create_variation(model="dall-e-2", image=image()).data[0].url,
    "/audio/transcriptions": lambda c: c.audio.transcriptions.create(model="whisper-1", file=image()).text,
    "/audio/translations": lambda c: c.audio.translations.create(model="whisper-1", file=image()).text,
    "/moderations": lambda c: c.moderations.create(model="omni-moderation-latest", input="hi").results[0].flagged,
}
RESULTS = {
    "/completions": " a é test",
    "/embeddings": list(struct.unpack("<3f", base64.b64decode(VECTOR_BASE64))),
    "/responses": "Once upon a time",
    "/images/generations": "QUJD",
    "/images/edits": "QUJD",
    "/images/variations": "https://example.com/a.png",
    "/audio/transcriptions": "Hallo Welt",
    "/audio/translations": "Hello world",
    "/moderations": False,
}


@pytest.mark.filterwarnings("ignore:deprecated:DeprecationWarning")  # the client's word on two of its own methods
@pytest.mark.parametrize("path", CALLS)
def test_a_family_passes_through_unchanged(wire, path: str) -> None:
    assert CALLS[path](wire.client) == RESULTS[path]
    wire.check(f"/v1{path}", JSON_ANSWERS[f"/v1{path}"])


@pytest.mark.parametrize("path", ["/rerank", "/ocr", "/videos/generations"])
def test_families_without_a_method_of_the_client_pass_through_too(wire, path: str) -> None:
    reply = wire.client.post(path, body={"model": "m", "x": "é", "documents": ["a"]}, cast_to=httpx.Response)
    assert reply.status_code == 200
    wire.check(f"/v1{path}", JSON_ANSWERS[f"/v1{path}"])


def test_speech_is_binary(wire) -> None:
    assert wire.client.audio.speech.create(model="tts-1", voice="alloy", input="Hello").content == SPEECH
    wire.check("/v1/audio/speech", SPEECH)
    assert wire.received[-1].headers["content-type"] == "audio/mpeg"


def test_speech_streams(wire) -> None:
    with wire.client.audio.speech.with_streaming_response.create(model="t", voice="alloy", input="x") as reply:
        assert b"".join(reply.iter_bytes()) == SPEECH


def test_a_transcription_may_be_plain_text(wire) -> None:
    text = wire.client.audio.transcriptions.create(model="whisper-1", file=image(), response_format="text")
    assert text == "Hallo Wélt\n"
    assert wire.received[-1].headers["content-type"] == "text/plain; charset=utf-8"


def test_completions_and_responses_stream(wire) -> None:
    chunks = list(wire.client.completions.create(model="m", prompt="x", stream=True))
    assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == "a b"
    events = list(wire.client.responses.create(model="m", input="x", stream=True, store=False))
    assert [event.type for event in events] == [
        "response.created",
        "response.output_text.delta",
        "response.completed",
    ]
    for path, expected in (("/completions", COMPLETION_STREAM), ("/responses", RESPONSE_STREAM)):
        body = {"model": "m", "input": "x", "store": False, "stream": True}
        raw = wire.client.post(path, body=body, cast_to=httpx.Response)
        assert raw.content == expected


def test_the_model_has_another_name_at_the_provider(wire) -> None:
    wire.client.embeddings.create(model="operayde/alias", input="Ein Wort: é")
    renamed = wire.sent[-1].replace(b'"operayde/alias"', b'"upstream-name"')
    assert wire.upstream.last.body == renamed
    file_first = {"file": ("a.mp3", b"x" * 3_000_000, "audio/mpeg"), "model": (None, "local-name"), "n": (None, "1")}
    reply = wire.client._client.post(f"{wire.client.base_url}audio/transcriptions", files=file_first,
                                     headers={"authorization": f"Bearer {wire.client.api_key}"})  # fmt: skip
    assert reply.json()["text"] == "Hallo Welt"
    recorded = wire.upstream.last
    assert recorded.body == wire.sent[-1].replace(b"\r\nlocal-name\r\n", b"\r\nupstream-name\r\n")
    assert recorded.headers["content-length"] == str(len(recorded.body))
    assert recorded.headers["content-type"] == wire.received[-1].request.headers["content-type"]


def test_errors_are_typed_and_ours(wire) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        wire.client.embeddings.create(model="fail-400", input="x")
    assert (refused.value.message.count("status 400"), refused.value.param) == (1, "input")
    assert refused.value.request_id.startswith("req_")
    for model, kind, status, code in (
        ("fail-429", openai.RateLimitError, 429, "rate_limited"),
        ("fail-503", openai.InternalServerError, 503, "model_unavailable"),
        ("fail-500", openai.InternalServerError, 502, "upstream_error"),
        ("fail-401", openai.InternalServerError, 502, "upstream_rejected"),
    ):
        with pytest.raises(kind) as failed:
            wire.client.completions.create(model=model, prompt="x")
        assert (failed.value.status_code, failed.value.code) == (status, code)
    with pytest.raises(openai.BadRequestError) as missing:
        wire.client.post("/embeddings", body={"input": "x"}, cast_to=httpx.Response)
    assert missing.value.param == "model"
    with pytest.raises(openai.NotFoundError) as elsewhere:
        wire.client.embeddings.create(model="image-model", input="x")
    assert "is not offered for embeddings" in elsewhere.value.message


def test_a_stream_that_breaks_off_ends_with_an_error(wire) -> None:
    with pytest.raises(openai.APIError) as broken:
        list(wire.client.completions.create(model="breaks", prompt="x", stream=True))
    assert "broke off" in broken.value.message
    with pytest.raises(openai.APIConnectionError):
        wire.client.completions.create(model="breaks", prompt="x")


def test_keys_are_held_to_models_and_scopes(gateway) -> None:
    wire = Wire(gateway, gateway.new_key(allowed_models=["text-*"], scopes=["embeddings"]))
    with wire.client as client:
        assert client.embeddings.create(model="text-x", input="x").usage.total_tokens == 8
        with pytest.raises(openai.PermissionDeniedError) as denied:
            client.embeddings.create(model="other", input="x")
        assert denied.value.body["message"] == "Key 'quickstart' lacks scope for model 'other'."
        with pytest.raises(openai.PermissionDeniedError) as denied:
            client.images.edit(model="text-x", image=image(), prompt="x")
        assert denied.value.code == "policy_denied"


@pytest.mark.parametrize(
    ("call", "tokens"),
    [
        (lambda c: c.completions.create(model="m", prompt="x"), 12),
        (lambda c: list(c.completions.create(model="m", prompt="x", stream=True)), 6),
        (lambda c: c.responses.create(model="m", input="x", store=False), 36),
        (lambda c: list(c.responses.create(model="m", input="x", stream=True, store=False)), 36),
        (lambda c: c.embeddings.create(model="m", input="x"), 8),
        (lambda c: c.images.generate(model="m", prompt="x"), 100),
        (lambda c: c.audio.transcriptions.create(model="m", file=image()), 18),
        (lambda c: c.audio.speech.create(model="m", voice="alloy", input="x"), 0),
        (lambda c: c.post("/rerank", body={"model": "m"}, cast_to=httpx.Response), 15),
        (lambda c: c.completions.create(model="fail-500", prompt="x"), 0),
    ],
)
def test_the_reported_usage_is_settled(gateway, call, tokens: int) -> None:
    key = gateway.new_key(token_balance=100_000)
    with Wire(gateway, key).client as client, contextlib.suppress(openai.APIStatusError):
        call(client)
    assert gateway.tokens_left(key) == 100_000 - tokens


def test_a_client_that_leaves_ends_the_call_at_the_provider(gateway) -> None:
    before = gateway.upstream.cancelled
    with Wire(gateway, timeout=0.5).client as client, pytest.raises(openai.APITimeoutError):
        client.completions.create(model="hangs", prompt="x")
    deadline = time.monotonic() + 10
    while gateway.upstream.cancelled == before and time.monotonic() < deadline:
        time.sleep(0.05)
    assert gateway.upstream.cancelled == before + 1


def test_an_upload_streams_and_one_that_is_cut_or_lies_is_refused(gateway) -> None:
    boundary = "b" * 20
    head = f'--{boundary}\r\nContent-Disposition: form-data; name="model"\r\n\r\nwhisper-1\r\n'.encode()
    file = f'--{boundary}\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'.encode()
    end = f"\r\n--{boundary}--\r\n".encode()
    headers = {"content-type": f"multipart/form-data; boundary={boundary}"}

    def parts(*pieces: bytes):
        for piece in pieces:
            yield piece
            time.sleep(0.05)

    with gateway.service.client(gateway.key) as client:
        client.headers.update(headers)
        good = client.post("/v1/audio/transcriptions", content=parts(head, file, b"x" * 100_000, b"y" * 100_000, end))
        assert good.json()["text"] == "Hallo Welt"
        assert len([size for size in gateway.upstream.pieces if size]) > 2
        seen = len(gateway.upstream.requests)
        for broken, why in (
            (parts(head, file, b"x" * 100), "ends too early"),
            (parts(head, file, b"x", b"\r\n", head.replace(b"whisper-1", b"forbidden"), end[2:]), "twice"),
            (parts(b"no form at all" * 10), "does not begin"),
            (parts(file, b"x", end), "'model' is required"),
        ):
            reply = client.post("/v1/audio/transcriptions", content=broken)
            assert reply.status_code == 400, reply.text
            assert why in reply.json()["error"]["message"]
        assert len(gateway.upstream.requests) == seen
        wrong = client.post(
            "/v1/audio/transcriptions", json={"model": "m"}, headers={"content-type": "application/json"}
        )
        assert wrong.status_code == 415


def test_families_work_end_to_end_encrypted(gateway) -> None:
    http = httpx.Client(transport=EncryptedTransport(gateway.url, HpkeStream()))
    with openai.OpenAI(api_key=gateway.key, base_url=f"{gateway.url}/v1", max_retries=0, http_client=http) as client:
        assert len(client.embeddings.create(model="local/embedding-model", input="secret").data[0].embedding) == 384
        assert client.completions.create(model="m", prompt="secret").choices[0].text == " a é test"
        chunks = list(client.completions.create(model="m", prompt="x", stream=True))
        assert "".join(chunk.choices[0].text for chunk in chunks if chunk.choices) == "a b"
        assert client.audio.speech.create(model="tts-1", voice="alloy", input="x").content == SPEECH
        assert client.audio.transcriptions.create(model="whisper-1", file=image()).text == "Hallo Welt"
        assert image().getvalue() in gateway.upstream.last.body


@pytest.mark.parametrize("path", ["batches", "assistants", "threads/t/runs", "fine_tuning/jobs", "evals",
                                  "containers", "videos/v1"])  # fmt: skip
def test_families_of_objects_are_refused_by_name(gateway, path: str) -> None:
    with gateway.service.client(gateway.key) as client:
        for method in ("GET", "POST", "DELETE"):
            reply = client.request(method, f"/v1/{path}")
            assert reply.status_code == 404
            error = reply.json()["error"]
            assert error["code"] == "unknown_url"
            assert f"/v1/{path.split('/', maxsplit=1)[0]} is not offered" in error["message"]
