"""Maps passage ids to rows of an append-only table with tombstones.

Owns the ids, the documents and the liveness of rows, not the vectors. The writer appends in place and publishes a new
immutable ``LiveRows``; readers use the object that they took and never lock. Adding and removing rows cost O(change),
amortised.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt

from ragsvc.core.ports.indexes import Ids
from ragsvc.index.float16_scan import Bits, set_bits, test_bits

_T = TypeVar("_T", bound=np.generic)


class GrowingArray(Generic[_T]):
    """An array that grows at its end; readers' views stay valid, because outgrown memory lives as long as its views."""

    def __init__(self, initial: npt.NDArray[_T]) -> None:
        self._data = initial
        self._used = len(initial)

    def append(self, values: npt.NDArray[_T]) -> None:
        """Copy ``values`` to the end."""
        used = self._used + len(values)
        if used > len(self._data):
            data = np.empty((max(64, used + used // 2), *self._data.shape[1:]), self._data.dtype)
            data[: self._used] = self._data[: self._used]
            self._data = data
        self._data[self._used : used] = values
        self._used = used

    def view(self) -> npt.NDArray[_T]:
        """The present rows, unaffected by later appends."""
        return self._data[: self._used]

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory, including unused capacity."""
        return self._data.nbytes


@dataclass(frozen=True, slots=True)
class LiveRows:
    """An immutable state of the table. ``ids`` ``(n,)``; ``alive`` is a bitmap; documents are stored as runs of rows.

    ``run_starts[i]`` is the first row of a run that belongs to ``run_documents[i]`` and ends where the next begins.
    """

    ids: Ids
    alive: Bits
    live: int
    run_starts: Ids
    run_documents: Ids

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dead(self) -> int:
        """Number of removed rows that still take memory."""
        return len(self.ids) - self.live

    def live_rows(self) -> Ids:
        """Numbers of the rows that are not removed."""
        return np.flatnonzero(np.unpackbits(self.alive, count=len(self.ids), bitorder="little")).astype(np.int64)

    def documents(self) -> Ids:
        """The document of every row."""
        return np.repeat(self.run_documents, self._run_lengths())

    def documents_of(self, rows: Ids) -> Ids:
        """The document of each of ``rows``."""
        return self.run_documents[np.searchsorted(self.run_starts, rows, side="right") - 1]

    def select(self, documents: Ids) -> RowSelection:
        """The live rows of these documents."""
        chosen = np.isin(self.run_documents, documents)
        if not chosen.any():
            return RowSelection(0, 0, np.empty(0, np.uint8), 0)
        lengths = self._run_lengths()
        picked = np.flatnonzero(chosen)
        start = int(self.run_starts[picked[0]]) & ~7
        end = int(self.run_starts[picked[-1]] + lengths[picked[-1]])
        window = slice(picked[0], picked[-1] + 1)
        mask = np.repeat(chosen[window], lengths[window])
        lead = np.zeros(int(self.run_starts[picked[0]]) - start, np.bool_)
        bits = np.packbits(np.concatenate((lead, mask)), bitorder="little")
        bits &= self.alive[start // 8 : start // 8 + len(bits)]
        return RowSelection(start, end, bits, int(np.bitwise_count(bits).sum()))

    def _run_lengths(self) -> Ids:
        return np.diff(self.run_starts, append=len(self.ids))


@dataclass(frozen=True, slots=True)
class RowSelection:
    """``count`` rows in ``[start, end)``; bit ``i`` of ``bits`` is row ``start + i``, ``start % 8 == 0``."""

    start: int
    end: int
    bits: Bits
    count: int


class RowTable:
    """The mutable table behind ``LiveRows``. Not thread-safe: one writer."""

    def __init__(self, ids: Ids | None = None, documents: Ids | None = None, live: Ids | None = None) -> None:
        self._ids: GrowingArray[np.int64] = GrowingArray(np.empty(0, np.int64))
        self._alive: Bits = np.zeros(8, np.uint8)
        self._live = 0
        self._run_starts: GrowingArray[np.int64] = GrowingArray(np.empty(0, np.int64))
        self._run_documents: GrowingArray[np.int64] = GrowingArray(np.empty(0, np.int64))
        # Rows of ids: a sorted base, and a dict for later ids. A dict of all ids would take 100 MB per million.
        self._sorted_ids: Ids = np.empty(0, np.int64)
        self._sorted_rows: Ids = np.empty(0, np.int64)
        self._recent: dict[int, int] = {}
        self._recent_arrays: tuple[Ids, Ids] | None = None
        """The recent ids, ascending, and their rows; made by the first ``find`` after a change."""
        if ids is not None and documents is not None:
            self._restore(ids, documents, live)

    def _restore(self, ids: Ids, documents: Ids, live: Ids | None) -> None:
        """Set the rows; all but ``live`` are removed (none if ``None``). Removed rows may share ids with live ones."""
        live = np.arange(len(ids)) if live is None else live
        self._ids.append(ids)
        if len(ids):
            self._append_runs(0, documents)
        self._make_room(len(ids))
        set_bits(self._alive, live, on=True)
        self._live = len(live)
        self._absorb(ids[live], live)

    def rows(self) -> LiveRows:
        """The current state, as an immutable value."""
        return LiveRows(self._ids.view(), self._alive, self._live, self._run_starts.view(), self._run_documents.view())

    def append(self, ids: Ids, documents: Ids) -> None:
        """Add rows for ids that are not in the table (``discard`` them first); an id must not occur twice."""
        if not len(ids):
            return
        start = len(self._ids.view())
        self._ids.append(ids)
        end = start + len(ids)
        self._make_room(end)
        set_bits(self._alive, np.arange(start, end), on=True)
        self._live += len(ids)
        self._append_runs(start, documents)
        if len(ids) + len(self._recent) > max(4096, end // 16):
            self._absorb(ids, np.arange(start, end))
        else:
            self._recent.update(zip(ids.tolist(), range(start, end), strict=True))
            self._recent_arrays = None

    def discard(self, ids: Ids) -> int:
        """Mark the rows of ids as removed; returns how many were live."""
        rows = self.find(ids)
        rows = np.unique(rows[rows >= 0])
        if len(rows):
            alive = self._alive.copy()
            set_bits(alive, rows, on=False)
            self._alive = alive
            self._live -= len(rows)
        return len(rows)

    def find(self, ids: Ids) -> Ids:
        """The live row of each id, -1 for an unknown id."""
        rows = np.full(len(ids), -1, np.int64)
        if len(self._sorted_ids):
            rows = _rows_of(ids, self._sorted_ids, self._sorted_rows)
        if self._recent:
            recent = _rows_of(ids, *self._recent_columns())
            rows = np.where(recent >= 0, recent, rows)
        known = rows >= 0
        rows[known] = np.where(test_bits(self._alive, rows[known]), rows[known], -1)
        return rows

    def _recent_columns(self) -> tuple[Ids, Ids]:
        if self._recent_arrays is None:
            ids = np.fromiter(self._recent.keys(), np.int64, len(self._recent))
            rows = np.fromiter(self._recent.values(), np.int64, len(self._recent))
            order = np.argsort(ids, kind="stable")
            self._recent_arrays = ids[order], rows[order]
        return self._recent_arrays

    def documents_of(self, ids: Ids) -> Ids:
        """The document of each id, -1 for an unknown id."""
        rows = self.find(ids)
        found = np.full(len(ids), -1, np.int64)
        known = rows >= 0
        found[known] = self.rows().documents_of(rows[known])
        return found

    @property
    def memory_bytes(self) -> int:
        """Bytes of memory of the table; a dict entry of a recent id takes 100."""
        arrays = self._alive.nbytes + self._sorted_ids.nbytes + self._sorted_rows.nbytes
        growing = self._ids.memory_bytes + self._run_starts.memory_bytes + self._run_documents.memory_bytes
        return arrays + growing + 100 * len(self._recent)

    def _make_room(self, rows: int) -> None:
        needed = (rows + 7) // 8
        if needed > len(self._alive):
            alive = np.zeros(needed + needed // 2, np.uint8)
            alive[: len(self._alive)] = self._alive
            self._alive = alive

    def _append_runs(self, start: int, documents: Ids) -> None:
        changes = np.flatnonzero(np.diff(documents)) + 1
        starts = np.concatenate((np.zeros(1, np.int64), changes))
        known = self._run_documents.view()
        if len(known) and known[-1] == documents[0]:
            starts = starts[1:]
        self._run_starts.append(starts + start)
        self._run_documents.append(documents[starts])

    def _absorb(self, ids: Ids, rows: Ids) -> None:
        """Merge recent ids and ``ids`` into the sorted base; replace older rows by newer rows, drop removed rows."""
        recent = np.fromiter(self._recent.keys(), np.int64, len(self._recent))
        recent_rows = np.fromiter(self._recent.values(), np.int64, len(self._recent))
        all_ids = np.concatenate((self._sorted_ids, recent, ids))
        all_rows = np.concatenate((self._sorted_rows, recent_rows, rows))
        kept = test_bits(self._alive, all_rows)
        all_ids, all_rows = all_ids[kept], all_rows[kept]
        order = np.argsort(all_ids, kind="stable")  # merges sorted runs: linear if ids arrive in order
        self._sorted_ids, self._sorted_rows = all_ids[order], all_rows[order]
        self._recent, self._recent_arrays = {}, None


def _rows_of(ids: Ids, known: Ids, rows: Ids) -> Ids:
    """The row of each id among the ascending ``known`` ids, at least one; -1 for others."""
    at = np.minimum(np.searchsorted(known, ids), len(known) - 1)
    return np.where(known[at] == ids, rows[at], -1)
