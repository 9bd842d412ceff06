"""One collection's pair of indexes, vectors and words, kept equal to the rows by replaying their change log.

Owns the folder ``derived/<collection>/``: ``vectors-<generation>/`` snapshots, ``lexical/``, and ``live-*/``
for what IVF keeps on disk while it runs. Each side remembers the
log position it covers, so they may be loaded at different ages. One writer at a time; searches never wait for it.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np

from ragsvc.core.errors import Overloaded
from ragsvc.core.ports import EmbeddingModel, Hits, Ids, IndexChange, IndexSource, Vectors
from ragsvc.index.flat import FlatIndex
from ragsvc.index.halves import Halves
from ragsvc.index.ivf import ImprovementStopped, IvfIndex
from ragsvc.index.lexical import LexicalIndexDamaged, TantivyIndex
from ragsvc.index.snapshot import SnapshotDamaged, begin_snapshot, find_snapshots, finish_snapshot, read_manifest, sync

logger = logging.getLogger(__name__)

VectorSide = FlatIndex | IvfIndex

_CHANGES_PER_BATCH = 256
_PASSAGES_PER_READ = 4096
_NO_HITS = Hits(np.empty(0, np.int64), np.empty(0, np.float32))


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """How indexes are built and searched.

    Up to ``flat_limit`` passages are searched exactly (measured: 3 ms for 100,000 on one core), more of them by IVF,
    with ``short_list`` candidates ranked exactly and up to ``tail_rows`` new passages not yet encoded.
    """

    flat_limit: int = 100_000
    tail_rows: int = 16_384
    short_list: int = 500
    text_weight: float = 1.0
    context_weight: float = 0.5
    max_query_terms: int = 32
    lexical_heap_bytes: int = 32 << 20


class Difference(msgspec.Struct, frozen=True):
    """How one index differs from the rows: counts, and up to 20 ids to look at."""

    missing: int = 0
    ghosts: int = 0
    wrong: int = 0
    examples: list[int] = []


class IndexReport(msgspec.Struct, frozen=True):
    """A collection's indexes held against its rows."""

    collection_id: int
    passages: int
    kind: str
    vectors: Difference
    lexical: Difference

    @property
    def ok(self) -> bool:
        """Whether both hold exactly what the rows hold."""
        sides = (self.vectors, self.lexical)
        return not any(side.missing or side.ghosts or side.wrong for side in sides)


class CollectionIndex:
    """Loads or rebuilds both indexes of a collection on construction, up to the log's head."""

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
        self._snapshot_lock = threading.Lock()  # taken before _lock; syncing files must not hold up writers
        self._improving = threading.Lock()
        self._closed = False
        self._successor: VectorSide | None = None
        self._changed = 0
        for left in folder.glob("live-*"):
            shutil.rmtree(left, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        head = source.head_seq(collection_id)
        self._lexical = self._load_lexical(head)
        self._vectors, self._vector_seq = self._load_vectors(head)
        self.catch_up()

    def __len__(self) -> int:
        return len(self._vectors)

    @property
    def kind(self) -> str:
        """``flat`` or ``ivf``."""
        return self._vectors.kind

    @property
    def covered_seq(self) -> int:
        """The log position both indexes cover."""
        return min(self._vector_seq, self._lexical.covered_seq())

    @property
    def memory_bytes(self) -> int:
        """Bytes held by both indexes."""
        return self._vectors.memory_bytes + self._lexical.memory_bytes

    @property
    def changed(self) -> int:
        """Passages added or removed since the last snapshot of the vectors."""
        return self._changed

    def catch_up(self) -> int:
        """Replay the log to its head; returns how many changes were applied. Costs O(those changes)."""
        applied = 0
        with self._lock:
            while changes := self._source.changes(self.collection_id, self.covered_seq, _CHANGES_PER_BATCH):
                self.apply(changes)
                applied += len(changes)
        return applied

    def apply(self, changes: Sequence[IndexChange]) -> None:
        """Apply consecutive changes to whichever side does not cover them yet; visible together, at the end."""
        with self._lock:
            last = changes[-1].seq
            self._apply_lexical([change for change in changes if change.seq > self._lexical.covered_seq()], last)
            self._apply_vectors([change for change in changes if change.seq > self._vector_seq], last)

    def search_dense(self, query: Vectors, *, k: int, documents: Ids | None = None) -> Hits:
        """Nearest passages to ``query`` ``(dim,)``, cosine in -1..1."""
        return self._vectors.search(query, k=k, documents=documents)

    def search_lexical(self, query: str, *, k: int, documents: Ids | None = None) -> Hits:
        """Best passages by BM25."""
        return self._lexical.search(query, k=k, documents=documents)

    def search(
        self, query_vector: Vectors | None, query_text: str | None, *, k: int, documents: Ids | None = None
    ) -> tuple[Hits, Hits]:
        """Both sides; the one whose query is ``None`` finds nothing."""
        dense = _NO_HITS if query_vector is None else self.search_dense(query_vector, k=k, documents=documents)
        lexical = _NO_HITS if query_text is None else self.search_lexical(query_text, k=k, documents=documents)
        return dense, lexical

    def vectors(self, ids: Ids) -> Vectors:
        """The stored vectors, in that order (missing ids raise ``KeyError``)."""
        return self._vectors.vectors(ids)

    def snapshot(self) -> None:
        """Write the vectors to disk as of now; the words are on disk with every commit."""
        with self._snapshot_lock:
            with self._lock:
                changed = self._changed
                if not changed and next(find_snapshots(self.folder), None) is not None:
                    return
                index, covered = self._vectors, self._vector_seq
                writing = begin_snapshot(self.folder)
                index.save(writing)
            rows = (writing / "ids.i64").stat().st_size // 8
            sizes = {"vectors.f16": rows * 2 * self.model.dimension}
            finish_snapshot(writing, index, model=self.model.fingerprint, covered_seq=covered, sizes=sizes)
            with self._lock:
                self._changed -= changed

    @property
    def wants_improvement(self) -> bool:
        """Whether ``improve`` has something to do."""
        index = self._vectors
        if isinstance(index, FlatIndex):
            return len(index) > self.options.flat_limit
        return index.wants_improvement or index.wants_rewrite

    def improve(self) -> None:
        """Fit the vector index to its size: flat to IVF, train, encode, merge; slow, and searches go on meanwhile."""
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
        """Give back what only writing needs."""
        with self._lock:
            self._lexical.release_writer()

    def close(self) -> None:
        """Write a snapshot if anything changed and release everything."""
        self._stop()
        self.snapshot()
        with self._lock:
            self._lexical.close()
            _remove_workspace(self._vectors)

    def discard(self) -> None:
        """Release everything and save nothing: the collection is going away."""
        self._stop()
        with self._snapshot_lock, self._lock:
            self._lexical.close()
            _remove_workspace(self._vectors)

    def verify(self) -> IndexReport:
        """Compare ids, documents and vectors of both indexes with the rows, at one log position.

        Raises:
            Overloaded: documents come or go faster than the comparison.
        """
        with self._lock:
            for _ in range(5):
                self.catch_up()
                report = self._compare()
                if self._source.head_seq(self.collection_id) == self.covered_seq:
                    return report
            raise Overloaded("the collection changes faster than it can be compared", retry_after_s=10)

    def _stop(self) -> None:
        self._closed = True
        for index in (self._vectors, self._successor):
            if isinstance(index, IvfIndex):
                index.stop_improving()

    def _replace(self, index: VectorSide) -> None:
        """Build another index of the same rows beside this one, then let it take over with what came since."""
        successor = self._empty_vectors(len(index))
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
                new = np.setdiff1d(now, before)
                successor.add(new, *index.lookup(new))
                self._vectors, left = successor, index
                self._changed += len(now)
        finally:
            self._successor = None
            _remove_workspace(left)

    def _empty_vectors(self, count: int) -> VectorSide:
        """An index fit for ``count`` vectors."""
        if count <= self.options.flat_limit:
            return FlatIndex(self.model.dimension)
        tail_rows, short_list = self.options.tail_rows, self.options.short_list
        return IvfIndex(self.model.dimension, self._workspace(), tail_rows=tail_rows, short_list=short_list)

    def _workspace(self) -> Path:
        """A folder for a growing index; it goes at the next start."""
        return Path(tempfile.mkdtemp(prefix="live-", dir=self.folder))

    def _compare(self) -> IndexReport:
        expected = np.sort(self._source.all_passage_ids(self.collection_id))
        vectors = _difference(expected, self._vectors.ids())
        wrong = self._wrong_vectors(np.intersect1d(expected, self._vectors.ids()))
        examples = [*vectors.examples, *wrong][:20]
        vectors = msgspec.structs.replace(vectors, wrong=len(wrong), examples=examples)
        lexical = _difference(expected, self._lexical.ids())
        return IndexReport(self.collection_id, len(expected), self.kind, vectors, lexical)

    def _wrong_vectors(self, ids: Ids) -> list[int]:
        wrong: list[int] = []
        for start in range(0, len(ids), _PASSAGES_PER_READ):
            found, documents, expected = self._source.vectors(
                self.collection_id, ids[start : start + _PASSAGES_PER_READ]
            )
            stored_documents, stored = self._vectors.lookup(found)
            differs = (stored != expected.astype(np.float16)).any(axis=1) | (stored_documents != documents)
            wrong.extend(found[differs].tolist())
        return wrong

    def _apply_lexical(self, changes: Sequence[IndexChange], covered_seq: int) -> None:
        if not changes:
            return
        added, removed = _net(changes)
        try:
            self._lexical.remove(removed)
            self._add_texts(self._lexical, added)
            self._lexical.commit(covered_seq=covered_seq)
        except BaseException:
            self._lexical.release_writer()  # a later commit must not carry half of this one
            raise

    def _add_texts(self, index: TantivyIndex, ids: Ids) -> None:
        for start in range(0, len(ids), _PASSAGES_PER_READ):
            index.add(self._source.lexical(self.collection_id, ids[start : start + _PASSAGES_PER_READ]))

    def _apply_vectors(self, changes: Sequence[IndexChange], covered_seq: int) -> None:
        if not changes:
            return
        added, removed = _net(changes)
        ids, documents, vectors = self._read_vectors(added)
        self._vectors.remove(removed)
        self._vectors.add(ids, documents, vectors)
        self._vector_seq = covered_seq
        self._changed += len(added) + len(removed)

    def _read_vectors(self, ids: Ids) -> tuple[Ids, Ids, Halves]:
        """Read in slices, so that float32 rows of a huge document never stand in memory at once."""
        parts = [
            self._source.vectors(self.collection_id, ids[start : start + _PASSAGES_PER_READ])
            for start in range(0, max(1, len(ids)), _PASSAGES_PER_READ)
        ]
        halves = [part[2].astype(np.float16).reshape(-1, self.model.dimension) for part in parts]
        return np.concatenate([p[0] for p in parts]), np.concatenate([p[1] for p in parts]), np.concatenate(halves)

    def _load_vectors(self, head: int) -> tuple[VectorSide, int]:
        for folder in find_snapshots(self.folder):
            try:
                manifest = read_manifest(folder)
                if manifest.model == self.model.fingerprint and manifest.covered_seq <= head:
                    return self._read_vector_index(folder, manifest.kind), manifest.covered_seq
                problem = "it belongs to another model or another history"
            except (SnapshotDamaged, ValueError, OSError) as error:
                problem = str(error)
            logger.warning("collection %d: vector snapshot %s not used: %s", self.collection_id, folder.name, problem)
            shutil.rmtree(folder, ignore_errors=True)
        return self._rebuild_vectors(head)

    def _read_vector_index(self, folder: Path, kind: str) -> VectorSide:
        if kind == FlatIndex.kind:
            return FlatIndex.load(folder, self.model.dimension)
        index = IvfIndex.load(folder, self.model.dimension, self._workspace())
        index.tail_rows, index.short_list = self.options.tail_rows, self.options.short_list
        return index

    def _rebuild_vectors(self, head: int) -> tuple[VectorSide, int]:
        """From the rows as of ``head`` or later; the replay after ``head`` repeats what is there already."""
        ids = self._source.all_passage_ids(self.collection_id)
        index = self._empty_vectors(len(ids))
        for start in range(0, len(ids), _PASSAGES_PER_READ):
            index.add(*self._read_vectors(ids[start : start + _PASSAGES_PER_READ]))
        self._changed += len(ids)
        return index, head

    def _load_lexical(self, head: int) -> TantivyIndex:
        folder = self.folder / "lexical"
        if folder.exists():
            try:
                index = self._open_lexical(folder)
                if index.covered_seq() <= head:
                    return index
                problem = "it is ahead of the rows"
            except LexicalIndexDamaged as error:
                problem = str(error)
            logger.warning("collection %d: lexical index not used: %s", self.collection_id, problem)
        return self._rebuild_lexical(head)

    def _rebuild_lexical(self, head: int) -> TantivyIndex:
        """Build beside the old one, then take its place: an interruption leaves no half-built index."""
        building, final = self.folder / "lexical-building", self.folder / "lexical"
        shutil.rmtree(building, ignore_errors=True)
        index = self._open_lexical(building)
        self._add_texts(index, self._source.all_passage_ids(self.collection_id))
        index.commit(covered_seq=head)
        index.close()
        shutil.rmtree(final, ignore_errors=True)
        building.rename(final)
        sync(self.folder)
        return self._open_lexical(final)

    def _open_lexical(self, folder: Path) -> TantivyIndex:
        return TantivyIndex(
            folder,
            text_weight=self.options.text_weight,
            context_weight=self.options.context_weight,
            max_query_terms=self.options.max_query_terms,
            heap_bytes=self.options.lexical_heap_bytes,
        )


def _remove_workspace(index: VectorSide) -> None:
    """Delete what an index kept on disk while it ran; searches under way keep their mapping."""
    if isinstance(index, IvfIndex):
        shutil.rmtree(index.workspace, ignore_errors=True)


def _net(changes: Sequence[IndexChange]) -> tuple[Ids, Ids]:
    """Ids to add and ids to remove, when the last word on each id counts."""
    last: dict[int, bool] = {}
    for change in changes:
        last.update(dict.fromkeys(change.ids().tolist(), change.op == "add"))
    added = np.array([passage for passage, stays in last.items() if stays], dtype=np.int64)
    removed = np.array([passage for passage, stays in last.items() if not stays], dtype=np.int64)
    return added, removed


def _difference(expected: Ids, found: Ids) -> Difference:
    missing, ghosts = np.setdiff1d(expected, found), np.setdiff1d(found, expected)
    return Difference(len(missing), len(ghosts), 0, [*missing[:10].tolist(), *ghosts[:10].tolist()])
