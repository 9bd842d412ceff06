"""Answers requests of the Responses API, and keeps the responses that clients want to continue or to read again.

A response that a client was told is complete has been committed before. One that is being made when the process ends
is stored as failed at the next start.
"""

from __future__ import annotations

import functools
import logging
import time
import weakref
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Final

import anyio
import msgspec
from sqlalchemy import Connection

from ragsvc.core.access.principal import Principal
from ragsvc.core.documents import CitedFile
from ragsvc.core.errors import (
    InvalidRequest,
    Overloaded,
    QuotaExceeded,
    RagsvcError,
    ResponseNotFound,
    ShuttingDown,
    StorageFull,
    UpstreamFailed,
)
from ragsvc.core.gateway.chat import RetrievedPassages
from ragsvc.core.gateway.event_stream import event_data, split_events, write_event
from ragsvc.core.ids import KeyId, TenantId, chunk_id
from ragsvc.core.json_outline import LARGE_BODY_BYTES
from ragsvc.core.responses.output import Event, ResponseBuilder, chunk_of_completion, without_results
from ragsvc.core.responses.replay import replay_events
from ragsvc.core.responses.request import Item, ResponseRequest
from ragsvc.core.validation import invalid_value
from ragsvc.services.access_control import write_to_the_end
from ragsvc.services.answers import AnswerService, AnswerStream
from ragsvc.services.conversations import ConversationService
from ragsvc.services.disk_faults import logging_disk_faults
from ragsvc.services.response_plans import Adapt, ResponsePlan, ResponsePlanner
from ragsvc.store import response_rows as rows
from ragsvc.store.database import Database
from ragsvc.store.response_rows import UNFINISHED, StoredResponse

logger = logging.getLogger(__name__)

MAX_BACKGROUND: Final = 64
"""Background responses that are being made at the same time; those of one tenant can be half of them."""

INPUTS_BYTES: Final = 256 << 20
"""Default for the memory of inputs that wait until they are stored with their responses, of all requests."""

_MOST_ENDED: Final = 256
_ENDED_BYTES: Final = 16 << 20
_SWEEP_EVERY_S: Final = 600.0
_RETRY_EVERY_S: Final = 10.0
_ROWS_AT_ONCE: Final = 200
_DAY_S: Final = 86_400
_LIMIT_CODES: Final = frozenset({"rate_limited", "balance_exhausted", "overloaded"})
_FAILED: Final = "The server failed unexpectedly. The operator finds details in the log."
_STOPPED: Final = "The service stopped before the response was complete."


def error_code(code: str, *, is_request: bool) -> str:
    """The code of a failed response, of those that clients know, for a code of this service.

    >>> error_code("rate_limited", is_request=False), error_code("upstream_failed", is_request=False)
    ('rate_limit_exceeded', 'server_error')
    """
    if code in _LIMIT_CODES:
        return "rate_limit_exceeded"
    return "invalid_prompt" if is_request else "server_error"


def encode_events(events: Sequence[Event]) -> bytes:
    return b"".join(write_event(msgspec.json.encode(event), name=event["type"]) for event in events)


class ItemPage(msgspec.Struct, frozen=True):
    """A page of items, and whether more follow."""

    items: list[Item]
    has_more: bool


class ResponseStream:
    """The events of a response that is being made; an iterator over blocks of whole events.

    ``open`` asks the model. ``fail`` ends the stream with the event of a failure, also before it has begun.
    """

    def __init__(self, service: ResponseService, plan: ResponsePlan) -> None:
        self._service = service
        self._plan = plan
        self._source: AnswerStream | None = None
        self.builder = ResponseBuilder(plan.head(), cites=plan.cites, shows_results=plan.request.has_results)
        self._waiting = b""
        self._failure = b""
        self._is_stored = False
        self.finished = False
        """Whether the last block has been returned."""

    async def open(self, prepared: Callable[[int], None] = lambda _: None) -> ResponseStream:
        """Ask the model; returns with its first words. Raises the errors of ``AnswerService.stream``."""
        service, plan = self._service, self._plan
        evidence: list[RetrievedPassages] = []
        source = await service.answers.stream(plan.principal, plan.call, prepared=prepared, found=evidence.append)
        try:
            files = evidence[0].files if evidence else {}
            self.builder.file_ids = {name: file.file_id for name, file in files.items()}
            self._is_stored = plan.stored  # before the row exists: a write that has begun is not undone
            if plan.stored and not plan.request.background:
                await service.insert(plan, "in_progress", self.builder.response(whole=True))
            self._waiting = encode_events(self.builder.begin())
            if evidence:
                shown = search_results(evidence[0], files)
                self._waiting += encode_events(self.builder.searched([evidence[0].query], shown))
        except BaseException as error:
            if isinstance(error, Exception):
                await self._keep_failure(error)
            self._source = source
            if not plan.request.background:
                await self.aclose()
            else:
                with anyio.CancelScope(shield=True):
                    await source.aclose()
            raise
        self._source = source
        return self

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self.finished or self._source is None:
            raise StopAsyncIteration
        if self._waiting:
            block, self._waiting = self._waiting, b""
            return block
        try:
            return await self._next(self._source)
        except Exception as error:
            await self._keep_failure(error)
            raise

    async def _next(self, source: AnswerStream) -> bytes:
        async for block in source:
            events = b"".join(encode_events(self.builder.feed(chunk)) for chunk in _chunks(block))
            if source.finished:
                events += encode_events(self.builder.complete(now=self._service.now()))
                await self._service.store_end(
                    self._plan, self.builder.status, self.builder.response(whole=True), stored=self._is_stored
                )
                self.finished = True
                self._service.forget_input(self._plan)
                return events
            if events:
                return events
        raise StopAsyncIteration

    async def _keep_failure(self, error: Exception) -> None:
        """Store a failure before the client learns of it from the events of ``fail``."""
        if isinstance(error, StopAsyncIteration):
            return
        code, message = (error.code, error.message) if isinstance(error, RagsvcError) else ("internal_error", _FAILED)
        self._failure = self.fail(code, message, is_request=isinstance(error, InvalidRequest))
        with anyio.CancelScope(shield=True):
            await self._store_end()

    def fail(self, code: str, message: str, *, is_request: bool = False) -> bytes:
        """The last events of a stream that has failed."""
        if self._failure:
            events, self._failure = self._failure, b""
            return events
        return encode_events(self.builder.fail(error_code(code, is_request=is_request), message))

    def cancel(self) -> bytes:
        """The last events of a stream that was cancelled."""
        return encode_events(self.builder.cancel())

    async def aclose(self) -> None:
        """Stop the model if it still writes, and store how the response has ended; may be called twice."""
        with anyio.CancelScope(shield=True):
            try:
                if self._source is not None:
                    await self._source.aclose()
            finally:
                self._service.forget_input(self._plan)
                if self._is_stored and not self.finished:
                    self.finished = True
                    self.builder.cancel()  # unless it has failed: the client has left
                    await self._store_end()

    async def _store_end(self) -> None:
        try:
            await self._store()
        except (Overloaded, StorageFull, ShuttingDown) as error:  # the next start stores it as failed
            logger.warning("the end of response %s could not be stored: %s", self._plan.id, error.message)

    async def _store(self) -> None:
        if self._is_stored:
            await self._service.change(self._plan, self.builder.status, self.builder.response(whole=True))


class _Running:
    """A background response that is being made, with the events so far."""

    def __init__(self, plan: ResponsePlan) -> None:
        self.plan = plan
        self.blocks: list[bytes] = []
        self.scope = anyio.CancelScope()
        self.ended = anyio.Event()
        self._changed = anyio.Event()

    @property
    def tenant(self) -> TenantId:
        return self.plan.principal.tenant

    def add(self, block: bytes) -> None:
        self.blocks.append(block)
        self.notify()

    def notify(self) -> None:
        self._changed.set()
        self._changed = anyio.Event()

    async def wait(self) -> None:
        """Wait for more events, or for the end."""
        await self._changed.wait()


class _EndedResponses:
    """The events of the last background responses, so that a client that was cut off can read on where it stopped."""

    def __init__(self) -> None:
        self._responses: OrderedDict[str, tuple[_Running, int]] = OrderedDict()
        self._size_bytes = 0

    def add(self, running: _Running) -> None:
        size_bytes = sum(map(len, running.blocks))
        self._responses[running.plan.id] = (running, size_bytes)
        self._size_bytes += size_bytes
        while self._size_bytes > _ENDED_BYTES or len(self._responses) > _MOST_ENDED:
            self.drop(next(iter(self._responses)))

    def get(self, public_id: str) -> _Running | None:
        found = self._responses.get(public_id)
        return None if found is None else found[0]

    def drop(self, public_id: str) -> None:
        _, size_bytes = self._responses.pop(public_id, (None, 0))
        self._size_bytes -= size_bytes

    def drop_tenant(self, tenant: TenantId) -> None:
        for name in [name for name, (each, _) in self._responses.items() if each.tenant == tenant]:
            self.drop(name)


class FollowedResponse:
    """The events of a background response after a sequence number, as they come."""

    def __init__(self, running: _Running, *, after: int = -1) -> None:
        self._running = running
        self._after = after
        self._at = 0
        self.finished = False
        """Whether the last block has been returned."""

    async def open(self, prepared: Callable[[int], None] = lambda _: None) -> FollowedResponse:
        prepared(0)
        return self

    def fail(self, code: str, message: str, *, is_request: bool = False) -> bytes:
        """The event of a failure to follow; the response itself goes on."""
        del is_request
        event: Event = {"type": "error", "sequence_number": 0, "code": code, "message": message, "param": None}
        return encode_events([event])

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        running = self._running
        while not self.finished:
            if self._at < len(running.blocks):
                new, self._at = running.blocks[self._at :], len(running.blocks)
                self.finished = running.ended.is_set()
                block = b"".join(new)
                if self._after >= 0:
                    block = events_after(block, self._after)
                if block:
                    return block
            elif running.ended.is_set():
                self.finished = True
            else:
                await running.wait()
        raise StopAsyncIteration

    async def aclose(self) -> None:
        """Stop following."""
        self.finished = True


class ReplayedResponse:
    """The events of a response that has ended, in one block."""

    def __init__(self, block: bytes) -> None:
        self._block = block
        self.finished = False

    async def open(self, prepared: Callable[[int], None] = lambda _: None) -> ReplayedResponse:
        prepared(0)
        return self

    def fail(self, code: str, message: str, *, is_request: bool = False) -> bytes:
        del code, message, is_request
        return b""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self.finished:
            raise StopAsyncIteration
        self.finished = True
        return self._block

    async def aclose(self) -> None:
        self.finished = True


def events_after(block: bytes, number: int) -> bytes:
    """The events of a block with a larger sequence number."""
    kept: list[bytes] = []
    for event in split_events(block):
        data = event_data(event)
        if data is not None and msgspec.json.decode(data)["sequence_number"] > number:
            kept.append(event)
    return b"".join(kept)


class ResponseService:
    """Makes, stores and removes responses. Belongs to one event loop."""

    def __init__(
        self,
        *,
        database: Database,
        answers: AnswerService,
        planner: ResponsePlanner,
        conversations: ConversationService,
        require_key: Callable[[Connection, KeyId], None],
        retention_days: int,
        inputs_bytes: int = INPUTS_BYTES,
        max_per_tenant: int | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        """``require_key`` raises if the key was deleted. ``retention_days`` of 0 keeps responses for good.

        The inputs that are in memory until they are stored may have ``inputs_bytes`` together. A tenant has at most
        ``max_per_tenant`` stored responses.
        """
        self._database = database
        self.answers = answers
        self._planner = planner
        self._conversations = conversations
        self._require_key = require_key
        self._retention_days = retention_days
        self._clock = clock
        self._max_per_tenant = max_per_tenant
        self._inputs_free_bytes = inputs_bytes
        self._inputs: dict[str, int] = {}
        """Bytes of the large inputs in memory, by the id of the response."""
        self._running: dict[str, _Running] = {}
        self._ended = _EndedResponses()
        self._starting: list[_Running] = []
        self._wake = anyio.Event()
        self._interrupted_before: int | None = None
        """Unfinished responses that were created before this time belong to an earlier run; ``None``: none is left."""

    def now(self) -> int:
        return int(self._clock())

    # -- make --------------------------------------------------------------------------------------------------

    async def plan(
        self, principal: Principal, request: ResponseRequest, adapt: Adapt, *, size_bytes: int = 0
    ) -> ResponsePlan:
        """Prepare a request, whose body has ``size_bytes``. Raises as ``ResponsePlanner.plan`` does.

        Raises:
            Overloaded: too many large inputs wait until they can be stored.
            QuotaExceeded: the tenant may store no more responses.
        """
        if request.is_stored and self._max_per_tenant is not None:  # before the model is asked; the write checks again
            await self._database.read(lambda connection: self._check_quota(connection, principal))
        plan = await self._planner.plan(principal, request, adapt, large=size_bytes >= LARGE_BODY_BYTES)
        size_bytes += plan.referred_bytes
        if plan.keeps_input and size_bytes >= LARGE_BODY_BYTES:
            if size_bytes > self._inputs_free_bytes:
                raise Overloaded("Too many large responses are being made. Try again later.", retry_after_s=5)
            self._inputs_free_bytes -= size_bytes
            self._inputs[plan.id] = size_bytes
            weakref.finalize(plan, self._release_input, plan.id)  # also of a plan that is never carried out
        return plan

    def _check_quota(self, connection: Connection, principal: Principal) -> None:
        most = self._max_per_tenant
        if most is not None and (count := rows.count_responses(connection, principal.tenant)) >= most:
            raise QuotaExceeded(
                f"The tenant '{principal.tenant}' has {count} stored responses and may have {most}. Delete responses, "
                "send '\"store\": false', or ask the operator for a higher limit."
            )

    def _release_input(self, public_id: str) -> None:
        self._inputs_free_bytes += self._inputs.pop(public_id, 0)

    def forget_input(self, plan: ResponsePlan) -> None:
        """Release the input of a response that is stored or has ended; may be called twice."""
        plan.input_items.clear()
        plan.added_items.clear()
        self._release_input(plan.id)

    async def complete(self, plan: ResponsePlan) -> bytes:
        """The whole response as JSON, stored if the request wants that. Raises as ``AnswerService.complete`` does."""
        try:
            return await self._complete(plan)
        finally:
            self.forget_input(plan)

    async def _complete(self, plan: ResponsePlan) -> bytes:
        evidence: list[RetrievedPassages] = []
        answer = await self.answers.complete(plan.principal, plan.call, found=evidence.append)
        builder = ResponseBuilder(plan.head(), cites=plan.cites)
        if evidence:
            files = evidence[0].files
            builder.file_ids = {name: file.file_id for name, file in files.items()}
            builder.searched([evidence[0].query], search_results(evidence[0], files))
        chunk = chunk_of_completion(msgspec.json.decode(answer.body))
        builder.feed(chunk if chunk["usage"] else {**chunk, "usage": msgspec.to_builtins(answer.usage)})
        builder.complete(now=self.now())
        response = builder.response(whole=True)
        if plan.keeps_input:
            await self._insert_at_end(plan, builder.status, response)
        return msgspec.json.encode(_shown(response, results=plan.request.has_results))

    def stream(self, plan: ResponsePlan) -> ResponseStream:
        """The response as events, not begun yet."""
        return ResponseStream(self, plan)

    async def start(self, plan: ResponsePlan) -> tuple[bytes, FollowedResponse]:
        """Begin a background response; returns it as it is now, and its events.

        Raises:
            Overloaded: too many background responses are being made.
        """
        of_tenant = sum(each.tenant == plan.principal.tenant for each in self._running.values())
        if len(self._running) >= MAX_BACKGROUND or of_tenant >= MAX_BACKGROUND // 2:
            raise Overloaded("Too many background responses are being made. Try again later.", retry_after_s=5)
        running = _Running(plan)
        self._running[plan.id] = running
        try:
            queued = {**ResponseBuilder(plan.head()).response(), "status": "queued"}
            await self.insert(plan, "queued", queued)
        except BaseException:
            del self._running[plan.id]
            with anyio.CancelScope(shield=True):  # a write that has begun is not undone
                ended = ResponseBuilder(plan.head())
                ended.cancel()
                await self._change_or_warn(plan, ended)
            raise
        self._starting.append(running)
        self._wake.set()
        return msgspec.json.encode(queued), FollowedResponse(running)

    async def run(self) -> None:
        """Make background responses, and remove old ones. Runs until cancelled."""
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(self._sweep)
            while True:
                await self._wake.wait()
                self._wake = anyio.Event()
                while self._starting:
                    tasks.start_soon(self._make, self._starting.pop(0))

    async def _make(self, running: _Running) -> None:
        plan = running.plan
        stream = ResponseStream(self, plan)
        try:
            running.add(encode_events(stream.builder.queued()))
            with running.scope:
                try:
                    await self._make_until_end(running, stream)
                except RagsvcError as error:
                    is_request = isinstance(error, InvalidRequest)
                    running.add(stream.fail(error.code, error.message, is_request=is_request))
                except Exception as error:  # noqa: BLE001 - a failure of one response must not end the others
                    logger.error("background response %s failed with %s", plan.id, type(error).__name__)  # noqa: TRY400 - the traceback may quote documents
                    running.add(stream.fail("internal_error", _FAILED))
            if running.scope.cancel_called:
                running.add(stream.cancel())
        except anyio.get_cancelled_exc_class():
            running.add(stream.fail(ShuttingDown.code, _STOPPED))
            raise
        finally:
            if not stream.finished:
                with anyio.CancelScope(shield=True):
                    await stream.aclose()
                    await self._change_or_warn(plan, stream.builder)
            self.forget_input(plan)
            self._running.pop(plan.id, None)
            self._ended.add(running)
            running.ended.set()
            running.notify()

    async def _make_until_end(self, running: _Running, stream: ResponseStream) -> None:
        plan = running.plan
        body = stream.builder.response(whole=True)
        await self.change(plan, "in_progress", body)
        await stream.open()
        async for block in stream:
            running.add(block)

    async def _change_or_warn(self, plan: ResponsePlan, builder: ResponseBuilder) -> None:
        try:
            await self.change(plan, builder.status, builder.response(whole=True))
        except (Overloaded, StorageFull, ShuttingDown) as error:  # the next start stores it as failed
            logger.warning("the end of response %s could not be stored: %s", plan.id, error.message)

    # -- stored responses --------------------------------------------------------------------------------------

    async def insert(self, plan: ResponsePlan, status: str, response: Item) -> None:
        """Store a response. Raises ``Conflict`` if the key was deleted, ``StorageFull``, ``Overloaded``."""
        stored = _row_of(plan, status, response)

        def write(connection: Connection) -> None:
            self._require_key(connection, plan.principal.key_id)
            self._check_quota(connection, plan.principal)
            rows.add_response(connection, stored)

        await self._database.write(write)
        if plan.request.conversation_id is None:
            self.forget_input(plan)

    async def _insert_at_end(self, plan: ResponsePlan, status: str, response: Item) -> None:
        """Store a complete response, and add it to its conversation, as one step. Raises as ``store_end`` does."""
        stored = _row_of(plan, status, response)

        def write(connection: Connection) -> None:
            self._require_key(connection, plan.principal.key_id)
            self._add_to_conversation(connection, plan, response)
            if plan.stored:
                self._check_quota(connection, plan.principal)
                rows.add_response(connection, stored)

        await self._database.write(write)

    async def store_end(self, plan: ResponsePlan, status: str, response: Item, *, stored: bool) -> None:
        """Store the end of a response, and add it to its conversation, as one step.

        A retry after a failure thus finds neither or both.

        Raises:
            ConversationNotFound: it was deleted in the meantime.
            InvalidRequest: it has too many items.
        """
        body = msgspec.json.encode(response)
        tenant = plan.principal.tenant

        def write(connection: Connection) -> None:
            self._add_to_conversation(connection, plan, response)
            if stored:
                rows.change_response(connection, tenant, plan.id, status=status, body=body)

        if stored or plan.request.conversation_id is not None:
            await write_to_the_end(self._database, write)

    def _add_to_conversation(self, connection: Connection, plan: ResponsePlan, response: Item) -> None:
        if plan.request.conversation_id is not None:
            output = [without_results(item) for item in response["output"]]
            self._conversations.append_in(
                connection,
                plan.principal,
                plan.request.conversation_id,
                [*plan.added_items, *output],
                collections=plan.collections,
                param="conversation",
            )

    async def change(self, plan: ResponsePlan, status: str, response: Item) -> None:
        """Store the state of a response; does nothing if it was deleted."""
        body = msgspec.json.encode(response)
        tenant = plan.principal.tenant
        await write_to_the_end(
            self._database,
            lambda connection: rows.change_response(connection, tenant, plan.id, status=status, body=body),
        )

    async def _find(self, principal: Principal, public_id: str) -> StoredResponse:
        return await self._database.read(
            lambda connection: self._planner.visible(connection, principal, public_id, with_input=False)
        )

    async def get(self, principal: Principal, public_id: str, *, results: bool = False) -> bytes:
        """A stored response as JSON, with ``results`` also those of its searches. Raises ``ResponseNotFound``."""
        stored = await self._find(principal, public_id)
        response = msgspec.json.decode(stored.body, type=dict[str, Any])
        return msgspec.json.encode(_shown(response, results=results))

    async def follow(
        self, principal: Principal, public_id: str, *, after: int = -1, results: bool = False
    ) -> FollowedResponse | ReplayedResponse:
        """The events of a response after a sequence number, as they come if it is still being made.

        Raises:
            ResponseNotFound.
            InvalidRequest: the response is being made by another request.
        """
        stored = await self._find(principal, public_id)
        running = self._running.get(public_id) or (self._ended.get(public_id) if after >= 0 else None)
        if running is not None:
            return FollowedResponse(running, after=after)
        if stored.status in UNFINISHED:
            stored = await self._find(principal, public_id)  # it may have ended in between
        if stored.status in UNFINISHED:
            raise InvalidRequest(
                f"The response '{public_id}' is being streamed by the request that creates it.", param="stream"
            )
        response = msgspec.json.decode(stored.body, type=dict[str, Any])
        shown = _shown(response, results=results)
        events = replay_events(shown)
        if after >= 0 and (stored.background or after >= events[-1]["sequence_number"]):
            # the numbers are those of the stream that made it, which had more events: the end says everything
            events = [{**events[-1], "sequence_number": after + 1}]
        return ReplayedResponse(encode_events([e for e in events if e["sequence_number"] > after]))

    async def input_items(
        self,
        principal: Principal,
        public_id: str,
        *,
        limit: int,
        after: str | None = None,
        before: str | None = None,
        descending: bool = True,
    ) -> ItemPage:
        """A page of the items that the request for a response had. Raises ``ResponseNotFound``, ``InvalidRequest``."""

        def read(connection: Connection) -> list[Item]:
            stored = self._planner.visible(connection, principal, public_id)
            return msgspec.json.decode(stored.input, type=list[Item])

        items = await self._database.read(read)
        if descending:
            items.reverse()
        ids = [item["id"] for item in items]
        for name, cursor in (("after", after), ("before", before)):
            if cursor is not None and cursor not in ids:
                raise invalid_value(name, "The response has no item with this id")
        if after is not None:
            items = items[ids.index(after) + 1 :]
        elif before is not None:
            items = items[max(0, ids.index(before) - limit) : ids.index(before)]
        return ItemPage(items[:limit], len(items) > limit)

    async def delete(self, principal: Principal, public_id: str) -> None:
        """Remove a response; one that is being made is cancelled. Raises ``ResponseNotFound``."""
        await self._find(principal, public_id)
        await self._stop(public_id)
        self._ended.drop(public_id)
        await write_to_the_end(
            self._database, lambda connection: rows.delete_response(connection, principal.tenant, public_id)
        )

    async def cancel(self, principal: Principal, public_id: str) -> bytes:
        """Cancel a background response; one that has ended stays as it is.

        Raises:
            ResponseNotFound.
            InvalidRequest: the response is not made in the background.
        """
        stored = await self._find(principal, public_id)
        if not stored.background:
            raise InvalidRequest(
                "Only responses with 'background': true can be cancelled; close the connection to stop others.",
                param="response_id",
            )
        await self._stop(public_id)
        return await self.get(principal, public_id)

    async def _stop(self, public_id: str) -> None:
        running = self._running.get(public_id)
        if running is not None:
            running.scope.cancel()
            await running.ended.wait()

    async def stop_all_of(self, tenant: TenantId) -> None:
        """Cancel the background responses of a tenant that is being deleted."""
        for public_id in [name for name, each in self._running.items() if each.tenant == tenant]:
            await self._stop(public_id)
        self._ended.drop_tenant(tenant)

    async def recover(self) -> None:
        """Store responses as failed that were being made when the process ended. Call before the first request.

        While the disk is full this is tried again later: until then such a response is shown as unfinished.
        """
        now = self.now()
        if not await self._end_interrupted(before=now + 1):
            self._interrupted_before = now  # later responses may be made in this run

    async def _end_interrupted(self, *, before: int) -> bool:
        """End unfinished responses that were created before a time; returns whether none is left."""
        count, all_ended = 0, True
        try:
            for tenant, public_id in await self._database.read(
                lambda connection: rows.unfinished_ids(connection, before=before)
            ):
                await self._database.write(functools.partial(_end_as_failed, tenant=tenant, public_id=public_id))
                count += 1
        except (Overloaded, StorageFull) as error:
            logger.warning("interrupted responses could not be ended, it is tried again: %s", error.message)
            all_ended = False
        if count:
            logger.warning("%d responses were not complete when the service stopped", count)
        return all_ended

    async def _sweep(self) -> None:
        while True:
            before = self._interrupted_before
            if before is not None and await self._end_interrupted(before=before):
                self._interrupted_before = None
            with logging_disk_faults(logger, "old responses could not be removed"):
                await self.remove_old()
            await anyio.sleep(_SWEEP_EVERY_S if self._interrupted_before is None else _RETRY_EVERY_S)

    async def remove_old(self) -> int:
        """Remove responses older than the retention; returns how many."""
        if not self._retention_days:
            return 0
        before = self.now() - self._retention_days * _DAY_S
        total = 0
        while removed := await self._database.write(
            lambda connection: rows.delete_older(connection, before=before, limit=_ROWS_AT_ONCE)
        ):
            total += removed
        return total


def _row_of(plan: ResponsePlan, status: str, response: Item) -> StoredResponse:
    return StoredResponse(
        public_id=plan.id,
        tenant=plan.principal.tenant,
        model=plan.model,
        status=status,
        background=bool(plan.request.background),
        previous_id=plan.request.previous_response_id,
        collections=plan.collections,
        input=msgspec.json.encode(plan.input_items),
        body=msgspec.json.encode(response),
        created_at=plan.created_at,
    )


def _shown(response: Item, *, results: bool) -> Item:
    """The response as clients see it: with the results of searches only on request."""
    if results:
        return response
    return {**response, "output": [without_results(item) for item in response["output"]]}


def search_results(evidence: RetrievedPassages, files: Mapping[str, CitedFile]) -> list[Item]:
    """The results of a search as clients see them."""
    results: list[Item] = []
    for hit in evidence.hits:
        passage = hit.passage
        file = files.get(passage.document_public_id)
        results.append(
            {
                "file_id": passage.document_public_id if file is None else file.file_id,
                "filename": passage.filename,
                "score": round(hit.score, 4),
                "text": passage.text,
                "attributes": {} if file is None else file.attributes,
                **({} if file is None else {"document_id": passage.document_public_id}),
                "page": passage.page,
                "page_label": passage.page_label,
                "chunk_id": chunk_id(passage.document_public_id, passage.ordinal),
            }
        )
    return results


def _chunks(block: bytes) -> list[Item]:
    chunks: list[Item] = []
    for event in split_events(block):
        data = event_data(event)
        if data is not None and data != b"[DONE]":
            try:
                chunks.append(msgspec.json.decode(data, type=dict[str, Any]))
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                raise UpstreamFailed("The provider sent an event that is no chat completion.") from error
    return chunks


def _end_as_failed(connection: Connection, *, tenant: TenantId, public_id: str) -> None:
    """Store a response as failed that was being made when the process ended; nothing if it was deleted."""
    try:
        stored = rows.find_response(connection, tenant, public_id, with_input=False)
    except ResponseNotFound:
        return
    response = msgspec.json.decode(stored.body, type=dict[str, Any])
    error = {"code": "server_error", "message": _STOPPED}
    body = msgspec.json.encode({**response, "status": "failed", "error": error})
    rows.change_response(connection, tenant, public_id, status="failed", body=body)
