"""Answers chat requests: search, prompt, model, citations, and token accounting.

Independent of HTTP and of specific models. Tokens are reserved before any work and settled before the client receives
the end of the answer. A failed request is refunded completely; after a disconnect, the tokens used so far are charged.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec

from ragsvc.core.access.principal import Principal
from ragsvc.core.answers.prompts import weave_passages
from ragsvc.core.cancellation import count_in_parts, run_in_thread
from ragsvc.core.defaults import (
    DEFAULT_FILE_TOKENS,
    DEFAULT_MAX_PROMPT_CHARACTERS,
    DEFAULT_REPLY_TOKENS,
    DEFAULT_TOP_K,
)
from ragsvc.core.errors import UnsupportedParameter
from ragsvc.core.gateway.chat import (
    FILE_PART,
    ChatCall,
    ChatRequest,
    CountTokens,
    RetrievedPassages,
    TokenUsage,
    prompt_too_long,
)
from ragsvc.core.gateway.endpoint_families import Family
from ragsvc.core.gateway.event_stream import DONE
from ragsvc.core.gateway.prices import cost_micros
from ragsvc.core.gateway.request_files import RequestFile
from ragsvc.core.observation import ObservedOperation, Observer, ended_by_block, outcome_of
from ragsvc.core.ports.chat_backend import ChatReply, ChatStream
from ragsvc.core.ports.searcher import Searcher
from ragsvc.core.ports.token_meter import Need, TokenMeter
from ragsvc.core.retrieval.conversation_query import Turn, make_query
from ragsvc.core.retrieval.search_values import SearchHit, SearchQuery, SearchResult
from ragsvc.services.citation_insertion import CitationSource, StreamCiter, cite_reply
from ragsvc.services.model_registry import ModelRegistry, ModelRoute, first_able
from ragsvc.services.provider_routing import Router
from ragsvc.services.request_files import ABOUT, RequestFiles
from ragsvc.services.request_reservation import RequestReservation
from ragsvc.services.stream_budget import ChatStreamEnd, StreamBudget

logger = logging.getLogger(__name__)

OnEvidence = Callable[[RetrievedPassages], None]
"""Is called with the passages that a search has found, and the files of their documents."""

_QUESTION_ENDS = 1200
"""Characters of the start and of the end of a message that are searched for a question; a query takes half as many."""

_SILENT_READING_S = 15.0
"""Seconds of reading files after which a stream begins with comments. Files that cannot be read mostly fail before, and
are then answered with the status of their error."""

_PASSAGE_TOKENS = 256
"""Tokens reserved for a passage: the limit of the built-in embedding model, which no passage exceeds by default."""


class JsonAnswer(msgspec.Struct, frozen=True):
    """A chat completion object as JSON. ``dropped_passages`` did not fit into the model's context.

    ``usage`` is that of the body, or was counted if the provider reported none.
    """

    body: bytes
    dropped_passages: int
    usage: TokenUsage


class _PreparedCall(msgspec.Struct, frozen=True):
    """A call for a route, and the passages that its answer can cite (``None``: the answer gets no citations)."""

    call: ChatCall
    source: CitationSource | None
    dropped_passages: int = 0


class AnswerStream:
    """The server-sent events of an answer, including ``[DONE]``. Iteration raises if the model fails midway.

    With ``budget``, an answer that passes its tokens is cut with the finish reason ``length``.
    ``dropped_passages`` did not fit into the model's context.
    """

    def __init__(
        self,
        source: ChatStream,
        reservation: RequestReservation,
        citer: StreamCiter | None,
        observed: ObservedOperation,
        *,
        dropped_passages: int = 0,
        budget: StreamBudget | None = None,
        end: ChatStreamEnd | None = None,
    ) -> None:
        self._budget = budget
        self._end = end
        self._source = source
        self._observed = observed
        self._reservation = reservation
        self._citer = citer
        self.dropped_passages = dropped_passages
        self.finished = False
        """Whether the last block has been returned."""

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        source = self._source
        while not self.finished:
            try:
                block = await source.__anext__()
            except StopAsyncIteration:
                block = b""
            except Exception as error:
                self._observed.end(outcome_of(error))
                await self._reservation.settle_stream(source)
                raise
            if self._budget is not None and block:
                block, cut = await self._budget.take(block)
                if cut:
                    return await self._cut(block, self._budget.counted)
            if self._citer is not None and block:
                block = self._citer.edit(block)
            if source.finished:
                if self._citer is not None:
                    block += self._citer.finish()
                await self._reservation.settle_stream(source)
                self._observed.end()
                self.finished = True
                return block + DONE
            if block:
                return block
        raise StopAsyncIteration

    async def _cut(self, block: bytes, counted: int) -> bytes:
        """The last block of a stream that has used up its tokens; the model is stopped."""
        usage = TokenUsage.of((await self._source.usage()).prompt_tokens, counted)
        await self._reservation.settle(usage)
        if self._end is not None:
            block += self._end.finish_event()
        if self._citer is not None:
            block = self._citer.edit(block)
        self.finished = True
        self._observed.end()
        await self._source.aclose()
        return block + (b"" if self._end is None else self._end.usage_event(usage)) + DONE

    async def aclose(self) -> None:
        """Stop the model if it is still generating, and settle the tokens used; may be called twice."""
        self._observed.end("cancelled")
        try:
            await self._source.aclose()
        finally:
            await self._reservation.settle_stream(self._source)


class AnswerService:
    """Answers chat requests with the models of the registry.

    ``top_k`` is the number of passages for a request that names none. ``files`` reads the files of requests, of which
    a prompt gets up to ``file_tokens`` tokens, or the ``top_k`` best passages if these are longer. ``on_unresolved``
    receives the number of citation markers that match no passage.
    """

    def __init__(
        self,
        *,
        models: ModelRegistry,
        router: Router | None = None,
        searcher: Searcher,
        files: RequestFiles | None = None,
        meter: TokenMeter,
        count_tokens: CountTokens,
        top_k: int = DEFAULT_TOP_K,
        file_tokens: int = DEFAULT_FILE_TOKENS,
        max_prompt_characters: int = DEFAULT_MAX_PROMPT_CHARACTERS,
        on_unresolved: Callable[[int], None] = lambda _: None,
        observer: Observer | None = None,
    ) -> None:
        self.models = models
        self._max_prompt_characters = max_prompt_characters
        self._router = router or Router(models)
        self._searcher = searcher
        self._files = files
        self._file_tokens = file_tokens
        self._meter = meter
        self._count_tokens = count_tokens
        self.top_k = top_k
        """Passages for a request that names no number."""
        self._on_unresolved = on_unresolved
        self._observer = observer or Observer()

    def max_prompt_characters(self, model: str) -> int:
        """The longest prompt of a model."""
        return self.models.max_prompt_characters(model) or self._max_prompt_characters

    async def complete(self, principal: Principal, call: ChatCall, *, found: OnEvidence | None = None) -> JsonAnswer:
        """The whole answer. ``found`` is called with the passages of documents that a search has found.

        Raises:
            PolicyDenied, ModelNotFound, PromptTooLong, BalanceExhausted, RateLimited, CollectionNotFound,
            DocumentNotFound, and the errors of ``ChatBackend.complete``.
        """
        routes, reservation = await self._admit(principal, call)
        try:
            with self._observer.operation("chat", model=call.request.model) as observed:
                evidence = await self._find_evidence(principal, call, observed, found)
                reply, made = await first_able(
                    routes, lambda route: self._complete_with(_priced(reservation, route), call, evidence, observed)
                )
        except asyncio.CancelledError:
            await reservation.settle(TokenUsage.of(call.request.estimated_prompt_tokens(), 0))
            raise
        except BaseException:
            await reservation.refund()
            raise
        await reservation.settle(reply.usage)
        body = reply.body if made.source is None else cite_reply(reply.body, made.source, self._on_unresolved)
        return JsonAnswer(body, made.dropped_passages, reply.usage)

    async def stream(
        self,
        principal: Principal,
        call: ChatCall,
        *,
        prepared: Callable[[int], None] = lambda _: None,
        found: OnEvidence | None = None,
    ) -> AnswerStream:
        """The answer as server-sent events; returns with the first block. Raises the errors of ``complete``.

        ``prepared`` is called before a model is asked, with the number of passages that did not fit into its context;
        and before that if files of the request are read for long.
        """
        routes, reservation = await self._admit(principal, call)
        observed = self._observer.begin("chat", model=call.request.model)
        reading = asyncio.get_running_loop().call_later(_SILENT_READING_S, prepared, 0) if call.files else None
        try:
            with observed.active(), ended_by_block(observed, only_on_failure=True):
                evidence = await self._find_evidence(principal, call, observed, found)
                source, made = await first_able(
                    routes,
                    lambda route: self._stream_with(_priced(reservation, route), call, evidence, observed, prepared),
                )
        except asyncio.CancelledError:
            await reservation.settle(TokenUsage.of(call.request.estimated_prompt_tokens(), 0))
            raise
        except BaseException:
            await reservation.refund()
            raise
        finally:
            if reading is not None:
                reading.cancel()
        citer = None if made.source is None else StreamCiter(made.source, self._on_unresolved)
        budget = None
        end = ChatStreamEnd(call.request)
        if reservation.limited:
            budget = StreamBudget(
                may_grow=call.request.reply_limit is None,
                read_text=end.read_text,
                reply_tokens=reply_tokens(call.request),
                count_tokens=self._count_tokens,
                unused_prompt=functools.partial(self._unused_prompt, call, source, reservation),
                extend=reservation.extend,
            )
        return AnswerStream(
            source, reservation, citer, observed, dropped_passages=made.dropped_passages, budget=budget, end=end
        )

    async def _unused_prompt(self, call: ChatCall, source: ChatStream, reservation: RequestReservation) -> int:
        """Reply tokens in place of those that were reserved for the prompt of a stream and are not used by it."""
        reserved = self._estimated_tokens(call) - reply_tokens(call.request)
        return reservation.reply_tokens_for(max(0, reserved - await source.prompt_tokens()))

    def _estimated_tokens(self, call: ChatCall) -> int:
        return estimated_tokens(
            call.request,
            default_top_k=self.top_k,
            searches=call.searches,
            files=call.files,
            file_tokens=self._file_tokens,
        )

    async def _admit(self, principal: Principal, call: ChatCall) -> tuple[Sequence[ModelRoute], RequestReservation]:
        """Check access to the model and reserve tokens."""
        model = call.request.model
        routes = await self._router.routes(principal, model, Family.CHAT, call.access)
        limit = routes[0].max_prompt_characters or self._max_prompt_characters
        if call.request.prompt_characters > limit:
            raise prompt_too_long(model, limit)
        tokens, reply = self._estimated_tokens(call), reply_tokens(call.request)
        expected = TokenUsage.of(tokens - reply, reply)
        cost = max(cost_micros(route.pricing, expected) for route in routes)
        reserved = await self._meter.reserve(principal, Need(tokens, cost))
        return routes, RequestReservation(self._meter, reserved, model, routes[0].pricing)

    async def _find_evidence(
        self, principal: Principal, call: ChatCall, observed: ObservedOperation, found: OnEvidence | None
    ) -> RetrievedPassages | None:
        """Passages of documents and of the request's files for the conversation's question.

        ``None`` without both, or without a question.
        """
        query = await _query_of(call.request) if call.files or call.request.rag_options is not None else ""
        stored = await self._find_in_documents(principal, call, query, observed, found)
        attached = await self._find_in_files(principal, call, query, observed)
        if stored is None or attached is None:
            return attached or stored
        hits = sorted((*stored.hits, *attached.hits), key=lambda hit: -hit.score)
        answerable = max(stored.answerable, attached.answerable)
        return msgspec.structs.replace(attached, query=query, hits=tuple(hits), answerable=answerable, whole=False)

    async def _find_in_files(
        self, principal: Principal, call: ChatCall, query: str, observed: ObservedOperation
    ) -> RetrievedPassages | None:
        if not call.files:
            return None
        if self._files is None:
            raise UnsupportedParameter("Files in a chat are not supported here.", param=call.files[0].param)
        with observed.stage("files"):
            files = await self._files.read(principal, call.files)
            if not query and not _only_sends_files(call.request):
                return None
            options = call.request.rag_options
            top_k = (None if options is None else options.top_k) or self.top_k
            return await self._files.search(files, query or ABOUT, top_k=top_k, room_tokens=self._file_tokens)

    async def _find_in_documents(
        self, principal: Principal, call: ChatCall, query: str, observed: ObservedOperation, found: OnEvidence | None
    ) -> RetrievedPassages | None:
        options = call.request.rag_options
        if options is None:
            return None
        searches = call.searches or (options.search_query(query, default_top_k=self.top_k),)
        with_files = found is not None
        wanted = [msgspec.structs.replace(each, text=query, with_files=with_files) for each in searches]
        if not query:
            for each in wanted:
                await self._searcher.check(principal.tenant, each)  # a wrong name is an error whatever is said
            return None
        with observed.stage("search"):
            results = [await self._searcher.search(principal.tenant, each) for each in wanted]
        evidence = RetrievedPassages(
            query=query,
            hits=_best_of(results, count=max(each.top_k for each in wanted)),
            answerable=max(result.answerable for result in results),
            files=dict(itertools.chain.from_iterable(result.files.items() for result in results)),
        )
        if found is not None:
            found(evidence)
        return evidence

    async def _complete_with(
        self,
        route: ModelRoute,
        call: ChatCall,
        evidence: RetrievedPassages | None,
        observed: ObservedOperation,
    ) -> tuple[ChatReply, _PreparedCall]:
        with observed.stage("prompt"):
            made = await self._call_for(route, call, evidence)
        with observed.stage("upstream", provider=route.provider_name):
            return await route.provider.complete(made.call), made

    async def _stream_with(
        self,
        route: ModelRoute,
        call: ChatCall,
        evidence: RetrievedPassages | None,
        observed: ObservedOperation,
        prepared: Callable[[int], None],
    ) -> tuple[ChatStream, _PreparedCall]:
        with observed.stage("prompt"):
            made = await self._call_for(route, call, evidence)
        prepared(made.dropped_passages)
        with observed.stage("upstream", provider=route.provider_name):  # until the first block
            return await route.provider.stream(made.call), made

    async def _call_for(self, route: ModelRoute, call: ChatCall, evidence: RetrievedPassages | None) -> _PreparedCall:
        if evidence is None:
            same = route.upstream_model == call.model
            wants_citations = call.request.rag_options is not None or bool(call.files)
            made = call if same else msgspec.structs.replace(call, model=route.upstream_model)
            return _PreparedCall(made, CitationSource(()) if wants_citations else None)
        if route.takes_passages:
            made = msgspec.structs.replace(call, model=route.upstream_model, evidence=evidence)
            return _PreparedCall(made, CitationSource(evidence.hits, extractive=True, service_url=call.service_url))
        context_tokens = route.context_tokens
        if context_tokens is None and evidence.hits:
            context_tokens = await route.provider.context_tokens(route.upstream_model)
        woven = await run_in_thread(
            lambda cancellation: weave_passages(
                call,
                evidence,
                context_tokens=context_tokens,
                count_tokens=count_in_parts(self._count_tokens, cancellation),
            )
        )
        if woven.dropped:
            logger.warning(
                "%d of %d passages did not fit into the %d tokens of model '%s' of provider '%s'",
                woven.dropped,
                len(evidence.hits),
                context_tokens,
                route.upstream_model,
                route.provider_name,
            )
        made = msgspec.structs.replace(call, model=route.upstream_model, evidence=evidence, messages=woven.messages)
        return _PreparedCall(made, CitationSource(woven.hits, service_url=call.service_url), woven.dropped)


def _priced(reservation: RequestReservation, route: ModelRoute) -> ModelRoute:
    """The route, at whose prices the request is then settled."""
    reservation.pricing = route.pricing
    return route


def _only_sends_files(request: ChatRequest) -> bool:
    """Whether the last message of the user has files and no text, as if it asked what they are about."""
    asked = next((message for message in reversed(request.messages) if message.role == "user"), None)
    if asked is None or not isinstance(asked.content, list) or asked.text.strip():
        return False
    return any(part.type == FILE_PART for part in asked.content)


def _best_of(results: Sequence[SearchResult], *, count: int) -> tuple[SearchHit, ...]:
    """The best hits of several searches, each passage once. Scores of collections are comparable: both are in 0..1."""
    if len(results) == 1:
        return tuple(results[0].hits)
    best: dict[int, SearchHit] = {}
    for hit in sorted((hit for result in results for hit in result.hits), key=lambda hit: -hit.score):
        best.setdefault(hit.passage.id, hit)
    return tuple(best.values())[:count]


async def _query_of(request: ChatRequest) -> str:
    """The query of a conversation; for long messages it is made in a thread, from their starts and ends."""
    turns = [Turn(message.role, _ends(message.text)) for message in request.messages]
    if sum(len(turn.text) for turn in turns) <= _QUESTION_ENDS:
        return make_query(turns).text
    return await run_in_thread(lambda _: make_query(turns).text)


def _ends(text: str) -> str:
    if len(text) <= 2 * _QUESTION_ENDS:
        return text
    return f"{text[:_QUESTION_ENDS]} {text[-_QUESTION_ENDS:]}"


def estimated_tokens(
    request: ChatRequest,
    *,
    default_top_k: int,
    searches: Sequence[SearchQuery] = (),
    files: Sequence[RequestFile] = (),
    file_tokens: int = 0,
) -> int:
    """Tokens to reserve for a request, estimated high: its messages, its passages and the longest reply.

    ``default_top_k`` is the number of passages where the request names none, and ``file_tokens`` are the most tokens of
    ``files``; the operator can set both. ``searches`` are made instead of that of the request, and name their numbers.
    """
    options = request.rag_options
    top_k = (None if options is None else options.top_k) or default_top_k
    best = top_k * _PASSAGE_TOKENS
    passages = best if options is not None else 0
    if options is not None and searches:
        passages = max(search.top_k for search in searches) * _PASSAGE_TOKENS
    if files:
        # text has no more tokens than bytes; a PDF of a few kB can have any number
        of_files = sum(max(_PASSAGE_TOKENS, file.size_bytes) if file.size_bytes else file_tokens for file in files)
        passages += min(max(file_tokens, best), of_files)
    return request.estimated_prompt_tokens() + passages + reply_tokens(request)


def reply_tokens(request: ChatRequest) -> int:
    """Tokens to reserve for the longest reply."""
    return (request.reply_limit or DEFAULT_REPLY_TOKENS) * request.choices
