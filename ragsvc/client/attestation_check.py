"""The client's attestation check: are the server's keys held in a trusted execution environment?

The check covers that the quote's report data matches the key sets and a fresh nonce, and that the fetched key is in one
of the key sets. Whether the quote is genuine, and for which software, is decided by the hardware vendor's verifier,
which the caller provides. Without it the check proves nothing.
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
from ragsvc.crypto.attestation_quotes import NONCE_BYTES, AttestationQuote, check_binding

REPORT_PATH = "/v1/attestation/report"
VerifyQuote = Callable[[AttestationQuote], None]
"""Verifies a quote's signature, certificates and measurements; raises an exception to refuse the quote."""


def check_report(content: bytes, *, nonce: bytes, public_key: bytes) -> AttestationQuote:
    """Parse a response of ``GET /v1/attestation/report`` and compare its report data with ``nonce`` (32 bytes).

    ``public_key`` is the raw HPKE key (32 bytes) or X-Wing key (1216 bytes).

    Raises:
        CryptoFailure: the report is malformed, its report data does not match, or ``public_key`` is not in it.
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
    """Return a ``verify_key`` for the transports that requires a fresh, matching and verified quote for each key.

    It sends a blocking request for each fetched key.
    """

    def verify(key: ServerKey) -> None:
        nonce = os.urandom(NONCE_BYTES)
        asked = httpx.get if http is None else http.get
        reply = asked(origin.rstrip("/") + REPORT_PATH, params={"nonce": nonce.hex()})
        if not reply.is_success:
            failure = CryptoFailure()
            failure.add_note(f"The server has no attestation report: status {reply.status_code}.")
            raise failure
        verify_quote(check_report(reply.content, nonce=nonce, public_key=key.public_key))

    return verify
