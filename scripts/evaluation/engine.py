"""Builds searchable collections from data sets with the parts of the service: reader, chunking, embedder, indexes.

Searches go through ``ragsvc.core.retrieval.passage_search``, which the service calls as well, over rows in memory
instead of SQLite. Vectors are cached in a folder between runs, under a hash of model and texts.
"""

from __future__ import annotations

import hashlib
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tantivy

from evaluation.datasets import Dataset, Source
from ragsvc.core.documents import Extraction, Passage, StoredPassage
from ragsvc.core.errors import ExtractionFailed
from ragsvc.core.ids import DocumentId, PassageId
from ragsvc.core.ports.embedding import Embedder, Vectors
from ragsvc.core.ports.indexes import DocumentCard, Hits, Ids, LexicalDocument
from ragsvc.core.ports.parsing import ChunkingOptions, ExtractionLimits, TokenSpans
from ragsvc.core.retrieval.answerability import BETWEEN_TEXTS
from ragsvc.core.retrieval.document_judgement import COVER_CHARACTERS
from ragsvc.core.retrieval.document_questions import DocumentQuestion
from ragsvc.core.retrieval.passage_search import JUDGED_CANDIDATES, RankedPassages, search_passages
from ragsvc.core.retrieval.ranking import CANDIDATES, OPENING_CHARACTERS, name_and_title
from ragsvc.core.retrieval.search_values import SearchMode, SearchQuery
from ragsvc.core.text.chunking import embedding_text, lexical_context, split_pages
from ragsvc.core.text.condensing import condense
from ragsvc.core.text.tables import table_context
from ragsvc.extract.pdf_pages import PageReports
from ragsvc.extract.read_file import extract
from ragsvc.index.document_cards import DocumentCards
from ragsvc.index.flat import FlatIndex
from ragsvc.index.lexical import TantivyIndex

NO_HITS = Hits(np.empty(0, np.int64), np.empty(0, np.float32))


def read_file(path: Path) -> Extraction:
    """Read a file as the service does. A file that cannot be read (no text layer) has no pages."""
    media_type = {".pdf": "application/pdf", ".md": "text/markdown"}.get(path.suffix, "text/plain")
    try:
        return extract(
            path,
            media_type=media_type,
            filename=path.name,
            password=None,
            limits=ExtractionLimits(),
            reports=PageReports(on_progress=lambda _done, _total: None),
        )
    except ExtractionFailed:
        return Extraction(pages=[])


@dataclass
class Embedding:
    """An embedder with a cache of vectors. ``prepare`` returns the text to embed for a passage."""

    embedder: Embedder
    cache: Path | None = None
    prepare: Callable[[str], str] = condense
    known: dict[str, Vectors] = field(default_factory=dict)

    def passages(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors ``(n, dim)`` of passages."""
        return self._cached("passages", texts, self.embedder.embed_passages)

    def queries(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors ``(n, dim)`` of questions."""
        return self._cached("queries", texts, self.embedder.embed_queries)

    def query(self, text: str) -> Vectors:
        """The unit vector ``(dim,)`` of a question, kept in memory."""
        if text not in self.known:
            self.known[text] = self.embedder.embed_queries([text])[0]
        return self.known[text]

    def _cached(self, kind: str, texts: Sequence[str], embed: Callable[[Sequence[str]], Vectors]) -> Vectors:
        if self.cache is None:
            return embed(texts)
        key = hashlib.sha256()
        for part in (kind, self.embedder.model.fingerprint, self.embedder.runtime, *texts):
            key.update(part.encode("utf-8", "replace") + b"\0")
        path = self.cache / f"{key.hexdigest()}.npy"
        if not path.exists():
            self.cache.mkdir(parents=True, exist_ok=True)
            np.save(path, embed(texts))
        vectors: Vectors = np.load(path)
        return vectors


@dataclass(frozen=True)
class Collection:
    """A dataset's passages in memory and in both indexes, as ``search_passages`` reads them."""

    dataset: Dataset
    stored: dict[int, StoredPassage]
    document_names: dict[int, str]
    document_openings: dict[int, str]
    dense: FlatIndex
    lexical: TantivyIndex
    knows: Callable[[str], bool]
    cards: DocumentCards
    embedding: Embedding
    folder: tempfile.TemporaryDirectory[str] = field(repr=False)

    def search(self, vector: Vectors | None, text: str | None, *, k: int, documents: Ids | None) -> tuple[Hits, Hits]:
        dense = NO_HITS if vector is None else self.dense.search(vector, k=k, documents=documents)
        lexical = NO_HITS if text is None else self.lexical.search(text, k=k, documents=documents)
        return dense, lexical

    def documents_of(self, ids: Ids) -> Ids:
        return self.dense.documents_of(ids)

    def vectors(self, ids: Ids) -> tuple[Ids, Vectors]:
        return ids, self.dense.vectors(ids)

    def names(self, documents: Iterable[int]) -> dict[int, str]:
        return {document: self.document_names[document] for document in documents}

    def openings(self, documents: AbstractSet[int]) -> dict[int, str]:
        return {document: self.document_openings[document] for document in documents}

    def asked_passages(self, asked: DocumentQuestion, documents: Sequence[int]) -> list[tuple[int, int]]:
        """Passages on the pages that a question names; questions about whole documents are not evaluated."""
        places = [(passage, stored, (stored.page_label or "").lower()) for passage, stored in self.stored.items()]
        return [
            (passage, int(stored.document_id))
            for passage, stored, label in places
            if int(stored.document_id) in documents and (str(stored.page) in asked.pages or label in asked.pages)
        ]

    def passages(self, ids: Sequence[int]) -> dict[int, StoredPassage]:
        return {passage: self.stored[passage] for passage in ids}

    def joined_texts(self, ids: Sequence[int]) -> bytes:
        return BETWEEN_TEXTS.join(self.stored[passage].text for passage in ids).encode()


def ranges_of(dataset: Dataset, passages: Sequence[StoredPassage]) -> list[tuple[int, int, int]]:
    """Passages as (document, start, end), with offsets into the complete text of the file."""
    found = []
    for passage in passages:
        document = int(passage.document_id) - 1
        offset = dataset.sources[document].page_offsets[passage.page - 1]
        found.append((document, offset + passage.start, offset + passage.end))
    return found


def build(dataset: Dataset, *, embedding: Embedding, tokens: TokenSpans, options: ChunkingOptions) -> Collection:
    """Chunk, embed and index a data set."""
    passages: dict[int, StoredPassage] = {}
    vectors: list[Vectors] = []
    for number, source in enumerate(dataset.sources, start=1):
        title = source.extraction.title
        texts: list[str] = []
        for passage in split_pages(source.extraction, options=options, tokens=tokens, filename=source.filename):
            stored = _stored(len(passages) + 1, number, source, passage)
            passages[int(stored.id)] = stored
            texts.append(embedding.prepare(embedding_text(passage, title=title, filename=source.filename)))
        if texts:
            vectors.append(embedding.passages(texts))  # cached for each document: sets share documents
    folder = tempfile.TemporaryDirectory(prefix="evaluate-")
    dense, lexical = FlatIndex(embedding.embedder.model.dimension), TantivyIndex(Path(folder.name))
    ids = np.array(list(passages), dtype=np.int64)
    documents = np.array([int(passage.document_id) for passage in passages.values()], dtype=np.int64)
    dense.add(ids, documents, np.concatenate(vectors))
    lexical.add([_lexical(passage) for passage in passages.values()])
    lexical.commit(covered_seq=1)
    sources = dict(enumerate(dataset.sources, start=1))
    names = {number: name_and_title(source.filename, source.extraction.title) for number, source in sources.items()}
    openings = {number: opening(source.extraction) for number, source in sources.items()}
    lengths = Counter(int(passage.document_id) for passage in passages.values())
    cards = DocumentCards(
        DocumentCard(
            number,
            lexical_context(source.extraction.title, source.filename, ()),
            openings[number][:COVER_CHARACTERS],
            lengths[number],
        )
        for number, source in sources.items()
    )
    knows = embedding.embedder.knows
    return Collection(dataset, passages, names, openings, dense, lexical, knows, cards, embedding, folder)


def opening(extraction: Extraction) -> str:
    return "\n".join(page.text for page in extraction.pages[:3])[:OPENING_CHARACTERS]


def search(
    collection: Collection,
    query: str,
    vector: Vectors,
    mode: SearchMode,
    *,
    documents: Ids | None = None,
    judge: bool = True,
) -> RankedPassages:
    """Search with the service's own function; all candidates are ranked and loaded.

    Without ``judge`` the names of documents are not judged apart from their passages.
    """
    judgement = collection.cards.judge(query, documents) if judge and mode is SearchMode.HYBRID else None
    rest = vector
    if judgement is not None and judgement.is_useful and judgement.rest != query:
        rest = collection.embedding.query(judgement.rest)
    return search_passages(
        SearchQuery(text=query, mode=mode),
        None if mode is SearchMode.LEXICAL else vector,
        indexes=collection,
        read_rows=lambda work: work(collection),
        knows_words=collection.knows,
        count=2 * (CANDIDATES + JUDGED_CANDIDATES),
        documents=documents,
        judgement=judgement,
        rest_vector=rest,
    )


def _stored(number: int, document: int, source: Source, passage: Passage) -> StoredPassage:
    return StoredPassage(
        id=PassageId(number),
        document_id=DocumentId(document),
        document_public_id=str(document),
        filename=source.filename,
        title=source.extraction.title,
        page=passage.page,
        page_label=passage.page_label,
        start=passage.start,
        end=passage.end,
        text=passage.text,
        headings=passage.headings,
        ordinal=passage.ordinal,
        tables=passage.tables,
    )


def _lexical(passage: StoredPassage) -> LexicalDocument:
    repeated = table_context(passage.tables, passage.text)
    context = lexical_context(passage.title, passage.filename, passage.headings, repeated)
    return LexicalDocument(int(passage.id), int(passage.document_id), passage.text, context)


class PlainLexical:
    """A baseline: BM25 over the text alone, with the default tokenizer of tantivy."""

    def __init__(self, texts: Sequence[str]) -> None:
        builder = tantivy.SchemaBuilder()
        builder.add_integer_field("id", fast=True)
        builder.add_text_field("text")
        self._schema = builder.build()
        self._index = tantivy.Index(self._schema)
        writer = self._index.writer(heap_size=64 << 20, num_threads=1)
        for number, text in enumerate(texts, start=1):
            writer.add_document(tantivy.Document(id=number, text=text))
        writer.commit()
        writer.wait_merging_threads()
        self._index.reload()

    def search(self, query: str, *, k: int) -> list[int]:
        """Ids of the ``k`` best texts."""
        words = "".join(character if character.isalnum() else " " for character in query)
        if not words.strip():
            return []
        searcher = self._index.searcher()
        parsed, _ = self._index.parse_query_lenient(words, ["text"])
        found = searcher.search(parsed, limit=k, count=False).hits
        return [int(number) for number in searcher.fast_field_values("id", [address for _, address in found])]
