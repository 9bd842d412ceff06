"""Sessions of the web pages: a key that was given once is replaced by a random token, which a cookie holds.

Rows hold hashes only. This process has all sessions in memory; it is the only one that opens them. A session acts as
its key, with the key's present scopes and limits, and ends at its time, when the user signs out, and with the key: if
it is deleted, revoked, expired, or no longer accepts the secret with which the session was opened.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Callable
from typing import Final

import anyio
import msgspec
from sqlalchemy import Connection

from ragsvc.core.errors import Unauthorized
from ragsvc.core.ids import KeyId
from ragsvc.services.access_control import Access, LiveKey, write_to_the_end
from ragsvc.store import session_rows
from ragsvc.store.session_rows import SessionGrant

LINK_LIFETIME_S: Final = 600
_TOKEN_BYTES: Final = 32
_MAX_TOKEN_BYTES: Final = 128
_SESSIONS_PER_KEY: Final = 200
_LINKS_PER_KEY: Final = 200
_ENDED = "The session has ended. Sign in again."
_USED = "This link was used already or has expired."


class OpenSession(msgspec.Struct, frozen=True):
    """A session that was opened or found. ``token`` belongs into the cookie only."""

    live: LiveKey
    token: bytes
    expires_at: int

    @property
    def csrf_token(self) -> str:
        """The token that changing requests repeat in a header; a page of another origin cannot read it."""
        return csrf_token_of(self.token)


class SessionLink(msgspec.Struct, frozen=True):
    """The code of a link that opens a session once; it is shown once and stored as a hash."""

    code: str
    expires_at: int


def csrf_token_of(token: bytes) -> str:
    """Derive the CSRF token of a session, which does not reveal the session's own token."""
    digest = hmac.digest(token, b"ragsvc csrf token", "sha256")
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode()


def draw_link(key_id: KeyId, secret_hash: bytes, *, now: float) -> tuple[SessionLink, SessionGrant]:
    """Draw the code of a link; the grant is to be stored with ``session_rows.add_link``."""
    code, expires_at = secrets.token_urlsafe(_TOKEN_BYTES), int(now) + LINK_LIFETIME_S
    grant = SessionGrant(
        token_hash=_hash(code.encode()),
        key_id=key_id,
        secret_hash=secret_hash,
        created_at=int(now),
        expires_at=expires_at,
    )
    return SessionLink(code, expires_at), grant


def store_link(connection: Connection, grant: SessionGrant) -> None:
    """Store the grant of a link within a transaction; also used by commands that run without a service."""
    session_rows.add_link(connection, grant, keep=_LINKS_PER_KEY)


def _hash(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


class WebSessions:
    """Opens, finds and ends sessions; implements ``SessionFinder`` and ``Expiring``. Belongs to one event loop."""

    def __init__(self, access: Access, *, lifetime_s: int, sessions_per_key: int = _SESSIONS_PER_KEY) -> None:
        """``sessions_per_key``: a further session ends the oldest of its key."""
        self._access = access
        self._lifetime_s = lifetime_s
        self._sessions_per_key = sessions_per_key
        self._grants: dict[bytes, SessionGrant] = {}
        self._is_loaded = False
        self._loading = anyio.Lock()

    @property
    def _clock(self) -> Callable[[], float]:
        return self._access.clock

    async def open_with_key(self, text: str, *, address: str | None) -> OpenSession:
        """Open a session for the text of a key. Raises as ``Access.authenticate``."""
        credential = text.strip().encode("utf-8", "surrogatepass")
        live = await self._access.authenticate(credential, address=address)
        return await self._open(live, secret_hash_of(credential))

    async def open_with_code(self, code: str, *, address: str | None) -> OpenSession:
        """Open a session with the code of a link, which is used up.

        Raises:
            Unauthorized: the code is unknown, used or expired, or its key can no longer be used.
            KeyInactive: the key is switched off.
            RateLimited: too many failed authentications from this address.
        """
        credential = code.encode("utf-8", "surrogatepass")
        taken: list[SessionGrant] = []

        async def find() -> LiveKey:
            now = int(self._clock())
            grant = await write_to_the_end(
                self._access.database,
                lambda connection: session_rows.take_link(connection, _hash(credential), now=now),
            )
            if grant is None:
                raise Unauthorized(_USED)
            taken.append(grant)
            await self._access.refresh()  # the key may have been created or changed by another process
            return self._access.key_of_secret(grant.key_id, grant.secret_hash)

        live = await self._access.authenticate_by(credential, find, address=address)
        return await self._open(live, taken[0].secret_hash)

    async def _open(self, live: LiveKey, secret_hash: bytes) -> OpenSession:
        now = int(self._clock())
        token = secrets.token_urlsafe(_TOKEN_BYTES).encode()
        ends = [now + self._lifetime_s] + ([live.key.expires_at] if live.key.expires_at is not None else [])
        grant = SessionGrant(
            token_hash=_hash(token),
            key_id=live.key.id,
            secret_hash=secret_hash,
            created_at=now,
            expires_at=min(ends),
        )

        def add(connection: Connection) -> list[bytes]:
            self._access.require_key(connection, live.key.id)
            return session_rows.add_session(connection, grant, keep=self._sessions_per_key)

        await self._load()
        for removed in await write_to_the_end(self._access.database, add):
            self._grants.pop(removed, None)
        self._grants[grant.token_hash] = grant
        return OpenSession(live, token, grant.expires_at)

    async def find(self, token: bytes) -> OpenSession:
        """The session of a token. Raises ``Unauthorized`` if it has ended, and ``KeyInactive``."""
        grant = await self._find_grant(token)
        live = self._access.key_of_secret(grant.key_id, grant.secret_hash)
        return OpenSession(live, token, grant.expires_at)

    async def find_session_key(self, token: bytes) -> LiveKey:
        """The key of a session. Raises ``Unauthorized`` if the session has ended, and ``KeyInactive``."""
        grant = await self._find_grant(token)
        return self._access.key_of_secret(grant.key_id, grant.secret_hash)

    async def _find_grant(self, token: bytes) -> SessionGrant:
        if not self._is_loaded:
            await self._load()
        grant = self._grants.get(_hash(token)) if len(token) <= _MAX_TOKEN_BYTES else None
        if grant is None or grant.expires_at <= self._clock():
            raise Unauthorized(_ENDED)
        return grant

    async def _load(self) -> None:
        async with self._loading:
            if self._is_loaded:
                return
            now = int(self._clock())
            grants = await self._access.database.read(lambda connection: session_rows.all_sessions(connection, now=now))
            self._grants = {grant.token_hash: grant for grant in grants}
            self._is_loaded = True

    async def close(self, token: bytes) -> None:
        """End a session; nothing happens if it has ended."""
        await self._load()
        token_hash = _hash(token)
        grant = self._grants.pop(token_hash, None)
        if grant is None:
            return  # nobody has to be signed in to send a token: those that are made up cost no write
        try:
            await write_to_the_end(
                self._access.database, lambda connection: session_rows.remove_session(connection, token_hash)
            )
        except BaseException:
            self._grants[token_hash] = grant  # the row would open it again at the next start: ending it can be repeated
            raise

    async def create_link(self, key_id: KeyId, secret_hash: bytes) -> SessionLink:
        """Create a link that opens a session of a key once, within ``LINK_LIFETIME_S``.

        Raises:
            Conflict: the key was deleted.
        """
        link, grant = draw_link(key_id, secret_hash, now=self._clock())

        def add(connection: Connection) -> None:
            self._access.require_key(connection, key_id)
            store_link(connection, grant)

        await write_to_the_end(self._access.database, add)
        return link

    async def secret_of_session(self, token: bytes) -> bytes:
        """The hash of the secret with which a session was opened. Raises ``Unauthorized``."""
        return (await self._find_grant(token)).secret_hash

    async def sweep_expired(self) -> int:
        """Remove sessions and links whose time is over; returns their number."""
        now = int(self._clock())
        self._grants = {token: grant for token, grant in self._grants.items() if grant.expires_at > now}
        return await write_to_the_end(
            self._access.database, lambda connection: session_rows.remove_expired(connection, now=now)
        )

    async def next_expiry(self) -> int | None:
        """When the next session or link expires, in Unix seconds; ``None`` if none does."""
        return await self._access.database.read(session_rows.next_expiry)


def secret_hash_of(credential: bytes) -> bytes:
    """The hash of the key in a credential, with or without ``Bearer``, as the rows have it."""
    text = credential[7:] if credential[:7].lower() == b"bearer " else credential
    return _hash(text.strip())
