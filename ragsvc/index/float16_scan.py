"""Exact inner products over float16 rows by FAISS, without copying them from their array or mapped file.

FAISS scans float16 codes at memory speed (50,000 rows of 384 in 1.5 ms on one core; numpy needs 33 ms because it
converts first). Its index classes own their codes, so adding rows beside lock-free readers would copy all of them. A
*view* of an array lets the writer append to it while readers search the rows that they know.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from ragsvc.core.ports.embedding import Scores, Vectors
from ragsvc.core.ports.indexes import Ids


class _LateFaiss:
    """FAISS, imported at its first use (30 ms, 14 MB): a service without documents does not need it."""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401 - anything of FAISS
        import faiss as imported  # noqa: PLC0415 - native: loaded when used

        value = getattr(imported, name)
        setattr(self, name, value)  # the next access costs what it costs on a module
        return value


faiss: Any = _LateFaiss()
"""FAISS without its bundled type stubs, which lack views, selectors and most parameters."""

Faiss: TypeAlias = Any
"""An object of FAISS."""

Float16Rows = npt.NDArray[np.float16]
"""``(n, dim)`` float16, C-contiguous."""

Bits = npt.NDArray[np.uint8]
"""A bitmap; row ``i`` is bit ``i % 8`` (from the lowest) of byte ``i // 8``."""


@cache
def _no_owner() -> Faiss:
    """The "owner" of borrowed memory, which FAISS requires; an empty index, because Python keeps the array alive."""
    return faiss.IndexScalarQuantizer(1, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)


_threads = threading.local()


def use_calling_thread_only() -> None:
    """Let FAISS work on the calling thread only; the setting belongs to this thread.

    It is made once: each call of FAISS releases the interpreter lock, for which many searches at once compete.
    """
    if not getattr(_threads, "is_set", False):
        faiss.omp_set_num_threads(1)
        _threads.is_set = True


def view_of(rows: Float16Rows) -> Faiss:
    """An index of FAISS over the memory of an array, which must outlive it; for ``nearest``."""
    count, dimension = rows.shape
    view = faiss.IndexScalarQuantizer(dimension, faiss.ScalarQuantizer.QT_fp16, faiss.METRIC_INNER_PRODUCT)
    view.is_trained = True
    codes = rows.view(np.uint8)
    view.codes = faiss.MaybeOwnedVectorUInt8.create_view(faiss.swig_ptr(codes), codes.nbytes, _no_owner().codes.owner)
    view.ntotal = count
    return view


def nearest(
    rows: Float16Rows, query: Vectors, k: int, allowed: Bits | None = None, *, view: Faiss = None
) -> tuple[Scores, Ids]:
    """The ``k`` rows with the largest inner product with ``query`` ``(dim,)``, among those set in ``allowed``.

    Returns scores ``(m,)`` and row numbers ``(m,)``, best first, ``m <= k``. Runs without the interpreter lock and
    only on the calling thread. ``view`` is that of ``rows``, if the caller has kept it.
    """
    k = min(k, len(rows))
    if k <= 0:
        return np.empty(0, np.float32), np.empty(0, np.int64)
    use_calling_thread_only()
    if view is None:
        view = view_of(rows)
    params = None
    if allowed is not None:
        selector = faiss.IDSelectorBitmap(len(allowed), faiss.swig_ptr(allowed))
        params = faiss.SearchParameters(sel=selector)
    scores, found = view.search(np.ascontiguousarray(query[None], dtype=np.float32), k, params=params)
    kept = found[0] >= 0
    return scores[0][kept], found[0][kept]


def test_bits(bits: Bits, rows: Ids) -> npt.NDArray[np.bool_]:
    """Which of ``rows`` are set."""
    found: npt.NDArray[np.bool_] = (bits[rows >> 3] >> (rows & 7).astype(np.uint8)) & 1 == 1
    return found


def set_bits(bits: Bits, rows: Ids, *, on: bool) -> None:
    """Set or clear ``rows`` in place."""
    masks = np.left_shift(np.uint8(1), (rows & 7).astype(np.uint8), dtype=np.uint8)
    if on:
        np.bitwise_or.at(bits, rows >> 3, masks)
    else:
        np.bitwise_and.at(bits, rows >> 3, ~masks)
