"""BM25 search over passages by tantivy; each commit also stores the log position that it covers.

Owns one tantivy folder. ``index.analysis`` turns texts and questions into terms before tantivy reads them, so no
character of a question acts as an operator. A tantivy writer takes a thread and a heap; it is opened at the first
change, and released when the index is idle.
"""

from __future__ import annotations

import contextlib
import re
import shutil
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import msgspec
import numpy as np
import tantivy

from ragsvc.core.errors import Overloaded, StorageFull
from ragsvc.core.ports.indexes import Hits, Ids, LexicalDocument
from ragsvc.core.storage_faults import is_storage_fault
from ragsvc.core.text.languages import DEFAULT_LANGUAGE
from ragsvc.index.analysis import ANALYSIS_VERSION, passage_terms, query_terms

LEXICAL_FORMAT = f"1.{ANALYSIS_VERSION}"
_FORMAT_FILE = "ragsvc-format"
_TOKENIZER = "terms"
_THREAD_RETRY_S = 5.0
_FULL = "The disk is full. The word index does not have the latest changes yet."
_WRITER_ENDED = "index writer was killed"
_PROBE_BYTES = 1 << 20

P = ParamSpec("P")
R = TypeVar("R")

_SEGMENT_FILE = re.compile(r"(?P<segment>[0-9a-f]{32})(?:\.(?P<opstamp>\d+)\.del|\.[a-z.]+)")


class _Deletes(msgspec.Struct, frozen=True):
    """A segment's list of deleted documents; its file name contains the operation's number."""

    opstamp: int


class _Segment(msgspec.Struct, frozen=True):
    """A segment of the last commit."""

    segment_id: str
    deletes: _Deletes | None = None


class _Meta(msgspec.Struct, frozen=True):
    """tantivy's ``meta.json``: the segments of the last commit."""

    segments: list[_Segment]


class LexicalIndexDamaged(Exception):
    """The folder has no readable index, so it is rebuilt. Not raised outside this package."""


class LexicalIndexFailed(Exception):
    """tantivy failed in a way that it does not declare; the index is opened again at the next use."""


@contextmanager
def _no_panics() -> Generator[None]:
    """Raise a panic of tantivy as an ``Exception``: it is a ``BaseException``, which would end the task group.

    tantivy panics if the operating system gives it no thread: for the watcher of each open index, and for writers.
    """
    try:
        yield
    except BaseException as error:
        if type(error).__module__ != "pyo3_runtime":  # pyo3 does not export the class PanicException
            raise
        if "thread" in str(error).lower():
            message = "The word index needs a thread, and the operating system gives none. Try again later."
            raise Overloaded(message, retry_after_s=_THREAD_RETRY_S) from error
        raise LexicalIndexFailed("The word index failed unexpectedly.") from error


def _without_panics(function: Callable[P, R]) -> Callable[P, R]:
    @wraps(function)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        with _no_panics():
            return function(*args, **kwargs)

    return guarded


class TantivyIndex:
    """The word index of one collection. ``text_weight`` and ``context_weight`` scale the BM25 scores of the fields.

    Each commit adds a marker, a document without text that stores ``covered_seq``: tantivy's commit payload is not
    accessible from Python, and a separate file would not change atomically with the index. ``markers`` is their number;
    beyond ``max_markers``, the older ones are removed.

    Changes come from one writer at a time; concurrent searches use the last commit. An open index has a thread of
    tantivy that watches ``meta.json``, although the reader is reloaded explicitly: ``tantivy.Index`` always starts it.

    Raises:
        LexicalIndexDamaged: from the constructor.
        Overloaded: the operating system gives tantivy no thread.
    """

    def __init__(
        self,
        folder: Path,
        *,
        text_weight: float = 1.0,
        context_weight: float = 0.15,
        max_query_terms: int = 32,
        heap_bytes: int = 32 << 20,
        max_markers: int = 256,
    ) -> None:
        self.folder = folder
        self.text_weight = text_weight
        self.context_weight = context_weight
        self.max_query_terms = max_query_terms
        self._heap_bytes = heap_bytes
        self._max_markers = max_markers
        self._lock = threading.RLock()
        self._writer: tantivy.IndexWriter | None = None
        self._schema = _schema()
        self._covered = self._committed = self._max_id = self.markers = 0
        try:
            with _no_panics():
                self._index = _open(folder, self._schema)
                self._read_back()
        except (ValueError, OSError) as error:  # msgspec's errors are ValueErrors
            if is_storage_fault(error):
                raise StorageFull(_FULL) from error
            raise LexicalIndexDamaged(str(error)) from error

    def __len__(self) -> int:
        return _count(self._searcher, "id")

    @property
    def memory_bytes(self) -> int:
        """Bytes of the writer's heap. Searches read mapped files, which the operating system caches."""
        return self._heap_bytes if self._writer is not None else 0

    @_without_panics
    def ids(self) -> Ids:
        """All ids, ascending."""
        searcher = self._searcher
        query = tantivy.Query.exists_query("id")
        found = searcher.search(query, limit=max(1, searcher.num_docs), count=False, order_by_field="id").hits
        return np.sort(np.array([value for value, _ in found], dtype=np.int64))

    @_without_panics
    def add(self, documents: Sequence[LexicalDocument]) -> None:
        """Add passages, replacing those of the same id. Raises ``StorageFull``, as do all changes."""
        with self._lock, self._translated_faults():
            writer = self._open_writer()
            last_document, language = -1, DEFAULT_LANGUAGE
            for document in documents:
                if (
                    document.document_id != last_document
                ):  # tables without a recognised language take that of the text before them
                    last_document, language = document.document_id, DEFAULT_LANGUAGE
                if document.id <= self._max_id:  # ids only grow, so a greater id cannot be in the index
                    writer.delete_documents_by_term("id", document.id)
                text, language = passage_terms(document.text, otherwise=language)
                context, _ = passage_terms(document.context, language=language)
                writer.add_document(
                    tantivy.Document(
                        id=document.id,
                        document=document.document_id,
                        language=language,
                        text=" ".join(text),
                        context=" ".join(context),
                    )
                )
            self._max_id = max(self._max_id, *(document.id for document in documents), 0)

    @_without_panics
    def remove(self, ids: Ids) -> None:
        with self._lock, self._translated_faults():
            if not len(ids):
                return
            writer = self._open_writer()
            for passage in ids.tolist():
                if passage <= self._max_id:
                    writer.delete_documents_by_term("id", passage)

    @_without_panics
    def commit(self, *, covered_seq: int) -> None:
        """Make changes durable and visible, together with ``covered_seq``."""
        with self._lock, self._translated_faults():
            writer = self._open_writer()
            if full := self.markers >= self._max_markers:
                writer.delete_documents_by_query(tantivy.Query.exists_query("covered"))
            writer.add_document(tantivy.Document(covered=covered_seq))
            writer.commit()
            self._index.reload()
            self._searcher = self._index.searcher()
            self._covered = self._committed = covered_seq
            self.markers = 1 if full else self.markers + 1
            self._languages = _languages(self._searcher)

    def advance(self, covered_seq: int) -> None:
        """Cover later changes without a commit, because they change no words. A start replays them."""
        self._covered = covered_seq

    def covered_seq(self) -> int:
        """The log position of the last commit, or beyond it the last that was given to ``advance``."""
        return self._covered

    def committed_seq(self) -> int:
        """The log position of the last commit."""
        return self._committed

    @_without_panics
    def documents_of(self, ids: Ids) -> Ids:
        """The document of each passage, -1 for an unknown id."""
        if not len(ids):
            return np.empty(0, np.int64)
        searcher = self._searcher
        wanted = tantivy.Query.term_set_query(self._schema, "id", ids.tolist())
        places = [address for _, address in searcher.search(wanted, limit=len(ids), count=False).hits]
        passages = np.array(searcher.fast_field_values("id", places), dtype=np.int64)
        documents = np.array(searcher.fast_field_values("document", places), dtype=np.int64)
        known = dict(zip(passages.tolist(), documents.tolist(), strict=True))
        return np.array([known.get(passage, -1) for passage in ids.tolist()], dtype=np.int64)

    @_without_panics
    def search(self, query: str, *, k: int, documents: Ids | None = None) -> Hits:
        """The ``k`` best by BM25 over text and context; equal scores are ordered by id."""
        searcher = self._searcher
        terms = self._choose_terms(searcher, query)
        if k <= 0 or not terms or (documents is not None and not len(documents)):
            return Hits(np.empty(0, np.int64), np.empty(0, np.float32))
        wanted = self._any_of(terms)
        if documents is not None:
            among = tantivy.Query.term_set_query(self._schema, "document", documents.tolist())
            must = tantivy.Occur.Must
            wanted = tantivy.Query.boolean_query([(must, wanted), (must, tantivy.Query.const_score_query(among, 0.0))])
        found = searcher.search(wanted, limit=k, count=False).hits
        scores = np.array([score for score, _ in found], dtype=np.float32)
        ids = np.array(searcher.fast_field_values("id", [address for _, address in found]), dtype=np.int64)
        order = np.lexsort((ids, -scores))
        return Hits(ids[order], scores[order])

    @_without_panics
    def release_writer(self) -> None:
        """Release the writer's heap and threads; the next change opens a new writer. Uncommitted changes are lost."""
        with self._lock:
            if self._writer is not None:
                writer, self._writer = self._writer, None
                try:
                    writer.wait_merging_threads()
                except ValueError as error:  # a writer whose thread ended at a full disk; its changes are lost anyway
                    if not self._lacks_room(error):
                        raise

    def close(self) -> None:
        """Release the writer; files are closed with the last reader."""
        self.release_writer()

    @contextlib.contextmanager
    def _translated_faults(self) -> Generator[None]:
        try:
            yield
        except (ValueError, OSError) as error:
            if self._lacks_room(error):
                raise StorageFull(_FULL) from error
            raise

    def _lacks_room(self, error: Exception) -> bool:
        """Whether the disk is full. A writer's thread does not tell why it ended, so this tries to write."""
        return is_storage_fault(error) or (_WRITER_ENDED in str(error) and not _can_write(self.folder))

    def _open_writer(self) -> tantivy.IndexWriter:
        if self._writer is None:
            self._writer = self._index.writer(heap_size=self._heap_bytes, num_threads=1)
        return self._writer

    def _read_back(self) -> None:
        """Read the state of the last commit. This visits every document once; commits then update the values."""
        self._searcher = self._index.searcher()
        self._covered = self._committed = _largest(self._searcher, "covered")
        self._max_id = _largest(self._searcher, "id")
        self.markers = _count(self._searcher, "covered")
        self._languages = _languages(self._searcher)

    def _choose_terms(self, searcher: tantivy.Searcher, query: str) -> list[tuple[str, str]]:
        """(field, term) pairs of the query's rarest terms that occur in the index."""
        frequencies: list[tuple[int, list[tuple[str, str]]]] = []
        for term in query_terms(query, languages=self._languages):
            fields = {field: searcher.doc_freq(field, term) for field in ("text", "context")}
            present = [(field, term) for field, count in fields.items() if count]
            if present:
                frequencies.append((fields["text"] or fields["context"], present))
        frequencies.sort(key=lambda entry: entry[0])
        return [pair for _, pairs in frequencies[: self.max_query_terms] for pair in pairs]

    def _any_of(self, terms: Sequence[tuple[str, str]]) -> tantivy.Query:
        """A flat disjunction of plain terms: the shape tantivy prunes (block-max WAND)."""
        weights = {"text": self.text_weight, "context": self.context_weight}
        clauses: list[tuple[tantivy.Occur, tantivy.Query]] = []
        for field, term in terms:
            clause = tantivy.Query.term_query(self._schema, field, term, index_option="freq")
            clauses.append((tantivy.Occur.Should, tantivy.Query.boost_query(clause, weights[field])))
        return tantivy.Query.boolean_query(clauses)


def _can_write(folder: Path) -> bool:
    """Whether a small file can be written; other reasons than a full disk for a failure are not ours to judge."""
    probe = folder / "ragsvc-probe"
    try:
        probe.write_bytes(bytes(_PROBE_BYTES))
    except OSError as error:
        return not is_storage_fault(error)
    finally:
        with contextlib.suppress(OSError):
            probe.unlink(missing_ok=True)
    return True


def _schema() -> tantivy.Schema:
    builder = tantivy.SchemaBuilder()
    for name in ("id", "document", "covered"):
        builder.add_integer_field(name, indexed=True, fast=True)
    builder.add_text_field("language", tokenizer_name="raw", index_option="basic")
    for name in ("text", "context"):
        builder.add_text_field(name, tokenizer_name=_TOKENIZER, index_option="freq")
    return builder.build()


def _open(folder: Path, schema: tantivy.Schema) -> tantivy.Index:
    """Open or create the index. The format file is written first, so an index without it was made by other software."""
    stamp = folder / _FORMAT_FILE
    if tantivy.Index.exists(str(folder)) if folder.is_dir() else False:
        if not stamp.is_file() or stamp.read_text() != LEXICAL_FORMAT:
            raise LexicalIndexDamaged("the index was made by another version")
    else:
        if folder.is_dir() and any(folder.glob("*.*")):
            raise LexicalIndexDamaged("there are index files without meta.json")
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        stamp.write_text(LEXICAL_FORMAT)
    _remove_torn(folder)
    index = tantivy.Index(schema, path=str(folder))
    index.register_tokenizer(_TOKENIZER, tantivy.TextAnalyzerBuilder(tantivy.Tokenizer.whitespace()).build())
    index.config_reader(reload_policy="manual")
    return index


def _remove_torn(folder: Path) -> None:
    """Remove files that do not belong to the last commit.

    A process that was killed during a commit leaves such files. tantivy numbers operations from the last commit, so it
    would use the name of a leftover file again and fail with ``FileAlreadyExists`` on the list of deletes.
    """
    meta = folder / "meta.json"
    segments = msgspec.json.decode(meta.read_bytes(), type=_Meta).segments if meta.is_file() else []
    listed = {segment.segment_id.replace("-", ""): segment.deletes for segment in segments}
    for file in folder.iterdir():
        match = _SEGMENT_FILE.fullmatch(file.name)
        if match is None:
            continue
        deletes = listed.get(match["segment"])
        is_torn_list = match["opstamp"] is not None and (deletes is None or deletes.opstamp != int(match["opstamp"]))
        if match["segment"] not in listed or is_torn_list:
            file.unlink(missing_ok=True)


def _languages(searcher: tantivy.Searcher) -> list[str]:
    """The languages of the passages."""
    return [name for name, _ in searcher.terms_with_prefix("language", "")] or [DEFAULT_LANGUAGE]


def _count(searcher: tantivy.Searcher, field: str) -> int:
    """How many documents have a value in ``field``."""
    found: Any = searcher.search(tantivy.Query.exists_query(field), limit=1, count=True)
    return int(found.count)  # missing in the type stubs


def _largest(searcher: tantivy.Searcher, field: str) -> int:
    """The largest value of an integer field, 0 if it has none."""
    query = tantivy.Query.exists_query(field)
    found = searcher.search(query, limit=1, count=False, order_by_field=field, order=tantivy.Order.Desc).hits
    return int(found[0][0]) if found else 0
