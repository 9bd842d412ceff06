"""Stored responses and batches of files of a service that is killed: changes over HTTP, and checks after a start.

Guarantees: an acknowledged response is read as it was answered, and an acknowledged deletion removes it; a background
response that was acknowledged ends; every file of an acknowledged batch is counted, and the batch ends with all of its
files completed.
"""

from __future__ import annotations

import random
import time
from typing import Any, Final

import httpx

_MODEL: Final = "local/chat-model"
_KEPT_RESPONSES: Final = 20
_KEPT_STORES: Final = 4
_REMOVED_AT_ONCE: Final = 10
_CHECKED: Final = 5
_FILES_OF_A_BATCH: Final = 3
_BUSY: Final = (429, 503)
_ENDED: Final = ("completed", "failed", "incomplete", "cancelled")
_TIMEOUT_S: Final = 90.0


class StateKills:
    """The acknowledged changes of one tenant. One thread calls ``change``; ``check`` runs while none does."""

    def __init__(self, seed: float) -> None:
        self._random = random.Random(seed)  # noqa: S311 - which request comes next
        self._serial = 0
        self._responses: dict[str, list[Any]] = {}
        """Output of each response, by its id."""
        self._first: set[str] = set()
        """Responses that continue no other: what is deleted before them cannot be missed."""
        self._deleted: set[str] = set()
        self._background: set[str] = set()
        self._batches: dict[str, str] = {}
        """Batch of each vector store."""
        self._files: list[str] = []
        self._files_of_stores: dict[str, list[str]] = {}
        self.changes = 0
        self.lost: list[str] = []
        self.ghosts: list[str] = []

    def change(self, client: httpx.Client) -> bool:
        """Send one request that changes something; returns whether it was acknowledged."""
        kind = self._random.random()
        if len(self._responses) > _KEPT_RESPONSES or (self._responses and kind < 0.15):
            done = self._delete_response(client)
        elif kind < 0.5:
            done = self._respond(client)
        elif kind < 0.6:
            done = self._respond_later(client)
        elif len(self._batches) > _KEPT_STORES:
            done = self._delete_store(client)
        else:
            done = self._add_batch(client)
        self.changes += done
        return done

    def _accepted(self, reply: httpx.Response, what: str) -> bool:
        if reply.status_code not in (200, *_BUSY):
            self.lost.append(f"{what} answered {reply.status_code}: {reply.text[:200]}")
        return reply.status_code == 200

    def _respond(self, client: httpx.Client) -> bool:
        self._serial += 1
        body: dict[str, Any] = {"model": _MODEL, "input": f"Repeat the number {self._serial}."}
        continued = sorted(self._first & self._responses.keys())
        if continued and self._random.random() < 0.3:
            body["previous_response_id"] = self._random.choice(continued)
        reply = client.post("/v1/responses", json=body)
        if not self._accepted(reply, "a response"):
            return False
        response_id = reply.json()["id"]
        self._responses[response_id] = reply.json()["output"]
        if "previous_response_id" not in body:
            self._first.add(response_id)
        return True

    def _respond_later(self, client: httpx.Client) -> bool:
        reply = client.post("/v1/responses", json={"model": _MODEL, "input": "Say a word.", "background": True})
        if not self._accepted(reply, "a background response"):
            return False
        self._background.add(reply.json()["id"])
        return True

    def _delete_response(self, client: httpx.Client) -> bool:
        response_id = self._random.choice(sorted(self._responses))
        del self._responses[response_id]  # without an answer, either state is right
        if not self._accepted(client.delete(f"/v1/responses/{response_id}"), "the deletion of a response"):
            return False
        self._deleted.add(response_id)
        return True

    def _add_batch(self, client: httpx.Client) -> bool:
        """Upload a file, or put the uploaded files into a new vector store, so that kills come in between."""
        if len(self._files) < _FILES_OF_A_BATCH:
            self._serial += 1
            content = f"The number of this note is {self._serial}."
            note = {"file": (f"note{self._serial}.txt", content)}
            reply = client.post("/v1/files", data={"purpose": "assistants"}, files=note)
            if not self._accepted(reply, "an upload for a batch"):
                return False
            self._files.append(reply.json()["id"])
            return True
        store = client.post("/v1/vector_stores", json={"name": "notes"})
        if not self._accepted(store, "a vector store"):
            return False
        store_id = store.json()["id"]
        batch = client.post(f"/v1/vector_stores/{store_id}/file_batches", json={"file_ids": self._files})
        if not self._accepted(batch, "a batch"):
            return False
        self._files_of_stores[store_id], self._files = self._files, []
        self._batches[store_id] = batch.json()["id"]
        return True

    def _delete_store(self, client: httpx.Client) -> bool:
        store_id = self._random.choice(sorted(self._batches))
        del self._batches[store_id], self._files_of_stores[store_id]
        if not self._accepted(client.delete(f"/v1/vector_stores/{store_id}"), "the deletion of a store"):
            return False
        self._deleted.add(store_id)
        return True

    def check(self, client: httpx.Client) -> None:
        """Compare the responses and batches of the service with the acknowledged changes."""
        for response_id in self._random.sample(sorted(self._responses), k=min(_CHECKED, len(self._responses))):
            reply = client.get(f"/v1/responses/{response_id}")
            if reply.status_code != 200 or reply.json()["output"] != self._responses[response_id]:
                self.lost.append(f"the response {response_id}: {reply.status_code}")
        for public_id in sorted(self._deleted)[-_CHECKED:]:
            path = "responses" if public_id.startswith("resp_") else "vector_stores"
            if client.get(f"/v1/{path}/{public_id}").status_code != 404:
                self.ghosts.append(f"{public_id} still answers")
        for response_id in sorted(self._background):
            status = self._wait(client, f"/v1/responses/{response_id}")["status"]
            if status not in _ENDED:
                self.lost.append(f"the background response {response_id} is {status}")
        self._background.clear()
        for store_id, batch_id in self._batches.items():
            batch = self._wait(client, f"/v1/vector_stores/{store_id}/file_batches/{batch_id}")
            counts = batch.get("file_counts", {})
            if (counts.get("completed"), counts.get("total")) != (_FILES_OF_A_BATCH, _FILES_OF_A_BATCH):
                self.lost.append(f"the batch {batch_id} is {batch.get('status')}: {counts}")
        self._remove_strays(client)

    def _remove_strays(self, client: httpx.Client) -> None:
        """Delete stores and files whose requests were not answered: the directory must not grow with the kills."""
        known = {*self._files, *(file_id for files in self._files_of_stores.values() for file_id in files)}
        for kind, kept in (("vector_stores", self._batches.keys()), ("files", known)):
            listed = client.get(f"/v1/{kind}", params={"limit": 100}).raise_for_status().json()["data"]
            strays = [item["id"] for item in listed if item["id"] not in kept]
            for public_id in strays[:_REMOVED_AT_ONCE]:
                self._accepted(client.delete(f"/v1/{kind}/{public_id}"), f"the deletion of a stray of {kind}")

    def _wait(self, client: httpx.Client, path: str) -> dict[str, Any]:
        """The object at ``path`` once it has ended, or as it is after the time limit."""
        deadline = time.monotonic() + _TIMEOUT_S
        while True:
            body: dict[str, Any] = client.get(path).json()
            if body.get("status", "missing") in (*_ENDED, "missing") or time.monotonic() > deadline:
                return {"status": "missing", **body}
            time.sleep(0.05)
