"""A model hub on a free port that speaks the part of the Hugging Face hub's API that downloads use."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

LARGE_BYTES = 20_000
"""Larger files are listed with a SHA-256, as the hub lists files in Git LFS, smaller files with a Git object id."""


class ModelHub:
    """Repositories with commits; ``requests`` lists (method, path) of everything that was asked."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[tuple[str, str]] = []
        self.gated: set[str] = set()
        self.damaged: set[str] = set()
        """Names of files that are sent with a changed byte."""
        self._branches: dict[str, dict[str, str]] = {}
        self._commits: dict[tuple[str, str], dict[str, bytes]] = {}

    def publish(self, repository: str, folder: Path, *, branch: str = "main") -> str:
        """Make a commit of the folder's files; returns its id."""
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
        listing = json.dumps(sorted((name, hashlib.sha256(content).hexdigest()) for name, content in files.items()))
        commit = hashlib.sha1(listing.encode(), usedforsecurity=False).hexdigest()
        self._commits[repository, commit] = files
        self._branches.setdefault(repository, {})[branch] = commit
        return commit

    def resolve(self, repository: str, revision: str) -> tuple[str, dict[str, bytes]] | None:
        commit = self._branches.get(repository, {}).get(revision, revision)
        files = self._commits.get((repository, commit))
        return None if files is None else (commit, files)

    def knows(self, repository: str) -> bool:
        return repository in self._branches

    def downloaded(self) -> set[str]:
        """Names of the files that were sent."""
        return {
            path.split("/resolve/")[1].split("/", 1)[1]
            for method, path in self.requests
            if method == "GET" and "/resolve/" in path
        }


def listing(commit: str, repository: str, files: dict[str, bytes]) -> dict:
    siblings = []
    for name, content in files.items():
        header = b"blob %d\0" % len(content)
        entry = {"rfilename": name, "size": len(content), "blobId": hashlib.sha1(header + content).hexdigest()}  # noqa: S324 - Git's
        if len(content) > LARGE_BYTES:
            entry["lfs"] = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "pointerSize": 130}
        siblings.append(entry)
    return {"_id": "1", "id": repository, "modelId": repository, "sha": commit, "private": False, "siblings": siblings}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: ModelHub

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.hub.requests.append((self.command, path))
        if path.startswith("/api/models/"):
            repository, _, revision = path.removeprefix("/api/models/").partition("/revision/")
            if self._refuse(repository, revision or "main"):
                return
            commit, files = self.hub.resolve(repository, revision or "main")
            body = json.dumps(listing(commit, repository, files)).encode()
            self._send(200, body, {"Content-Type": "application/json"})
            return
        repository, _, rest = path[1:].partition("/resolve/")
        revision, _, name = rest.partition("/")
        if self._refuse(repository, revision):
            return
        commit, files = self.hub.resolve(repository, revision)
        if name not in files:
            self._send(404, b"", {"X-Error-Code": "EntryNotFound", "X-Repo-Commit": commit})
            return
        content = files[name]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{hashlib.sha256(content).hexdigest()}"'}
        if name in self.hub.damaged:
            content = bytes([content[0] ^ 1]) + content[1:]
        self._send(200, content, headers)

    def _refuse(self, repository: str, revision: str) -> bool:
        if not self.hub.knows(repository):
            self._send(404, b"{}", {"X-Error-Code": "RepoNotFound"})
        elif repository in self.hub.gated:
            self._send(403, b"{}", {"X-Error-Code": "GatedRepo"})
        elif self.hub.resolve(repository, revision) is None:
            self._send(404, b"{}", {"X-Error-Code": "RevisionNotFound"})
        else:
            return False
        return True

    def _send(self, status: int, body: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base class's name
        """Print nothing."""


@contextmanager
def model_hub() -> Iterator[ModelHub]:
    """Run a hub."""
    hub = ModelHub()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("HubHandler", (Handler,), {"hub": hub}))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    hub.url = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)
