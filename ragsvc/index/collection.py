"""The vector index and the word index of one collection, kept equal to the rows by replaying the index log.

Each index stores the log position that it covers, so the two may be loaded from different states. There is one writer
at a time, and searches never wait for it.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import numpy.typing as npt

from ragsvc.core.errors import Overloaded, StorageFull
from ragsvc.core.ports.embedding import EmbeddingModel, Vectors
from ragsvc.core.ports.indexes import DocumentJudgement, Hits, Ids, IndexChange, IndexSource, LogPruned
from ragsvc.core.storage_faults import is_storage_fault
from ragsvc.index.comparison import IndexReport, compare
from ragsvc.index.document_cards import DocumentCards
from ragsvc.index.flat import FlatIndex
from ragsvc.index.float16_scan import Float16Rows
from ragsvc.index.ivf import ImprovementStopped, IvfIndex
from ragsvc.index.restore import CollectionFiles, IndexOptions, VectorSide, remove_workspace
from ragsvc.index.snapshot import begin_snapshot, find_snapshots, finish_snapshot

logger = logging.getLogger(__name__)

_CHANGES_PER_BATCH = 256
_NO_HITS = Hits(np.empty(0, np.int64), np.empty(0, np.float32))


class CollectionIndex:
    """Both indexes of a collection; the constructor loads or rebuilds them up to the end of the log."""

    def __init__(
        self,
        folder: Path,
        collection_id: int,
        source: IndexSource,
        *,
        model: EmbeddingModel,
        options: IndexOptions,
    ) -> None:
        self.folder = folder
        self.collection_id = collection_id
        self.model = model
        self.options = options
        self._source = source
        self._lock = threading.RLock()
        self._snapshot_lock = threading.Lock()  # acquired before _lock; syncing files must not block writers
        self._improving = threading.Lock()
        self._closed = False
        self._successor: VectorSide | None = None
        self._written_beside_successor: list[Ids] = []  # ids that were added or replaced since the successor was begun
        self._files = CollectionFiles(folder, collection_id, source, model, options)
        self._files.prepare()
        head = source.head_seq(collection_id)
        self._lexical = self._files.load_lexical(head)
        restored = self._files.load_vectors(head)
        self._vectors, self._vector_seq, self._changed = restored.index, restored.covered_seq, restored.unsaved
        self._saved_seq = 0 if restored.unsaved else restored.covered_seq
        self._cards: DocumentCards | None = None
        self.is_behind = False
        """Whether the disk was too full to follow the log to its end; ``catch_up`` tries again."""
        try:
            self._catch_up_or_rebuild()
        except StorageFull as error:
            logger.warning("collection %d: loaded without its latest changes: %s", collection_id, error.message)

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def kind(self) -> str:
        """``flat`` or ``ivf``."""
        return self._vectors.kind

    @property
    def covered_seq(self) -> int:
        """The log position that both indexes cover."""
        return min(self._vector_seq, self._lexical.covered_seq())

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory of both indexes."""
        cards = 0 if self._cards is None else self._cards.memory_bytes
        return self._vectors.memory_bytes + self._lexical.memory_bytes + cards

    @property
    def changed(self) -> int:
        """Passages added or removed since the last snapshot of the vectors."""
        return self._changed

    @property
    def stored_seq(self) -> int:
        """The log position that the files of both indexes cover: a start needs no earlier entries of the log."""
        return min(self._saved_seq, self._lexical.committed_seq())

    def _catch_up_or_rebuild(self) -> None:
        """Follow the log; build both indexes from the rows if it no longer goes back to their position."""
        try:
            self.catch_up()
        except LogPruned:
            logger.warning("collection %d: the log was pruned; the indexes are built again", self.collection_id)
            head = self._source.head_seq(self.collection_id)
            self._lexical.close()
            remove_workspace(self._vectors)
            self._lexical = self._files.rebuild_lexical(head)
            restored = self._files.rebuild_vectors(head)
            self._vectors, self._vector_seq, self._changed = restored.index, head, restored.unsaved
            self._saved_seq = 0
            self.catch_up()

    def catch_up(self) -> int:
        """Replay the log to its end; returns how many changes were applied. Costs O(changes).

        Raises:
            StorageFull: the disk is full. The index stays usable; changes that need no disk were applied, so that new
                passages are found by their vectors.
        """
        applied = 0
        failure: StorageFull | None = None
        with self._lock:
            self.is_behind = True
            position = self.covered_seq
            while changes := self._source.changes(self.collection_id, position, _CHANGES_PER_BATCH):
                batch = _first_batch(changes, self.options.batch_passages)
                try:
                    self.apply(batch, words=failure is None)
                except StorageFull as error:
                    failure = error
                position = batch[-1].seq
                applied += len(batch)
            if failure is not None:
                raise failure
            self.is_behind = False
        return applied

    def apply(self, changes: Sequence[IndexChange], *, words: bool = True) -> None:
        """Apply consecutive changes to each index that does not cover them yet; both become visible at the end.

        Each index then equals the rows: the vector index loses passages that have no vector there.

        With ``words=False`` the word index is not changed; the next call without it has to begin where that one is.
        """
        with self._lock:
            last = changes[-1].seq
            present, removed = _net([change for change in changes if change.seq > self._vector_seq])
            # read before the words become visible, so that both become visible within a moment
            ids, documents, vectors = self._files.read_vectors(present)
            differs = self._differs(ids, documents, vectors)
            without = np.setdiff1d(present, ids)
            removed = np.concatenate((removed, without[self._vectors.documents_of(without) >= 0]))
            failure: StorageFull | None = None
            if words:
                try:
                    self._apply_lexical(
                        [change for change in changes if change.seq > self._lexical.covered_seq()], last
                    )
                except StorageFull as error:
                    failure = error
            with _full_disk():
                self._vectors.add(ids[differs], documents[differs], vectors[differs])
            self._vectors.remove(removed)
            if self._successor is not None:
                self._written_beside_successor.append(ids[differs])
            self._vector_seq = max(self._vector_seq, last)
            self._changed += int(differs.sum()) + len(removed)
            self._refresh_cards(changes)
            if failure is not None:
                raise failure

    def _differs(self, ids: Ids, documents: Ids, vectors: Float16Rows) -> npt.NDArray[np.bool_]:
        """Which rows differ from those in the vector index; replacing an equal row would leave a removed row behind."""
        differs = np.ones(len(ids), np.bool_)
        held = np.flatnonzero(self._vectors.documents_of(ids) >= 0)
        if len(held):
            held_documents, held_vectors = self._vectors.lookup(ids[held])
            differs[held] = (held_documents != documents[held]) | (held_vectors != vectors[held]).any(axis=1)
        return differs

    def search_dense(self, query: Vectors, *, k: int, documents: Ids | None = None) -> Hits:
        """Nearest passages to ``query`` ``(dim,)``, cosine in -1..1."""
        return self._vectors.search(query, k=k, documents=documents)

    def search_lexical(self, query: str, *, k: int, documents: Ids | None = None) -> Hits:
        """Best passages by BM25."""
        return self._lexical.search(query, k=k, documents=documents)

    def search(
        self, query_vector: Vectors | None, query_text: str | None, *, k: int, documents: Ids | None = None
    ) -> tuple[Hits, Hits]:
        """Dense and lexical hits; a query that is ``None`` has none."""
        dense = _NO_HITS if query_vector is None else self.search_dense(query_vector, k=k, documents=documents)
        lexical = _NO_HITS if query_text is None else self.search_lexical(query_text, k=k, documents=documents)
        return dense, lexical

    def judge_documents(self, question: str, *, documents: Ids | None = None) -> DocumentJudgement:
        """Which documents the question names; the first call reads the cards of all documents."""
        return self.cards().judge(question, documents)

    @property
    def has_cards(self) -> bool:
        return self._cards is not None

    def cards(self) -> DocumentCards:
        """The cards of the documents. They are read from the rows once and then follow the index log."""
        if self._cards is None:
            with self._lock:
                if self._cards is None:
                    self._cards = DocumentCards(self._source.cards(self.collection_id))
        return self._cards

    def ids(self) -> Ids:
        """Ids of all passages, ascending."""
        return self._vectors.ids()

    def documents_of(self, ids: Ids) -> Ids:
        """The document of each passage, -1 for an unknown id; passages without vectors are looked up by their words."""
        documents = self._vectors.documents_of(ids)
        unknown = np.flatnonzero(documents < 0)
        if len(unknown):
            documents[unknown] = self._lexical.documents_of(ids[unknown])
        return documents

    def vectors(self, ids: Ids) -> Vectors:
        """The stored vectors of ``ids``, in this order; an unknown id raises ``KeyError``."""
        return self._vectors.vectors(ids)

    def present_vectors(self, ids: Ids) -> tuple[Ids, Vectors]:
        """Those of ``ids`` that have vectors, and these in the same order."""
        while True:
            try:
                return ids, self._vectors.vectors(ids)
            except KeyError:  # not embedded yet, or deleted since the search
                ids = ids[self._vectors.documents_of(ids) >= 0]

    def snapshot(self) -> None:
        """Write the present vectors to disk; the word index is on disk after every commit.

        A closed index writes nothing: its folder belongs to a newer index, or to a collection that was deleted.
        """
        with self._snapshot_lock:
            if not self._closed:
                self._save()

    def _save(self) -> None:
        """As ``snapshot``, for a caller that holds the lock of snapshots."""
        with self._lock:
            changed = self._changed
            if not changed and next(find_snapshots(self.folder), None) is not None:
                return
            index, covered = self._vectors, self._vector_seq
            writing = begin_snapshot(self.folder)
            with _removed_if_it_fails(writing):
                index.save(writing)
        rows = (writing / "ids.i64").stat().st_size // 8
        sizes = {"vectors.f16": rows * 2 * self.model.dimension}
        with _removed_if_it_fails(writing):
            finish_snapshot(writing, index, model=self.model.fingerprint, covered_seq=covered, sizes=sizes)
        with self._lock:
            self._changed -= changed
            self._saved_seq = covered

    @property
    def wants_improvement(self) -> bool:
        """Whether ``improve`` has something to do."""
        index = self._vectors
        if isinstance(index, FlatIndex):
            return len(index) > self.options.flat_limit
        return index.wants_improvement or index.wants_rewrite

    def improve(self) -> None:
        """Fit the vector index to its size: flat to IVF, train, encode, merge. Slow; searches continue meanwhile."""
        with self._improving:
            index = self._vectors
            if self._closed or not self.wants_improvement:
                return
            try:
                if isinstance(index, FlatIndex) or index.wants_rewrite:
                    self._replace(index)
                else:
                    index.improve()
                    with self._lock:
                        self._changed += 1  # so that the next snapshot is not skipped
            except ImprovementStopped:
                logger.info("collection %d: unloaded while its index was being improved", self.collection_id)

    def release_writer(self) -> None:
        """Release memory and threads that only writing needs."""
        with self._lock:
            self._lexical.release_writer()

    def close(self) -> None:
        """Write a snapshot if the vectors changed, and release all resources."""
        self._stop()
        try:
            with self._snapshot_lock:
                self._save()
        except Exception as error:
            if not is_storage_fault(error):
                raise
            logger.warning("collection %d: the disk is full; vectors are read from the rows again", self.collection_id)
        with self._lock:
            self._lexical.close()
            remove_workspace(self._vectors)

    def discard(self) -> None:
        """Release all resources without saving, because the collection is removed."""
        self._stop()
        with self._snapshot_lock, self._lock:
            self._lexical.close()
            remove_workspace(self._vectors)

    def verify(self) -> IndexReport:
        """Compare ids, documents and vectors of both indexes with the rows, at one log position.

        Raises:
            Overloaded: the collection changes faster than it can be compared.
        """
        with self._lock:
            for _ in range(5):
                self.catch_up()
                report = compare(self.collection_id, self._source, self._vectors, self._lexical)
                if self._source.head_seq(self.collection_id) == self.covered_seq:
                    return report
            raise Overloaded("The collection changes faster than it can be compared.", retry_after_s=10)

    def _stop(self) -> None:
        self._closed = True
        for index in (self._vectors, self._successor):
            if isinstance(index, IvfIndex):
                index.stop_improving()

    def _replace(self, index: VectorSide) -> None:
        """Build a new index of the same rows, add the changes made meanwhile, then let it replace ``index``."""
        successor = self._files.empty_vectors(len(index))
        self._written_beside_successor = []
        self._successor = successor
        left: VectorSide = successor
        try:
            index.copy_to(successor)
            if isinstance(successor, IvfIndex):
                successor.improve()
            with self._lock:
                if self._closed:
                    raise ImprovementStopped
                before, now = successor.ids(), index.ids()
                successor.remove(np.setdiff1d(before, now))
                written = np.intersect1d(now, np.concatenate([now[:0], *self._written_beside_successor]))
                missed = np.union1d(np.setdiff1d(now, before), written)
                successor.add(missed, *index.lookup(missed))
                self._vectors, left = successor, index
                self._changed += len(now)
        finally:
            self._successor = None
            self._written_beside_successor = []
            remove_workspace(left)

    def _refresh_cards(self, changes: Sequence[IndexChange]) -> None:
        """Read the cards of the changed documents again; deleted documents have none."""
        if self._cards is None:
            return
        changed = sorted({change.document_id for change in changes if change.op != "reembed"})
        if changed:
            self._cards.replace(changed, self._source.cards(self.collection_id, changed))

    def _apply_lexical(self, changes: Sequence[IndexChange], covered_seq: int) -> None:
        if not changes:
            return
        of_words = [change for change in changes if change.op != "reembed"]
        if not of_words:  # a commit writes files, and its marker counts as a passage in the scores
            self._lexical.advance(covered_seq)
            return
        present, removed = _net(of_words)
        try:
            self._lexical.remove(removed)
            self._files.add_texts(self._lexical, present)
            self._lexical.commit(covered_seq=covered_seq)
        except BaseException:
            self._lexical.release_writer()  # a later commit must not contain half of these changes
            raise


@contextmanager
def _removed_if_it_fails(folder: Path) -> Generator[None]:
    """Remove an unfinished snapshot: it may have filled the disk."""
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


@contextmanager
def _full_disk() -> Generator[None]:
    try:
        yield
    except OSError as error:
        if is_storage_fault(error):
            raise StorageFull("The disk is full. The vector index does not have the latest changes yet.") from error
        raise


def _first_batch(changes: list[IndexChange], passages: int) -> list[IndexChange]:
    """As many changes as have at most ``passages`` passages together, at least one: this bounds memory."""
    totals = np.cumsum([len(change.passage_ids) // 8 for change in changes])
    return changes[: max(1, int(np.searchsorted(totals, passages, side="right")))]


def _net(changes: Sequence[IndexChange]) -> tuple[Ids, Ids]:
    """Ids to read again and ids to remove; the last change of each id counts."""
    last: dict[int, bool] = {}
    for change in changes:
        last.update(dict.fromkeys(change.ids().tolist(), change.op != "delete"))
    present = np.array([passage for passage, stays in last.items() if stays], dtype=np.int64)
    removed = np.array([passage for passage, stays in last.items() if not stays], dtype=np.int64)
    return present, removed
