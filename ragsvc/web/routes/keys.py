"""Admin API ``/v1/keys``: API keys, their limits and their audit trail, for all tenants."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Response, delete, get, patch, post
from litestar.params import FromPath, FromQuery, QueryParameter
from msgspec import UNSET, Meta, UnsetType

from ragsvc.core.access.api_keys import ApiKey, KeyLimits, KeyState
from ragsvc.core.access.limits import UNLIMITED
from ragsvc.core.access.principal import DEFAULT_SCOPES, Scope
from ragsvc.core.defaults import LOCAL_MODEL, MAX_MODEL_NAME_LENGTH
from ragsvc.core.ids import KeyId, TenantId
from ragsvc.core.validation import MAX_INTEGER
from ragsvc.services.idempotency import IdempotentRequest, repeatable
from ragsvc.services.key_administration import Actor, IssuedKey, KeyChange, KeyDraft
from ragsvc.store.key_rows import AuditEntry
from ragsvc.store.key_usage_rows import KeyUsage
from ragsvc.web.app_state import services_of
from ragsvc.web.auth import credential_of
from ragsvc.web.bodies import read_json
from ragsvc.web.context import context_of

AnyRequest = Request[Any, Any, Any]

_LabelRule = Meta(min_length=1, max_length=100, pattern=r"^[^\x00-\x1f\x7f]*$", examples=["quickstart"])
_TenantRule = Meta(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$", examples=["acme"])
_Label = Annotated[str, _LabelRule]
_Tenant = Annotated[str, _TenantRule]
_Count = Annotated[int, Meta(ge=1, le=UNLIMITED)]
_Tokens = Annotated[int, Meta(ge=0, le=1 << 53)]
_Time = Annotated[int, Meta(ge=0, le=1 << 40, description="Unix seconds")]
_Models = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=MAX_MODEL_NAME_LENGTH)]],
    Meta(
        max_length=200,
        description="Names and globs; empty allows all models",
        examples=[["openai/*", LOCAL_MODEL]],
    ),
]
_Scopes = Annotated[list[Scope], Meta(max_length=20, description="Permissions of the key")]


class CreateKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key to create. Limits that are left out get the defaults; ``null`` means unlimited."""

    label: _Label
    tenant: _Tenant | None = None
    scopes: _Scopes = msgspec.field(default_factory=lambda: sorted(DEFAULT_SCOPES))
    allowed_models: _Models = []
    requests_per_minute: _Count | UnsetType | None = UNSET
    requests_per_hour: _Count | UnsetType | None = UNSET
    tokens_per_day: _Tokens | None = None
    token_balance: _Tokens | None = None
    max_parallel_requests: _Count | None = None
    expires_at: _Time | None = None
    state: Literal["active", "inactive"] = "active"


class UpdateKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Fields to change. ``token_balance`` replaces the balance; ``null`` removes a limit."""

    label: _Label | UnsetType = UNSET
    state: Literal["active", "inactive"] | UnsetType = UNSET
    scopes: _Scopes | UnsetType = UNSET
    allowed_models: _Models | UnsetType = UNSET
    requests_per_minute: _Count | UnsetType | None = UNSET
    requests_per_hour: _Count | UnsetType | None = UNSET
    tokens_per_day: _Tokens | UnsetType | None = UNSET
    token_balance: _Tokens | UnsetType | None = UNSET
    max_parallel_requests: _Count | UnsetType | None = UNSET
    expires_at: _Time | UnsetType | None = UNSET


class RotateKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The time in seconds (up to 30 days) in which the old secret still works."""

    overlap_s: Annotated[int, Meta(ge=0, le=30 * 86_400)] = 86_400


class KeyBody(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """A key without its secret. ``previous_expires_at``: until then the secret before the last rotation works."""

    id: str
    object: Literal["api_key"] = "api_key"
    tenant: str
    label: str
    state: Literal["active", "inactive", "revoked", "expired"]
    scopes: list[Scope]
    allowed_models: list[str]
    requests_per_minute: int | None
    requests_per_hour: int | None
    tokens_per_day: int | None
    token_balance: int | None
    max_parallel_requests: int | None
    expires_at: int | None
    previous_expires_at: int | None
    created_at: int
    updated_at: int


class IssuedKeyBody(KeyBody, frozen=True, kw_only=True):
    """A key with its secret; ``key`` is shown in this response only."""

    key: str


class KeyList(msgspec.Struct, frozen=True, kw_only=True):
    """A page of a list of keys, oldest first; the next page begins with ``after`` = ``last_id``."""

    object: Literal["list"] = "list"
    data: list[KeyBody]
    first_id: str | None
    last_id: str | None
    has_more: bool


class AuditList(msgspec.Struct, frozen=True, kw_only=True):
    """Changes of a key, newest first; the next page begins with ``before`` = the id of the last entry."""

    object: Literal["list"] = "list"
    data: list[AuditEntry]
    has_more: bool


class UsageList(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens and requests per day (days since 1970, UTC) and model, newest first."""

    object: Literal["list"] = "list"
    data: list[KeyUsage]


class DeletedKey(msgspec.Struct, frozen=True, kw_only=True):
    """The key was deleted."""

    id: str
    object: Literal["api_key.deleted"] = "api_key.deleted"
    deleted: bool = True


_create = msgspec.json.Decoder(CreateKey)
_update = msgspec.json.Decoder(UpdateKey)
_rotate = msgspec.json.Decoder(RotateKey)
_OPT = {"scope": Scope.ADMIN, "tag": "keys"}
_Limit = Annotated[int, QueryParameter(ge=1, le=100)]


@post("/v1/keys", opt={**_OPT, "body": CreateKey, "idempotent": True}, summary="Create a key")
async def create_key(request: AnyRequest) -> Response[IssuedKeyBody]:
    """Create a key; its secret is shown in this response only."""
    body = await read_json(request, _create)
    tenant = body.tenant or context_of(request.scope).principal.tenant
    draft = KeyDraft(
        tenant=TenantId(tenant),
        label=body.label,
        scopes=frozenset(body.scopes),
        allowed_models=tuple(body.allowed_models),
        limits=services_of(request).keys.limits(**{name: getattr(body, name) for name in KeyLimits.__struct_fields__}),
        expires_at=body.expires_at,
        state=KeyState(body.state),
    )
    issued = await services_of(request).keys.create(draft, actor=_actor(request), request=await _repeatable(request))
    return _issued(request, issued, status=201)


@get("/v1/keys", opt=_OPT, summary="List keys")
async def list_keys(
    request: AnyRequest, tenant: FromQuery[str | None] = None, after: FromQuery[str | None] = None, limit: _Limit = 20
) -> KeyList:
    """List the keys of all tenants or of one tenant, oldest first."""
    keys = await services_of(request).keys.page(
        tenant=None if tenant is None else TenantId(tenant),
        after=None if after is None else KeyId(after),
        limit=limit + 1,
    )
    page = [_show(request, key) for key in keys[:limit]]
    return KeyList(
        data=page,
        first_id=page[0].id if page else None,
        last_id=page[-1].id if page else None,
        has_more=len(keys) > limit,
    )


@get("/v1/keys/{key_id:str}", opt=_OPT, summary="Show a key")
async def get_key(request: AnyRequest, key_id: FromPath[str]) -> KeyBody:
    """Show a key without its secret."""
    return _show(request, await services_of(request).keys.get(KeyId(key_id)))


@patch("/v1/keys/{key_id:str}", opt={**_OPT, "body": UpdateKey, "errors": (409,)}, summary="Change a key")
async def update_key(request: AnyRequest, key_id: FromPath[str]) -> KeyBody:
    """Change fields of a key; the change applies from the next request on."""
    body = await read_json(request, _update)
    changes: dict[str, Any] = {
        name: value for name in body.__struct_fields__ if (value := getattr(body, name)) is not UNSET
    }
    for name, convert in (("scopes", frozenset), ("allowed_models", tuple), ("state", KeyState)):
        if name in changes:
            changes[name] = convert(changes[name])
    return _show(
        request, await services_of(request).keys.update(KeyId(key_id), KeyChange(**changes), actor=_actor(request))
    )


@post(
    "/v1/keys/{key_id:str}/rotate",
    opt={**_OPT, "body": RotateKey, "body_optional": True, "idempotent": True, "errors": (409,)},
    status_code=200,
    summary="Rotate a key",
)
async def rotate_key(request: AnyRequest, key_id: FromPath[str]) -> Response[IssuedKeyBody]:
    """Give a key a new secret; the old secret works for ``overlap_s`` more seconds."""
    body = await read_json(request, _rotate) if await request.body() else RotateKey()
    issued = await services_of(request).keys.rotate(
        KeyId(key_id), overlap_s=body.overlap_s, actor=_actor(request), request=await _repeatable(request)
    )
    return _issued(request, issued, status=200)


@post("/v1/keys/{key_id:str}/revoke", opt=_OPT, status_code=200, summary="Revoke a key")
async def revoke_key(request: AnyRequest, key_id: FromPath[str]) -> KeyBody:
    """Revoke a key permanently; it stays in the list of keys."""
    return _show(request, await services_of(request).keys.revoke(KeyId(key_id), actor=_actor(request)))


@delete("/v1/keys/{key_id:str}", opt=_OPT, status_code=200, summary="Delete a key")
async def delete_key(request: AnyRequest, key_id: FromPath[str]) -> DeletedKey:
    """Delete a key; its audit trail and usage are kept."""
    await services_of(request).keys.delete(KeyId(key_id), actor=_actor(request))
    return DeletedKey(id=key_id)


@get("/v1/keys/{key_id:str}/audit", opt=_OPT, summary="Show the audit trail of a key")
async def get_audit(
    request: AnyRequest,
    key_id: FromPath[str],
    before: Annotated[int | None, QueryParameter(ge=1, le=MAX_INTEGER)] = None,
    limit: _Limit = 20,
) -> AuditList:
    """Show who changed what and when, newest first; also for deleted keys."""
    entries = await services_of(request).keys.audit(KeyId(key_id), before=before, limit=limit + 1)
    return AuditList(data=entries[:limit], has_more=len(entries) > limit)


@get("/v1/keys/{key_id:str}/usage", opt=_OPT, summary="Show the usage of a key")
async def get_usage(
    request: AnyRequest, key_id: FromPath[str], days: Annotated[int, QueryParameter(ge=1, le=366)] = 30
) -> UsageList:
    """Show tokens and requests per day and model."""
    return UsageList(data=await services_of(request).keys.usage(KeyId(key_id), days=days))


def _actor(request: AnyRequest) -> Actor:
    context = context_of(request.scope)
    return Actor(context.principal.key_id, context.request_id)


async def _repeatable(request: AnyRequest) -> IdempotentRequest | None:
    context = context_of(request.scope)
    name = context.headers.get(b"idempotency-key")
    if name is None:
        return None
    return repeatable(
        owner=context.principal.key_id,
        name=name,
        credential=credential_of(context.headers) or b"",
        parts=[request.method.encode(), request.url.path.encode(), await request.body()],
    )


def _fields(key: ApiKey, now: float) -> dict[str, Any]:
    return {
        **msgspec.structs.asdict(key.limits),
        "id": key.id,
        "tenant": key.tenant,
        "label": key.label,
        "state": "expired" if key.state is KeyState.ACTIVE and key.expired(now) else key.state.value,
        "scopes": sorted(key.scopes),
        "allowed_models": list(key.allowed_models),
        "expires_at": key.expires_at,
        "previous_expires_at": key.previous_expires_at,
        "created_at": key.created_at,
        "updated_at": key.updated_at,
    }


def _show(request: AnyRequest, key: ApiKey) -> KeyBody:
    return KeyBody(**_fields(key, services_of(request).access.clock()))


def _issued(request: AnyRequest, issued: IssuedKey, *, status: int) -> Response[IssuedKeyBody]:
    body = IssuedKeyBody(**_fields(issued.key, services_of(request).access.clock()), key=issued.text)
    headers = {"location": f"/v1/keys/{issued.key.id}", "cache-control": "no-store"}
    return Response(body, status_code=status, headers=headers)


route_handlers = [
    create_key,
    list_keys,
    get_key,
    update_key,
    rotate_key,
    revoke_key,
    delete_key,
    get_audit,
    get_usage,
]
