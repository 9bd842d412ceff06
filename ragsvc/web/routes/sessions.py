"""``/v1/session``: signing in to the web pages with a key or a link, and signing out."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Protocol, cast

import msgspec
from litestar import Request, Response, delete, get, post
from msgspec import Meta

from ragsvc.core.access.principal import Scope
from ragsvc.core.errors import KeyInactive, RagsvcError, Unauthorized
from ragsvc.core.validation import invalid_value
from ragsvc.services.access_control import Access, LiveKey
from ragsvc.services.web_sessions import OpenSession, WebSessions, secret_hash_of
from ragsvc.web.auth import AccessRequirement, credential_of
from ragsvc.web.bodies import read_json
from ragsvc.web.context import context_of
from ragsvc.web.public_address import service_url
from ragsvc.web.sessions import cookie_header, require_csrf_token, require_own_origin, session_token

AnyRequest = Request[Any, Any, Any]

_CSRF = {
    "name": "X-CSRF-Token",
    "in": "header",
    "required": False,
    "schema": {"type": "string"},
    "description": "The `csrf_token` of the session, if the request has its cookie and no key",
}


class SessionServices(Protocol):
    """The services that these routes use."""

    @property
    def access(self) -> Access: ...

    @property
    def web_sessions(self) -> WebSessions: ...


class SignIn(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key, or the code of a link; one of the two."""

    key: Annotated[str, Meta(min_length=1, max_length=512)] | None = None
    code: Annotated[str, Meta(min_length=1, max_length=128)] | None = None


class SessionKeyBody(msgspec.Struct, frozen=True, kw_only=True):
    """The key of the caller, without its secret; empty lists allow all models or collections."""

    id: str
    label: str
    tenant: str
    scopes: list[Scope]
    allowed_models: list[str]
    allowed_collections: list[str]
    expires_at: int | None


class SessionBody(msgspec.Struct, frozen=True, kw_only=True):
    """Who is signed in; ``null`` everywhere if nobody is.

    ``csrf_token`` and ``expires_at`` belong to the session: they are ``null`` if the request was authenticated by a key
    in its headers.
    """

    object: Literal["session"] = "session"
    key: SessionKeyBody | None = None
    csrf_token: str | None = None
    expires_at: int | None = None


class SessionDeleted(msgspec.Struct, frozen=True, kw_only=True):
    """The session has ended; ``deleted`` is ``false`` if there was none."""

    object: Literal["session.deleted"] = "session.deleted"
    deleted: bool


class SessionLinkBody(msgspec.Struct, frozen=True, kw_only=True):
    """A link that signs in once, with the key that created it; it is shown in this response only."""

    object: Literal["session.link"] = "session.link"
    code: str
    url: str
    expires_at: int


_sign_in = msgspec.json.Decoder(SignIn)
_PUBLIC = {"scope": AccessRequirement.PUBLIC, "tag": "session"}


@post("/v1/session", opt={**_PUBLIC, "body": SignIn, "errors": (401, 403, 429)}, status_code=200, summary="Sign in")
async def sign_in(request: AnyRequest) -> Response[SessionBody]:
    """Open a session: the cookie of the response authenticates requests of the pages in place of a key.

    Requests with the cookie that change something need its ``csrf_token`` in ``X-CSRF-Token``.
    """
    context = context_of(request.scope)
    if b"sec-fetch-site" in context.headers or b"origin" in context.headers:
        require_own_origin(context, request.scope, changes=True)  # a foreign page must not sign its visitor in
    body = await read_json(request, _sign_in)
    sessions = _services(request).web_sessions
    if (body.key is None) == (body.code is None):
        raise invalid_value("key", "Expected either 'key' or 'code'")
    if body.key is not None:
        opened = await sessions.open_with_key(body.key, address=context.address)
    else:
        opened = await sessions.open_with_code(body.code or "", address=context.address)
    former = session_token(context)
    if former is not None:
        await sessions.close(former)
    context.live = opened.live  # for the log
    max_age_s = opened.expires_at - int(_services(request).access.clock())
    return _answer(_opened(opened), set_cookie=cookie_header(request.scope, opened.token, max_age_s=max_age_s))


@get("/v1/session", opt=_PUBLIC, summary="Show who is signed in")
async def show_session(request: AnyRequest) -> Response[SessionBody]:
    """Show the key of the session, or of the ``Authorization`` header; without either all fields are ``null``."""
    context, services = context_of(request.scope), _services(request)
    credential = credential_of(context.headers)
    if credential:
        context.live = await services.access.authenticate(credential, address=context.address)
        return _answer(SessionBody(key=_key(context.live)))
    token = session_token(context)
    if token is None:
        return _answer(SessionBody())
    require_own_origin(context, request.scope, changes=False)
    try:
        found = await services.web_sessions.find(token)
    except Unauthorized:
        return _answer(SessionBody(), set_cookie=cookie_header(request.scope, b"", max_age_s=0))
    except KeyInactive:  # the session is open again when the key is switched on
        return _answer(SessionBody())
    context.live = found.live
    return _answer(_opened(found))


@delete("/v1/session", opt={**_PUBLIC, "parameters": (_CSRF,), "errors": (403,)}, status_code=200, summary="Sign out")
async def sign_out(request: AnyRequest) -> Response[SessionDeleted]:
    """End the session of the cookie, and remove the cookie."""
    context, sessions = context_of(request.scope), _services(request).web_sessions
    token = session_token(context)
    deleted = False
    if token is not None:
        require_own_origin(context, request.scope, changes=True)
        try:
            context.live = (await sessions.find(token)).live
        except RagsvcError:
            context.live = None  # it has ended, or its key cannot be used
        else:
            require_csrf_token(context, token)
            deleted = True
        await sessions.close(token)
    return _answer(SessionDeleted(deleted=deleted), set_cookie=cookie_header(request.scope, b"", max_age_s=0))


@post(
    "/v1/session/links",
    opt={"scope": AccessRequirement.ANY_KEY, "tag": "session", "errors": (409,)},
    status_code=201,
    summary="Create a link that signs in once",
)
async def create_link(request: AnyRequest) -> Response[SessionLinkBody]:
    """Create a link that opens a session with the caller's key once, within ten minutes."""
    context, sessions = context_of(request.scope), _services(request).web_sessions
    credential = credential_of(context.headers)
    if credential:
        secret_hash = secret_hash_of(credential)
    else:
        secret_hash = await sessions.secret_of_session(context.session_token or b"")
    link = await sessions.create_link(context.principal.key_id, secret_hash)
    url = f"{service_url(request.scope)}/sign-in#code={link.code}"
    return _answer(SessionLinkBody(code=link.code, url=url, expires_at=link.expires_at), status=201)


def _services(request: AnyRequest) -> SessionServices:
    return cast("SessionServices", request.app.state["services"])


def _key(live: LiveKey) -> SessionKeyBody:
    key = live.key
    return SessionKeyBody(
        id=key.id,
        label=key.label,
        tenant=key.tenant,
        scopes=sorted(key.scopes),
        allowed_models=list(key.allowed_models),
        allowed_collections=list(key.allowed_collections),
        expires_at=key.expires_at,
    )


def _opened(found: OpenSession) -> SessionBody:
    return SessionBody(key=_key(found.live), csrf_token=found.csrf_token, expires_at=found.expires_at)


def _answer(body: Any, *, status: int = 200, set_cookie: str | None = None) -> Response[Any]:  # noqa: ANN401 - a struct of this module
    headers = {"cache-control": "no-store", "vary": "Cookie"}
    if set_cookie is not None:
        headers["set-cookie"] = set_cookie
    return Response(body, status_code=status, headers=headers)


route_handlers = [sign_in, show_session, sign_out, create_link]
