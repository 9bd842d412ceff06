"""Seals requests in the documented formats, for tests of the real service."""

from __future__ import annotations

import json
import os

import httpx

from ragsvc.crypto import hpke, rvenc, sealed_headers
from ragsvc.crypto.rvenc_events import EventReader

SEALED_TYPE = sealed_headers.ONE_SHOT_MEDIA_TYPE


class OneShot:
    """An HPKE request (RFC 9180) for a public key. ``headers`` and ``body`` may be sent repeatedly."""

    def __init__(self, public_key: bytes, content: bytes, *, content_type: str | None = None) -> None:
        self.context = hpke.set_up_sender(public_key, sealed_headers.INFO)
        self.body = self.context.seal(content)
        self.headers = {"X-HPKE-Enc": sealed_headers.encode_base64(self.context.enc), "Content-Type": SEALED_TYPE}
        if content_type is not None:
            self.headers["X-HPKE-Content-Type"] = content_type

    def open(self, reply: httpx.Response) -> bytes:
        """Decrypt the response."""
        assert reply.headers["content-type"] == SEALED_TYPE, reply.text
        return self.context.open_response(reply.content)


def fetch_hpke_key(http: httpx.Client) -> bytes:
    return sealed_headers.decode_base64(http.get("/v1/hpke/key").json()["public_key"])


def one_shot(http: httpx.Client, method: str, path: str, body: bytes | dict = b"", *, content_type: str | None = None):
    """Send a sealed request; returns the response and its decrypted body."""
    content = json.dumps(body).encode() if isinstance(body, dict) else body
    sealed = OneShot(fetch_hpke_key(http), content, content_type=content_type)
    if method in ("GET", "DELETE"):
        headers = {
            "X-HPKE-Enc": sealed.headers["X-HPKE-Enc"],
            "X-HPKE-Body": sealed_headers.encode_base64(sealed.body),
        }
        reply = http.request(method, path, headers=headers)
    else:
        reply = http.request(method, path, headers=sealed.headers, content=sealed.body)
    return reply, sealed.open(reply)


class SealedInference:
    """An RVENC request. ``body`` may be sent repeatedly."""

    def __init__(self, public_key: bytes, payload: bytes) -> None:
        self.keys = rvenc.generate_encryption_keys(public_key)
        self.nonce = os.urandom(rvenc.NONCE_BYTES)
        sealed = rvenc.seal_request(self.keys, payload, nonce=self.nonce)
        self.body = {
            "encryptedInference": sealed.encrypted_inference,
            "cipherText": sealed.cipher_text,
            "nonce": sealed.nonce,
        }

    def open(self, reply: httpx.Response) -> list[rvenc.OpenedEvent]:
        """Decrypt the events of the response; each of them must be authentic."""
        opener = rvenc.ResponseOpener(
            self.keys.shared_secret, self.nonce, response_nonce_header=reply.headers["x-rvenc-response-nonce"]
        )
        opened = [opener.open(event) for event in EventReader().feed(reply.content)]
        opener.finish()
        return opened


def fetch_rvenc_key(http: httpx.Client) -> bytes:
    return bytes.fromhex(http.get("/rvenc/key").json()["public_key"])
