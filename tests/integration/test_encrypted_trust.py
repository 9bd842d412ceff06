"""What clients trust: pinned keys, attestation, never plaintext; and the insecure literal mode."""

from __future__ import annotations

import json
from contextlib import closing, contextmanager

import httpx
import openai
import pytest

from ragsvc.client import EncryptedTransport, HpkeStream, Rvenc, fingerprint
from ragsvc.client.attestation_check import attested, check_report
from ragsvc.core.errors import CryptoFailure
from ragsvc.crypto import rvenc, sealed_headers
from ragsvc.crypto.attestation_quotes import AttestationQuote
from ragsvc.services.request_encryption import open_encryption
from ragsvc.testing.service_runner import running_proxy
from tests.support.chat_service import Services, app_over, issue
from tests.support.configfs_tsm import TsmFolder
from tests.support.keys_database import SmallDatabase, compose
from tests.support.sealing import SealedInference, fetch_rvenc_key
from tests.support.upstream_server import serving

CHAT = {"model": "local/chat-model", "messages": [{"role": "user", "content": "Hello"}]}


@contextmanager
def serving_encrypted(tmp_path, **options):
    """Run the application with encryption options; yields its URL and an API key."""
    database = SmallDatabase(tmp_path / "keys.sqlite")
    encryption = open_encryption(tmp_path, source="memory", key_file=None, **options)
    with closing(database), closing(encryption):
        key = issue(database).key
        with serving(app_over(Services(compose(database), encryption), []), lifespan="on") as (url, _):
            yield url, key


def ask(url: str, key: str, transport: httpx.BaseTransport | None = None) -> str:
    with (
        httpx.Client(transport=transport) as http,
        openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0, http_client=http) as client,
    ):
        return client.chat.completions.create(**CHAT).choices[0].message.content


def test_an_attested_key_is_accepted(tmp_path) -> None:
    (tmp_path / "tsm").mkdir()
    judged: list[AttestationQuote] = []
    with serving_encrypted(tmp_path, attestation_root=TsmFolder(tmp_path / "tsm")) as (url, key):
        for mode in (HpkeStream(), Rvenc()):
            assert ask(url, key, EncryptedTransport(url, mode, verify_key=attested(url, judged.append)))
        nonce = bytes(range(32))
        report = httpx.get(f"{url}/v1/attestation/report", params={"nonce": nonce.hex()}).content
        with pytest.raises(CryptoFailure):
            check_report(report, nonce=nonce, public_key=bytes(32))
        public_key = sealed_headers.decode_base64(httpx.get(f"{url}/v1/hpke/key").json()["public_key"])
        check_report(report, nonce=nonce, public_key=public_key)
        with pytest.raises(CryptoFailure):
            check_report(report, nonce=bytes(32), public_key=public_key)
        changed = json.loads(report)
        changed["keys"] = changed["keys"].replace("x25519", "x25518")
        with pytest.raises(CryptoFailure):
            check_report(json.dumps(changed).encode(), nonce=nonce, public_key=public_key)
    assert [evidence.provider for evidence in judged] == ["sev_guest"] * 2


def test_a_client_that_requires_attestation_sends_nothing_without_it(tmp_path) -> None:
    with serving_encrypted(tmp_path, attestation_root=tmp_path / "absent") as (url, key):
        transport = EncryptedTransport(url, HpkeStream(), verify_key=attested(url, lambda _: None))
        with httpx.Client(transport=transport) as http, pytest.raises(CryptoFailure):
            http.get(f"{url}/v1/models", headers={"authorization": f"Bearer {key}"})


def test_the_proxy_refuses_what_it_cannot_encrypt(tmp_path) -> None:
    with serving_encrypted(tmp_path) as (url, key):
        good = fingerprint(sealed_headers.decode_base64(httpx.get(f"{url}/v1/hpke/key").json()["public_key"]))
        with running_proxy(url, "--pin", good) as proxy:
            assert ask(proxy, key)
            rebound = httpx.get(f"{proxy}/v1/models", headers={"host": "evil.example"})
            assert rebound.status_code == 403
            refused = httpx.get(f"{proxy}/v1/models", headers={"authorization": "Bearer wrong"})
            assert (refused.status_code, refused.headers["x-ragsvc-encrypted"]) == (401, "false")
        with running_proxy(url, "--pin", "00" * 32) as proxy, pytest.raises(openai.InternalServerError) as unpinned:
            ask(proxy, key)
        assert (unpinned.value.status_code, unpinned.value.code) == (502, "encryption_error")
        with running_proxy(url, "--mode", "rvenc") as proxy:
            listed = httpx.get(f"{proxy}/v1/models", headers={"authorization": f"Bearer {key}"})
            assert (listed.status_code, listed.json()["error"]["code"]) == (400, "not_encryptable")


def test_the_proxy_never_passes_on_a_plaintext_response(tmp_path) -> None:
    async def plaintext(scope, receive, send):
        body = json.dumps({"public_key": "CQ" + "A" * 41 + "=", "answer": "in the clear"}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"application/json")]})
        await send({"type": "http.response.body", "body": body})

    with serving(plaintext) as (url, _), running_proxy(url) as proxy:
        reply = httpx.post(f"{proxy}/v1/chat/completions", json=CHAT)
    assert reply.status_code == 502
    assert "in the clear" not in reply.text


def test_the_insecure_literal_mode_follows_the_document_and_our_client_refuses_it(tmp_path) -> None:
    with serving_encrypted(tmp_path, insecure_literal_rvenc=True) as (url, key):
        with httpx.Client(base_url=url, headers={"authorization": f"Bearer {key}"}) as http:
            assert http.get("/rvenc/key").json()["answers"] == "literal"
            inference = SealedInference(fetch_rvenc_key(http), json.dumps(CHAT).encode())
            events = http.post("/rvenc/chat/completions", json=inference.body).text.strip().split("\n\n")
        lines = [event.split("\n") for event in events if event != ":"]
        assert lines[-1] == ["event: done", "data: [DONE]"]
        chunks = [
            json.loads(rvenc.open_insecure_literal_chunk(inference.keys, inference.nonce, data.removeprefix("data: ")))
            for name, data in lines[:-1]
        ]
        assert chunks[0]["object"] == "chat.completion.chunk"
        with pytest.raises((CryptoFailure, openai.APIConnectionError)):
            ask(url, key, EncryptedTransport(url, Rvenc()))
