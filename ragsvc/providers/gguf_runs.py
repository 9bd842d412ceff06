"""A GGUF model on one thread of this process: runs wait in a bounded line, and each can be broken off.

Owns the ``xllamacpp`` server (llama.cpp), which is imported and loaded at the first run. Knows neither requests nor
answers of the API: a run takes llama.cpp's own request and yields its chunks.
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

from ragsvc.core.errors import InvalidRequest, ModelUnavailable, Overloaded, RagsvcError, UpstreamFailed

Chunk = dict[str, Any]
OnChunk = Callable[[Chunk], bool]
"""Told each chunk; answers whether to stop."""

_Item = tuple[int, Chunk] | Exception | None
"""A chunk, or how the run ended."""

_PROMPT_BATCH: Final = 256
"""Prompt tokens between two looks at whether anybody still waits for the answer."""
_BUSY_RETRY_S: Final = 5.0


class GgufRuns:
    """Runs of one model, one after another; at most ``max_waiting`` wait. ``context_tokens`` holds prompt and reply."""

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
        """Line up a run that answers ``bodies`` in turn.

        Raises:
            Overloaded: the line is full. ``ModelUnavailable``: it is closed.
        """
        if self._closed:
            raise ModelUnavailable("the local model is shutting down")
        if len(self._open) > self._max_waiting:
            raise Overloaded("too many requests wait for the local model", retry_after_s=_BUSY_RETRY_S)
        run = GgufRun(self._forget)
        self._open.add(run)
        self._thread.submit(run.work, self._answer, bodies)
        return run

    async def aclose(self) -> None:
        """Break off what runs, and free the model."""
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
        except ValueError as error:  # the chat template or the schema
            param = "response_format" if "response_format" in body else "messages"
            raise InvalidRequest(f"the local model refuses the request: {error}", param=param) from error


class GgufRun:
    """Iterates the chunks of one run with the index of their body, as the model makes them, on the event loop.

    Iteration raises:
        InvalidRequest: the prompt is longer than the context, or the chat template refuses it.
        ModelUnavailable: the model cannot be loaded. ``UpstreamFailed``: it broke.
    """

    def __init__(self, on_end: Callable[[GgufRun], None]) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_end = on_end
        self._cancelled = threading.Event()
        self._items: asyncio.Queue[_Item] = asyncio.Queue()  # bounded by the limit of tokens

    def work(self, answer: Callable[[dict[str, Any], OnChunk], None], bodies: Sequence[dict[str, Any]]) -> None:
        """Make the chunks, on the model's thread."""
        end: Exception | None = None
        try:
            for index, body in enumerate(bodies):
                if self._cancelled.is_set():
                    break
                answer(body, partial(self._take, index))
        except Exception as error:  # noqa: BLE001 - raised where the chunks are read
            end = error
        self._hand_over(end)

    def _take(self, index: int, chunk: Chunk) -> bool:
        self._hand_over((index, chunk))
        return self._cancelled.is_set()

    def _hand_over(self, item: _Item) -> None:
        try:
            self._loop.call_soon_threadsafe(self._put, item)
        except RuntimeError:  # the loop is closed: nobody reads any more
            self._cancelled.set()

    def _put(self, item: _Item) -> None:
        self._items.put_nowait(item)
        if not isinstance(item, tuple):
            self._on_end(self)

    def cancel(self) -> None:
        """Break off; the model stops at its next token."""
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
            raise UpstreamFailed("the local model broke") from item
        if "error" in item[1]:
            raise _refusal(item[1]["error"])
        return item


def _refusal(error: dict[str, Any]) -> RagsvcError:
    said = str(error.get("message", "no reason given"))
    if 400 <= int(error.get("code", 500)) < 500:
        return InvalidRequest(f"the local model refuses the request: {said}", param="messages")
    return UpstreamFailed(f"the local model failed: {said}")


def _load(path: Path, *, context_tokens: int, threads: int) -> Any:  # noqa: ANN401 - xllamacpp has no types
    """Load the weights. Raises ``ModelUnavailable``.

    llama.cpp's server always listens. It gets a socket file in a folder of our own, which is gone before the first
    answer, and a key that nobody knows: the model is reached through this process only.
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
        raise ModelUnavailable(f"the local model '{path.stem}' cannot be loaded") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)
