"""A client's check of where the server's keys live, before anything is sealed for them.

What is checked here: the quote's report data binds the key sets and a nonce of ours, and the key in hand is one of
them. Whether the quote is genuine and of which software is for the vendor's verifier, which the caller brings;
without it this proves nothing.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Callable
from typing import Any, cast

import httpx

from ragsvc.client.server_keys import ServerKey, VerifyKey
from ragsvc.core.errors import CryptoFailure
from ragsvc.crypto.attestation import NONCE_BYTES, AttestationQuote, check_binding

REPORT_PATH = "/v1/attestation/report"
VerifyQuote = Callable[[AttestationQuote], None]
"""Judges a quote's signature, certificates and measurements, and raises to refuse it."""


def check_report(content: bytes, *, nonce: bytes, public_key: bytes) -> AttestationQuote:
    """Read the answer of ``GET /v1/attestation/report`` for ``nonce`` (32 bytes) and compare what it binds.

    ``public_key`` is the raw HPKE key (32 bytes) or X-Wing key (1216 bytes).

    Raises:
        CryptoFailure: malformed, bound to something else, or the key is not among those bound.
    """
    try:
        document = json.loads(content)
        canonical = str(document["keys"]).encode("ascii")
        evidence = AttestationQuote(
            provider=str(document["provider"]),
            quote=base64.b64decode(document["quote"], validate=True),
            auxiliary=base64.b64decode(document["auxiliary"], validate=True),
        )
        entries = cast("list[dict[str, Any]]", json.loads(canonical)["keys"])
        names = {name for entry in entries for name in (entry["x25519"], entry["xwing_sha256"])}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CryptoFailure from error
    check_binding(evidence, canonical=canonical, nonce=nonce)
    if not names & {public_key.hex(), hashlib.sha256(public_key).hexdigest()}:
        raise CryptoFailure
    return evidence


def attested(origin: str, verify_quote: VerifyQuote, *, http: httpx.Client | None = None) -> VerifyKey:
    """A ``verify_key`` for the transports: each fetched key must come with fresh, bound, verified evidence.

    It asks with a blocking request, once for each key.
    """

    def verify(key: ServerKey) -> None:
        nonce = os.urandom(NONCE_BYTES)
        asked = httpx.get if http is None else http.get
        reply = asked(origin.rstrip("/") + REPORT_PATH, params={"nonce": nonce.hex()})
        if not reply.is_success:
            failure = CryptoFailure()
            failure.add_note(f"The server gives no evidence: status {reply.status_code}.")
            raise failure
        verify_quote(check_report(reply.content, nonce=nonce, public_key=key.public_key))

    return verify
