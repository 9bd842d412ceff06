"""Public keys for encrypted requests in the encoding of each mode, and their attestation report."""

from __future__ import annotations

import base64
from typing import Annotated, Any, Protocol, cast

import anyio.to_thread
import msgspec
from litestar import Request, Response, get
from litestar.params import Parameter

from ragsvc.core.ids import END_OF_TEXT
from ragsvc.crypto import ehbp, rvenc, sealed_headers
from ragsvc.crypto.attestation import canonical_key_sets, request_evidence
from ragsvc.crypto.attestation_quotes import bind_report_data
from ragsvc.services.request_encryption import EncryptionService
from ragsvc.web.auth import AccessRequirement

_PUBLIC = {"scope": AccessRequirement.PUBLIC, "tag": "encryption"}
_NO_STORE = {"cache-control": "no-store"}

AnyRequest = Request[Any, Any, Any]


class EncryptionServices(Protocol):
    """The services that these routes use."""

    @property
    def encryption(self) -> EncryptionService: ...


class HpkeKey(msgspec.Struct, frozen=True):
    """The HPKE key (RFC 9180): ``public_key`` in base64, ``info`` for the key schedule; ``expires_at`` Unix seconds."""

    public_key: str
    info: str
    key_id: str
    expires_at: int | None
    kem: str = sealed_headers.KEM_NAME
    kdf: str = sealed_headers.KDF_NAME
    aead: str = sealed_headers.AEAD_NAME


class RvencKey(msgspec.Struct, frozen=True):
    """The X-Wing key in hexadecimal. ``answers`` is ``literal`` if the operator enabled the insecure sealing."""

    public_key: str
    key_id: str
    expires_at: int | None
    kem: str
    aead: str
    answers: str


class AttestationReport(msgspec.Struct, frozen=True):
    """A quote over ``keys`` and the client's nonce.

    The first half of the quote's report data is SHA-256 of ``ragsvc-attest-v1``, a zero byte and ``keys`` (exactly this
    JSON text), the second half is the nonce. ``quote`` and ``auxiliary`` are base64.
    """

    provider: str
    quote: str
    auxiliary: str
    nonce: str
    keys: str


def _encryption(request: AnyRequest) -> EncryptionService:
    return cast("EncryptionServices", request.app.state["services"]).encryption


def _whole_seconds(expires_at: float | None) -> int | None:
    return None if expires_at is None else int(expires_at)


@get("/v1/hpke/key", opt=_PUBLIC, summary="Key for HPKE requests")
async def get_hpke_key(request: AnyRequest) -> Response[HpkeKey]:
    """The public key to seal requests for; fetch it again when it expires."""
    key_set = _encryption(request).current()
    key = HpkeKey(
        public_key=sealed_headers.encode_base64(key_set.hpke_public),
        info=sealed_headers.INFO.decode(),
        key_id=key_set.key_id,
        expires_at=_whole_seconds(key_set.expires_at),
    )
    return Response(key, headers=_NO_STORE)


@get(ehbp.KEYS_PATH, opt=_PUBLIC, media_type=ehbp.KEYS_MEDIA_TYPE, summary="Key configuration for EHBP clients")
async def get_ehbp_keys(request: AnyRequest) -> Response[bytes]:
    """The same HPKE key as a key configuration of 41 bytes (RFC 9458, section 3.1)."""
    config = ehbp.encode_key_config(_encryption(request).current().hpke_public)
    return Response(config, media_type=ehbp.KEYS_MEDIA_TYPE, headers=_NO_STORE)


@get("/rvenc/key", opt=_PUBLIC, summary="Key for RVENC requests")
async def get_rvenc_key(request: AnyRequest) -> Response[RvencKey]:
    """The X-Wing key to encapsulate to; fetch it again when it expires."""
    encryption = _encryption(request)
    key_set = encryption.current()
    key = RvencKey(
        public_key=key_set.xwing_public.hex(),
        key_id=key_set.key_id,
        expires_at=_whole_seconds(key_set.expires_at),
        kem=rvenc.KEM_NAME,
        aead=rvenc.AEAD_NAME,
        answers="literal" if encryption.insecure_literal_rvenc else "ragsvc-rvenc-v1",
    )
    return Response(key, headers=_NO_STORE)


@get("/v1/attestation/report", opt={**_PUBLIC, "errors": (503,)}, summary="Attestation report of the encryption keys")
async def get_attestation_report(
    request: AnyRequest,
    nonce: Annotated[
        str, Parameter(pattern=rf"^[0-9a-fA-F]{{64}}{END_OF_TEXT}", description="32 fresh random bytes, hexadecimal")
    ],
) -> Response[AttestationReport]:
    """A quote that covers all accepted keys; 503 outside a trusted execution environment."""
    encryption = _encryption(request)
    canonical = canonical_key_sets(encryption.accepted())
    report_data = bind_report_data(canonical, bytes.fromhex(nonce))
    evidence = await anyio.to_thread.run_sync(lambda: request_evidence(report_data, root=encryption.attestation_root))
    report = AttestationReport(
        provider=evidence.provider,
        quote=base64.b64encode(evidence.quote).decode(),
        auxiliary=base64.b64encode(evidence.auxiliary).decode(),
        nonce=nonce.lower(),
        keys=canonical.decode(),
    )
    return Response(report, headers=_NO_STORE)


route_handlers: list[Any] = [get_hpke_key, get_ehbp_keys, get_rvenc_key, get_attestation_report]
"""All routes of this module."""
