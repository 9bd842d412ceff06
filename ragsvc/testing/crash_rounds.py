"""Kills the real service at random moments and checks that it keeps its guarantees.

Each round starts the service, checks all guarantees, uploads, renames and deletes documents from several threads, and
sends SIGKILL after a random number of acknowledged changes, so that a slow machine does the same work as a fast one.
Some rounds also wait for the deletion of a tenant or for the end of a backup. Then a copy of the data directory is
opened in this process, and both indexes are compared with the rows, id by id and vector by vector.
Guarantees: an acknowledged upload is stored and becomes ready; a renamed document is found by the
words of its name and not by those of former names; an acknowledged delete removes a document from rows, files and both
indexes; an id is never used for two documents or passages; every file has a row; every text has its checksum; no byte
of the text of a deleted tenant is in any file; a backup that has ended restores the documents that lasted while it ran;
files and parts of uploads are kept and removed as their requests were acknowledged (``testing.file_kills``);
stored responses and batches of files likewise (``testing.state_kills``).
In some rounds the service is also killed while it upgrades a directory of an earlier release, which loses no row.
"""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from sqlalchemy import Connection

from ragsvc.core.ids import TenantId
from ragsvc.core.ports.embedding import EmbeddingModel
from ragsvc.core.text.chunking import lexical_context
from ragsvc.index.registry import IndexRegistry
from ragsvc.store import document_rows
from ragsvc.store.blobs import BlobStore
from ragsvc.store.database import driver_connection
from ragsvc.store.directory_backup import back_up_directory, restore_directory
from ragsvc.store.file_removal_rows import is_used
from ragsvc.store.index_source import SqliteIndexSource
from ragsvc.store.sqlite_database import SqliteDatabase
from ragsvc.store.text_integrity import damaged_texts
from ragsvc.testing.file_kills import FileKills
from ragsvc.testing.preloaded_service import ForkedService, PreloadedProcess
from ragsvc.testing.sample_pdfs import text_pdf
from ragsvc.testing.service_runner import RunningService, create_key
from ragsvc.testing.state_kills import StateKills
from ragsvc.testing.upgrade_kills import UpgradeKills

_KEPT_DOCUMENTS = 30
_WORKERS = 4
_READY_TIMEOUT_S = 90
_CHANGES_PER_ROUND = 12
_CHANGE_TIMEOUT_S = 90
_BACKUP_SHARE = 0.3
"""Of the rounds, in which a backup is made while the service is changed and killed."""
_ERASING_ROUND = 5
"""Every so many rounds the service is only killed after the deletion of a tenant was acknowledged."""
_BACKUP_ROUND = 6
"""Every so many rounds the service is only killed after a backup has ended."""
_UPGRADE_SHARE = 0.3
"""Of the rounds, in which an upgrade of a directory of an earlier release is killed as well."""
_LONG_SHARE = 0.05
_LONG_LINES = 500
_ERASED_WORDS = 20
_PAUSE_BEFORE_KILL_S = 0.05
"""Longer than most requests take, so that the kill meets requests and jobs at any moment."""
_WORDS = (
    "harbour ledger violet turbine meadow quarrel lantern copper ivory sandstone walrus thimble orchard comet gravel "
    "saddle winter needle basalt cedar marble falcon timber amber willow glacier anchor velvet pepper copperhead"
).split()


@dataclass
class Promises:
    """The acknowledged changes, and the requests without an answer when the service was killed."""

    kept: dict[str, str] = field(default_factory=dict)
    """Document id to the word that only this document contains."""
    deleted: dict[str, str] = field(default_factory=dict)
    unsure: set[str] = field(default_factory=set)
    """Ids of documents whose delete was not answered."""
    passages: dict[str, str] = field(default_factory=dict)
    """Passage id to the document in which it was first seen."""
    uploads: int = 0
    deletes: int = 0
    names: dict[str, str] = field(default_factory=dict)
    """Document id to the word of its latest acknowledged name; absent after a rename that was not answered."""
    renames: int = 0
    tenants: int = 0
    """Acknowledged deletions of tenants."""
    erased: list[str] = field(default_factory=list)
    """Words of the documents of deleted tenants."""


@dataclass
class Report:
    """Counts over all rounds, and every broken promise."""

    rounds: int = 0
    uploads: int = 0
    deletes: int = 0
    renames: int = 0
    tenants: int = 0
    files: int = 0
    """Acknowledged uploads and deletions of files, whole or in parts."""
    states: int = 0
    """Acknowledged changes of responses, vector stores and their batches."""
    backups: int = 0
    """Backups that ended, each made while the service ran, and restored."""
    upgrades: int = 0
    """Kills of a service that upgraded a directory of an earlier release."""
    interrupted_upgrades: int = 0
    """Those that left the old schema."""
    wanted: int = 0
    """The acknowledged changes after which the service was killed, over all rounds."""
    resumed: int = 0
    lost: list[str] = field(default_factory=list)
    ghosts: list[str] = field(default_factory=list)
    differences: list[str] = field(default_factory=list)

    @property
    def acknowledged(self) -> int:
        """Changes that the service acknowledged."""
        return self.uploads + self.deletes + self.renames + self.tenants + self.files + self.states

    @property
    def clean(self) -> bool:
        return not (self.lost or self.ghosts or self.differences)


class CrashRounds:
    """Runs rounds on one data directory."""

    def __init__(self, data_dir: Path, key: str, *, admin_key: str, seed: int, scratch: Path) -> None:
        """``key`` belongs to the tenant whose documents are followed; ``admin_key`` makes and deletes other tenants."""
        self.data_dir = data_dir
        self.scratch = scratch
        self.promises = Promises()
        self.report = Report()
        self._key = key
        self._admin_key = admin_key
        self._random = random.Random(seed)  # noqa: S311 - moments to kill at, not secrets
        self._files = FileKills(seed)
        self._states = StateKills(seed)
        self._states_key = create_key(data_dir, tenant="assistants")
        self._lock = threading.Lock()
        self._acknowledged = threading.Semaphore(0)
        self._erased = threading.Semaphore(0)
        self._serial = 0
        self._former_names: dict[str, set[str]] = {}
        self._renaming: set[str] = set()
        self._left_tenants: list[str] = []
        """Tenants that were made and whose deletion was not answered."""
        self._expected_in_backup: set[str] | None = None

    def run(self, rounds: int, *, on_round: Callable[[int], None] = lambda _: None) -> Report:
        """Run the rounds, then start once more and check the end state."""
        with PreloadedProcess() as preloaded:
            upgrades = UpgradeKills(preloaded, scratch=self.scratch, chance=self._random)
            for number in range(rounds):
                self._round(preloaded)
                if self._random.random() < _UPGRADE_SHARE:
                    self.report.lost += upgrades.kill_once()
                    self.report.upgrades, self.report.interrupted_upgrades = upgrades.kills, upgrades.interrupted
                on_round(number + 1)
        service = RunningService(self.data_dir)
        try:
            self._check(service)
        finally:
            service.stop()
        self._check_copy()
        self.report.uploads = self.promises.uploads
        self.report.deletes = self.promises.deletes
        self.report.renames = self.promises.renames
        self.report.tenants = self.promises.tenants
        self.report.files = self._files.changes
        self.report.states = self._states.changes
        self.report.lost += [*self._files.lost, *self._states.lost]
        self.report.ghosts += [*self._files.ghosts, *self._states.ghosts]
        return self.report

    def _round(self, preloaded: PreloadedProcess) -> None:
        service = ForkedService(preloaded, self.data_dir, scratch=self.scratch)
        try:
            self._check(service)
            stop = threading.Event()
            threads = [
                threading.Thread(target=self._work, args=(service, stop, self._random.random()), daemon=True)
                for _ in range(_WORKERS)
            ]
            threads.append(threading.Thread(target=self._work_with_tenants, args=(service, stop), daemon=True))
            for key, change in ((self._key, self._files.change), (self._states_key, self._states.change)):
                threads.append(threading.Thread(target=self._work_with, args=(service, key, change, stop), daemon=True))
            backup = threading.Thread(target=self._back_up, daemon=True)
            number = self.report.rounds + 1
            if self._random.random() < _BACKUP_SHARE or number % _BACKUP_ROUND == 0:
                threads.append(backup)
            for thread in threads:
                thread.start()
            self._await(self._acknowledged, self._random.randint(0, _CHANGES_PER_ROUND), kind="changes")
            if number % _ERASING_ROUND == 0:
                self._await(self._erased, 1, kind="deletions of tenants")
            if number % _BACKUP_ROUND == 0:
                backup.join(_CHANGE_TIMEOUT_S)
            time.sleep(self._random.uniform(0, _PAUSE_BEFORE_KILL_S))
        finally:
            service.kill()
        stop.set()
        for thread in threads:
            thread.join(30)
        self._check_copy()
        self._check_backup()
        self.report.rounds += 1

    def _await(self, acknowledged: threading.Semaphore, count: int, *, kind: str) -> None:
        """Wait until the service has acknowledged this many changes of a kind from now on."""
        while acknowledged.acquire(blocking=False):
            pass
        for done in range(count):
            if not acknowledged.acquire(timeout=_CHANGE_TIMEOUT_S):
                self.report.lost.append(f"{done} of {count} {kind} were acknowledged within {_CHANGE_TIMEOUT_S} s")
                return
        self.report.wanted += count

    # -- load ---------------------------------------------------------------------------------------------------

    def _work(self, service: RunningService | ForkedService, stop: threading.Event, seed: float) -> None:
        chance = random.Random(seed)  # noqa: S311 - which request comes next
        with service.client(self._key) as client:
            while not stop.is_set():
                try:
                    with self._lock:
                        crowded = len(self.promises.kept) > _KEPT_DOCUMENTS
                    if crowded or chance.random() < 0.3:
                        self._delete(client, chance)
                    elif chance.random() < 0.3:
                        self._rename(client, chance)
                    else:
                        self._upload(client, chance)
                except httpx.TransportError:
                    return

    def _work_with_tenants(self, service: RunningService | ForkedService, stop: threading.Event) -> None:
        """Make tenants with a document each, and delete them; first those whose deletion was not answered."""
        with service.client(self._admin_key) as admin:
            while not stop.is_set():
                with self._lock:
                    self._serial += 1
                    name, word = f"tenant{self._serial}", f"er{self._serial:07d}x"
                try:
                    while self._left_tenants:
                        if admin.delete(f"/v1/tenants/{self._left_tenants[-1]}").status_code not in (200, 404):
                            break
                        self._left_tenants.pop()
                    self._left_tenants.append(name)
                    made = admin.post("/v1/keys", json={"tenant": name, "label": "short"})
                    if made.status_code != 201:
                        time.sleep(0.2)
                        continue
                    with service.client(made.json()["key"]) as client:
                        client.post(
                            "/v1/rag/documents",
                            params={"filename": f"{word}.txt", "wait_s": 2},
                            content=f"The secret word of this tenant is {word}.".encode(),
                        )
                    deleted = admin.delete(f"/v1/tenants/{name}")
                except httpx.TransportError:
                    return
                if deleted.status_code == 200:
                    self._left_tenants.remove(name)
                    with self._lock:
                        self.promises.tenants += 1
                        if deleted.json()["removed"]["log_emptied"]:  # otherwise its bytes leave within a minute
                            self.promises.erased.append(word)
                    self._acknowledged.release()
                    self._erased.release()
                elif deleted.status_code not in (409, 503):
                    self.report.lost.append(f"deletion of {name} answered {deleted.status_code}: {deleted.text[:200]}")

    def _work_with(
        self,
        service: RunningService | ForkedService,
        key: str,
        change: Callable[[httpx.Client], bool],
        stop: threading.Event,
    ) -> None:
        """Change files or responses, one request after the other."""
        with service.client(key) as client:
            while not stop.is_set():
                try:
                    changed = change(client)
                except httpx.TransportError:
                    return
                if changed:
                    self._acknowledged.release()

    def _back_up(self) -> None:
        """Back the directory up once while the service runs."""
        with self._lock:
            before = dict(self.promises.kept)
        archive = self.scratch / "archive"
        try:
            back_up_directory(self.data_dir, None, archive, keep=2)
        except Exception as error:  # noqa: BLE001 - every failure of a backup is a finding
            self.report.lost.append(f"a backup failed: {error!r}")
            return
        with self._lock:
            self._expected_in_backup = {
                document_id for document_id in before if document_id in self.promises.kept
            } - self.promises.unsure

    def _upload(self, client: httpx.Client, chance: random.Random) -> None:
        with self._lock:
            self._serial += 1
            word = f"zq{self._serial:07d}x"
        lines = [" ".join(chance.choices(_WORDS, k=9)) + "." for _ in range(chance.randint(3, 40))]
        if chance.random() < _LONG_SHARE:  # of more than one batch: its words are searchable before its vectors
            lines += [" ".join(chance.choices(_WORDS, k=40)) + "." for _ in range(_LONG_LINES)]
        text = [f"The code word of this report is {word}.", *lines]
        wait_s = chance.choice([0, 0, 5])
        if chance.random() < 0.5:
            body, kind = (
                text_pdf([text[begin : begin + 20] for begin in range(0, len(text), 20)]),
                "application/pdf",
            )
        else:
            body, kind = "\n".join(text).encode(), "text/plain"
        reply = client.post(
            "/v1/rag/documents",
            params={"wait_s": wait_s, "filename": f"{word}.{'pdf' if kind.endswith('pdf') else 'txt'}"},
            content=body,
            headers={"content-type": kind},
        )
        if reply.status_code in (200, 201, 202):
            with self._lock:
                self.promises.kept[reply.json()["id"]] = word
                self.promises.uploads += 1
            self._acknowledged.release()
        elif reply.status_code != 503:
            self.report.lost.append(f"upload answered {reply.status_code}: {reply.text[:200]}")

    def _rename(self, client: httpx.Client, chance: random.Random) -> None:
        """Give a document a name of two words: the word that identifies it here, and a new word."""
        with self._lock:
            free = [document_id for document_id in self.promises.kept if document_id not in self._renaming]
            if not free:
                return
            document_id = chance.choice(free)
            word = self.promises.kept[document_id]
            self._serial += 1
            name = f"nm{self._serial:07d}x"
            self.promises.names.pop(document_id, None)
            self._former_names.setdefault(document_id, set()).add(name)
            self._renaming.add(document_id)  # of two renames at a time, either could be the later one
        status = None
        try:
            status = client.patch(
                f"/v1/rag/documents/{document_id}", json={"filename": f"{word} {name}.txt"}
            ).status_code
        finally:
            with self._lock:
                if status == 200:
                    self._acknowledged.release()
                    self.promises.renames += 1
                    self.promises.names[document_id] = name
                self._renaming.discard(document_id)
        if status not in (200, 404, 503):
            self.report.lost.append(f"rename of {document_id} answered {status}")

    def _delete(self, client: httpx.Client, chance: random.Random) -> None:
        with self._lock:
            if not self.promises.kept:
                return
            document_id = chance.choice(list(self.promises.kept))
            word = self.promises.kept.pop(document_id)
            self.promises.unsure.add(document_id)
        reply = client.delete(f"/v1/rag/documents/{document_id}")
        if reply.status_code == 200:
            with self._lock:
                self.promises.unsure.discard(document_id)
                self.promises.deleted[document_id] = word
                self.promises.deletes += 1
            self._acknowledged.release()
        elif reply.status_code != 503:
            self.report.lost.append(f"delete of {document_id} answered {reply.status_code}")

    # -- checks over HTTP ---------------------------------------------------------------------------------------

    def _check(self, service: RunningService | ForkedService) -> None:
        with service.client(self._key) as client:
            self._files.check(client)
        with service.client(self._states_key) as client:
            self._states.check(client)
        with service.client(self._key) as client:
            listed = self._listed(client)
            self._settle_unsure(listed)
            for document_id in self.promises.kept:
                if document_id not in listed:
                    self.report.lost.append(f"{document_id} is not listed")
            for document_id in self.promises.deleted:
                if document_id in listed:
                    self.report.ghosts.append(f"{document_id} is listed")
            self._await_ready(client, listed)
            sample = self._random.sample(sorted(self.promises.kept), k=min(5, len(self.promises.kept)))
            for document_id in sample:
                self._check_findable(client, document_id, self.promises.kept[document_id])
            gone = sorted(self.promises.deleted)[-3:]
            for document_id in gone:
                self._check_gone(client, document_id, self.promises.deleted[document_id])

    def _listed(self, client: httpx.Client) -> dict[str, dict[str, Any]]:
        found: dict[str, dict[str, Any]] = {}
        after: str | None = None
        while True:
            reply = client.get("/v1/rag/documents", params={"limit": 100, **({"after": after} if after else {})})
            page = reply.raise_for_status().json()
            found.update({document["id"]: document for document in page["data"]})
            if not page["has_more"]:
                return found
            after = page["last_id"]

    def _settle_unsure(self, listed: dict[str, dict[str, Any]]) -> None:
        """An unanswered delete may have happened or not; the present state must last from now on."""
        for document_id in sorted(self.promises.unsure):
            if document_id in listed:
                self.promises.kept[document_id] = _word_of(listed[document_id]["filename"])
            else:
                self.promises.deleted[document_id] = ""
        self.promises.unsure.clear()
        for document_id, document in listed.items():  # an upload whose response was lost
            if document_id not in self.promises.deleted:
                self.promises.kept.setdefault(document_id, _word_of(document["filename"]))

    def _await_ready(self, client: httpx.Client, listed: dict[str, dict[str, Any]]) -> None:
        waiting = [document_id for document_id, row in listed.items() if row["status"] != "ready"]
        self.report.resumed += len(waiting)
        self._check_searchable(client, [listed[document_id] for document_id in waiting])
        deadline = time.monotonic() + _READY_TIMEOUT_S
        for document_id in waiting:
            while True:
                row = client.get(f"/v1/rag/documents/{document_id}").json()
                if row.get("status") == "ready":
                    break
                if row.get("status") == "failed" or time.monotonic() > deadline:
                    self.report.lost.append(f"{document_id} ended as {row.get('status')}: {row.get('error')}")
                    break
                time.sleep(0.05)

    def _check_searchable(self, client: httpx.Client, waiting: list[dict[str, Any]]) -> None:
        """The words of a document that was searchable when the service was killed still find it."""
        for row in waiting:
            if row["stage"] == "searchable" and row["id"] not in _found(client, _word_of(row["filename"])):
                self.report.lost.append(f"{row['id']} is searchable and not found by its words")

    def _check_findable(self, client: httpx.Client, document_id: str, word: str) -> None:
        for mode in ("lexical", "hybrid"):
            reply = client.post("/v1/rag/search", json={"query": f"code word {word}", "mode": mode, "top_k": 10})
            hits = reply.raise_for_status().json()["data"]
            if document_id not in {hit["document_id"] for hit in hits}:
                self.report.lost.append(f"{document_id} ({word}) is not found by {mode} search: {reply.text[:1500]}")
            for hit in hits:
                owner = self.promises.passages.setdefault(hit["chunk_id"], hit["document_id"])
                if owner != hit["document_id"]:
                    self.report.ghosts.append(f"{hit['chunk_id']} was reused")
        self._check_name(client, document_id)
        if word not in client.get(f"/v1/rag/documents/{document_id}/pages/1").json().get("text", ""):
            self.report.lost.append(f"{document_id} lost its text")

    def _check_name(self, client: httpx.Client, document_id: str) -> None:
        """The words of the present name find the document; those of an earlier name find nothing."""
        filename = client.get(f"/v1/rag/documents/{document_id}").json()["filename"]
        promised = self.promises.names.get(document_id)
        if promised is not None and promised not in filename:
            self.report.lost.append(f"{document_id} is named {filename}, not {promised}")
        name = filename.removesuffix(".txt").partition(" ")[2]
        if name and document_id not in _found(client, name):
            self.report.lost.append(f"{document_id} is not found by its name {name}")
        for former in self._former_names.get(document_id, set()) - {name}:
            if _found(client, former):
                self.report.ghosts.append(f"{document_id} is found by its former name {former}")

    def _check_gone(self, client: httpx.Client, document_id: str, word: str) -> None:
        if client.get(f"/v1/rag/documents/{document_id}").status_code != 404:
            self.report.ghosts.append(f"{document_id} still answers")
        if word:
            hits = client.post("/v1/rag/search", json={"query": word, "top_k": 20}).json()["data"]
            if document_id in {hit["document_id"] for hit in hits}:
                self.report.ghosts.append(f"{document_id} is still found")

    # -- checks on a copy of the directory ----------------------------------------------------------------------

    def _check_copy(self) -> None:
        copy = self.scratch / "copy"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(self.data_dir, copy, ignore=shutil.ignore_patterns("models", "*.lock", "*.pid"))
        self._check_erased(copy)
        database = SqliteDatabase(copy / "ragsvc.sqlite")
        try:
            self._compare_indexes(database, copy)
            self._compare_files(database, copy)
        finally:
            database.close()
        shutil.rmtree(copy, ignore_errors=True)

    def _check_backup(self) -> None:
        """Restore the backup of this round, and look for the documents that lasted while it was made."""
        expected, self._expected_in_backup = self._expected_in_backup, None
        if expected is None:
            return
        restored = self.scratch / "restored"
        shutil.rmtree(restored, ignore_errors=True)
        restore_directory(self.scratch / "archive", restored)
        database = SqliteDatabase(restored / "ragsvc.sqlite")
        try:
            rows = database.read_sync(lambda c: c.exec_driver_sql("SELECT public_id FROM documents").scalars().all())
            self.report.lost += [f"{missing} is not in the backup" for missing in sorted(expected - set(rows))]
            store = BlobStore(restored)
            for tenant, digest in database.read_sync(_files_in_use):
                if not store.is_intact(tenant, digest):
                    self.report.lost.append(f"the file {digest[:12]} of a backup is missing or damaged")
        finally:
            database.close()
        shutil.rmtree(restored, ignore_errors=True)
        self.report.backups += 1

    def _check_erased(self, copy: Path) -> None:
        words = [word.encode() for word in self.promises.erased[-_ERASED_WORDS:]]
        for path in copy.rglob("*"):
            if not path.is_file():
                continue
            content = path.read_bytes()
            found = [word.decode() for word in words if word in content]
            self.report.ghosts += [
                f"{path.relative_to(copy)} has the text {word} of a deleted tenant" for word in found
            ]

    def _compare_indexes(self, database: SqliteDatabase, copy: Path) -> None:
        model = database.read_sync(
            lambda c: c.exec_driver_sql("SELECT id, name, dimension, fingerprint FROM embedding_models").one_or_none()
        )
        if model is None:
            return
        source = SqliteIndexSource(
            database, model_id=model.id, dimension=model.dimension, lexical_context=lexical_context
        )
        identity = EmbeddingModel(
            name=model.name, dimension=model.dimension, max_tokens=256, fingerprint=model.fingerprint
        )
        registry = IndexRegistry(copy / "derived" / f"model-{model.id}", source, model=identity, background=False)
        for collection in database.read_sync(document_rows.list_collections):
            report = registry.verify(collection.id)
            if not report.ok:
                self.report.differences.append(f"collection {collection.id}: {report}")
            rows = source.embedded_passage_ids(collection.id)
            index_ids = registry.get(collection.id)
            if len(index_ids) != len(rows) or not np.array_equal(np.unique(rows), rows):
                self.report.differences.append(f"collection {collection.id}: {len(index_ids)} of {len(rows)} passages")
        registry.close()

    def _compare_files(self, database: SqliteDatabase, copy: Path) -> None:
        damaged = database.read_sync(lambda connection: list(damaged_texts(driver_connection(connection))))
        self.report.differences += [f"the text of {text.kind} {text.page} of {text.document}" for text in damaged]
        store = BlobStore(copy)
        for tenant, digest in database.read_sync(_files_in_use):
            path = store.path(tenant, digest)
            if not path.exists() or sha256(path.read_bytes()).hexdigest() != digest:
                self.report.lost.append(f"the file {digest[:12]} is missing or damaged")
        for table in ("pages", "passages", "jobs"):
            statement = f"SELECT count(*) FROM {table} WHERE document_id NOT IN (SELECT id FROM documents)"  # noqa: S608
            if database.read_sync(partial(_count, statement=statement)):
                self.report.ghosts.append(f"{table} without a document")
        for table, condition in (
            ("documents", "id NOT IN (SELECT document_id FROM document_files)"),
            ("files", "implicit AND id NOT IN (SELECT file_id FROM document_files)"),
            ("upload_parts", "upload_id NOT IN (SELECT id FROM uploads WHERE status = 'pending')"),
        ):
            if database.read_sync(partial(_count, statement=f"SELECT count(*) FROM {table} WHERE {condition}")):  # noqa: S608
                self.report.ghosts.append(f"{table} where {condition}")
        statement = "SELECT count(*) FROM embeddings WHERE passage_id NOT IN (SELECT id FROM passages)"
        if database.read_sync(partial(_count, statement=statement)):
            self.report.ghosts.append("vectors without a passage")


def _word_of(filename: str) -> str:
    """The word that only this document holds: its name, or the first word of its name after a rename."""
    return filename.rsplit(".", 1)[0].partition(" ")[0]


def _found(client: httpx.Client, query: str) -> set[str]:
    reply = client.post("/v1/rag/search", json={"query": query, "mode": "lexical", "top_k": 10})
    return {hit["document_id"] for hit in reply.raise_for_status().json()["data"]}


def _files_in_use(connection: Connection) -> list[tuple[TenantId, str]]:
    """Tenant and SHA-256 of the files of documents, except documents that are being deleted: their files go first."""
    pairs = [(TenantId(tenant), digest) for tenant, digest in document_rows.referenced_blobs(connection)]
    return [(tenant, digest) for tenant, digest in pairs if is_used(connection, tenant, digest, ignore_doomed=True)]


def _count(connection: Connection, *, statement: str) -> int:
    return int(connection.exec_driver_sql(statement).scalar_one())
