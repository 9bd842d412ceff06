"""ASGI layer for encrypted requests: opens them, runs the application on the plain request, and seals the response.

The layer wraps routing, so routes see ordinary requests. It authenticates the caller from the headers before it reads
the body: only callers with an API key can cost a Diffie-Hellman and a replay claim. An error before the request has
opened is answered in plaintext, because nothing of the content is known yet. Every later response is encrypted.
"""

from __future__ import annotations

from typing import Final

import msgspec
from litestar.enums import ScopeType
from litestar.types import ASGIApp, Receive, Scope, Send

from ragsvc.core.errors import RagsvcError
from ragsvc.crypto import ehbp, rvenc
from ragsvc.services.access_control import Access
from ragsvc.services.request_encryption import EncryptionService, SealedRequestMode
from ragsvc.web.auth import let_in
from ragsvc.web.bodies import MemoryBudget
from ragsvc.web.context import context_of
from ragsvc.web.errors import is_unexpected, log_unexpected, render
from ragsvc.web.passthrough.raw_responses import send_error
from ragsvc.web.sealed.openers import OpenedRequest, all_openers
from ragsvc.web.sealed.recognition import is_rvenc_chat, recognise_mode
from ragsvc.web.sealed.request_bodies import BodyLimit, KeyConfigMismatch, SealedBody

_KEY_CONFIG_PROBLEM: Final = msgspec.json.encode(
    {"type": ehbp.KEY_CONFIG_PROBLEM, "title": "key configuration mismatch"}
)


class SealedRequestMiddleware:
    """Wraps an ASGI application; see the module. ``memory_bytes`` bounds the encrypted bodies held at the same time."""

    def __init__(
        self,
        app: ASGIApp,
        *,
        encryption: EncryptionService,
        access: Access,
        body_limit: BodyLimit,
        memory_bytes: int,
    ) -> None:
        self._app = app
        self._encryption = encryption
        self._access = access
        self._body_limit = body_limit
        self._memory = MemoryBudget(memory_bytes, what="large encrypted requests")
        self._openers = all_openers(encryption)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        mode = recognise_mode(context_of(scope).headers) if scope["type"] == ScopeType.HTTP else None
        if mode is None:
            await self._run_application(scope, receive, send)
        else:
            await self._serve_sealed(mode, scope, receive, send)

    async def _run_application(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request without HPKE or EHBP, or the request that was inside: RVENC is recognised by its path."""
        if scope["type"] == ScopeType.HTTP and is_rvenc_chat(
            str(scope.get("method")), scope["path"], root_path=scope.get("root_path", "")
        ):
            scope["path_template"] = rvenc.CHAT_PATH  # labels metrics and the access log; the plain route is internal
            await self._serve_sealed(SealedRequestMode.RVENC, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _serve_sealed(self, mode: SealedRequestMode, scope: Scope, receive: Receive, send: Send) -> None:
        context = context_of(scope)
        context.encrypted = True
        opener = self._openers[mode]
        limit = self._body_limit(str(scope.get("method")), scope["path"])
        wire_limit = opener.wire_limit_bytes(limit)
        with self._memory.share() as take:
            try:
                await let_in(self._access, context, scope, opener.requirement, wire_limit)
                body = SealedBody(receive, take, limit_bytes=limit, wire_limit_bytes=wire_limit)
                opened = await opener.open(scope, body, send)
            except (RagsvcError, KeyConfigMismatch) as error:
                self._encryption.refused[mode] += 1
                await _refuse(error, context.request_id, send)
                return
            await self._run_opened(opened, context.request_id)

    async def _run_opened(self, opened: OpenedRequest, request_id: str) -> None:
        """Run the application. Its exceptions are sealed, and logged without their messages."""
        application = opened.application or self._run_application
        try:
            with opened.running:
                await application(opened.scope, opened.receive, opened.response)
        except Exception as error:  # noqa: BLE001 - nothing of an opened request may leave in plaintext
            if is_unexpected(error):
                log_unexpected(error, request_id=request_id, encrypted=True)
            await opened.response.fail(render(error, request_id))


async def _refuse(error: Exception, request_id: str, send: Send) -> None:
    """Answer in plaintext: EHBP's problem document, or the error as on plain routes."""
    if not isinstance(error, KeyConfigMismatch):
        await send_error(error, request_id, send)
        return
    length = b"%d" % len(_KEY_CONFIG_PROBLEM)
    headers = [(b"content-type", ehbp.PROBLEM_MEDIA_TYPE.encode()), (b"content-length", length)]
    await send({"type": "http.response.start", "status": 422, "headers": headers})
    await send({"type": "http.response.body", "body": _KEY_CONFIG_PROBLEM, "more_body": False})
