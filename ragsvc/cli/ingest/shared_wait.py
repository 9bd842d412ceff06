"""Waits for many small documents with one request for all of them, instead of one open request for each."""

from __future__ import annotations

from typing import Final

import anyio

from ragsvc.cli.service_client import Json, ServiceClient

SMALL_FILE_BYTES: Final = 8192
"""A file of at most so many bytes is usually ready within a moment, with others that were uploaded at the same time."""
SMALL_FILES_AT_ONCE: Final = 96
"""Small files that may be uploaded and not ready yet."""
SMALL_FILES_PER_FILE: Final = 8
"""Small files that are uploaded at the same time instead of a large one: the service stores them with one commit."""

_POLL_S: Final = 0.2
_LISTED: Final = 100
_ENDED: Final = ("ready", "failed")


class SharedWait:
    """Reads the list of the newest documents while callers wait for documents that are in it."""

    def __init__(self, client: ServiceClient, *, poll_s: float = _POLL_S) -> None:
        self._client = client
        self._poll_s = poll_s
        self._reading = anyio.Lock()
        self._waiting: set[str] = set()
        self._seen: dict[str, Json] = {}

    async def last_state(self, document: Json) -> Json | None:
        """The document when it is ready or failed; ``None`` if the list does not have it, so it has to be followed."""
        public_id: str = document["id"]
        self._waiting.add(public_id)
        try:
            while True:
                async with self._reading:
                    if public_id not in self._seen:
                        await anyio.sleep(self._poll_s)
                        await self._read()
                    state = self._seen.pop(public_id, None)
                if state is None or state["status"] in _ENDED:
                    return state
        finally:
            self._waiting.discard(public_id)
            self._seen.pop(public_id, None)

    async def _read(self) -> None:
        """Note the states of the documents that callers wait for."""
        listed = await self._client.get("/v1/rag/documents", {"limit": _LISTED})
        self._seen.update({state["id"]: state for state in listed["data"] if state["id"] in self._waiting})
