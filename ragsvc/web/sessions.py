"""The cookie of a session: where it authenticates a request, and what protects it from pages of other origins.

A request that has a key in a header never uses the cookie. A cookie is used only if the browser states that the request
comes from a page of the service (``Sec-Fetch-Site``, or ``Origin`` where the browser does not send that), also for
requests that only read: with CORS, a page of a listed origin could otherwise read with the cookie. Requests that change
something also need the session's CSRF token in ``X-CSRF-Token``.
"""

from __future__ import annotations

import hmac
from typing import Final
from urllib.parse import urlsplit

from litestar.types import Scope as ASGIScope

from ragsvc.core.errors import ForeignRequest, KeyInactive, Unauthorized
from ragsvc.services.access_control import LiveKey, SessionFinder
from ragsvc.services.web_sessions import csrf_token_of
from ragsvc.web.context import RequestContext
from ragsvc.web.public_address import service_url

COOKIE: Final = "ragsvc_session"
_COOKIE_START: Final = COOKIE.encode() + b"="
_SAFE_METHODS: Final = frozenset({"GET", "HEAD", "OPTIONS"})


async def key_of_cookie(sessions: SessionFinder, context: RequestContext, scope: ASGIScope) -> LiveKey | None:
    """The key of the session whose cookie a request has; ``None`` without such a cookie.

    Raises:
        ForeignRequest: the request comes from a page of another origin, or lacks the CSRF token.
        Unauthorized: the session has ended.
        KeyInactive: its key is switched off.
    """
    token = session_token(context)
    if token is None:
        return None
    require_own_origin(context, scope, changes=scope.get("method") not in _SAFE_METHODS)
    live = await sessions.find_session_key(token)
    if scope.get("method") not in _SAFE_METHODS:
        require_csrf_token(context, token)
    context.session_token = token
    return live


async def has_ended(sessions: SessionFinder | None, context: RequestContext) -> bool:
    """Whether the session that authenticated a long request has ended since; false for a request with a key."""
    if context.session_token is None or sessions is None:
        return False
    try:
        await sessions.find_session_key(context.session_token)
    except (Unauthorized, KeyInactive):
        return True
    return False


def session_token(context: RequestContext) -> bytes | None:
    """The token in the cookie of a request."""
    cookies = context.headers.get(b"cookie")
    if cookies is None:
        return None
    for cookie in cookies.split(b";"):
        stripped = cookie.strip()
        if stripped.startswith(_COOKIE_START):
            return stripped[len(_COOKIE_START) :].strip(b'" ') or None
    return None


def require_csrf_token(context: RequestContext, token: bytes) -> None:
    """Refuse a changing request without the CSRF token of its session. Raises ``ForeignRequest``."""
    given = context.headers.get(b"x-csrf-token", b"")
    if not hmac.compare_digest(given, csrf_token_of(token).encode()):
        raise ForeignRequest("The header 'X-CSRF-Token' is missing, or belongs to another session.")


def require_own_origin(context: RequestContext, scope: ASGIScope, *, changes: bool) -> None:
    """Refuse a request from a page of another origin; one that ``changes`` something must name its origin.

    Raises:
        ForeignRequest: the origin is another one, or unknown.
    """
    site = context.headers.get(b"sec-fetch-site")
    if site is not None:
        # "none": the user opened the address, or reloaded it
        own = site == b"same-origin" or (site == b"none" and not changes)
    else:
        origin = context.headers.get(b"origin")
        own = _is_own(origin.decode("latin-1"), context, scope) if origin is not None else not changes
    if not own:
        raise ForeignRequest("A session can only be used by the pages of this service. Send an API key instead.")


def _is_own(origin: str, context: RequestContext, scope: ASGIScope) -> bool:
    try:
        host = urlsplit(origin).netloc
        own = {urlsplit(service_url(scope)).netloc, context.headers.get(b"host", b"").decode("latin-1")}
    except ValueError:
        return False
    return bool(host) and host in own


def cookie_header(scope: ASGIScope, token: bytes, *, max_age_s: int) -> str:
    """The value of ``Set-Cookie``; an empty token with ``max_age_s`` 0 removes the cookie."""
    address = urlsplit(service_url(scope))
    secure = "; Secure" if address.scheme == "https" else ""
    path = address.path.rstrip("/") or "/"
    return f"{COOKIE}={token.decode()}; Path={path}; Max-Age={max_age_s}; HttpOnly; SameSite=Strict{secure}"
