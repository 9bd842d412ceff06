"""Attestation: evidence that the encryption keys are held in a trusted execution environment.

Quotes come from Linux's configfs-tsm; on a machine without it, requests for evidence fail.
"""

from __future__ import annotations

import hashlib
import json
import secrets
from pathlib import Path
from typing import Final

from ragsvc.core.errors import AttestationUnavailable
from ragsvc.crypto.attestation_quotes import REPORT_DATA_BYTES, AttestationQuote
from ragsvc.crypto.keyring import KeySet

TSM_ROOT: Final = Path("/sys/kernel/config/tsm/report")


def canonical_key_sets(key_sets: list[KeySet]) -> bytes:
    """Encode key sets as canonical JSON: ordered by id, with sorted member names and without whitespace.

    ``expires_at`` is whole Unix seconds or ``null``. The X25519 key is hexadecimal; of the X-Wing key, the SHA-256 is.
    """
    entries = [
        {
            "key_id": key_set.key_id,
            "x25519": key_set.hpke_public.hex(),
            "xwing_sha256": hashlib.sha256(key_set.xwing_public).hexdigest(),
            "expires_at": None if key_set.expires_at is None else int(key_set.expires_at),
        }
        for key_set in sorted(key_sets, key=lambda key_set: key_set.key_id)
    ]
    return json.dumps({"keys": entries}, sort_keys=True, separators=(",", ":")).encode("ascii")


def request_evidence(report_data: bytes, *, root: Path = TSM_ROOT) -> AttestationQuote:
    """Request a quote over ``report_data`` (at most 64 bytes) from the kernel. Blocks for milliseconds to seconds.

    Source: Linux, Documentation/ABI/testing/configfs-tsm-report.

    Raises:
        AttestationUnavailable: the machine has no configfs-tsm, or the kernel reported an error.
    """
    if len(report_data) > REPORT_DATA_BYTES:
        raise ValueError("report data must have at most 64 bytes")
    entry = root / f"ragsvc-{secrets.token_hex(8)}"
    try:
        entry.mkdir()
    except OSError as error:
        raise AttestationUnavailable("This server runs outside a trusted execution environment.") from error
    try:
        return _read_entry(entry, report_data)
    except OSError as error:
        raise AttestationUnavailable("The platform did not answer with an attestation report.") from error
    finally:
        entry.rmdir()


def _read_entry(entry: Path, report_data: bytes) -> AttestationQuote:
    """Write the report data, read the quote, and check by ``generation`` that no other process wrote in between."""
    generation = entry / "generation"
    before = int(generation.read_text("ascii"))
    (entry / "inblob").write_bytes(report_data)
    quote = (entry / "outblob").read_bytes()
    provider = (entry / "provider").read_text("ascii").strip()
    auxiliary_file = entry / "auxblob"
    auxiliary = auxiliary_file.read_bytes() if auxiliary_file.exists() else b""
    if int(generation.read_text("ascii")) != before + 1 or not quote:
        raise OSError("the report entry changed while it was read")
    return AttestationQuote(provider=provider, quote=quote, auxiliary=auxiliary)
