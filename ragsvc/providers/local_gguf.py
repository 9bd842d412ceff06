"""``local/<file name>``: a GGUF model that runs in this process, with the chat template of its file.

Tokens are counted with the model's tokenizer, also after a disconnect. No prompt is cached, so equal seeds give equal
texts, and response times reveal nothing about the prompts of other keys.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, Final

import msgspec

from ragsvc.core.defaults import DEFAULT_REPLY_TOKENS
from ragsvc.core.errors import UnsupportedParameter
from ragsvc.core.gateway.chat import ChatCall, ChatMessage, ChatRequest, TokenUsage
from ragsvc.core.gateway.event_stream import encode_event
from ragsvc.core.ports.chat_backend import ChatReply
from ragsvc.core.validation import invalid_value
from ragsvc.providers.gguf_runs import Chunk, GgufRun, GgufRuns
from ragsvc.providers.local_extractive import refuse_unsupported
from ragsvc.providers.local_provider import LocalChat

_PASSED_ON: Final = ("temperature", "top_p", "presence_penalty", "frequency_penalty", "response_format", "logprobs",
                     "top_logprobs")  # fmt: skip
_SEEDS: Final = 2**32 - 1
"""Number of seeds: llama.cpp takes 32 bits, and the highest value means a random seed."""


class LocalGguf(LocalChat):
    """The backend of one GGUF model."""

    def __init__(self, name: str, runs: GgufRuns) -> None:
        super().__init__(name)
        self._runs = runs

    async def complete(self, call: ChatCall) -> ChatReply:
        """The complete answer; raises the errors of the port. Cancelling the call stops the model."""
        answer = self._start(call)
        choices = [_choice(index, call.request) for index in range(call.request.choices)]
        try:
            async for piece in answer:
                choice = choices[piece.index]
                choice["message"]["content"] += piece.text
                choice["finish_reason"] = piece.finish_reason or choice["finish_reason"]
                if piece.logprobs and choice["logprobs"]:
                    choice["logprobs"]["content"].extend(piece.logprobs["content"])
        finally:
            answer.cancel()
        body = self._head(call, "chat.completion") | {"choices": choices, "usage": answer.usage}
        return ChatReply(body=msgspec.json.encode(body), usage=answer.usage)

    async def stream(self, call: ChatCall) -> GgufStream:
        """The answer as a stream of tokens; raises the errors of the port."""
        stream = GgufStream(self._start(call), self._head(call, "chat.completion.chunk"), call.request)
        await stream.begin()
        return stream

    def _start(self, call: ChatCall) -> _Answer:
        """Queue a run for all choices; their seeds are consecutive."""
        bodies = [self._body(call)]
        if call.request.choices > 1:
            seed = bodies[0].get("seed")
            seeds = [{} if seed is None else {"seed": (seed + index) % _SEEDS} for index in range(call.request.choices)]
            bodies = [bodies[0] | with_seed for with_seed in seeds]
        return _Answer(self._runs.start(bodies))

    async def aclose(self) -> None:
        """Stop the model and free its memory."""
        await self._runs.aclose()

    def _body(self, call: ChatCall) -> dict[str, Any]:
        """The request in the format of llama.cpp."""
        request = call.request
        refuse_unsupported(request, model=self._name, able=frozenset({"logprobs", "top_logprobs", "response_format"}))
        asked = msgspec.json.decode(call.upstream_body())
        if request.top_logprobs is not None and not request.logprobs:
            raise invalid_value("top_logprobs", "Requires `logprobs` to be true")
        messages = msgspec.convert(asked["messages"], list[ChatMessage])
        body = {name: asked[name] for name in _PASSED_ON if asked.get(name) is not None}
        return (
            body
            | {
                "messages": [self._message(at, message) for at, message in enumerate(messages)],
                "max_tokens": request.reply_limit or DEFAULT_REPLY_TOKENS,
                "stop": list(request.stops),
                "stream": True,
                "timings_per_token": True,
                "return_progress": True,
                "cache_prompt": False,
            }
            | ({} if request.seed is None else {"seed": request.seed % _SEEDS})
        )

    def _message(self, at: int, message: ChatMessage) -> dict[str, str]:
        if message.role in ("tool", "function") or message.tool_calls:
            raise UnsupportedParameter(
                f"The model '{self._name}' cannot read tool calls. Remove the message or choose another model.",
                param=f"messages[{at}]",
            )
        return {"role": "system" if message.role == "developer" else message.role, "content": message.text}


def _choice(index: int, request: ChatRequest) -> dict[str, Any]:
    return {
        "index": index,
        "message": {"role": "assistant", "content": "", "refusal": None},
        "logprobs": {"content": [], "refusal": None} if request.logprobs else None,
        "finish_reason": "stop",
    }


class _Piece(msgspec.Struct, frozen=True):
    """A piece of the text of a choice, or the end of the choice."""

    index: int
    text: str
    finish_reason: str | None
    logprobs: dict[str, Any] | None


class _Answer:
    """Iterates the pieces of all choices. ``usage`` has the tokens so far, with the prompt counted once."""

    def __init__(self, run: GgufRun) -> None:
        self._run = run
        self._prompt = 0
        self._replies: dict[int, int] = {}

    @property
    def usage(self) -> TokenUsage:
        """The tokens so far, counted with the model's tokenizer."""
        return TokenUsage.of(self._prompt, sum(self._replies.values()))

    def cancel(self) -> None:
        """Stop the model at its next token. No effect if it has finished."""
        self._run.cancel()

    def __aiter__(self) -> _Answer:
        return self

    async def __anext__(self) -> _Piece:
        async for index, chunk in self._run:
            self._count(index, chunk)
            for choice in chunk["choices"]:  # one at most
                text = choice["delta"].get("content") or ""
                if text or choice["finish_reason"]:
                    return _Piece(index, text, choice["finish_reason"], choice.get("logprobs"))
        raise StopAsyncIteration

    def _count(self, index: int, chunk: Chunk) -> None:
        timings = chunk.get("timings")
        if timings is not None:
            self._prompt = max(self._prompt, timings["cache_n"] + timings["prompt_n"])
            self._replies[index] = timings["predicted_n"]


class GgufStream:
    """Server-sent events, one per piece of text."""

    def __init__(self, answer: _Answer, head: dict[str, Any], request: ChatRequest) -> None:
        self._answer = answer
        self._head = head
        self._request = request
        self._tail: dict[str, Any] = {"usage": None} if request.wants_usage else {}
        self._first: bytes | None = None
        self._begun = -1
        self.finished = False

    async def begin(self) -> None:
        """Wait for the first piece of text."""
        self._first = await self._next()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._first is not None:
            block, self._first = self._first, None
            return block
        if self.finished:
            raise StopAsyncIteration
        return await self._next()

    async def _next(self) -> bytes:
        try:
            piece = await anext(self._answer)
        except StopAsyncIteration:
            self.finished = True
            if self._request.wants_usage:
                return encode_event(self._head | {"choices": [], "usage": self._answer.usage})
            return b""
        except BaseException:
            await self.aclose()
            raise
        block = b""
        if piece.index > self._begun:
            self._begun = piece.index
            block = self._event(piece.index, {"role": "assistant", "content": "", "refusal": None})
        if piece.text:
            block += self._event(piece.index, {"content": piece.text}, logprobs=piece.logprobs)
        return block + self._event(piece.index, {}, piece.finish_reason) if piece.finish_reason else block

    def _event(
        self,
        index: int,
        delta: dict[str, Any],
        finish_reason: str | None = None,
        *,
        logprobs: dict[str, Any] | None = None,
    ) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        return encode_event(self._head | {"choices": [choice]} | self._tail)

    async def usage(self) -> TokenUsage:
        """The tokens so far, counted with the model's tokenizer."""
        return self._answer.usage

    async def prompt_tokens(self) -> int:
        """The tokens of the prompt, counted with the model's tokenizer."""
        return self._answer.usage.prompt_tokens

    async def aclose(self) -> None:
        """Stop the model at its next token."""
        self.finished = True
        self._first = None
        self._answer.cancel()
