"""Conversations of tenants: items that requests of the Responses API continue, and that clients list and change.

A conversation belongs to a tenant. A key that is limited to collections sees those conversations that quote no other
collection, and a key without the scope ``chat`` those that quote none; others do not exist for it.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Collection, Sequence
from typing import Final

import anyio
from sqlalchemy import Connection

from ragsvc.core.access.principal import Principal, Scope, allows_collection
from ragsvc.core.errors import InvalidRequest, QuotaExceeded
from ragsvc.core.responses.conversation_items import MAX_CONVERSATION_ITEMS, new_items, taken_id
from ragsvc.core.responses.request import Item
from ragsvc.services.access_control import write_to_the_end
from ragsvc.services.disk_faults import logging_disk_faults
from ragsvc.store import conversation_rows as rows
from ragsvc.store.conversation_rows import Conversation
from ragsvc.store.database import Database

logger = logging.getLogger(__name__)

MAX_CONTINUED_BYTES: Final = 128 << 20
"""Stored items that one request continues, as JSON; they are in memory while its prompt is made."""

_SECONDS_OF_A_DAY = 86_400
_REMOVED_AT_ONCE = 20
_REMOVE_EVERY_S = 600.0


def too_much_continued(limit_bytes: int, *, param: str) -> InvalidRequest:
    """The error for a request that continues more than fits into memory."""
    return InvalidRequest(
        f"The request continues more than {limit_bytes >> 20} MiB of stored items; begin a new conversation.",
        param=param,
    )


def _may_see(principal: Principal, conversation: Conversation) -> bool:
    """Whether the key may use all collections that the conversation quotes."""
    may_read = not conversation.collections or Scope.CHAT in principal.scopes
    return may_read and all(allows_collection(principal, name) for name in conversation.collections)


class ConversationService:
    """Creates, shows, changes and deletes conversations, each for a caller.

    Conversations that were not used for ``retention_days`` do not exist any more; ``None`` keeps them. A conversation
    has at most ``max_items``.
    """

    def __init__(
        self,
        database: Database,
        *,
        retention_days: int | None = None,
        max_items: int = MAX_CONVERSATION_ITEMS,
        max_bytes: int = MAX_CONTINUED_BYTES,
        max_per_tenant: int | None = None,
        clock: Callable[[], float] = time.time,
        draw: Callable[[], str] = lambda: secrets.token_hex(24),
    ) -> None:
        """``draw`` makes the random part of an id. Nothing is added to items of more than ``max_bytes`` as JSON.

        A tenant has at most ``max_per_tenant`` conversations.
        """
        self._database = database
        self._retention_days = retention_days
        self._max_items = max_items
        self._max_bytes = max_bytes
        self._max_per_tenant = max_per_tenant
        self._clock = clock
        self._draw = draw

    async def create(
        self,
        principal: Principal,
        *,
        items: Sequence[Item] = (),
        metadata: dict[str, str] | None = None,
        require_caller: Callable[[Connection], None] = lambda _: None,
    ) -> Conversation:
        """Create a conversation with items, in one transaction.

        ``require_caller`` runs in it, and raises if the caller may not store anything any more.

        Raises:
            InvalidRequest: an item is malformed.
            QuotaExceeded: the tenant may have no more conversations.
        """
        added = self._complete(items)
        now = self._now()

        def write(connection: Connection) -> Conversation:
            require_caller(connection)
            self._check_quota(connection, principal)
            public_id = f"conv_{self._draw()}"
            made = rows.insert_conversation(
                connection, principal.tenant, public_id, metadata=metadata or {}, now=now, key_id=principal.key_id
            )
            rows.append_items(connection, made, added, now=now)
            return made

        return await write_to_the_end(self._database, write)

    async def get(self, principal: Principal, public_id: str, *, param: str = "conversation_id") -> Conversation:
        """Raises ``ConversationNotFound``, which names ``param``."""
        return await self._database.read(lambda connection: self._find(connection, principal, public_id, param=param))

    async def list_conversations(
        self, principal: Principal, *, limit: int, after: str | None, whole_tenant: bool = False
    ) -> tuple[list[Conversation], bool]:
        """Conversations that the key made and may see, the last used first, and whether more follow.

        ``whole_tenant``: those of all keys of the tenant. Raises ``ConversationNotFound`` for ``after``.
        """

        def read(connection: Connection) -> tuple[list[Conversation], bool]:
            found: list[Conversation] = []
            last = None if after is None else self._find(connection, principal, after, param="after")
            while len(found) <= limit:
                some = rows.conversation_page(
                    connection,
                    principal.tenant,
                    limit=limit + 1,
                    after=last,
                    key_id=None if whole_tenant else principal.key_id,
                    active_after=self._active_after(),
                )
                found += [conversation for conversation in some if _may_see(principal, conversation)]
                if len(some) <= limit:
                    break
                last = some[-1]
            return found[:limit], len(found) > limit

        return await self._database.read(read)

    async def set_metadata(self, principal: Principal, public_id: str, metadata: dict[str, str]) -> Conversation:
        """Replace the metadata. Raises ``ConversationNotFound``."""

        def write(connection: Connection) -> Conversation:
            rows.set_metadata(connection, self._find(connection, principal, public_id), metadata, now=self._now())
            return self._find(connection, principal, public_id)

        return await write_to_the_end(self._database, write)

    async def delete(self, principal: Principal, public_id: str) -> None:
        """Delete a conversation with its items. Raises ``ConversationNotFound``."""
        await write_to_the_end(
            self._database,
            lambda connection: rows.delete_conversation(connection, self._find(connection, principal, public_id)),
        )

    async def add(self, principal: Principal, public_id: str, given: Sequence[Item]) -> list[Item]:
        """Check and append items of a client; returns them as stored.

        Raises:
            ConversationNotFound.
            InvalidRequest: an item is malformed, has the id of another item, or the conversation has too many items.
        """
        items = self._complete(given)
        await self.append(principal, public_id, items)
        return items

    async def append(
        self, principal: Principal, public_id: str, items: Sequence[Item], *, collections: Collection[str] = ()
    ) -> None:
        """``append_in`` in a transaction of its own."""
        await write_to_the_end(
            self._database,
            lambda connection: self.append_in(connection, principal, public_id, items, collections=collections),
        )

    def append_in(
        self,
        connection: Connection,
        principal: Principal,
        public_id: str,
        items: Sequence[Item],
        *,
        collections: Collection[str] = (),
        param: str = "conversation_id",
    ) -> None:
        """Append items that have ids and types, in the caller's transaction, all or none.

        ``collections`` are those that the items quote.

        Raises:
            ConversationNotFound: also if it was deleted since it was read.
            InvalidRequest: an item has the id of another item, or the conversation has too many items.
        """
        conversation = self._find(connection, principal, public_id, param=param)
        taken = rows.taken_ids(connection, conversation, [item["id"] for item in items])
        for place, item in enumerate(items):
            if item["id"] in taken:
                raise taken_id(f"items[{place}].id", item["id"])
        if rows.count_items(connection, conversation) + len(items) > self._max_items:
            raise InvalidRequest(f"A conversation may have {self._max_items} items. Begin a new one.", param=param)
        if rows.size_of_items(connection, conversation) > self._max_bytes:
            raise too_much_continued(self._max_bytes, param=param)
        rows.append_items(connection, conversation, items, collections=collections, now=self._now())

    async def items(
        self,
        principal: Principal,
        public_id: str,
        *,
        most_bytes: int = MAX_CONTINUED_BYTES,
        param: str = "conversation_id",
    ) -> list[Item]:
        """All items, oldest first.

        Raises:
            ConversationNotFound: the error names ``param``.
            InvalidRequest: they have more than ``most_bytes`` as JSON.
        """

        def read(connection: Connection) -> list[Item]:
            conversation = self._find(connection, principal, public_id, param=param)
            if rows.size_of_items(connection, conversation) > most_bytes:
                raise too_much_continued(most_bytes, param=param)
            return rows.all_items(connection, conversation)

        return await self._database.read(read)

    async def page(
        self, principal: Principal, public_id: str, *, limit: int, after: str | None, descending: bool
    ) -> tuple[list[Item], bool]:
        """A page of items, and whether more follow. Raises ``ConversationNotFound``, ``ConversationItemNotFound``."""
        return await self._database.read(
            lambda connection: rows.item_page(
                connection,
                self._find(connection, principal, public_id),
                limit=limit,
                after=after,
                descending=descending,
            )
        )

    async def item(self, principal: Principal, public_id: str, item_id: str) -> Item:
        """Raises ``ConversationNotFound``, ``ConversationItemNotFound``."""
        return await self._database.read(
            lambda connection: rows.find_item(connection, self._find(connection, principal, public_id), item_id)
        )

    async def delete_item(self, principal: Principal, public_id: str, item_id: str) -> Conversation:
        """Raises ``ConversationNotFound``, ``ConversationItemNotFound``."""

        def write(connection: Connection) -> Conversation:
            conversation = self._find(connection, principal, public_id)
            rows.delete_item(connection, conversation, item_id, now=self._now())
            return conversation

        return await write_to_the_end(self._database, write)

    async def remove_inactive(self) -> None:
        """Remove conversations that were not used within the retention. Runs until cancelled."""
        while self._retention_days is not None:
            with logging_disk_faults(logger, "old conversations could not be removed"):
                while await self._database.write(
                    lambda connection: rows.delete_inactive(
                        connection, active_after=self._active_after(), limit=_REMOVED_AT_ONCE
                    )
                ):
                    continue
            await anyio.sleep(_REMOVE_EVERY_S)

    def _find(
        self, connection: Connection, principal: Principal, public_id: str, *, param: str = "conversation_id"
    ) -> Conversation:
        found = rows.find_conversation(
            connection, principal.tenant, public_id, active_after=self._active_after(), param=param
        )
        if not _may_see(principal, found):
            raise rows.conversation_not_found(public_id, param=param)
        return found

    def _check_quota(self, connection: Connection, principal: Principal) -> None:
        most = self._max_per_tenant
        if most is not None and (count := rows.count_conversations(connection, principal.tenant)) >= most:
            raise QuotaExceeded(
                f"The tenant '{principal.tenant}' has {count} conversations and may have {most}. Delete conversations, "
                "or ask the operator for a higher limit."
            )

    def _complete(self, given: Sequence[Item]) -> list[Item]:
        return new_items(given, lambda prefix, _: f"{prefix}_{self._draw()}")

    def _active_after(self) -> int:
        """Conversations that were not used after this time do not exist."""
        if self._retention_days is None:
            return -1
        return self._now() - self._retention_days * _SECONDS_OF_A_DAY

    def _now(self) -> int:
        return int(self._clock())
