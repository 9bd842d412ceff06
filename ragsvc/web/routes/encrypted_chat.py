"""``POST /rvenc/chat/completions``: description and access requirement of the RVENC route.

``web.sealed`` opens its requests and runs them on the plain chat route; this module has no part in that.
"""

from __future__ import annotations

from typing import Any

from litestar import Request, post
from litestar.response.base import ASGIResponse

from ragsvc.core.access.principal import Scope
from ragsvc.core.errors import CryptoFailure
from ragsvc.crypto import rvenc


@post(
    rvenc.CHAT_PATH,
    status_code=200,
    opt={
        "scope": Scope.CHAT_PLAIN,
        "takes_files": True,
        "tag": "encryption",
        "body": rvenc.EncryptedInference,
        "errors": (402, 404, 502, 504),
    },
    summary="Answer an encrypted chat (RVENC)",
)
async def create_encrypted_chat(request: Request[Any, Any, Any]) -> ASGIResponse:
    """Complete a chat whose request is sealed with X-Wing and XChaCha20-Poly1305; the answer is sealed events."""
    # Reached only in an application without encryption, which can open no request.
    raise CryptoFailure


route_handlers: list[Any] = [create_encrypted_chat]
"""All routes of this module."""
