"""The indexes of all collections: loaded at first use, kept within a memory limit, saved in the background.

Owns the folder ``derived/``. Blocking and thread-safe; callers on an event loop use worker threads.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from ragsvc.core.defaults import DEFAULT_OPEN_COLLECTIONS
from ragsvc.core.errors import CollectionNotFound, Overloaded, ShuttingDown, StorageFull
from ragsvc.core.ports.embedding import EmbeddingModel, Vectors
from ragsvc.core.ports.indexes import DocumentJudgement, Hits, Ids, IndexSource
from ragsvc.core.storage_faults import is_storage_fault
from ragsvc.index.collection import CollectionIndex
from ragsvc.index.comparison import IndexReport
from ragsvc.index.restore import IndexOptions

logger = logging.getLogger(__name__)

_MAINTENANCE_INTERVAL_S = 5.0
_WRITER_IDLE_S = 45.0
_SNAPSHOT_AFTER_PASSAGES = 2000
_SNAPSHOT_AFTER_PASSAGES_AT_MOST = 20_000
_COLD_AFTER_S = 600.0
_COLD_BYTES = 8 << 20
"""A larger index is kept open when it is idle: opening it again takes longer than a search may."""
_OPEN_MARGIN = 8


class IndexStatus(msgspec.Struct, frozen=True):
    """Size and log position of a loaded collection, for metrics and ``doctor``."""

    collection_id: int
    kind: str
    passages: int
    memory_bytes: int
    covered_seq: int


class _Slot:
    """The place of one collection's index; ``lock`` is held to load, change or unload the index."""

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.index: CollectionIndex | None = None
        self.used_at = 0.0
        self.written_at = 0.0
        self.pruned_seq = 0


class IndexRegistry:
    """Loads collections' indexes, keeps them up to date, saves them, and bounds their memory.

    If loaded collections take more than ``memory_limit_bytes`` together, or are more than ``max_open``, the least
    recently used ones are saved and unloaded; the most recently used one always stays. A small collection is also
    unloaded after ten minutes without use: every loaded one has a thread of tantivy. With ``background=False``, the
    caller has to call ``maintain``.
    """

    def __init__(
        self,
        root: Path,
        source: IndexSource,
        *,
        model: EmbeddingModel,
        memory_limit_bytes: int = 1 << 30,
        max_open: int = DEFAULT_OPEN_COLLECTIONS,
        options: IndexOptions | None = None,
        background: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.root = root
        self.model = model
        self.memory_limit_bytes = memory_limit_bytes
        self._max_open = max_open
        self._dropped: set[int] = set()
        self._source = source
        self._options = options or IndexOptions()
        self._clock = clock
        self._slots: dict[int, _Slot] = {}
        self._slots_lock = threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        self.prunes_log = False
        """Whether log entries that the files of an index cover are removed; only if no other index reads the log."""
        self._improver: threading.Thread | None = None
        self._thread = threading.Thread(target=self._run, name="index-maintenance", daemon=True) if background else None
        root.mkdir(parents=True, exist_ok=True)
        if self._thread is not None:
            self._thread.start()

    def get(self, collection_id: int) -> CollectionIndex:
        """The collection's index, loaded and brought up to date if it was not loaded; one load at a time."""
        slot = self._slot(collection_id)
        slot.used_at = self._clock()
        index = slot.index
        if index is not None:
            return index
        with slot.lock:
            return self._load(slot, collection_id)

    def is_loaded(self, collection_id: int) -> bool:
        """Whether the collection's indexes and document cards are in memory."""
        slot = self._slots.get(collection_id)
        return slot is not None and slot.index is not None and slot.index.has_cards

    def load(self, collection_id: int) -> None:
        """Load the collection's indexes and document cards."""
        self.get(collection_id).cards()

    def catch_up(self, collection_id: int) -> None:
        """Make the collection's latest commits searchable; call it after each commit. Costs O(new changes)."""
        if collection_id in self._dropped:
            return
        slot = self._slot(collection_id)
        with slot.lock:
            slot.used_at = slot.written_at = self._clock()
            index = self._load(slot, collection_id)
            try:
                index.catch_up()
            except (StorageFull, Overloaded):
                raise  # the index stays usable, and maintenance tries again
            except Exception:
                slot.index = None  # the next use loads the files on disk and replays the log
                with contextlib.suppress(Exception):  # the first error is the one to report
                    index.close()
                raise
        if self._wants_snapshot(index):
            self._wake.set()

    def search(
        self,
        collection_id: int,
        query_vector: Vectors | None,
        query_text: str | None,
        *,
        k: int,
        documents: Ids | None = None,
    ) -> tuple[Hits, Hits]:
        """Dense and lexical hits of one collection, restricted to ``documents`` before ranking."""
        return self.get(collection_id).search(query_vector, query_text, k=k, documents=documents)

    def judge_documents(self, collection_id: int, question: str, *, documents: Ids | None = None) -> DocumentJudgement:
        """Which documents of a collection the question names."""
        return self.get(collection_id).judge_documents(question, documents=documents)

    def documents_of(self, collection_id: int, ids: Ids) -> Ids:
        """The document of each passage, -1 for an unknown id."""
        return self.get(collection_id).documents_of(ids)

    def vectors(self, collection_id: int, ids: Ids) -> tuple[Ids, Vectors]:
        """Those of ``ids`` that have vectors, and these in the same order."""
        return self.get(collection_id).present_vectors(ids)

    def verify(self, collection_id: int) -> IndexReport:
        """Compare a collection's indexes with its rows."""
        slot = self._slot(collection_id)
        with slot.lock:
            return self._load(slot, collection_id).verify()

    def status(self) -> list[IndexStatus]:
        loaded = [(number, index) for number, slot in self._present() if (index := slot.index) is not None]
        return [
            IndexStatus(number, index.kind, len(index), index.memory_bytes, index.covered_seq)
            for number, index in loaded
        ]

    def memory_bytes(self) -> int:
        """Bytes of memory of all loaded collections."""
        return sum(index.memory_bytes for _, slot in self._present() if (index := slot.index) is not None)

    @property
    def is_full(self) -> bool:
        """Whether loading another collection would unload one."""
        return self.memory_bytes() >= self.memory_limit_bytes or self._count_open() >= self._max_open

    def drop(self, collection_id: int) -> None:
        """Unload a deleted collection for ever and delete its files; running searches finish with the index they have.

        Later calls for it find nothing: the ids of collections are never used again.
        """
        self._dropped.add(collection_id)
        slot = self._slot(collection_id)
        with slot.lock:
            index, slot.index = slot.index, None
            if index is not None:
                index.discard()
            shutil.rmtree(self._folder(collection_id), ignore_errors=True)
        with self._slots_lock:
            self._slots.pop(collection_id, None)

    def maintain(self) -> None:
        """One round: save changed indexes, release idle writers, unload the least recently used, improve one index."""
        for collection_id, slot in self._present():
            try:
                self._maintain(slot)
            except Exception as error:
                if is_storage_fault(error):
                    logger.warning("collection %d: the disk is full; the index is saved later", collection_id)
                else:
                    logger.exception("collection %d: index maintenance failed; it will be tried again", collection_id)
        self._evict()
        self._improve_one()

    def close(self) -> None:
        """Stop maintenance, save and release all indexes."""
        self._closed = True
        self._wake.set()
        if self._thread is not None:
            self._thread.join()
        for _, slot in self._present():
            with slot.lock:
                index, slot.index = slot.index, None
                if index is not None:
                    index.close()
                    self._prune_log(slot, index)

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait(_MAINTENANCE_INTERVAL_S)
            self._wake.clear()
            if self._closed:
                return
            try:
                self.maintain()
            except Exception:
                logger.exception("index maintenance failed; it will be tried again")

    def _maintain(self, slot: _Slot) -> None:
        index = slot.index
        if index is None:
            return
        if index.is_behind:
            with slot.lock, contextlib.suppress(StorageFull):
                if slot.index is index:  # otherwise it was unloaded, or its collection was deleted
                    index.catch_up()
        if self._wants_snapshot(index):
            index.snapshot()
        self._prune_log(slot, index)
        if self._clock() - slot.written_at > _WRITER_IDLE_S:
            index.release_writer()

    def _prune_log(self, slot: _Slot, index: CollectionIndex) -> None:
        """Remove the log entries that the files of the index cover, if there are new ones."""
        stored = index.stored_seq
        if not self.prunes_log or stored <= slot.pruned_seq:
            return
        try:
            self._source.prune(index.collection_id, stored)
        except (StorageFull, Overloaded, ShuttingDown):
            return  # the next round tries again
        slot.pruned_seq = stored

    def _evict(self) -> None:
        loaded = sorted((slot for _, slot in self._present() if slot.index is not None), key=lambda slot: slot.used_at)
        for slot in loaded[:-1]:
            too_much = self.memory_bytes() > self.memory_limit_bytes or self._count_open() > self._max_open
            if not too_much and not self._is_cold(slot):
                continue
            if slot.lock.acquire(blocking=False):  # a collection in use is not idle
                try:
                    index, slot.index = slot.index, None
                    if index is not None:
                        index.close()
                except Exception:
                    logger.exception("an index could not be saved before it was unloaded; it is built again")
                finally:
                    slot.lock.release()

    def _is_cold(self, slot: _Slot) -> bool:
        index = slot.index
        idle = self._clock() - slot.used_at > _COLD_AFTER_S
        return index is not None and idle and index.memory_bytes <= _COLD_BYTES

    def _count_open(self) -> int:
        return sum(slot.index is not None for _, slot in self._present())

    def _improve_one(self) -> None:
        """Improve one index at a time, in the background on a separate thread, because training takes minutes."""
        if self._improver is not None and self._improver.is_alive():
            return
        indexes = [slot.index for _, slot in self._present()]
        index = next((index for index in indexes if index is not None and index.wants_improvement), None)
        if index is None:
            return
        if self._thread is None:
            self._improve(index)
        else:
            work = self._improve_in_background
            self._improver = threading.Thread(target=work, args=(index,), name="index-improve", daemon=True)
            self._improver.start()

    def _improve_in_background(self, index: CollectionIndex) -> None:
        if sys.platform == "linux":  # threads have priorities there: searches go first
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 15)
        self._improve(index)

    def _improve(self, index: CollectionIndex) -> None:
        try:
            index.improve()
        except Exception:
            logger.exception(
                "collection %d: the index could not be improved; it stays in use as it is", index.collection_id
            )

    def _wants_snapshot(self, index: CollectionIndex) -> bool:
        enough = min(max(_SNAPSHOT_AFTER_PASSAGES, len(index) // 8), _SNAPSHOT_AFTER_PASSAGES_AT_MOST)
        return index.changed >= enough

    def _load(self, slot: _Slot, collection_id: int) -> CollectionIndex:
        """The slot's index, loaded if necessary; the caller holds the slot's lock.

        Raises:
            CollectionNotFound: the collection was deleted.
        """
        if collection_id in self._dropped:
            raise CollectionNotFound("The collection was deleted.", param="collection")
        index = slot.index
        if index is None:
            if self._count_open() >= self._max_open + _OPEN_MARGIN:  # maintenance does not keep up
                self._evict()
            index = slot.index = CollectionIndex(
                self._folder(collection_id), collection_id, self._source, model=self.model, options=self._options
            )
            self._wake.set()
        return index

    def _folder(self, collection_id: int) -> Path:
        return self.root / str(collection_id)

    def _slot(self, collection_id: int) -> _Slot:
        with self._slots_lock:
            return self._slots.setdefault(collection_id, _Slot())

    def _present(self) -> list[tuple[int, _Slot]]:
        with self._slots_lock:
            return list(self._slots.items())
