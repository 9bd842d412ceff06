"""Admin API ``/v1/keys``: API keys, their limits and their audit trail, of all tenants or of the administrator's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, Response, delete, get, patch, post
from litestar.params import FromPath, FromQuery, QueryParameter
from msgspec import UNSET, Meta, UnsetType

from ragsvc.core.access.api_keys import ApiKey, KeyLimits, KeyState
from ragsvc.core.access.limits import UNLIMITED
from ragsvc.core.access.money import Amount, to_amount, to_micros
from ragsvc.core.access.principal import DEFAULT_SCOPES, Scope
from ragsvc.core.defaults import LOCAL_MODEL, MAX_COLLECTION_NAME_LENGTH, MAX_MODEL_NAME_LENGTH
from ragsvc.core.errors import KeyNotFound, PolicyDenied
from ragsvc.core.ids import END_OF_TEXT, KeyId, TenantId
from ragsvc.core.validation import MAX_INTEGER
from ragsvc.services.idempotency import IdempotentRequest
from ragsvc.services.key_administration import MONEY_LIMITS, Actor, IssuedKey, KeyChange, KeyDraft, check_grant
from ragsvc.store.key_rows import AuditEntry
from ragsvc.store.key_usage_rows import KeyUsage
from ragsvc.web.app_state import services_of
from ragsvc.web.bodies import read_json
from ragsvc.web.context import context_of
from ragsvc.web.csv_answers import json_or_csv, wants_csv
from ragsvc.web.idempotent_requests import idempotent_request
from ragsvc.web.routes.usage import USAGE_COLUMNS, Format, csv_of, day_as_date, json_with_data, shown_numbers
from ragsvc.web.tenant_reach import own_tenant, require_tenant

AnyRequest = Request[Any, Any, Any]

_LabelRule = Meta(min_length=1, max_length=100, pattern=rf"^[^\x00-\x1f\x7f]*{END_OF_TEXT}", examples=["quickstart"])
_TenantRule = Meta(pattern=rf"^[A-Za-z0-9][A-Za-z0-9._-]{{0,63}}{END_OF_TEXT}", examples=["acme"])
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
_Collections = Annotated[
    list[Annotated[str, Meta(min_length=1, max_length=MAX_COLLECTION_NAME_LENGTH)]],
    Meta(max_length=200, description="Names of collections; empty allows all", examples=[["contracts"]]),
]
_SecretHash = Annotated[
    str,
    Meta(
        pattern=rf"^[0-9a-f]{{64}}{END_OF_TEXT}",
        description="SHA-256 of an existing secret in hexadecimal; the key then accepts this secret, and none is drawn",
    ),
]
_Scopes = Annotated[list[Scope], Meta(max_length=20, description="Permissions of the key")]


class CreateKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A key to create. Limits that are left out get the defaults; ``null`` means unlimited."""

    label: _Label
    tenant: _Tenant | None = None
    scopes: _Scopes = msgspec.field(default_factory=lambda: sorted(DEFAULT_SCOPES))
    allowed_models: _Models = []
    allowed_collections: _Collections = []
    secret_sha256: _SecretHash | None = None
    requests_per_minute: _Count | UnsetType | None = UNSET
    requests_per_hour: _Count | UnsetType | None = UNSET
    tokens_per_day: _Tokens | None = None
    token_balance: _Tokens | None = None
    money_per_day: Amount | None = None
    money_balance: Amount | None = None
    max_parallel_requests: _Count | None = None
    expires_at: _Time | None = None
    state: Literal["active", "inactive"] = "active"


class UpdateKey(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """Fields to change. ``token_balance`` and ``money_balance`` replace the balances; ``null`` removes a limit."""

    label: _Label | UnsetType = UNSET
    state: Literal["active", "inactive"] | UnsetType = UNSET
    scopes: _Scopes | UnsetType = UNSET
    allowed_models: _Models | UnsetType = UNSET
    allowed_collections: _Collections | UnsetType = UNSET
    requests_per_minute: _Count | UnsetType | None = UNSET
    requests_per_hour: _Count | UnsetType | None = UNSET
    tokens_per_day: _Tokens | UnsetType | None = UNSET
    token_balance: _Tokens | UnsetType | None = UNSET
    money_per_day: Amount | UnsetType | None = UNSET
    money_balance: Amount | UnsetType | None = UNSET
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
    allowed_collections: list[str]
    requests_per_minute: int | None
    requests_per_hour: int | None
    tokens_per_day: int | None
    token_balance: int | None
    money_per_day: float | None
    money_balance: float | None
    max_parallel_requests: int | None
    expires_at: int | None
    previous_expires_at: int | None
    created_at: int
    updated_at: int


class IssuedKeyBody(KeyBody, frozen=True, kw_only=True):
    """A key with its secret; ``key`` is shown in this response only, and ``null`` if the secret was imported."""

    key: str | None


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


class KeyUsageBody(msgspec.Struct, frozen=True, kw_only=True):
    """Usage of a day: ``date`` in UTC; ``day`` is the same in days since 1970; ``cost`` in the currency of the prices.

    ``family`` is a group of endpoints, also ``search``, ``documents`` and ``files``; ``""`` is from an older release.
    ``errors`` and ``latency_ms`` are those of ``GET /v1/usage``.
    """

    key_id: str
    tenant: str
    date: str
    day: int
    model: str
    family: str
    prompt_tokens: int
    completion_tokens: int
    requests: int
    cost: float
    errors: int
    latency_ms: float | None


class UsageList(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens and requests per day, model and family, newest first."""

    object: Literal["list"] = "list"
    data: list[KeyUsageBody]


class DeletedKey(msgspec.Struct, frozen=True, kw_only=True):
    """The key was deleted."""

    id: str
    object: Literal["api_key.deleted"] = "api_key.deleted"
    deleted: bool = True


_create = msgspec.json.Decoder(CreateKey)
_update = msgspec.json.Decoder(UpdateKey)
_rotate = msgspec.json.Decoder(RotateKey)
_OPT = {"scope": Scope.TENANT_ADMIN, "tag": "keys"}
_Limit = Annotated[int, QueryParameter(ge=1, le=100)]
_Before = Annotated[int | None, QueryParameter(ge=1, le=MAX_INTEGER)]


@post("/v1/keys", opt={**_OPT, "body": CreateKey, "idempotent": True}, summary="Create a key")
async def create_key(request: AnyRequest) -> Response[IssuedKeyBody]:
    """Create a key; its secret is shown in this response only.

    A tenant administrator creates keys of its own tenant, with at most the limits, collections and models of its own
    key.
    """
    body = await read_json(request, _create)
    tenant = body.tenant or context_of(request.scope).principal.tenant
    require_tenant(request, tenant)
    draft = KeyDraft(
        tenant=TenantId(tenant),
        label=body.label,
        scopes=frozenset(body.scopes),
        allowed_models=tuple(body.allowed_models),
        allowed_collections=tuple(body.allowed_collections),
        secret_hash=None if body.secret_sha256 is None else bytes.fromhex(body.secret_sha256),
        limits=services_of(request).keys.limits(
            **_in_micros({name: getattr(body, name) for name in KeyLimits.__struct_fields__})
        ),
        expires_at=body.expires_at,
        state=KeyState(body.state),
    )
    _check_grant(
        request,
        scopes=draft.scopes,
        limits=draft.limits,
        collections=draft.allowed_collections,
        models=draft.allowed_models,
        expires_at=draft.expires_at,
    )
    issued = await services_of(request).keys.create(draft, actor=_actor(request), request=await _repeatable(request))
    return _issued(request, issued, status=201)


@get("/v1/keys", opt=_OPT, summary="List keys")
async def list_keys(
    request: AnyRequest, tenant: FromQuery[str | None] = None, after: FromQuery[str | None] = None, limit: _Limit = 20
) -> KeyList:
    """List the keys of all tenants or of one tenant, oldest first; a tenant administrator sees its own tenant."""
    own = own_tenant(request)
    if own is not None:
        require_tenant(request, tenant or own)
        tenant = own
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
    return _show(request, await _reachable(request, key_id))


@patch("/v1/keys/{key_id:str}", opt={**_OPT, "body": UpdateKey, "errors": (409,)}, summary="Change a key")
async def update_key(request: AnyRequest, key_id: FromPath[str]) -> KeyBody:
    """Change fields of a key; the change applies from the next request on."""
    body = await read_json(request, _update)
    changes: dict[str, Any] = {
        name: value for name in body.__struct_fields__ if (value := getattr(body, name)) is not UNSET
    }
    changes = _in_micros(changes)
    for name, convert in _CONVERTED:
        if name in changes:
            changes[name] = convert(changes[name])
    before = await _reachable(request, key_id, to_change=True)
    limits = {name: value for name, value in changes.items() if name in KeyLimits.__struct_fields__}
    _check_grant(
        request,
        scopes=changes.get("scopes", before.scopes),
        limits=msgspec.structs.replace(before.limits, **limits),
        collections=changes.get("allowed_collections", before.allowed_collections),
        models=changes.get("allowed_models", before.allowed_models),
        expires_at=changes.get("expires_at", before.expires_at),
    )
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
    """Give a key a new secret; the old secret works for ``overlap_s`` more seconds.

    A tenant administrator rotates keys with at most the limits, collections and models of its own key.
    """
    body = await read_json(request, _rotate) if await request.body() else RotateKey()
    key = await _reachable(request, key_id, to_change=True)
    _check_grant(
        request,
        scopes=key.scopes,
        limits=key.limits,
        collections=key.allowed_collections,
        models=key.allowed_models,
        expires_at=key.expires_at,
    )
    issued = await services_of(request).keys.rotate(
        KeyId(key_id), overlap_s=body.overlap_s, actor=_actor(request), request=await _repeatable(request)
    )
    return _issued(request, issued, status=200)


@post("/v1/keys/{key_id:str}/revoke", opt=_OPT, status_code=200, summary="Revoke a key")
async def revoke_key(request: AnyRequest, key_id: FromPath[str]) -> KeyBody:
    """Revoke a key permanently; it stays in the list of keys."""
    await _reachable(request, key_id, to_change=True)
    return _show(request, await services_of(request).keys.revoke(KeyId(key_id), actor=_actor(request)))


@delete("/v1/keys/{key_id:str}", opt=_OPT, status_code=200, summary="Delete a key")
async def delete_key(request: AnyRequest, key_id: FromPath[str]) -> DeletedKey:
    """Delete a key; its audit trail and usage are kept."""
    await _reachable(request, key_id, to_change=True)
    await services_of(request).keys.delete(KeyId(key_id), actor=_actor(request))
    return DeletedKey(id=key_id)


@get("/v1/keys/{key_id:str}/audit", opt=_OPT, summary="Show the audit trail of a key")
async def get_audit(
    request: AnyRequest,
    key_id: FromPath[str],
    before: _Before = None,
    limit: _Limit = 20,
) -> AuditList:
    """Show who changed what and when, newest first; to administrators also for deleted keys."""
    if own_tenant(request) is not None:
        await _reachable(request, key_id)
    entries = await services_of(request).keys.audit(key_id=KeyId(key_id), before=before, limit=limit + 1)
    return AuditList(data=entries[:limit], has_more=len(entries) > limit)


@get("/v1/audit", opt=_OPT, summary="Show the audit trail")
async def list_audit(
    request: AnyRequest,
    tenant: FromQuery[str | None] = None,
    key_id: FromQuery[str | None] = None,
    before: _Before = None,
    limit: _Limit = 20,
) -> AuditList:
    """Show who changed keys, and tenants' keys for providers, newest first; also of deleted keys.

    A tenant administrator sees the changes of its own tenant.
    """
    own = own_tenant(request)
    if own is not None:
        require_tenant(request, tenant or own)
        tenant = own
    entries = await services_of(request).keys.audit(
        tenant=None if tenant is None else TenantId(tenant),
        key_id=None if key_id is None else KeyId(key_id),
        before=before,
        limit=limit + 1,
    )
    return AuditList(data=entries[:limit], has_more=len(entries) > limit)


@get(
    "/v1/keys/{key_id:str}/usage",
    opt={**_OPT, **json_or_csv("Usage of the key, newest first.", UsageList)},
    summary="Show the usage of a key",
)
async def get_usage(
    request: AnyRequest,
    key_id: FromPath[str],
    days: Annotated[int, QueryParameter(ge=1, le=366)] = 30,
    format: Format = None,  # noqa: A002 - the name of the query parameter
) -> Response[UsageList] | Response[bytes]:
    """Show tokens, requests, errors and durations per day, model and family, in JSON or as a table (CSV).

    Searches and uploads count as requests.
    """
    if own_tenant(request) is not None:
        await _reachable(request, key_id)
    usage = await services_of(request).keys.usage(KeyId(key_id), days=days)
    if not wants_csv(request, format):
        return await json_with_data(UsageList(data=[]), usage, _used)
    return await csv_of(("date", "model", "family", *USAGE_COLUMNS), usage, _used, filename="usage-of-key.csv")


def _used(entry: KeyUsage) -> KeyUsageBody:
    return KeyUsageBody(**shown_numbers(entry), date=day_as_date(entry.day))


_CONVERTED: tuple[tuple[str, Callable[[Any], Any]], ...] = (
    ("scopes", frozenset),
    ("allowed_models", tuple),
    ("allowed_collections", tuple),
    ("state", KeyState),
)


def _in_micros(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a key with money as integers. Raises ``InvalidRequest`` for more than six decimals."""
    return {
        name: to_micros(name, value) if name in MONEY_LIMITS and isinstance(value, int | float) else value
        for name, value in fields.items()
    }


def _as_amounts(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: to_amount(value) if name in MONEY_LIMITS and value is not None else value
        for name, value in fields.items()
    }


async def _reachable(request: AnyRequest, key_id: str, *, to_change: bool = False) -> ApiKey:
    """A key that the caller may see. Raises ``KeyNotFound``, and ``PolicyDenied`` if it may not be changed."""
    key = await services_of(request).keys.get(KeyId(key_id))
    own = own_tenant(request)
    if own is not None and key.tenant != own:
        raise KeyNotFound(f"There is no API key '{key_id}'.")
    if to_change and own is not None and Scope.ADMIN in key.scopes:
        raise PolicyDenied("Only a key with the scope 'admin' can change a key that has it.")
    return key


def _check_grant(
    request: AnyRequest,
    *,
    scopes: Iterable[Scope],
    limits: KeyLimits,
    collections: Sequence[str],
    models: Sequence[str],
    expires_at: int | None,
) -> None:
    live = context_of(request.scope).live
    if live is not None and own_tenant(request) is not None:
        check_grant(
            live.key, scopes=scopes, limits=limits, collections=collections, models=models, expires_at=expires_at
        )


def _actor(request: AnyRequest) -> Actor:
    context = context_of(request.scope)
    return Actor(context.principal.key_id, context.request_id)


async def _repeatable(request: AnyRequest) -> IdempotentRequest | None:
    return idempotent_request(request, await request.body())


def fields_of_key(key: ApiKey, now: float) -> dict[str, Any]:
    """The fields of a key as clients see them; ``now`` is in Unix seconds."""
    return {
        **_as_amounts(msgspec.structs.asdict(key.limits)),
        "id": key.id,
        "tenant": key.tenant,
        "label": key.label,
        "state": "expired" if key.state is KeyState.ACTIVE and key.expired(now) else key.state.value,
        "scopes": sorted(key.scopes),
        "allowed_models": list(key.allowed_models),
        "allowed_collections": list(key.allowed_collections),
        "expires_at": key.expires_at,
        "previous_expires_at": key.previous_expires_at,
        "created_at": key.created_at,
        "updated_at": key.updated_at,
    }


def _show(request: AnyRequest, key: ApiKey) -> KeyBody:
    return KeyBody(**fields_of_key(key, services_of(request).access.clock()))


def _issued(request: AnyRequest, issued: IssuedKey, *, status: int) -> Response[IssuedKeyBody]:
    body = IssuedKeyBody(**fields_of_key(issued.key, services_of(request).access.clock()), key=issued.text)
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
    list_audit,
    get_usage,
]
