"""Vectors that the TypeScript client is tested with: the server's code makes the same bytes from the same inputs."""

from __future__ import annotations

import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from ragsvc.crypto import hpke, rvenc, sealed_requests, xwing
from ragsvc.crypto.hpke_stream import StreamSealer, bind_request
from tests.support.crypto import load_vectors

VECTORS: dict[str, Any] = load_vectors("client_vectors.json")


def make_vectors(inputs: dict[str, Any]) -> dict[str, Any]:
    """Everything that follows from the inputs."""
    return {
        "inputs": inputs,
        "one_shot": _one_shot(inputs),
        "stream": _stream(inputs),
        "rvenc": _rvenc(inputs),
    }


def _contexts(inputs: dict[str, Any]) -> tuple[hpke.SenderContext, hpke.RecipientContext]:
    private_key = X25519PrivateKey.from_private_bytes(bytes.fromhex(inputs["recipient_secret"]))
    ephemeral = X25519PrivateKey.from_private_bytes(bytes.fromhex(inputs["ephemeral_secret"]))
    public = private_key.public_key().public_bytes_raw()
    sender = hpke.set_up_sender(public, sealed_requests.INFO, ephemeral=ephemeral)
    return sender, hpke.set_up_recipient(sender.enc, private_key, sealed_requests.INFO)


def _one_shot(inputs: dict[str, Any]) -> dict[str, str]:
    sender, recipient = _contexts(inputs)
    sealed = sender.seal(inputs["request"].encode())
    recipient.open(sealed)
    response = recipient.seal_response(inputs["response"].encode())
    return {"enc": sender.enc.hex(), "sealed": sealed.hex(), "response": response.hex()}


def _stream(inputs: dict[str, Any]) -> dict[str, str]:
    sender, recipient = _contexts(inputs)
    aad = bind_request(**inputs["bound"])
    sealed = sender.seal(inputs["request"].encode(), aad)
    recipient.open(sealed, aad)
    sealer = StreamSealer(recipient, response_nonce=bytes.fromhex(inputs["response_nonce"]))
    body = sealer.start()
    for part in inputs["response_parts"]:
        body += sealer.write(part.encode()) + sealer.flush()
    body += sealer.write(b"x" * inputs["response_padding"]) + sealer.finish()
    steered = bind_request(**inputs["bound"], headers=inputs["steering"])
    return {"aad": aad.hex(), "steered_aad": steered.hex(), "sealed": sealed.hex(), "body": body.hex()}


def _rvenc(inputs: dict[str, Any]) -> dict[str, str]:
    key = xwing.XWingPrivateKey(bytes.fromhex(inputs["xwing_seed"]))
    cipher_text = bytes.fromhex(inputs["xwing_cipher_text"])
    secret = key.decapsulate(cipher_text)
    keys = rvenc.EncryptionKeys(shared_secret=secret, cipher_text=cipher_text)
    request = rvenc.seal_request(keys, inputs["request"].encode(), nonce=bytes.fromhex(inputs["rvenc_nonce"]))
    opened = rvenc.open_request(request, key)
    nonce = bytes.fromhex(inputs["response_nonce"])
    sealer = rvenc.ResponseSealer(opened.shared_secret, opened.nonce, response_nonce=nonce)
    events = b"".join(sealer.data(part.encode()) for part in inputs["rvenc_chunks"]) + sealer.done()
    return {
        "public_key": key.public_key.hex(),
        "shared_secret": secret.hex(),
        "encrypted_inference": request.encrypted_inference,
        "body": events.decode(),
    }


def test_the_servers_code_makes_the_vectors() -> None:
    assert make_vectors(VECTORS["inputs"]) == VECTORS


def test_the_vectors_have_full_chunks_and_several_events() -> None:
    assert len(bytes.fromhex(VECTORS["stream"]["body"])) > 2 * 16 * 1024
    assert VECTORS["rvenc"]["body"].count("event: data\n") >= 2
    assert json.loads(VECTORS["inputs"]["request"])
