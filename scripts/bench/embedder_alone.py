"""Embeds all passages of a data directory without the rest of an ingest, as the reference for the cost of that rest.

Prints one JSON line: the seconds for the whole embedding texts of the passages, and for their condensed texts, which
the service embeds by default. Opening the model is not counted.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
sys.path.insert(0, str(ROOT))

from sqlalchemy import select

from ragsvc.cli.process_tuning import keep_heap_small
from ragsvc.core.documents import Passage
from ragsvc.core.ids import DocumentId
from ragsvc.core.text.chunking import embedding_text
from ragsvc.core.text.condensing import condense
from ragsvc.inference.factory import open_embedder
from ragsvc.store.passage_rows import documents_table, passages_of
from ragsvc.store.sqlite_database import SqliteDatabase

_MOST_PASSAGES = 100_000


def read_texts(data_dir: Path) -> list[str]:
    """The embedding texts of all passages, in the order of the rows."""

    def read(connection) -> list[str]:
        texts: list[str] = []
        for document in connection.execute(select(documents_table.c.id)).scalars().all():
            for stored in passages_of(connection, DocumentId(document), after=None, limit=_MOST_PASSAGES):
                passage = Passage(stored.ordinal, stored.page, stored.start, stored.end, stored.text, stored.headings)
                texts.append(embedding_text(passage, title=stored.title, filename=stored.filename))
        return texts

    database = SqliteDatabase(data_dir / "ragsvc.sqlite")
    try:
        return database.read_sync(read)
    finally:
        database.close()


def main(data_dir: Path) -> None:
    keep_heap_small()  # as the service does
    texts = read_texts(data_dir)
    condensed_texts = [condense(text) for text in texts]
    embedder = open_embedder(data_dir=data_dir)
    embedder.embed_passages(texts[:8])
    begin = time.perf_counter()
    embedder.embed_passages(texts)
    whole = time.perf_counter()
    embedder.embed_passages(condensed_texts)
    condensed = time.perf_counter()
    embedder.close()
    print(json.dumps({"passages": len(texts), "whole_s": whole - begin, "condensed_s": condensed - whole}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
