"""Nearest-neighbour search in large collections: codes in memory give a short list, exact vectors on disk rank it.

Rows are appended to a mapped float16 file. The newest rows, the tail, are searched exactly. A background call of
``improve`` encodes the tail into an immutable segment, merges segments, and retrains the codec when the collection has
outgrown the training set; each result is published by swapping one reference. Removed rows become tombstones.
"""

from __future__ import annotations

import itertools
import shutil
import threading
import time
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import msgspec
import numpy as np

from ragsvc.core.ports.embedding import Scores, Vectors
from ragsvc.core.ports.indexes import Hits, Ids
from ragsvc.index.flat import CopyableVectors
from ragsvc.index.float16_scan import Bits, Float16Rows, nearest
from ragsvc.index.product_codes import (
    CodedSegment,
    ProductCodec,
    candidates,
    codec_of,
    encode,
    load_segment,
    train_codec,
)
from ragsvc.index.row_table import LiveRows, RowTable
from ragsvc.index.vector_file import RowFile, share_file

_SEGMENTS_PER_TIER = 4
_MAX_SEGMENTS = 12
_OUTGROWN = 4
_TRAINABLE = 64
_PAUSE_S = 0.002


class _Saved(msgspec.Struct, frozen=True):
    """The segments of a snapshot as (start, end), in order."""

    trained_on: int
    segments: list[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class _IvfState:
    """An immutable state: rows before ``encoded`` have codes, later rows are searched exactly."""

    rows: LiveRows
    vectors: Float16Rows
    codec: ProductCodec | None
    segments: tuple[CodedSegment, ...]

    @property
    def encoded(self) -> int:
        """The first row without a code; a multiple of 8."""
        return self.segments[-1].end if self.segments else 0


class ImprovementStopped(Exception):
    """The index was unloaded during ``improve``. Not raised outside this package."""


class IvfIndex:
    """Approximate search with exact scores: IVF over product codes, re-ranked from float16 rows.

    ``workspace`` is a folder for the growing row file and the segments; nothing else may use it. ``improve`` encodes
    the tail when it has ``tail_rows`` rows. For small ``k``, ``short_list`` candidates are ranked exactly. A search
    restricted to documents with at most ``exact_selection`` passages is exact.
    """

    kind = "ivf"

    def __init__(
        self,
        dimension: int,
        workspace: Path,
        *,
        tail_rows: int = 16_384,
        short_list: int = 500,
        min_train: int = 4096,
        exact_selection: int = 32_768,
    ) -> None:
        shutil.rmtree(workspace, ignore_errors=True)
        workspace.mkdir(parents=True)
        self.dimension = dimension
        self.workspace = workspace
        self.tail_rows = tail_rows
        self.short_list = short_list
        self.min_train = min_train
        self.exact_selection = exact_selection
        self._writer = threading.Lock()
        self._improving = threading.Lock()
        self._stopped = False
        self._segment_numbers = itertools.count()
        self._file = RowFile(workspace / "vectors.f16", dimension)
        self._table = RowTable()
        self._state = _IvfState(self._table.rows(), self._file.view(), None, ())

    def __len__(self) -> int:
        return self._state.rows.live

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory for codes, ids and tombstones; the vectors are on disk."""
        state = self._state
        codes = sum(segment.memory_bytes for segment in state.segments)
        return self._table.memory_bytes + codes + (state.codec.memory_bytes if state.codec else 0)

    def ids(self) -> Ids:
        rows = self._state.rows
        return np.sort(rows.ids[rows.live_rows()])

    def add(self, ids: Ids, documents: Ids, vectors: Vectors | Float16Rows) -> None:
        """Append vectors; an id that is present is replaced."""
        if not len(ids):
            return
        with self._writer:
            self._file.append(vectors.astype(np.float16))
            self._table.discard(ids)
            self._table.append(ids, documents)
            self._publish()

    def remove(self, ids: Ids) -> int:
        """Mark vectors as removed; ``wants_rewrite`` is true when so many are that the index should be rebuilt."""
        with self._writer:
            removed = self._table.discard(ids)
            self._publish()
            return removed

    def search(self, query: Vectors, *, k: int, documents: Ids | None = None) -> Hits:
        """The ``k`` nearest, exact within small selections of documents; scores are always exact."""
        state = self._state
        if documents is None:
            found = self._search(state, query, k, state.rows.alive if state.rows.dead else None, state.rows.live)
        else:
            chosen = state.rows.select(documents)
            if chosen.count <= self.exact_selection or not state.segments:
                window = state.vectors[chosen.start : chosen.end]
                scores, rows = nearest(window, query, min(k, chosen.count), chosen.bits)
                self._file.touched(min(chosen.count * 1 << 13, window.nbytes))
                found = scores, rows + chosen.start
            else:
                bits = np.zeros(len(state.rows.alive), np.uint8)
                bits[chosen.start // 8 : chosen.start // 8 + len(chosen.bits)] = chosen.bits
                found = self._search(state, query, k, bits, chosen.count)
        scores, rows = found
        ids = state.rows.ids[rows]
        order = np.lexsort((ids, -scores))[:k]
        return Hits(ids[order], scores[order])

    def vectors(self, ids: Ids) -> Vectors:
        """The stored vectors of ``ids``, in this order; an unknown id raises ``KeyError``."""
        return self.lookup(ids)[1].astype(np.float32)

    def documents_of(self, ids: Ids) -> Ids:
        """The document of each id, -1 for an unknown id."""
        with self._writer:
            return self._table.documents_of(ids)

    def lookup(self, ids: Ids) -> tuple[Ids, Float16Rows]:
        """Documents and float16 vectors of ``ids``, in this order; an unknown id raises ``KeyError``."""
        with self._writer:
            rows, state = self._table.find(ids), self._state
        if (rows < 0).any():
            raise KeyError(int(ids[rows < 0][0]))
        return state.rows.documents_of(rows), self._file.take(state.vectors, rows)

    @property
    def wants_improvement(self) -> bool:
        """Whether ``improve`` has something to do."""
        state = self._state
        if state.codec is None:
            return len(state.rows) >= self.min_train
        outgrown = len(state.rows) > _OUTGROWN * state.codec.trained_on
        return outgrown or len(state.rows) - state.encoded >= self.tail_rows

    @property
    def wants_rewrite(self) -> bool:
        """Whether more than a third of the rows are removed."""
        rows = self._state.rows
        return rows.dead > max(self.tail_rows, len(rows) // 3)

    def improve(self) -> None:
        """Train or retrain, encode the tail, merge segments. Slow; readers and the writer continue meanwhile."""
        with self._improving:
            state = self._state
            end = len(state.rows) & ~7
            if state.codec is None and end < _TRAINABLE:
                return
            if state.codec is None or len(state.rows) > _OUTGROWN * state.codec.trained_on:
                codec = train_codec(end, partial(self._take_slowly, state.vectors))
                segments: tuple[CodedSegment, ...] = (self._encode(codec, state, 0, end),)
            elif end > state.encoded:
                codec = state.codec
                segments = (*state.segments, self._encode(codec, state, state.encoded, end))
                segments = self._merge(codec, state, segments)
            else:
                return
            with self._writer:
                self._state = replace(self._state, codec=codec, segments=segments)
            for segment in state.segments:
                if segment not in segments:
                    segment.path.unlink(missing_ok=True)

    def stop_improving(self) -> None:
        """Make a running ``improve`` raise ``ImprovementStopped`` soon, because the index is unloaded."""
        self._stopped = True

    def save(self, folder: Path) -> None:
        """Write the tables, and link the segments and the row file, which may be longer than its rows."""
        with self._writer:
            state, live = self._state, self._state.rows.live_rows()
            self._file.share(folder / "vectors.f16")
            for number, segment in enumerate(state.segments):
                share_file(segment.path, folder / f"segment-{number}.faiss")
        state.rows.ids.astype("<i8").tofile(folder / "ids.i64")
        state.rows.documents().astype("<i8").tofile(folder / "documents.i64")
        live.astype("<i8").tofile(folder / "live.i64")
        bounds = [(segment.start, segment.end) for segment in state.segments]
        saved = _Saved(state.codec.trained_on if state.codec else 0, bounds)
        (folder / "ivf.json").write_bytes(msgspec.json.encode(saved))

    @classmethod
    def load(cls, folder: Path, dimension: int, workspace: Path) -> IvfIndex:
        """Read the files of ``save``; ``ValueError`` if they do not belong together."""
        index = cls(dimension, workspace)
        ids, documents, live = (np.fromfile(folder / name, "<i8") for name in ("ids.i64", "documents.i64", "live.i64"))
        saved = msgspec.json.decode((folder / "ivf.json").read_bytes(), type=_Saved)
        if len(ids) != len(documents) or (folder / "vectors.f16").stat().st_size < len(ids) * 2 * dimension:
            raise ValueError(f"{len(ids)} ids, {len(documents)} documents, or too few vectors")
        path = workspace / "vectors.f16"
        path.unlink()
        share_file(folder / "vectors.f16", path)
        index._file = RowFile(path, dimension, rows=len(ids))
        index._table = RowTable(ids, documents, live)
        segments: list[CodedSegment] = []
        for number, (start, end) in enumerate(saved.segments):
            target = workspace / f"loaded-{number}.faiss"
            share_file(folder / f"segment-{number}.faiss", target)
            segments.append(load_segment(target, start, end))
        codec = codec_of(segments[0], trained_on=saved.trained_on) if segments else None
        index._state = _IvfState(index._table.rows(), index._file.view(), codec, tuple(segments))
        return index

    def copy_to(self, other: CopyableVectors) -> None:
        """Add the present live rows to another index."""
        state = self._state
        for rows in np.array_split(state.rows.live_rows(), max(1, state.rows.live // 16_384)):
            other.add(state.rows.ids[rows], state.rows.documents_of(rows), self._file.take(state.vectors, rows))

    def _search(self, state: _IvfState, query: Vectors, k: int, allowed: Bits | None, count: int) -> tuple[Scores, Ids]:
        """The best rows of the tail and of the candidates among the encoded rows, by exact score."""
        start = state.encoded
        tail = state.vectors[start:]
        scores, rows = nearest(tail, query, k, None if allowed is None else np.ascontiguousarray(allowed[start // 8 :]))
        self._file.touched(tail.nbytes)
        rows = rows + start
        if state.codec is None or k <= 0 or not count:
            return scores, rows
        scarcity = max(1.0, start / count)  # the rarer the allowed rows, the more cells have to be probed
        probes = int(max(32, state.codec.lists / 8) * scarcity)
        listed = candidates(
            state.codec, state.segments, query, count=max(self.short_list, 8 * k), probes=probes, allowed=allowed
        )
        exact, best = nearest(self._file.take(state.vectors, listed), query, k)
        return np.concatenate((scores, exact)), np.concatenate((rows, listed[best]))

    def _take_slowly(self, vectors: Float16Rows, rows: Ids) -> Float16Rows:
        """Copy many scattered rows in parts, releasing the mapped pages between them."""
        parts = np.array_split(rows, 1 + len(rows) // 512)
        return np.concatenate([self._file.take(vectors, part) for part in parts])

    def _encode(self, codec: ProductCodec, state: _IvfState, start: int, end: int) -> CodedSegment:
        path = self.workspace / f"segment-{next(self._segment_numbers)}.faiss"

        def pause() -> None:
            if self._stopped:
                raise ImprovementStopped
            self._file.touched(1 << 30)
            time.sleep(_PAUSE_S)  # leave the processor to searches for a moment

        return encode(codec, state.vectors, start, end, path=path, pause=pause)

    def _merge(
        self, codec: ProductCodec, state: _IvfState, segments: tuple[CodedSegment, ...]
    ) -> tuple[CodedSegment, ...]:
        """Encode the last segments of similar size again as one segment: each row is encoded O(log n) times."""
        while (count := _mergeable(segments)) > 1:
            last = segments[-count:]
            merged = self._encode(codec, state, last[0].start, last[-1].end)
            for segment in last:
                if segment not in state.segments:
                    segment.path.unlink(missing_ok=True)
            segments = (*segments[:-count], merged)
        return segments

    def _publish(self) -> None:
        self._state = replace(self._state, rows=self._table.rows(), vectors=self._file.view())


def _mergeable(segments: tuple[CodedSegment, ...]) -> int:
    """How many of the last segments to merge: those of similar size, or all but the first if there are too many."""
    sizes = [segment.end - segment.start for segment in segments]
    if len(sizes) > _MAX_SEGMENTS:
        return len(sizes) - 1
    last = sizes[-_SEGMENTS_PER_TIER:]
    return len(last) if len(last) == _SEGMENTS_PER_TIER and max(last) <= 2 * min(last) else 0
