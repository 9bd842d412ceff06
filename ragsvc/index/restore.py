"""Opens a collection's indexes from the files on disk if these are valid, otherwise from the rows.

Owns the layout of ``derived/<collection>/``: ``vectors-<generation>/`` for snapshots, ``lexical/``, and ``live-*/`` for
the files of a running IVF index. Takes no locks.
"""

from __future__ import annotations

import logging
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ragsvc.core.ports.embedding import EmbeddingModel
from ragsvc.core.ports.indexes import Ids, IndexSource
from ragsvc.index.flat import FlatIndex
from ragsvc.index.float16_scan import Float16Rows
from ragsvc.index.ivf import IvfIndex
from ragsvc.index.lexical import LexicalIndexDamaged, TantivyIndex
from ragsvc.index.snapshot import SnapshotDamaged, find_snapshots, read_manifest, sync

logger = logging.getLogger(__name__)

VectorSide = FlatIndex | IvfIndex

_PASSAGES_PER_READ = 4096


@dataclass(frozen=True, slots=True)
class IndexOptions:
    """How indexes are built and searched.

    Up to ``flat_limit`` passages are searched exactly (measured: 2 ms for 60,000 on one core), larger collections by
    IVF, with ``short_list`` candidates ranked exactly and up to ``tail_rows`` new passages not yet encoded.
    The log is replayed in commits of at most ``batch_passages``, or of one entry if it has more.
    """

    flat_limit: int = 60_000
    tail_rows: int = 16_384
    short_list: int = 500
    text_weight: float = 1.0
    context_weight: float = 0.15
    max_query_terms: int = 32
    lexical_heap_bytes: int = 32 << 20
    batch_passages: int = 16_384


@dataclass(frozen=True, slots=True)
class RestoredVectors:
    """A vector index, the log position it covers, and how many of its passages are in no snapshot."""

    index: VectorSide
    covered_seq: int
    unsaved: int


@dataclass(frozen=True, slots=True)
class CollectionFiles:
    """A collection's folder, and the rows and model from which its indexes are built."""

    folder: Path
    collection_id: int
    source: IndexSource
    model: EmbeddingModel
    options: IndexOptions

    def prepare(self) -> None:
        """Create the folder, and remove temporary files of a killed process."""
        for left in (*self.folder.glob("live-*"), self.folder / "lexical-building"):
            shutil.rmtree(left, ignore_errors=True)
        self.folder.mkdir(parents=True, exist_ok=True)

    def load_vectors(self, head: int) -> RestoredVectors:
        """The newest snapshot that is valid, of this model and not ahead of ``head``; otherwise a new index."""
        for folder in find_snapshots(self.folder):
            try:
                manifest = read_manifest(folder)
                if manifest.model == self.model.fingerprint and manifest.covered_seq <= head:
                    return RestoredVectors(self._read_vector_index(folder, manifest.kind), manifest.covered_seq, 0)
                problem = "it was made for another model, or is ahead of the rows"
            except (SnapshotDamaged, ValueError, OSError) as error:
                problem = str(error)
            logger.warning("collection %d: vector snapshot %s not used: %s", self.collection_id, folder.name, problem)
            shutil.rmtree(folder, ignore_errors=True)
        return self.rebuild_vectors(head)

    def _read_vector_index(self, folder: Path, kind: str) -> VectorSide:
        if kind == FlatIndex.kind:
            return FlatIndex.load(folder, self.model.dimension)
        index = IvfIndex.load(folder, self.model.dimension, self._workspace())
        index.tail_rows, index.short_list = self.options.tail_rows, self.options.short_list
        return index

    def rebuild_vectors(self, head: int) -> RestoredVectors:
        """Build from the rows, which may be newer than ``head``; replaying the log after ``head`` is then harmless."""
        ids = self.source.all_passage_ids(self.collection_id)
        index = self.empty_vectors(len(ids))
        for start in range(0, len(ids), _PASSAGES_PER_READ):
            index.add(*self.read_vectors(ids[start : start + _PASSAGES_PER_READ]))
        return RestoredVectors(index, head, len(ids))

    def load_lexical(self, head: int) -> TantivyIndex:
        """The index on disk if it is readable and not ahead of ``head``; otherwise a new index."""
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
        return self.rebuild_lexical(head)

    def rebuild_lexical(self, head: int) -> TantivyIndex:
        """Build in a temporary folder and rename it, so an interruption leaves no incomplete index."""
        building, final = self.folder / "lexical-building", self.folder / "lexical"
        shutil.rmtree(building, ignore_errors=True)
        index = self._open_lexical(building)
        self.add_texts(index, self.source.all_passage_ids(self.collection_id))
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

    def empty_vectors(self, count: int) -> VectorSide:
        """An empty index of the kind for ``count`` vectors."""
        if count <= self.options.flat_limit:
            return FlatIndex(self.model.dimension)
        tail_rows, short_list = self.options.tail_rows, self.options.short_list
        return IvfIndex(self.model.dimension, self._workspace(), tail_rows=tail_rows, short_list=short_list)

    def _workspace(self) -> Path:
        """A folder for the files of a running index; the next start removes it."""
        return Path(tempfile.mkdtemp(prefix="live-", dir=self.folder))

    def add_texts(self, index: TantivyIndex, ids: Ids) -> None:
        """Add the texts of passages, reading them in slices."""
        for start in range(0, len(ids), _PASSAGES_PER_READ):
            index.add(self.source.lexical(self.collection_id, ids[start : start + _PASSAGES_PER_READ]))

    def read_vectors(self, ids: Ids) -> tuple[Ids, Ids, Float16Rows]:
        """Ids, documents and vectors, read in slices to bound the float32 rows in memory."""
        parts = [
            self.source.vectors(self.collection_id, ids[start : start + _PASSAGES_PER_READ])
            for start in range(0, max(1, len(ids)), _PASSAGES_PER_READ)
        ]
        halves = [part[2].astype(np.float16).reshape(-1, self.model.dimension) for part in parts]
        return (
            np.concatenate([part[0] for part in parts]),
            np.concatenate([part[1] for part in parts]),
            np.concatenate(halves),
        )


def remove_workspace(index: VectorSide) -> None:
    """Delete the files of a running index; running searches keep their mapping."""
    if isinstance(index, IvfIndex):
        shutil.rmtree(index.workspace, ignore_errors=True)
