"""A GGUF model on one thread of this process. Runs wait in a bounded queue and can be cancelled.

Owns the ``xllamacpp`` server (llama.cpp), which is imported and loaded at the first run. Independent of the API: a run
takes a request in the format of llama.cpp and yields its chunks.
"""

from __future__ import annotations

import asyncio
import secrets
import shutil
import tempfile
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Final

import anyio.to_thread

from ragsvc.core.errors import ModelUnavailable, Overloaded, RagsvcError, UpstreamFailed
from ragsvc.core.validation import as_sentence, invalid_value

Chunk = dict[str, Any]
OnChunk = Callable[[Chunk], bool]
"""Is called with each chunk; returns whether to stop."""

_Item = tuple[int, Chunk] | Exception | None
"""A chunk, or the end of the run: an error or ``None``."""

_PROMPT_BATCH: Final = 256
"""Prompt tokens per batch. Cancellation is checked between batches."""
_BUSY_RETRY_S: Final = 5.0


class GgufRuns:
    """Executes runs of one model one after another, with at most ``max_waiting`` in the queue.

    ``context_tokens`` is the context length for prompt and reply.
    """

    def __init__(self, path: Path, *, context_tokens: int, threads: int, max_waiting: int = 16) -> None:
        self._path = path
        self._context_tokens = context_tokens
        self._threads = threads
        self._max_waiting = max_waiting
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="gguf")
        self._server: Any = None
        self._open: set[GgufRun] = set()
        self._closed = False

    def start(self, bodies: Sequence[dict[str, Any]]) -> GgufRun:
        """Queue a run that answers ``bodies`` one after another.

        Raises:
            Overloaded: the queue is full.
            ModelUnavailable: the model is closed.
        """
        if self._closed:
            raise ModelUnavailable("The local model is shutting down.")
        if len(self._open) > self._max_waiting:
            raise Overloaded("The queue of the local model is full.", retry_after_s=_BUSY_RETRY_S)
        run = GgufRun(self._forget)
        self._open.add(run)
        self._thread.submit(run.work, self._answer, bodies)
        return run

    async def aclose(self) -> None:
        """Cancel all runs and free the model."""
        self._closed = True
        for run in tuple(self._open):
            run.cancel()
        await anyio.to_thread.run_sync(self._unload)

    def _forget(self, run: GgufRun) -> None:
        self._open.discard(run)

    def _unload(self) -> None:
        self._thread.submit(setattr, self, "_server", None).result()
        self._thread.shutdown()

    def _answer(self, body: dict[str, Any], on_chunk: OnChunk) -> None:
        if self._server is None:
            self._server = _load(self._path, context_tokens=self._context_tokens, threads=self._threads)
        try:
            self._server.handle_chat_completions(body, on_chunk)
        except ValueError as error:  # from the chat template or the JSON schema
            param = "response_format" if "response_format" in body else "messages"
            raise invalid_value(param, f"The local model refused the request: {error}") from error


class GgufRun:
    """Iterates the chunks of a run, with the index of their body, on the event loop while the model generates them.

    Iteration raises:
        InvalidRequest: the prompt exceeds the context length, or the chat template rejects it.
        ModelUnavailable: the model cannot be loaded.
        UpstreamFailed: the model failed.
    """

    def __init__(self, on_end: Callable[[GgufRun], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_end = on_end
        self._cancelled = threading.Event()
        self._items: asyncio.Queue[_Item] = asyncio.Queue()  # bounded by the token limit of the request

    def work(self, answer: Callable[[dict[str, Any], OnChunk], None], bodies: Sequence[dict[str, Any]]) -> None:
        """Generate the chunks; runs on the thread of the model."""
        end: Exception | None = None
        try:
            for index, body in enumerate(bodies):
                if self._cancelled.is_set():
                    break
                answer(body, partial(self._take, index))
        except Exception as error:  # noqa: BLE001 - raised again by the reader of the chunks
            end = error
        self._hand_over(end)

    def _take(self, index: int, chunk: Chunk) -> bool:
        self._hand_over((index, chunk))
        return self._cancelled.is_set()

    def _hand_over(self, item: _Item) -> None:
        try:
            self._loop.call_soon_threadsafe(self._put, item)
        except RuntimeError:  # the event loop is closed, so nothing reads the chunks
            self._cancelled.set()

    def _put(self, item: _Item) -> None:
        self._items.put_nowait(item)
        if not isinstance(item, tuple):
            self._on_end(self)

    def cancel(self) -> None:
        """Cancel the run; the model stops at its next token."""
        self._cancelled.set()

    def __aiter__(self) -> GgufRun:
        return self

    async def __anext__(self) -> tuple[int, Chunk]:
        item = await self._items.get()
        if item is None:
            raise StopAsyncIteration
        if isinstance(item, RagsvcError):
            raise item
        if isinstance(item, Exception):
            raise UpstreamFailed("The local model failed.") from item
        if "error" in item[1]:
            raise _refusal(item[1]["error"])
        return item


def _refusal(error: dict[str, Any]) -> RagsvcError:
    message = str(error.get("message", "no reason given"))
    if 400 <= int(error.get("code", 500)) < 500:
        return invalid_value("messages", f"The local model refused the request: {message}")
    return UpstreamFailed(as_sentence(f"The local model failed: {message}"))


def _load(path: Path, *, context_tokens: int, threads: int) -> Any:  # noqa: ANN401 - xllamacpp has no types
    """Load the weights. Raises ``ModelUnavailable``.

    The server of llama.cpp always listens. It gets a socket in a temporary folder that is deleted before the first
    answer, and a random key, so the model is reachable through this process only.
    """
    xllamacpp: Any = import_module("xllamacpp")  # an optional extra, 100 MB of native code without types
    folder = Path(tempfile.mkdtemp(prefix="gguf-"))
    params = xllamacpp.CommonParams()
    params.model.path = str(path)
    params.n_ctx = context_tokens
    params.n_parallel = 1
    params.n_batch = params.n_ubatch = _PROMPT_BATCH
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.n_gpu_layers = 0
    params.fit_params = params.warmup = params.ui = params.endpoint_slots = params.endpoint_props = False
    params.cache_ram_mib = 0
    params.verbosity = -1
    params.offline = True
    params.hostnames = [str(folder / "s.sock")]
    params.n_threads_http = 1
    params.api_keys = [secrets.token_hex(32)]
    try:
        return xllamacpp.Server(params)
    except RuntimeError as error:
        raise ModelUnavailable(f"The local model '{path.stem}' cannot be loaded.") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
