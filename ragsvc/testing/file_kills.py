"""Files and uploads in parts of a service that is killed: changes over HTTP, and checks after the next start.

Guarantees: an acknowledged file, and a file that an acknowledged completion made of its parts, has its bytes; an
acknowledged deletion removes a file; an acknowledged part can still be used after a restart.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Final

import httpx

_KEPT_FILES: Final = 20
_CHECKED_FILES: Final = 5
_BUSY: Final = (429, 503)


@dataclass
class _Pending:
    """An upload with its acknowledged parts."""

    content: bytes
    parts: list[str] = field(default_factory=list)


class FileKills:
    """The acknowledged changes of files. One thread calls ``change``; ``check`` runs while none does."""

    def __init__(self, seed: float) -> None:
        self._random = random.Random(seed)  # noqa: S311 - which request comes next
        self._serial = 0
        self._kept: dict[str, bytes] = {}
        self._deleted: set[str] = set()
        self._pending: dict[str, _Pending] = {}
        self.changes = 0
        self.lost: list[str] = []
        self.ghosts: list[str] = []

    def change(self, client: httpx.Client) -> bool:
        """Send one request that changes something; returns whether it was acknowledged."""
        if len(self._kept) > _KEPT_FILES or (self._kept and self._random.random() < 0.3):
            done = self._delete(client)
        elif self._random.random() < 0.5:
            done = self._upload(client)
        else:
            done = self._continue_upload(client)
        self.changes += done
        return done

    def _content(self) -> bytes:
        self._serial += 1
        return f"file {self._serial} ".encode() * self._random.randint(2, 2000)

    def _upload(self, client: httpx.Client) -> bool:
        content = self._content()
        reply = client.post("/v1/files", data={"purpose": "user_data"}, files={"file": ("a.txt", content)})
        if self._accepted(reply, "an upload"):
            self._kept[reply.json()["id"]] = content
            return True
        return False

    def _continue_upload(self, client: httpx.Client) -> bool:
        """Begin an upload, send a part of one, or complete it: a step at a time, so that kills come in between."""
        if not self._pending:
            content = self._content()
            plan = {"filename": "a.txt", "mime_type": "text/plain", "purpose": "user_data", "bytes": len(content)}
            reply = client.post("/v1/uploads", json=plan)
            if self._accepted(reply, "the beginning of an upload"):
                self._pending[reply.json()["id"]] = _Pending(content)
                return True
            return False
        ((upload_id, pending),) = self._pending.items()
        half = len(pending.content) // 2
        halves = (pending.content[:half], pending.content[half:])
        if len(pending.parts) < len(halves):
            reply = client.post(f"/v1/uploads/{upload_id}/parts", files={"data": halves[len(pending.parts)]})
            if self._accepted(reply, "a part"):
                pending.parts.append(reply.json()["id"])
                return True
            return False
        reply = client.post(f"/v1/uploads/{upload_id}/complete", json={"part_ids": pending.parts})
        if self._accepted(reply, "a completion"):
            del self._pending[upload_id]
            self._kept[reply.json()["file"]["id"]] = pending.content
            return True
        return False

    def _delete(self, client: httpx.Client) -> bool:
        file_id = self._random.choice(sorted(self._kept))
        del self._kept[file_id]  # without an answer, either state is right
        reply = client.delete(f"/v1/files/{file_id}")
        if self._accepted(reply, "a deletion"):
            self._deleted.add(file_id)
            return True
        return False

    def _accepted(self, reply: httpx.Response, what: str) -> bool:
        if reply.status_code not in (200, *_BUSY):
            self.lost.append(f"{what} answered {reply.status_code}: {reply.text[:200]}")
        return reply.status_code == 200

    def check(self, client: httpx.Client) -> None:
        """Compare the files of the service with the acknowledged changes."""
        listed = {file["id"] for file in client.get("/v1/files").raise_for_status().json()["data"]}
        self.lost += [f"{file_id} is not listed" for file_id in self._kept if file_id not in listed]
        self.ghosts += [f"{file_id} is listed" for file_id in sorted(self._deleted & listed)]
        for file_id in self._random.sample(sorted(self._kept), k=min(_CHECKED_FILES, len(self._kept))):
            reply = client.get(f"/v1/files/{file_id}/content")
            if reply.status_code != 200 or reply.content != self._kept[file_id]:
                self.lost.append(f"the content of {file_id}: {reply.status_code}, {len(reply.content)} bytes")
